"""Taking events away changes the model where the model uses them, and not otherwise."""

import numpy as np
import pytest

from brainmu.core import EventTable, Hypnogram, Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.explain import intervene

RATE = 625.0
LEARN = {"steps": 400, "patience": 20, "drop_channel": 0.0, "encoder": {"dropout": 0.0}}


def planted(seed, minutes=24, driven=True):
    """NREM with 180 Hz events; where `driven`, three epochs of WAKE follow each, and nothing but the event tells them from NREM."""
    rng = np.random.default_rng(seed)
    n = int(minutes * 15)
    stages, at = np.full(n, 1), []
    k = 6
    while k < n - 8:
        at.append(k * 4.0 + rng.uniform(0.5, 3.0))
        k += int(rng.integers(8, 14))
    for a in at:
        first = int(a // 4) + 1
        waking = first if driven else int(rng.integers(2, n - 4))
        stages[waking : waking + 3] = 0
    t = np.arange(int(n * 4 * RATE)) / RATE
    x = rng.standard_normal((len(t), 2)).astype(np.float32) * 10
    for a in at:
        i = slice(int(a * RATE), int((a + 0.3) * RATE))
        x[i] += (60 * np.sin(2 * np.pi * 180 * t[i]))[:, None].astype(np.float32)
    h = Hypnogram(stages, "rodent3", epoch=4.0)
    signals = {"lfp": dict(values=x, rate=RATE, unit="uV", kind="lfp")}
    return Recording.from_arrays(f"r{seed}", f"m{seed}", signals=signals, labels={"scoring": h}), EventTable(at, np.array(at) + 0.3, kind="ripple")


@pytest.mark.slow
def test_the_model_changes_where_events_drive_it():
    from brainmu.train import finetune

    model = finetune([planted(i)[0] for i in range(4)], labels="scoring", stages="rodent3", epoch=4.0, causal=True, config=LEARN)
    session, events = planted(9)
    effect = intervene(model, session, events, what=["ripple"])
    # Without its event the model no longer expects waking.
    assert effect.level == "model" and "In the model" in effect.estimand
    assert effect.estimate < -0.2 and effect.high < 0 and effect.p_value == pytest.approx(0.05)
    assert abs(np.mean(effect.diagnostics["change_placebos"])) < 0.2 * abs(effect.estimate)


@pytest.fixture(scope="module")
def indifferent():
    """A stager that was shown events which say nothing about waking."""
    from brainmu.sleep import SleepStager

    recordings = [planted(i, 12, driven=False)[0] for i in range(3)]
    return SleepStager(stages="rodent3", epoch=4.0, method="boosting").fit(recordings, labels="scoring")


def test_indifferent_model_stays_inside_its_placebos(indifferent):
    session, events = planted(9, 12, driven=False)
    effect = intervene(indifferent, session, events, what=["ripple"], placebos=9)
    # A driven model moves by 0.6; trees on 36 minutes are noisy, and may move by a tenth of that.
    assert abs(effect.estimate) < 0.2 and len(effect.null) == 9
    assert any("cannot be below 0.10" in w for w in effect.diagnostics["warnings"])
    assert (
        intervene(indifferent, session, events, what=["ripple"], placebos=2).estimate
        == intervene(indifferent, session, events, what=["ripple"], placebos=2).estimate
    )


def test_refusals(indifferent):
    session, events = planted(9, 12, driven=False)
    with pytest.raises(InputError, match="expected one of remove"):
        intervene(indifferent, session, events, "invert")
    with pytest.raises(InputError, match="FROM->TO"):
        intervene(indifferent, session, events, outcome="NREM")
    with pytest.raises(InputError, match="8 or 12"):
        intervene(indifferent, session, events, horizon=10.0)
    for more, words in (
        ({"placebos": 0}, "placebos"), ({"max_events": 0}, "max_events is 0"), ({"max_events": -1}, "max_events is -1"), ({"seed": "x"}, "seed is 'x'"),
        ({"horizon": -4.0}, "positive multiple"), ({"refits": [indifferent]}, "two or more"), ({"dose": "a"}, "shares of the events"),
        ({"operation": "scale", "factor": 1}, "changes nothing"), ({"operation": "scale", "factor": "x"}, "factor is 'x'"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            intervene(indifferent, session, events, **more)
    with pytest.raises(MissingDataError, match="none of the 1 events"):
        intervene(indifferent, session, EventTable([1e6], [1e6 + 0.1]), what=["ripple"])


def test_what_cannot_be_is_told_before_the_model_is_asked(indifferent, monkeypatch):
    session, events = planted(9, 12, driven=False)
    monkeypatch.setattr(type(indifferent), "predict", lambda *_a, **_k: pytest.fail("the model was asked"))
    with pytest.raises(InputError, match="outcome: stage 'N2' is not among"):
        intervene(indifferent, session, events, outcome="NREM->N2")
    with pytest.raises(MissingDataError, match="no event has content 'B'"):
        intervene(indifferent, session, events, content="B")


def test_a_part_that_the_recording_lacks_is_said(untrained, sessions):
    s = sessions[0]
    bare = Recording(id="bare", subject="m", signals={"emg": s.signals["emg"]}, spikes=s.spikes, labels=s.labels)
    ask = dict(placebos=1, max_events=3, hazards=(10.0,))
    assert any("no ripple could be edited" in w for w in intervene(untrained, bare, "ripples", **ask).diagnostics["warnings"])
    assert not any("could be edited" in w for w in intervene(untrained, s, "ripples", **ask).diagnostics["warnings"])
