"""Answers of sessions made into one effect in the model, clustered by animal, with what speaks against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Effect
from brainmu.explain.readouts import SCALES, Summary, summarise, summarise_animals, with_training

if TYPE_CHECKING:
    from brainmu.explain.intervention import Found, Question

__all__ = ["effect_of"]

STRANGE_SHIFT = 2.0
"""Edits that move a summary farther than this, in distances between neighbouring windows, are unlike what the model has met."""
STRANGE_SHARE = 0.25
"""So are edits of which more than this share lie outside the model's usual windows."""


def effect_of(found: Sequence[Found], q: Question) -> Effect:
    """One effect of level "model" from what each session answered."""
    rng = np.random.default_rng([q.seed, 1])
    animals = sorted({f.subject for f in found})
    as_it_is = _summary(found, animals, -1, q.scale, rng)
    top, training = _with_training(as_it_is, found, animals, -1, q.scale)
    unit, scale = SCALES[q.scale]
    read = f"predicted probability of {q.aim}" if q.scale == "probability" else f"log hazard of {q.source} to {q.aim}"
    several = len(animals) > 1
    first = found[0]
    seconds = first.ahead * first.epoch
    names = " and ".join(q.what)
    content = f" of content {' or '.join(q.content)}" if q.content else ""
    n = sum(int(_usable(f).sum()) for f in found)
    replicates = _replicates(found, -1, q.scale)
    which = f"{n} {'synthetic ' if q.operation == 'insert' else ''}events{content}"
    who = f"{len(animals)} animals, {len(found)} recordings" if several else ", ".join(f.id for f in found)
    share = "" if q.doses[-1] == 1 else f", {q.doses[-1]:.0%} of them edited,"
    return Effect(
        estimand=(
            f"In the model: change of its {read} over the {seconds:g} s after the event's epoch"
            f"{f' and {q.blank:g} s more' if q.blank else ''}, when the {names} of {which} in {q.source}{share} are {first.said}, "
            f"beyond placebo edits of equal duration and norm ({who})"
        ),
        estimate=top.estimate, low=top.low, high=top.high, p_value=top.p_value, unit=unit, level="model", null=top.null,
        n_units=len(animals), n_events=n,
        assumptions=[
            "it is an effect in the model, never in the brain",
            "an edited input is one the model could have met in its training (see diagnostics: gate)",
            f"in the model's input, placebo times in {q.source} differ from event times only in that no event was there",
            f"the animals that {training['n']} heads were refitted without stand for others" if training else
            "the model is taken as it is: how it would have come out of other training animals is not in the interval (refits)",
        ],
        diagnostics={
            "operation": q.operation, "what": list(q.what), "outcome": f"{q.source}->{q.aim}", "content": list(q.content),
            "change_events": np.concatenate([f.change[-1][q.scale][_usable(f)] for f in found]), "change_placebos": replicates,
            "n_placebos": len(replicates), "placebos_without_place": sum(f.lost for f in found), "placebos_near_another": sum(f.crowded for f in found),
            "events_without_edit": sum(f.unmade for f in found), "causal": all(f.causal for f in found),
            "edit_norm_median": float(np.median([e.norm for f in found for e in f.edits])),
            "spikes_removed_median": float(np.median([len(e.drop) for f in found for e in f.edits])),
            "spikes_added_median": float(np.median([len(e.put_times) for f in found for e in f.edits])),
            "summary_shift": {
                "events": _mean([f.shift[0] for f in found]), "placebos": _mean([f.shift[1] for f in found]),
                "unit": "median distance between neighbouring windows",
            },
            "readouts": _readouts(found, animals, rng), "course": _course(found), "doses": _doses(found, animals, q, rng), "gate": _gate(found),
            "leakage": _leakage(found, q), "animals": _animals(found, animals, as_it_is), "refits": training, "epochs_read": first.ahead,
            "blank": f"the event's own epoch{f' and {q.blank:g} s' if q.blank else ''}", "warnings": _warnings(found, q, len(animals), len(replicates)),
        },
        scale=scale, regime=f"{q.operation} {names}", population="training animals" if training else "animals" if several else "events",
        risk_set=f"epochs {'the model takes for' if q.risk is None else f'that {q.risk} scores'} {q.source}",
        lag=1, blank=q.blank, horizon=seconds, n_exposed=n,
    )  # fmt: skip


