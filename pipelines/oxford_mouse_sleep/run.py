"""Oxford Mouse Polysomnography Benchmark to stores: every recording with the states of its annotation files.

Run: python pipelines/oxford_mouse_sleep/run.py FOLDER --out stores/
FOLDER is what `brainmu fetch oxford-mouse-sleep` made, unpacked: <group>/recordings/*.edf and <group>/annotations/*.hyp.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import brainmu as bm

EPOCH = 4.0
CONSENSUS = "consensus_state_annotation"


def recording(path: Path) -> bm.Recording:
    """One recording with every annotation of it: the consensus, or the only one, is `scoring`."""
    rec = bm.read(path, id=path.stem, subject=re.split("[-_]", path.stem)[0], species="mouse", subject_meta={"group": path.parent.parent.name})
    found = {scorer: p for p in sorted((path.parent.parent / "annotations").glob("*.hyp")) if (scorer := scorer_of(path.stem, p.stem))}
    for scorer, p in found.items():
        alone = scorer == CONSENSUS or len(found) == 1
        rec.labels["scoring" if alone else f"scoring_{scorer}"] = hypnogram(p, "consensus" if scorer == CONSENSUS else scorer, rec)
    if not found:
        rec.warn("no annotation file fits its name: no states")
    return rec


def scorer_of(name: str, annotation: str) -> str:
    """Who made the annotation, if it is one of the recording `name`; else "". Its name holds parts of the recording's, then the scorer."""
    m = re.fullmatch(rf"(.+)_({CONSENSUS}|[A-Za-z]{{2,3}})", annotation)
    if m is None:
        return ""
    mine, parts = re.split("[-_]", name), re.split("[-_]", m[1])
    return m[2] if mine[0] == parts[0] and set(parts) <= set(mine) else ""


def hypnogram(path: Path, scorer: str, rec: bm.Recording) -> bm.Hypnogram:
    """Visbrain's stage-duration format: lines of a state and the time (s) at which it ends; lines with * are remarks."""
    names: list[str] = []
    moved = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        m = re.fullmatch(r"\s*([^*].*?)\s+([\d.]+)\s*", line)
        if m is None:
            continue
        stop = round(float(m[2]) / EPOCH)
        if "artefact" in m[1]:
            state = "ART"
        elif m[1] in ("awake", "non-REM", "REM"):
            state = m[1]
        else:  # sleep movement, undefined
            state, moved = "UNS", moved + max(stop - len(names), 0)
        names += [state] * (stop - len(names))
    if moved:
        rec.warn(f"{path.name}: {moved} epochs are sleep movement or undefined, which are not scored here")
    return bm.Hypnogram.from_stages(names, EPOCH, scorer=scorer, stage_set="rodent3")


def main(arguments: list[str] | None = None) -> None:
    """A store a recording."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives <id>.zarr each")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    found = sorted(args.folder.rglob("recordings/*.edf"))
    if not found:
        parser.error(f"{args.folder}: holds no recordings/*.edf: fetch them first")
    for path in found:
        rec = recording(path)
        bm.preprocess(rec, args.out / f"{rec.id}.zarr")
        print(rec)


if __name__ == "__main__":
    main()
