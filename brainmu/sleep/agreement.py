"""How far two scorings agree: kappa, F1 by stage, fractions, bouts, calibration, with n, chance and intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core.hypnogram import UNSCORED, Hypnogram
from brainmu.core.metrics import accuracy, balanced_accuracy, bootstrap_interval, calibration_error, cohen_kappa, confusion, f1_by_class, fraction_bias
from brainmu.errors import InputError, MissingDataError

__all__ = ["aligned", "disagreements", "evaluate", "evaluate_many", "shuffled_control"]


def evaluate(hypnogram: Hypnogram, reference: Hypnogram, *, draws: int = 500, seed: int = 0) -> dict[str, Any]:
    """Agreement of a hypnogram with a reference.

    Epochs of the hypnogram are compared with the reference at their middle, so grids may differ. AASM against rodent
    stages are compared as WAKE NREM REM. Artefact and unscored epochs on either side are left out and counted.

    Parameters
    ----------
    hypnogram, reference : Hypnogram
    draws : int
        Bootstrap draws over the reference's bouts for the interval of kappa; 0 leaves it out.
    seed : int

    Returns
    -------
    dict
        ``n`` epochs compared, ``n_left_out``, ``kappa``, ``kappa_interval`` (95 %, bouts resampled), ``accuracy``, ``balanced_accuracy``, ``macro_f1``,
        ``f1``, ``n_by_stage``, ``fraction_bias``, ``bout_length_ratio`` (by stage), ``transition_error`` (mean absolute difference of transition
        probabilities), ``confusion`` (reference in rows), ``stages``, ``chance`` (accuracy of always naming the commonest stage, accuracy expected from the
        fractions), ``shuffled`` (:func:`shuffled_control`), ``abstained`` (share of the reference's scored epochs that the hypnogram leaves
        unscored); with probabilities ``ece``, ``calibration_error`` (of all epochs, left unscored or not), and ``calibration`` and ``abstention`` as rows of
        :func:`brainmu.sleep.calibration` and :func:`brainmu.sleep.abstention`.

    Raises
    ------
    InputError
        If the two share no scored epoch.

    Examples
    --------
    >>> a = Hypnogram.from_stages(["WAKE", "NREM", "NREM", "REM"], epoch=4.0)
    >>> evaluate(a, a, draws=0)["kappa"]
    1.0
    """
    h, ref, r = aligned(hypnogram, reference)
    k = len(h.stages)
    m = confusion(r, h.codes, k)
    if not m.sum():
        raise InputError(
            f"the hypnograms share no scored epoch ({h.start:.0f}-{h.stop:.0f} s and {ref.start:.0f}-{ref.stop:.0f} s): check their start times and labels"
        )
    share = m.sum(1) / m.sum()
    by = lambda values: {s: _plain(v) for s, v in zip(h.stages, values)}  # noqa: E731
    f1 = f1_by_class(m)
    out = {
        "n": int(m.sum()), "n_left_out": int(len(h) - m.sum()), "stages": list(h.stages), "kappa": cohen_kappa(m), "accuracy": accuracy(m),
        "balanced_accuracy": balanced_accuracy(m), "macro_f1": float(np.nanmean(f1)), "f1": by(f1), "n_by_stage": by(m.sum(1)),
        "fraction_bias": by(fraction_bias(m)), "bout_length_ratio": by(_bout_ratio(h.codes, r, k)), "transition_error": _transition_error(h.codes, r, k),
        "confusion": m.tolist(), "chance": {"commonest_stage": float(share.max()), "by_fractions": float((share * m.sum(0) / m.sum()).sum())},
        "ece": calibration_error(h.proba, np.where(h.codes >= 0, r, -2)) if h.proba is not None else float("nan"),
        "abstained": _abstained(h.codes, r), "shuffled": shuffled_control(h, ref, draws=min(draws, 200) or 50, seed=seed),
    }  # fmt: skip
    out |= _probabilities([(h, ref)])
    if draws:
        out["kappa_interval"] = _bout_bootstrap(h.codes, r, k, draws, seed)
    return out


def evaluate_many(pairs: Iterable[tuple[str, Hypnogram, Hypnogram]], *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Agreement over many recordings, by subject.

    Parameters
    ----------
    pairs : iterable of (subject, hypnogram, reference)
        Several nights of a subject are pooled.
    draws : int
        Bootstrap draws over subjects.

    Returns
    -------
    dict
        ``n`` epochs, ``n_subjects``, ``n_recordings``; ``kappa`` pooled; ``kappa_subjects`` (mean over subjects) and ``kappa_subjects_interval``
        (95 %, subjects resampled); ``f1``, ``macro_f1``, ``fraction_bias`` pooled, each with ``…_interval`` over subjects; ``bout_length_ratio`` (geometric
        mean over recordings) and ``transition_error`` (mean over recordings); ``accuracy``; ``confusion``; ``ece``; ``chance``; ``abstained``;
        ``shuffled`` (mean kappa over subjects with every recording's bouts in another order, and its 95th percentile: the control); with probabilities
        ``calibration_error``, and ``calibration`` and ``abstention`` as lists of rows; ``subjects`` (DataFrame: subject, n, kappa, accuracy, macro_f1).
    """
    by_subject: dict[str, NDArray[np.int64]] = {}
    kept: list[tuple[str, Hypnogram, Hypnogram]] = []
    proba, truth = [], []
    stages: tuple[str, ...] = ()
    count = 0
    for subject, hypnogram, reference in pairs:
        h, ref, r = aligned(hypnogram, reference)
        kept.append((subject, h, ref))
        if stages and h.stages != stages:
            raise InputError(f"recordings mix stage sets {' '.join(stages)} and {' '.join(h.stages)}: convert all with as_rodent3()")
        stages, count = h.stages, count + 1
        by_subject[subject] = by_subject.get(subject, 0) + confusion(r, h.codes, len(stages))
        if h.proba is not None:
            proba.append(h.proba)
            truth.append(np.where(h.codes >= 0, r, -2))
    matrices = {s: m for s, m in by_subject.items() if m.sum()}
    if not matrices:
        raise InputError("no recording shares a scored epoch with its reference: check labels and start times")
    m = np.sum(list(matrices.values()), axis=0)
    frame = pd.DataFrame([
        {"subject": s, "n": int(c.sum()), "kappa": cohen_kappa(c), "accuracy": accuracy(c), "macro_f1": float(np.nanmean(f1_by_class(c)))}
        for s, c in matrices.items()
    ])  # fmt: skip
    kappas = frame["kappa"].dropna().tolist()
    share = m.sum(1) / m.sum()
    f1 = f1_by_class(m)
    return {
        "n": int(m.sum()), "n_subjects": len(matrices), "n_recordings": count, "stages": list(stages), "kappa": cohen_kappa(m),
        "kappa_subjects": float(np.mean(kappas)) if kappas else float("nan"),
        "kappa_subjects_interval": bootstrap_interval(kappas, lambda v: float(np.mean(v)), draws=draws, seed=seed),
        "accuracy": accuracy(m), "macro_f1": float(np.nanmean(f1)), "f1": {s: _plain(v) for s, v in zip(stages, f1)},
        "n_by_stage": {s: int(v) for s, v in zip(stages, m.sum(1))}, "fraction_bias": {s: _plain(v) for s, v in zip(stages, fraction_bias(m))},
        "confusion": m.tolist(), "ece": calibration_error(np.concatenate(proba), np.concatenate(truth)) if proba else float("nan"),
        "chance": {"commonest_stage": float(share.max()), "by_fractions": float((share * m.sum(0) / m.sum()).sum())}, "subjects": frame,
    } | _over_subjects(list(matrices.values()), stages, draws, seed) | _architecture(kept, len(stages)) | {
        "shuffled": _shuffled_subjects(kept, len(stages), seed),
    } | (_probabilities([(h, ref) for _, h, ref in kept]) if all(h.proba is not None for _, h, _ in kept) else {})  # fmt: skip


