"""The truth of each estimand, by doing the interventions: the same moments of the same animals, run forward once treated and once not.

Both arms share every random number, so the difference is the effect and little else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.synth.effects import CAP, STEP, Life, Mechanism, live, valence
from brainmu.synth.sleep import RodentSleep
from brainmu.synth.truth import TrueEffect

__all__ = ["planted_effects", "simulate_interventions"]


def planted_effects(m: Mechanism) -> dict[str, TrueEffect]:
    """The coefficients of the generator as :class:`TrueEffect` by name."""
    out = {}
    for name, ratios, exit_, what, lasts in (
        ("log_hazard_ratio", m.log_hazard_ratio, "NREM→WAKE", "one more {} reactivation", m.effect_duration),
        ("rem_log_hazard_ratio", m.rem_log_hazard_ratio, "NREM→REM", "one more {} reactivation", m.effect_duration),
        ("trial_log_hazard_ratio", m.trial_log_hazard_ratio if m.trials else {}, "NREM→WAKE", "a delivered {} stimulation", m.trial_duration),
    ):
        for content, value in ratios.items():
            sentence = f"Log ratio of the hazard of {exit_} while {what.format(content)} acts ({lasts:g} s), everything else equal."
            out[f"{name}[{content}]"] = TrueEffect(float(value), sentence, "log hazard ratio")
    return out


@dataclass
class _Moments:
    """Moments of NREM from which both arms start: one row a copy."""

    at: NDArray[np.float64]
    begin: NDArray[np.float64]
    slept: NDArray[np.float64]
    animal: NDArray[np.intp]


def simulate_interventions(m: Mechanism, sleep: RodentSleep, epoch: float = 4.0, copies: int = 10_000, seed: int = 0) -> dict[str, TrueEffect]:
    """True value of each estimand under `m` from `copies` simulated interventions, as :class:`TrueEffect` by name.

    Parameters
    ----------
    m, sleep
        The generator.
    epoch : float, s
        Epoch of the scored outcomes.
    copies : int
        Interventions a estimand; the Monte Carlo error comes with each value.
    seed : int
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 77]))
    # Where the clock acts, moments of the whole day stand for the estimand.
    herd = [live(m, sleep, 0.0, 3600.0 * sleep.day if sleep.drive else 5400.0, child) for child in rng.spawn(24)]
    out = {}
    if m.trials:
        moments = _gates(herd, copies, rng)
        if len(moments.at):
            for name, scored in (("itt_risk_difference", True), ("itt_risk_difference_exact", False)):
                p = [_woken(m, sleep, herd, moments, assigned, epoch, scored) for assigned in (True, False)]
                how = f"by the {epoch:g}-s epochs (a WAKE epoch starts in the window)" if scored else "in continuous time"
                sentence = f"Difference in the risk of WAKE within {m.trial_duration:g} s of the gate, assigned minus not assigned, {how}."
                out[name] = TrueEffect(float(p[0].mean() - p[1].mean()), sentence, "risk difference", float((p[0] - p[1]).std() / np.sqrt(len(p[0]))))
                if scored:
                    sentence = sentence.replace("Difference in the risk", "Log odds ratio")
                    value, error = _log_odds(p[0], p[1])
                    out["itt_log_odds_ratio"] = TrueEffect(value, sentence, "log odds ratio", error)
    for content in m.log_hazard_ratio:
        moments = _epochs(herd, epoch, copies, rng)
        at_risk = [_next_epochs(m, sleep, herd, moments, content, exposed, epoch) for exposed in (True, False)]
        value, error = _log_odds(*(y[r] for y, r in at_risk))
        sentence = (
            f"Marginal log odds ratio of WAKE in epoch k+2 given NREM in k and k+1, with one {content} reactivation in epoch k against none "
            f"(epochs of {epoch:g} s, lag 1)."
        )
        out[f"epoch_log_odds_ratio[{content}]"] = TrueEffect(value, sentence, "log odds ratio", error)
    return out


def _log_odds(treated: NDArray[np.float64], control: NDArray[np.float64]) -> tuple[float, float]:
    a, b = treated.mean(), control.mean()
    error = np.sqrt(1 / max(treated.sum(), 1) + 1 / max((1 - treated).sum(), 1) + 1 / max(control.sum(), 1) + 1 / max((1 - control).sum(), 1))
    eps = 1e-9
    return float(np.log(a + eps) - np.log(1 - a + eps) - np.log(b + eps) + np.log(1 - b + eps)), float(error)


def _gates(herd: list[Life], copies: int, rng: np.random.Generator) -> _Moments:
    return _resample([_rows(life, np.asarray(life.trials.start), i) for i, life in enumerate(herd)], copies, rng)


