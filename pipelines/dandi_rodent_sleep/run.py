"""Rodent recordings from DANDI to stores: every NWB file of a folder.

Run: python pipelines/dandi_rodent_sleep/run.py FOLDER --out stores/
FOLDER is what `brainmu fetch dandi-000044`, `dandi-000056`, `dandi-000059` or `dandi-000552` made.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import brainmu as bm


def recording(path: Path) -> bm.Recording:
    """One session; its tables of sleep states become the label `scoring` in 1-s epochs."""
    return bm.read(path)


def main(arguments: list[str] | None = None) -> None:
    """A store a session."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives <id>.zarr each")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    found = sorted(args.folder.rglob("*.nwb"))
    if not found:
        parser.error(f"{args.folder}: holds no *.nwb: fetch them first")
    for path in found:
        rec = recording(path)
        bm.preprocess(rec, args.out / f"{rec.id}.zarr")
        print(rec)


if __name__ == "__main__":
    main()
