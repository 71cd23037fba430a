"""brainmu intervene and attribute from stores and a saved stager, end to end."""

import json

import pytest

import brainmu.store
from brainmu.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sessions, untrained):
    """Two stores of two animals, and a stage model that learned nothing."""
    out = tmp_path_factory.mktemp("explain")
    for name, session in (("m1", sessions[0]), ("m2", sessions[2])):
        brainmu.store.preprocess(session, out / f"{name}.zarr", lfp_rate=None)
    untrained.save(out / "model")
    return out


def test_intervene_prints_every_line_in_the_model(folder, capsys):
    stores = [str(folder / "m1.zarr"), str(folder / "m2.zarr")]
    args = ["--model", str(folder / "model"), "--events", "ripples", "--operation", "replace", "--placebos", "2", "--dose", "0.5", "1.0", "--quiet"]
    assert main(["intervene", *stores, *args]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) >= 6 and all("in the model" in x.lower() for x in lines) and "2 animals" in lines[0]
    out = folder / "effect.json"
    assert main(["intervene", stores[0], *args, "--content", "A", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["level"] == "model" and found["diagnostics"]["content"] == ["A"] and len(found["diagnostics"]["doses"]) == 2
    assert json.loads(out.read_text())["estimate"] == found["estimate"]
    assert main(["intervene", stores[0], *args, "--scale", "log_hazard"]) == 0
    said = capsys.readouterr().out
    assert "log hazard ratio" in said.splitlines()[0] + said.splitlines()[1] and "  probability:" in said and "  log_hazard:" not in said
    assert main(["intervene", stores[0], *args, "--risk", "scoring"]) != 0
    assert "scoring" in capsys.readouterr().err


def test_a_file_of_events_goes_with_one_store(folder, capsys):
    brainmu.store.open(folder / "m1.zarr").events("ripples").to_bids(folder / "m1_events.tsv")
    args = ["--model", str(folder / "model"), "--events", str(folder / "m1_events.tsv"), "--placebos", "1", "--quiet"]
    assert main(["intervene", str(folder / "m1.zarr"), *args]) == 0
    assert main(["intervene", str(folder / "m1.zarr"), str(folder / "m2.zarr"), *args]) == 2
    assert "name of an event label" in capsys.readouterr().err


def test_attribute_prints_its_verdict(folder, capsys):
    args = ["attribute", str(folder / "m1.zarr"), "--model", str(folder / "model"), "--target", "NREM", "--max-epochs", "4", "--quiet"]
    assert main([*args, "--method", "feature_ablation", "--control", str(folder / "model"), "--out", str(folder / "m.nc")]) == 0
    out = capsys.readouterr().out
    assert "checks failed: " in out and "shuffled labels 1.00" in out and "deletion" in out and (folder / "m.nc").is_file()
    assert main([*args, "--method", "feature_ablation", "--no-check", "--json"]) == 0
    assert "verdict" not in json.loads(capsys.readouterr().out)


def test_attribute_goes_on_after_it_was_cut_off(folder, capsys, monkeypatch):
    import brainmu.explain.runs as runs

    out = folder / "cut.nc"
    args = ["attribute", str(folder / "m1.zarr"), "--model", str(folder / "model"), "--target", "NREM", "--max-epochs", "16", "--quiet", "--no-check"]
    args += ["--method", "gradient_shap", "--baseline", "stage_mean", "--out", str(out)]
    assert main(args) == 3 or "takes no epoch for" in capsys.readouterr().err  # the untrained model takes every epoch for NREM
    args[args.index("stage_mean")] = "zero"
    done, one = [], runs._one

    def dies(*given, **more):
        if done:
            raise KeyboardInterrupt
        done.append(given[1])
        return one(*given, **more)

    monkeypatch.setattr(runs, "_one", dies)
    assert main(args) != 0
    assert (folder / "cut.nc.parts" / "map.0.npz").is_file() and not out.exists()
    monkeypatch.setattr(runs, "_one", lambda *given, **more: done.append(given[1]) or one(*given, **more))
    assert main([*args, "--rollout"]) == 0
    assert done == [0, 1] and out.is_file() and not (folder / "cut.nc.parts").exists()
    said = capsys.readouterr().out
    assert "not an attribution" in said and "baseline zero" in said and "of: log odds of the stager" in said


def test_an_encoder_without_a_head_is_refused_in_words(folder, capsys):
    for verb, more in (("attribute", ["--target", "NREM"]), ("intervene", ["--events", "ripples"])):
        assert main([verb, str(folder / "m1.zarr"), "--model", "brainmu-tiny", *more, "--quiet"]) == 1
        assert "expected a stager" in capsys.readouterr().err
