import numpy as np
import pytest

from brainmu.causal import estimate_effect
from brainmu.causal.coupling import fit_coupling, raised_cosines
from brainmu.causal.grid import EpochGrid, Transition
from brainmu.causal.hazard import HazardModel
from brainmu.core import EventTable, Hypnogram, Recording
from brainmu.errors import DesignError
from brainmu.synth import study

ASK = {"exposure": "reactivation", "design": "glm", "adjust": ["pressure"]}


@pytest.mark.parametrize(("first", "n"), [(0.0, 4), (4.0, 4), (4.0, 2), (0.0, 1)])
def test_raised_cosines_sum_to_one_within_and_vanish_beyond(first, n):
    inside = np.linspace(first, 40.0, 333)
    b = raised_cosines(inside, first, 40.0, n)
    assert b.shape == (333, n) and (b >= -1e-12).all()
    np.testing.assert_allclose(b.sum(1), 1.0, atol=1e-12)
    assert not raised_cosines(np.array([first - 0.1, 40.1, 1e6]), first, 40.0, n).any()


def rows_of(text, starts, lag=1, width=3, basis=1, **model):
    stages = [{"W": "WAKE", "N": "NREM", "R": "REM", "A": "ART"}[c] for c in text]
    starts = np.asarray(starts, dtype=float)
    rec = Recording("r", "m", labels={"scoring": Hypnogram.from_stages(stages, epoch=4.0)})
    grid = EpochGrid.of(rec, "m", Transition("NREM", "WAKE"), "scoring")
    return fit_coupling([grid], [EventTable(starts, starts)], HazardModel(lag=lag, width=width, clock=False, **model), basis)


TEXT = "WNNNNNNNNWWNNNNNNWNNNWNNNNNNNNNNNNWWNNNNNNNW" * 6


def test_an_event_reaches_later_epochs_of_its_bout_only():
    starts = np.array([4.0 * 2 + 1, 4.0 * 6 + 1, 4.0 * 9 + 1, 4.0 * 19 + 1, 4.0 * 26 + 1])  # the third while awake
    f = rows_of(TEXT, starts)
    reached = f.main.rows.k[f.followed].tolist()
    # Epoch 2 reaches 3, 4, 5; epoch 6 reaches 7 and 8, the bout's last; 19 reaches 20, the last; 26 reaches 27, 28, 29.
    assert reached == [3, 4, 5, 7, 8, 20, 27, 28, 29]


def test_one_epoch_of_history_is_the_hazard_with_counts(planted_study):
    recs = planted_study(1, animals=6, planted=planted_study.settings(effect=0.6, gamma=0.8, drive=0.8))[0]
    one = estimate_effect(recs, horizon=4.0, diagnostics=False, **ASK)
    counts = estimate_effect(recs, exposure="reactivation", design="hazard", adjust=["pressure"], horizon=4.0, dose="count", diagnostics=False)
    assert (one.estimate, one.low, one.high) == pytest.approx((counts.estimate, counts.low, counts.high), abs=1e-6)


def test_the_filter_and_its_likelihood_ratio_agree_with_statsmodels(planted_study):
    import statsmodels.api as sm

    recs = planted_study(3, animals=4, planted=planted_study.settings(effect=1.0))[0]
    grids = [EpochGrid.of(r, r.subject, Transition("NREM", "WAKE"), "scoring") for r in recs]
    f = fit_coupling(grids, [r.events("reactivation") for r in recs], HazardModel(width=6), 3)
    y, full = (f.main.rows.y == 1).astype(float), np.c_[f.main.z, f.main.x]
    theirs = sm.Logit(y, full).fit(disp=0, method="newton", tol=1e-12)
    null = sm.Logit(y, f.main.z[:, : f.main.z.shape[1] - 2]).fit(disp=0, method="newton", tol=1e-12)
    assert f.main.pooled == pytest.approx(theirs.params[-1], abs=1e-6)
    assert f.main.model_se == pytest.approx(theirs.bse[-1], rel=1e-5)
    assert f.likelihood_ratio["statistic"] == pytest.approx(2 * (theirs.llf - null.llf), rel=1e-6)


def test_the_time_course_shows_when_an_event_acts(planted_study):
    """The planted effect lasts for the epoch after the event's own: up to 8 s of 40."""
    recs = planted_study(4, animals=6, hours=2.0, planted=planted_study.settings(effect=1.2, gamma=0.8, drive=0.8))[0]
    e = estimate_effect(recs, horizon=40.0, draws=199, **ASK)
    d = e.diagnostics
    early, late = d["filter"][0], d["filter"][6]
    assert early["low"] > 0.4 and abs(late["estimate"]) < 0.5 * early["estimate"]
    assert d["likelihood_ratio"]["p_value"] < 1e-4 and d["circular_shift"]["p_value"] < 0.02 and d["circular_shift"]["label"] == "association"
    assert 0 < e.estimate < 0.5 and "from 4 to 44 s" in e.estimand and e.to_json()


