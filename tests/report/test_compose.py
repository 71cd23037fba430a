"""Whatever is given ends on the page; what is lacking is said; what cannot be read is refused before anything is written."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from brainmu.core import Effect, EventTable, Hypnogram, Recording
from brainmu.errors import FormatError, InputError, NotFoundError, OutputExistsError
from brainmu.report import compose_report, write_report
from brainmu.report.inputs import gather
from brainmu.sleep.files import write_hypnogram


def an_effect(level="experimental"):
    return Effect(
        "Does stimulation wake mice within 10 s", 0.1, 0.02, 0.18, 0.01, "risk difference", level, null=np.linspace(-0.1, 0.1, 50), n_units=4, n_events=99,
        assumptions=["assignment as logged"], diagnostics={"warnings": ["few animals"], "verdict": "Assignment raises it."},
    )  # fmt: skip


@pytest.fixture
def files(tmp_path, mouse):
    """The same results as files, as the verbs write them."""
    write_hypnogram(mouse.model, tmp_path / "m1_day2_rules.tsv")
    mouse.events.to_bids(tmp_path / "m1_day2_ripples.tsv")
    (tmp_path / "effect.json").write_text(an_effect().to_json())
    maps = xr.DataArray(np.random.default_rng(0).normal(size=(2, 3)), dims=("channel", "band"), name="lfp", attrs={"units": "log odds", "target": "REM"})
    maps.to_dataset().to_netcdf(tmp_path / "rem.nc", engine="scipy")
    (tmp_path / "run").mkdir()
    pd.DataFrame({"step": [0, 1], "val/loss": [2.0, 1.0]}).to_csv(tmp_path / "run" / "metrics.csv", index=False)
    (tmp_path / "run" / "config.yaml").write_text("width: 64\n")
    (tmp_path / "run" / "report.json").write_text('{"spectrum": {"model": 0.5, "mean": 1.0}}')
    (tmp_path / "planted.json").write_text(json.dumps([{"quantity": "ripples", "planted": 10, "found": 9}]))
    return tmp_path


def test_files_are_recognised_by_what_they_hold(files):
    m = gather([files / n for n in ("m1_day2_rules.tsv", "m1_day2_ripples.tsv", "effect.json", "rem.nc", "run", "planted.json")])
    assert list(m.hypnograms) == ["m1_day2_rules"] and m.hypnograms["m1_day2_rules"].proba is not None
    assert list(m.events) == ["m1_day2_ripples"] and m.events["m1_day2_ripples"].kind[0] == "ripple"
    assert m.effects["effect"].estimate == 0.1 and len(m.effects["effect"].null) == 50
    assert (
        list(m.maps) == ["rem"] and m.runs["run"].config == {"width": 64} and m.runs["run"].held_out["spectrum"]["mean"] == 1 and m.comparison[0]["found"] == 9
    )


HEADINGS = (
    "At a glance", "The session", "Sleep", "Place and decoding", "Events and replay", "Trained models", "What the model used", "Randomised trials",
    "Interventions in the model", "Provenance",
)  # fmt: skip


@pytest.mark.slow
def test_everything_on_one_page(files, mouse, out):
    parts = [mouse.recording, *sorted(p for p in files.iterdir()), ("model", an_effect("model"))]
    stages = []
    write_report(parts, out, progress=lambda stage, share: stages.append(share))
    html = out.read_text()
    for heading in HEADINGS:
        assert f"{heading}</h2>" in html
    for words in ("EMG starts 2 ms late", "Assignment raises it.", "few animals", "assignment as logged", "width: 64", "rules against scoring", "planted"):
        assert words in html
    assert html.count("<figure>") >= 11 and out.stat().st_size < 3e6
    assert stages == sorted(stages) and stages[0] == 0 and stages[-1] == 1
    assert str(files) not in html and "/tmp" not in html


def test_same_input_same_bytes(tmp_path):
    h = Hypnogram.from_stages(["W", "N2", "R"] * 9, epoch=30.0)
    a, b = (write_report([h, an_effect()], tmp_path / n).read_bytes() for n in ("a.html", "b.html"))
    assert a == b


def test_what_is_lacking_is_said(out):
    rec = Recording.from_arrays("bare", signals={"eeg": dict(values=np.random.default_rng(0).normal(size=(4000, 1)), rate=100.0, unit="uV", kind="eeg")})
    write_report(rec, out)
    html = out.read_text()
    assert "bare holds no EMG; no spikes (no decoding); no position (no place fields); no hypnogram of its own." in html
    assert "No hypnogram was given and the recording has none" in html and "Events and replay" not in html
    write_report(EventTable([], [], kind="ripple"), out, overwrite=True)
    assert "no event was found" in out.read_text()


def test_results_find_their_recording_by_name(mouse):
    def rec(i):
        return Recording.from_arrays(i, signals={"eeg": dict(values=np.zeros((400, 1)), rate=100.0, unit="uV", kind="eeg")})

    m = gather([rec("m1"), rec("m1_day2"), ("m1_day2_rules", mouse.model), ("m1_rules", mouse.truth), ("other", Hypnogram.from_stages(["W"], epoch=30.0))])
    assert list(m.of("hypnograms", m.recordings["m1_day2"])) == ["rules"] and m.of("hypnograms", m.recordings["m1"])["rules"] is mouse.truth
    assert list(m.orphans("hypnograms")) == ["other"]
    with pytest.raises(InputError, match="two recordings are called 'm1'"):
        gather([rec("m1"), rec("m1")])


def test_bad_input_is_one_clear_line_and_nothing_is_written(tmp_path, out):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text('{"a": 1}')
    (tmp_path / "half.json").write_text('{"estimand": "x", "estimate": 1, "level": "experimental"}')
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.tsv").write_text("")
    (tmp_path / "noise.nc").write_bytes(b"\x00\x01\x02")
    (tmp_path / "noise.xyz").write_bytes(b"\x00\x01\x02")
    cases = {
        "absent.zarr": (NotFoundError, "no such file or folder"),
        "broken.json": (FormatError, "not valid JSON"),
        "other.json": (FormatError, "holds a, expected an effect"),
        "half.json": (FormatError, "not a whole effect"),
        "table.csv": (FormatError, "neither training metrics"),
        "empty.tsv": (FormatError, "cannot be read as a table"),
        "noise.nc": (FormatError, "cannot be read as NetCDF"),
        "noise.xyz": (FormatError, "noise.xyz"),
    }
    for name, (kind, said) in cases.items():
        with pytest.raises(kind, match=said) as caught:
            write_report(tmp_path / name, out)
        assert "\n" not in str(caught.value) and name in str(caught.value)
    for nothing in ([], {}, None, 3):
        with pytest.raises(InputError):
            write_report(nothing, out)
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(OutputExistsError):
        write_report(tmp_path / "absent.zarr", out)
    assert out.read_text() == "mine"


def test_clocks_that_were_aligned_are_shown_with_what_the_map_is_worth(tmp_path):
    from brainmu.store import align

    pulses = np.cumsum(np.random.default_rng(0).uniform(0.5, 1.5, 200))
    eeg = {"values": np.random.default_rng(1).normal(0, 50, (20_000, 1)), "rate": 100.0, "unit": "uV", "kind": "eeg", "clock": "box"}
    rec = Recording.from_arrays("two", "m1", "mouse", signals={"eeg": eeg})
    rec.clocks = {"session": {"pulses": pulses}, "box": {"pulses": (pulses - 3.0) / (1 + 50e-6)}}
    page = write_report([align(rec)], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "pulses matched" in page
    assert "200 of 200" in page
    assert "+50.00" in page


def test_the_verdict_of_a_map_stands_above_it():
    share = np.linspace(0, 1, 5)
    curves = dict(curve_share=share, deletion=1 - share, insertion=share, random_deletion=1 - share, random_insertion=share)
    maps = xr.Dataset({"lfp": (("channel", "band"), np.random.default_rng(0).normal(size=(2, 3)), {"unit": "log odds"})}, attrs={"target": "REM"} | curves)
    maps["attention_lfp"] = ("time", np.ones(3), {"unit": "share of attention"})
    maps.attrs["attention_note"] = "attention rollout is not an attribution of the output"
    page = {
        k: compose_report({"rem": maps.assign_attrs(verdict=v) if v else maps}).html()
        for k, v in (("bad", "failed: shares do not add up"), ("good", "passed"), ("none", ""))
    }
    assert "rem FAILED its checks (shares do not add up)" in page["bad"] and "FAILED ITS CHECKS. rem: attribution to REM" in page["bad"]
    assert "rem passed its checks" in page["good"] and "FAILED" not in page["good"] and "rem was not checked" in page["none"]
    for p in page.values():
        assert "taken away (deletion)" in p and "attention rollout is not an attribution of the output." in p and p.count("<figure") >= 3
