"""What stands beside the effect of randomised trials: arms, ratios, strata, compliance, balance, carry-over, warnings, verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.grid import EpochGrid
from brainmu.causal.inference import Estimate, animal_mean
from brainmu.causal.outcome import Outcome
from brainmu.causal.trial_controls import trial_controls, trial_sensitivity
from brainmu.causal.trial_gates import closed_loop
from brainmu.causal.trial_risk import outcome_of, risk_differences
from brainmu.causal.trial_table import Trials

if TYPE_CHECKING:
    from brainmu.causal.randomise import AssignmentScheme

__all__ = ["describe_trials", "trial_verdict"]


def describe_trials(
    ledger: Trials, trials: Trials, analysed: NDArray[np.bool_], y: NDArray[np.float64], rules: Mapping[str, str], weights: NDArray[np.float64],
    rd: NDArray[np.float64], risk1: NDArray[np.float64], risk0: NDArray[np.float64], result: Estimate, scheme: AssignmentScheme, outcome: Outcome,
    p_value: float, grids: Sequence[EpochGrid], weight: str, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Everything but the number itself, as plain values."""
    use = weights > 0
    u = weights[use] / weights[use].sum()
    risks = outcome.kind == "transition"
    mean, gap = ("risk", "risk_difference") if risks else ("mean", "difference")
    out: dict[str, Any] = {
        "scheme": scheme.name, "competing": dict(rules), f"{mean}_assigned": float(u @ risk1[use]), f"{mean}_control": float(u @ risk0[use]),
        gap: result.as_dict() | {"randomisation_p": p_value}, **(_ratios(risk1[use], risk0[use], weights[use], trials, y) if risks else {}),
        "animals": [
            {"animal": name, "trials": int((trials.animal == j).sum()), "assigned": int((trials.assigned & (trials.animal == j)).sum()),
             f"{mean}_assigned": float(risk1[j]), f"{mean}_control": float(risk0[j]), gap: float(rd[j]), "weight": float(weights[j])}
            for j, name in enumerate(trials.names)
        ],
        "within_these_animals": _within(trials, y, weights).as_dict(),
        "flow": _flow(ledger, trials, analysed), "resolution": _resolution(trials),
        "strata": _strata(trials, y), "contents": _contents(trials, y), "compliance": _compliance(trials, y, result),
        "carry_over": _carry_over(trials, y), "balance": _balance(trials), "closed_loop": closed_loop(ledger),
    }  # fmt: skip
    if risks:
        out |= {"horizons": _horizons(ledger, rules, weights), "eligible_before_onset": _before(ledger, weights)}
    out["negative_controls"] = trial_controls(grids, scheme, analysed, weight, seed)
    out["sensitivity"] = trial_sensitivity(trials, y, weights, result, out, outcome)
    out["warnings"] = _warnings(ledger, trials, out, weights, outcome) + out["closed_loop"].pop("warnings", [])
    return out


def _mean_rd(trials: Trials, y: NDArray[np.float64], treated: NDArray[np.bool_], weight: NDArray[np.float64] | None = None) -> Estimate:
    """Risk difference averaged over animals that have both arms in these rows."""
    rd = risk_differences(trials, y, treated)[0]
    ok = np.isfinite(rd) & (np.ones(len(rd), bool) if weight is None else weight > 0)
    if not ok.any():
        return Estimate.t(float("nan"), np.nan, 0)
    return animal_mean(rd[ok], None if weight is None else weight[ok])


