"""The committed table of error rates: what must hold does, what must fail does, and is warned of."""

from pathlib import Path

import pandas as pd
import pytest

from brainmu.causal.validate import ANIMALS, cells

TABLE = pd.read_csv(Path(__file__).parents[2] / "docs" / "figures" / "validation.csv")
MOST_REJECTED, LEAST_COVERED = 0.07, 0.92


# Scorers who err shift the answer, which no interval holds; without an effect by too little to be rejected more often. It is told, and has no bar.
HELD = [r for r in TABLE.to_dict("records") if r["expect"] == "hold" and r["cell"] != "scored-null"]


@pytest.mark.parametrize("row", HELD, ids=lambda r: f"{r['cell']}-{r['animals']}")
def test_error_rates_hold(row):
    """By their exact 95 % limits, and with no study that could not be analysed."""
    assert row["studies"] >= 300 and row["failed"] <= 0.01 * row["studies"]
    if row["truth"] == 0:
        assert row["rejected_high"] <= MOST_REJECTED
    else:
        assert row["covered_low"] >= LEAST_COVERED


@pytest.mark.parametrize("name", sorted({c.name for c in cells() if c.expect == "fail"}))
def test_what_must_fail_does_and_is_warned_of(name):
    rows = TABLE[TABLE["cell"] == name]
    row = rows.loc[rows["animals"].idxmax()]
    assert row["covered_high"] < LEAST_COVERED and row["warned"] >= 0.8
    assert row["truth"] != 0 or row["rejected_low"] > MOST_REJECTED


def test_every_cell_is_in_the_table():
    asked = {(c.name, c.animals) for c in cells(ANIMALS) if c.expect == "hold" and not c.name.startswith(("detected", "scored"))}
    assert asked <= set(zip(TABLE["cell"], TABLE["animals"])) and {c.name for c in cells()} == set(TABLE["cell"])
