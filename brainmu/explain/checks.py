"""Whether a map is true: deletion and insertion, agreement of methods, recovery of what was planted, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core.metrics import auroc
from brainmu.errors import InputError
from brainmu.explain.parts import Map, Part

if TYPE_CHECKING:
    import xarray as xr

    from brainmu.core import Recording

__all__ = ["ATTENTION", "SAME", "agreement", "check_planted", "curves", "ranked", "recovery", "similarity", "verdict"]

SAME = 0.9
"""Rank correlation with the map of a network that learned nothing, from which on a map shows the signal and not what was learned."""
TIE = 0.1
"""Where one part decides all, a random order that begins with it is as good as the true one, but for details."""
FEW = 4
"""Epochs or events below which a map may be of what was odd about them."""
LEAST_SKILL = 0.6
"""AUROC of the stager's log odds against the scored target, below which there is nothing to explain."""
LEAST_DIFFERENCE = 0.5
"""Mean difference of the log odds between the recording and "nothing" (or the shifted recording), below which the same holds."""


ATTENTION = "share of attention"
"""Unit of attention rollout."""


def ranked(maps: Map) -> list[Part]:
    """The parts of a map by their mean share, the largest first; parts that are zero throughout are left out."""
    shares: dict[Part, float] = {}
    for name, (values, _, modality) in maps.items():
        for place, v in np.ndenumerate(values.mean(0)):
            if np.any(values[(slice(None), *place)]):
                shares[(name, place[0], place[1] if modality == "field" else -1)] = float(v)
    return sorted(shares, key=lambda p: -shares[p])


def curves(
    odds: Callable[[Sequence[Collection[Part]]], NDArray[np.float64]], order: Sequence[Part], steps: int, orders: int, rng: np.random.Generator
) -> dict[str, Any]:  # fmt: skip
    """Deletion and insertion in the order of a map, beside random orders.

    Deletion takes parts away, the first of the order first; insertion gives them to an input that has none. The log odds are scaled so that
    the whole input is 1 and none of it 0: a true map has a small area under deletion and a large one under insertion.

    Parameters
    ----------
    odds : callable
        Mean log odds (version,) of the target without each of some sets of parts.

    Returns
    -------
    dict
        deletion_auc, insertion_auc, random_deletion_auc, random_insertion_auc (means over random orders), difference (log odds),
        beats_random (whether insertion minus deletion is positive and no less than in any random order, but for ties), and the curves (step,): deletion,
        insertion, random_deletion and random_insertion (means) at curve_share of the parts.

    References
    ----------
    Petsiuk V, Das A, Saenko K (2018) RISE: randomized input sampling for explanation of black-box models. BMVC.
    """
    n = len(order)
    cuts = np.unique(np.linspace(0, n, steps + 1).round().astype(int))
    tried = [list(order), *([order[i] for i in rng.permutation(n)] for _ in range(orders))]
    sets: list[Collection[Part]] = []
    for o in tried:
        sets += [set(o[:k]) for k in cuts] + [set(o[k:]) for k in cuts]
    value = odds(sets).reshape(len(tried), 2, len(cuts))
    none, whole = value[0, 0, -1], value[0, 0, 0]
    scaled = (value - none) / (whole - none) if abs(whole - none) > 1e-9 else np.zeros_like(value)
    area = np.trapezoid(scaled, cuts / n, axis=2)
    gap = area[:, 1] - area[:, 0]
    return {
        "deletion_auc": float(area[0, 0]), "insertion_auc": float(area[0, 1]), "random_deletion_auc": float(area[1:, 0].mean()),
        "random_insertion_auc": float(area[1:, 1].mean()), "difference": float(whole - none), "beats_random": bool(gap[0] > max(gap[1:].max() - TIE, 0.0)),
        "curve_share": cuts / n, "deletion": scaled[0, 0], "insertion": scaled[0, 1], "random_deletion": scaled[1:, 0].mean(0),
        "random_insertion": scaled[1:, 1].mean(0),
    }  # fmt: skip


