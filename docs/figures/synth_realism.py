"""Measure synthetic mice and nights beside the literature and real recordings; prints the tables of docs/explanation/synth.md.

Usage: python docs/figures/synth_realism.py [FOLDER_OF_REAL_RECORDINGS]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from real_recordings import REAL_SOURCES, dreams, real_rodents, sleep_edf
from scipy.signal import butter, coherence, hilbert, sosfiltfilt, welch

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
    "ripples below 4 SD of the background": ("", 0.03, 0.35, "an assumption: some near the noise"),
    "ripple snr, 10th to 90th percentile": ("", 2.0, 5.0, "an assumption; the ratio of the two"),
    "spindles in NREM": ("1/min", 1, 9, "Fernandez & Lüthi 2020"),
    "spindles on an up state": ("", 0.35, 0.9, "Mölle 2011; Fernandez & Lüthi 2020"),
    "sigma at 0.02 Hz over 0.01-0.05 Hz": ("", 2.5, 60, "infraslow, Lecci 2017: a peak at 0.02 Hz"),
    "place cells in rest, median": ("Hz", 0.15, 1.5, "Mizuseki & Buzsáki 2013"),
    "log-normal spread of their rates": ("", 0.5, 1.3, "Mizuseki & Buzsáki 2013"),
    "interneurons, median": ("Hz", 8, 35, "Mizuseki & Buzsáki 2013"),
    "place-cell intervals below 10 ms": ("", 0.04, 0.3, "complex spikes, Harris 2001"),
    "intervals below 2 ms, worst unit": ("", 0.0, 0.001, "refractoriness"),
    "theta in the autocorrelogram, running": ("", 0.02, 0.6, "place cells beat at theta, O'Keefe & Recce 1993"),
    "theta locking of place cells, running": ("", 0.1, 0.6, "Mizuseki 2009"),
    "delta power NREM/WAKE": ("", 2, 12, "Watson 2016"),
    "theta over delta, REM/NREM": ("", 5, 100, "Watson 2016"),
    "spectral slope 4-90 Hz, NREM": ("", -3.2, -1.2, "Watson 2016"),
    "slope, NREM steeper than WAKE by": ("", 0.1, 1.5, "Lendner 2020"),
    "coherence in CA1 0.1 mm apart, 10-30 Hz": ("", 0.6, 1.0, "LFPs are shared over hundreds of um, Kajikawa & Schroeder 2011"),
    "coherence in CA1 0.3 mm apart, 10-30 Hz": ("", 0.4, 0.95, "Kajikawa & Schroeder 2011"),
    "coherence of CA1 and cortex, 10-30 Hz": ("", 0.02, 0.5, "Destexhe 1999: falls over millimetres"),
    "EMG, WAKE/NREM": ("", 1.5, 15, "mouse neck EMG; of the rectified trace"),
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
        "NREM ripples with replay": float((asleep.carries == "reactivation").mean()), "ripples below 4 SD of the background": float((r.snr < 4).mean()),
        "ripple snr, 10th to 90th percentile": float(np.quantile(r.snr, 0.9) / np.quantile(r.snr, 0.1)),
        "spindles in NREM": 60 * len(truth.spindles) / nrem.duration, "spindles on an up state": _on_up_states(truth),
    }  # fmt: skip
    return out | _cells(rec, rest) | _signals(rec, truth)


def _on_up_states(truth: Truth) -> float:
    """Share of spindles that begin 0.1 to 0.35 s after the down state of a slow wave."""
    wave, begin = truth.slow_waves.peak, truth.spindles.start
    since = begin - wave[np.clip(np.searchsorted(wave, begin) - 1, 0, None)]
    return float(np.mean((since > 0.1) & (since < 0.35)))


def theta_index(trains: list[np.ndarray]) -> float:
    """Mean over trains of (peak at 100-160 ms - trough at 50-80 ms) / their sum in the autocorrelogram; trains of 100 spikes and more."""
    out = []
    for t in trains:
        if len(t) < 100:
            continue
        last = np.searchsorted(t, t + 0.16)
        gaps = np.concatenate([t[i + 1 : j] - t[i] for i, j in enumerate(last)])
        peak, trough = ((gaps > 0.10) & (gaps < 0.16)).sum() / 0.06, ((gaps > 0.05) & (gaps < 0.08)).sum() / 0.03
        if peak + trough > 0:
            out.append((peak - trough) / (peak + trough))
    return float(np.mean(out))


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
        "theta locking of place cells, running": float(np.mean(locked)), "theta in the autocorrelogram, running": theta_index(running),
        "intervals below 2 ms, worst unit": max(float((np.diff(rec.spikes.of(u)) < 0.002).mean()) for u in ids if len(rec.spikes.of(u)) > 1),
    }  # fmt: skip


def _signals(rec: Recording, truth: Truth) -> dict[str, float]:
    lfp, tone = rec.signals["lfp"].read(), np.abs(rec.signals["emg"].read()[:, 0])
    per = round(truth.hypnogram.epoch * 1250)
    mask = {s: np.repeat(truth.hypnogram.mask(s), per)[: len(lfp)] for s in truth.hypnogram.stages}
    f, near = coherence(lfp[:, 0], lfp[:, 1], 1250.0, nperseg=1250)
    band = (f >= 10) & (f < 30)
    far, between = (coherence(lfp[:, 0], lfp[:, i], 1250.0, nperseg=1250)[1] for i in (3, 4))
    nrem = truth.bouts[truth.bouts.stage == "NREM"]
    return spectra({s: lfp[m, 2] for s, m in mask.items()}, 1250.0) | {
        "EMG, WAKE/NREM": float(tone[mask["WAKE"]].mean() / tone[mask["NREM"]].mean()), "coherence in CA1 0.1 mm apart, 10-30 Hz": float(near[band].mean()),
        "coherence in CA1 0.3 mm apart, 10-30 Hz": float(far[band].mean()), "coherence of CA1 and cortex, 10-30 Hz": float(between[band].mean()),
        "sigma at 0.02 Hz over 0.01-0.05 Hz": sigma_rhythm(lfp[:, 4], 1250.0, nrem[["start", "stop"]].to_numpy()),
    }  # fmt: skip


def sigma_rhythm(x: np.ndarray, rate: float, asleep: np.ndarray, low: float = 10.0, high: float = 15.0) -> float:
    """Share of the variance of log sigma power, within the spans `asleep` (n, 2), s, that a sine of 0.02 Hz explains, over that of the median frequency."""
    sos = butter(3, [low, high], "bandpass", fs=rate, output="sos")
    n = int(2 * rate)
    y = np.log((sosfiltfilt(sos, x.astype(float)) ** 2)[: len(x) // n * n].reshape(-1, n).mean(1))
    t = 1.0 + 2.0 * np.arange(len(y))
    keep = np.any([(t > a + 3) & (t < b - 3) for a, b in asleep], axis=0)
    t, y = t[keep], y[keep] - y[keep].mean()
    frequencies = np.r_[0.02, np.arange(0.010, 0.0501, 0.001)]
    share = []
    for f in frequencies:
        basis = np.c_[np.ones(len(t)), np.cos(2 * np.pi * f * t), np.sin(2 * np.pi * f * t)]
        share.append(1 - np.var(y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0]) / np.var(y))
    return float(share[0] / np.median(share[1:]))


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


def rodents(folder: Path | None) -> None:
    """Print the table of mice."""
    found = [measure(*brainmu.synth.recording(hours=2.0, seed=s)) for s in range(4)]
    real = real_rodents(folder, spectra, theta_index) if folder else {}
    print("| measure | synthetic (4 mice x 2 h) | range | source | real |\n|---|---|---|---|---|")
    for name, (unit, low, high, source) in BANDS.items():
        values = [f[name] for f in found]
        beside = "; ".join(f"{v:.2g} ({REAL_SOURCES[k]})" for k, v in real.get(name, {}).items())
        print(f"| {name} | {np.mean(values):.3g} ({min(values):.2g} to {max(values):.2g}) {unit} | {low:g} to {high:g} | {source} | {beside} |")


_BANDS = (("delta", 0.5, 4), ("theta", 4, 8), ("alpha", 8, 12), ("sigma", 12, 16), ("beta", 16, 30))


def relative_powers(x: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Share (stage, band) of the power of 0.5-30 Hz in each band, a median over 30-s epochs of a signal at 100 Hz; as the real features were made."""
    f, p = welch(x[: len(codes) * 3000].reshape(len(codes), 3000), 100.0, window="hamming", nperseg=400, average="median", axis=1)
    power = np.stack([p[:, (f >= a) & (f < b)].mean(1) * (b - a) for _, a, b in _BANDS], axis=1)
    share = power / power.sum(1, keepdims=True)
    return np.stack([np.median(share[codes == c], axis=0) for c in range(5)])