def _ratios(r1: NDArray[np.float64], r0: NDArray[np.float64], w: NDArray[np.float64], trials: Trials, y: NDArray[np.float64]) -> dict[str, Any]:
    """Risk ratio and log odds ratio of the standardised risks; intervals by leaving out one animal at a time, on the log scale."""
    functions: dict[str, Callable[[float, float], float]] = {
        "log_risk_ratio": lambda a, b: np.log(a / b),
        "log_odds_ratio": lambda a, b: np.log(a * (1 - b) / (b * (1 - a))),
    }
    out: dict[str, Any] = {}
    n = len(r1)
    for name, f in functions.items():

        def at(keep: NDArray[np.bool_], f: Callable[[float, float], float] = f) -> float:
            a, b = float(np.average(r1[keep], weights=w[keep])), float(np.average(r0[keep], weights=w[keep]))
            return float(f(a, b)) if 0 < a < 1 and 0 < b < 1 else float("nan")

        everyone = np.ones(n, dtype=bool)
        whole = at(everyone)
        if n > 1:
            left = np.array([at(np.arange(n) != j) for j in range(n)])
            est = Estimate.t(whole, float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum())), n - 1)
        else:
            a, o = trials.assigned, y > 0
            cells = [float((o & a).sum()), float((~o & a).sum()), float((o & ~a).sum()), float((~o & ~a).sum())]
            inverse = [1 / c if c else np.inf for c in cells]
            var = sum(inverse) if name == "log_odds_ratio" else inverse[0] - 1 / a.sum() + inverse[2] - 1 / (~a).sum()
            est = Estimate.t(whole, float(np.sqrt(max(var, 0.0))), max(len(y) - 2, 1))
        out[name] = est.as_dict()
    rr = out["log_risk_ratio"]
    out["risk_ratio"] = {"estimate": float(np.exp(rr["estimate"])), "low": float(np.exp(rr["low"])), "high": float(np.exp(rr["high"]))}
    return out


def _within(trials: Trials, y: NDArray[np.float64], weights: NDArray[np.float64]) -> Estimate:
    """The effect in these very animals (Neyman's variance within each), which says nothing about other animals."""
    est, var, total = 0.0, 0.0, weights.sum()
    for j in np.flatnonzero(weights):
        rows = trials.animal == j
        a, o = trials.assigned[rows], y[rows]
        n1, n0 = int(a.sum()), int((~a).sum())
        if min(n1, n0) < 2:
            continue
        u = weights[j] / total
        est += u * float(o[a].mean() - o[~a].mean())
        var += u**2 * float(o[a].var(ddof=1) / n1 + o[~a].var(ddof=1) / n0)
    return Estimate.t(est, float(np.sqrt(var)), max(len(y) - 2 * int((weights > 0).sum()), 1))


def _flow(ledger: Trials, trials: Trials, analysed: NDArray[np.bool_]) -> dict[str, Any]:
    """How many trials of each arm were logged, at risk and analysed, and how their follow-up ended."""
    out: dict[str, Any] = {}
    for name, arm in (("assigned", ledger.assigned), ("control", ~ledger.assigned)):
        ends = ledger.end[arm & ledger.at_risk]
        out[name] = {
            "logged": int(arm.sum()), "at_risk": int((arm & ledger.at_risk).sum()), "analysed": int((arm & analysed).sum()),
            "target": int((ends == "target").sum()), "other_stage_first": int((ends == "exit").sum()), "next_trial_first": int((ends == "next").sum()),
            "scoring_ended_first": int((ends == "end").sum()), "target_in_own_epoch": int((ledger.own_epoch & arm).sum()),
        }  # fmt: skip
    # Selection at the onset must not depend on the assignment, else the comparison is no longer randomised.
    out["exclusion_p"] = _two_proportions(~ledger.at_risk, ledger.assigned)
    return out


def _two_proportions(event: NDArray[np.bool_], arm: NDArray[np.bool_]) -> float:
    from scipy import stats

    table = [[int((event & arm).sum()), int((~event & arm).sum())], [int((event & ~arm).sum()), int((~event & ~arm).sum())]]
    return float(stats.fisher_exact(table)[1])


