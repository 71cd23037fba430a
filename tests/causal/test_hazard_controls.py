"""What stands beside a hazard: dealt-out contents, epochs like the exposed ones, other scorers, a mixed model."""

import dataclasses

import numpy as np
import pytest

from brainmu import estimate_effect
from brainmu.core import Hypnogram
from brainmu.synth import study as planted

ASK = {"exposure": "reactivation", "design": "hazard", "horizon": 4.0, "adjust": ["pressure"], "draws": 99}


@pytest.fixture(scope="module")
def animals():
    return planted(n_animals=6, hours=2.0, seed=8, log_hazard_ratio={"negative": 1.0, "positive": -0.5}, confounding=0.5, trials=False)[0]


@pytest.fixture(scope="module")
def effect(animals):
    return estimate_effect(animals, content="negative", **ASK)


def test_contents_dealt_out_anew_do_what_any_event_does(effect, animals):
    dealt = effect.diagnostics["shuffled_content"]
    assert dealt["n"] == 19 and dealt["p_value"] == 1 / 20 and dealt["mean"] < effect.estimate - 3 * dealt["sd"]
    assert estimate_effect(animals, **ASK).diagnostics["shuffled_content"] == {}
    wide = estimate_effect(animals, content="negative", **ASK | {"horizon": 8.0}).diagnostics["shuffled_content"]
    assert wide["n"] == 19 and abs(wide["mean"]) < 1


def test_epochs_like_the_exposed_ones_do_nothing(effect):
    control = effect.diagnostics["like_non_events"]
    assert control["epochs"] > 50 and control["low"] < 0 < control["high"]


def test_a_mixed_model_of_the_same_rows_agrees(effect):
    mixed = effect.diagnostics["mixed_model"]
    assert mixed["estimate"] == pytest.approx(effect.estimate, abs=0.15) and 0.05 < mixed["se"] < 0.5


def second(recording, rng, blind):
    """Another scorer, who errs in one epoch of ten; not `blind`: in one of three after an event."""
    h, events = recording.labels["scoring"], recording.labels["reactivation"]
    after = np.zeros(len(h), dtype=bool)
    after[np.clip((events.start / h.epoch).astype(int) + 2, 0, len(h) - 1)] = True
    wrong = rng.random(len(h)) < np.where(after & (not blind), 1 / 3, 0.1)
    other = Hypnogram(np.where(wrong, (h.codes + 1) % 3, h.codes), h.stages, h.epoch)
    return dataclasses.replace(recording, labels=recording.labels | {"second": other})


def test_a_scorer_who_saw_the_events_is_told_from_one_who_did_not(animals):
    rng = np.random.default_rng(0)
    blind = estimate_effect([second(r, rng, True) for r in animals], labels="scoring", **ASK)
    assert blind.diagnostics["scoring"]["agreement_exposed"] == pytest.approx(0.9, abs=0.04)
    assert not any("scorers agree" in w for w in blind.diagnostics["warnings"])
    seeing = estimate_effect([second(r, rng, False) for r in animals], labels="scoring", **ASK)
    assert seeing.diagnostics["scoring"]["agreement_exposed"] < 0.8 and any("scorers agree on" in w for w in seeing.diagnostics["warnings"])


def test_borders_that_another_scorer_puts_elsewhere_are_told(animals):
    def later(recording, epochs):
        """The other scorer sees every waking so many epochs later."""
        h = recording.labels["scoring"]
        codes = h.codes.copy()
        for k in np.flatnonzero((h.codes[:-1] == 1) & (h.codes[1:] == 0)) + 1:
            codes[k : k + epochs] = 1
        return dataclasses.replace(recording, labels=recording.labels | {"second": Hypnogram(codes, h.stages, h.epoch)})

    near, far = (estimate_effect([later(r, n) for r in animals], labels="scoring", **ASK).diagnostics for n in (1, 3))
    # Wakings of a single epoch are lost to the one who sees them an epoch later.
    assert near["scoring"]["moved"] < 0.2 and far["scoring"]["moved"] > 0.9
    assert not any("another scorer has" in w for w in near["warnings"]) and any("another scorer has" in w for w in far["warnings"])


def test_what_the_other_scorer_did_not_see_or_could_not_tell_is_not_held_against_it(animals):
    def half(recording):
        h = recording.labels["scoring"]
        return recording.with_fields(labels=recording.labels | {"second": Hypnogram(np.where(np.arange(len(h)) < len(h) // 2, h.codes, -1), h.stages, h.epoch)})

    def coarse(recording):
        h = recording.labels["scoring"]
        return recording.with_fields(labels=recording.labels | {"second": Hypnogram(h.codes[::8], h.stages, 8 * h.epoch)})

    seen = estimate_effect([half(r) for r in animals], labels="scoring", **ASK).diagnostics
    assert seen["scoring"]["moved"] == 0.0 and not any("another scorer has" in w for w in seen["warnings"])
    told = estimate_effect([coarse(r) for r in animals], labels="scoring", outcome="NREM->microarousal", **ASK).diagnostics
    assert np.isnan(told["scoring"]["moved"]) and not any("another scorer has" in w for w in told["warnings"])
