"""The scripts for public data sets, on small files of the same names and layout."""

from __future__ import annotations

import datetime
import importlib.util
from pathlib import Path
from types import ModuleType

import edfio
import numpy as np
import pytest

import brainmu as bm
from brainmu.store.export import to_nwb

PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"
RNG = np.random.default_rng(0)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"pipeline_{name}", PIPELINES / name / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_edf(
    path: Path, seconds: int = 120, start: datetime.time = datetime.time(22, 0, 0), labels: tuple[str, ...] = ("EEG Fpz-Cz", "EMG submental")
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    signals = [edfio.EdfSignal(RNG.normal(0, 50, 100 * seconds), 100, label=x, physical_dimension="uV", physical_range=(-500, 500)) for x in labels]
    edfio.Edf(signals, recording=edfio.Recording(startdate=datetime.date(2001, 2, 3)), starttime=start).write(path)


def write_stages(path: Path, stages: list[str], epoch: float = 30.0) -> None:
    edfio.Edf([], annotations=[edfio.EdfAnnotation(epoch * i, epoch, s) for i, s in enumerate(stages)]).write(path)


def stores(folder: Path) -> dict[str, bm.Session]:
    return {p.stem: bm.open(p) for p in sorted(folder.glob("*.zarr"))}


def test_sleep_edfx(tmp_path: Path) -> None:
    night = tmp_path / "in/sleep-cassette/SC4001E0-PSG.edf"
    write_edf(night)
    write_stages(night.with_name("SC4001EC-Hypnogram.edf"), ["Sleep stage W", "Sleep stage 2", "Sleep stage 4", "Sleep stage R"])
    script("sleep_edfx").main([str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    session = stores(tmp_path / "out")["SC4001"]
    assert (session.subject, session.species, session.subject_meta["night"], session.subject_meta["study"]) == ("SC400", "human", "1", "cassette")
    assert session.hypnogram().stages_list() == ["W", "N2", "N3", "R"] and any("N3" in w for w in session.warnings)
    assert session.signals_of("eeg") and session.signals_of("emg")


def test_hmc_sleep(tmp_path: Path) -> None:
    write_edf(tmp_path / "in/recordings/SN001.edf", labels=("EEG F4-M1", "EMG chin", "ECG"))
    write_stages(tmp_path / "in/recordings/SN001_sleepscoring.edf", ["Sleep stage W", "Sleep stage N1", "Sleep stage N3", "Sleep stage R"])
    script("hmc_sleep").main([str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    session = stores(tmp_path / "out")["SN001"]
    assert session.hypnogram().stages_list() == ["W", "N1", "N3", "R"] and {k for s in session.signals.values() for k in s.channels["kind"]} == {
        "eeg",
        "emg",
        "ecg",
    }


@pytest.mark.parametrize("positions", [True, False])
def test_cap_sleep(positions: bool, tmp_path: Path) -> None:
    rows = [("W", "23:59:30", "SLEEP-S0", "30"), ("S1", "00:00:00", "SLEEP-S1", "30"), ("S2", "00:00:05", "MCAP-A1", "4"), ("S4", "00:01:00", "SLEEP-S4", "30")]
    head = ["Sleep Stage", *["Position"] * positions, "Time [hh:mm:ss]", "Event", "Duration[s]", "Location"]
    lines = ["\t".join([r[0], *["Unknown Position"] * positions, *r[1:], "ROC-LOC"]) for r in rows]
    write_edf(tmp_path / "in/rbd3.edf", seconds=150, start=datetime.time(23, 59, 0), labels=("C4-A1", "EMG1-EMG2"))
    (tmp_path / "in/rbd3.txt").write_text("\n".join(["Scoring of rbd3", "", "\t".join(head), *lines, ""]))
    script("cap_sleep").main([str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    session = stores(tmp_path / "out")["rbd3"]
    scored = session.hypnogram("scoring")
    assert (scored.start, scored.epoch, scored.stages_list()) == (30.0, 30.0, ["W", "N1", "UNS", "N3"])  # past midnight; one epoch left out
    cap = session.events("cap")
    assert (cap.start.tolist(), cap.stop.tolist(), cap.kind.tolist()) == ([65.0], [69.0], ["A1"])
    assert session.subject_meta["group"] == "REM behaviour disorder" and any("1 of 4 epochs are not scored" in w for w in session.warnings)


def test_oxford_mouse_sleep(tmp_path: Path) -> None:
    group = tmp_path / "in/test"
    write_edf(group / "recordings/A_1_2020.edf", seconds=24, labels=("EEG1", "EMG"))
    write_edf(group / "recordings/B_1_2020.edf", seconds=24, labels=("EEG1", "EMG"))
    (group / "annotations").mkdir()
    text = "*Duration_sec\t24\n*Datafile\tUnspecified\nawake\t8.0\nnon-REM (artefact)\t12\nnon-REM\t16.0\nsleep movement\t20\nREM\t24.0\n"
    for name in ("A_1_2020_consensus_state_annotation", "A_1_2020_AB"):
        (group / f"annotations/{name}.hyp").write_text(text)
    (group / "annotations/B_2020_CD.hyp").write_text("awake\t24\n")
    script("oxford_mouse_sleep").main([str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    a, b = stores(tmp_path / "out").values()
    assert set(a.labels) == {"scoring", "scoring_AB"} and a.hypnogram("scoring").scorer == "consensus" and a.subject_meta["group"] == "test"
    assert a.hypnogram("scoring").stages_list() == ["WAKE", "WAKE", "ART", "NREM", "UNS", "REM"]
    assert any("1 epochs are sleep movement" in w for w in a.warnings) and b.hypnogram("scoring").stages_list() == ["WAKE"] * 6


def test_dandi_rodent_sleep(tmp_path: Path) -> None:
    (tmp_path / "in/sub-1").mkdir(parents=True)
    rec = bm.Recording.from_arrays("ses-1", "m1", "mouse", signals={"lfp": dict(values=RNG.normal(size=(5000, 2)), rate=1250.0, unit="uV", kind="lfp")})
    to_nwb(rec, tmp_path / "in/sub-1/sub-1_ses-1_behavior+ecephys.nwb")
    script("dandi_rodent_sleep").main([str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    assert [s.subject for s in stores(tmp_path / "out").values()] == ["m1"]


def test_crcns_hippocampus(tmp_path: Path) -> None:
    folder = tmp_path / "in/ec013.527"
    folder.mkdir(parents=True)
    xml = (
        "<?xml version='1.0'?><parameters><acquisitionSystem><nBits>16</nBits><nChannels>2</nChannels><samplingRate>20000</samplingRate>"
        "<voltageRange>20</voltageRange><amplification>1000</amplification></acquisitionSystem><fieldPotentials><lfpSamplingRate>1250</lfpSamplingRate>"
        "</fieldPotentials><anatomicalDescription><channelGroups><group><channel skip='0'>0</channel><channel skip='0'>1</channel></group></channelGroups>"
        "</anatomicalDescription></parameters>"
    )
    (folder / "ec013.527.xml").write_text(xml)
    RNG.integers(-900, 900, (5000, 2)).astype(np.int16).tofile(folder / "ec013.527.eeg")
    (folder / "ec013.527.res.1").write_text("200\n400\n900\n")
    (folder / "ec013.527.clu.1").write_text("3\n2\n3\n2\n")
    script("crcns_hippocampus").main([str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    session = stores(tmp_path / "out")["ec013.527"]
    assert session.subject == "ec013" and session.spikes is not None and session.spikes.n_units == 2 and session.signals_of("lfp")


@pytest.mark.parametrize("name", sorted(p.parent.name for p in PIPELINES.glob("*/run.py") if "rat_linear" not in str(p) and "reactivation" not in str(p)))
def test_an_empty_folder_is_a_usage_error(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        script(name).main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert e.value.code == 2 and "fetch them first" in capsys.readouterr().err


@pytest.mark.slow
def test_reactivation_sleep_from_planted_sessions_and_from_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The study end to end, again without work, and on the stores it made as a lab would give them."""
    monkeypatch.syspath_prepend(PIPELINES.parent)
    main = importlib.import_module("pipelines.reactivation_sleep.run").main
    planted = tmp_path / "planted"
    assert main(["--out", str(planted), "--quick"]) == 0
    out, err = capsys.readouterr()
    rows = {r.split("|")[1].strip(): r.split("|") for r in out.splitlines() if r.startswith("| ") and "question" not in r}
    assert {"trials", "hazard: negative - neutral", "hazard: positive - neutral", "msm: negative", "in the model, removed: negative"} <= set(rows)
    assert "not answered" not in err and (planted / "effects.png").stat().st_size > 20_000 and (planted / "effects.md").read_text() == out[:-1]
    for name in ("trials", "hazard: negative - neutral", "hazard: positive - neutral"):
        low, high = (float(x) for x in rows[name][4].split(" to "))
        assert low <= float(rows[name][6]) <= high, name

    made = {p: p.stat().st_mtime_ns for p in (planted / "effects").glob("*.json")}
    assert main(["--out", str(planted), "--quick"]) == 0
    again, err = capsys.readouterr()
    assert again == out and "effect:" not in err and all(p.stat().st_mtime_ns == t for p, t in made.items())
    assert main(["--out", str(planted), "--quick", "--seed", "1"]) == 1
    assert "holds another run (other seed)" in capsys.readouterr().err

    lab = [str(p) for p in sorted((planted / "stores").glob("*.zarr"))]
    assert main(["--out", str(tmp_path / "lab"), "--quick", *lab]) == 0
    given = capsys.readouterr().out
    assert "| hazard: negative - neutral |" in given and "planted events" not in given and "in the model" not in given


def test_reactivation_sleep_says_what_a_store_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(PIPELINES.parent)
    main = importlib.import_module("pipelines.reactivation_sleep.run").main
    bare = bm.Recording.from_arrays("day1", "m1", "mouse", signals={"emg": dict(values=RNG.normal(size=2000), rate=100.0, kind="emg")})
    bm.preprocess(bare, tmp_path / "day1.zarr")
    assert main(["--out", str(tmp_path / "out"), str(tmp_path / "day1.zarr")]) == 1
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("reactivation_sleep: the stores lack a hypnogram 'scoring'") and "--stager" in err[-1]
