"""A pupil is freed of the light: what assignment does to it is found in a room whose light wanders, and arms that differ in light are told."""

import numpy as np
import pytest

from brainmu import estimate_effect
from brainmu.core import EventTable, Hypnogram, Recording
from brainmu.errors import DesignError

N, EVERY = 60, 40.0


def animal(name, effect, seed, leak=0.0):
    """Pupil size at 10 Hz: minus twice the light, plus `effect` for ten seconds after an assigned onset; `leak` is light that comes with it."""
    rng = np.random.default_rng([seed, *name.encode()])
    coin = rng.random(N) < 0.5
    t = np.arange(int(N * EVERY * 10)) / 10
    light = np.repeat(rng.normal(size=N * 2), int(EVERY * 5)) + 0.05 * rng.normal(size=len(t))
    after = np.zeros(len(t))
    for k in np.flatnonzero(coin):
        i = int((k * EVERY + 16) * 10)
        after[i : i + 100] = 1.0
    light = light + leak * after
    pupil = -2.0 * light + effect * after + 0.3 * rng.normal(size=len(t))
    on = np.arange(N) * EVERY + 16
    signals = {k: dict(values=v[:, None].astype("f4"), rate=10.0, unit=u, kind="other") for k, v, u in (("pupil", pupil, "mm"), ("light", light, "lux"))}
    labels = {"scoring": Hypnogram.from_stages(["NREM"] * int(N * EVERY / 4), epoch=4.0), "trials": EventTable(on, on + 1, assigned=coin, probability=0.5)}
    return Recording.from_arrays(name, name, "mouse", signals=signals, labels=labels)


ASK = {"exposure": "trials", "outcome": "signal:pupil", "horizon": 8.0, "blank": 1.0, "draws": 199}


def test_light_is_taken_off_and_the_interval_is_that_much_narrower():
    sessions = [animal(n, 0.5, 0) for n in "abcd"]
    plain, freed = (estimate_effect(sessions, adjust=a, **ASK) for a in ((), ["light"]))
    assert freed.estimate == pytest.approx(0.5, abs=0.08) and freed.low < 0.5 < freed.high
    assert freed.high - freed.low < (plain.high - plain.low) / 3 and freed.p_value == pytest.approx(1 / 200)
    told = freed.diagnostics["adjusted"]["light"]
    assert told["slope"] == pytest.approx(-2.0, abs=0.05) and any("freed of" in a for a in freed.assumptions)
    change = estimate_effect(sessions, adjust=["light"], **ASK | {"outcome": "change:pupil"})
    assert change.estimate == pytest.approx(0.5, abs=0.1)


def test_nothing_is_found_where_nothing_is_and_light_that_leaks_is_told():
    null = estimate_effect([animal(n, 0.0, 1) for n in "abcd"], adjust="light", **ASK)
    assert null.low < 0 < null.high
    leaking = estimate_effect([animal(n, 0.0, 2, leak=1.0) for n in "abcd"], adjust=["light"], **ASK)
    assert any("arms differ in light" in w for w in leaking.diagnostics["warnings"])


def test_what_needs_no_adjustment_refuses_it():
    with pytest.raises(DesignError, match="need no adjustment"):
        estimate_effect([animal("a", 0, 0)], exposure="trials", adjust=["light"])
