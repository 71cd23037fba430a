"""CAP Sleep Database to stores: every night with the stages and CAP phases of its scoring table.

Run: python pipelines/cap_sleep/run.py FOLDER --out stores/
FOLDER is what `brainmu fetch cap-sleep` made. The scoring tables (.txt) give wall-clock times, so they are laid on the start that the EDF header states.
"""

from __future__ import annotations

import argparse
import re
from datetime import datetime
from pathlib import Path

import brainmu as bm

STAGES = {"S0": "W", "S1": "S1", "S2": "S2", "S3": "S3", "S4": "S4", "REM": "R", "MT": "ART"}
EPOCH = 30.0
DISORDERS = {
    "n": "healthy", "nfle": "nocturnal frontal lobe epilepsy", "brux": "bruxism", "ins": "insomnia", "narco": "narcolepsy",
    "plm": "periodic leg movements", "rbd": "REM behaviour disorder", "sdb": "sleep-disordered breathing",
}  # fmt: skip


def recording(path: Path) -> bm.Recording:
    """One night: n1.edf with n1.txt; the letters of the name say the group."""
    group = DISORDERS.get(re.sub(r"\d+$", "", path.stem), "")
    rec = bm.read(path, id=path.stem, subject=path.stem, species="human", subject_meta={"group": group})
    table = path.with_suffix(".txt")
    if table.exists():
        rec.labels |= scoring(table.read_text(encoding="latin-1"), datetime.fromisoformat(rec.source["started_at_local"]), rec)
    else:
        rec.warn(f"{table.name} is not there: no stages")
    return rec


def scoring(text: str, start: datetime, rec: bm.Recording) -> dict[str, bm.Hypnogram | bm.EventTable]:
    """The labels of a scoring table. Its columns are tab-separated; some tables have no column of positions."""
    lines = text.splitlines()
    head = next((i for i, line in enumerate(lines) if line.startswith("Sleep Stage")), None)
    if head is None:
        raise bm.BrainmuError(f"{rec.id}.txt: has no line that begins with 'Sleep Stage': it is no CAP scoring table")
    names = [re.sub(r"\W.*", "", c).lower() for c in lines[head].split("\t")]
    when, event, duration = names.index("time"), names.index("event"), names.index("duration")
    stages: list[tuple[float, str]] = []
    phases: list[tuple[float, float, str]] = []
    for line in lines[head + 1 :]:
        cells = [c.strip() for c in line.split("\t")]
        if len(cells) <= max(when, event, duration):
            continue
        hour, minute, second = (int(x) for x in re.split("[:.]", cells[when])[:3])
        # The table knows no date: what lies before the start belongs to the next day.
        t = float((hour * 3600 + minute * 60 + second - start.hour * 3600 - start.minute * 60 - start.second) % 86400)
        if cells[event].startswith("SLEEP-"):
            stages.append((t, cells[event].removeprefix("SLEEP-")))
        elif cells[event].startswith("MCAP-"):
            phases.append((t, t + float(cells[duration]), cells[event].removeprefix("MCAP-")))
    out: dict[str, bm.Hypnogram | bm.EventTable] = {}
    if stages:
        out["scoring"] = hypnogram(stages, rec)
    if phases:
        a, b, kind = zip(*phases)
        out["cap"] = bm.EventTable(a, b, kind=kind)
    return out


def hypnogram(stages: list[tuple[float, str]], rec: bm.Recording) -> bm.Hypnogram:
    """Stages on the grid that begins with the first of them; epochs that the table leaves out are not scored."""
    first = stages[0][0]
    index = [round((t - first) / EPOCH) for t, _ in stages]
    names = ["UNS"] * (max(index) + 1)
    for i, (_, s) in zip(index, stages):
        names[i] = STAGES.get(s, "UNS")
    if "UNS" in names:
        rec.warn(f"{names.count('UNS')} of {len(names)} epochs are not scored in the table")
    return bm.Hypnogram.from_stages(names, EPOCH, first, rk=True, stage_set="aasm5", scorer="expert, R&K")


def main(arguments: list[str] | None = None) -> None:
    """A store a night."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives <id>.zarr each")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    found = sorted(args.folder.rglob("*.edf"))
    if not found:
        parser.error(f"{args.folder}: holds no *.edf: fetch them first")
    for path in found:
        rec = recording(path)
        bm.preprocess(rec, args.out / f"{rec.id}.zarr")
        print(rec)


if __name__ == "__main__":
    main()
