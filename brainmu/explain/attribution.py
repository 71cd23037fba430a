"""What a stager used: channel, band, unit and time, with the checks that make a map evidence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.explain.asking import Answer, ask, differentiable, target_columns
from brainmu.explain.bands import BANDS

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["METHODS", "attribute"]

METHODS = ("integrated_gradients", "occlusion")
RUN = 8
"""Epochs of one run: neighbours share their context, so a run costs little more than an epoch."""

Map = dict[str, tuple[NDArray[np.float64], tuple[str, ...], str]]


def attribute(
    stager: Any, session: Recording, target: str = "REM", *, method: str | None = None, max_epochs: int = 32, shifts: int = 2, check: bool = True,
    seed: int = 0, progress: Callable[[str, float], None] | None = None,
) -> xr.Dataset:  # fmt: skip
    """What the stager used to tell `target` from the other stages.

    Parameters
    ----------
    stager : SleepStager or StageModel
    session : Recording or Session
    target : str
        A stage; WAKE, NREM and REM also name groups of AASM stages. Epochs that the stager takes for it are explained.
    method : {"integrated_gradients", "occlusion"} or None
        Integrated gradients need an encoder inside the stager; occlusion asks any stager again with one channel's band shifted
        in time. None takes the first where it can.
    max_epochs : int
        Integrated gradients: at most this many epochs, in runs of eight spread over the recording.
    shifts : int
        Occlusion: random shifts that are averaged.
    check : bool
        Integrated gradients: compare with the map of the same network with random weights; a method that does not care what was
        learned shows the same map (``attrs["randomised_weights_correlation"]``).
    seed : int

    Returns
    -------
    xr.Dataset
        One variable a stream, in log odds of the target: field signals (time, channel, band), feature streams (epoch, channel),
        spikes (epoch, unit). ``attrs``: method, target, n_epochs, completeness_error (median over runs), steps, checks.

    Raises
    ------
    MissingDataError
        If the stager takes no epoch for the target.
    InputError
        If the target or the method does not fit the stager.

    Examples
    --------
    >>> maps = attribute(stager, session, target="REM")  # doctest: +SKIP
    >>> maps["lfp"].mean("time_lfp").to_pandas()  # doctest: +SKIP

    References
    ----------
    Sundararajan et al. (2017) ICML; Adebayo J et al. (2018) Sanity checks for saliency maps. NeurIPS.
    """
    model = differentiable(stager)
    method = ("integrated_gradients" if model is not None else "occlusion") if method is None else method
    if method not in METHODS:
        raise InputError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if method == "integrated_gradients" and model is None:
        raise InputError(f"{stager!r} has nothing to differentiate: fit it with method='encoder', or use method='occlusion'")
    if method == "integrated_gradients" and model is not None and model.encoder.config.spike_tokens:
        raise InputError("this encoder has a token for each spike, and integrated gradients do not add up where tokens vanish: use method='occlusion'")
    if progress is not None:
        progress("stage", 0.0)
    answer = ask(stager, session)
    columns = target_columns(answer.stages, target)
    taken = np.isin(np.nan_to_num(answer.proba, nan=-1.0).argmax(1), columns) & np.isfinite(answer.proba).all(1)
    if not taken.any():
        raise MissingDataError(f"{session.id}: the stager takes no epoch for {target}, so there is nothing to explain: choose another target")
    rng = np.random.default_rng(seed)

    def say(label: str) -> Callable[[float], None] | None:
        return None if progress is None else lambda fraction: progress(label, fraction)

    attrs: dict[str, Any] = {"recording": session.id, "target": target, "method": method, "unit": "log odds", "stages": list(answer.stages)}
    if method == "integrated_gradients":
        from brainmu.explain.gradients import integrate

        assert model is not None
        runs = _runs(taken, max_epochs)
        maps, errors, steps = integrate(model, session, runs, columns, say("integrate"))
        attrs |= {"n_epochs": int(sum(b - a for a, b in runs)), "completeness_error": float(np.median(errors)), "steps": steps}
        if check:
            random, _, _ = integrate(_randomised(model, seed), session, runs, columns, say("check"), steps=((1, 32),))
            attrs["randomised_weights_correlation"] = _similarity(maps, random)
        chosen = np.concatenate([np.arange(a, b) for a, b in runs])
    else:
        from brainmu.explain.occlusion import occlude

        maps = occlude(stager, session, answer, columns, shifts, rng, say("occlude"))
        chosen = np.flatnonzero(taken)
        maps = {k: (v[chosen], keys, modality) for k, (v, keys, modality) in maps.items()}
        attrs |= {"n_epochs": len(chosen), "shifts": shifts}
    return _dataset(maps, answer, chosen, attrs)


def _runs(taken: NDArray[np.bool_], most: int) -> list[tuple[int, int]]:
    """Runs of up to `RUN` consecutive target epochs, spread evenly over the recording, `most` epochs in all."""
    if most < 1:
        raise InputError(f"max_epochs is {most}, expected at least 1")
    edge = np.flatnonzero(np.diff(np.r_[False, taken, False].astype(np.int8))).reshape(-1, 2)
    pieces = [(i, min(i + RUN, int(b))) for a, b in edge for i in range(int(a), int(b), RUN)]
    n = max(1, min(len(pieces), most // RUN))
    spread = [pieces[i] for i in np.unique(np.linspace(0, len(pieces) - 1, n).round().astype(int))]
    return [(a, min(b, a + most)) for a, b in spread]


def _randomised(model: Any, seed: int) -> Any:
    """The same network with weights that learned nothing, of the same spread, layer by layer."""
    import copy

    import torch

    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in other.parameters():
            # Shuffled in place: each layer keeps its distribution of weights and loses their arrangement.
            p.copy_(p.flatten()[torch.randperm(p.numel(), generator=generator)].view_as(p))
    return other.eval()


def _similarity(a: Map, b: Map) -> float:
    """Spearman correlation of the mean absolute shares (channel x band, unit) of two maps."""
    from scipy.stats import spearmanr

    x, y = (np.concatenate([np.abs(v).mean(0).ravel() for v, _, _ in m.values()]) for m in (a, b))
    return float(spearmanr(x, y).statistic) if len(x) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0 else float("nan")


def _dataset(maps: Map, answer: Answer, chosen: NDArray[np.intp], attrs: dict[str, Any]) -> xr.Dataset:
    """Maps as one Dataset; the time of a stream counts from the start of the session, its steps within an epoch evenly."""
    import xarray as xr

    epochs = answer.times[chosen]
    variables = {}
    for name, (values, keys, modality) in maps.items():
        per = len(values) // len(epochs)
        times = (epochs[:, None] + np.arange(per) * (answer.epoch / per)).ravel()
        member = "unit" if modality == "spikes" else f"channel_{name}"
        coords: dict[str, Any] = {f"time_{name}": (f"time_{name}", times, {"unit": "s"}), member: np.array(keys, dtype=object)}
        dims: tuple[str, ...] = (f"time_{name}", member)
        if modality == "field":
            dims = (*dims, "band")
            coords["band"] = np.array(list(BANDS), dtype=object)
        variables[name] = xr.DataArray(values, dims=dims, coords=coords, attrs={"unit": "log odds", "modality": modality})
    return xr.Dataset(variables, attrs=attrs | {"epoch": answer.epoch})