def disagreements(hypnogram: Hypnogram, reference: Hypnogram) -> pd.DataFrame:
    """Runs of epochs where the two differ: start, duration (s), reference, hypnogram, and the hypnogram's mean confidence."""
    h, _, r = aligned(hypnogram, reference)
    differ = (h.codes != r) & (h.codes >= 0) & (r >= 0)
    key = np.where(differ, r.astype(np.int64) * 100 + h.codes, -1)
    first = np.flatnonzero(np.r_[True, np.diff(key) != 0]) if len(key) else np.empty(0, dtype=np.int64)
    length = np.diff(np.r_[first, len(key)])
    rows = []
    for i, n in zip(first, length):
        if differ[i]:
            sure = float(h.proba[i : i + n].max(axis=1).mean()) if h.proba is not None else float("nan")
            rows.append(
                {"start": h.start + i * h.epoch, "duration": n * h.epoch, "reference": h.stages[r[i]], "hypnogram": h.stages[h.codes[i]], "confidence": sure}
            )
    return pd.DataFrame(rows, columns=["start", "duration", "reference", "hypnogram", "confidence"])


def aligned(hypnogram: Hypnogram, reference: Hypnogram) -> tuple[Hypnogram, Hypnogram, NDArray[np.int8]]:
    """Both in one stage set, and the reference's code (n,) at the middle of each of the hypnogram's epochs."""
    if hypnogram.stage_set != reference.stage_set:
        hypnogram, reference = hypnogram.as_rodent3(), reference.as_rodent3()
    return hypnogram, reference, reference.at(hypnogram.times + hypnogram.epoch / 2)