def _with_training(s: Summary, found: Sequence[Found], animals: Sequence[str], dose: int, name: str) -> tuple[Summary, dict[str, Any]]:
    """The summary with the error of training where there are refits, and what that error is made of; empty where there are none."""
    heads = list(zip(*(f.refits for f in found)))
    if not heads:
        return s, {}
    each = np.array([_estimate(by, animals, dose, name) for by in heads])
    out, errors = with_training(s, each, _replicates(found, dose, name))
    as_it_is = {"low": s.low, "high": s.high, "p_value": s.p_value}
    return out, {"n": len(heads), "estimates": each, **errors, "without_training": as_it_is}


def _estimate(found: Sequence[Found], animals: Sequence[str], dose: int, name: str) -> float:
    """What :func:`_summary` estimates, alone."""
    each = [_beyond(f.change[dose][name], f.placebo[dose][name]) for f in found]
    if len(animals) == 1:
        return _mean(np.concatenate(each))
    return _mean([_mean(np.concatenate([d for d, f in zip(each, found) if f.subject == a])) for a in animals])


def _summary(found: Sequence[Found], animals: Sequence[str], dose: int, name: str, rng: np.random.Generator) -> Summary:
    """Over the events of one animal, or over animals, each of which counts once."""
    if len(animals) == 1:
        width = max(len(f.placebo[dose][name]) for f in found)
        placebo = [f.placebo[dose][name] for f in found]
        whole = np.concatenate([np.pad(p, ((0, width - len(p)), (0, 0)), constant_values=np.nan) for p in placebo], axis=1)
        return summarise(np.concatenate([f.change[dose][name] for f in found]), whole, rng)
    values = []
    for a in animals:
        d = [_beyond(f.change[dose][name], f.placebo[dose][name]) for f in found if f.subject == a]
        values.append(_mean(np.concatenate(d)))
    return summarise_animals(np.array(values), rng)


def _beyond(change: NDArray[np.float64], placebo: NDArray[np.float64]) -> NDArray[np.float64]:
    """Change of each event beyond its placebos; NaN where either is missing."""
    count = np.isfinite(placebo).sum(0)
    mean = np.nansum(placebo, axis=0) / np.maximum(count, 1)
    return np.where(count > 0, change - mean, np.nan)


def _usable(f: Found) -> NDArray[np.bool_]:
    return np.isfinite(f.change[-1]["probability"]) & np.isfinite(f.placebo[-1]["probability"]).any(0)


def _replicates(found: Sequence[Found], dose: int, name: str) -> NDArray[np.float64]:
    """Mean change by the placebos of each replicate, over the sessions."""
    out = []
    for r in range(max(len(f.placebo[dose][name]) for f in found)):
        rows = [f.placebo[dose][name][r][_usable(f)] for f in found if r < len(f.placebo[dose][name])]
        out.append(_mean(np.concatenate(rows)))
    values = np.array(out, dtype=np.float64)
    return values[np.isfinite(values)]


def _mean(values: Any) -> float:
    v = np.asarray(values, dtype=np.float64)
    v = v[np.isfinite(v)]
    return float(v.mean()) if len(v) else float("nan")


