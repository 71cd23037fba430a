"""The hazard machinery on 104 real nights, on a question whose answer another package can give too."""

import numpy as np
import pytest

from brainmu.causal import estimate_effect
from brainmu.causal.grid import EpochGrid, Transition
from brainmu.causal.hazard import HazardModel, fit_hazard
from brainmu.causal.risk_set import build_risk_set
from brainmu.core import EventTable, Hypnogram, Recording, Signal

pytestmark = [pytest.mark.realdata, pytest.mark.slow]


def nights(folder):
    out = []
    for path in sorted((folder / "human-sleepedf-bandpower").rglob("*.npz")):
        with np.load(path) as data:
            codes, features = data["labels"].astype(int), data["features"]
        codes = np.where((codes < 0) | (codes > 4), -2, codes)
        h = Hypnogram(codes, "aasm5", 30.0)
        delta = Signal(np.asarray(features, dtype=np.float32).reshape(len(codes), -1)[:, :1], rate=1 / 30.0, kind="features", channels=["delta"])
        out.append(Recording(path.stem, path.stem.split("__")[0], "human", labels={"scoring": h}, signals={"delta": delta}))
    return out


@pytest.fixture(scope="module")
def recordings(real_data):
    out = nights(real_data)
    assert len(out) == 104
    return out


@pytest.mark.parametrize("target", ["WAKE", "any"])
def test_time_in_bout_and_time_of_night_agree_with_statsmodels_to_three_digits(recordings, target):
    import statsmodels.api as sm

    grids = [EpochGrid.of(r, r.subject, Transition("NREM", target), "scoring") for r in recordings]
    # "Exposure": the first half of every minute, which has nothing to do with waking.
    tables = [EventTable(t := h.start + np.arange(0, len(h), 2) * 30.0, t) for h in (g.hypnogram for g in grids)]
    fitted = fit_hazard(grids, tables, HazardModel())
    theirs = sm.Logit((fitted.rows.y == 1).astype(float), np.c_[fitted.z, fitted.x]).fit(disp=0, method="newton", tol=1e-10, maxiter=100)
    for name in ("time in bout", "time since sleep onset"):
        columns = [i for i, n in enumerate(fitted.names) if n.startswith(name)]
        assert len(columns) >= 3
        np.testing.assert_allclose(fitted.fit.coef[columns], theirs.params[columns], rtol=1e-3, atol=1e-3)
    # Waking from NREM is likeliest early in a bout.
    age = fitted.rows.age
    early, late = (fitted.rows.y[(age > a) & (age <= b)] == 1 for a, b in ((1, 10), (40, 400)))
    assert early.mean() > 1.2 * late.mean()


def bouts_of(recordings):
    """Length of every NREM bout in epochs, and whether its end was seen, from the risk set of all exits."""
    grids = [EpochGrid.of(r, r.subject, Transition("NREM", "any"), "scoring") for r in recordings]
    tables = [EventTable([0.0], [0.0]) for _ in grids]
    rows = build_risk_set(grids, tables, lag=0, width=1, blank=0.0, adjust=(), adjust_window=None, seed=0)
    _, bout = np.unique(np.c_[rows.session, rows.bout], axis=0, return_inverse=True)
    length = np.bincount(bout.ravel())
    return rows, length, np.bincount(bout.ravel(), rows.y == 1) > 0


def survival_by_hazard(rows, ages):
    """Product of one less the share of epochs at risk that leave, at each age."""
    at_risk, left = np.bincount(rows.age), np.bincount(rows.age, rows.y == 1)
    return np.array([np.prod(1 - left[1 : a + 1] / at_risk[1 : a + 1]) for a in ages])


AGES = (1, 2, 5, 10, 20, 60)


def test_how_long_nrem_lasts_agrees_with_the_kaplan_meier_of_statsmodels(recordings):
    from statsmodels.duration.survfunc import SurvfuncRight

    rows, length, ended = bouts_of(recordings)
    theirs = SurvfuncRight(length, ended.astype(int))
    at = np.searchsorted(theirs.surv_times, AGES, side="right") - 1
    np.testing.assert_allclose(survival_by_hazard(rows, AGES), theirs.surv_prob[at], atol=5e-4)
    assert len(length) > 1000 and 0.2 < theirs.surv_prob[at][3] < 0.9


def test_an_exposure_that_means_nothing_has_no_effect(recordings):
    rng = np.random.default_rng(0)
    events = {r.id: EventTable(t := np.sort(rng.uniform(0, r.hypnogram().stop, 300)), t) for r in recordings}
    e = estimate_effect(recordings, exposure=events, design="hazard", horizon=30.0, adjust=["delta"], diagnostics=False)
    assert e.low < 0 < e.high and e.n_units > 40


def test_trials_that_were_none_change_nothing_through_the_band_power_of_real_nights(recordings):
    """A coin tossed over moments of real NREM."""
    from brainmu.causal import mediation

    rng = np.random.default_rng(5)
    tables = {}
    for r in recordings:
        on = np.flatnonzero(r.hypnogram("scoring").mask("NREM"))[::12] * 30.0
        tables[r.id] = EventTable(on, on + 1.0, assigned=rng.random(len(on)) < 0.5, probability=0.5)
    e = mediation(recordings, mediator="signal:delta", exposure=tables, outcome="NREM->WAKE", window=30.0, horizon=300.0)
    moved = e.diagnostics["mediator"]["shift_sd"]
    assert e.low < 0 < e.high and abs(e.estimate) < 0.002 and e.n_units == 53 and e.n_events > 3000 and moved["low"] < 0 < moved["high"]
    assert any("stands for 30 s" in w for w in e.diagnostics["warnings"])
