from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest

import brainmu as bm
from brainmu.core import Recording
from brainmu.errors import FormatError, InputError, NotFoundError, OutputExistsError, StoreError
from brainmu.synth import LABS, Corpus, Lab, Truth, corpus, iter_corpus, open_corpus, recording
from brainmu.synth.saving import save

BRIEF = dict(hours=0.1, seed=5, n_cells=6, store={"lfp_rate": 250.0})


def _bytes(folder):
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Corpus:
    return corpus(3, labs=["tetrode-drive", "telemetry"], held_out=1, out=tmp_path_factory.mktemp("one") / "corpus", jobs=1, **BRIEF)


def test_a_corpus_of_stores_says_what_is_what(made):
    assert made.table["lab"].tolist() == ["tetrode-drive", "telemetry", "tetrode-drive"]
    assert made.table["held_out"].tolist() == [False, True, False]
    assert [p.name for p in made.stores(held_out=True)] == ["mouse02_day1.zarr"]
    sessions = [bm.open(p) for p in made.stores()]
    assert [s.subject for s in sessions] == ["mouse01", "mouse02", "mouse03"]
    assert [s.subject_meta["lab"] for s in sessions] == made.table["lab"].tolist()
    assert sessions[0].signals["lfp"].unit == "uV"  # from millivolts
    truth = made.truth("mouse01_day1")
    assert truth.parameters["lab"]["name"] == "tetrode-drive"
    assert truth.bouts["stop"].iloc[-1] == 360.0
    assert str(made.folder) not in (made.folder / "corpus.json").read_text()
    assert open_corpus(made.folder).table.equals(made.table)


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(made, tmp_path):
    said = []
    other = corpus(3, labs=["tetrode-drive", "telemetry"], held_out=1, out=tmp_path / "corpus", jobs=2, progress=lambda t, f: said.append((t, f)), **BRIEF)
    assert _bytes(other.folder) == _bytes(made.folder)
    assert said[-1][1] == 1.0
    assert all("written" in t for t, _ in said)


def test_the_same_call_goes_on_where_it_stopped(made):
    before = _bytes(made.folder)
    (made.folder / ".mouse03_day1.made").unlink()
    (made.folder / "mouse03_day1.truth.npz").unlink()
    said = []
    corpus(3, labs=["tetrode-drive", "telemetry"], held_out=1, out=made.folder, progress=lambda t, f: said.append(t), **BRIEF)
    assert sorted(t.split(": ")[1] for t in said) == ["already complete", "already complete", "written"]
    assert _bytes(made.folder) == before
    with pytest.raises(OutputExistsError, match="another corpus"):
        corpus(3, labs=["tetrode-drive", "telemetry"], out=made.folder, **(BRIEF | {"seed": 6}))


def test_what_fails_does_not_stop_the_others(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "mouse01_day1.zarr").mkdir(parents=True)
    (folder / "mouse01_day1.zarr" / "mine.txt").write_text("keep me")
    with pytest.raises(StoreError, match=r"mouse01_day1.*exists"):
        corpus(2, out=folder, run_minutes=0.0, **(BRIEF | {"n_cells": 0}))
    assert (folder / "mouse01_day1.zarr" / "mine.txt").exists()
    assert bm.open(folder / "mouse02_day1.zarr").subject == "mouse02"
    assert not (folder / "corpus.json").exists()
    with pytest.raises(NotFoundError, match=r"corpus\.json"):
        open_corpus(folder)


def test_labs_take_turns_and_a_larger_corpus_begins_like_a_smaller():
    few = list(iter_corpus(2, labs=list(LABS)[:3], hours=0.1, seed=2))
    many = list(iter_corpus(4, labs=list(LABS)[:3], hours=0.1, seed=2))
    assert [t.parameters["lab"]["name"] for _, t in many] == [*list(LABS)[:3], next(iter(LABS))]
    assert np.array_equal(few[1][0].signals["lfp"].read(0, 100), many[1][0].signals["lfp"].read(0, 100))
    assert many[0][1].parameters["lfp"]["gain"] != many[3][1].parameters["lfp"]["gain"]


