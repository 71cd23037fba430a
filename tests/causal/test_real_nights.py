"""The hazard machinery on 104 real nights, on a question whose answer another package can give too."""

import numpy as np
import pytest

from brainmu.causal import estimate_effect
from brainmu.causal.grid import EpochGrid, Transition
from brainmu.causal.hazard import HazardModel, fit_hazard
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


def test_time_in_bout_and_time_of_night_agree_with_statsmodels_to_three_digits(recordings):
    import statsmodels.api as sm

    grids = [EpochGrid.of(r, r.subject, Transition("NREM", "WAKE"), "scoring") for r in recordings]
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


def test_an_exposure_that_means_nothing_has_no_effect(recordings):
    rng = np.random.default_rng(0)
    events = {r.id: EventTable(t := np.sort(rng.uniform(0, r.hypnogram().stop, 300)), t) for r in recordings}
    e = estimate_effect(recordings, exposure=events, design="hazard", horizon=30.0, adjust=["delta"], diagnostics=False)
    assert e.low < 0 < e.high and e.n_units > 40
