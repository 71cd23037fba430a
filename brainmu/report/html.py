"""A report as one HTML file: text, figures, tables, warnings and provenance, escaped, without scripts or outside requests."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainmu.errors import InputError, OutputExistsError, StoreError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Report"]


class Report:
    """A page that is built from the top down and written once.

    Parameters
    ----------
    title : str
    lead : str
        A sentence or two under the title.
    lang : str
        Language of the text.

    Notes
    -----
    Every text is plain and escaped. The page holds no clock, host or path of its own: the same calls give the same bytes.

    Examples
    --------
    >>> r = Report("m1, day 2", lead="Two hours of one mouse.")
    >>> r.section("Sleep", "Scored by hand.")
    >>> r.table([["NREM", 0.61], ["REM", 0.08]], columns=["stage", "share"])
    >>> "NREM" in r.html() and "<script" not in r.html()
    True
    """

    def __init__(self, title: str, lead: str = "", lang: str = "en") -> None:
        if not str(title).strip():
            raise InputError("the report has an empty title, expected a few words")
        self.title, self.lead, self.lang = str(title), str(lead), str(lang)
        self._parts: list[str] = []
        self._toc: list[tuple[int, str, str]] = []
        self._figures = self._tables = 0
        self._open = False

    # -- text -------------------------------------------------------------------------------------------------------
    def section(self, heading: str, *text: str) -> None:
        """Begin a section, listed in the table of contents."""
        if self._open:
            self._parts.append("</section>")
        anchor = self._anchor(2, heading)
        self._parts.append(f'<section id="{anchor}"><h2>{escape(heading)}</h2>')
        self._open = True
        self.text(*text)

    def subsection(self, heading: str, *text: str) -> None:
        """Begin a part of a section, listed below it in the table of contents."""
        anchor = self._anchor(3, heading)
        self._parts.append(f'<h3 id="{anchor}">{escape(heading)}</h3>')
        self.text(*text)

    def text(self, *paragraphs: str) -> None:
        """Plain paragraphs."""
        self._parts.extend(f"<p>{escape(p)}</p>" for p in paragraphs if p)

    def warning(self, *sentences: str) -> None:
        """What a reader must know before believing what follows."""
        self._box("warning", "Mind", sentences)

    def note(self, *sentences: str) -> None:
        """What is lacking or was left out, and why."""
        self._box("note", "Not shown", sentences)

    def verdict(self, sentence: str) -> None:
        """The result of a section in one sentence."""
        self._parts.append(f'<p class="verdict">{escape(sentence)}</p>')

    def _box(self, kind: str, word: str, sentences: Sequence[str]) -> None:
        kept = list(dict.fromkeys(s for s in sentences if s))
        if len(kept) == 1:
            self._parts.append(f'<aside class="{kind}"><strong>{word}.</strong> {escape(kept[0])}</aside>')
        elif kept:
            items = "".join(f"<li>{escape(s)}</li>" for s in kept)
            self._parts.append(f'<aside class="{kind}"><strong>{word}.</strong><ul>{items}</ul></aside>')

    # -- figures and tables -----------------------------------------------------------------------------------------
    def figure(self, figure: Figure, caption: str, *, alt: str | None = None, vector: bool = False) -> None:
        """A figure, inline at twice its size in pixels (or as SVG).

        Parameters
        ----------
        caption : str
            Numbered for you; the first sentence serves as the alternative text where `alt` is None.
        """
        self._figures += 1
        kind, data = ("svg+xml", _svg(figure)) if vector else ("png", _png(figure))
        width, height = (round(float(v) * 100) for v in figure.get_size_inches())
        words = alt if alt is not None else caption.split(". ")[0]
        self._parts.append(
            f'<figure><div class="scroll"><img src="data:image/{kind};base64,{base64.b64encode(data).decode()}" alt="{escape(words)}" '
            f'width="{width}" height="{height}" style="max-width:{width}px"></div>'
            f"<figcaption><b>Figure {self._figures}.</b> {escape(caption)}</figcaption></figure>"
        )

    def table(self, rows: pd.DataFrame | Iterable[Sequence[Any]], *, columns: Sequence[str] | None = None, caption: str = "") -> None:
        """A table; numbers stand to the right and are shown with at most four significant digits.

        Raises
        ------
        InputError
            If a row has another number of cells than there are columns.
        """
        if hasattr(rows, "columns"):
            columns, body = [str(c) for c in rows.columns], rows.itertuples(index=False)  # type: ignore[union-attr]
        else:
            body = iter(rows)
        self._tables += 1
        cells = [list(r) for r in body]
        heads = list(columns or [])
        for r in cells:
            if heads and len(r) != len(heads):
                raise InputError(f"table row {r} has {len(r)} cells, expected {len(heads)} ({', '.join(heads)})")
        head = f"<thead><tr>{''.join(f'<th>{escape(str(h))}</th>' for h in heads)}</tr></thead>" if heads else ""
        lines = "".join(f"<tr>{''.join(_cell(v) for v in r)}</tr>" for r in cells)
        # The caption stands outside, so that it does not scroll away with a wide table.
        words = f'<p class="caption"><b>Table {self._tables}.</b> {escape(caption)}</p>' if caption else ""
        label = f' aria-label="{escape(caption)}"' if caption else ""
        self._parts.append(f'<div class="scroll"><table{label}>{head}<tbody>{lines}</tbody></table></div>{words}')

    def comparison(self, rows: Iterable[Mapping[str, Any]], *, caption: str = "Planted against found.") -> None:
        """What was planted in a synthetic recording against what was found.

        Parameters
        ----------
        rows : mappings with ``quantity``, ``planted``, ``found``, and optionally ``unit``, ``ok`` (bool) and ``note``
        """
        # A table of rows fills what a row lacks with NaN.
        given = [{k: v for k, v in r.items() if not (isinstance(v, float) and np.isnan(v) and k not in ("planted", "found"))} for r in rows]
        for r in given:
            absent = {"quantity", "planted", "found"} - set(r)
            if absent:
                raise InputError(f"a planted-against-found row has {', '.join(map(str, r))}, expected also {', '.join(sorted(absent))}")
        judged, noted = any("ok" in r for r in given), any(r.get("note") for r in given)
        columns = ["quantity", "planted", "found", "unit", *(["recovered"] if judged else []), *(["note"] if noted else [])]
        body = []
        for r in given:
            ok = {True: "yes", False: "no"}.get(bool(r["ok"]) if r.get("ok") is not None else None, "–")  # type: ignore[arg-type]
            body.append([r["quantity"], r["planted"], r["found"], r.get("unit", ""), *([ok] if judged else []), *([r.get("note", "")] if noted else [])])
        self.table(body, columns=columns, caption=caption)

    def facts(self, pairs: Mapping[str, Any]) -> None:
        """Names and values, side by side; what is None, NaN or empty is left out."""
        known = {k: _plain(v) for k, v in pairs.items() if v is not None and str(v) not in ("", "nan")}
        items = "".join(f"<div><dt>{escape(str(k))}</dt><dd>{escape(v)}</dd></div>" for k, v in known.items())
        self._parts.append(f'<dl class="facts">{items}</dl>')

    def details(self, heading: str, content: Mapping[str, Any] | str) -> None:
        """A closed block that opens on click: configuration, versions, checksums."""
        body = content if isinstance(content, str) else _yaml(content)
        self._parts.append(f"<details><summary>{escape(heading)}</summary><pre>{escape(body)}</pre></details>")

    # -- out --------------------------------------------------------------------------------------------------------
    def html(self) -> str:
        """The page."""
        toc = "".join(f'<li class="l{depth}"><a href="#{anchor}">{escape(words)}</a></li>' for depth, anchor, words in self._toc)
        nav = f'<nav aria-label="Contents"><ol>{toc}</ol></nav>' if toc else ""
        lead = f'<p class="lead">{escape(self.lead)}</p>' if self.lead else ""
        body = "".join(self._parts) + ("</section>" if self._open else "")
        style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        return (
            f'<!doctype html>\n<html lang="{escape(self.lang)}"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width,initial-scale=1"><meta http-equiv="Content-Security-Policy" content="{policy}">'
            f'<meta name="generator" content="brainmu"><meta name="color-scheme" content="light dark"><title>{escape(self.title)}</title>'
            f"<style>{style}</style></head>\n<body><header><h1>{escape(self.title)}</h1>{lead}</header>\n"
            f'<div class="page">{nav}<main>\n{body}\n</main></div></body></html>\n'
        )

    def write(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page; it appears whole or not at all.

        Raises
        ------
        InputError
            If the path does not end in .html.
        OutputExistsError
            If it exists and `overwrite` is false.
        StoreError
            If it cannot be written.
        """
        p = check_output(path, overwrite)
        partial = p.with_name(f".{p.name}.partial")
        try:
            p.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(self.html(), encoding="utf-8")
            partial.replace(p)
        except OSError as error:
            raise StoreError(f"{p}: cannot be written ({error.strerror or error}): choose a folder with room that you may write to") from None
        finally:
            if partial.exists():
                partial.unlink()
        return p

    def _anchor(self, depth: int, heading: str) -> str:
        plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in heading.lower())
        base = "-".join(w for w in plain.split("-") if w) or "part"
        taken = {a for _, a, _ in self._toc}
        anchor, k = base, 2
        while anchor in taken:
            anchor, k = f"{base}-{k}", k + 1
        self._toc.append((depth, anchor, heading))
        return anchor