def test_labs_differ_as_their_instruments_do():
    assert len(LABS) >= 4
    made = {name: lab.recording(hours=0.1, seed=1) for name, lab in LABS.items()}
    voltages = {name: next(s for s in rec.signals.values() if s.kind in ("lfp", "eeg")) for name, (rec, _) in made.items()}
    assert len({(s.rate, s.unit, s.n_channels) for s in voltages.values()}) == len(LABS)
    assert {s.unit for s in voltages.values()} == {"uV", "mV", "V"}
    assert {t.parameters.get("lfp", t.parameters.get("eeg"))["hum_frequency"] for _, t in made.values()} == {50.0, 60.0}
    assert {rec.species for rec, _ in made.values()} == {"mouse", "rat", "human"}
    probe = made["neuropixels"][0].signals["lfp"]
    assert probe.values.dtype == np.int16
    assert np.diff(probe.channels["y"]).tolist() == [20.0] * 15


def test_a_lab_changes_units_and_counts_but_not_what_was_recorded(tmp_path):
    plain, _ = recording(hours=0.1, seed=4, n_cells=6, n_channels=4)
    plain.signals["lfp"].values[:, 0]
    lab = Lab("here", unit="V", step=0.5, names="{shank}.{n}", per_shank=2, regions={"CA1": "dCA1"}, position_unit="px", pixels=300.0)
    rec = lab.convert(plain)
    x, y = plain.signals["lfp"], rec.signals["lfp"]
    assert y.names == ["1.1", "1.2", "2.3", "2.4", "3.5"]
    assert y.channels["region"].tolist() == ["dCA1"] * 4 + ["CTX"]
    assert np.abs(1e6 * y.read(0, 50_000) - x.read(0, 50_000)).max() <= 0.26
    assert np.array_equal(y.values[7], y.values[5:9][2])
    assert np.array_equal(y.values[[3, 5]], y.values[3:6:2])
    assert np.allclose(rec.signals["position"].read(), 300 * plain.signals["position"].read(), equal_nan=True)
    stored = bm.preprocess(rec, tmp_path / "x.zarr", lfp_rate=None).signals["lfp"]
    assert stored.unit == "uV"
    assert np.abs(stored.read(0, 50_000) - x.read(0, 50_000)).max() <= 0.26
    holed, _ = recording(hours=0.1, seed=4, n_cells=0, run_minutes=0.0, gap_rate=1 / 60)
    lab = Lab("counts", step=0.5)
    assert np.array_equal(np.isnan(lab.convert(holed).signals["lfp"].read()), np.isnan(holed.signals["lfp"].read()))
    assert np.isnan(holed.signals["lfp"].read()).any()


@pytest.mark.parametrize("parameters", [dict(), dict(species="human"), dict(arena="arms", n_head=2, n_cortical=3, n_amygdala_cells=3, pre_rest_minutes=2.0),
                                        dict(preset="hard", calcium=True, photometry=True, clocks={"camera": {"streams": ("position",)}})])  # fmt: skip
def test_the_truth_reads_back_whole(parameters, tmp_path):
    _, truth = recording(hours=0.15, seed=3, **({"n_cells": 12} | parameters if parameters.get("species") != "human" else parameters))
    truth.save(tmp_path / "t.npz")
    back = Truth.load(tmp_path / "t.npz")
    back.save(tmp_path / "again.npz")
    assert (tmp_path / "t.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    assert back.summary() == truth.summary()
    assert back.parameters == truth.parameters
    assert back.bouts.equals(truth.bouts)
    assert back.hypnogram == truth.hypnogram
    assert back.ripples.to_frame().equals(truth.ripples.to_frame())
    for f in dataclasses.fields(Truth):
        assert (getattr(back, f.name) is None) == (getattr(truth, f.name) is None), f.name
    if truth.spikes is not None:
        assert np.array_equal(back.spikes.times, truth.spikes.times)
    if truth.calcium is not None:
        assert np.array_equal(back.calcium.clean.read(0, 500), truth.calcium.clean.read(0, 500))
        assert back.clocks["camera"].to_own(50.0) == truth.clocks["camera"].to_own(50.0)


def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        corpus(1, hours=0.1, out=tmp_path / "file" / "inner", n_cells=0, n_channels=1)
    _, truth = recording(0.1, n_cells=0, n_channels=1)
    (tmp_path / "taken.npz").mkdir()
    with pytest.raises(StoreError, match="could not be written"):
        truth.save(tmp_path / "taken.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken.npz"]


def test_a_damaged_list_or_truth_is_mended_by_the_same_call(tmp_path):
    asked = dict(n_subjects=2, hours=0.1, seed=3, out=tmp_path / "c", n_cells=0, n_channels=1)
    first = corpus(**asked)
    before = {p.name: p.read_bytes() for p in (tmp_path / "c").glob("*.npz")}
    (tmp_path / "c" / "corpus.json").write_text("[]")
    path = next(iter((tmp_path / "c").glob("*.npz")))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FormatError, match="run the same"):
        open_corpus(tmp_path / "c")
    with pytest.raises(FormatError, match="damaged"):
        first.truth(path.name.split(".")[0])
    corpus(**asked)
    assert {p.name: p.read_bytes() for p in (tmp_path / "c").glob("*.npz")} == before
    with pytest.raises(OutputExistsError, match=r"variation 1\.0, asked for 0\.5"):
        corpus(**asked, variation=0.5)
    with pytest.raises(OutputExistsError, match="can grow, not shrink"):
        corpus(**(asked | {"n_subjects": 1}))


