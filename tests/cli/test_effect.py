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