def _epochs(herd: list[Life], epoch: float, copies: int, rng: np.random.Generator) -> _Moments:
    """Beginnings of the epochs that begin in NREM."""
    out = []
    for i, life in enumerate(herd):
        t = np.arange(0.0, life.bouts["stop"].iloc[-1], epoch)
        k = np.searchsorted(life.bouts["start"].to_numpy(), t, side="right") - 1
        out.append(_rows(life, t[(life.bouts["stage"] == "NREM").to_numpy()[k]], i))
    return _resample(out, copies, rng)


def _rows(life: Life, t: NDArray[np.float64], animal: int) -> NDArray[np.float64]:
    """Moments (n,) with the begin of their bout, and the NREM since the last REM when it began, as columns (n, 4)."""
    start, stop = life.bouts["start"].to_numpy(), life.bouts["stop"].to_numpy()
    nrem, rem = (life.bouts["stage"] == "NREM").to_numpy(), (life.bouts["stage"] == "REM").to_numpy()
    total = np.r_[0.0, np.cumsum((stop - start) * nrem)][:-1]
    slept = total - np.maximum.accumulate(np.where(rem, total, 0.0))
    k = np.searchsorted(start, t, side="right") - 1
    return np.c_[t, start[k], slept[k], np.full(len(t), animal)]


def _resample(rows: list[NDArray[np.float64]], copies: int, rng: np.random.Generator) -> _Moments:
    table = np.concatenate(rows)
    if len(table):
        table = table[rng.integers(len(table), size=copies)]
    return _Moments(table[:, 0], table[:, 1], table[:, 2], table[:, 3].astype(np.intp))


