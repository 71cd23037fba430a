"""Draw a synthetic recording: an hour of it, its spectra, ripples with replay, place fields. Writes synth_overview.png beside this file."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from scipy.signal import butter, sosfiltfilt, spectrogram, welch

import brainmu.synth

COLOURS = {"WAKE": "#d08020", "NREM": "#3060a0", "REM": "#40a060"}


def main(out: Path) -> None:
    rec, truth = brainmu.synth.recording(hours=1.0, seed=3)
    lfp, emg = rec.signals["lfp"], rec.signals["emg"]
    figure = plt.figure(figsize=(13, 15), layout="constrained")
    grid = figure.add_gridspec(7, 3, height_ratios=[0.5, 1.1, 0.6, 1.2, 1.3, 1.3, 1.2])
    night(figure, grid, rec, truth)
    for k, stage in enumerate(COLOURS):
        traces(figure.add_subplot(grid[3, k]), lfp, emg, truth, stage)
    replays(figure, grid, rec, truth)
    spectra(figure.add_subplot(grid[6, 0]), lfp, truth)
    fields(figure.add_subplot(grid[6, 1]), truth)
    lengths(figure.add_subplot(grid[6, 2]), truth)
    figure.savefig(out, dpi=60)
    Image.open(out).convert("RGB").quantize(64).save(out, optimize=True)


def night(figure, grid, rec, truth) -> None:
    a = figure.add_subplot(grid[0, :])
    for stage, colour in COLOURS.items():
        for s, e in truth.hypnogram.intervals(stage):
            a.axvspan(s / 60, e / 60, color=colour)
    for content, mark in (("negative", "v"), ("positive", "^")):
        t = truth.reactivation.start[truth.reactivation.content == content]
        a.plot(t / 60, np.full(len(t), 0.8 if content == "negative" else 0.2), mark, ms=3, color="k")
    a.set(xlim=(0, 60), yticks=[], title="orange WAKE, blue NREM, green REM; triangles: reactivations, up positive, down negative")
    b = figure.add_subplot(grid[1, :], sharex=a)
    x = rec.signals["lfp"].read()[:, 2][::5]
    f, t, p = spectrogram(x, 250.0, nperseg=1000, noverlap=0)
    b.pcolormesh(t / 60, f[f < 30], np.log10(p[f < 30]), cmap="viridis", rasterized=True)
    b.set(ylabel="CA1, Hz")
    c = figure.add_subplot(grid[2, :], sharex=a)
    y = rec.signals["emg"].read()[:, 0]
    c.plot(np.arange(len(y) // 1250) / 60, np.sqrt((y[: len(y) // 1250 * 1250].reshape(-1, 1250) ** 2).mean(1)), lw=0.5)
    c.set(ylabel="EMG RMS, uV", yscale="log", xlabel="min")


def traces(axis, lfp, emg, truth, stage) -> None:
    b = truth.bouts[(truth.bouts.stage == stage) & (truth.bouts.start > 600)]
    row = b.iloc[(b.stop - b.start).argmax()]
    t, x = lfp.span(row.start + 10, row.start + 14)
    _, y = emg.span(row.start + 10, row.start + 14)
    for i in range(x.shape[1]):
        axis.plot(t - t[0], x[:, i] - 700 * i, lw=0.5, color="k" if i < 4 else "C0")
    axis.plot(t - t[0], y[:, 0] - 700 * x.shape[1], lw=0.4, color="C3")
    axis.set(title=f"{stage}: CA1 (black), cortex (blue), EMG (red)", yticks=[], xlabel="s")
    bar(axis, 4.05, -300.0, 500.0)


def bar(axis, x: float, y: float, size: float) -> None:
    """A bar of `size` uV at `x`, up from `y`."""
    axis.plot([x, x], [y, y + size], color="k", lw=2)
    axis.text(x, y + size, f"{size:g} uV", ha="right", va="bottom", fontsize=8)


def replays(figure, grid, rec, truth) -> None:
    r = truth.reactivation
    order = np.argsort(-(r.stop - r.start))[3:6]
    sos = butter(3, [140, 240], "bandpass", fs=1250, output="sos")
    for k, i in enumerate(order):
        a, b = figure.add_subplot(grid[4, k]), figure.add_subplot(grid[5, k])
        lo, hi = r.start[i] - 0.25, r.stop[i] + 0.25
        t, x = rec.signals["lfp"].span(lo, hi)
        a.plot(t - r.start[i], x[:, 0], lw=0.6, color="k")
        a.plot(t - r.start[i], sosfiltfilt(sos, x[:, 0]) - 500, lw=0.6)
        a.plot(t - r.start[i], x[:, 3] - 1000, lw=0.6, color="0.5")
        bar(a, r.duration[i] + 0.25, -1000.0, 500.0)
        a.set(title=f"{r.content[i]}, {r.direction[i]}, {r.x_from[i]:.2f} to {r.x_to[i]:.2f} m", yticks=[])
        c = truth.place_fields.contexts.index(r.context[i])
        peak = truth.place_fields.grid[truth.place_fields.rate[c].argmax(1)]
        has = truth.place_fields.rate[c].max(1) > 1
        times, units = rec.spikes.span(lo, hi)
        kept = has[units] & (units < 35)
        b.plot(times[kept] - r.start[i], peak[units[kept]], "|", color="k")
        b.plot([0, r.stop[i] - r.start[i]], [r.x_from[i], r.x_to[i]], "r", lw=0.8)
        b.set(xlabel="s", ylabel="field centre, m", xlim=a.get_xlim())


def spectra(axis, lfp, truth) -> None:
    x = lfp.read()[:, 0]
    for stage, colour in COLOURS.items():
        keep = np.repeat(truth.hypnogram.mask(stage), 5000)[: len(x)]
        f, p = welch(x[: len(keep)][keep], 1250, nperseg=5000)
        axis.loglog(f[1:], p[1:], color=colour, label=stage)
    axis.set(xlabel="Hz", ylabel="uV²/Hz", title="CA1_1", ylim=(1e-2, 1e5))
    axis.legend()


def fields(axis, truth) -> None:
    rate = truth.place_fields.rate[0][:35]
    rate = rate[rate.max(1) > 1]
    order = np.argsort(rate.argmax(1))
    axis.imshow(rate[order] / rate[order].max(1, keepdims=True), aspect="auto", extent=(0, 1.6, len(rate), 0))
    axis.set(xlabel="track A, m", ylabel="place cell")


def lengths(axis, truth) -> None:
    d = truth.ripples.duration * 1000
    has = truth.ripples.replay >= 0
    axis.hist([d[~has], d[has]], bins=np.arange(0, 320, 10), stacked=True, label=["without replay", "with replay"])
    axis.set(xlabel="ripple, ms")
    axis.legend()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".png"))
