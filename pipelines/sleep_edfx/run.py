"""Sleep-EDF Expanded to stores: every night with the hypnogram beside it.

Run: python pipelines/sleep_edfx/run.py FOLDER --out stores/
FOLDER is what `brainmu fetch sleep-edfx` made.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import brainmu as bm


def recording(path: Path) -> bm.Recording:
    """One night. SC4ssN and ST7ssN: subject ss, night N; the hypnogram is found by its name."""
    night = path.name[:6]
    study = {"SC": "cassette", "ST": "telemetry"}.get(night[:2], "")
    return bm.read(path, id=night, subject=night[:5], species="human", subject_meta={"night": night[5], "study": study})


def main(arguments: list[str] | None = None) -> None:
    """A store a night."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives <id>.zarr each")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    found = sorted(args.folder.rglob("*-PSG.edf"))
    if not found:
        parser.error(f"{args.folder}: holds no *-PSG.edf: fetch them first")
    for path in found:
        rec = recording(path)
        bm.preprocess(rec, args.out / f"{rec.id}.zarr")
        print(rec)


if __name__ == "__main__":
    main()
