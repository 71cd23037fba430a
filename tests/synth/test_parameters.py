"""The table of every parameter, which is made from the docstrings."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest

_SOURCE = Path(__file__).parents[2] / "docs" / "figures" / "synth_parameters.py"
_spec = importlib.util.spec_from_file_location("synth_parameters", _SOURCE)
assert _spec is not None
assert _spec.loader is not None
table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(table)


@pytest.mark.parametrize("model", table.models(), ids=lambda c: c.__name__)
def test_every_parameter_has_a_unit_or_kind_and_a_meaning(model):
    known = table.entries(model)
    for f in dataclasses.fields(model):
        assert f.name in known, f"{model.__name__}.{f.name} is not described"
        e = known[f.name]
        assert e.kind, f"{model.__name__}.{f.name} has neither unit nor kind"
        assert e.text or len(f.name) > 3, f"{model.__name__}.{f.name} says nothing"
    assert set(known) == {f.name for f in dataclasses.fields(model)}


def test_the_page_shows_units_defaults_and_sources():
    page = table.on_page_markdown(f"# Title\n\n{table.MARK}\n", page=None)
    assert table.MARK not in page
    assert "| `frame_rate` | 30 | Hz |" in page
    assert "Chen TW et al. (2013)" in page
    assert "| `bleach_time` | 1800 | s |" in page
    assert "| `neuropixels` | mouse | 16 | 2500 |" in page
    assert table.on_page_markdown("nothing here") == "nothing here"
    names = {c.__name__ for c in table.models()}
    assert {"CalciumModel", "PhotometryModel", "ClockModel", "Lab", "FaultModel", "RodentSleep", "LFPModel", "CellModel", "Mechanism"} <= names
