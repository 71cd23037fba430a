"""Labs refuse what cannot be, by name, and say when their converter does not fit the signals."""

from __future__ import annotations

import numpy as np
import pytest

import brainmu as bm
from brainmu.core import Recording
from brainmu.errors import InputError
from brainmu.synth import LABS, Lab


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "nwbb"}, r"format is 'nwbb': did you mean 'nwb'\?, expected one of 'nwb', 'edf'"),
        ({"format": ["nwb"]}, "format is"),
        ({"unit": ["uV"]}, "unit is"),
        ({"name": 3}, "lab name is 3"),
        ({"names": 3}, "names is 3"),
        ({"names": "{i[0]}"}, "names is"),
        ({"parameters": 3}, "parameters is 3, expected a mapping"),
        ({"regions": 3}, "regions is 3, expected a mapping"),
        ({"regions": {"CA1": 3}}, "regions is"),
        ({"scorer": "good"}, "scorer is 'good', expected a mapping"),
        ({"clocks": ("camera",)}, "clocks is"),
    ],
)
def test_what_cannot_be_is_refused_by_name(change, said):
    with pytest.raises(InputError, match=said) as caught:
        Lab(**({"name": "a"} | change))
    assert "\n" not in str(caught.value)


def _noise(sd: float) -> Recording:
    x = sd * np.random.default_rng(0).normal(size=(50_000, 2))
    return Recording.from_arrays("m1", signals={"lfp": dict(values=x, rate=1000.0, unit="uV", kind="lfp")})


def test_a_step_that_does_not_fit_is_refused_or_said():
    rec = _noise(200.0)
    with pytest.raises(
        InputError, match=r"step is 0\.001 uV, which clips 8\d% of the samples of lfp .* to \+-32\.8 uV: expected about 0\.06\d? to (49|50|51) uV"
    ):
        Lab("a", step=0.001).convert(rec)
    with pytest.raises(InputError, match=r"step is 1e\+06 uV, which makes 100% of the samples of lfp .* 0: expected"):
        Lab("a", step=1e6).convert(rec)
    for step, share in ((0.01, "clips 10%"), (400.0, "makes 68%")):
        out = Lab("a", step=step).convert(rec)
        (said,) = out.warnings
        assert share in said
        assert not rec.warnings
    for step in (0.0, 0.05, 4.0):
        assert not Lab("a", step=step).convert(rec).warnings
    for value in (np.nan, 0.0):  # nothing to judge by
        rec.signals["lfp"].values[:] = value
        assert not Lab("a", step=1.0).convert(rec).warnings


def test_only_a_few_places_are_read():
    class Counted:
        shape, dtype, rows = (10_000_000, 1), np.dtype(np.float32), 0

        def __getitem__(self, key):
            i, j, _ = key.indices(self.shape[0])
            self.rows += j - i
            return np.full((j - i, 1), 100.0, dtype=np.float32)

    values = Counted()
    Lab("a", step=0.2).convert(Recording.from_arrays("m1", signals={"lfp": dict(values=values, rate=1000.0, unit="uV", kind="lfp")}))
    assert 0 < values.rows < 20_000


@pytest.mark.parametrize("name", [k for k, lab in LABS.items() if lab.step])
def test_presets_fit_their_signals(name):
    rec, _ = LABS[name].recording(hours=0.2, seed=2)
    assert not [w for w in rec.warnings if "step" in w]


def test_a_lab_writes_its_own_format(tmp_path):
    for kind in ("nwb", "edf", "neurosuite", "manifest"):
        lab = Lab("a", format=kind)
        back = bm.read(lab.write(lab.convert(_noise(100.0)), tmp_path / kind))
        assert back.source["format"] == kind
