"""Pretraining that is killed goes on exactly, several processes train as one, and what is not finite stops with its place named."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brainmu.core import Recording
from brainmu.errors import CheckpointError, ConfigError, InputError, MissingDataError, OutputExistsError, StoreError
from brainmu.train import PretrainConfig, pretrain
from brainmu.train.engine import Engine

ENCODER = dict(width=16, heads=2, latents=2, window_layers=1, context_layers=1)
BRIEF = dict(encoder=ENCODER, steps=12, batch=8, context_steps=6, span=16, context_batch=2, save_every=4)
ALONE = dict(OMP_NUM_THREADS="1", PYTHONWARNINGS="default")

SCRIPT = """
import json, sys, time
from brainmu.train import pretrain
{recordings}

if __name__ == "__main__":
    out, given, slow = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])
    pretrain(recordings(), out, seed=3, on_log=lambda row: time.sleep(slow), **given)
"""

RECORDINGS = '''
import numpy as np
from brainmu.core import Recording

def recordings():
    """Three animals; the last one has no spikes, so that batches differ in their modalities."""
    out = []
    for i in range(3):
        rng = np.random.default_rng(i)
        x = rng.standard_normal((24_000, 2)) * 40
        spikes = None if i == 2 else dict(times=np.sort(rng.uniform(0, 240, 3000)), unit=rng.integers(0, 5, 3000))
        out.append(Recording.from_arrays(f"s{i}", f"m{i}", "mouse", signals={"lfp": dict(values=x, rate=100.0, unit="uV", kind="lfp")}, spikes=spikes))
    return out
'''
exec(RECORDINGS)


@pytest.fixture(scope="module")
def data() -> list[Recording]:
    return recordings()  # noqa: F821


def rows(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open(newline="") as f:
        return list(csv.DictReader(f))


def losses(path: Path) -> list[tuple[str, ...]]:
    """What of the log must not depend on the machine or on interruptions."""
    keys = ("stage", "step", "loss", "spectrum", "waveform", "spikes", "summary_spectrum", "context", "learning_rate", "gradient_norm", "hours")
    return [tuple(r[k] for k in keys) for r in rows(path)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def start(folder: Path, out: Path, slow: float = 0.0, env: dict[str, str] | None = None, **given) -> subprocess.Popen[str]:
    """Pretraining in a process of its own."""
    script = folder / "train.py"
    script.write_text(SCRIPT.format(recordings=RECORDINGS))
    return subprocess.Popen(
        [sys.executable, str(script), str(out), json.dumps(given), str(slow)],
        env=os.environ | ALONE | (env or {}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(folder: Path, out: Path, **given) -> Path:
    process = start(folder, out, **given)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return out


def wait_for_rows(path: Path, n: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not (path / "metrics.csv").is_file() or len((path / "metrics.csv").read_text().splitlines()) < n + 1:
        assert process.poll() is None and time.monotonic() < end, process.communicate()[1]
        time.sleep(0.02)


@pytest.mark.slow
class TestKilled:
    """Training killed by SIGKILL, in either stage, also in the middle of adding gradients up, and resumed."""

    @pytest.mark.parametrize(("accumulate", "after"), [(1, 6), (2, 7), (1, 15)])
    def test_the_resumed_run_equals_the_uninterrupted_one(self, data, tmp_path, accumulate, after):
        config = BRIEF | dict(accumulate=accumulate, ema=0.9)
        whole = pretrain(data, tmp_path / "whole", config=config, seed=3)
        process = start(tmp_path, tmp_path / "killed", slow=0.15, config=config)
        wait_for_rows(tmp_path / "killed", after, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL and not (tmp_path / "killed" / "model.safetensors").exists()
        run(tmp_path, tmp_path / "killed", config=config, resume=True)
        assert losses(tmp_path / "killed") == losses(whole.path)
        a, b = weights(whole.path), weights(tmp_path / "killed")
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

    def test_slurms_signal_saves_a_whole_step_and_asks_to_be_requeued(self, data, tmp_path):
        bin = tmp_path / "bin"
        bin.mkdir()
        (bin / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
        (bin / "scontrol").chmod(0o755)
        slurm = dict(SLURM_JOB_ID="4711", SLURM_NTASKS="1", SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_NODEID="0", SLURM_JOB_NAME="brainmu",
                     SLURM_NODELIST="localhost", SLURM_NTASKS_PER_NODE="1", PATH=f"{bin}:{os.environ['PATH']}")  # fmt: skip
        config = BRIEF | dict(accumulate=2, save_every=1000)
        whole = pretrain(data, tmp_path / "whole", config=config, seed=3)
        process = start(tmp_path, tmp_path / "r", slow=0.15, env=slurm, config=config, resume=True)
        wait_for_rows(tmp_path / "r", 5, process)
        process.send_signal(signal.SIGUSR1)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 75, errors
        assert (tmp_path / "asked").read_text() == "requeue 4711\n"
        saved = torch.load(tmp_path / "r" / "resume" / "window.ckpt", weights_only=False)["global_step"]
        assert 5 <= saved < 12 and len(rows(tmp_path / "r")) == saved
        process = start(tmp_path, tmp_path / "r", env=slurm, config=config, resume=True)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert losses(tmp_path / "r") == losses(whole.path)


@pytest.mark.slow
class TestTwoProcesses:
    """Two processes that talk over gloo. Dropout is off: which elements it drops depends on how windows are shared out.

    Sums over two halves round otherwise than one sum, and Adam divides by the root of what may be near zero: so losses agree to
    1e-4 after twelve steps, not to the last bit.
    """

    config = BRIEF | dict(encoder=ENCODER | dict(dropout=0.0))

    @pytest.mark.parametrize("strategy", ["auto", "fsdp"])
    def test_losses_and_weights_are_those_of_one_process(self, data, tmp_path, strategy):
        one = pretrain(data, tmp_path / "one", config=self.config, seed=3)
        two = run(tmp_path, tmp_path / "two", config=self.config, devices=2, strategy=strategy)
        a, b = rows(one.path), rows(two)
        assert [(r["stage"], r["step"], r["hours"], r["learning_rate"]) for r in a] == [(r["stage"], r["step"], r["hours"], r["learning_rate"]) for r in b]
        for k in ("loss", "spectrum", "waveform", "spikes", "summary_spikes", "context"):
            assert [r[k] == "" for r in a] == [r[k] == "" for r in b]
            x, y = ([float(r[k]) for r in t if r[k]] for t in (a, b))
            np.testing.assert_allclose(x, y, rtol=1e-4, err_msg=k)
        np.testing.assert_allclose([float(r["gradient_norm"]) for r in a], [float(r["gradient_norm"]) for r in b], rtol=2e-3)
        x, y = weights(one.path), weights(two)
        assert x.keys() == y.keys()
        difference = torch.cat([(x[k] - y[k]).abs().flatten() for k in x])
        # Where a gradient is all but zero Adam still takes a whole step, whose sign rounding decides.
        assert (difference < 1e-4).float().mean() > 0.97
        report = json.loads((two / "report.json").read_text())
        assert {t: pytest.approx(v["model"], rel=1e-3) for t, v in one.report.items()} == {t: v["model"] for t, v in report.items()}

    @pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
    def test_they_resume_exactly(self, tmp_path, strategy):
        config = self.config | dict(encoder=ENCODER, accumulate=2, steps=6, context_steps=2, save_every=2)
        whole = run(tmp_path, tmp_path / "whole", config=config, devices=2, strategy=strategy)
        process = start(tmp_path, tmp_path / "killed", slow=0.3, config=config, devices=2, strategy=strategy)
        wait_for_rows(tmp_path / "killed", 3, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        run(tmp_path, tmp_path / "killed", config=config, devices=2, strategy=strategy, resume=True)
        assert losses(tmp_path / "killed") == losses(whole)
        a, b = weights(whole), weights(tmp_path / "killed")
        assert all(torch.equal(a[k], b[k]) for k in a)

    def test_a_loss_that_is_not_finite_in_one_stops_both(self, tmp_path):
        script = SCRIPT.format(recordings=RECORDINGS).replace("    pretrain(", PLANT + "    pretrain(")
        (tmp_path / "train.py").write_text(script)
        given = json.dumps(dict(config=self.config, devices=2))
        process = subprocess.run([sys.executable, str(tmp_path / "train.py"), str(tmp_path / "n"), given, "0"], env=os.environ | ALONE, capture_output=True,
                                 text=True, timeout=120, check=False)  # fmt: skip
        assert process.returncode != 0
        assert "signal lfp, modality field: not finite itself" in process.stderr


PLANT = """    from brainmu.windows.grid import WindowGrid
    whole = WindowGrid.batch
    def planted(self, index, session=0):
        batch = whole(self, index, session)
        if 7 in list(index):
            batch.streams[0].values[list(index).index(7)] = float("inf")
        return batch
    WindowGrid.batch = planted
