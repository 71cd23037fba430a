"""Every operation and read-out through a real (untrained) model: what must not move stays, and what is reported is there."""

import json

import numpy as np
import pytest

from brainmu.core import EventTable
from brainmu.errors import CheckpointError, InputError, MissingDataError
from brainmu.explain import intervene
from brainmu.explain.operations import OPERATIONS
from brainmu.explain.readouts import _reached, _stay, summarise, summarise_animals


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_gives_an_effect_in_the_model(untrained, sessions, operation):
    effect = intervene(untrained, sessions[0], "ripples", operation, placebos=2)
    d = effect.diagnostics
    assert effect.level == "model" and all("in the model" in line.lower() for line in str(effect).splitlines())
    assert effect.n_events >= 3 and np.isfinite([effect.estimate, effect.low, effect.high, effect.p_value]).all()
    assert {"probability", "log_hazard", "hazard_10s", "hazard_20s", "hazard_60s", "bout", "latents"} == set(d["readouts"])
    assert d["readouts"]["probability"]["estimate"] == pytest.approx(effect.estimate)
    # Nothing before an edit may move in a causal model, and the epochs that are read lie after it.
    assert d["leakage"]["causal_context"] and d["leakage"]["change_before_edit"] < 1e-6 and d["leakage"]["seconds_to_read_out"] > 0
    assert d["leakage"]["edited_streams_read"]
    assert np.isfinite(d["gate"]["novel_share"]) and isinstance(d["gate"]["flagged"], bool)
    json.dumps(effect.to_dict(), allow_nan=False)


def test_the_same_question_has_the_same_answer_and_another_seed_another(untrained, sessions):
    one, two, three = (intervene(untrained, sessions[0], "ripples", "replace", placebos=2, seed=s) for s in (0, 0, 1))
    assert one.to_json() == two.to_json() and one.estimate != three.estimate


def test_several_animals_each_count_once(untrained, sessions):
    effect = intervene(untrained, sessions, "ripples", placebos=2)
    values = effect.diagnostics["animals"]["estimates"]
    assert effect.n_units == 2 and effect.population == "animals" and effect.estimate == pytest.approx(np.mean(values))
    assert effect.diagnostics["animals"]["subjects"] == ["m1", "m3"] and effect.n_events == len(effect.diagnostics["change_events"])
    assert any("2 animals" in w for w in effect.diagnostics["warnings"])


def test_content_and_dose_choose_the_events(untrained, sessions):
    every = intervene(untrained, sessions[0], "ripples", placebos=2)
    some = intervene(untrained, sessions[0], "ripples", placebos=2, content="A", dose=[0.5, 1.0])
    assert some.n_events < every.n_events and "content A" in some.estimand
    doses = some.diagnostics["doses"]
    assert [d["dose"] for d in doses] == [0.5, 1.0] and doses[1]["estimate"] == pytest.approx(some.estimate)
    half = intervene(untrained, sessions[0], "ripples", placebos=2, dose=0.5)
    # Half of the events are edited and all of them read: those that are not move less, by what lingers of earlier ones.
    a, b = (np.median(np.abs(e.diagnostics["change_events"])) for e in (half, every))
    assert half.n_events == every.n_events and a < 0.7 * b


def test_blank_moves_the_read_out(untrained, sessions):
    effect = intervene(untrained, sessions[0], "ripples", placebos=2, blank=5.0)
    assert effect.blank == 5.0 and effect.diagnostics["leakage"]["seconds_to_read_out"] >= 5.0


def test_blind_epochs_do_not_read_the_edited_streams(untrained, sessions):
    effect = intervene(untrained, sessions[0], "ripples", placebos=2, blind=True)
    assert effect.diagnostics["leakage"]["read_out_blind_to_them"] and effect.estimate != intervene(untrained, sessions[0], "ripples", placebos=2).estimate
    from brainmu.core import Recording

    only = Recording.from_arrays("x", signals={"lfp": sessions[0].signals["lfp"]}, spikes=sessions[0].spikes)
    with pytest.raises(InputError, match="nothing to read"):
        intervene(untrained, only, sessions[0].events("ripples"), placebos=2, blind=True)


def test_pretraining_loss_rises_for_what_no_recording_holds(untrained, sessions):
    usual = intervene(untrained, sessions[0], "ripples", "remove", placebos=1, gate="brainmu-tiny")
    loss = usual.diagnostics["gate"]["pretraining_loss"]
    assert np.isfinite([loss["events"], loss["placebos"]]).all()
    absurd = intervene(untrained, sessions[0], "ripples", "scale", factor=200.0, what="ripple", placebos=1, gate="brainmu-tiny")
    assert absurd.diagnostics["gate"]["pretraining_loss"]["events"] > max(1.0, loss["events"]) and absurd.diagnostics["gate"]["flagged"]
    with pytest.raises(CheckpointError, match="no pretraining head"):
        intervene(untrained, sessions[0], "ripples", placebos=1, gate="brainmu-tiny-rodent3")


def test_hazards_by_hand():
    # Stages: 0 WAKE, 1 NREM. Stay 0.9 an epoch, leave 0.1.
    p = np.tile([0.1, 0.9], (1, 3, 1))
    source, aim = np.array([1]), np.array([0])
    assert _reached(p, source, aim)[0] == pytest.approx(1 - 0.9**3)
    assert _stay(p, source)[0].tolist() == pytest.approx([0.9, 0.81, 0.729])


def test_intervals_cover_and_placebos_alone_are_no_effect():
    rng = np.random.default_rng(0)
    inside = low = 0
    for _ in range(200):
        placebo, change = rng.standard_normal((19, 30)), rng.standard_normal(30)
        s = summarise(change, placebo, rng)
        inside += s.low <= 0 <= s.high
        low += summarise_animals(rng.standard_normal(6), rng).p_value < 0.05
    assert inside >= 180 and low <= 22
    assert summarise_animals(np.array([1.0]), rng).n == 1 and np.isnan(summarise_animals(np.array([1.0]), rng).low)


def test_refusals(untrained, sessions):
    with pytest.raises(InputError, match="one for each"):
        intervene(untrained, sessions, [sessions[0].events("ripples")])
    with pytest.raises(InputError, match="shares of the events"):
        intervene(untrained, sessions[0], "ripples", dose=0.0)
    with pytest.raises(MissingDataError, match="events have A, B"):
        intervene(untrained, sessions[0], "ripples", content="C")
    with pytest.raises(InputError, match="some of spikes, ripple"):
        intervene(untrained, sessions[0], "ripples", what="theta")
    with pytest.raises(InputError, match="leaves them out"):
        intervene(untrained, sessions[0], "ripples", "permute", what="ripple")
    with pytest.raises(InputError, match="hazards"):
        intervene(untrained, sessions[0], "ripples", hazards=[0.0])
    with pytest.raises(InputError, match="blank"):
        intervene(untrained, sessions[0], "ripples", blank=-1.0)
    with pytest.raises(InputError, match="needs a stager with an encoder"):
        from brainmu.sleep import SleepStager

        intervene(SleepStager(stages="rodent3", epoch=4.0, method="rules"), sessions[0], "ripples", blind=True)
    with pytest.raises(MissingDataError, match="none of the 0 events"):
        intervene(untrained, sessions[0], EventTable([], []))
