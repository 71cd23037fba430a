"""Sleep in pictures: the hypnogram over its spectrogram, the structure of a night, a stager against a scorer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from brainmu.core import Hypnogram, Recording
from brainmu.core.metrics import accuracy, cohen_kappa, confusion, f1_by_class, fraction_bias
from brainmu.errors import InputError, MissingDataError
from brainmu.report.figures.reading import display_spectrogram, level, pick_channel, robust_range
from brainmu.report.figures.style import GREY, INK, STAGE_COLOURS, STAGE_ORDER, finish, new_figure, note, panel_letters, time_axis

__all__ = ["agreement", "hypnogram_figure", "sleep_structure_figure", "staging_figure"]


def named_hypnograms(hypnograms: Hypnogram | Mapping[str, Hypnogram] | None, recording: Recording | None = None) -> dict[str, Hypnogram]:
    """Hypnograms by name: as given, or those among the labels of the recording."""
    if hypnograms is None:
        return {k: v for k, v in (recording.labels.items() if recording is not None else ()) if isinstance(v, Hypnogram) and len(v)}
    if isinstance(hypnograms, Hypnogram):
        return {hypnograms.scorer or "hypnogram": hypnograms}
    return {str(k): v for k, v in hypnograms.items()}


def hypnogram_figure(
    recording: Recording, hypnograms: Hypnogram | Mapping[str, Hypnogram] | None = None, *, channel: str | None = None, fmax: float = 25.0,
    start: float | None = None, stop: float | None = None,
) -> Figure:  # fmt: skip
    """Hypnograms (with stage probabilities where known) over the spectrogram and the EMG of a recording.

    Parameters
    ----------
    hypnograms : Hypnogram, mapping of name to Hypnogram, or None
        Stacked in the order given (expert, model, …); None draws the recording's own labels.
    channel : str or None
        Channel of the spectrogram (``name`` or ``signal/name``); None takes the first LFP channel, else the first EEG channel.
    start, stop : float or None, s
        What to show; None shows all of the recording.

    Raises
    ------
    MissingDataError
        If there is neither a hypnogram nor a channel to draw.
    """
    named = named_hypnograms(hypnograms, recording)
    spectral, emg = pick_channel(recording, channel), pick_channel(recording, None, ("emg",))
    if not named and spectral is None:
        raise MissingDataError(f"{recording.id}: has no hypnogram and no LFP or EEG channel, so there is nothing to draw over time")
    extents = [(recording.start, recording.stop)] if recording.signals or recording.spikes is not None else [(h.start, h.stop) for h in named.values()]
    a = min(e[0] for e in extents) if start is None else start
    b = max(e[1] for e in extents) if stop is None else stop
    if not b > a:
        raise InputError(f"{recording.id}: the span [{a}, {b}) s is empty, expected start < stop")
    rows: list[tuple[str, str, float]] = []
    for name, h in named.items():
        rows.append(("hypnogram", name, 1.0))
        if h.proba is not None:
            rows.append(("proba", name, 0.55))
    if spectral is not None:
        rows.append(("spectrogram", "", 1.7))
    if emg is not None:
        rows.append(("emg", "", 0.6))
    fig = new_figure(0.55 + sum(r[2] for r in rows) + 0.08 * len(rows))
    axes = fig.subplots(len(rows), 1, sharex=True, gridspec_kw={"height_ratios": [r[2] for r in rows]}, squeeze=False)[:, 0]
    for ax, (what, name, _) in zip(axes, rows):
        if what == "hypnogram":
            draw_hypnogram(ax, named[name], title=f"{name}  (n = {len(named[name])} epochs of {named[name].epoch:g} s)")
        elif what == "proba":
            _draw_probabilities(ax, named[name])
        elif what == "spectrogram" and spectral is not None:
            _draw_spectrogram(fig, ax, spectral, a, b, fmax)
        elif emg is not None:
            _draw_emg(ax, emg, a, b)
        time_axis(ax, a, b, label=ax is axes[-1])
    fig.align_ylabels(axes)
    return finish(fig)


def draw_hypnogram(ax: Axes, h: Hypnogram, title: str = "") -> None:
    """Stages as a stepped line with a coloured block an epoch; unscored epochs leave a gap."""
    shown = [s for s in STAGE_ORDER if s in h.stages]
    place = {s: len(shown) - 1 - i for i, s in enumerate(shown)}
    bouts = h.bouts()
    for stage, spans in bouts.groupby("stage"):
        bars = list(zip(spans["start"], spans["duration"]))
        if stage in place:
            ax.broken_barh(bars, (place[stage] - 0.36, 0.72), facecolors=STAGE_COLOURS[stage], linewidth=0)
        else:  # artefact and unscored span the whole height, lightly
            ax.broken_barh(bars, (-0.5, len(shown)), facecolors=STAGE_COLOURS[stage], alpha=0.45, linewidth=0)
    y = np.array([place.get(s, np.nan) for s in h.stages_list()], dtype=float)
    if len(y):
        ax.step(np.r_[h.times, h.stop], np.r_[y, y[-1]], where="post", color=INK, linewidth=0.5, alpha=0.8)
    ax.set_yticks([place[s] for s in shown], shown)
    ax.set_ylim(-0.6, len(shown) - 0.4)
    ax.set_title(title, loc="left")


def _draw_probabilities(ax: Axes, h: Hypnogram) -> None:
    assert h.proba is not None
    order = [i for s in reversed(STAGE_ORDER) for i, name in enumerate(h.stages) if name == s]
    t = np.repeat(np.r_[h.times, h.stop], 2)[1:-1]
    stack = np.repeat(np.nan_to_num(h.proba[:, order].T.astype(np.float64)), 2, axis=1)
    ax.stackplot(t, stack, colors=[STAGE_COLOURS[h.stages[i]] for i in order], linewidth=0)
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 1])
    ax.set_ylabel("P(stage)")


def _draw_spectrogram(fig: Figure, ax: Axes, spectral: tuple[str, object], a: float, b: float, fmax: float) -> None:
    name, signal = spectral
    edges, f, power = display_spectrogram(signal, a, b, fmax=fmax)  # type: ignore[arg-type]
    lo, hi = robust_range(power, 3, 99)
    half = (f[1] - f[0]) / 2 if len(f) > 1 else 0.5
    grid = np.r_[f - half, f[-1] + half] if len(f) else np.array([0.0, fmax])
    ax.set_facecolor("#eceff2")  # missing stays visible as missing
    if len(f):
        mesh = ax.pcolormesh(edges, grid, np.ma.masked_invalid(power), cmap="viridis", vmin=lo, vmax=hi, rasterized=True, shading="flat")
        unit = (getattr(signal, "unit", "") or "a.u.").replace("uV", "µV")
        bar = fig.colorbar(mesh, ax=ax, pad=0.008, fraction=0.02, aspect=18)
        bar.set_label(f"dB re 1 {unit}²/Hz")
        bar.outline.set_visible(False)
    ax.set_ylim(0, fmax if not len(f) else grid[-1])
    ax.set_ylabel("frequency (Hz)")
    ax.set_title(f"spectrogram of {name}", loc="left")


def _draw_emg(ax: Axes, emg: tuple[str, object], a: float, b: float) -> None:
    name, signal = emg
    columns = 900
    y = level(signal, a, b, columns=columns)[:, 0]  # type: ignore[arg-type]
    edges = np.linspace(a, b, columns + 1)
    ax.plot((edges[:-1] + edges[1:]) / 2, y, color=INK, linewidth=0.6)
    _, top = robust_range(y, 1, 99.5)
    ax.set_ylim(0, top * 1.1 if top > 0 else 1)
    ax.set_ylabel(f"RMS ({(getattr(signal, 'unit', '') or 'a.u.').replace('uV', 'µV')})")
    ax.set_title(f"EMG level, {name}", loc="left")


# -- structure ---------------------------------------------------------------------------------------------------------
def sleep_structure_figure(hypnograms: Hypnogram | Mapping[str, Hypnogram]) -> Figure:
    """Time in each stage, bout lengths and stage-to-stage transitions; transitions are those of the first hypnogram.

    Raises
    ------
    InputError
        If no hypnogram holds a scored epoch.
    """
    named = {k: h for k, h in named_hypnograms(hypnograms).items() if (h.codes >= 0).any()}
    if not named:
        raise InputError("no hypnogram holds a scored epoch, so there is no sleep structure to draw")
    fig = new_figure(2.9)
    share, lengths, moves = fig.subplots(1, 3, gridspec_kw={"width_ratios": [1.0, 1.25, 1.1]})
    _draw_shares(share, named)
    _draw_bouts(lengths, named)
    name, first = next(iter(named.items()))
    _draw_transitions(moves, first, f"transitions, {name}")
    panel_letters([share, lengths, moves])
    return finish(fig)


def _draw_shares(ax: Axes, named: Mapping[str, Hypnogram]) -> None:
    stages = [s for s in STAGE_ORDER if any(s in h.stages for h in named.values())]
    height = 0.8 / len(named)
    for k, (name, h) in enumerate(named.items()):
        scored = max(int((h.codes >= 0).sum()), 1)
        for i, s in enumerate(stages):
            if s not in h.stages:
                continue
            value = 100 * np.count_nonzero(h.codes == h.stages.index(s)) / scored
            y = len(stages) - 1 - i + 0.4 - (k + 0.5) * height
            ax.barh(y, value, height * 0.92, color=STAGE_COLOURS[s], alpha=1.0 if k == 0 else 0.5, linewidth=0)
            ax.text(value + 1, y, f"{value:.1f}" + (f"  {name}" if len(named) > 1 else ""), va="center", fontsize=6.5, color=INK)
    ax.set_yticks(range(len(stages)), stages[::-1])
    ax.set_xlim(0, 118)
    ax.set_xticks([0, 25, 50, 75, 100])
    ax.set_xlabel("share of scored time (%)")
    ax.set_title("time in stage", loc="left")


def _draw_bouts(ax: Axes, named: Mapping[str, Hypnogram]) -> None:
    for k, h in enumerate(named.values()):
        bouts = h.bouts()
        for s in (s for s in STAGE_ORDER if s in h.stages):
            x = np.sort(bouts.loc[bouts["stage"] == s, "duration"].to_numpy(dtype=float))
            if not len(x):
                continue
            y = 1 - np.arange(len(x) + 1) / len(x)
            label = f"{s}, n = {len(x)}, median {np.median(x):.3g} s" if k == 0 else None
            ax.step(np.r_[x[0] * 0.9, x], y, where="post", color=STAGE_COLOURS[s], linewidth=1.4, linestyle="-" if k == 0 else (0, (3, 2)), label=label)
    ax.set_xscale("log")
    ax.set_ylim(0, 1.5)  # room for the legend
    ax.set_yticks([0, 0.5, 1])
    ax.set_xlabel("bout length (s)")
    ax.set_ylabel("share of bouts longer")
    ax.legend(loc="upper left", handlelength=1.2, borderaxespad=0.1, labelspacing=0.25)
    ax.set_title("bout lengths" + (f" (dashed: {', '.join(list(named)[1:])})" if len(named) > 1 else ""), loc="left")


def _draw_transitions(ax: Axes, h: Hypnogram, title: str) -> None:
    stages = [s for s in STAGE_ORDER if s in h.stages]
    codes = [h.stages.index(s) for s in stages]
    left, right = h.codes[:-1], h.codes[1:]
    count = np.array([[np.count_nonzero((left == i) & (right == j)) if i != j else 0 for j in codes] for i in codes])
    total = count.sum(1, keepdims=True)
    _matrix(ax, count / np.maximum(total, 1), [[f"{c}" if i != j else "–" for j, c in enumerate(row)] for i, row in enumerate(count)], stages, stages)
    ax.set_xlabel("to")
    ax.set_ylabel("from")
    ax.set_title(f"{title} (n = {count.sum()})", loc="left")


def _matrix(ax: Axes, share: NDArray[np.float64], text: list[list[str]], rows: list[str], columns: list[str]) -> None:
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, line in enumerate(text):
        for j, word in enumerate(line):
            ax.text(j, i, word, ha="center", va="center", fontsize=7, color="white" if share[i, j] > 0.55 else INK, linespacing=1.3)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)


# -- a stager against a scorer -----------------------------------------------------------------------------------------
def agreement(true: Hypnogram, predicted: Hypnogram) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Confusion counts (true, predicted) of two hypnograms on the epochs of `true`, and the stages they are over.

    Where the stage sets differ both are read as WAKE NREM REM. Each epoch of `true` is compared with the prediction at its middle;
    epochs that either leaves unscored do not count.

    Raises
    ------
    InputError
        If they share no scored epoch.
    """
    if true.stage_set != predicted.stage_set:
        true, predicted = true.as_rodent3(), predicted.as_rodent3()
    other = predicted.at(true.times + true.epoch / 2)
    both = (true.codes >= 0) & (other >= 0)
    if not both.any():
        raise InputError(
            f"the hypnograms share no scored epoch ({true.start:g}-{true.stop:g} s, {predicted.start:g}-{predicted.stop:g} s): are both on one clock?"
        )
    return confusion(true.codes[both], other[both], len(true.stages)), true.stages