"""


def engine(data, folder: Path, **changes) -> Engine:
    (folder / "resume").mkdir(parents=True)
    c = PretrainConfig(**{"encoder": _encoder(), **{k: v for k, v in BRIEF.items() if k != "encoder"}, **changes})
    return Engine(data, folder, c, 3, 1, "auto", None)


def _encoder():
    from brainmu.models import EncoderConfig

    return EncoderConfig(**ENCODER)


class TestNotFinite:
    @pytest.mark.parametrize(("stream", "words"), [(0, "signal lfp, modality field"), (1, "signal spikes, modality spikes")])
    def test_a_planted_infinity_is_named_and_the_checkpoint_before_it_is_good(self, data, tmp_path, stream, words):
        e = engine([data[0], data[1]], tmp_path / "r", save_every=1)
        grid = e.grids[0]
        grid.batch([0])
        bad = 40
        grid._cached[stream].values[bad] = torch.inf
        with pytest.raises(InputError, match=rf"loss is not finite at step \d+ .* on {grid.recording.id} at {grid.times[bad]:.1f} s \({words}") as error:
            e.train_windows(None)
        assert " at " in str(error.value) and str(error.value).count("signal") == 1
        kept = e.folder / "resume" / "window.ckpt"
        if kept.is_file():  # the window may be met in the first batch
            assert all(torch.isfinite(v).all() for v in torch.load(kept, weights_only=False)["state_dict"].values())

    def test_infinite_samples_of_a_recording_are_missing_and_do_no_harm(self, data, tmp_path):
        x = np.array(data[0].signals["lfp"].values)
        x[5000:5050, 1] = np.inf
        bad = Recording.from_arrays("s0", "m0", "mouse", signals={"lfp": dict(values=x, rate=100.0, unit="uV", kind="lfp")})
        e = engine([bad, data[1]], tmp_path / "r")
        task = e.train_windows(None)
        assert all(torch.isfinite(p).all() for p in task.parameters())

    def test_a_gradient_that_is_not_finite_is_found_before_the_step(self, data, tmp_path):
        e = engine(data, tmp_path / "r")
        before = e.window_task.summarise.weight.detach().clone()
        e.window_task.summarise.weight.register_hook(lambda g: g * torch.nan)
        with pytest.raises(InputError, match=r"gradient is not finite at step 0 \(of summarise.weight\) on s\d at \d+"):
            e.train_windows(None)
        assert torch.equal(before, e.window_task.summarise.weight)

    def test_weights_that_ran_away_do_not_replace_the_checkpoint(self, data, tmp_path):
        e = engine(data, tmp_path / "r", save_every=1)

        def run_away(row):
            if row["step"] == 3:
                e.window_task.summarise.weight.data[0, 0] = torch.inf

        e.on_log = run_away
        with pytest.raises(InputError, match="weights are not finite after step 3"):
            e.train_windows(None)
        kept = torch.load(e.folder / "resume" / "window.ckpt", weights_only=False)
        assert kept["global_step"] == 2 and all(torch.isfinite(v).all() for v in kept["state_dict"].values())


class TestInterrupts:
    @pytest.mark.parametrize(("number", "error", "status"), [(signal.SIGINT, KeyboardInterrupt, None), (signal.SIGTERM, SystemExit, 143)])
    def test_they_are_told_from_success_and_the_run_goes_on_exactly(self, data, tmp_path, number, error, status):
        before = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background may have lost
        try:
            with pytest.raises(error) as stop:
                pretrain(data, tmp_path / "r", config=BRIEF, seed=3, on_log=lambda row: os.kill(os.getpid(), number) if row["step"] == 6 else None)
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        finally:
            signal.signal(signal.SIGINT, before)
        assert status is None or stop.value.code == status
        assert not (tmp_path / "r" / "model.safetensors").exists()
        assert losses(pretrain(data, tmp_path / "r", config=BRIEF, seed=3, resume=True).path) == losses(
            pretrain(data, tmp_path / "whole", config=BRIEF, seed=3).path
        )


class TestClaim:
    def test_a_run_that_failed_before_its_first_checkpoint_keeps_nobody_out(self, data, tmp_path):
        gone = Recording.from_arrays("g", "g", "mouse", signals={"lfp": dict(values=np.full((24_000, 1), np.nan), rate=100.0, unit="uV", kind="lfp")})
        with pytest.raises(MissingDataError):
            pretrain([gone], tmp_path / "r", config=BRIEF)
        pretrain(data, tmp_path / "r", config=BRIEF | dict(steps=1, context_steps=1))

    def test_a_file_or_a_folder_that_cannot_be_is_named(self, data, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(OutputExistsError, match="is a file"):
            pretrain(data, tmp_path / "file", config=BRIEF)
        with pytest.raises(StoreError, match="file lies where a folder should be"):
            pretrain(data, tmp_path / "file" / "r", config=BRIEF)
        assert (tmp_path / "file").read_text() == "mine"

    def test_damage_is_named(self, data, tmp_path):
        out = pretrain(data, tmp_path / "r", config=BRIEF | dict(steps=2, context_steps=2)).path
        kept = out / "resume" / "window.ckpt"
        whole = kept.read_bytes()
        for damaged in (whole[: len(whole) // 2], b""):
            kept.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=r"window\.ckpt: damaged"):
                pretrain(data, out, config=BRIEF | dict(steps=2, context_steps=2), resume=True)
        kept.write_bytes(whole)
        (out / "resume" / "run.json").write_text('{"seed": 3')
        with pytest.raises(CheckpointError, match=r"run\.json: damaged"):
            pretrain(data, out, config=BRIEF | dict(steps=2, context_steps=2), resume=True)

    def test_recordings_in_another_order(self, data, tmp_path):
        c = BRIEF | dict(steps=1, context_steps=1)
        out = pretrain(data, tmp_path / "r", config=c).path
        with pytest.raises(CheckpointError, match="another order"):
            pretrain(data[::-1], out, config=c, resume=True)


class TestNothingToLearnFrom:
    def test_batches_of_windows_without_data_are_passed_over(self, data, tmp_path):
        out = []
        for r in data[:2]:
            x = np.array(r.signals["lfp"].values)
            x[2_000:22_000] = np.nan
            out.append(Recording.from_arrays(r.id, r.subject, "mouse", signals={"lfp": dict(values=x, rate=100.0, unit="uV", kind="lfp")}))
        found = rows(pretrain(out, tmp_path / "r", config=BRIEF | dict(batch=2), seed=3).path)
        assert all(np.isfinite(float(r["loss"])) for r in found)
        assert any(float(r["loss"]) == 0 for r in found if r["stage"] == "window")  # one such batch at least was drawn

    def test_a_context_that_was_asked_nothing_has_no_score(self, data, tmp_path):
        brief = []
        for r in data:
            lfp = dict(values=r.signals["lfp"].values[:500], rate=100.0, unit="uV", kind="lfp")
            brief.append(Recording.from_arrays(r.id, r.subject, signals={"lfp": lfp}))
        run = pretrain(brief, tmp_path / "r", config=BRIEF | dict(steps=1, context_steps=1))
        assert "context" not in run.report and "spectrum" in run.report


@pytest.mark.parametrize(
    "wrong",
    [dict(steps=-1), dict(span=0), dict(context_batch=0), dict(learning_rate=np.nan), dict(learning_rate=-1.0), dict(weight_decay=-1.0), dict(precision="fp32"),
     dict(encoder=dict(heads=0)), dict(encoder=dict(width=0)), dict(encoder=dict(latents=0)), dict(encoder=dict(kernel=0)),
     dict(encoder=dict(dropout=1.0)), dict(encoder=dict(patch=1e-4)), dict(encoder=dict(context_layers=-1))],
)  # fmt: skip
def test_impossible_settings_are_named_before_any_work(data, tmp_path, wrong):
    name = next(iter(wrong.get("encoder", wrong)))
    with pytest.raises(ConfigError, match=name):
        pretrain(data, tmp_path / "r", config=BRIEF | wrong)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("wrong", [dict(seed=-1), dict(seed=1.5), dict(seed=None), dict(max_minutes=-1.0), dict(max_minutes=np.nan), dict(sessions="m1.zarr")])
def test_impossible_arguments_are_named(data, tmp_path, wrong):
    with pytest.raises(InputError, match="recording" if "sessions" in wrong else next(iter(wrong))):
        pretrain(**dict(sessions=data, out=tmp_path / "r", config=BRIEF) | wrong)


class TestLog:
    def test_a_row_a_step_with_what_it_was(self, data, tmp_path):
        seen = []
        run = pretrain(data, tmp_path / "r", config=BRIEF | dict(accumulate=3, tensorboard=False), seed=3, on_log=seen.append)
        table = rows(run.path)
        assert [(r["stage"], int(r["step"])) for r in table] == [("window", i) for i in range(1, 13)] + [("context", i) for i in range(1, 7)]
        assert [r["stage"] for r in seen] == [r["stage"] for r in table] and seen[0]["loss"] == float(table[0]["loss"])
        for r in table:
            assert float(r["tokens_per_s"]) > 0 and float(r["tflops_per_s"]) > 0 and 0.01 < float(r["memory_gb"]) < 100 and 0 <= float(r["stall"]) <= 1
            assert r["mfu"] == "" and float(r["gradient_norm"]) > 0
        assert float(table[11]["hours"]) == pytest.approx(12 * 3 * 8 * 4 / 3600, abs=1e-4)

    def test_tensorboard_events(self, data, tmp_path):
        pytest.importorskip("tensorboardX")
        from tensorboardX.proto.event_pb2 import Event

        run = pretrain(data, tmp_path / "r", config=BRIEF | dict(tensorboard=True), seed=3)
        (file,) = (run.path / "tensorboard" / "window").glob("events*")
        raw, found = file.read_bytes(), []
        while raw:
            n = int.from_bytes(raw[:8], "little")
            event = Event.FromString(raw[12 : 12 + n])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            raw = raw[16 + n :]
        losses = [(s, v) for s, tag, v in found if tag == "loss"]
        np.testing.assert_allclose([v for _, v in losses], [float(r["loss"]) for r in rows(run.path) if r["stage"] == "window"], rtol=1e-6)
        assert {"tokens_per_s", "hours", "stall", "memory_gb", "spectrum", "learning_rate"} <= {tag for _, tag, _ in found}

    def test_events_asked_for_without_a_writer_are_an_error(self, data, tmp_path, monkeypatch):
        monkeypatch.setattr("brainmu.train.logs.find_spec", lambda name: None)
        with pytest.raises(ConfigError, match="pip install tensorboardX"):
            pretrain(data, tmp_path / "r", config=BRIEF | dict(tensorboard=True))


class TestSettings:
    def test_averaged_weights_are_the_recursion_by_hand(self, data, tmp_path):
        e = engine(data, tmp_path / "r", steps=3, ema=0.999)
        history = [e.window_task.summarise.weight.detach().clone()]
        e.on_log = lambda row: history.append(e.window_task.summarise.weight.detach().clone())
        found = e.train_windows(None).summarise.weight
        average = history[0]
        for n, w in enumerate(history[1:], 1):
            decay = min(0.999, (1 + n) / (10 + n))
            average = decay * average + (1 - decay) * w
        torch.testing.assert_close(found.detach(), average)
        assert not torch.equal(found, history[-1])

    def test_clip_and_warm_up(self, data, tmp_path):
        slow = pretrain(data, tmp_path / "a", config=BRIEF | dict(warm_up=0.5, clip=0.0), seed=3)
        rates = [float(r["learning_rate"]) for r in rows(slow.path) if r["stage"] == "window"]
        assert int(np.argmax(rates)) == 5 and rates[0] < rates[4]
        for steps in range(20, 100_000, 20):
            assert int(steps * 0.05) == steps // 20

    def test_a_checkpoint_after_minutes(self, data, tmp_path):
        e = engine(data, tmp_path / "r", save_every=10**6, save_minutes=1e-6)
        kept = e.folder / "resume" / "window.ckpt"
        there = []
        e.on_log = lambda row: there.append(kept.exists())
        e.train_windows(None)
        assert there == [False] + [True] * 11

    def test_resumed_with_other_savings_and_begun_before_settings_existed(self, data, tmp_path):
        pretrain(data, tmp_path / "r", config=BRIEF, seed=3)
        note = tmp_path / "r" / "resume" / "run.json"
        old = {k: v for k, v in json.loads(note.read_text()).items() if k not in ("clip", "warm_up", "ema")} | {"save_every": 4}
        del old["masks"]["longest"]
        note.write_text(json.dumps(old, sort_keys=True))
        pretrain(data, tmp_path / "r", config=BRIEF | dict(save_every=5, save_minutes=None, tensorboard=False), seed=3, resume=True)
        with pytest.raises(CheckpointError, match="another config"):
            pretrain(data, tmp_path / "r", config=BRIEF | dict(clip=2.0), seed=3, resume=True)
        with pytest.raises(CheckpointError, match="other: masks"):
            pretrain(data, tmp_path / "r", config=BRIEF | dict(masks=dict(longest=64.0)), seed=3, resume=True)

    @pytest.mark.parametrize("bad", ["clip: -1.0", "warm_up: 1.0", "ema: 1.0", "save_minutes: 0.0", "workers: -1", "accumulate: 0", "batch: 0"])
    def test_bad_settings(self, data, bad):
        key, value = bad.split(": ")
        with pytest.raises(ConfigError, match=f"{key} is {value}"):
            pretrain(data, "unused", config=BRIEF | {key: float(value) if "." in value else int(value)})

    def test_bad_processes_and_weights(self, data, tmp_path):
        for bad in (dict(devices=0), dict(nodes=0), dict(strategy="fsdp", config=BRIEF | dict(ema=0.9)), dict(strategy="deepspeed_stage_2")):
            with pytest.raises(ConfigError):
                pretrain(data, tmp_path / "x", **{"config": BRIEF, **bad})
        with pytest.raises(ConfigError, match="did you mean 'fsdp'"):
            pretrain(data, tmp_path / "x", config=BRIEF, strategy="fspd")
        assert not (tmp_path / "x").exists()
        with pytest.raises(InputError, match="2 weights came for 3"):
            pretrain(data, tmp_path / "y", config=BRIEF, weights=[1.0, 2.0])

    def test_weights_choose_recordings(self, data, tmp_path):
        names = [r.id for r in data]
        e = Engine(data, tmp_path, PretrainConfig(encoder=_encoder()), 3, 1, "auto", None, weights=dict(zip(names, (0.0, 1.0, 1.0))))
        assert [w for w, g in zip(e.weights, e.grids) if g.recording.id == "s0"] in ([0.0], [])
        parts = Engine([data[0]], tmp_path, PretrainConfig(encoder=_encoder()), 3, 1, "auto", None, weights={"s0": 2.0})
        assert parts.weights == [2.0]

    def test_workers_make_the_same_batches(self, data, tmp_path):
        a = pretrain(data, tmp_path / "a", config=BRIEF | dict(steps=5), seed=3)
        b = pretrain(data, tmp_path / "b", config=BRIEF | dict(steps=5, workers=2), seed=3)
        assert losses(a.path) == losses(b.path)