def _woken(m: Mechanism, sleep: RodentSleep, herd: list[Life], x: _Moments, assigned: bool, epoch: float, scored: bool) -> NDArray[np.float64]:
    """Whether WAKE was reached within the trial's window (copy,)."""
    rng = np.random.default_rng(5)
    n = len(x.at)
    content = rng.integers(len(m.trial_content), size=n)
    effect = np.array([m.trial_log_hazard_ratio.get(c, 0.0) for c in m.trial_content])[content]
    effect = np.where(assigned & (rng.random(n) >= m.trial_failure), effect, 0.0)
    extra = np.zeros((round((m.trial_duration + 2 * epoch) / STEP), n))
    extra[: round(m.trial_duration / STEP)] += effect
    woke, end = _forward(m, sleep, herd, x, extra, rng)
    if not scored:
        return (woke <= m.trial_duration).astype(float)
    first = np.ceil(x.at / epoch) * epoch
    hit = np.zeros(n, dtype=bool)
    for k in range(int(m.trial_duration // epoch) + 1):
        edge = first + k * epoch - x.at
        hit |= (edge <= m.trial_duration) & (_overlap(woke, end, edge, edge + epoch) > epoch / 2)
    return hit.astype(float)


def _next_epochs(
    m: Mechanism, sleep: RodentSleep, herd: list[Life], x: _Moments, content: str, exposed: bool, epoch: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Outcome of epoch k+2, and who was at risk (copy,), when one event of `content` is put into epoch k or kept out of it."""
    rng = np.random.default_rng(6)
    n, inside = len(x.at), round(epoch / STEP)
    moment = rng.integers(inside, size=n)
    forced = _Forced(list(m.contents).index(content), inside, moment if exposed else None)
    woke, end = _forward(m, sleep, herd, x, np.zeros((4 * inside, n)), rng, forced)
    wake = [_overlap(woke, end, k * epoch, (k + 1) * epoch) > epoch / 2 for k in range(3)]
    return wake[2].astype(float), ~wake[0] & ~wake[1]


@dataclass
class _Forced:
    """An intervention on reactivation: those of `content` are kept out of the first `steps`, and one is put at step `moment` (copy,) if given."""

    content: int
    steps: int
    moment: NDArray[np.intp] | None


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64], lo: Any, hi: Any) -> NDArray[np.float64]:
    return np.maximum(np.minimum(b, hi) - np.maximum(a, lo), 0.0)


def _forward(
    m: Mechanism, sleep: RodentSleep, herd: list[Life], x: _Moments, eta: NDArray[np.float64], rng: np.random.Generator, forced: _Forced | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run every copy forward from its moment; `eta` (step, copy) is added to the log hazard of waking.

    Returns the time of waking (copy,), s from the moment, inf where it does not come, and the time it ends.
    """
    steps, n = eta.shape
    names, copies = list(m.contents), np.arange(n)
    grid = x.at + (np.arange(steps)[:, None] + 0.5) * STEP
    latent, u, beta, pushed = np.empty((steps, n)), np.empty((2, n)), np.empty((len(names), n)), np.empty(n)
    eta, eta_rem, drive = eta.copy(), np.zeros((steps, n)), np.zeros(n)
    for i, life in enumerate(herd):
        c = np.flatnonzero(x.animal == i)
        latent[:, c] = np.interp(grid[:, c], life.time, life.own)
        pushed[c] = np.interp(x.at[c], life.time, life.pressure - life.own)
        drive[c] = sleep.push(x.at[c], np.interp(x.at[c], life.time, life.need))
        u[:, c] = [[life.animal["log_wake_hazard"]], [life.animal["log_reactivation_rate"]]]
        beta[:, c] = np.array([life.animal["log_hazard_ratio"][k] for k in names]).reshape(-1, 1)
        _carry(m, life, x.at, c, grid, eta, eta_rem)
    rem_beta = np.array([m.rem_log_hazard_ratio.get(k, 0.0) for k in names])
    push = m.feedback * np.array([valence(k) for k in names])
    rates = np.array([m.reactivation_rate[k] for k in names])
    share = np.cumsum(rates) / max(rates.sum(), 1e-300)
    onset, onset_rem = np.zeros((steps, n)), np.zeros((steps, n))

    def react(s: int, c: NDArray[np.intp], which: NDArray[np.intp]) -> None:
        onset[s, c] += beta[which, c]
        onset_rem[s, c] += rem_beta[which]
        pushed[c] += push[which]

    for s, draw in enumerate(rng.random((steps, n))):
        level = m.confounding * (latent[s] + pushed)
        eta[s] += level + drive
        rate = rates.sum() * np.exp(level + u[1]) * STEP
        c = np.flatnonzero(draw < rate)
        which = np.minimum(np.searchsorted(share, draw[c] / rate[c], side="right"), len(names) - 1)
        if forced is not None and s < forced.steps:
            keep = which != forced.content
            c, which = c[keep], which[keep]
        react(s, c, which)
        if forced is not None and forced.moment is not None and s < forced.steps:
            c = np.flatnonzero(forced.moment == s)
            react(s, c, np.full(len(c), forced.content))
        pushed *= np.exp(-STEP / m.feedback_tau)
    last = round(m.effect_duration / STEP)
    for out, begun in ((eta, onset), (eta_rem, onset_rem)):
        acting = np.cumsum(begun, axis=0)
        acting[last:] -= acting[:-last].copy() if last < steps else 0.0
        out += acting
    age = grid - x.begin
    wake = sleep.leave_nrem(age) * np.exp(np.minimum(eta + u[0], CAP))
    rem = sleep.enter_rem(age, x.slept + age) * np.exp(np.minimum(eta_rem, CAP))
    k = (np.cumsum((wake + rem) * STEP, axis=0) < rng.exponential(size=n)).sum(0)
    j = np.minimum(k, steps - 1)
    chosen = rng.random(n) * (wake + rem)[j, copies] < wake[j, copies]
    woke = np.where((k < steps) & chosen, (k + rng.random(n)) * STEP, np.inf)
    return woke, woke + sleep.wake_length(rng, n, push=drive)


def _carry(
    m: Mechanism, life: Life, at: NDArray[np.float64], copies: NDArray[np.intp], grid: NDArray[np.float64], eta: NDArray[np.float64],
    eta_rem: NDArray[np.float64],
) -> None:  # fmt: skip
    """Add what still acts from before each moment: earlier reactivations and delivered stimulations of this animal."""
    contents = list(life.reactivation.content)
    wake = np.array([life.animal["log_hazard_ratio"][c] for c in contents])
    rem = np.array([m.rem_log_hazard_ratio.get(c, 0.0) for c in contents])
    given = life.trials.delivered.astype(bool)
    stim = np.array([m.trial_log_hazard_ratio.get(c, 0.0) for c in life.trials.content])[given]
    for start, lasts, size, size_rem in (
        (life.reactivation.start, m.effect_duration, wake, rem),
        (life.trials.start[given], m.trial_duration, stim, np.zeros(len(stim))),
    ):
        first, last = np.searchsorted(start, at[copies] - lasts), np.searchsorted(start, at[copies])
        for k in range(int((last - first).max(initial=0))):
            more = first + k < last
            c, e = copies[more], (first + k)[more]
            acting = grid[:, c] < start[e] + lasts
            eta[:, c] += size[e] * acting
            eta_rem[:, c] += size_rem[e] * acting