def similarity(a: Map, b: Map) -> float:
    """Spearman correlation of the mean absolute shares (channel x band, unit) of two maps, over the parts that one of them at least is of.

    Parts that are zero in both (bands above half the rate) are ties that would draw any two maps together.
    """
    x, y = (np.concatenate([np.abs(v).mean(0).ravel() for v, _, _ in m.values()]) for m in (a, b))
    held = (x > 0) | (y > 0)
    return _spearman(x[held], y[held])


def verdict(attrs: dict[str, Any]) -> str:
    """ "passed", or "failed: " and what did, from the attributes of a map; after "passed", what could not be checked."""
    failed, open_ = [], []
    for key, name in (("randomised_weights_correlation", "randomised weights"), ("randomised_labels_correlation", "randomised labels")):
        if attrs.get(key, 0.0) > SAME:
            failed.append(f"{name} give the same map")
        if np.isnan(attrs.get(key, 0.0)):
            open_.append(f"{name} give no other map to compare with: it has fewer than three parts, or all are alike")
    if not attrs.get("beats_random", True):
        failed.append("deletion and insertion go no better than in random order")
    if attrs.get("difference", np.inf) <= -LEAST_DIFFERENCE:
        failed.append("the input as a whole speaks against the target")
    elif not attrs.get("difference", np.inf) >= LEAST_DIFFERENCE:
        failed.append("the stager's log odds hardly depend on its input")
    if attrs.get("skill", 1.0) < LEAST_SKILL:
        failed.append("the stager does not tell the target from other stages")
    if not attrs.get("completeness_error", 0.0) <= 0.05:
        failed.append("shares do not add up")
    if attrs.get("n_epochs", FEW) < FEW:
        n = attrs["n_epochs"]
        open_.append(f"it rests on {n} {'event' if 'n_events' in attrs else 'epoch'}{'' if n == 1 else 's'} alone")
    if failed:
        return f"failed: {'; '.join(failed)}"
    return f"passed, but for what could not be checked: {'; '.join(open_)}" if open_ else "passed"


def recovery(maps: xr.Dataset, planted: Iterable[tuple[str, ...]]) -> float:
    """AUROC of a map against what was planted.

    Parameters
    ----------
    maps : Dataset
        From :func:`brainmu.explain.attribute`.
    planted : iterable of (stream, channel, band) or (stream, unit)
        What the simulator used, such as ``("lfp", "CA1_1", "theta")`` and ``("spikes", "7")``; the stream alone with a channel stands for all
        of its bands.

    Returns
    -------
    float
        Chance that a planted part has a larger mean share, in size, than one that is not. A part that the map gives nothing counts as zero; bands that
        are zero in all channels of a stream (above half its rate, or never read) do not count, unless planted. 0.5 is chance.

    Raises
    ------
    InputError
        If something planted is not in the map, or nothing else is.
    """
    given = [planted] if isinstance(planted, str) else list(planted)
    if given and all(isinstance(p, str) for p in given):
        raise InputError(f"planted is {tuple(given)}, expected a list of drivers such as [('lfp', 'CA1_1', 'theta'), ('spikes', '7')]")
    wanted = [tuple(map(str, p)) for p in given]
    shares = _all_shares(maps, wanted)
    absent = [p for p in wanted if not any(k[: len(p)] == p for k in shares)]
    if absent or not wanted:
        raise InputError(f"planted {absent[0] if absent else 'nothing'} is not in the map, which holds such as {', '.join(map(str, list(shares)[:4]))}")
    positive = [any(k[: len(p)] == p for p in wanted) for k in shares]
    if all(positive):
        raise InputError("all parts of the map were planted: nothing is left to tell them from")
    return auroc([abs(v) for v in shares.values()], positive)


