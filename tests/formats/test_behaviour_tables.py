"""Wheel, accelerometer, pupil and other behaviour tables come in through a manifest; a draft of one knows them by name."""

import numpy as np
import pandas as pd
import pytest

from brainmu.formats import read
from brainmu.formats.draft import draft_manifest
from brainmu.store.derived import derive

T = np.arange(200) / 20.0


@pytest.fixture
def folder(tmp_path):
    pd.DataFrame({"time": T, "wheel_deg": 90 * np.sin(T), "speed": 1.0}).to_csv(tmp_path / "wheel.csv", index=False)
    np.save(tmp_path / "accelerometer.npy", np.random.default_rng(0).standard_normal((200, 3)))
    pd.DataFrame({"t_ms": 1000 * T, "diameter": 0.3 + 0.1 * np.cos(T)}).to_csv(tmp_path / "pupil.csv", index=False)
    np.save(tmp_path / "fibre.npy", np.c_[2 + 0.1 * np.sin(T), 1 + 0.05 * np.sin(T)])
    (tmp_path / "brainmu.yaml").write_text(
        """
id: m1
signals:
  wheel: {file: wheel.csv, columns: [wheel_deg], times: {file: wheel.csv, columns: [time]}, unit: deg, kind: behaviour}
  speed_of_wheel: {file: wheel.csv, columns: [speed], rate: 20, unit: m/s, kind: speed}
  accelerometer: {file: accelerometer.npy, rate: 20, unit: g, kind: behaviour, channels: [x, y, z]}
  pupil: {file: pupil.csv, columns: [diameter], times: {file: pupil.csv, columns: [t_ms]}, time_unit: ms, unit: mm, kind: behaviour}
  fibre:
    file: fibre.npy
    rate: 20
    unit: V
    kind: photometry
    channels: [{name: gcamp, isosbestic: iso}, {name: iso}]
"""
    )
    return tmp_path


def test_through_a_manifest(folder):
    rec = read(folder)
    wheel, pupil = rec.signals["wheel"], rec.signals["pupil"]
    assert (wheel.rate, wheel.unit, wheel.kind, wheel.names) == (20.0, "deg", "behaviour", ["wheel_deg"])
    np.testing.assert_allclose(wheel.read()[:, 0], 90 * np.sin(T), rtol=1e-5, atol=1e-4)
    assert (pupil.rate, pupil.unit) == (20.0, "mm")
    assert rec.signals["speed_of_wheel"].kind == "speed"
    assert rec.signals["accelerometer"].names == ["x", "y", "z"]
    dff = derive(rec, ["dff"])["dff_fibre"]
    assert dff.attrs["derived"]["fit"]["gcamp"]["slope"] == pytest.approx(2.0)
    assert np.abs(dff.read()).max() < 1e-6


def test_a_draft_knows_them_by_name(folder):
    (folder / "brainmu.yaml").unlink()
    draft = draft_manifest(folder)
    assert draft.count("kind: behaviour") == 3