def test_a_file_that_is_no_truth_is_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"not a zip")
    with pytest.raises(FormatError, match="truth"):
        Truth.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.zeros(3))
    with pytest.raises(FormatError, match="truth"):
        Truth.load(tmp_path / "b.npz")
    tree = {"version": 1, "value": {"call": "os:system", "args": [], "keywords": {"dict": []}}}
    np.savez(tmp_path / "c.npz", tree=np.array(json.dumps(tree)))
    with pytest.raises(FormatError, match=r"os:system"):
        Truth.load(tmp_path / "c.npz")
    whole = (tmp_path / "b.npz").read_bytes()
    for damaged in (b"", b"not a zip", whole[: len(whole) // 2], whole.replace(b"NUMPY", b"NUMBY")):
        (tmp_path / "damaged.npz").write_bytes(damaged)
        with pytest.raises(FormatError, match="damaged: write it again") as refused:
            Truth.load(tmp_path / "damaged.npz")
        assert "pickle" not in str(refused.value)
    with pytest.raises(NotFoundError):
        Truth.load(tmp_path / "d.npz")
    with pytest.raises(InputError, match="Recording"):
        save(Recording("m1"), tmp_path / "e.npz")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(n_subjects=0), "n_subjects"), (dict(labs=["neuropixel"]), "neuropixels"), (dict(labs=[]), "one or more"), (dict(labs=["telemetry"] * 2), "own"),
        (dict(labs=["telemetry"], held_out=1), "fewer"), (dict(labs=["telemetry", "miniscope"], held_out="tetrode"), "tetrode"),
        (dict(held_out="x"), "no labs"),
        (dict(labs=["telemetry"], held_out=["telemetry"]), "all"), (dict(variation=-1.0), "variation"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(change, word):
    with pytest.raises(InputError, match=word):
        corpus(**({"n_subjects": 2, "hours": 0.1} | change))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(name="my lab"), "letters"), (dict(unit="kV"), "kV"), (dict(names="ch"), "differ"), (dict(names="{k}"), "pattern"), (dict(step=-1.0), "step"),
        (dict(kind="emg"), "kind"),
    ],
)  # fmt: skip
def test_what_no_lab_can_be_is_refused_by_name(change, word):
    with pytest.raises(InputError, match=word):
        Lab(**({"name": "a"} | change))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"subject": "bob"}, "every animal of a corpus has its own"),
        ({"species": "human", "labs": "telemetry"}, "the labs record mouse"),
        ({"held_out": 1}, "no labs are given"),
        ({"variation": 50}, "at most 3"),
        ({"labs": 5}, "names or Labs"),
        ({"labs": ["telemetry", "miniscope", "tetrode-drive"], "held_out": 1}, "2 for 3 labs"),
        ({"labs": ["telemetry", "miniscope"], "held_out": True}, "held_out is True"),
        ({"preset": "harder"}, "hard"),
        ({"out": ""}, "folder"),
        ({"out": "x", "store": 3}, "options"),
        ({"out": "x", "progress": 3}, "function"),
    ],
)
def test_contradictions_are_refused(given, says):
    with pytest.raises(InputError, match=says):
        corpus(2, hours=0.2, **given)