def test_a_confounder_that_moves_within_the_horizon_does_not_pass_for_an_effect():
    """Pressure with a time constant of a minute: what was known before the first event of 20 s says little of the last one."""
    found = []
    for seed in range(6):
        recordings, _ = study(n_animals=8, hours=2.0, seed=seed, log_hazard_ratio={"negative": 0.0}, confounding=1.0, pressure_tau=60.0, trials=False)
        found.append(estimate_effect(recordings, horizon=20.0, content="negative", diagnostics=False, **ASK))
    mean, se = np.mean([e.estimate for e in found]), np.std([e.estimate for e in found], ddof=1) / 6**0.5
    assert abs(mean) < 0.04 and se < 0.03 and sum(e.low <= 0 <= e.high for e in found) >= 5


def test_a_slow_confounder_passes_the_circular_shift_and_is_named(planted_study):
    recs = planted_study(5, animals=6, planted=planted_study.settings(gamma=1.0, drive=1.0))[0]
    naive = estimate_effect(recs, exposure="reactivation", design="glm", horizon=20.0, draws=199)
    assert naive.diagnostics["circular_shift"]["p_value"] < 0.02
    assert any("association" in w for w in naive.diagnostics["warnings"]) and "association only" in naive.diagnostics["verdict"]
    seen = estimate_effect(recs, horizon=20.0, draws=199, **ASK)
    assert seen.low < 0 < seen.high


def test_contents_have_their_own_filters(planted_study):
    s = planted_study.settings(contents=("negative", "positive"), content_effects=(1.0, -1.0), rate=-0.3)
    recs = planted_study(2, animals=8, planted=s)[0]
    ask = {"exposure": "reactivation", "design": "glm", "horizon": 4.0, "diagnostics": False}
    assert estimate_effect(recs, content="negative", **ask).estimate == pytest.approx(1.0, abs=0.35)
    both = estimate_effect(recs, content=("negative", "positive"), **ask)
    assert both.low < 2.0 < both.high and both.low > 1.0
    with pytest.raises(DesignError, match="'joy' does not occur"):
        estimate_effect(recs, content="joy", **ask)


def test_what_coupling_cannot_do(planted_study):
    recs = planted_study(2, animals=2, hours=0.5)[0]
    with pytest.raises(DesignError, match="basis is 0"):
        estimate_effect(recs, basis=0, **ASK)
    with pytest.raises(DesignError, match="use 8 or 12 s"):
        estimate_effect(recs, horizon=10.0, **ASK)
    with pytest.raises(DesignError, match="reads transitions"):
        estimate_effect(recs, outcome="bout length", **ASK)
    with pytest.raises(DesignError, match="too few to tell 3 raised cosines apart: use basis=2"):
        rows_of(TEXT, [4.0 * 19 + 1], basis=3)  # reaches one epoch
    with pytest.raises(DesignError, match="follows an event of its bout by 4 to 16 s"):
        rows_of(TEXT, [4.0 * 9 + 1], basis=3)  # while awake


@pytest.mark.slow
@pytest.mark.parametrize(("animals", "effect"), [(4, 0.0), (6, 0.6)])
def test_error_rates_of_coupling(planted_study, animals, effect):
    """200 studies a cell: over ten epochs without an effect, over the one epoch that the effect fills with it."""
    s = planted_study.settings(effect=effect, gamma=0.8, drive=0.8)
    horizon = 4.0 if effect else 40.0
    found = [estimate_effect(recs, horizon=horizon, diagnostics=False, **ASK) for recs in planted_study(43, animals=animals, studies=200, hours=1.5, planted=s)]
    assert 0.90 < np.mean([e.low <= effect <= e.high for e in found]) < 0.995


@pytest.mark.parametrize("design", ["hazard", "glm"])
def test_animals_without_an_event_say_nothing(design):
    recordings, _ = study(n_animals=6, hours=1.5, seed=1, log_hazard_ratio={"negative": 0.7}, confounding=0.6, trials=False)
    silent = [r.with_fields(labels=r.labels | {"reactivation": r.events("reactivation")[:0]}) if i >= 4 else r for i, r in enumerate(recordings)]
    e = estimate_effect(silent, horizon=20.0, diagnostics=False, **ASK | {"design": design})
    assert e.n_units == 4 and "4 animals" in e.estimand