def nights(folder: Path) -> None:
    """Print the table of human nights: relative band powers by stage, spindles, and what experts found."""
    made = [brainmu.synth.recording(hours=8.0, seed=s, species="human", n_channels=1, lfp_rate=100.0) for s in range(6)]
    synthetic = np.array([relative_powers(r.signals["eeg"].read()[:, 0], t.hypnogram.codes) for r, t in made])
    real = sleep_edf(folder)
    print("\n| share of power, Fpz-Cz | W | N1 | N2 | N3 | R |\n|---|---|---|---|---|---|")
    for b, (band, low, high) in enumerate(_BANDS):
        cells = [
            f"{np.median(real[:, s, b]):.2f} ({np.quantile(real[:, s, b], 0.1):.2f}-{np.quantile(real[:, s, b], 0.9):.2f}) / {synthetic[:, s, b].mean():.2f}"
            for s in range(5)
        ]
        print(f"| {band}, {low:g}-{high:g} Hz | " + " | ".join(cells) + " |")
    n2 = [t.bouts[t.bouts.stage == "N2"] for _, t in made]
    inside = [np.any([(t.spindles.start >= a) & (t.spindles.start < b) for a, b in zip(n.start, n.stop)], axis=0) for (_, t), n in zip(made, n2)]
    density = [60 * k.sum() / (n.stop - n.start).sum() for k, n in zip(inside, n2)]
    found = dreams(folder)
    print("\n| spindles of N2 | synthetic (6 nights) | real (3 excerpts, two experts) |\n|---|---|---|")
    print(f"| a minute | {np.mean(density):.1f} ({min(density):.1f} to {max(density):.1f}) | {' '.join(f'{d.density:.1f}' for d in found)} |")
    length = [float(np.median(t.spindles.duration)) for _, t in made]
    print(f"| median length, s | {np.mean(length):.2f} | {' '.join(f'{d.length:.2f}' for d in found)} |")
    sigma = [sigma_rhythm(r.signals["eeg"].read()[:, 0], 100.0, n[["start", "stop"]].to_numpy(), 12, 16) for (r, _), n in zip(made, n2)]
    print(f"| sigma at 0.02 Hz over 0.01-0.05 Hz | {np.mean(sigma):.1f} ({min(sigma):.1f} to {max(sigma):.1f}) |", end=" ")
    print(" ".join(f"{sigma_rhythm(d.signal, d.rate, d.asleep, 12, 16):.1f}" for d in found[::2]) + " |")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    rodents(folder)
    if folder:
        nights(folder)


if __name__ == "__main__":
    main()
