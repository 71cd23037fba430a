"""Read the real recordings that synthetic ones are held against, each reduced to arrays; the folder is the one the tests call `real_data`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat
from scipy.signal import coherence

REAL_SOURCES = {
    "eeg": "mouse EEG and EMG", "ieeg": "mouse intracranial EEG, 2 animals", "hd": "mouse, 2 shanks, 16 units", "hd_sleep": "mouse, 19 head-direction cells",
    "hpc": "rat hippocampus, 16 units", "track": "rat hippocampus, 31 units on a track",
}  # fmt: skip
"""What each set is, for tables."""


def mouse_eeg(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], float]:
    """Samples of EEG and of rectified EMG by stage, and their rate, Hz."""
    eeg, emg, codes = (np.load(folder / "mouse-eeg-emg" / f"{n}_Acq4_hr0.npy").ravel().astype(float) for n in ("EEG", "EMG", "States"))
    n = min(len(eeg) // 800, len(codes))
    stage = {s: np.repeat(codes[:n] == k, 800) for s, k in (("WAKE", 1), ("NREM", 2), ("REM", 3))}
    return {s: eeg[: n * 800][m] for s, m in stage.items()}, {s: emg[: n * 800][m] for s, m in stage.items()}, 200.0


def mouse_ieeg(folder: Path) -> dict[str, np.ndarray]:
    """Intracranial EEG (sample, channel), uV, 1 kHz, by animal."""
    return {f.parent.name: np.fromfile(f, "<f4").reshape(10, -1).T for f in sorted((folder / "mouse-ieeg").glob("*/*.bin"))}


def units(folder: Path, name: str) -> tuple[list[np.ndarray], float]:
    """Spike times, s, of every sorted unit and the length of the recording, s."""
    if name == "hpc":
        return [np.sort(np.ravel(t).astype(float)) for t in loadmat(folder / "rat-hpc-units" / "all_unit.mat")["unit_t"].ravel()], 998.0
    if name == "hd":
        out = []
        for shank in (1, 2):
            stem = folder / "mouse-hd-neurosuite" / "A2929-200711"
            times, cluster = (np.loadtxt(f"{stem}.{e}.{shank}") for e in ("res", "clu"))
            out += [times[cluster[1:] == c] / 20_000 for c in range(2, int(cluster[1:].max()) + 1)]  # 0 and 1 are noise and multi-unit activity
        return out, 1200.0
    trains = [t for t in _leaves(loadmat(folder / "rat-linear-track" / "spikes.mat")["spikes"]) if len(t) > 0]
    return trains, 6379.0 - 4397.0


def _leaves(x: Any) -> Iterator[np.ndarray]:
    """Spike times, s, of every tetrode and cell of nested MATLAB cells."""
    if x.dtype.names and "time" in x.dtype.names:
        yield from (np.ravel(v["time"]).astype(float) for v in x.ravel())
    elif x.dtype == object:
        for v in x.ravel():
            yield from _leaves(v)


def sleep_edf(folder: Path) -> np.ndarray:
    """Relative band powers (night, stage, band) of Fpz-Cz, a median over the epochs of each night that hold every stage."""
    out = []
    for file in sorted((folder / "human-sleepedf-bandpower").glob("*.npz")):
        data = np.load(file)
        share, labels = data["features"][:, 0, 5:], data["labels"]
        if all((labels == c).sum() >= 5 for c in range(5)):
            out.append([np.median(share[labels == c], axis=0) for c in range(5)])
    return np.array(out)


@dataclass
class Excerpt:
    """Half an hour of one subject: the EEG, uV, its rate, the spans of N2, and what one expert found there."""

    subject: int
    signal: np.ndarray
    rate: float
    stage: np.ndarray
    """Of each 5 s: 5 W, 4 R, 3 S1, 2 S2, 1 S3, 0 S4, negative unknown."""
    asleep: np.ndarray
    density: float
    length: float


def dreams(folder: Path) -> list[Excerpt]:
    """Excerpts 1, 2 and 5 (100, 200 and 200 Hz), once for each of two experts. For validation only: the licence allows no derivatives."""
    out = []
    for subject, rate in ((1, 100.0), (2, 200.0), (5, 200.0)):
        base = folder / "human-dreams-spindles"
        signal, stage = (np.loadtxt(base / name, skiprows=1) for name in (f"excerpt{subject}.txt", f"Hypnogram_excerpt{subject}.txt"))
        edges = np.flatnonzero(np.diff(np.r_[0, stage == 2, 0]))
        spans = 5.0 * edges.reshape(-1, 2)
        for expert in (1, 2):
            start, length = np.loadtxt(base / f"Visual_scoring{expert}_excerpt{subject}.txt", skiprows=1).T
            inside = np.any([(start >= a) & (start < b) for a, b in spans], axis=0)
            density = 60 * inside.sum() / (spans[:, 1] - spans[:, 0]).sum()
            out.append(Excerpt(subject, signal, rate, stage, spans, float(density), float(np.median(length))))
    return out


def real_rodents(
    folder: Path, spectra: Callable[[dict[str, np.ndarray], float], dict[str, float]], theta_index: Callable[[list[np.ndarray]], float]
) -> dict[str, dict[str, float]]:
    """Measure by name, then by set: what the real recordings can say."""
    out: dict[str, dict[str, float]] = {}

    def put(measure: str, source: str, value: float) -> None:
        out.setdefault(measure, {})[source] = value

    eeg, emg, rate = mouse_eeg(folder)
    for name, value in spectra(eeg, rate).items():
        put(name, "eeg", value)
    put("EMG, WAKE/NREM", "eeg", float(emg["WAKE"].mean() / emg["NREM"].mean()))
    pairs = []
    for x in mouse_ieeg(folder).values():
        for i, j in itertools.combinations(range(x.shape[1]), 2):
            f, c = coherence(x[:, i], x[:, j], 1000.0, nperseg=1000)
            pairs.append(c[(f >= 10) & (f < 30)].mean())
    put("coherence of CA1 and cortex, 10-30 Hz", "ieeg", float(np.median(pairs)))
    for name in ("hpc", "hd", "track"):
        trains, length = units(folder, name)
        rate_of = np.array([len(t) / length for t in trains])
        slow = rate_of < 7.0
        put("place cells in rest, median", name, float(np.median(rate_of[slow])))
        put("log-normal spread of their rates", name, float(np.log(rate_of[slow]).std()))
        gaps = [np.diff(t) for t in trains]
        put("place-cell intervals below 10 ms", name, float(np.mean(np.concatenate([g for g, s in zip(gaps, slow) if s]) < 0.010)))
        put("intervals below 2 ms, worst unit", name, max(float((g < 0.002).mean()) for g in gaps if len(g)))
    track = [t[t < 4397.0 + 17 * 60] for t in units(folder, "track")[0]]
    put("theta in the autocorrelogram, running", "track", theta_index([t for t in track if len(t) < 7 * 17 * 60]))
    counts = loadmat(folder / "mouse-hd-sleep-spikes" / "DataHDCells_RunSleep.mat")
    still = np.concatenate([counts["Qsws"], counts["Qrem"]]) if counts["Qsws"].shape[1] == counts["Qrem"].shape[1] else counts["Qsws"]
    asleep = still.mean(axis=int(np.argmax(still.shape))) / 0.01
    put("log-normal spread of their rates", "hd_sleep", float(np.log(asleep[asleep > 0]).std()))
    ripples = (folder / "mouse-hd-neurosuite" / "A2929-200711.evt.py.rip").read_text().split("\n")
    rows = [(float(r.split()[0]) / 1000, r.split()[2]) for r in ripples if r.strip()]
    start, stop = (np.array([t for t, k in rows if k == what]) for what in ("start", "stop"))
    put("ripples in NREM", "hd", len(start) / 600.0)
    put("ripple, median", "hd", 1000 * float(np.median(stop - start)))
    put("ripples over 100 ms", "hd", float(np.mean(stop - start > 0.1)))
    return out
