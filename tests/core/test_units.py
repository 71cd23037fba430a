from __future__ import annotations

import pytest

from brainmu.core.units import canonical_unit, unit_factor, unit_hint


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("V", 1e6), ("volts", 1e6), ("mV", 1e3), ("uV", 1.0), ("µV", 1.0), ("μV", 1.0), (" Microvolts ", 1.0), ("nV", 1e-3), ("nanovolt", 1e-3)],
)
def test_every_spelling_of_voltage_comes_to_microvolts(unit: str, factor: float) -> None:
    assert unit_factor(unit, kind="eeg") == (factor, "uV")
    assert unit_hint(unit) == ""


@pytest.mark.parametrize(
    ("unit", "meant"),
    [("uVolt", "uV"), ("µVolts", "uV"), ("mvolts", "mV"), ("uVs", "uV"), ("milivolt", "mV"), ("a.u.", ""), ("ADC", ""), ("", "")],
)
def test_an_unknown_unit_is_kept_and_the_likely_one_named(unit: str, meant: str) -> None:
    assert unit_factor(unit, kind="eeg") == (1.0, unit)
    assert unit_hint(unit) == (f": did you mean {meant!r}?" if meant else "")


def test_only_microvolts_have_one_spelling() -> None:
    assert canonical_unit("µV") == "uV" and canonical_unit(" px ") == "px"
