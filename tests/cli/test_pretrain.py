"""What the command says while it trains."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import brainmu as bm
from brainmu.cli import main
from brainmu.cli.pretrain import _clock, _Status

SMALL = "encoder: {width: 16, heads: 2, latents: 2, window_layers: 1, context_layers: 1}\ncontext_steps: 2\nbatch: 8\n"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of one animal, 10 min."""
    path = tmp_path_factory.mktemp("pretrain") / "s.zarr"
    values = np.random.default_rng(0).standard_normal((60_000, 1))
    bm.preprocess(
        bm.Recording.from_arrays("s", "m1", "mouse", signals={"eeg": {"values": values, "rate": 100.0, "unit": "uV", "kind": "eeg"}}), path, lfp_rate=None
    )
    return path


def test_a_run_cut_short_says_so_and_what_it_was_measured_on(store, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(SMALL + "steps: 100000\n")
    args = ["pretrain", str(store), str(store), "--out", str(tmp_path / "runs" / "r"), "--config", str(tmp_path / "c.yaml"), "--max-minutes", "0.02"]
    assert main([*args, "--json"]) == 0
    out, err = capsys.readouterr()
    found, card = json.loads(out), (tmp_path / "runs" / "r" / "card.md").read_text()
    step = found["stopped"].split("step ")[1].split()[0]
    rows = [row.split(",") for row in (tmp_path / "runs" / "r" / "metrics.csv").read_text().splitlines()]
    assert max(int(row[1]) for row in rows if row[0] == "window") == int(step) < 100_000 and f"by --max-minutes at step {step} of 100000 (window)" in err
    assert f"at step {step} of 100000" in card and "on 1 recording of 1 subject (mouse)" in card
    assert "the last part" in found["held_out"] and "of m1, with a guard of 30 s" in found["held_out"] and found["held_out"] in card
    assert "comes twice" in err and "train longer" in err
    assert main(args) == 1 and "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["--out", "RUN"], 1, "holds an unfinished run: go on with it by --resume"),
        (["--out", "FILE"], 1, "is a file, expected a folder"),
        (["--out", "/proc/x"], 1, "no folder can be made"),
        (["--out", "new", "--config", "pretrain/tny"], 1, "no config of that name: did you mean 'pretrain/tiny'? Packaged are pretrain/base"),
        (["--out", "new", "--config", "absent.yaml"], 1, "absent.yaml: no such file"),
        (["--out", "new", "--max-minutes", "0"], 2, "--max-minutes 0"),
    ],
)
def test_refuses_before_recordings_are_read(tmp_path, monkeypatch, capsys, args, status, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "resume").mkdir(parents=True)
    (tmp_path / "run" / "resume" / "run.json").write_text("{}")
    (tmp_path / "run" / "resume" / "window.ckpt").write_bytes(b"")
    (tmp_path / "file").write_text("")
    args = [{"RUN": "run", "FILE": "file"}.get(a, a) for a in args]
    assert main(["pretrain", "no_such_store.zarr", *args]) == status
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and sorted(p.name for p in tmp_path.iterdir()) == ["file", "run"]


@pytest.mark.slow
def test_an_interrupt_ends_it_with_a_word(store, tmp_path):
    (tmp_path / "c.yaml").write_text(SMALL + "steps: 100000\n")
    command = [sys.executable, "-m", "brainmu", "pretrain", str(store), "--out", str(tmp_path / "r"), "--config", str(tmp_path / "c.yaml")]
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, as in a shell's background jobs, it would be ignored there too
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, heard)
    while not (tmp_path / "r" / "metrics.csv").exists() and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in err


class TestStatus:
    def test_says_the_hours_seen_and_the_time_left(self):
        told = []
        status = _Status(lambda text, fraction: told.append((text, fraction)), every=0.0)
        status("pretrain: window", 0.25)  # a resumed run begins part of the way
        status.log({"stage": "window", "hours": 12.34})
        status("pretrain: window", 0.5)
        status("pretrain: encode", 0.5)
        assert told[0] == ("window", 0.25)
        assert told[1][0].startswith("window, 12.3 h of recording seen, 0:00:0") and told[1][0].endswith(" left")
        assert told[2] == ("encode", 0.5)

    def test_changes_its_text_seldom_where_every_text_is_a_line(self):
        texts = set()
        status = _Status(lambda text, fraction: texts.add(text), every=30.0)
        for i in range(100):
            status.log({"stage": "window", "hours": float(i)})
            status("pretrain: window", i / 100)
        assert texts == {"window"}

    def test_says_the_hours_at_the_end_of_a_stage_however_short(self):
        told = []
        status = _Status(lambda text, fraction: told.append((text, fraction)), every=30.0)
        for i in range(4):
            status.log({"stage": "window", "hours": 1.0 + i})
            status("pretrain: window", i / 6)  # ended early, by --max-minutes
        status("pretrain: encode", 1.0)
        for i in range(4):
            status.log({"stage": "context", "hours": 2.0 + i})
            status("pretrain: context", (i + 1) / 4)
        assert ("window, 4.0 h of recording seen", 0.5) in told and told[-1] == ("context, 5.0 h of recording seen", 1.0)

    def test_clock(self):
        assert [_clock(s) for s in (0.4, 61, 36_125)] == ["0:00:00", "0:01:01", "10:02:05"]
