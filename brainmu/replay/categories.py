"""Which of several named states the spikes speak of: context, cue, arm, stage or any other label, decoded and cross-validated.

The decoder is multinomial: it looks at the shares of the units in the spikes of a bin, not at how many there are. An event in sleep, in which every
unit fires ten times faster, can then be read with rates from waking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import EventTable, Intervals, Recording, Spikes
from brainmu.core.metrics import balanced_accuracy, confusion
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.contexts import run_epochs_by_context
from brainmu.replay.decode import bins_within, counts_in
from brainmu.replay.epochs import spikes_of
from brainmu.replay.fields import select_units

__all__ = ["LabelRates", "cross_validated_label", "decode_label", "label_rates"]


@dataclass(frozen=True)
class LabelRates:
    """Mean rates (class, unit), Hz, of each class of a label; `classes`, `units` name rows and columns, `seconds` (class,) is the time behind."""

    rates: NDArray[np.float64]
    classes: tuple[str, ...]
    units: NDArray[np.int32]
    seconds: NDArray[np.float64]

    def log_likelihood(self, counts: NDArray[Any]) -> NDArray[np.float64]:
        """Multinomial log-likelihood (bin, class) of counts (bin, unit), up to a constant of the bin; a bin without a spike is even."""
        share = self.rates / self.rates.sum(1, keepdims=True)
        return np.asarray(counts, dtype=np.float64) @ np.log(share).T


def label_rates(spikes: Spikes, epochs: Mapping[str, Intervals]) -> LabelRates:
    """Mean rates of every unit in each class; a unit that is silent in one has half a spike there.

    Raises
    ------
    InputError
        With fewer than two classes.
    """
    if len(epochs) < 2:
        raise InputError(f"label decoding: classes {', '.join(epochs) or 'none'}, expected at least two")
    seconds = np.array([v.duration for v in epochs.values()])
    n = np.array([np.bincount(_columns(spikes, v), minlength=spikes.n_units) for v in epochs.values()], dtype=np.float64)
    return LabelRates(np.maximum(n, 0.5) / np.maximum(seconds, 1e-9)[:, None], tuple(epochs), spikes.units["id"].to_numpy(), seconds)


def cross_validated_label(
    recording: Recording, label: str | Mapping[str, Intervals], *, bin_size: float = 1.0, folds: int = 5, least_spikes: int = 50, fastest: float = 100.0,
    draws: int = 200, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """How well the spikes tell the classes of a label apart, on time that the rates have not seen.

    The time of every class is cut into `folds` contiguous parts; part k of every class is decoded with rates from the others.

    Parameters
    ----------
    label : str or mapping of names to Intervals
        Classes as :func:`brainmu.replay.contexts.run_epochs_by_context` finds them: labels ``<label>_<class>``, the contents of an
        EventTable, or epochs divided by the contents of an EventTable "context".
    draws : int
        Of the interval and the chance level.

    Returns
    -------
    dict
        accuracy (balanced: mean recall over classes), interval (95 %, resampling the parts), chance (1 / classes), p_value
        (parts' labels dealt anew among whole parts of a fold), recall by class, confusion (true, decoded), classes, n_bins,
        n_silent (bins without a spike, left out), n_units, bin_size, folds.

    Notes
    -----
    Where every class is one stretch of time, whatever drifts tells them apart as well as the label does.

    Raises
    ------
    MissingDataError
        Without spikes, or with less than `folds` bins in a class.
    InputError
        With fewer than two classes, or classes that overlap.
    """
    if folds < 2 or not bin_size > 0 or draws < 20:
        raise InputError(f"label decoding: {folds} folds, bins of {bin_size:g} s, {draws} draws: expected at least 2, more than 0, at least 20")
    spikes = _units(recording, least_spikes, fastest)
    epochs, _ = run_epochs_by_context(recording, label)
    parts = {k: _cut(v, folds, bin_size, k) for k, v in epochs.items()}
    true, guess, part, silent = [], [], [], 0
    for f in range(folds):
        rates = label_rates(spikes, {k: v.subtract(parts[k][f]) for k, v in epochs.items()})
        for c, k in enumerate(epochs):
            counts = counts_in(spikes, bins_within(parts[k][f], bin_size))
            heard = counts.any(1)
            silent += int((~heard).sum())
            decoded = rates.log_likelihood(counts[heard]).argmax(1)
            true += [c] * len(decoded)
            guess += decoded.tolist()
            part += [f * len(epochs) + c] * len(decoded)
    t, g, at = np.array(true, dtype=np.int64), np.array(guess, dtype=np.int64), np.array(part, dtype=np.int64)
    if len(np.unique(t)) < len(epochs):
        raise MissingDataError(f"{recording.id}: no bin of {bin_size:g} s holds a spike in some class of {', '.join(epochs)}: give longer bins")
    matrix = confusion(t, g, len(epochs))
    low, high, p = _uncertainty(t, g, at, len(epochs), folds, draws, np.random.default_rng(seed))
    return {
        "accuracy": balanced_accuracy(matrix), "interval": [low, high], "chance": 1 / len(epochs), "p_value": p,
        "recall": dict(zip(epochs, (np.diag(matrix) / matrix.sum(1)).tolist())), "confusion": matrix.tolist(), "classes": list(epochs), "n_bins": len(t),
        "n_silent": silent, "n_units": spikes.n_units, "bin_size": bin_size, "folds": folds,
    }  # fmt: skip


def decode_label(
    recording: Recording, events: EventTable, label: str | Mapping[str, Intervals], *, least_spikes: int = 50, fastest: float = 100.0, shuffles: int = 500,
    seed: int = 0,
) -> EventTable:  # fmt: skip
    """`events` with the class of a label that their spikes speak of.

    Returns
    -------
    EventTable
        With content (the likeliest class; "" where no spike was fired), probability (of it, every class equally likely before),
        log_odds (against the next), p_content (share of deals, in which every unit swaps its share of the rates between the classes by its own draw,
        whose log odds are as high) and n_spikes. attrs: classes, label_seconds.

    Raises
    ------
    MissingDataError
        Without spikes or epochs.
    InputError
        With fewer than two classes, or too few shuffles.
    """
    if shuffles < 20:
        raise InputError(f"label decoding: {shuffles} shuffles, expected at least 20")
    spikes = _units(recording, least_spikes, fastest)
    epochs, _ = run_epochs_by_context(recording, label)
    rates = label_rates(spikes, epochs)
    counts = counts_in(spikes, np.c_[events.start, events.stop])
    loglik = rates.log_likelihood(counts)
    odds = _odds(loglik)
    rng = np.random.default_rng(seed)
    above = np.zeros(len(events))
    # As shares: rates of a class in which all units fire more would outweigh those that are dealt beside them.
    shares = rates.rates / rates.rates.sum(1, keepdims=True)
    for _ in range(shuffles):
        dealt = LabelRates(rng.permuted(shares, axis=0), rates.classes, rates.units, rates.seconds)
        above += _odds(dealt.log_likelihood(counts)) >= odds - 1e-9
    heard = counts.any(1)
    p = np.exp(loglik - loglik.max(1, keepdims=True))
    content = np.where(heard, np.array(rates.classes, dtype=object)[loglik.argmax(1)], "")
    out = events.assign(
        content=content, probability=np.where(heard, p.max(1) / p.sum(1), np.nan), log_odds=np.where(heard, odds, np.nan),
        p_content=np.where(heard, (1 + above) / (1 + shuffles), np.nan), n_spikes=counts.sum(1),
    )  # fmt: skip
    out.attrs |= {"classes": list(rates.classes), "label_seconds": dict(zip(rates.classes, rates.seconds.tolist())), "shuffles": shuffles, "seed": seed}
    return out


# -- parts ----------------------------------------------------------------------------------------------------------------


def _units(recording: Recording, least: int, fastest: float) -> Spikes:
    return select_units(spikes_of(recording), least, fastest)[0]


def _columns(spikes: Spikes, spans: Intervals) -> NDArray[np.intp]:
    ids = spikes.units["id"].to_numpy()
    order = np.argsort(ids)
    return order[np.searchsorted(ids[order], spikes.unit_id[spans.contains(spikes.times)])]


def _cut(spans: Intervals, folds: int, bin_size: float, name: str) -> list[Intervals]:
    """`folds` contiguous parts of equal time of `spans`."""
    if spans.duration < folds * bin_size:
        raise MissingDataError(f"label decoding: {spans.duration:.1f} s of {name!r}, expected at least {folds} bins of {bin_size:g} s")
    edges = np.interp(np.linspace(0, spans.duration, folds + 1), np.r_[0, np.cumsum(spans.stop - spans.start)], np.r_[spans.start[0], spans.stop])
    return [spans.intersect(Intervals([[a, b]])) for a, b in pairwise(edges)]


def _uncertainty(
    true: NDArray[np.int64], guess: NDArray[np.int64], part: NDArray[np.int64], classes: int, folds: int, draws: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Interval of the balanced accuracy by resampling whole parts within each class, and p by dealing the classes of whole parts within folds."""
    cells = np.zeros((folds, classes, classes))
    np.add.at(cells, (part // classes, part % classes, guess), 1)
    found = balanced_accuracy(cells.sum(0))
    boot, null = np.empty(draws), np.empty(draws)
    for d in range(draws):
        boot[d] = balanced_accuracy(np.stack([cells[rng.integers(0, folds, folds), c].sum(0) for c in range(classes)]))
        null[d] = balanced_accuracy(np.stack([fold[rng.permutation(classes)] for fold in cells]).sum(0))
    low, high = np.nanpercentile(boot, [2.5, 97.5])
    return float(low), float(high), float((1 + (null >= found - 1e-12).sum()) / (1 + draws))


def _odds(loglik: NDArray[np.float64]) -> NDArray[np.float64]:
    ordered = np.sort(loglik, axis=1)
    return ordered[:, -1] - ordered[:, -2]
