"""Neurosuite sessions of the CRCNS hippocampus sets to stores: every unpacked session folder.

Run: python pipelines/crcns_hippocampus/run.py FOLDER --out stores/ [--species rat]
FOLDER holds sessions, a folder each, with <session>.xml, .eeg or .lfp, .res.N, .clu.N.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import brainmu as bm


def recording(path: Path) -> bm.Recording:
    """One session folder; the set's animals are rats. The letters before the first dot or underscore name the animal."""
    return bm.read(path, id=path.name, subject=path.name.replace("_", ".").split(".")[0], species="rat")


def main(arguments: list[str] | None = None) -> None:
    """A store a session."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives <id>.zarr each")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    found = sorted({p.parent for p in args.folder.rglob("*.clu.1")})
    if not found:
        parser.error(f"{args.folder}: holds no session (*.clu.1): fetch them first")
    for path in found:
        rec = recording(path)
        bm.preprocess(rec, args.out / f"{rec.id}.zarr")
        print(rec)


if __name__ == "__main__":
    main()
