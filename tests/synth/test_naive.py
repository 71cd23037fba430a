"""Analyses that planted studies must fool, and those that they must not: the traps are what the generator is for."""

from __future__ import annotations

import numpy as np
import pytest

import brainmu.synth as synth

NOTHING = {"log_hazard_ratio": {"negative": 0.0, "positive": 0.0}, "trial_log_hazard_ratio": {}}


def _nrem_clock(life):
    """Reactivations and awakenings in time spent in NREM, s, and that time's total: what a circular shift turns round."""
    b = life.bouts
    nrem = (b.stage == "NREM").to_numpy()
    start, stop = b.start.to_numpy(), b.stop.to_numpy()
    passed = np.r_[0.0, np.cumsum((stop - start) * nrem)]
    at = np.asarray(life.reactivation.start)
    k = np.searchsorted(start, at, side="right") - 1
    asleep = nrem[k]
    woke = np.flatnonzero(nrem[:-1] & (b.stage.to_numpy()[1:] == "WAKE"))
    return passed[k[asleep]] + at[asleep] - start[k[asleep]], passed[woke + 1], passed[-1]


def _circular_shift_p(lives, rng, window=10.0, draws=199):
    """p of the share of reactivations that are followed by waking within `window` s, against circular shifts within NREM."""
    clocks = [_nrem_clock(life) for life in lives]

    def statistic(shifts):
        hits = 0
        for (event, woke, total), shift in zip(clocks, shifts):
            moved = np.sort((event + shift * total) % total)
            hits += (np.searchsorted(moved, woke) - np.searchsorted(moved, woke - window)).sum()
        return hits

    seen = statistic(np.zeros(len(clocks)))
    null = np.array([statistic(rng.random(len(clocks))) for _ in range(draws)])
    return (1 + np.sum(np.abs(null - null.mean()) >= abs(seen - null.mean()))) / (draws + 1)


def _epochs(recordings, lag):
    """Exposed and woken of every epoch at risk (n,), as scored, exposure `lag` epochs before the one whose outcome is read."""
    out = []
    for rec in recordings:
        h = rec.labels["scoring"]
        nrem = np.array([s == "NREM" for s in h.stages_list()])
        wake = np.array([s == "WAKE" for s in h.stages_list()])
        count = np.histogram(rec.labels["reactivation"].start, np.arange(len(nrem) + 1) * h.epoch)[0] > 0
        k = np.arange(lag, len(nrem) - 1)
        risk = np.all([nrem[k - j] for j in range(lag + 1)], axis=0)
        out.append(np.c_[count[k - lag], wake[k + 1]][risk])
    return np.concatenate(out).T


def _log_odds_ratio(exposed, woke):
    a, b, c, d = (np.sum(x) for x in (exposed & woke, exposed & ~woke, ~exposed & woke, ~exposed & ~woke))
    return np.log(a * d / (b * c)), np.sqrt(1 / a + 1 / b + 1 / c + 1 / d)


def test_circular_shifts_and_epoch_comparisons_find_an_effect_that_is_not_there():
    shifted, compared = [], []
    for seed in range(8):
        recordings, truth = synth.study(n_animals=8, hours=2.0, seed=seed, confounding=0.9, trials=False, **NOTHING)
        shifted.append(_circular_shift_p(truth.lives, np.random.default_rng(seed)) < 0.05)
        value, error = _log_odds_ratio(*_epochs(recordings, 1))
        compared.append(value / error > 1.96)
    assert np.sum(shifted) >= 7
    assert np.sum(compared) >= 7


def test_without_a_confounder_both_keep_their_level():
    shifted, compared = [], []
    for seed in range(10):
        recordings, truth = synth.study(n_animals=4, hours=2.0, seed=seed, animal_sd=0.0, trials=False, **NOTHING)
        shifted.append(_circular_shift_p(truth.lives, np.random.default_rng(seed)) < 0.05)
        value, error = _log_odds_ratio(*_epochs(recordings, 1))
        compared.append(abs(value / error) > 1.96)
    assert np.sum(shifted) <= 3  # binomial of 10 at 0.05: more come once in 1,000
    assert np.sum(compared) <= 3


def test_exposure_in_the_last_epoch_before_waking_is_biased_under_the_null():
    rates = {"negative": 0.06, "positive": 0.06}
    recordings, _ = synth.study(n_animals=100, hours=2.0, seed=3, animal_sd=0.0, trials=False, reactivation_rate=rates, **NOTHING)
    same, same_error = _log_odds_ratio(*_epochs(recordings, 0))
    before, before_error = _log_odds_ratio(*_epochs(recordings, 1))
    assert same < -3 * same_error
    assert abs(before) < 3 * before_error


def test_a_poor_proxy_leaves_the_bias_that_the_pressure_itself_removes():
    sm = pytest.importorskip("statsmodels.api")
    _, truth = synth.study(n_animals=6, hours=5.0, seed=2, confounding=0.9, reliability=0.5, animal_sd=0.0, trials=False, **NOTHING)
    rows = []
    for life in truth.lives:
        after = life.bouts.stage.shift(-1).to_numpy()
        for (stage, a, b), following in zip(life.bouts.to_numpy(), after):
            if stage == "NREM":
                t = np.arange(a, b, 1.0)
                dose = np.searchsorted(life.reactivation.start, t) - np.searchsorted(life.reactivation.start, t - 10.0)
                woke = np.zeros(len(t))
                woke[-1] = following == "WAKE"
                rows.append(np.c_[woke, dose, np.interp(t, life.time, life.pressure), np.interp(t, life.time, life.measured), np.minimum(t - a, 60.0)])
    x = np.concatenate(rows)

    def z(*adjust):
        fit = sm.GLM(x[:, 0], np.c_[x[:, [1, *adjust, 4]], np.ones(len(x))], family=sm.families.Poisson()).fit()
        return fit.params[0] / fit.bse[0]

    assert z() > 5
    assert z(3) > 3
    assert abs(z(2)) < 3.2


def test_delivered_only_analysis_of_closed_loop_trials_is_biased_where_assignment_is_not():
    quick = dict(trial_gate="detection", trial_spacing=10.0, detector_sensitivity=0.9, trial_failure=0.35, trial_failure_slope=2.0)
    _, truth = synth.study(n_animals=40, hours=3.0, seed=6, confounding=0.9, **quick, **NOTHING)
    assigned, delivered, woke = [], [], []
    for life in truth.lives:
        wake = np.r_[life.bouts.start[life.bouts.stage == "WAKE"], np.inf]
        gate = life.trials.start
        woke.append(wake[np.searchsorted(wake, gate)] <= gate + 10.0)
        assigned.append(life.trials.assigned.astype(bool))
        delivered.append(life.trials.delivered.astype(bool))
    a, d, y = (np.concatenate(v) for v in (assigned, delivered, woke))

    def difference(one, other):
        return y[one].mean() - y[other].mean(), np.sqrt(y[one].var() / one.sum() + y[other].var() / other.sum())

    value, error = difference(a, ~a)
    assert abs(value) < 3 * error
    value, error = difference(d, ~a)
    assert value < -3 * error
    value, error = difference(a & ~d, ~a)  # the failures come when the animal is about to wake anyway
    assert value > 3 * error
