"""Did what fired together while awake fire together again afterwards? Explained variance, and strength of templates, each with its null.

References
----------
Kudrimoti, Barnes & McNaughton (1999), J Neurosci 19:4090 (explained variance).
Pennartz, Lee, Verheul, Lipa, Barnes & McNaughton (2004), J Neurosci 24:6446 (its reverse).
Peyrache, Khamassi, Benchenane, Wiener & Battaglia (2009), Nat Neurosci 12:919 (strength of templates).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import Intervals, Recording, Spikes
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.assemblies import Assemblies, electrode_pairs, z_scored
from brainmu.replay.decode import bins_within, counts_in
from brainmu.replay.epochs import epochs_of, spikes_of
from brainmu.replay.fields import select_units

__all__ = ["ExplainedVariance", "explained_variance", "template_strength"]


@dataclass(frozen=True)
class ExplainedVariance:
    """How much of the pairwise correlations after an experience the experience explains, beyond what was there before.

    Attributes
    ----------
    ev, rev : float
        Explained variance, and the same with before and after exchanged, which says what a real effect has to exceed.
    difference : float
        ev - rev.
    ev_interval, rev_interval, difference_interval : (float, float)
        95 %, by the jackknife over units (pairs are not independent).
    p_value : float
        Share of deals of the unit identities of the experience (one-sided, the deal counted) whose difference is as large.
    null : float64 (draw,)
        Differences of those deals.
    by_window : DataFrame
        start, stop (s), ev, rev of each window after the experience.
    n_units, n_pairs, n_excluded : int
        Pairs used, and pairs left out because both units lie on one electrode.
    correlations : DataFrame
        One row a pair: unit_a, unit_b, before, experience, after.
    attrs : dict
        bin_size, same (the column by which pairs were left out, "" for none), window, draws, seed.
    """

    ev: float
    rev: float
    difference: float
    ev_interval: tuple[float, float]
    rev_interval: tuple[float, float]
    difference_interval: tuple[float, float]
    p_value: float
    null: NDArray[np.float64]
    by_window: pd.DataFrame
    n_units: int
    n_pairs: int
    n_excluded: int
    correlations: pd.DataFrame
    attrs: dict[str, Any]

    def __repr__(self) -> str:
        low, high = self.difference_interval
        return (
            f"ExplainedVariance(EV {self.ev:.3f}, REV {self.rev:.3f}, difference {self.difference:.3f} [{low:.3f}, {high:.3f}], p {self.p_value:.3g}, "
            f"{self.n_pairs} pairs of {self.n_units} units)"
        )


def explained_variance(
    recording: Recording, before: str | Intervals, experience: str | Intervals = "run", after: str | Intervals = "rest", *, bin_size: float = 0.2,
    window: float = 900.0, same: str | None = None, least_spikes: int = 50, fastest: float = 30.0, draws: int = 1000, seed: int = 0,
) -> ExplainedVariance:  # fmt: skip
    """Explained variance of the correlations after an experience: the square of their partial correlation with those of the
    experience, given those before it; and its reverse.

    Parameters
    ----------
    before, experience, after : str or Intervals
        Epochs, or labels of epochs; they must not overlap. Without a `before` there is no explained variance: what was there
        already cannot be told from what was brought back.
    bin_size : float, s
        Of the spike counts.
    window : float, s
        Length of the windows of `by_window`.
    same : str or None
        Column of the units table: pairs with an equal value are left out, for spikes of one unit end up in another's cluster. None takes
        the column that names the electrode, as :func:`fit_assemblies` does; "" leaves none out.
    least_spikes, fastest : int, float (Hz)
        Units with fewer spikes in any of the three epochs, or a higher mean rate, are left out.

    Raises
    ------
    MissingDataError
        Without spikes or epochs, or with fewer than five usable units or ten pairs.
    InputError
        If epochs overlap, or a setting is out of range.
    """
    if not bin_size > 0 or not window > 2 * bin_size or draws < 20:
        raise InputError(f"explained variance: bins {bin_size:g} s, windows {window:g} s, {draws} draws: expected 0 < 2 bins < windows, draws >= 20")
    spans = {k: epochs_of(recording, v, k) for k, v in (("before", before), ("experience", experience), ("after", after))}
    _refuse_overlap(recording, spans)
    spikes = _active_everywhere(recording, spans, least_spikes, fastest)
    pairs, column, n_excluded = _pairs(spikes, same)
    c = {k: _correlation(spikes, v, bin_size) for k, v in spans.items()}
    point = _ev(*(c[k][pairs] for k in spans))
    low_high = _jackknife(c, pairs, spikes.n_units)
    rng = np.random.default_rng(seed)
    null = np.empty(draws)
    for d in range(draws):
        deal = rng.permutation(spikes.n_units)
        null[d] = np.subtract(*_ev(c["before"][pairs], c["experience"][np.ix_(deal, deal)][pairs], c["after"][pairs]))
    windows = []
    for a, b in _windows(spans["after"], window):
        r = _correlation(spikes, spans["after"].intersect(Intervals([[a, b]])), bin_size)
        windows.append((a, b, *_ev(c["before"][pairs], c["experience"][pairs], r[pairs])))
    ids = spikes.units["id"].to_numpy()
    table = pd.DataFrame({"unit_a": ids[pairs[0]], "unit_b": ids[pairs[1]], **{k: c[k][pairs] for k in spans}})
    difference = point[0] - point[1]
    return ExplainedVariance(
        point[0], point[1], difference, *low_high, float((1 + (null >= difference).sum()) / (1 + draws)), null,
        pd.DataFrame(windows, columns=["start", "stop", "ev", "rev"]), spikes.n_units, len(pairs[0]), n_excluded, table,
        {"bin_size": bin_size, "same": column, "window": window, "draws": draws, "seed": seed},
    )  # fmt: skip


def template_strength(
    recording: Recording, assemblies: Assemblies, epochs: str | Mapping[str, str | Intervals], *, same: str | None = None, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Mean strength of every template in each of `epochs` (a label, or a mapping of names to labels or Intervals), beside dealt ones.

    Mean strength is w' C w less its diagonal, where C is the correlation matrix of the counts in the epoch and w the template. The
    null deals the weights of all templates anew among the units, one deal for all: it keeps the epoch's rates, population bursts
    and correlations, and the shape of the templates, and loses only which unit is which. The same deals serve every epoch.
    Pairs on one electrode count for nothing (`same`, as in :func:`explained_variance`): spikes of one unit that end up in another's
    cluster would fire together in every epoch.

    Returns
    -------
    DataFrame
        One row a template and epoch, and one a epoch for their mean ("all"): assembly, epoch, seconds, strength, null_mean,
        null_sd, z, p_value (one-sided, the deal counted), one_electrode (strength of the pairs that were left out), fitted (the
        templates rest on part of this epoch, so that it is no test).
        ``.attrs`` holds same, n_excluded (pairs), draws, seed.

    Raises
    ------
    MissingDataError
        If the recording lacks units of the templates, or an epoch is empty.
    InputError
        If there is no template, or too few draws.
    """
    if not len(assemblies) or draws < 20:
        raise InputError(f"template strength: {len(assemblies)} templates and {draws} draws, expected at least 1 and 20")
    absent = np.setdiff1d(assemblies.units, spikes_of(recording).units["id"].to_numpy())
    if len(absent):
        raise MissingDataError(f"{recording.id}: unit {absent[0]} of the templates is not here: carry them over with assemblies.carried_to(recording)")
    spikes = spikes_of(recording).pick(assemblies.units)
    column = {int(u): k for k, u in enumerate(assemblies.units)}
    w = assemblies.templates[:, [column[int(u)] for u in spikes.units["id"]]].astype(np.float64)
    without, column_name = electrode_pairs(spikes.units, assemblies.same if same is None and assemblies.same in spikes.units else same)
    deals = [np.random.default_rng((seed, d)).permutation(w.shape[1]) for d in range(draws)]
    rows = []
    for name, given in ({epochs: epochs} if isinstance(epochs, str) else epochs).items():
        spans = epochs_of(recording, given, name)
        c = _correlation(spikes, spans, assemblies.bin_size)
        lost = ((w @ np.where(without, c, 0)) * w).sum(1)
        c = np.where(without | np.eye(len(c), dtype=bool), 0, c)
        found = np.einsum("ku,uv,kv->k", w, c, w)
        null = np.stack([((w[:, d] @ c) * w[:, d]).sum(1) for d in deals])
        found, lost, null = np.r_[found, found.mean()], np.r_[lost, lost.mean()], np.c_[null, null.mean(1)]
        own = assemblies.recording == recording.id and assemblies.during.intersect(spans).duration > 0
        for k, label in enumerate([*assemblies.names, "all"]):
            mean, sd = float(null[:, k].mean()), float(null[:, k].std())
            p = float((1 + (null[:, k] >= found[k]).sum()) / (1 + draws))
            rows.append((label, name, spans.duration, float(found[k]), mean, sd, (found[k] - mean) / sd if sd > 0 else np.nan, p, float(lost[k]), own))
    out = pd.DataFrame(rows, columns=["assembly", "epoch", "seconds", "strength", "null_mean", "null_sd", "z", "p_value", "one_electrode", "fitted"])
    out.attrs |= {"same": column_name, "n_excluded": int(without.sum() // 2), "draws": draws, "seed": seed}
    return out


# -- parts ----------------------------------------------------------------------------------------------------------------


def _refuse_overlap(recording: Recording, spans: Mapping[str, Intervals]) -> None:
    names = list(spans)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if (both := spans[a].intersect(spans[b]).duration) > 0:
                raise InputError(f"{recording.id}: {a} and {b} overlap by {both:.1f} s, expected disjoint epochs")


def _active_everywhere(recording: Recording, spans: Mapping[str, Intervals], least: int, fastest: float) -> Spikes:
    s, _ = select_units(spikes_of(recording), least, fastest)
    ids = s.units["id"].to_numpy()
    enough = np.ones(len(ids), dtype=bool)
    for v in spans.values():
        fired = s.unit_id[v.contains(s.times)]
        enough &= np.array([(fired == u).sum() >= least for u in ids])
    if enough.sum() < 5:
        raise MissingDataError(f"{recording.id}: {int(enough.sum())} units fire at least {least} spikes in each of {', '.join(spans)}, expected five or more")
    return s.pick(ids[enough])


def _pairs(spikes: Spikes, same: str | None) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], str, int]:
    """Rows and columns of the pairs to use, the column by which others were left out, and how many were."""
    without, column = electrode_pairs(spikes.units, same)
    i, j = np.nonzero(np.triu(~without, 1))
    if len(i) < 10:
        raise MissingDataError(f"explained variance: {len(i)} pairs of units differ in {column!r}, expected at least ten: more units, or same=''")
    return (i, j), column, int(without.sum() // 2)


def _correlation(spikes: Spikes, spans: Intervals, bin_size: float) -> NDArray[np.float64]:
    bins = bins_within(spans, bin_size)
    z = z_scored(counts_in(spikes, bins[bins[:, 1] - bins[:, 0] > 0.999 * bin_size]))
    return (z.T @ z / max(len(z), 1)).astype(np.float64)


def _ev(before: NDArray[np.float64], experience: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[float, float]:
    r = np.corrcoef(np.stack([before, experience, after]))
    return _partial(r[1, 2], r[0, 1], r[0, 2]), _partial(r[0, 1], r[1, 2], r[0, 2])


def _partial(ab: float, ac: float, bc: float) -> float:
    """Squared partial correlation of a and b given c."""
    return float((ab - ac * bc) ** 2 / max((1 - ac**2) * (1 - bc**2), 1e-12))


def _jackknife(c: Mapping[str, NDArray[np.float64]], pairs: tuple[NDArray[np.intp], NDArray[np.intp]], n: int) -> list[tuple[float, float]]:
    """95 % intervals of EV, REV and their difference, leaving out one unit at a time with all its pairs."""
    from scipy.stats import t

    i, j = pairs
    values = [c[k][pairs] for k in ("before", "experience", "after")]
    full = np.array([*_ev(*values), 0.0])
    full[2] = full[0] - full[1]
    left = np.empty((n, 3))
    for u in range(n):
        keep = (i != u) & (j != u)
        left[u, :2] = _ev(*(v[keep] for v in values))
    left[:, 2] = left[:, 0] - left[:, 1]
    se = np.sqrt((n - 1) / n * ((left - left.mean(0)) ** 2).sum(0))
    wide = float(t.ppf(0.975, n - 1)) * se
    bounds = [(0.0, 1.0), (0.0, 1.0), (-1.0, 1.0)]
    return [(float(max(f - w, lo)), float(min(f + w, hi))) for f, w, (lo, hi) in zip(full, wide, bounds)]


def _windows(spans: Intervals, length: float) -> list[tuple[float, float]]:
    """Windows of `length` s from the start of `spans` on, those that hold at least half of it."""
    edges = np.arange(spans.start[0], spans.stop[-1], length)
    return [(float(a), float(a + length)) for a in edges if spans.intersect(Intervals([[a, a + length]])).duration >= 0.5 * length]