# -- what stands beside the estimate ----------------------------------------------------------------------------------------
def _readouts(found: Sequence[Found], animals: Sequence[str], rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    out = {}
    for name, unit in found[0].units.items():
        s, _ = _with_training(_summary(found, animals, -1, name, rng), found, animals, -1, name)
        out[name] = {"estimate": s.estimate, "low": s.low, "high": s.high, "p_value": s.p_value, "n": s.n, "unit": f"{unit}, in the model"}
    return out


def _course(found: Sequence[Found]) -> dict[str, Any]:
    """Change of each stage's probability by events and by placebos, epoch by epoch."""
    shortest = min(len(f.course[0]) for f in found)
    events, placebos = (np.array([f.course[k][:shortest] for f in found]).mean(0) for k in (0, 1))
    f = found[0]
    return {"stages": list(f.stages), "seconds": (np.arange(shortest) * f.epoch).tolist(), "events": events, "placebos": placebos}


def _doses(found: Sequence[Found], animals: Sequence[str], q: Question, rng: np.random.Generator) -> list[dict[str, float]]:
    out = []
    for k, d in enumerate(q.doses):
        s, _ = _with_training(_summary(found, animals, k, q.scale, rng), found, animals, k, q.scale)
        out.append({"dose": d, "estimate": s.estimate, "low": s.low, "high": s.high, "p_value": s.p_value, "n": s.n})
    return out


def _gate(found: Sequence[Found]) -> dict[str, Any]:
    """How strange edits are to the model, and whether that is too much."""
    out: dict[str, Any] = {
        "summary_shift": _mean([f.shift[0] for f in found]), "summary_shift_placebos": _mean([f.shift[1] for f in found]),
        "novel_share": _mean([f.novel[0] for f in found]), "novel_share_placebos": _mean([f.novel[1] for f in found]), "novel_share_usual": 0.05,
    }  # fmt: skip
    losses = [f.loss for f in found if f.loss is not None]
    if losses:
        out["pretraining_loss"] = {k: _mean([x[k] for x in losses]) for k in ("events", "placebos")} | {"unit": losses[0]["unit"]}
    strange = [
        out["summary_shift"] > STRANGE_SHIFT, out["novel_share"] > STRANGE_SHARE, bool(losses) and out["pretraining_loss"]["events"] > 1.0
    ]  # fmt: skip
    out["flagged"] = any(strange)
    return out


def _leakage(found: Sequence[Found], q: Question) -> dict[str, Any]:
    return {
        "causal_context": all(f.causal for f in found), "change_before_edit": _mean([f.earlier for f in found]),
        "seconds_to_read_out": float(min(f.until_read for f in found)), "blank": q.blank, "edited_streams_read": sorted({n for f in found for n in f.reads}),
        "read_out_blind_to_them": q.blind,
    }  # fmt: skip


def _animals(found: Sequence[Found], animals: Sequence[str], top: Summary) -> dict[str, Any]:
    if len(animals) == 1:
        return {}
    flips = float((np.abs(top.null) >= abs(top.estimate) - 1e-15).mean()) if len(top.null) else float("nan")
    return {"subjects": list(animals), "estimates": top.each, "sign_flip_p": flips, "least_sign_flip_p": 2.0 ** (1 - len(animals))}


def _warnings(found: Sequence[Found], q: Question, n_animals: int, n_null: int) -> list[str]:
    gate, leak = _gate(found), _leakage(found, q)
    out = []
    if n_animals == 1:
        out.append("one animal: the interval is over its events and says nothing of other animals")
        if (n := sum(f.n_chosen for f in found)) < 4:
            out.append(f"{n} event{'' if n == 1 else 's'}: an interval over so few says next to nothing")
    elif n_animals < 5:
        out.append(f"{n_animals} animals: an interval over so few is wide, and its coverage rests on effects in the model being about normal over animals")
    if not leak["causal_context"]:
        out.append("the model reads past and future: use a causal encoder where the read-out must not see what follows it")
    elif leak["change_before_edit"] > 1e-6:
        out.append(f"the model is causal, yet an edit changes it before: by {leak['change_before_edit']:.2g} (scales or decoding use the whole recording)")
    if not leak["edited_streams_read"]:
        out.append(f"the model reads none of what is edited ({' and '.join(q.what)}): no effect in the model can be expected")
    if n_animals == 1 and n_null < 19:
        out.append(f"with {n_null} placebo replicates p cannot be below {1 / (1 + n_null):.2f}")
    lost, crowded = sum(f.lost for f in found), sum(f.crowded for f in found)
    if lost:
        out.append(f"{lost} placebo edits found no place in {q.source} away from events and were left out")
    if crowded:
        out.append(f"{crowded} placebo edits lie in the read-out of another, there being no room left: give fewer events (max_events)")
    edits = [part for f in found for e in f.edits for part in e.places()]
    there = {"ripple": any(e.patches for e in edits), "spikes": any(len(e.drop) or len(e.put_times) for e in edits)}
    if absent := [w for w in q.what if not there[w]]:
        out.append(f"no {' and no '.join(absent)} could be edited (the recordings hold none in these events): the estimate is of the rest alone")
    unmade = sum(f.unmade for f in found)
    if unmade:
        out.append(f"{unmade} events could not be edited by {q.operation} and stay as they were")
    if gate["summary_shift"] > STRANGE_SHIFT:
        out.append(f"edits move the model's summaries {gate['summary_shift']:.1f} times as far as one window is from the next: outside what it has seen")
    if gate["novel_share"] > STRANGE_SHARE:
        out.append(f"{gate['novel_share']:.0%} of the edited windows lie outside the model's usual ones (5 % of unedited do): it has not seen the like")
    if gate["novel_share_placebos"] > STRANGE_SHARE:
        out.append(
            f"{gate['novel_share_placebos']:.0%} of the windows of placebo edits lie outside the model's usual ones: what the model makes of the placebos "
            "is in the estimate (change_events and change_placebos stand apart in the diagnostics)"
        )
    if gate.get("pretraining_loss", {}).get("events", 0.0) > 1.0:
        out.append(f"edits raise the pretraining loss by {gate['pretraining_loss']['events']:.1f} SD over windows: the model has not seen the like")
    return out
