"""What every verb shares: quick help, exit statuses, one-line errors, nothing but results on stdout."""

import json
import subprocess
import sys

import pytest

from brainmu.cli import VERBS, main


def run(*args, **kw):
    return subprocess.run([sys.executable, "-m", "brainmu", *map(str, args)], capture_output=True, text=True, check=False, **kw)


def test_help_lists_every_verb_and_imports_nothing_heavy():
    code = "import sys; from brainmu.cli import main; main(['--help']); print(sorted({'numpy','pandas','torch','xarray','mne'} & set(sys.modules)))"
    p = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(v in p.stdout for v in VERBS) and p.stdout.strip().endswith("[]")


def test_import_brainmu_imports_nothing_heavy():
    code = "import sys, brainmu; print(sorted({'numpy','pandas','torch','xarray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_teaches(verb, capsys):
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert "For example" in out and f"brainmu {verb}" in out and "--json" in out and "--debug" in out


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["frobnicate"], 2, "no verb 'frobnicate'"),
        (["prepocess"], 2, "did you mean 'preprocess'"),
        (["info"], 2, "see brainmu info --help"),
        (["events", "x.zarr", "--kind", "riple", "--out", "y.tsv"], 2, "riple"),
        (["replay", "x.zarr"], 2, "--out FILE.tsv"),
        (["info", "absent.nwb"], 1, "absent.nwb"),
        (["preprocess", "absent", "--out", "a.zarr"], 1, "absent"),
        (["stage", "absent.zarr", "--out", "a.tsv"], 1, "absent.zarr"),
        (["report", "absent.zarr", "--out", "a.html"], 1, "absent.zarr"),
    ],
)
def test_errors_are_one_line_on_stderr(tmp_path, monkeypatch, capsys, args, status, says):
    monkeypatch.chdir(tmp_path)
    assert main([*args, "--quiet"]) == status
    out, err = capsys.readouterr()
    assert out == "" and says in err and err.strip().count("\n") == 0 and err.startswith("brainmu: ")
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(tmp_path):
    assert "Traceback" in run("info", tmp_path / "absent.nwb", "--debug").stderr
    assert "Traceback" not in run("info", tmp_path / "absent.nwb").stderr


def test_json_is_one_object(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    p = run("info", tmp_path, "--write-manifest", "--json")
    assert p.returncode == 0 and "brainmu.yaml" in json.loads(p.stdout)["manifest"]


def test_version():
    import brainmu

    assert run("--version").stdout.strip() == brainmu.__version__
