import numpy as np
import pytest

from brainmu.causal import arousal_threshold
from brainmu.core import EventTable, Hypnogram, Recording
from brainmu.errors import DesignError

SLOPE = 0.25  # log odds a dB
LEVELS = np.array([30.0, 40.0, 50.0, 60.0, 70.0])


def night(name, seed, threshold=50.0, shift=0.0, probes=120, arm=None, meta=None):
    """Probes every 24 s in NREM; a probe wakes with log odds SLOPE (level - threshold), 4 s after it. In arm "reactivated" the threshold is `shift` higher."""
    rng = np.random.default_rng(seed)
    level = rng.choice(LEVELS, probes)
    arms = rng.choice(["reactivated", "quiet"], probes) if arm is None else np.full(probes, arm)
    chance = 1 / (1 + np.exp(-SLOPE * (level - threshold - shift * (arms == "reactivated"))))
    woke = rng.random(probes) < chance
    stages = [s for w in woke for s in ["NREM"] * 2 + (["WAKE"] * 2 if w else ["NREM"] * 2) + ["NREM"] * 2]
    on = np.arange(probes) * 24.0 + 5.0
    table = EventTable(on, on + 0.5, kind="probe", level=level, arm=arms)
    labels = {"scoring": Hypnogram.from_stages(stages, epoch=4.0), "probes": table}
    return Recording(name, name, labels=labels, subject_meta=meta or {})


def herd(seed, n=6, **more):
    thresholds = np.random.default_rng(seed).normal(50.0, 3.0, n)
    return [night(f"m{i}", 100 * seed + i, t, **more) for i, t in enumerate(thresholds)], thresholds


def test_the_threshold_of_each_animal_and_their_mean():
    recordings, thresholds = herd(1)
    found = arousal_threshold(recordings)
    assert found.low < thresholds.mean() < found.high and found.high - found.low < 8 and found.unit == "level"
    own = np.array(list(found.diagnostics["thresholds"].values()))
    assert np.abs(own - thresholds).max() < 4 and np.corrcoef(own, thresholds)[0, 1] > 0.8
    assert found.diagnostics["slope"]["estimate"] == pytest.approx(SLOPE, abs=0.06)
    chances = [row["chance"] for row in found.diagnostics["levels"]]
    assert chances == sorted(chances) and len(chances) == 5 and sum(row["probes"] for row in found.diagnostics["levels"]) == found.n_events


def test_an_arm_that_moves_it_within_animals():
    recordings, _ = herd(2, shift=8.0)
    found = arousal_threshold(recordings, arms=("reactivated", "quiet"))
    assert found.low < 8.0 < found.high and found.low > 0 and found.diagnostics["within_animals"]
    assert "raises the arousal threshold" in found.diagnostics["verdict"] and "would overturn it" in found.diagnostics["verdict"]
    swapped = arousal_threshold(recordings, arms=("quiet", "reactivated"))
    assert swapped.estimate == pytest.approx(-found.estimate, abs=1e-6)


def test_groups_of_animals():
    stressed = [night(f"s{i}", i, 44.0 + i, arm="quiet", meta={"group": "stressed"}) for i in range(5)]
    control = [night(f"c{i}", 50 + i, 54.0 + i, arm="quiet", meta={"group": "control"}) for i in range(5)]
    found = arousal_threshold(stressed + control, arms=("stressed", "control"))
    assert found.low < -10.0 < found.high and found.high < 0 and not found.diagnostics["within_animals"]
    assert any("allotted at random" in w for w in found.diagnostics["warnings"])


@pytest.mark.slow
def test_error_rate_without_a_shift():
    """100 null studies of five animals."""
    outside = 0
    for seed in range(100):
        recordings, _ = herd(seed, n=5, probes=60)
        e = arousal_threshold(recordings, arms=("reactivated", "quiet"))
        outside += e.low > 0 or e.high < 0
    assert outside <= 11


def test_what_has_no_threshold():
    recordings, _ = herd(3, n=3)
    with pytest.raises(DesignError, match="expected 'dB'"):
        arousal_threshold(recordings, level="dB")
    flat = [EventTable.from_frame(r.events("probes").to_frame().assign(level=100.0 - r.events("probes").level)) for r in recordings]
    with pytest.raises(DesignError, match="does not rise with 'level'"):
        arousal_threshold(recordings, exposure={r.id: t for r, t in zip(recordings, flat)})
    one = {r.id: r.events("probes")[r.events("probes").level == 50.0] for r in recordings}
    with pytest.raises(DesignError, match="have 1 levels, expected two"):
        arousal_threshold(recordings, exposure=one)
    with pytest.raises(DesignError, match="no probe at risk is of arm 'opsin'"):
        arousal_threshold(recordings, arms=("opsin", "quiet"))
    far = [night(f"f{i}", i, 80.0) for i in range(3)]
    assert any("extrapolation" in w for w in arousal_threshold(far).diagnostics["warnings"])
