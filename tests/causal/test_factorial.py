import dataclasses
import itertools

import numpy as np
import pytest

from brainmu.causal import factorial
from brainmu.errors import DesignError

FACTORS = {"stress": ("stressed", "control"), "virus": ("opsin", "no_opsin")}


def house(recordings, rng, together=2, blocked=True):
    """Animals two to a cage: stress by cage, the virus by animal within the cage."""
    n = len(recordings)
    cages = n // together
    stressed = rng.permutation(np.arange(cages) % 2 == 0)
    out = []
    for i, r in enumerate(recordings):
        c = i // together
        virus = (i + (c if blocked else 0)) % 2 == 0
        meta = {"cage": f"c{c}", "stress": "stressed" if stressed[c] else "control", "virus": "opsin" if virus else "no_opsin"}
        out.append(dataclasses.replace(r, id=f"r{i}", subject=f"m{i}", subject_meta=meta))
    return out


def planted_house(planted_study, seed, interaction, animals=24):
    """Each cell's animals lived with that cell's hazard."""
    blank = house(planted_study(seed, animals=animals, hours=0.1)[0], np.random.default_rng(seed))
    cells = {}
    for a, b in itertools.product(FACTORS["stress"], FACTORS["virus"]):
        base = -3.4 + 0.8 * (a == "stressed") + interaction * (a == "stressed" and b == "opsin")
        cells[a, b] = planted_study(seed + 100 * len(cells), animals=animals // 4, hours=2.0, planted=planted_study.settings(base=base, spread=0.2))[0]
    out = []
    for r in blank:
        lived = cells[r.subject_meta["stress"], r.subject_meta["virus"]].pop()
        out.append(dataclasses.replace(lived, id=r.id, subject=r.subject, subject_meta=r.subject_meta))
    return out


def test_inhibition_that_helps_only_the_stressed(planted_study):
    found = factorial(planted_house(planted_study, 1, -1.0), factors=FACTORS, draws=999)
    assert found.low < -1.0 < found.high and found.high < 0 and found.p_value < 0.05
    d = found.diagnostics
    assert d["stress"]["estimate"] > 0 and d["allotted_by_cluster"] == ["stress"] and found.n_units == 12 and found.n_events == 24
    assert [c["animals"] for c in d["cells"]] == [6, 6, 6, 6] and "more with opsin" in d["verdict"] and "would overturn it" in d["verdict"]
    assert any("whole cages" in a for a in found.assumptions) and any("within cages" in a for a in found.assumptions)
    cell = {(c["stress"], c["virus"]): c["mean"] for c in d["cells"]}
    by_hand = cell["stressed", "opsin"] - cell["stressed", "no_opsin"] - cell["control", "opsin"] + cell["control", "no_opsin"]
    assert found.estimate == pytest.approx(by_hand)


def test_a_signal_and_animals_of_their_own(planted_study):
    animals = house(planted_study(2, animals=16, hours=0.5)[0], np.random.default_rng(2))
    found = factorial(animals, factors=FACTORS, outcome="signal:pressure", cluster=None, draws=99)
    assert found.unit == "units of pressure" and found.n_units == 16 and "effects shared by a cage" in found.diagnostics["verdict"]


@pytest.mark.slow
def test_error_rate_of_the_interaction(planted_study):
    """200 null studies of 16 animals in 8 cages that share a baseline: interval and randomisation test keep their level."""
    rng = np.random.default_rng(0)
    outside, rejected = 0, 0
    for recordings in planted_study(3, animals=16, studies=200, hours=0.7, planted=planted_study.settings(spread=0.5)):
        e = factorial(house(recordings, rng), factors=FACTORS, draws=199)
        outside += e.low > 0 or e.high < 0
        rejected += e.p_value <= 0.05
    assert outside <= 20 and rejected <= 20


def test_what_a_factorial_cannot_answer(planted_study):
    animals = house(planted_study(5, animals=16, hours=0.3)[0], np.random.default_rng(0))

    def without(i, **meta):
        out = list(animals)
        out[i] = dataclasses.replace(out[i], subject_meta=dict(out[i].subject_meta) | meta)
        return out

    with pytest.raises(DesignError, match="animal m3 has no 'stress'"):
        factorial(without(3, stress=""), factors=FACTORS)
    with pytest.raises(DesignError, match=r"animal m0 has no 'cage' .* cluster=None"):
        factorial(without(0, cage=""), factors=FACTORS)
    with pytest.raises(DesignError, match="has virus 'halo', expected 'opsin'"):
        factorial(without(0, virus="halo"), factors=FACTORS)
    one = [a for a in animals if (a.subject_meta["stress"], a.subject_meta["virus"]) != ("stressed", "opsin")]
    with pytest.raises(DesignError, match="no animal is both stressed and opsin"):
        factorial(one, factors=FACTORS)
    with pytest.raises(DesignError, match="4 cages, expected at least 5"):
        factorial(animals[:8], factors=FACTORS)
    with pytest.raises(DesignError, match="expected two names"):
        factorial(animals, factors={"stress": ("stressed", "control")})
    with pytest.raises(DesignError, match="reads whole recordings"):
        factorial(animals, factors=FACTORS, outcome="time to WAKE")
    with pytest.raises(DesignError, match="reads whole recordings"):
        factorial(animals, factors=FACTORS, outcome="rebound:pressure")
