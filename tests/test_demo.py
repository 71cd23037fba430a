"""The demo: its folder is safe, its sizes parse, and the whole chain runs on planted truth and on given files."""

import json

import numpy as np
import pytest

from brainmu.config import load_config
from brainmu.demo import DemoConfig, demo
from brainmu.errors import OutputExistsError


@pytest.mark.parametrize("name", ["demo/default", "demo/quick"])
def test_packaged_sizes_parse(name):
    assert load_config(DemoConfig, name).animals >= 2


def test_default_sizes_are_the_packaged_ones():
    assert load_config(DemoConfig, "demo/default") == DemoConfig()


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExistsError, match="left alone"):
        demo(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_given_recording_is_analysed_as_far_as_it_goes(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "eeg.npy", rng.standard_normal((60_000, 1)).astype(np.float32))
    (folder / "brainmu.yaml").write_text("id: day1\nsubject: m1\nsignals:\n  eeg: {file: eeg.npy, rate: 200, unit: uV, kind: eeg}\n")
    result = demo(tmp_path / "out", [folder], quick=True)
    page = result.report.read_text()
    assert "day1" in page and "What was not done" in page and (tmp_path / "out" / "stores" / "day1.zarr").is_dir()
    assert any("ripple" in s for s in result.lacking) and any("trials" in s for s in result.lacking)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        demo(tmp_path / "out", [folder])


@pytest.mark.slow
def test_the_whole_chain_finds_what_was_planted(tmp_path):
    result = demo(tmp_path / "out", quick=True)
    ok = {r["quantity"]: r["ok"] for r in result.comparison}
    # Small samples may miss one bar; a chain that misses more is broken.
    assert len(ok) >= 8 and sum(ok.values()) >= len(ok) - 1, result.table()
    saved = json.loads((tmp_path / "out" / "demo.json").read_text())
    assert saved["report"] == "report.html" and (tmp_path / "out" / "report.html").stat().st_size > 100_000