def shuffled_control(hypnogram: Hypnogram, reference: Hypnogram, *, draws: int = 200, seed: int = 0) -> dict[str, float]:
    """Agreement that is left when the hypnogram's bouts come in another order: their numbers and lengths stay, their times do not.

    Returns
    -------
    dict
        ``kappa`` (mean over draws, about 0), ``kappa_95`` (95th percentile) and ``p_value`` of the agreement found (one-sided, at least 1 / (draws + 1)).
    """
    if draws < 1:
        raise InputError(f"the shuffled control was asked for {draws} draws, expected at least 1")
    h, _, r = aligned(hypnogram, reference)
    k = len(h.stages)
    found, null = cohen_kappa(confusion(r, h.codes, k)), _shuffled(h.codes, r, k, draws, np.random.default_rng(seed))
    values = np.array([cohen_kappa(m) for m in null])
    known = values[np.isfinite(values)]
    if not len(known) or not np.isfinite(found):
        return {"kappa": float("nan"), "kappa_95": float("nan"), "p_value": float("nan")}
    p = (1 + int((known >= found).sum())) / (len(known) + 1)
    return {"kappa": float(known.mean()), "kappa_95": float(np.quantile(known, 0.95)), "p_value": p}


def _shuffled(h: NDArray[np.int8], r: NDArray[np.int8], k: int, draws: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Confusions (k, k) of the reference with the bouts of `h` in a random order, one a draw."""
    first = np.flatnonzero(np.r_[True, np.diff(h) != 0]) if len(h) else np.empty(0, dtype=np.int64)
    length = np.diff(np.r_[first, len(h)])
    out = []
    for _ in range(draws):
        order = rng.permutation(len(first))
        out.append(confusion(r, np.repeat(h[first[order]], length[order]), k))
    return out


def _shuffled_subjects(kept: list[tuple[str, Hypnogram, Hypnogram]], k: int, seed: int, draws: int = 50) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    by_subject: dict[str, NDArray[np.int64]] = {}
    for subject, h, ref in kept:
        null = np.stack(_shuffled(h.codes, ref.at(h.times + h.epoch / 2), k, draws, rng))
        by_subject[subject] = by_subject.get(subject, 0) + null
    means = [np.mean(v) for d in range(draws) if (v := [c for m in by_subject.values() if np.isfinite(c := cohen_kappa(m[d]))])]
    return {"kappa": float(np.mean(means)), "kappa_95": float(np.quantile(means, 0.95))} if means else {"kappa": float("nan"), "kappa_95": float("nan")}


def _over_subjects(matrices: list[NDArray[np.int64]], stages: tuple[str, ...], draws: int, seed: int) -> dict[str, Any]:
    """Intervals of the pooled F1s and fraction biases, subjects resampled together."""
    rng = np.random.default_rng(seed)
    nan = (float("nan"), float("nan"))
    if len(matrices) < 2 or not draws:
        return {"macro_f1_interval": nan, "f1_interval": dict.fromkeys(stages, nan), "fraction_bias_interval": dict.fromkeys(stages, nan)}
    pooled = np.tensordot(rng.multinomial(len(matrices), np.full(len(matrices), 1 / len(matrices)), size=draws), np.stack(matrices), axes=1)
    f1, bias = np.array([f1_by_class(m) for m in pooled]), np.array([fraction_bias(m) for m in pooled])

    def interval(values: NDArray[np.float64]) -> tuple[float, float]:
        known = values[np.isfinite(values)]
        return (float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975))) if len(known) else nan

    return {
        "macro_f1_interval": interval(np.array([row[np.isfinite(row)].mean() for row in f1])),
        "f1_interval": {s: interval(f1[:, i]) for i, s in enumerate(stages)}, "fraction_bias_interval": {s: interval(bias[:, i]) for i, s in enumerate(stages)},
    }  # fmt: skip


def _architecture(kept: list[tuple[str, Hypnogram, Hypnogram]], k: int) -> dict[str, Any]:
    """Bout lengths and transitions over recordings, and the share that was left unscored."""
    codes = [(h.codes, ref.at(h.times + h.epoch / 2)) for _, h, ref in kept]
    ratios = np.log(np.stack([_bout_ratio(a, b, k) for a, b in codes]))
    errors = [e for a, b in codes if np.isfinite(e := _transition_error(a, b, k))]
    ratio = {s: float(np.exp(np.mean(v))) if len(v := ratios[np.isfinite(ratios[:, i]), i]) else float("nan") for i, s in enumerate(kept[0][1].stages)}
    return {
        "bout_length_ratio": ratio, "transition_error": float(np.mean(errors)) if errors else float("nan"),
        "abstained": _abstained(np.concatenate([a for a, _ in codes]), np.concatenate([b for _, b in codes])),
    }  # fmt: skip


def _abstained(h: NDArray[np.int8], r: NDArray[np.int8]) -> float:
    """Share of the epochs scored in the reference that the hypnogram leaves unscored."""
    return float((h[r >= 0] == UNSCORED).mean()) if (r >= 0).any() else float("nan")


def _probabilities(pairs: list[tuple[Hypnogram, Hypnogram]]) -> dict[str, Any]:
    """Calibration and abstention as lists of rows; nothing without probabilities."""
    from brainmu.sleep.reliability import abstention, calibration

    if any(h.proba is None for h, _ in pairs):
        return {}
    try:
        table = calibration(pairs)
    except MissingDataError:  # every epoch with a reference lacks its probabilities
        return {}
    return {"calibration": table.to_dict("records"), "calibration_error": dict(table.attrs), "abstention": abstention(pairs).to_dict("records")}


def _bout_ratio(a: NDArray[np.int8], b: NDArray[np.int8], k: int) -> NDArray[np.float64]:
    """Mean bout length in `a` over that in `b` (k,); NaN where a stage is absent in either."""

    def mean_length(codes: NDArray[np.int8]) -> NDArray[np.float64]:
        first = np.flatnonzero(np.r_[True, np.diff(codes) != 0])
        n, c = np.diff(np.r_[first, len(codes)]), codes[first]
        return np.array([n[c == s].mean() if (c == s).any() else np.nan for s in range(k)])

    return mean_length(a) / mean_length(b)


def _transition_error(a: NDArray[np.int8], b: NDArray[np.int8], k: int) -> float:
    def matrix(codes: NDArray[np.int8]) -> NDArray[np.float64]:
        m = confusion(codes[:-1], codes[1:], k).astype(float)
        n = m.sum(1, keepdims=True)
        return np.divide(m, n, out=np.full_like(m, np.nan), where=n > 0)

    d = np.abs(matrix(a) - matrix(b))
    return float(np.nanmean(d)) if np.isfinite(d).any() else float("nan")


def _bout_bootstrap(h: NDArray[np.int8], r: NDArray[np.int8], k: int, draws: int, seed: int) -> tuple[float, float]:
    """Interval of kappa under resampling of the reference's bouts, which are the independent units of a night."""
    bout = np.cumsum(np.r_[0, np.diff(r) != 0])
    ok = (h >= 0) & (r >= 0)
    flat = np.zeros((bout[-1] + 1, k * k), dtype=np.int64)
    np.add.at(flat, (bout[ok], r[ok].astype(np.int64) * k + h[ok]), 1)
    flat = flat[flat.sum(1) > 0]
    if len(flat) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(flat), np.full(len(flat), 1 / len(flat)), size=draws) @ flat
    values = [cohen_kappa(m.reshape(k, k)) for m in drawn]
    low, high = np.nanpercentile(values, [2.5, 97.5]) if np.isfinite(values).any() else (float("nan"), float("nan"))
    return float(low), float(high)


def _plain(v: Any) -> Any:
    return v.item() if isinstance(v, np.generic) else v
