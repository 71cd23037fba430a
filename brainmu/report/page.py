"""The look of the page: system fonts, light and dark, a table of contents that stays, tables and figures that scroll on a phone, print."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root{--bg:#fbfbfa;--ink:#1b1f24;--soft:#5a636e;--line:#dfe2e6;--card:#fff;--accent:#0072b2;--warn:#a14a00;--warnbg:#fff4e8;--notebg:#f1f3f5}
@media (prefers-color-scheme:dark){:root{--bg:#15181c;--ink:#e6e8eb;--soft:#9aa4af;--line:#323840;--card:#1d2126;--accent:#6cb8e8;--warn:#f0a860;--warnbg:#2e2418;--notebg:#20252b}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:3.5rem;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header{max-width:1240px;margin:0 auto;padding:2.4rem 1.5rem .6rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem;overflow-wrap:anywhere}
.lead{font-size:1.06rem;color:var(--soft);margin:0;max-width:60rem}
.page{max-width:1240px;margin:0 auto;padding:0 1.5rem 4rem;display:grid;grid-template-columns:13.5rem minmax(0,1fr);gap:2.2rem;align-items:start}
nav{position:sticky;top:1rem;max-height:calc(100vh - 2rem);overflow-y:auto;font-size:.88rem;padding-top:1.9rem}
nav ol{list-style:none;margin:0;padding:0;border-left:2px solid var(--line)}
nav a{display:block;padding:.2rem .8rem;color:var(--soft);text-decoration:none;overflow-wrap:anywhere}
nav a:hover,nav a:focus{color:var(--accent)}
nav .l3 a{padding-left:1.7rem;font-size:.95em}
main{min-width:0;max-width:60rem}
h2{font-size:1.38rem;line-height:1.25;margin:2.2rem 0 .6rem;padding-top:.5rem;border-top:1px solid var(--line);overflow-wrap:anywhere}
h3{font-size:1.06rem;margin:1.7rem 0 .4rem;overflow-wrap:anywhere}
p{margin:.5rem 0;max-width:46rem}
.verdict{font-size:1.06rem;border-left:4px solid var(--accent);padding:.1rem 0 .1rem .9rem;margin:.9rem 0}
figure{margin:1.1rem 0 1.5rem}
figure .scroll{background:#fff;border:1px solid var(--line);border-radius:8px;padding:.6rem}
img{display:block;width:100%;height:auto;margin:0 auto}
figcaption{font-size:.88rem;color:var(--soft);margin:.5rem .2rem 0;max-width:52rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;margin:.8rem 0 1.2rem;font-variant-numeric:tabular-nums}
caption{caption-side:bottom;text-align:left;font-size:.98em;color:var(--soft);padding:.45rem 0 0}
th,td{text-align:left;padding:.32rem .9rem .32rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;border-bottom-width:2px;white-space:nowrap}
td.n{text-align:right;white-space:nowrap}
aside{border-left:4px solid var(--line);background:var(--notebg);padding:.55rem .9rem;margin:.9rem 0;font-size:.93rem;border-radius:0 6px 6px 0;max-width:52rem;overflow-wrap:anywhere}
aside ul{margin:.25rem 0 0;padding-left:1.15rem}
aside.warning{border-color:var(--warn);background:var(--warnbg)}
aside.warning strong{color:var(--warn)}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:.5rem 1.4rem;margin:.9rem 0}
.facts div{border-top:1px solid var(--line);padding-top:.3rem;min-width:0}
dt{font-size:.8rem;color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
details{border:1px solid var(--line);border-radius:6px;margin:.6rem 0;background:var(--card)}
summary{cursor:pointer;padding:.5rem .9rem;font-weight:600}
pre{margin:0;padding:.2rem .9rem .9rem;font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere}
@media (max-width:900px){
 header{padding:1.4rem 1rem .4rem}h1{font-size:1.5rem}
 .page{display:block;padding:0 1rem 3rem}
 nav{top:0;z-index:2;background:var(--bg);padding:.35rem 0;margin:0 -1rem;border-bottom:1px solid var(--line);overflow-x:auto}
 nav ol{display:flex;border:0;white-space:nowrap;padding:0 .4rem}nav .l3{display:none}nav a{padding:.35rem .6rem}
 figure{margin-left:-.5rem;margin-right:-.5rem}figure .scroll{padding:.4rem}
 figure img{min-width:620px}figcaption{margin-left:.5rem;margin-right:.5rem}
}
@media print{
 :root{--bg:#fff;--ink:#000;--soft:#333;--line:#bbb;--card:#fff;--accent:#004c78;--warn:#7a3800;--warnbg:#fff;--notebg:#fff}
 nav{display:none}.page{display:block;padding:0}header{padding:0 0 .5rem}body{font-size:10.5pt}
 h2,h3{break-after:avoid}figure,table,aside{break-inside:avoid}.scroll{overflow:visible}figure .scroll{border:0;padding:0}
 details::details-content{content-visibility:visible;block-size:auto}
}
""".strip()
