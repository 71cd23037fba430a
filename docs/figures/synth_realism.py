"""Measure synthetic mice beside the literature and a real mouse; prints the table of docs/explanation/synth.md.

Usage: python docs/figures/synth_realism.py [FOLDER_OF_REAL_RECORDINGS]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.signal import butter, hilbert, sosfiltfilt, welch

import brainmu.synth
from brainmu.core import Intervals, Recording
from brainmu.synth import Truth

# What is measured: (name, unit, least, most, where the range comes from).
BANDS = {
    "NREM share of rest": ("", 0.40, 0.70, "mice in the light phase, Franken 1999"),
    "REM share of rest": ("", 0.04, 0.12, "Franken 1999"),
    "NREM bout, mean": ("s", 45, 120, "Franken 1999; Watson 2016"),
    "REM bout, mean": ("s", 45, 100, "Franken 1999"),
    "awakenings below 20 s": ("", 0.3, 0.75, "micro-arousals, Lecci 2017"),
    "ripples in NREM": ("1/s", 0.2, 1.0, "Buzsáki 2015"),
    "ripple, median": ("ms", 35, 90, "Fernández-Ruiz 2019"),
    "ripples over 100 ms": ("", 0.08, 0.35, "Fernández-Ruiz 2019"),
    "ripple frequency, mean": ("Hz", 150, 200, "Buzsáki 2015"),
    "NREM ripples with replay": ("", 0.1, 0.35, "Tirole 2022; van der Meer 2020"),
    "place cells in rest, median": ("Hz", 0.15, 1.5, "Mizuseki & Buzsáki 2013"),
    "log-normal spread of their rates": ("", 0.5, 1.3, "Mizuseki & Buzsáki 2013"),
    "interneurons, median": ("Hz", 8, 35, "Mizuseki & Buzsáki 2013"),
    "place-cell intervals below 10 ms": ("", 0.04, 0.3, "complex spikes, Harris 2001"),
    "theta locking of place cells, running": ("", 0.1, 0.6, "Mizuseki 2009"),
    "delta power NREM/WAKE": ("", 2, 12, "Watson 2016"),
    "theta over delta, REM/NREM": ("", 5, 100, "Watson 2016"),
    "spectral slope 4-90 Hz, NREM": ("", -3.2, -1.2, "Watson 2016"),
    "slope, NREM steeper than WAKE by": ("", 0.1, 1.5, "Lendner 2020"),
    "EMG, WAKE/NREM": ("", 2, 15, "mouse neck EMG"),
}


def measure(rec: Recording, truth: Truth) -> dict[str, float]:
    """Every entry of :data:`BANDS` for one recording."""
    rest = rec.labels["rest"]
    bouts = truth.bouts[truth.bouts.start >= rest.start[0] - 1]
    length = (bouts.stop - bouts.start).groupby(bouts.stage)
    after = bouts.stage.shift(1) == "NREM"
    woken = bouts[after & (bouts.stage == "WAKE")]
    nrem = Intervals(truth.bouts[truth.bouts.stage == "NREM"][["start", "stop"]].to_numpy())
    r = truth.ripples
    asleep = r[nrem.contains(r.start)]
    out = {
        "NREM share of rest": length.sum()["NREM"] / rest.duration, "REM share of rest": length.sum()["REM"] / rest.duration,
        "NREM bout, mean": length.mean()["NREM"], "REM bout, mean": length.mean()["REM"],
        "awakenings below 20 s": float(((woken.stop - woken.start) < 20).mean()),
        "ripples in NREM": len(asleep) / nrem.duration, "ripple, median": 1000 * float(np.median(r.duration)),
        "ripples over 100 ms": float((r.duration > 0.1).mean()), "ripple frequency, mean": float(r.frequency.mean()),
        "NREM ripples with replay": float((asleep.carries == "reactivation").mean()),
    }  # fmt: skip
    return out | _cells(rec, rest) | _signals(rec, truth)


def _cells(rec: Recording, rest: Intervals) -> dict[str, float]:
    place = rec.spikes.units["type"] == "place"
    ids = rec.spikes.units["id"]
    rate = {u: rest.contains(rec.spikes.of(u)).sum() / rest.duration for u in ids}
    slow = np.array([rate[u] for u in ids[place]])
    gaps = np.concatenate([np.diff(rec.spikes.of(u)) for u in ids[place]])
    lfp = rec.signals["lfp"].read()[::10, 2].astype(float)
    phase = np.angle(hilbert(sosfiltfilt(butter(2, [5, 10], "bandpass", fs=125, output="sos"), lfp)))
    running = [t[rec.labels["run"].contains(t)] for t in (rec.spikes.of(u) for u in ids[place])]
    locked = [np.abs(np.exp(1j * phase[(t * 125).astype(int)]).mean()) for t in running if len(t) > 100]
    return {
        "place cells in rest, median": float(np.median(slow)), "log-normal spread of their rates": float(np.log(slow[slow > 0]).std()),
        "interneurons, median": float(np.median([rate[u] for u in ids[~place]])), "place-cell intervals below 10 ms": float((gaps < 0.01).mean()),
        "theta locking of place cells, running": float(np.mean(locked)),
    }  # fmt: skip


def _signals(rec: Recording, truth: Truth) -> dict[str, float]:
    x, tone = rec.signals["lfp"].read()[:, 2], rec.signals["emg"].read()[:, 0]
    per = round(truth.hypnogram.epoch * 1250)
    return spectra({s: x[np.repeat(truth.hypnogram.mask(s), per)[: len(x)]] for s in truth.hypnogram.stages}, 1250.0) | {
        "EMG, WAKE/NREM": float(tone[np.repeat(truth.hypnogram.mask("WAKE"), per)].std() / tone[np.repeat(truth.hypnogram.mask("NREM"), per)].std())
    }


def spectra(x: dict[str, np.ndarray], rate: float) -> dict[str, float]:
    """Band powers and slopes from the samples of each stage."""
    power = {s: welch(v, rate, nperseg=int(4 * rate)) for s, v in x.items()}

    def band(s: str, low: float, high: float) -> float:
        f, p = power[s]
        return float(p[(f >= low) & (f < high)].mean())

    def slope(s: str) -> float:
        f, p = power[s]
        keep = (f >= 4) & (f <= min(90, 0.45 * rate)) & ~((f > 5) & (f < 18))
        return float(np.polyfit(np.log(f[keep]), np.log(p[keep]), 1)[0])

    ratio = {s: band(s, 6, 9) / band(s, 1, 4) for s in ("NREM", "REM")}
    return {
        "delta power NREM/WAKE": band("NREM", 1, 4) / band("WAKE", 1, 4), "theta over delta, REM/NREM": ratio["REM"] / ratio["NREM"],
        "spectral slope 4-90 Hz, NREM": slope("NREM"), "slope, NREM steeper than WAKE by": slope("WAKE") - slope("NREM"),
    }  # fmt: skip


def real_mouse(folder: Path) -> dict[str, float]:
    """The same, where a real mouse's EEG and EMG (200 Hz, 4-s labels) can say it."""
    eeg, emg, codes = (np.load(folder / "mouse-eeg-emg" / f"{n}_Acq4_hr0.npy").ravel() for n in ("EEG", "EMG", "States"))
    n = min(len(eeg) // 800, len(codes))
    stage = {s: np.repeat(codes[:n] == k, 800) for s, k in (("WAKE", 1), ("NREM", 2), ("REM", 3))}
    eeg, emg = eeg[: n * 800].astype(float), emg[: n * 800].astype(float)
    out = spectra({s: eeg[m] for s, m in stage.items()}, 200.0)
    return out | {"EMG, WAKE/NREM": float(emg[stage["WAKE"]].std() / emg[stage["NREM"]].std())}


def main() -> None:
    found = [measure(*brainmu.synth.recording(hours=2.0, seed=s)) for s in range(4)]
    real = real_mouse(Path(sys.argv[1])) if len(sys.argv) > 1 else {}
    print("| measure | synthetic (4 mice x 2 h) | range | source | real mouse (EEG) |\n|---|---|---|---|---|")
    for name, (unit, low, high, source) in BANDS.items():
        values = [f[name] for f in found]
        beside = f"{real[name]:.2g}" if name in real else ""
        print(f"| {name} | {np.mean(values):.3g} ({min(values):.2g} to {max(values):.2g}) {unit} | {low:g} to {high:g} | {source} | {beside} |")


if __name__ == "__main__":
    main()
