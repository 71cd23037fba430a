"""Effects are checked, printed with their level, and become strict JSON."""

import json

import numpy as np
import pytest

from brainmu.core import Effect
from brainmu.errors import InputError


def make(**kw):
    return Effect(**(dict(estimand="Does X change Y?", estimate=0.1, low=-0.1, high=0.3, p_value=0.2, unit="risk difference", level="model") | kw))


def test_json_is_strict():
    e = make(p_value=float("nan"), null=np.arange(3), diagnostics={"ess": np.float32(2.5), 4: {"x": np.array([np.inf, 1])}})
    d = json.loads(e.to_json())
    assert d["p_value"] is None and d["null"] == [0, 1, 2] and d["diagnostics"] == {"ess": 2.5, "4": {"x": [None, 1.0]}}


def test_a_model_effect_says_so_wherever_it_is_printed():
    assert "in the model" in str(make()) and "observational" in str(make(level="observational"))


def test_one_is_singular():
    assert str(make(n_units=1, n_events=1)).endswith("; 1 animal, 1 event") and str(make(n_units=2, n_events=0)).endswith("; 2 animals, 0 events")


def test_refusals():
    with pytest.raises(InputError, match="level"):
        make(level="causal")
    with pytest.raises(InputError, match="low <= high"):
        make(low=1.0)