def check_output(path: str | Path, overwrite: bool) -> Path:
    """The path of a report, or the reason why none can be written there."""
    p = Path(path)
    if p.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{p}: the report is one HTML file, expected a name that ends in .html")
    if p.is_dir():
        raise OutputExistsError(f"{p}: is a folder, expected the name of a file to write")
    if p.exists() and not overwrite:
        raise OutputExistsError(f"{p}: exists already: pass --overwrite (overwrite=True) to replace it, or choose another name")
    return p


# -- images -----------------------------------------------------------------------------------------------------------------
def _png(figure: Figure) -> bytes:
    """PNG at 200 dots an inch, with a palette of 256 colours: a third of the size.

    Maximum coverage keeps rare colours (no channel off by more than 6 of 255 here); the usual median cut turned the few pixels of a stage grey.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    usual = figure.dpi
    figure.set_dpi(200)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    figure.set_dpi(usual)
    small = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    out = io.BytesIO()
    small.save(out, format="png", optimize=True)
    return out.getvalue()


def _svg(figure: Figure) -> bytes:
    from matplotlib import rc_context

    out = io.BytesIO()
    # A fixed salt makes the ids, and so the bytes, the same each time; letters become paths, so that no font is needed.
    with rc_context({"svg.hashsalt": "brainmu", "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


# -- words ------------------------------------------------------------------------------------------------------------------
def _number(v: Any) -> str | None:
    """A number as people write it; None for what is no number."""
    if isinstance(v, (bool, np.bool_)) or not isinstance(v, (int, float, np.integer, np.floating)):
        return None
    if isinstance(v, (int, np.integer)):
        return str(int(v)).replace("-", "−")
    if not np.isfinite(v):
        return "–"
    return f"{float(v):.4g}".replace("-", "−")


def _plain(v: Any) -> str:
    number = _number(v)
    if number is not None:
        return number
    if v is None:
        return "–"
    if isinstance(v, (bool, np.bool_)):
        return "yes" if v else "no"
    if isinstance(v, (list, tuple)):
        return ", ".join(_plain(x) for x in v)
    return str(v)


def _cell(v: Any) -> str:
    words = _plain(v)
    kind = " class=n" if _number(v) is not None else " class=long" if len(words) > 24 else ""
    return f"<td{kind}>{escape(words)}</td>"


def _yaml(content: Mapping[str, Any]) -> str:
    import yaml

    from brainmu.core.effect import jsonable

    return yaml.safe_dump(_rounded(jsonable(dict(content))), sort_keys=False, allow_unicode=True, width=110).rstrip()


def _rounded(value: Any) -> Any:
    """Floats to six significant digits, for reading; the result files hold all of them."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
