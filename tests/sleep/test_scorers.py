"""Scorers who err as planted, and a model that errs more or less than they do."""

from __future__ import annotations

import numpy as np
import pytest

from brainmu.core import Hypnogram
from brainmu.errors import InputError
from brainmu.sleep import between_scorers, evaluate_many, shuffled_control


def _night(seed: int, n: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([[int(rng.choice(3, p=[0.3, 0.5, 0.2]))] * int(rng.integers(5, 40)) for _ in range(60)])[:n].astype(np.int8)


def _scorings(model_errs: float, subjects: int = 8) -> dict[str, dict[str, Hypnogram]]:
    """Three people who each change a tenth of the epochs, and a model."""
    out = {}
    for k in range(subjects):
        truth, rng = _night(k), np.random.default_rng([k, 7])

        def read(share, truth=truth, rng=rng):
            codes = truth.copy()
            wrong = rng.random(len(codes)) < share
            codes[wrong] = (codes[wrong] + rng.integers(1, 3, wrong.sum())) % 3
            return Hypnogram(codes, "rodent3", 4.0)

        out[f"s{k}"] = {"ann": read(0.1), "bea": read(0.1), "cem": read(0.1), "net": read(model_errs)}
    return out


def test_pairs_with_intervals_over_subjects():
    table = between_scorers(_scorings(0.1), draws=200)
    assert len(table) == 6 and set(table["kind"]) == {"scorers"} and (table["n_subjects"] == 8).all()
    assert ((table["low"] < table["kappa"]) & (table["kappa"] < table["high"])).all()
    assert table["kappa"].between(0.6, 0.8).all() and {"f1_REM", "bias_REM_pct"} <= set(table)


@pytest.mark.parametrize(("errs", "sign"), [(0.0, 1), (0.3, -1)])
def test_a_model_is_set_against_people(errs, sign):
    table = between_scorers(_scorings(errs), model="net", draws=200)
    row = table[table["kind"] == "model minus scorers"].iloc[0]
    assert row["n_subjects"] == 8 and sign * row["low"] > 0 and sign * row["high"] > 0
    assert (table["kind"] == "model").sum() == 3 and (table["kind"] == "all scorers").sum() == 1


def test_subjects_that_one_did_not_score_are_left_out_of_its_pairs():
    s = _scorings(0.1, subjects=3)
    del s["s0"]["cem"]
    table = between_scorers(s, draws=20).set_index(["a", "b"])
    assert table.loc[("ann", "bea"), "n_subjects"] == 3 and table.loc[("ann", "cem"), "n_subjects"] == 2


def test_refusals():
    s = _scorings(0.1, subjects=2)
    with pytest.raises(InputError, match="'nets' is not among"):
        between_scorers(s, model="nets")
    with pytest.raises(InputError, match="at least two"):
        between_scorers({"a": {"ann": Hypnogram(_night(0), "rodent3", 4.0)}})


def test_shuffled_bouts_agree_by_chance():
    truth = Hypnogram(_night(3), "rodent3", 4.0)
    control = shuffled_control(truth, truth, draws=100)
    assert abs(control["kappa"]) < 0.1 and control["p_value"] < 0.02
    other = shuffled_control(Hypnogram(_night(99), "rodent3", 4.0), truth, draws=100)
    assert other["p_value"] > 0.01
    many = evaluate_many([(k, v["ann"], v["bea"]) for k, v in _scorings(0.1).items()], draws=100)
    assert abs(many["shuffled"]["kappa"]) < 0.06 < 0.5 < many["kappa"]
    for s in ("WAKE", "NREM", "REM"):
        low, high = many["f1_interval"][s]
        assert low < many["f1"][s] < high
        assert many["fraction_bias_interval"][s][0] <= many["fraction_bias"][s] <= many["fraction_bias_interval"][s][1]
        assert 0.05 < many["bout_length_ratio"][s] < 20
    assert 0 <= many["transition_error"] < 0.5
