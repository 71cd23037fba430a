"""The page in a real Chromium: nothing is requested, everything is shown, nothing is cut off at the width of a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from PIL import Image

from brainmu.report import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome", "chrome") if (p := shutil.which(n))), None)


def chromium(tmp_path, url, *flags):
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    given = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}",
    ]  # fmt: skip
    done = subprocess.run([CHROMIUM, *given, *flags, url], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory, mouse):
    return write_report([mouse.recording, ("stager", mouse.model), ("ripples", mouse.events)], tmp_path_factory.mktemp("page") / "r.html")


@pytest.fixture
def server(page):
    """A server that knows one page and remembers what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            probe = b"<!doctype html><body style='margin:0'><iframe src='/r.html' style='width:390px;height:3000px;border:0'></iframe>"
            body = {"/r.html": page.read_bytes(), "/phone.html": probe}.get(self.path)
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()
        thread.join()


def test_the_page_asks_for_nothing_and_shows_its_content(tmp_path, server):
    base, asked = server
    dom = chromium(tmp_path, f"{base}/r.html", "--dump-dom")
    assert [a for a in asked if a != "/favicon.ico"] == ["/r.html"]
    assert dom.count("<img") >= 6 and "Provenance" in dom and "<script" not in dom


@pytest.mark.parametrize(("path", "width"), [("r.html", 1280), ("phone.html", 600)])
def test_the_screenshot_is_not_blank(tmp_path, server, path, width):
    base, _ = server
    shot = tmp_path / "shot.png"
    chromium(tmp_path, f"{base}/{path}", f"--window-size={width},3000", f"--screenshot={shot}")
    image = np.asarray(Image.open(shot).convert("RGB"))[:, : 390 if path == "phone.html" else None]
    assert image.shape[0] == 3000
    for top in range(0, 3000, 600):  # every screenful holds something
        assert image[top : top + 600].std() > 5
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 200  # pictures, not only text


def test_nothing_is_wider_than_a_phone(tmp_path, page):
    # Content wider than 390 px would make the page scroll sideways: measured by a script of the test's own.
    html = page.read_text()
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    script = "<script>document.title='WIDTH '+document.documentElement.scrollWidth+' '+[...document.images].every(i=>i.complete&&i.naturalWidth>0)</script>"
    (tmp_path / "r.html").write_text(html.replace("</body>", script + "</body>"))
    frame = "<script>onload=()=>{document.title=document.querySelector('iframe').contentDocument.title}</script>"
    (tmp_path / "frame.html").write_text(f"<iframe src='r.html' style='width:390px;height:3000px;border:0'></iframe>{frame}")
    dom = chromium(tmp_path, f"file://{tmp_path}/frame.html", "--dump-dom", "--allow-file-access-from-files")
    assert "<title>WIDTH 390 true</title>" in dom, dom[:500]