def staging_figure(true: Hypnogram, predicted: Hypnogram, names: tuple[str, str] = ("scorer", "stager")) -> Figure:
    """Confusion of a stager with a scorer (rows sum to 100 %), F1 of each stage, and the bias of stage fractions.

    Raises
    ------
    InputError
        If the hypnograms share no scored epoch.
    """
    counts, stages = agreement(true, predicted)
    order = [stages.index(s) for s in STAGE_ORDER if s in stages]
    counts = counts[np.ix_(order, order)]
    labels = [stages[i] for i in order]
    fig = new_figure(2.9)
    left, middle, right = fig.subplots(1, 3, gridspec_kw={"width_ratios": [1.25, 1.0, 1.0]})
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    _matrix(left, share, [[f"{100 * share[i, j]:.0f} %\n{counts[i, j]}" for j in range(len(labels))] for i in range(len(labels))], labels, labels)
    left.set_xlabel(f"{names[1]}")
    left.set_ylabel(f"{names[0]}")
    left.set_title(f"κ = {cohen_kappa(counts):.2f}, accuracy {100 * accuracy(counts):.0f} %, n = {counts.sum()} epochs", loc="left")
    f1, bias = f1_by_class(counts), 100 * fraction_bias(counts)
    y = np.arange(len(labels))[::-1]
    middle.barh(y, np.nan_to_num(f1), 0.6, color=[STAGE_COLOURS[s] for s in labels], linewidth=0)
    for yi, v in zip(y, f1):
        middle.text(0.02 if not np.isfinite(v) else v + 0.02, yi, "no epochs" if not np.isfinite(v) else f"{v:.2f}", va="center", fontsize=7, color=INK)
    middle.set_xlim(0, 1.15)
    middle.set_xticks([0, 0.5, 1])
    middle.set_yticks(y, labels)
    middle.set_xlabel("F1")
    middle.set_title("agreement by stage", loc="left")
    right.barh(y, bias, 0.6, color=[STAGE_COLOURS[s] for s in labels], linewidth=0)
    right.axvline(0, color=GREY, linewidth=0.6)
    reach = max(float(np.abs(bias).max()) * 1.5, 2.0)
    for yi, v in zip(y, bias):
        word = "0.0" if abs(v) < 0.05 else f"{v:+.1f}".replace("-", "−")
        right.text(v + np.copysign(0.03 * reach, v), yi, word, va="center", ha="left" if v >= 0 else "right", fontsize=7, color=INK)
    right.set_xlim(-reach, reach)
    right.set_yticks(y, labels)
    right.set_xlabel(f"{names[1]} minus {names[0]} (% of time)")
    right.set_title("bias of stage fractions", loc="left")
    panel_letters([left, middle, right])
    return finish(fig)


def empty_note(ax: Axes, text: str) -> None:
    """An empty panel that says why it is empty."""
    ax.set_axis_off()
    note(ax, text, 0.5, 0.5, ha="center", va="center")