def check_planted(session: Recording, planted: Iterable[tuple[str, ...]], shifted: bool = False) -> list[tuple[str, ...]]:
    """Drivers as :func:`recovery` takes them, before the work is done; `shifted`: of a map by occlusion.

    Raises InputError where a map of the session has no such part.
    """
    from brainmu.explain.bands import BANDS, bands_below, bands_held

    out = [(p,) if isinstance(p, str) else tuple(map(str, p)) for p in planted]
    if not out or not all(out):
        raise InputError("planted is empty: name the drivers, such as ('lfp', 'CA1_1', 'theta') or ('spikes', '7'), or leave it out")
    have = {name: set(s.names) for name, s in session.signals.items()}
    if session.spikes is not None:
        have["spikes"] = set(map(str, session.spikes.units["id"]))
    for stream, *rest in out:
        if stream not in have:
            raise InputError(f"planted {stream!r} is no stream of {session.id}, which has {', '.join(have)}")
        if len(rest) > 1 and (len(rest) > 2 or stream == "spikes" or rest[1] not in BANDS):
            raise InputError(f"planted {'/'.join([stream, *rest])!r}: expected STREAM/CHANNEL, STREAM/CHANNEL/BAND ({', '.join(BANDS)}) or spikes/UNIT")
        if rest and rest[0] not in have[stream]:
            raise InputError(f"planted {rest[0]!r} is not in {stream} of {session.id}, which holds such as {', '.join(sorted(have[stream])[:4])}")
        if len(rest) > 1 and (rate := session.signals[stream].rate) is not None:
            held = tuple(bands_below(rate)) if shifted else bands_held(rate)
            if rest[1] not in held:
                raise InputError(f"planted {'/'.join([stream, *rest])!r}: {stream} is sampled at {rate:g} Hz, of which a map has {', '.join(held)}")
    return out


def agreement(a: xr.Dataset, b: xr.Dataset, draws: int = 500, seed: int = 0) -> dict[str, float]:
    """Rank correlation of the mean shares of two maps of one recording, by methods or stagers, over the parts that both hold.

    Returns
    -------
    dict
        correlation, low, high (95 %, from resampled epochs), n (parts).

    Raises
    ------
    InputError
        If they have fewer than three parts in common.
    """
    x, y = _shares(a), _shares(b)
    both = [k for k in x if k in y]
    if len(both) < 3:
        raise InputError(f"the maps have {len(both)} parts in common, expected at least 3: use methods that both reach channels, bands or units")
    rng = np.random.default_rng(seed)

    def drawn(shares: dict[tuple[str, ...], tuple[float, NDArray[np.float64]]]) -> NDArray[np.float64]:
        # Parts of one stream have the same epochs, which are drawn together.
        picks: dict[int, NDArray[np.int64]] = {}
        return np.array([v[picks.setdefault(len(v), rng.integers(0, len(v), len(v)))].mean() for _, v in (shares[k] for k in both)])

    boot = [_spearman(drawn(x), drawn(y)) for _ in range(draws)]
    low, high = np.nanpercentile(boot, [2.5, 97.5]) if np.isfinite(boot).any() else (np.nan, np.nan)
    found = _spearman(np.array([x[k][0] for k in both]), np.array([y[k][0] for k in both]))
    return {"correlation": found, "low": float(low), "high": float(high), "n": float(len(both))}


def _shares(maps: xr.Dataset) -> dict[tuple[str, ...], tuple[float, NDArray[np.float64]]]:
    """Mean share and its course (time,) of every part of a map, by stream, member and band."""
    out = {}
    for name, m in maps.data_vars.items():
        if m.attrs.get("unit") == ATTENTION:  # beside the map, not part of it
            continue
        values = m.to_numpy()
        labels = [m[d].to_numpy().astype(str) for d in m.dims[1:]]
        for place in np.ndindex(*values.shape[1:]):
            course = values[(slice(None), *place)]
            if course.any():
                out[(str(name), *(str(labels[i][k]) for i, k in enumerate(place)))] = (float(course.mean()), course)
    return out


def _all_shares(maps: xr.Dataset, planted: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], float]:
    """Mean share of every part that a map could hold, zero ones included."""
    known = {k: v for k, (v, _) in _shares(maps).items()}
    bands = {(k[0], k[2]) for k in known if len(k) == 3}
    out = {}
    for name, m in maps.data_vars.items():
        if m.attrs.get("unit") == ATTENTION:
            continue
        labels = [m[d].to_numpy().astype(str) for d in m.dims[1:]]
        for place in np.ndindex(*m.shape[1:]):
            part = (str(name), *(str(labels[i][k]) for i, k in enumerate(place)))
            if part in known or len(part) != 3 or (part[0], part[2]) in bands or part in planted:
                out[part] = known.get(part, 0.0)
    return out


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic) if len(x) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0 else float("nan")
