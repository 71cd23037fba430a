"""A tour of the mechanism: what each tap carries (probes with control tasks), and where in depth and time a patch restores an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.core import Recording
from brainmu.core.recording import as_list
from brainmu.errors import InputError
from brainmu.explain.asking import Answer, target_columns

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from brainmu.explain.taps import Inside

__all__ = ["probe_taps", "restoration"]

_LEAST = 20
"""Epochs with a value that each session must hold."""
_RIDGE = 0.03
"""Penalty of the probes, as a share of the number of epochs; inputs are standardised."""

Floats = NDArray[np.float64]


def probe_taps(
    stager: Any, sessions: Sequence[Recording], values: Sequence[ArrayLike], taps: Sequence[str] | None = None, *, by_latent: bool = False,
    controls: int = 20, seed: int = 0, progress: Callable[[str, float], None] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """How well a linear probe reads a value of each epoch from the activations at each tap, on sessions it was not fitted to.

    The control task (Hewitt & Liang 2019) is the same value moved in time within each session, around its end: as slow and as frequent, but nothing that the
    model could know of. A probe that reads its control as well says nothing.

    Parameters
    ----------
    stager : SleepStager or StageModel
        With an encoder.
    sessions : sequence of Recording
        At least two; each is held out in turn.
    values : sequence of array (epoch,)
        What is to be read, a session each: text (stages, content; "" where unknown) or numbers (NaN where unknown).
    taps : sequence of str or None
        Of :func:`brainmu.explain.tap_names`; all where None.
    by_latent : bool
        A row for each latent of the taps that have several.
    controls : int
        Draws of the control task.

    Returns
    -------
    DataFrame
        tap, latent (-1: all), score (balanced accuracy for text, rank correlation for numbers; mean over held-out sessions), control (mean), control_high (95 %
        of draws lie below), selectivity (score less control), p_value (one-sided; not below 1 / (controls + 1)), n (epochs).

    Raises
    ------
    InputError
        If there are fewer than two sessions, values do not fit them, or a session has fewer than 20 epochs with a value.

    Examples
    --------
    >>> probe_taps(stager, sessions, [truth.hypnogram.codes.astype(str) for truth in truths], by_latent=True)  # doctest: +SKIP
    """
    import pandas as pd

    from brainmu.explain.taps import Inside, tap_names

    recordings = as_list(sessions)
    if len(recordings) < 2 or len(recordings) != len(values) or controls < 1:
        raise InputError(f"{len(recordings)} sessions, {len(values)} lists of values and {controls} controls, expected at least 2, as many, and at least 1")
    known = tap_names(stager)
    taps = list(known) if taps is None else list(taps)
    insides = [Inside(stager, r) for r in recordings]
    wanted = [_values(v, inside, r) for v, inside, r in zip(values, insides, recordings)]
    if len({v.dtype.kind for v in wanted}) > 1:
        raise InputError("values are text in some sessions and numbers in others, expected one of them in all")
    rng, out = np.random.default_rng(seed), []
    rows = [np.arange(len(i.proba)) for i in insides]
    shifts = [[int(rng.integers(len(v) // 10, len(v) - len(v) // 10)) for v in wanted] for _ in range(controls)]
    for k, tap in enumerate(taps):
        x = [i.activations(tap, r).double().numpy() for i, r in zip(insides, rows)]
        latents = range(x[0].shape[1]) if by_latent and x[0].ndim == 3 else [-1]
        for latent in latents:
            inputs = [(a if latent < 0 else a[:, latent]).reshape(len(a), -1) for a in x]
            inputs = [_standard(a) for a in inputs]
            score = _held_out(inputs, wanted)
            if not np.isfinite(score):
                raise InputError("no session holds a value that the others have too: a probe fitted to some cannot be asked about the rest")
            null = np.array([_held_out(inputs, [np.roll(v, s) for v, s in zip(wanted, moved)]) for moved in shifts])
            out.append({
                "tap": tap, "latent": latent, "score": score, "control": null.mean(), "control_high": np.quantile(null, 0.95),
                "selectivity": score - null.mean(), "p_value": (1 + (~(null < score)).sum()) / (1 + controls), "n": int(sum(map(len, map(_known, wanted)))),
            })  # fmt: skip
        if progress is not None:
            progress("probe", (k + 1) / len(taps))
    return pd.DataFrame(out)


def restoration(
    stager: Any, edited: Recording, source: Recording, at: Sequence[int], *, target: str = "REM", taps: Sequence[str] | None = None,
    lags: Sequence[int] = (-2, -1, 0, 1, 2), progress: Callable[[str, float], None] | None = None,
) -> xr.DataArray:  # fmt: skip
    """Where in depth and in time the activations of the unedited run restore the model's answer in the edited one.

    For each tap and lag, the activations of the epochs ``at + lag`` are those of the run on `source`; the log odds of the target are read in the epochs `at`.

    Parameters
    ----------
    edited, source : Recording
        An edited copy and the unedited recording; the scales of `source` serve for both.
    at : sequence of int
        Epochs that are read, farther apart than the lags reach.
    lags : sequence of int
        Epochs from the one that is read to the one that is patched.

    Returns
    -------
    DataArray (tap, lag)
        Share of the gap between the two answers that comes back, in the model: 1 all of it, 0 none. ``attrs``: gap (mean log odds lost by the edit), unit.

    Raises
    ------
    InputError
        If the epochs do not fit, or the edit changes nothing in them.
    """
    import xarray as xr

    from brainmu.explain.taps import Inside, tap_names

    clean = Inside(stager, source)
    broken = Inside(stager, edited, clean.grid.statistics)
    epochs, n = np.unique(np.asarray(at, dtype=np.int64)), len(clean.proba)
    if any(lag != int(lag) for lag in lags):
        raise InputError(f"lags are {list(lags)}, expected whole numbers of epochs")
    reach = max(map(abs, lags), default=0)
    if len(broken.proba) != n:
        raise InputError(f"{edited.id}: has {len(broken.proba)} epochs and the source {n}, expected the same number")
    if not len(epochs) or not len(lags) or epochs[0] < reach or epochs[-1] + reach >= n or (np.diff(epochs) <= 2 * reach).any():
        raise InputError(f"at holds {len(epochs)} epochs, expected some in {reach}..{n - 1 - reach} and more than {2 * reach} apart, so that lags do not meet")
    taps = list(tap_names(stager)) if taps is None else list(taps)
    columns = target_columns(clean.stages, target)
    whole, lost = _odds(clean, clean.proba, columns, epochs), _odds(broken, broken.proba, columns, epochs)
    gap = float((whole - lost).mean())
    if not abs(gap) > 1e-3:
        raise InputError(f"the edit changes the log odds of {target} by {gap:.2g} on average in these epochs: there is nothing to restore")
    out = np.zeros((len(taps), len(lags)))
    for i, tap in enumerate(taps):
        for j, lag in enumerate(lags):
            patched = broken.with_activations(tap, epochs + lag, clean.activations(tap, epochs + lag))
            out[i, j] = float((_odds(broken, patched, columns, epochs) - lost).mean()) / gap
        if progress is not None:
            progress("patch", (i + 1) / len(taps))
    coords = {"tap": np.array(taps, dtype=object), "lag": ("lag", list(lags), {"unit": "epochs"})}
    attrs = {"unit": "share of the gap, in the model", "gap": gap, "target": target, "n_epochs": len(epochs), "level": "model"}
    return xr.DataArray(out, dims=("tap", "lag"), coords=coords, attrs=attrs, name="restored")


def _odds(inside: Inside, proba: Floats, columns: NDArray[np.intp], rows: NDArray[np.int64]) -> Floats:
    return Answer(proba, inside.grid.start, inside.grid.window, inside.stages).log_odds(columns)[rows]


def _values(values: ArrayLike, inside: Inside, recording: Recording) -> NDArray[Any]:
    """Values (epoch,) as text or float64, unknown where the model sees no data."""
    v = np.asarray(values)
    if v.ndim != 1 or len(v) != len(inside.proba):
        raise InputError(f"{recording.id}: values have shape {v.shape}, expected ({len(inside.proba)},), one for each epoch of the model")
    v = v.astype(np.float64) if v.dtype.kind in "fiub" else v.astype(str)
    v = np.where(np.isfinite(inside.proba).all(1), v, np.nan if v.dtype.kind == "f" else "")
    if len(_known(v)) < _LEAST:
        raise InputError(f"{recording.id}: {len(_known(v))} epochs have a value, expected at least {_LEAST}")
    return v


def _known(v: NDArray[Any]) -> NDArray[np.int64]:
    return np.flatnonzero(np.isfinite(v) if v.dtype.kind == "f" else v != "")


def _held_out(x: list[Floats], values: list[NDArray[Any]]) -> float:
    """Mean score over sessions, of standardised inputs, each read by a probe fitted to the others."""
    from brainmu.core.metrics import balanced_accuracy, confusion

    found = []
    kept = [(a[_known(v)], v[_known(v)]) for a, v in zip(x, values)]
    for held in range(len(kept)):
        fit = [p for i, p in enumerate(kept) if i != held]
        a, v = np.concatenate([p[0] for p in fit]), np.concatenate([p[1] for p in fit])
        text = v.dtype.kind != "f"
        kinds = np.unique(v) if text else None
        y = (v[:, None] == kinds).astype(np.float64) / (v[:, None] == kinds).mean(0) if kinds is not None else v[:, None]
        said, true = kept[held][0] @ _weights(a, y - y.mean(0)), kept[held][1]
        if kinds is not None:
            shared = np.isin(true, kinds)
            table = confusion(np.searchsorted(kinds, true[shared]), said.argmax(1)[shared], len(kinds))
            found.append(balanced_accuracy(table))
        else:
            found.append(_rank_correlation(said[:, 0], true))
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def _weights(a: Floats, y: Floats) -> Floats:
    """Ridge regression (d, k) of y (epoch, k) on a (epoch, d), by whichever of the two systems is smaller."""
    penalty = _RIDGE * len(a)
    if len(a) < a.shape[1]:
        return a.T @ np.linalg.solve(a @ a.T + penalty * np.eye(len(a)), y)
    return np.linalg.solve(a.T @ a + penalty * np.eye(a.shape[1]), a.T @ y)


def _standard(a: Floats) -> Floats:
    """Centred and scaled within a session: gain and montage are no part of the question."""
    return (a - a.mean(0)) / np.maximum(a.std(0), 1e-6)


def _rank_correlation(x: Floats, y: Floats) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic) if np.ptp(x) > 0 and np.ptp(y) > 0 else 0.0
