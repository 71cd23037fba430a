"""brainmu effect: what is asked is what is estimated, planned and preregistered."""

import json

import pytest

import brainmu as bm
from brainmu.cli import main


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("effect")
    for rec in bm.synth.study(n_animals=3, hours=0.7, seed=2)[0]:
        bm.preprocess(rec, folder / f"{rec.subject}.zarr", lfp_rate=None)
    return folder


def test_a_preregistered_question_is_recognised_when_it_is_asked(stores, tmp_path, capsys):
    question = ["effect", "--design", "matched", "--exposure", "reactivation", "--adjust", "pressure", "--content", "negative", "--draws", "99", "--quiet"]
    assert main([*question, "--preregister", str(tmp_path / "q.md"), "--json"]) == 0
    sealed = json.loads(capsys.readouterr().out)
    assert sealed["hash"] in (tmp_path / "q.md").read_text()
    assert main([*question, str(stores), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["diagnostics"]["question"]["hash"] == sealed["hash"] and found["unit"] == "log odds ratio"
    assert main([*question, "--preregister", str(tmp_path / "q.md")]) != 0
    assert "q.md" in capsys.readouterr().err


def test_a_time_course_and_a_time(stores, capsys):
    ask = ["effect", str(stores), "--quiet", "--draws", "99"]
    assert main([*ask, "--design", "glm", "--exposure", "reactivation", "--horizon", "20", "--basis", "2", "--adjust", "pressure", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["diagnostics"]["basis"] == 2
    assert main([*ask, "--design", "trials", "--outcome", "time to WAKE", "--horizon", "30"]) == 0
    assert "s (randomised)" in capsys.readouterr().out


def test_power_is_printed(capsys):
    ask = ["effect", "--power", "--design", "trials", "--animals", "2", "--trials-per-animal", "12", "--hours", "0.6", "--studies", "2", "--quiet"]
    assert main([*ask, "--effect-size", "2", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["animals"] == 2 and row["studies"] == 2


def test_what_does_not_go_together(stores, tmp_path, capsys):
    trials, both = ["effect", "--design", "trials"], ["--power", "--preregister", str(tmp_path / "p.md")]
    for args in ([], ["--power", str(stores)], both):
        assert main([*trials, *args]) == 2
        assert capsys.readouterr().err.startswith("brainmu: ")


@pytest.fixture(scope="module")
def mediated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mediated")
    for rec in bm.synth.mediated_study(3, 30, seed=1)[0]:
        bm.preprocess(rec, folder / f"{rec.id}.zarr", lfp_rate=None)
    return folder


def test_what_goes_through_a_population(mediated, tmp_path, capsys):
    ask = ["effect", str(mediated), "--design", "mediation", "--quiet"]
    assert main([*ask, "--mediator", "spikes:region=LC", "--window", "2", "--json", "--out", str(tmp_path / "e.json")]) == 0
    found = json.loads(capsys.readouterr().out)
    parts = found["diagnostics"]
    assert found["unit"] == "risk difference" and found["level"] == "observational" and parts["indirect"]["estimate"] == found["estimate"]
    assert parts["total"]["estimate"] == pytest.approx(found["estimate"] + parts["direct"]["estimate"])
    assert json.loads((tmp_path / "e.json").read_text()) == found
    assert main([*ask, "--mediator", "spikes:region=LH"]) == 1
    assert "no unit has region 'LH', there are CA1, LC" in capsys.readouterr().err
    for wrong, words in (([], "needs --mediator"), (["--mediator", "spikes", "--lag", "2", "--level", "dB"], "does not take --level, --lag")):
        assert main([*ask, *wrong]) == 2
        said = capsys.readouterr().err
        assert words in said and said.startswith("brainmu: ") and said.count("\n") == 1


def test_a_threshold_and_a_factorial(tmp_path, capsys):
    import numpy as np

    from brainmu.core import EventTable, Hypnogram, Recording

    rng = np.random.default_rng(0)
    for i in range(8):
        level = rng.choice([30.0, 50.0, 70.0], 60)
        woke = rng.random(60) < 1 / (1 + np.exp(-0.15 * (level - 50)))
        stages = [s for w in woke for s in ["NREM"] * 2 + (["WAKE"] * 2 if w else ["NREM"] * 2) + ["NREM"] * 2]
        on = np.arange(60) * 24.0 + 5.0
        labels = {"scoring": Hypnogram.from_stages(stages, epoch=4.0), "probes": EventTable(on, on + 0.5, dB=level)}
        meta = {"stress": ("stressed", "control")[i // 4], "virus": ("opsin", "no_opsin")[i % 2], "cage": f"c{i}"}
        bm.preprocess(Recording(f"m{i}", f"m{i}", labels=labels, subject_meta=meta), tmp_path / f"m{i}.zarr")
    ask = ["effect", str(tmp_path), "--quiet", "--json"]
    assert main([*ask, "--design", "threshold", "--level", "dB"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["unit"] == "dB" and 40 < found["estimate"] < 60
    factors = ["--factors", "stress=stressed/control", "virus=opsin/no_opsin"]
    assert main([*ask, "--design", "factorial", *factors, "--draws", "99"]) == 0
    assert json.loads(capsys.readouterr().out)["unit"] == "log rate ratio"
    assert main([*ask, "--design", "factorial", *factors, "--cluster", "none", "--draws", "99"]) == 0
    assert json.loads(capsys.readouterr().out)["n_units"] == 8
    wrongs = (
        (["--factors", "stress"], "expected NAME=TREATED/REFERENCE"),
        (factors[:2], "needs two --factors"),
        ([*factors, "--horizon", "4"], "take --horizon"),
    )
    for wrong, words in wrongs:
        assert main([*ask, "--design", "factorial", *wrong]) == 2
        assert words in capsys.readouterr().err
    assert main(["effect", str(tmp_path), "--design", "trials", "--mediator", "spikes"]) == 2
    assert "--design trials does not take --mediator" in capsys.readouterr().err
    assert main(["effect", "--design", "factorial", "--power"]) == 2
    assert main(["effect", "--design", "threshold"]) == 2
    assert "no stores were given: brainmu effect STORE… --design threshold\n" in capsys.readouterr().err