def _resolution(trials: Trials) -> dict[str, Any]:
    e, h = trials.epoch, trials.horizon
    low, high = int(h // e), int(np.ceil(h / e))
    reads = f"{low}" if low == high else f"{low} or {high}"
    return {
        "epoch": e, "horizon": h, "epoch_starts_in_horizon": [low, high],
        "note": f"a transition is known to its {e:g} s epoch; a horizon of {h:g} s reads the {reads} epoch starts in (onset, onset + {h:g} s]",
    }  # fmt: skip


def _strata(trials: Trials, y: NDArray[np.float64]) -> dict[str, Any]:
    """The effect by time in bout at the onset (thirds) and by stage where the source group holds several."""
    out: dict[str, Any] = {}
    cuts = np.quantile(trials.age, [1 / 3, 2 / 3])
    third = np.searchsorted(cuts, trials.age, side="right")
    edges = [0.0, *cuts, float(trials.age.max())]
    out["time_in_bout"] = [
        {"from": float(edges[i]), "to": float(edges[i + 1]), "trials": int((third == i).sum())}
        | _mean_rd(trials[third == i], y[third == i], trials.assigned[third == i]).as_dict()
        for i in range(3)
        if (third == i).any()
    ]
    if len(set(trials.stage)) > 1:
        out["stage"] = [{"stage": s, "trials": int(m.sum())} | _mean_rd(trials[m], y[m], trials.assigned[m]).as_dict() for s, m in _levels(trials.stage)]
    return out


def _levels(values: NDArray[Any]) -> list[tuple[str, NDArray[np.bool_]]]:
    return [(str(v), values == v) for v in sorted(set(values))]


def _contents(trials: Trials, y: NDArray[np.float64]) -> dict[str, Any]:
    """The effect of each content and their contrasts within animals; empty where trials have one content."""
    levels = _levels(trials.content)
    if len(levels) < 2:
        return {}
    by = {s: risk_differences(trials[m], y[m], trials.assigned[m])[0] for s, m in levels}
    out: dict[str, Any] = {s: {"trials": int(m.sum())} | _mean_rd(trials[m], y[m], trials.assigned[m]).as_dict() for s, m in levels}
    names = list(by)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            d = by[a] - by[b]
            if np.isfinite(d).any():
                out[f"{a} - {b}"] = animal_mean(d[np.isfinite(d)]).as_dict()
    return out


def _horizons(ledger: Trials, rules: Mapping[str, str], weights: NDArray[np.float64]) -> list[dict[str, float]]:
    """Risk difference by the time since onset, an epoch at a time up to the horizon."""
    y, analysed = outcome_of(ledger, rules)
    trials = ledger[analysed]
    use = weights > 0
    out = []
    for t in np.unique(np.r_[np.arange(trials.epoch, trials.horizon, trials.epoch), trials.horizon]):
        rd, r1, r0 = risk_differences(trials, np.where(trials.latency <= t + 1e-6, y, 0.0), trials.assigned)
        u = weights[use] / weights[use].sum()
        out.append({"seconds": float(t), "risk_assigned": float(u @ r1[use]), "risk_control": float(u @ r0[use]), "risk_difference": float(u @ rd[use])})
    return out


def _compliance(trials: Trials, y: NDArray[np.float64], result: Estimate) -> dict[str, Any]:
    """Delivered among assigned; the per-protocol contrast (selected, so not randomised) and the effect of assignment per delivery."""
    if not trials.logged.get("delivered"):
        return {}
    share = float(trials.delivered[trials.assigned].mean())
    keep = trials.delivered == trials.assigned
    per_protocol = _mean_rd(trials[keep], y[keep], trials.assigned[keep])
    return {
        "delivered_among_assigned": share, "per_protocol": per_protocol.as_dict(),
        "per_delivery": {"estimate": result.estimate / share, "low": result.low / share, "high": result.high / share} if share > 0 else {},
    }  # fmt: skip


def _carry_over(trials: Trials, y: NDArray[np.float64]) -> dict[str, Any]:
    """Risk difference by the assignment of the animal's previous trial in the session: not zero where trials reach into each other."""
    follows = np.r_[False, (np.diff(trials.session) == 0) & (np.diff(trials.animal) == 0)]
    previous = np.r_[False, trials.assigned[:-1]]
    return _mean_rd(trials[follows], y[follows], previous[follows]).as_dict() if follows.any() else {}


def _balance(trials: Trials) -> dict[str, float]:
    """Standardised difference of the arms in the time in bout at onset and in clock time, and whether as many were assigned as logged."""
    from scipy import stats

    a = trials.assigned
    out = {}
    for name, v in (("time_in_bout", trials.age), ("session_time", trials.onset)):
        spread = np.sqrt((v[a].var() + v[~a].var()) / 2)
        out[name] = float((v[a].mean() - v[~a].mean()) / spread) if spread > 0 else 0.0
    p = trials.probability
    if np.isfinite(p).all():
        z = (a.sum() - p.sum()) / np.sqrt((p * (1 - p)).sum())
        out["share_against_logged_probability_p"] = float(2 * stats.norm.sf(abs(z)))
    return out


def _before(ledger: Trials, weights: NDArray[np.float64]) -> dict[str, Any]:
    """The same effect among trials at risk in the last epoch over before the onset: nothing that follows the onset selects them."""
    rows = ledger.before
    if not rows.any():
        return {}
    return {"trials": int(rows.sum())} | _mean_rd(ledger[rows], ledger.before_hit[rows].astype(np.float64), ledger.assigned[rows], weights).as_dict()


def _warnings(ledger: Trials, trials: Trials, out: dict[str, Any], weights: NDArray[np.float64], outcome: Outcome) -> list[str]:
    said = []
    transition = outcome.transition
    n = int((weights > 0).sum())
    if n == 1:
        said.append("one animal: the interval covers this animal's trials only, not other animals")
    elif n < 4:
        said.append(f"{n} animals: the interval rests on {n - 1} degree{'s' if n > 2 else ''} of freedom")
    lost = [trials.names[j] for j in np.flatnonzero(weights == 0)]
    if lost:
        verbs = ("animals have", "are") if len(lost) > 1 else ("animal has", "is")
        said.append(f"{len(lost)} {verbs[0]} an empty arm and {verbs[1]} left out: {', '.join(lost[:8])}")
    if out["flow"]["exclusion_p"] < 0.05:
        said.append(
            "trials outside the source stage at onset differ between the arms: "
            + ("read eligible_before_onset, which nothing after the onset selects" if outcome.kind == "transition" else "the arms are not alike at the onset")
        )
    if (~ledger.at_risk).mean() > 0.2:
        said.append(f"{(~ledger.at_risk).mean():.0%} of the logged trials start outside {transition.source} and are not at risk")
    if out["balance"].get("share_against_logged_probability_p", 1.0) < 1e-3:
        said.append("the share of assigned trials does not fit their logged probability: check the ledger")
    if out["carry_over"].get("p_value", 1.0) < 0.01:
        said.append("the previous trial's assignment predicts the outcome: trials may reach into each other")
    if out["compliance"].get("delivered_among_assigned", 1.0) < 0.8:
        said.append(f"only {out['compliance']['delivered_among_assigned']:.0%} of assigned trials were delivered: the effect of assignment is diluted")
    said += [
        f"negative control fails: assignment 'predicts' the {c['quantity']} (p = {c['p_value']:.2g}), which was over before it: the coin was not as logged"
        for c in out["negative_controls"]
        if c["p_value"] < 0.05 / len(out["negative_controls"])
    ]
    cut = np.isin(trials.end, ["next", "end"]).mean()
    if cut > 0.1:
        said.append(f"{cut:.0%} of trials are cut short by the next trial or the end of scoring")
    if trials.logged.get("probability") is False:
        said.append("no assignment probability was logged: one fair coin a trial is taken on trust")
    if ledger.horizon < ledger.epoch:
        said.append(f"the horizon of {ledger.horizon:g} s is shorter than the {ledger.epoch:g} s epoch: some trials see no epoch start at all")
    return said


def trial_verdict(result: Estimate, p_value: float, report: dict[str, Any], outcome: Outcome, horizon: float) -> str:
    """The result in plain words, with what would overturn it."""
    sure = p_value < 0.05 if np.isfinite(p_value) else result.p_value < 0.05
    risks = outcome.kind == "transition"
    what = f"{outcome.transition} within {horizon:g} s" if risks else f"the {outcome.quantity} over {horizon:g} s"
    low, high = (f"{v:+.1%}" if risks else f"{v:+.3g}" for v in (result.low, result.high))
    if not sure:
        return f"No effect on {what} is shown; the interval admits changes from {low} to {high}. More trials or animals would narrow it."
    way = "raises" if result.estimate > 0 else "lowers"
    size = f"{abs(result.estimate):.1%}" if risks else f"{abs(result.estimate):.3g}"
    reach = "" if result.p_value < 0.05 else " It is shown for these animals; the interval over animals includes no effect."
    doubts = "; ".join(report["warnings"]) or "an assignment log that is not what happened, or scoring that saw the stimulation"
    strength = report["sensitivity"]["e_value_interval"]
    if result.p_value < 0.05 and np.isfinite(strength):
        doubts += f". Such a flaw would have to be tied to arm and outcome by a risk ratio of {strength:.2f}"
    return f"Assignment {way} {'the chance of ' if risks else ''}{what} by {size} (randomised).{reach} What would overturn it: {doubts}."
