"""Draw the report of a synthetic mouse in a real browser. Writes report_page.png beside this file; needs Chromium.

Usage: python docs/figures/report_page.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

import brainmu as bm

HERE = Path(__file__).parent
NAMES = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    browser = next((p for n in NAMES if (p := shutil.which(n))), None)
    if browser is None:
        sys.exit(f"no Chromium on this machine (looked for {', '.join(NAMES)}): install one to draw the page")
    recording, _ = bm.synth.recording(hours=1.5, seed=0)
    rules = bm.SleepStager(stages="rodent3", epoch=4.0, method="rules").predict(recording)
    ripples = bm.find_events(recording, kind="ripple", hypnogram=rules)
    with tempfile.TemporaryDirectory() as folder:
        page = bm.write_report([recording, ("rules", rules), ("ripples", ripples)], Path(folder) / "report.html", title="A synthetic mouse")
        shot = Path(folder) / "shot.png"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1240,1900", f"--user-data-dir={folder}/profile"]
        subprocess.run([browser, *flags, f"--screenshot={shot}", page.as_uri()], check=True, capture_output=True, timeout=300)
        image = Image.open(shot).convert("RGB").resize((930, 1425), Image.Resampling.LANCZOS)
    image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(HERE / "report_page.png", optimize=True)


if __name__ == "__main__":
    main()
