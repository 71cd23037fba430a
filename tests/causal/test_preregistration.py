import numpy as np
import pytest

from brainmu.causal import estimate_effect, power, preregister
from brainmu.causal.preregistration import question_hash
from brainmu.errors import DesignError, InputError


def test_what_is_written_is_what_is_asked(tmp_path, planted_study):
    recs = planted_study(1, animals=4, hours=1.0)[0]
    ask = {"exposure": "reactivation", "outcome": "NREM->WAKE", "adjust": ["pressure"], "draws": 99}
    hashes = set()
    for design in ("hazard", "matched", "glm"):
        text = preregister(tmp_path / f"{design}.md", design=design, **ask)
        e = estimate_effect(recs, design=design, **ask)
        assert (tmp_path / f"{design}.md").read_text() == text
        assert e.diagnostics["question"]["hash"] in text
        # The same sentence, but for the number of animals.
        assert e.estimand.replace("4 animals", "the animals of the study") in text
        hashes.add(e.diagnostics["question"]["hash"])
    assert len(hashes) == 3
    with pytest.raises(InputError, match="is not to change"):
        preregister(tmp_path / "hazard.md", design="hazard", **ask)
    preregister(tmp_path / "hazard.md", design="hazard", overwrite=True, **ask)


def test_the_hash_changes_with_what_bears_on_the_answer_only():
    def sealed(**more):
        text = preregister(**({"exposure": "trials", "design": "trials", "horizon": 10.0} | more))
        return text.split("options: `")[1].split("`")[0]

    same = sealed()
    assert len(same) == 64 and sealed(horizon=10) == same
    assert sealed(basis=7) == same, "an option of another design"
    for other in ({"horizon": 12.0}, {"seed": 1}, {"outcome": "time to WAKE"}, {"weight": "event"}, {"blank": 1.0, "outcome": "signal:x"}):
        assert sealed(**other) != same
    question = {"design": "trials", "exposure": "trials", "outcome": "NREM->WAKE"}
    rest = dict.fromkeys(("horizon", "labels", "adjust", "blank", "weight", "competing", "scheme", "content", "contrast", "stage_draws", "draws", "seed"))
    assert question_hash(question | rest, "0.1.0") != question_hash(question | rest, "0.2.0")


def test_questions_that_cannot_be_preregistered():
    with pytest.raises(InputError, match="no argument 'horizonn'"):
        preregister(exposure="trials", design="trials", horizonn=10)
    with pytest.raises(DesignError, match="expected the name"):
        preregister(design="trials")
    with pytest.raises(DesignError, match="use 8 or 12 s"):
        preregister(exposure="reactivation", design="hazard", horizon=10.0)
    preregister(exposure="reactivation", design="hazard", horizon=10.0, epoch=5.0)
    with pytest.raises(DesignError, match="reads transitions"):
        preregister(exposure="reactivation", design="glm", outcome="bout length")


def test_power_of_a_strong_effect_and_of_none():
    ask = {"animals": [3], "trials": 15, "hours": 0.6, "studies": 3, "draws": 99}
    strong, none = power(effect=4.0, **ask), power(effect=0.0, **ask)
    assert strong["power"][0] > none["power"][0] and strong["estimate"][0] > 0.1
    assert strong.loc[0, ["animals", "studies", "failed"]].tolist() == [3, 3, 0] and strong["trials"][0] <= 15
    assert strong["power_low"][0] <= strong["power"][0] <= strong["power_high"][0]
    # Exact (Clopper–Pearson) limits of 3 of 3: 0.025 ** (1 / 3).
    assert strong["power"][0] < 1 or strong["power_low"][0] == pytest.approx(0.025 ** (1 / 3))
    assert none.equals(power(effect=0.0, **ask))


def test_power_of_observation():
    seen = power(design="hazard", animals=[3, 2], hours=0.4, effect=2.0, studies=2)
    assert seen["animals"].tolist() == [2, 3] and np.isnan(seen["trials"]).all() and (seen["estimate"] > 0).all()


def test_power_of_what_cannot_be():
    with pytest.raises(InputError, match="2 or more"):
        power(animals=[1])
    with pytest.raises(InputError, match="studies is 0"):
        power(studies=0)
    with pytest.raises(InputError, match="design is 'msm'"):
        power(design="msm")
    with pytest.raises(DesignError, match="outcome is 'nothing'"):
        power(animals=[2], trials=5, hours=0.3, studies=1, outcome="nothing")
