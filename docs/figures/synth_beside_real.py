"""Draw synthetic beside real recordings at one scale: a minute, 4 s of each stage, spectra. Writes synth_beside_real_mouse.png and, with
`--night`, synth_beside_real_night.png (real nights are not for redistribution: look at it, do not commit it).

Usage: python docs/figures/synth_beside_real.py FOLDER_OF_REAL_RECORDINGS [--night FOLDER_TO_WRITE]
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from real_recordings import dreams, mouse_ieeg
from scipy.signal import butter, sosfiltfilt, welch

import brainmu.synth

COLOURS = {"WAKE": "#d08020", "NREM": "#3060a0", "REM": "#40a060", "W": "#d08020", "N2": "#3060a0", "N3": "#203060", "R": "#40a060"}


def mouse(folder: Path, out: Path) -> None:
    """One mouse's EEG (its own amplifier, 0.5 to 30 Hz) beside synthetic cortex in the same band, and intracranial EEG beside the unfiltered one."""
    rec, truth = brainmu.synth.recording(hours=1.0, seed=3, n_cells=0)
    band = butter(2, [0.7, 28.0], "bandpass", fs=200.0, output="sos")
    made = sosfiltfilt(band, _down(rec.signals["lfp"].read()[:, 4], 1250.0, 200.0))
    real, codes = (np.load(folder / "mouse-eeg-emg" / f"{n}_Acq4_hr0.npy").ravel() for n in ("EEG", "States"))
    real = sosfiltfilt(band, real.astype(float))
    scored = {"real": (real, codes, {"WAKE": 1, "NREM": 2, "REM": 3}), "synthetic": (made, np.array(truth.hypnogram.stages_list()), {s: s for s in COLOURS})}
    figure, axes = plt.subplots(5, 2, figsize=(13, 13), layout="constrained", height_ratios=[1, 1, 1, 1, 1.8])
    for side, (x, stage, name) in enumerate(scored.values()):
        unit = x / np.std(_of(x, stage == name["NREM"]))
        for row, (what, seconds) in enumerate((("NREM", 60), ("WAKE", 4), ("NREM", 4), ("REM", 4))):
            piece = _piece(unit, stage == name[what], seconds, 200.0)
            axes[row, side].plot(np.arange(len(piece)) / 200.0, piece, lw=0.5, color=COLOURS[what])
            axes[row, side].set(title=f"{list(scored)[side]}: {what}, {seconds} s", ylim=(-6, 6), ylabel="SD of NREM")
    for key, (x, stage, name) in scored.items():
        for s in ("WAKE", "NREM", "REM"):
            f, p = welch(_of(x, stage == name[s]) / np.std(_of(x, stage == name["NREM"])), 200.0, nperseg=800)
            axes[4, 0].loglog(f[2:120], p[2:120], color=COLOURS[s], ls="-" if key == "real" else "--", label=f"{s}, {key}")
    axes[4, 0].set(title="EEG and synthetic cortex, both 0.7-28 Hz", xlabel="Hz", ylabel="SD²/Hz")
    axes[4, 0].legend(fontsize=7)
    _wide(axes[4, 1], rec, truth, folder)
    _save(figure, out)


def _wide(axis, rec, truth, folder: Path) -> None:
    """Spectra of intracranial EEG, every channel, and of synthetic CA1 and cortex in waking, up to 400 Hz."""
    for animal, x in mouse_ieeg(folder).items():
        f, p = welch(x, 1000.0, nperseg=2000, axis=0)
        axis.loglog(f[2:800], p[2:800] / p[2:160].sum(0), color="0.6", lw=0.5, label=f"real, {animal}")
    wake = np.repeat(truth.hypnogram.mask("WAKE"), 5000)
    for channel, colour in ((0, "C3"), (4, "C0")):
        f, p = welch(rec.signals["lfp"].read()[: len(wake), channel][wake], 1250.0, nperseg=2500)
        axis.loglog(f[2:800], p[2:800] / p[2:160].sum(), color=colour, ls="--", label=f"synthetic {rec.signals['lfp'].names[channel]}, WAKE")
    handles, labels = axis.get_legend_handles_labels()
    first = {label: handle for handle, label in zip(handles, labels)}
    axis.legend(first.values(), first, fontsize=7)
    axis.set(title="intracranial EEG (unscored) and synthetic LFP, share of 1-80 Hz", xlabel="Hz")


