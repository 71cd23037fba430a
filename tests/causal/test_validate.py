import numpy as np
import pandas as pd
import pytest

from brainmu.causal.validate import Cell, cells, summarise, validate
from brainmu.errors import InputError


def test_cells_run_once_resume_and_are_summarised(tmp_path):
    ask = {"exposure": "trials", "design": "trials", "horizon": 10.0, "draws": 99}
    plan = [Cell("tiny", 2, 0.5, {"trial_log_hazard_ratio": {"negative": 0.0}, "trial_spacing": 10.0}, ask)]
    first = validate(plan, out=tmp_path, studies=2, diagnosed=1)
    before = (tmp_path / "tiny-2.csv").read_text()
    again = validate(plan, out=tmp_path, studies=3, diagnosed=1)
    assert (tmp_path / "tiny-2.csv").read_text().startswith(before)
    assert (int(first["studies"][0]), int(again["studies"][0])) == (2, 3)
    row = again.iloc[0]
    assert row["covered_low"] <= row["covered"] <= row["covered_high"] and row["truth"] == 0.0
    rows = pd.read_csv(tmp_path / "tiny-2.csv")
    assert rows["study"].tolist() == [0, 1, 2] and rows["estimate"].nunique() == 3 and np.isfinite(rows["estimate"]).all()
    other = [Cell("tiny", 2, 1.0, {"trial_log_hazard_ratio": {"negative": 0.0}, "trial_spacing": 10.0}, ask)]
    with pytest.raises(InputError, match="tiny-2 there were made with other settings"):
        validate(other, out=tmp_path, studies=1)
    with pytest.raises(InputError, match="at least one"):
        validate(plan, out=tmp_path, studies=0)


def test_cells_of_one_mechanism_are_asked_of_the_same_studies(tmp_path):
    mechanism = {"trial_log_hazard_ratio": {"negative": 0.0}, "trial_spacing": 10.0}
    ask = {"exposure": "trials", "design": "trials", "horizon": 10.0, "draws": 99}
    short, long = Cell("short", 2, 0.5, mechanism, ask), Cell("long", 2, 0.5, mechanism, ask | {"horizon": 20.0})
    other = Cell("other", 2, 0.5, mechanism | {"trial_spacing": 12.0}, ask)
    validate([short], out=tmp_path / "alone", studies=2, diagnosed=0)
    # One cell asked before the other joins: what it has is kept, what the other lacks is made up for.
    validate([long], out=tmp_path / "both", studies=1, diagnosed=0)
    table = validate([short, long, other], out=tmp_path / "both", studies=2, diagnosed=0)
    assert table["studies"].tolist() == [2, 2, 2]
    assert (tmp_path / "alone" / "short-2.csv").read_text() == (tmp_path / "both" / "short-2.csv").read_text()
    estimates = [pd.read_csv(tmp_path / "both" / f"{k}-2.csv")["estimate"].tolist() for k in ("short", "long", "other")]
    assert estimates[0] != estimates[1] and estimates[0] != estimates[2]


def test_every_cell_is_its_own():
    plan = cells()
    assert len({c.key for c in plan}) == len(plan)
    assert all(c.warning for c in plan if c.expect == "fail")


def test_the_reference_is_the_mean_of_enough_studies_of_twenty_animals(tmp_path):
    cell = next(c for c in cells((4,)) if c.name == "hazard-effect")
    for n, estimate in ((20, 0.8), (4, 0.9)):
        table = pd.DataFrame({"study": range(200), "estimate": estimate, "low": estimate - 0.05, "high": estimate + 0.05, "p_value": 0.01, "warned": ""})
        table.to_csv(tmp_path / f"hazard-effect-{n}.csv", index=False)
    row = summarise([cell], tmp_path).iloc[0]
    assert row["truth"] == pytest.approx(0.8) and row["bias"] == pytest.approx(0.1) and row["covered"] == 0
    assert not list(tmp_path.glob("truth-*"))
