"""A Neurosuite folder: parameters, LFP, spikes by shank, events in ms, and buzcode's sleep states."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pandas as pd

from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Signal
from brainmu.errors import InputError
from brainmu.synth.native.blocks import hypnogram_of, say_lost_columns, voltages, write_counts
from brainmu.synth.native.one_clock import on_session

__all__ = ["write"]

_RATE, _BITS, _RANGE, _GAIN = 20_000, 16, 20, 1000
_STEP = _RANGE / 2**_BITS / _GAIN * 1e6  # uV
_STATES = {"WAKE": 1, "W": 1, "NREM": 3, "N1": 3, "N2": 3, "N3": 3, "REM": 5, "R": 5}


def write(rec: Recording, path: Path, name: str) -> None:
    """Write the folder `path`."""
    found = {k: s for k, s in voltages(rec).items() if s.kind == "lfp"}
    if not found and rec.spikes is None:
        raise InputError(f"{rec.id}: has neither LFP nor spikes, which is what Neurosuite holds")
    key, lfp = next(iter(found.items())) if found else ("", None)
    if lfp is not None and abs(lfp.start) > 0.5 / float(lfp.rate or 1):
        raise InputError(f"{rec.id}: {key} starts at {lfp.start:g} s, and Neurosuite counts from its first sample: shift the recording to start at 0")
    labels = on_session(rec, "Neurosuite", [key] if key else [])
    path.mkdir()
    left = [k for k in rec.signals if k != key]
    if left:
        rec.warn(f"Neurosuite: the signals {', '.join(left)} were left out, it holds one rate of LFP")
    shanks = _spikes(rec, path, name)
    (path / f"{name}.xml").write_text(_parameters(rec, lfp, shanks), encoding="utf-8")
    if lfp is not None:
        write_counts(rec, lfp, path / f"{name}.lfp", _STEP)
    scored = hypnogram_of(rec, "Neurosuite")
    taken: set[str] = set()
    for label, value in labels.items():
        if isinstance(value, Hypnogram):
            if label == scored:
                _states(rec, path, name, value)
        elif len(value):
            suffix = _suffix(label, taken)
            taken.add(suffix)
            _events(path / f"{name}.{suffix}.evt", label, value)
            if isinstance(value, EventTable):
                say_lost_columns(rec, "Neurosuite", label, value, "peak")
        else:
            rec.warn(f"Neurosuite: label {label!r} is empty and was left out")


def _suffix(label: str, taken: set[str]) -> str:
    plain = "".join(c for c in label if c.isalnum() or c == "_") or "evt"
    return plain if plain not in taken else next(f"{plain}{k}" for k in range(2, 10_000) if f"{plain}{k}" not in taken)


def _parameters(rec: Recording, lfp: Signal | None, shanks: dict[int, pd.DataFrame]) -> str:
    n = 1 if lfp is None else lfp.n_channels
    rate = 1250.0 if lfp is None else float(lfp.rate or 0)
    groups = [[*range(n)]]
    if lfp is not None and "group" in lfp.channels:
        groups = [np.flatnonzero(lfp.channels["group"] == g).tolist() for g in dict.fromkeys(lfp.channels["group"])]
    anatomy = "".join("<group>" + "".join(f'<channel skip="0">{c}</channel>' for c in g) + "</group>" for g in groups)
    units = "".join(
        f"<unit><group>{shank}</group><cluster>{u.cluster}</cluster><structure>{escape(str(u.region))}</structure>"
        f"<type>{escape(str(getattr(u, 'type', '')))}</type><quality>{escape(str(u.quality))}</quality></unit>"
        for shank, table in shanks.items()
        for u in table.itertuples()
    )
    date = rec.started_at.strftime("%Y-%m-%d") if rec.started_at is not None else ""
    return (
        '<?xml version="1.0"?>\n<parameters version="1.0" creator="ndManager-2.0.0">\n'
        f"<generalInfo><date>{date}</date><experimenters></experimenters><description></description><notes></notes></generalInfo>\n"
        f"<acquisitionSystem><nBits>{_BITS}</nBits><nChannels>{n}</nChannels><samplingRate>{_RATE}</samplingRate>"
        f"<voltageRange>{_RANGE}</voltageRange><amplification>{_GAIN}</amplification><offset>0</offset></acquisitionSystem>\n"
        f"<fieldPotentials><lfpSamplingRate>{rate:.12g}</lfpSamplingRate></fieldPotentials>\n"
        f"<anatomicalDescription><channelGroups>{anatomy}</channelGroups></anatomicalDescription>\n"
        f"<units>{units}</units>\n</parameters>\n"
    )


def _spikes(rec: Recording, path: Path, name: str) -> dict[int, pd.DataFrame]:
    """.res and .clu of every shank; the table of its units with their cluster numbers."""
    if rec.spikes is None:
        return {}
    units = rec.spikes.units.copy()
    units["shank"] = pd.factorize(units["group"])[0] + 1 if "group" in units else 1
    out = {}
    for shank, table in units.groupby("shank"):
        table = table.assign(cluster=np.arange(2, len(table) + 2))  # 0 is artefacts, 1 multi-unit
        mine = np.isin(rec.spikes.unit_id, table["id"])
        cluster = table.set_index("id")["cluster"].reindex(rec.spikes.unit_id[mine]).to_numpy()
        samples = np.rint(rec.spikes.times[mine] * _RATE).astype(np.int64)
        early = samples < 0
        if early.any():
            rec.warn(f"Neurosuite: {int(early.sum())} spikes lie before the first sample and were left out")
        samples, cluster = samples[~early], cluster[~early]
        np.savetxt(path / f"{name}.res.{shank}", samples, fmt="%d")
        np.savetxt(path / f"{name}.clu.{shank}", np.r_[len(np.unique(cluster)), cluster], fmt="%d")
        out[int(shank)] = table  # type: ignore[arg-type]
    return out


def _events(path: Path, label: str, value: EventTable | Intervals) -> None:
    lines = []
    start, stop = np.asarray(value.start), np.asarray(value.stop)
    order = np.argsort(start, kind="stable")
    peak = np.asarray(value.peak) if isinstance(value, EventTable) else (start + stop) / 2
    for k in order:
        lines += [f"{1e3 * t:.6f}\t{label} {role}" for t, role in ((start[k], "start"), (peak[k], "peak"), (stop[k], "stop"))]
    path.write_text("\n".join(lines) + "\n", encoding="latin-1", errors="replace")


def _states(rec: Recording, path: Path, name: str, h: Hypnogram) -> None:
    """One state a second, at the middle of the second."""
    from scipy.io import savemat

    t = np.arange(np.ceil(h.start), np.floor(h.stop))
    stages = dict(enumerate(h.stages))
    codes = np.array([_STATES.get(stages.get(int(c), ""), 0) for c in h.at(t + 0.5)])
    finer = [s for s in ("N1", "N2", "N3") if s in h.stages_list()]
    if finer:
        rec.warn(f"Neurosuite: {', '.join(finer)} were written as NREM, SleepState has one code for them")
    if (h.codes < 0).any():
        rec.warn("Neurosuite: artefacts and unscored epochs were written as state 0, which is neither")
    idx = {"states": codes[:, None].astype(float), "timestamps": (t + 0.5)[:, None], "statenames": np.array(["WAKE", "", "NREM", "", "REM"], dtype=object)}
    savemat(path / f"{name}.SleepState.states.mat", {"SleepState": {"idx": idx}})