def night(folder: Path, out: Path) -> None:
    """Half-hour excerpts of human sleep beside a synthetic night."""
    rec, truth = brainmu.synth.recording(hours=8.0, seed=3, species="human", n_channels=3, lfp_rate=200.0)
    excerpt = dreams(folder)[2]
    scored = {
        "real": (excerpt.signal, np.where(excerpt.stage == 0, 1, excerpt.stage), 5, {"W": 5, "N2": 2, "N3": 1, "R": 4}),
        "synthetic": (rec.signals["eeg"].read()[:, 2], np.array(truth.hypnogram.stages_list()), 30, {s: s for s in COLOURS}),
    }
    figure, axes = plt.subplots(6, 2, figsize=(13, 15), layout="constrained", height_ratios=[1, 1, 1, 1, 1, 1.8])
    for side, (key, (x, stage, epoch, name)) in enumerate(scored.items()):
        for row, (what, seconds) in enumerate((("N2", 60), ("W", 10), ("N2", 10), ("N3", 10), ("R", 10))):
            piece = _piece(x, stage == name[what], seconds, 200.0, epoch)
            axes[row, side].plot(np.arange(len(piece)) / 200.0, piece, lw=0.5, color=COLOURS[what])
            axes[row, side].set(title=f"{key}: {what}, {seconds} s", ylim=(-150, 150), ylabel="uV")
        for what in ("W", "N2", "N3", "R"):
            if not (stage == name[what]).any():
                continue
            f, p = welch(_of(x, stage == name[what], epoch), 200.0, nperseg=800)
            axes[5, 0].loglog(f[2:200], p[2:200], color=COLOURS[what], ls="-" if key == "real" else "--", label=f"{what}, {key}")
    axes[5, 0].legend(fontsize=7)
    axes[5, 1].axis("off")
    _save(figure, out)


def _down(x: np.ndarray, rate: float, wanted: float) -> np.ndarray:
    sos = butter(8, 0.4 * wanted, fs=rate, output="sos")
    return np.interp(np.arange(0, len(x) / rate, 1 / wanted), np.arange(len(x)) / rate, sosfiltfilt(sos, x.astype(float)))


def _of(x: np.ndarray, mask: np.ndarray, epoch: int = 4) -> np.ndarray:
    keep = np.repeat(mask, round(epoch * 200))[: len(x)]
    return x[: len(keep)][keep]


def _piece(x: np.ndarray, mask: np.ndarray, seconds: int, rate: float, epoch: int = 4) -> np.ndarray:
    """The middle of the longest stretch of the stage."""
    edges = np.flatnonzero(np.diff(np.r_[0, mask.astype(int), 0])).reshape(-1, 2)
    if len(edges) == 0:
        return np.empty(0)
    a, b = edges[np.argmax(edges[:, 1] - edges[:, 0])] * epoch
    middle = int((a + b) / 2 * rate)
    return x[middle - int(seconds * rate / 2) : middle + int(seconds * rate / 2)]


def _save(figure, out: Path) -> None:
    figure.savefig(out, dpi=60)
    Image.open(out).convert("RGB").quantize(48).save(out, optimize=True)


if __name__ == "__main__":
    if "--night" in sys.argv:
        night(Path(sys.argv[1]), Path(sys.argv[-1]) / "synth_beside_real_night.png")
    else:
        mouse(Path(sys.argv[1]), Path(__file__).with_name("synth_beside_real_mouse.png"))
