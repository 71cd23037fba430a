"""Haaglanden Medisch Centrum sleep staging database to stores: every night with the EDF+ scoring beside it.

Run: python pipelines/hmc_sleep/run.py FOLDER --out stores/
FOLDER is what `brainmu fetch hmc-sleep` made.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import brainmu as bm


def recording(path: Path) -> bm.Recording:
    """One patient's night: SN001.edf with SN001_sleepscoring.edf."""
    return bm.read(path, annotations=path.with_name(f"{path.stem}_sleepscoring.edf"), id=path.stem, subject=path.stem, species="human")


def main(arguments: list[str] | None = None) -> None:
    """A store a night."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives <id>.zarr each")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    found = [p for p in sorted(args.folder.rglob("SN*.edf")) if "_" not in p.stem]
    if not found:
        parser.error(f"{args.folder}: holds no SN*.edf: fetch them first")
    for path in found:
        rec = recording(path)
        bm.preprocess(rec, args.out / f"{rec.id}.zarr")
        print(rec)


if __name__ == "__main__":
    main()
