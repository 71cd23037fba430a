import numpy as np
import pandas as pd
import pytest

from brainmu.causal.validate import Cell, cells, validate
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
    with pytest.raises(InputError, match="at least one"):
        validate(plan, out=tmp_path, studies=0)


def test_every_cell_is_its_own():
    plan = cells()
    assert len({c.key for c in plan}) == len(plan)
    assert all(c.warning for c in plan if c.expect == "fail")
