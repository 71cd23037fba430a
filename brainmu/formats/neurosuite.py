"""Neurosuite folders: .xml with .dat, .lfp or .eeg, .res.N/.clu.N, .evt, .nrs, and Epoch_TS.csv; buzcode's SleepState where present."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Recording, Signal, Spikes
from brainmu.errors import FormatError, InputError, NotFoundError
from brainmu.formats.arrays import load_array, open_array
from brainmu.formats.sources import ArrayFile, need_file
from brainmu.formats.timing import seconds

__all__ = ["bases", "detect", "read"]

_PARTS = (".lfp", ".eeg", ".dat")


def bases(folder: Path) -> list[str]:
    """Base names of the sessions in a folder: an .xml of ndManager, or .res.N/.clu.N pairs."""
    found = {p.stem for p in folder.glob("*.xml") if _is_parameters(p)}
    found |= {p.name[: p.name.rindex(".res.")] for p in folder.glob("*.res.*") if re.search(r"\.res\.\d+$", p.name)}
    return sorted(found)


def detect(path: Path) -> bool:
    """Whether `path` is a Neurosuite .xml (or a file beside one), or a folder with a session."""
    if path.is_dir():
        return bool(bases(path))
    if path.suffix.lower() == ".xml":
        return _is_parameters(path)
    return path.suffix.lower() in _PARTS and (path.with_suffix(".xml")).is_file()


def _is_parameters(path: Path) -> bool:
    with path.open("rb") as f:
        head = f.read(400)
    return b"<parameters" in head and b"<neuroscope" not in head


def read(path: Path, *, base: str | None = None, mua: bool = False, wideband: bool = False, rate: float | None = None) -> Recording:
    """One session.

    Parameters
    ----------
    base : str
        Base name, where the folder holds several sessions.
    mua : bool
        Keep cluster 1 of each shank (multi-unit activity) as units of quality "mua". Cluster 0 (artefacts) is never kept.
    wideband : bool
        Read the .dat too, as signal "wideband". Without an .lfp or .eeg it is read anyway.
    rate : float, Hz
        Sampling rate, where there is no .xml.

    Raises
    ------
    FormatError
        If the .xml, or the size of a file, does not fit.
    """
    folder = path if path.is_dir() else path.parent
    base = base if base is not None else (None if path.is_dir() else path.stem)
    if base is None:
        found = bases(folder)
        if len(found) != 1:
            raise FormatError(f"{folder}: holds {len(found)} sessions ({', '.join(found)}): name one with base=")
        base = found[0]
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", base))
    rec.source = {"format": "neurosuite", "files": [], "warnings": []}
    xml = folder / f"{base}.xml"
    info = _parameters(_use(rec, xml)) if xml.exists() else None
    if info is None and rate is None:
        raise NotFoundError(f"{xml}: no such file, so the sampling rate is unknown: put the .xml back, or pass rate=20000")
    clock = rate if rate is not None else info["rate"]  # type: ignore[index]
    if info is not None:
        _signals(folder, base, info, rec, wideband)
    _spikes(folder, base, clock, info, rec, mua)
    for file in sorted(folder.glob(f"{base}.*evt*")) + sorted(folder.glob(f"{base}.evt")):
        if re.search(r"\.evt(\.|$)|\.evt$", file.name) and str(file.resolve()) not in rec.source["files"]:
            name, table = _events(_use(rec, file), base, rec)
            rec.labels[name] = table
    _epochs(folder, rec)
    _sleep_states(folder, base, rec)
    if (nrs := folder / f"{base}.nrs").exists():
        _use(rec, nrs)
    if not rec.signals and rec.spikes is None and not rec.labels:
        raise FormatError(f"{folder}: {base} has an .xml and neither .lfp, .eeg, .dat, .res.N nor .evt beside it: nothing to read")
    return rec


def _use(rec: Recording, path: Path) -> Path:
    rec.source["files"].append(str(path.resolve()))
    return path


# -- signals --------------------------------------------------------------------------------------------------------
def _parameters(xml: Path) -> dict[str, Any]:
    need_file(xml, "Neurosuite parameters")
    try:
        root = ET.parse(xml).getroot()
    except ET.ParseError as error:
        raise FormatError(f"{xml}: not well-formed XML ({error}): restore it from a backup, or write it anew in ndManager") from None

    def number(path: str, positive: bool = True) -> float:
        text = root.findtext(path)
        try:
            value = float(text) if text is not None else float("nan")
        except ValueError:
            value = float("nan")
        if not np.isfinite(value) or (positive and value <= 0):
            raise FormatError(f"{xml}: {path} is {text!r}, expected a positive number")
        return value

    groups: list[list[tuple[int, bool]]] = []
    for group in root.findall("anatomicalDescription/channelGroups/group"):
        groups.append([(int(c.text or -1), c.get("skip") == "1") for c in group.findall("channel")])
    spike_groups = [[int(c.text or -1) for c in g.findall("channels/channel")] for g in root.findall("spikeDetection/channelGroups/group")]
    units = {
        (int(u.findtext("group") or -1), int(u.findtext("cluster") or -1)): {
            "region": (u.findtext("structure") or "").strip(), "type": (u.findtext("type") or "").strip(), "isolation": (u.findtext("quality") or "").strip(),
        }
        for u in root.findall("units/unit")
    }  # fmt: skip
    return {
        "n_channels": int(number("acquisitionSystem/nChannels")), "rate": number("acquisitionSystem/samplingRate"),
        "bits": int(number("acquisitionSystem/nBits")), "volts": number("acquisitionSystem/voltageRange"), "gain": number("acquisitionSystem/amplification"),
        "lfp_rate": float(root.findtext("fieldPotentials/lfpSamplingRate") or 1250.0), "groups": groups, "spike_groups": spike_groups, "units": units,
        "date": (root.findtext("generalInfo/date") or "").strip(),
    }  # fmt: skip


def _signals(folder: Path, base: str, info: dict[str, Any], rec: Recording, wideband: bool) -> None:
    lfp = next((p for s in (".lfp", ".eeg") if (p := folder / f"{base}{s}").exists()), None)
    dat = folder / f"{base}.dat"
    if lfp is not None:
        rec.signals["lfp"] = _signal(_use(rec, lfp), info, info["lfp_rate"])
    if dat.exists():
        if wideband or lfp is None:
            rec.signals["wideband" if lfp is not None else "lfp"] = _signal(_use(rec, dat), info, info["rate"])
        else:
            rec.source["notes"] = f"{dat.name} lies beside {lfp.name} and was not read (pass wideband=True to read both)"


def _signal(path: Path, info: dict[str, Any], rate: float) -> Signal:
    n, bits = info["n_channels"], info["bits"]
    if bits not in (12, 14, 16, 32):
        raise FormatError(f"{path}: nBits of the .xml is {bits}, expected 12, 14, 16 or 32")
    try:
        values = open_array(path, ArrayFile(str(path), dtype="<i4" if bits == 32 else "<i2", n_channels=n))
    except FormatError as error:
        if "multiple" in str(error):
            came = f"{path.stat().st_size} bytes are not a multiple of the {n} channels that its .xml names"
            raise FormatError(f"{path}: {came}: correct nChannels, or copy the file again") from None
        raise
    table = pd.DataFrame({"name": [f"ch{i}" for i in range(n)], "group": -1, "skip": False, "order": range(n)})
    order = 0
    for g, group in enumerate(info["groups"]):
        for channel, skip in group:
            if not 0 <= channel < n:
                raise FormatError(f"{path.with_suffix('.xml')}: channel {channel} of group {g + 1} does not exist, there are {n} (counted from 0)")
            table.loc[channel, ["group", "skip", "order"]] = [g + 1, skip, order]
            order += 1
    # The voltage range of the .xml is peak to peak, in volts at the converter.
    lsb = info["volts"] / 2.0**bits / info["gain"] * 1e6
    return Signal(values, rate=rate, unit="uV", kind="lfp", channels=table, scale=lsb)


# -- spikes ---------------------------------------------------------------------------------------------------------
def _integers(path: Path) -> NDArray[np.int64]:
    need_file(path, "one whole number a line")
    try:
        return np.loadtxt(path, dtype=np.int64, ndmin=1)
    except ValueError as error:
        raise FormatError(f"{path}: {str(error).split(';')[0]}, expected one whole number a line") from None


def _spikes(folder: Path, base: str, rate: float, info: dict[str, Any] | None, rec: Recording, mua: bool) -> None:
    shanks = sorted(int(m.group(1)) for p in folder.glob(f"{base}.res.*") if (m := re.search(r"\.res\.(\d+)$", p.name)))
    times, ids, rows = [], [], []
    dropped = {0: 0, 1: 0}
    for shank in shanks:
        res, clu = folder / f"{base}.res.{shank}", folder / f"{base}.clu.{shank}"
        if not clu.exists():
            rec.warn(f"{res.name} has no {clu.name} beside it: the spikes of shank {shank} are not sorted and were left out")
            continue
        samples, clusters = _integers(_use(rec, res)), _integers(_use(rec, clu))
        stated, clusters = int(clusters[0]), clusters[1:]
        if len(samples) != len(clusters):
            raise FormatError(f"{clu}: {len(clusters)} cluster numbers (after the count) for {len(samples)} spikes in {res.name}: one of them is truncated")
        if len(samples) and samples.min() < 0:
            raise FormatError(f"{res}: holds the sample {samples.min()}, expected numbers from 0")
        found = np.unique(clusters)
        if len(found) != stated:
            rec.warn(f"{clu.name} says {stated} clusters and holds {len(found)}; all that it holds were read")
        for cluster in (0, 1):
            dropped[cluster] += int((clusters == cluster).sum()) * (cluster == 0 or not mua)
        for cluster in found[found >= (1 if mua else 2)]:
            mine = clusters == cluster
            extra = info["units"].get((shank, int(cluster)), {}) if info else {}
            rows.append({"id": len(rows), "group": shank, "cluster": int(cluster), "quality": "mua" if cluster == 1 else "good", "n_spikes": int(mine.sum()),
                         "region": extra.get("region", ""), "type": extra.get("type", "")})  # fmt: skip
            times.append(samples[mine] / rate)
            ids.append(np.full(mine.sum(), rows[-1]["id"], dtype=np.int32))
    if not rows:
        return
    rec.spikes = Spikes(np.concatenate(times), np.concatenate(ids), pd.DataFrame(rows))
    if any(dropped.values()):
        kept = "" if mua else f" and {dropped[1]} of cluster 1 (multi-unit; pass mua=True to keep them)"
        rec.warn(f"spikes: left out {dropped[0]} of cluster 0 (artefacts){kept}; {len(rec.spikes)} spikes of {len(rows)} units remain")


# -- labels ---------------------------------------------------------------------------------------------------------
def _events(path: Path, base: str, rec: Recording) -> tuple[str, EventTable]:
    """A .evt file: ms and text a line. "X start", "X peak", "X stop" make one event of three lines."""
    need_file(path, "Neurosuite events")
    times, texts = [], []
    for k, line in enumerate(path.read_text(encoding="latin-1").splitlines(), start=1):
        if not line.strip():
            continue
        head, _, text = line.strip().partition("\t") if "\t" in line else line.strip().partition(" ")
        try:
            times.append(float(head) / 1000)
        except ValueError:
            raise FormatError(f"{path}, line {k}: is {line[:60]!r}, expected milliseconds and a description") from None
        texts.append(text.strip())
    suffix = [p for p in path.name.removeprefix(base).split(".") if p and p != "evt"]
    ripple = any("rip" in s.lower() for s in (*suffix, *texts[:1]))
    name = "ripples" if ripple else "_".join(["events", *suffix])
    role = [next((r for r in ("start", "peak", "stop", "end") if re.search(rf"\b{r}\b", t.lower())), "") for t in texts]
    table = EventTable(times, times, kind=texts) if not all(role) else _triples(path, times, role, "ripple" if ripple else name, rec)
    table.attrs["source"] = path.name
    return name, table


def _triples(path: Path, times: list[float], role: list[str], kind: str, rec: Recording) -> EventTable:
    start, stop, peak, loose = [], [], [], 0
    i = 0
    while i < len(role):
        j = i + 1
        while j < len(role) and role[j] == "peak":
            j += 1
        if role[i] == "start" and j < len(role) and role[j] in ("stop", "end") and times[j] >= times[i]:
            start.append(times[i])
            stop.append(times[j])
            peak.append(times[i + 1] if j > i + 1 else (times[i] + times[j]) / 2)
            i = j + 1
        else:
            loose += 1
            i += 1
    if loose:
        rec.warn(f"{path.name}: {loose} lines are not part of a start-(peak-)stop sequence and were left out")
    return EventTable(start, stop, peak, kind=kind)


def _epochs(folder: Path, rec: Recording) -> None:
    path = folder / "Epoch_TS.csv"
    if not path.exists():
        return
    bounds = np.asarray(load_array(_use(rec, path), ArrayFile(str(path), delimiter=",")), dtype=np.float64).reshape(-1, 2)
    try:
        rec.labels["epochs"] = EventTable(bounds[:, 0], bounds[:, 1], kind="epoch", content=[f"epoch {k + 1}" for k in range(len(bounds))])
    except InputError as error:
        raise FormatError(f"{path}: {error}") from None


def _sleep_states(folder: Path, base: str, rec: Recording) -> None:
    """buzcode's SleepState.states.mat: one state a second in SleepState.idx."""
    from brainmu.core import Hypnogram

    path = folder / f"{base}.SleepState.states.mat"
    if not path.exists():
        return
    states = np.asarray(load_array(_use(rec, path), ArrayFile(str(path), key="SleepState.idx.states"))).ravel()
    t = seconds(load_array(path, ArrayFile(str(path), key="SleepState.idx.timestamps")), "s", None, str(path))
    if len(states) != len(t) or len(t) < 2 or not np.allclose(np.diff(t), 1.0):
        raise FormatError(f"{path}: SleepState.idx holds {len(states)} states at {len(t)} times, expected one a second without a gap")
    # A state at second t describes the second that is centred on it.
    rec.labels["scoring"] = Hypnogram.from_codes(states.astype(int), "buzcode", 1.0, float(t[0]) - 0.5)
