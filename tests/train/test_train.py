"""Fine-tuning learns stages and not noise; pretraining resumes exactly and reports against baselines."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brainmu.config import load_config, resource_names
from brainmu.core import Hypnogram, Recording, metrics
from brainmu.errors import CheckpointError, ConfigError, InputError, MissingDataError, OutputExistsError
from brainmu.models import Encoder, EncoderConfig, StageModel
from brainmu.models.heads import Reconstruction
from brainmu.models.tokens import Hidden
from brainmu.train import FinetuneConfig, PretrainConfig, finetune, pretrain
from brainmu.train.objectives import MaskConfig, baselines, draw_masks, draw_spans, gist, gist_losses, losses
from brainmu.train.tasks import SummarySpans, _weight_of_others
from brainmu.windows import WindowGrid
from brainmu.windows.batch import Batch, Stream
from brainmu.windows.interpolation import interpolate
from brainmu.windows.spectra import N_FEATURES
from brainmu.windows.statistics import IDENTITY_SIZE

ENCODER = dict(width=32, heads=2, latents=4, window_layers=1, context_layers=1)
QUICK = dict(encoder=ENCODER, steps=45, span=48, batch=4, learning_rate=5e-3)
BRIEF = dict(encoder=ENCODER, steps=6, batch=8, context_steps=4, span=16, context_batch=2, save_every=3)


def animal(seed: int, epochs=150, rate=200.0, stages="rodent3", units=6, shuffle=False) -> Recording:
    """Slow waves in NREM, theta in REM, EMG by stage; an animal's gain and noise are its own."""
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.full(rng.integers(5, 15), c) for _ in range(20) for c in (0, 1, 1, 2)])[:epochs]
    t = np.arange(round(epochs * 4 * rate)) / rate
    by = np.repeat(codes, round(4 * rate))
    lfp = np.sin(2 * np.pi * 2.3 * t) * (by == 1) * 2 + np.sin(2 * np.pi * 7.4 * t) * np.array([0.7, 0.1, 1.5])[by] + rng.standard_normal(len(t))
    emg = rng.standard_normal(len(t)) * np.array([3.0, 1.0, 0.4])[by]
    rates = rng.lognormal(1, 0.5, (units, 3))
    counts = rng.poisson(rates[:, codes] * 4)
    times = np.concatenate([np.repeat(np.arange(epochs) * 4.0, c) + rng.uniform(0, 4, c.sum()) for c in counts])
    scored = rng.permutation(codes) if shuffle else codes
    names = {"rodent3": ["WAKE", "NREM", "REM"], "aasm5": ["W", "N2", "R"]}[stages]
    return Recording.from_arrays(
        f"s{seed}", f"m{seed}", "mouse",
        signals={"lfp": dict(values=(lfp * rng.uniform(20, 200))[:, None], rate=rate, unit="uV", kind="lfp"),
                 "emg": dict(values=(emg * rng.uniform(5, 50))[:, None], rate=rate, unit="uV", kind="emg")},
        spikes=dict(times=times, unit=np.repeat(np.arange(units), counts.sum(1))),
        labels={"scoring": Hypnogram.from_stages([names[c] for c in scored], epoch=4.0)},
    )  # fmt: skip


def kappa(model: StageModel, recordings: list[Recording]) -> float:
    total = sum(metrics.confusion(r.hypnogram().codes, model.predict_proba(r)[0].argmax(1), len(model.stages)) for r in recordings)
    return metrics.cohen_kappa(total)


class TestFinetune:
    def test_learns_stages_of_unseen_animals_and_nothing_from_shuffled_labels(self, tmp_path):
        tests = [animal(i) for i in (100, 101)]
        model = finetune([animal(i) for i in range(4)], config=QUICK, out=tmp_path / "m")
        assert kappa(model, tests) > 0.85
        assert "of 3 recordings of 3 subjects" in model.card and "of 1 recording of 1 subject" in model.card and model.history
        again = StageModel.load(tmp_path / "m")
        np.testing.assert_allclose(again.predict_proba(tests[0])[0], model.predict_proba(tests[0])[0], atol=1e-6)
        # One modality less at test time is still read.
        lone = [Recording(id=r.id, subject=r.subject, signals={"lfp": r.signals["lfp"]}, labels=r.labels) for r in tests]
        assert kappa(model, lone) > 0.4
        control = finetune([animal(i, shuffle=True) for i in range(4)], config=QUICK)
        assert abs(kappa(control, tests)) < 0.15

    def test_same_seed_same_weights_and_the_callers_random_state_is_left_alone(self):
        data = [animal(i, epochs=40) for i in range(2)]
        config = QUICK | dict(steps=3)
        torch.manual_seed(7)
        before = torch.random.get_rng_state()
        a, b, c = finetune(data, config=config), finetune(data, config=config), finetune(data, config=config, seed=1)
        assert torch.equal(before, torch.random.get_rng_state())
        x, y, z = (m.predict_proba(data[0])[0] for m in (a, b, c))
        np.testing.assert_array_equal(x, y)
        assert not np.allclose(x, z)

    @pytest.mark.parametrize("mode", ["probe", "context", "full"])
    def test_modes_train_what_they_say(self, mode):
        torch.manual_seed(0)
        encoder = Encoder(EncoderConfig(**ENCODER))
        before = {k: v.clone() for k, v in encoder.state_dict().items()}
        model = finetune([animal(0, epochs=40)], encoder=encoder, mode=mode, config=QUICK | dict(steps=2), causal=True)
        assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())
        moved = {k.split(".")[0] for k, v in model.encoder.state_dict().items() if not torch.equal(v, before[k])}
        assert moved == {"probe": set(), "context": {"context"}, "full": {"window", "summarise", "context"}}[mode]
        assert model.causal

    def test_causal_model_does_not_see_the_future(self):
        rec = animal(0, epochs=60)
        model = finetune([rec], config=QUICK | dict(steps=2), causal=True)
        grid = model.grid(rec)
        changed = np.array(rec.signals["lfp"].values)
        changed[40 * 800 :] *= -3
        other = Recording.from_arrays("x", signals={"lfp": dict(values=changed, rate=200.0, kind="lfp"), "emg": rec.signals["emg"]}, spikes=rec.spikes)
        a, b = model.predict_proba(rec)[0], model.predict_proba(other, statistics=grid.statistics)[0]
        np.testing.assert_allclose(a[:40], b[:40], atol=1e-6)
        assert np.abs(a[40:] - b[40:]).max() > 1e-4

    def test_features_a_window_and_five_stages(self):
        rng = np.random.default_rng(0)

        def night(seed: int) -> Recording:
            codes = np.repeat(rng.integers(0, 5, 40), 6)
            values = np.eye(5)[codes] @ np.random.default_rng(9).standard_normal((5, 8)) + 0.5 * rng.standard_normal((len(codes), 8))
            return Recording.from_arrays(f"n{seed}", f"h{seed}", signals={"bands": dict(values=values, rate=1 / 30, kind="features")},
                                         labels={"scoring": Hypnogram(codes.astype(np.int8), "aasm5", 30.0)})  # fmt: skip

        model = finetune([night(i) for i in range(3)], stages="aasm5", epoch=30.0, config=QUICK | dict(steps=40))
        assert kappa(model, [night(7)]) > 0.8

    def test_aasm_labels_serve_rodent_stages_and_not_the_other_way(self):
        data = [animal(i, epochs=40, stages="aasm5") for i in range(2)]
        assert finetune(data, config=QUICK | dict(steps=1)).stages == ("WAKE", "NREM", "REM")
        with pytest.raises(InputError, match="cannot be refined"):
            finetune([animal(0, epochs=40)], stages="aasm5", config=QUICK | dict(steps=1))

    def test_bad_input(self, tmp_path):
        rec = animal(0, epochs=40)
        for bad in (dict(task="replay"), dict(mode="half")):
            with pytest.raises(InputError):
                finetune([rec], **bad)
        with pytest.raises(MissingDataError, match="no hypnogram named 'expert'"):
            finetune([rec], labels="expert")
        with pytest.raises(InputError, match="no recordings"):
            finetune([])
        with pytest.raises(ConfigError, match="did you mean 'steps'"):
            finetune([rec], config={"stepss": 3})
        with pytest.raises(ConfigError, match="epoch is 0"):
            finetune([rec], epoch=0.0, config=QUICK)
        late = Recording.from_arrays("l", "l", signals=rec.signals, labels={"scoring": Hypnogram.from_stages(["WAKE", "NREM"], epoch=4.0, start=900.0)})
        with pytest.raises(MissingDataError, match="do not meet"):
            finetune([late], config=QUICK)
        flat = Recording.from_arrays("w", "w", signals=rec.signals, labels={"scoring": Hypnogram.from_stages(["WAKE"] * 40, epoch=4.0)})
        with pytest.raises(MissingDataError, match="only WAKE"):
            finetune([flat], config=QUICK)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "x").write_text("")
        with pytest.raises(OutputExistsError):
            finetune([rec], out=tmp_path / "full")


class TestObjectives:
    def batch(self):
        return WindowGrid(animal(0, epochs=40)).batch(slice(0, 32))

    def test_masks_are_repeatable_and_spare_a_stream(self):
        batch, c = self.batch(), MaskConfig(modality=1.0, time=0.0, channel=0.0, unit=0.0)
        a = draw_masks(batch, c, np.random.default_rng(0))
        spared = np.stack([~h.tokens.flatten(1).all(1).numpy() for h in a])
        assert (spared.sum(0) == 1).all() and (spared.sum(1) > 3).all()
        b = draw_masks(batch, c, np.random.default_rng(0))
        assert all(torch.equal(x.tokens, y.tokens) for x, y in zip(a, b))

    def test_hidden_parts_do_not_reach_the_model(self):
        torch.manual_seed(0)
        batch, encoder = self.batch(), Encoder(EncoderConfig(**ENCODER)).eval()
        hidden = draw_masks(batch, MaskConfig(), np.random.default_rng(1))
        with torch.no_grad():
            a = encoder.window(batch, hidden)[0]
            for s, h in zip(batch.streams, hidden):
                where = (h.tokens[:, None, :] | h.units[:, :, None]) if s.modality == "spikes" else h.tokens[..., None]
                s.values = torch.where(where, s.values + 5.0, s.values)
            b = encoder.window(batch, hidden)[0]
        assert torch.allclose(a, b, atol=1e-5)

    def test_baselines_by_hand(self):
        values = torch.tensor([[[1.0], [9.0], [3.0], [9.0]]])
        seen = torch.tensor([[True, False, True, False]])
        assert interpolate(values, seen)[0, :, 0].tolist() == [1, 2, 3, 3]
        assert interpolate(values, seen, "last")[0, :, 0].tolist() == [1, 1, 3, 3]
        assert interpolate(values, torch.zeros(1, 4, dtype=torch.bool)).abs().sum() == 0

    def test_a_perfect_answer_has_the_least_loss(self):
        torch.manual_seed(0)
        batch, encoder = self.batch(), Encoder(EncoderConfig(**ENCODER))
        hidden = draw_masks(batch, MaskConfig(), np.random.default_rng(1))
        made = Reconstruction(32, 2)(batch, encoder.window(batch, hidden)[0], encoder.window, hidden)
        for s, m in zip(batch.streams, made):
            assert m.values.shape == s.values.shape
            m.values = torch.log(s.values + 1e-6) if s.modality == "spikes" else s.values
        best, trivial = losses(batch, hidden, made), baselines(batch, hidden)
        assert best["spectrum"] == best["waveform"] == 0
        assert all(best[k] < row[k] for row in trivial.values() for k in best)

    def test_the_gist_by_hand(self):
        rows, no = torch.arange(1), torch.zeros(2, 4)
        field = torch.zeros(1, 2, 3, N_FEATURES)
        field[0, 0, :, 5] = torch.tensor([1.0, 3.0, 50.0])
        valid = torch.tensor([[[True, True, False], [False, False, False]]])
        value, where = gist(Stream("lfp", "field", rows, field, valid, no))
        assert value[0, 0, 5] == 2 and where.sum() == 1 and where[0, 0, 5]
        slow = torch.tensor([[[[0.0, 2.0], [4.0, 6.0], [99.0, 99.0]]]])
        value, where = gist(Stream("calcium", "slow", rows, slow, torch.tensor([[[True, True, False]]]), no))
        assert value[0, 0, 0] == 3 and value[0, 0, 1] == pytest.approx(np.log(5.01)) and bool(where.all())
        counts, bins = torch.tensor([[[4.0, 4.0, 100.0], [0.0, 0.0, 0.0]]]), torch.tensor([[True, True, False]])
        value, where = gist(Stream("spikes", "spikes", rows, counts, bins, no, expected=torch.tensor([1.5, 0.0])))
        assert value[0, :, 0].tolist() == [2.5, 0.0] and bool(where.all())

    def test_a_perfect_gist_costs_nothing_and_what_is_missing_does_not_count(self):
        batch = self.batch()
        made = [torch.where(where, value, torch.full_like(value, 7.0)) for value, where in map(gist, batch.streams)]
        assert all(v == 0 for v in gist_losses(batch, made).values())
        assert all(v > 0 for v in gist_losses(batch, [m + 1 for m in made]).values())

    def test_slow_traces_start_from_the_line_between_neighbours_and_never_from_what_is_hidden(self):
        torch.manual_seed(0)
        values = torch.randn(2, 3, 4, 8)
        stream = Stream("calcium", "slow", torch.arange(2), values, torch.ones(2, 3, 4, dtype=torch.bool), torch.randn(3, IDENTITY_SIZE["slow"]))
        batch, encoder, head = Batch(np.zeros(2), 4.0, np.zeros(2, dtype=np.int64), [stream]), Encoder(EncoderConfig(**ENCODER)), Reconstruction(32, 2)
        hidden = [Hidden(torch.rand(2, 3, 4) < 0.5)]
        with torch.no_grad():
            latents = encoder.window(batch, hidden)[0]
            a = head(batch, latents, encoder.window, hidden)[0].values
            head.slow.weight.zero_()
            head.slow.bias.zero_()
            line = head(batch, latents, encoder.window, hidden)[0].values
            stream.values = torch.where(hidden[0].tokens[..., None], 99.0, values)
            again = head(batch, latents, encoder.window, hidden)[0].values
        assert torch.allclose(line, interpolate(values, ~hidden[0].tokens) * torch.sigmoid(torch.tensor(2.0)))
        assert torch.equal(line, again) and not torch.allclose(a, line)

    def test_waveforms_come_first(self):
        for steps in (1, 3, 60, 4000):
            course = [_weight_of_others(i, steps) for i in range(steps)]
            assert course == sorted(course) and all(0 < w <= 1 for w in course)
            assert steps < 12 or (course[0] < 0.05 and course[steps // 2] == 1)

    def test_spans(self):
        rng = np.random.default_rng(0)
        for n in (2, 5, 400):
            hidden = draw_spans(n, 0.3, 32, rng)
            assert hidden.any() and not hidden.all()

    @pytest.mark.parametrize(
        "bad", [{"time": 1.1}, {"context": 1.5}, {"context": 0.0}, {"modality": -0.1}, {"unit": np.nan}, {"longest": 0.0}, {"longest": np.inf}]
    )
    def test_shares_that_cannot_be_are_refused(self, bad):
        with pytest.raises(ConfigError, match=f"masks: {next(iter(bad))} is"):
            MaskConfig(**bad)

    @pytest.mark.parametrize("window, longest", [(4.0, 32), (30.0, 4), (300.0, 1)])
    def test_runs_of_hidden_windows_last_as_long_whatever_the_window(self, window, longest):
        summaries = SummarySpans([(torch.zeros(4000, 2), torch.ones(4000, dtype=torch.bool))], MaskConfig(context=0.02), window, 0)
        hidden = summaries.stack([(0, 0, 4000)], 0)[2][0].numpy()
        edges = np.flatnonzero(np.diff(np.r_[0, hidden, 0]))
        runs = edges[1::2] - edges[::2]
        # Two runs may touch or overlap, which is rare at so small a share.
        assert 0.8 * longest <= np.quantile(runs, 0.9) <= longest


@pytest.fixture(scope="module")
def data() -> list[Recording]:
    return [animal(i, epochs=40) for i in range(3)]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    return pretrain(data, tmp_path_factory.mktemp("runs") / "whole", config=BRIEF, seed=3)


class TestPretrain:
    def test_checkpoint_report_and_log(self, whole):
        assert {"spectrum", "waveform", "spikes", "context"} <= set(whole.report)
        assert all({"model", "mean", "interpolation", "last"} <= set(row) for row in whole.report.values())
        assert whole.encoder.load_report.new == []
        rows = _rows(whole.path)
        assert [(r["stage"], int(r["step"])) for r in rows] == [("window", i) for i in range(1, 7)] + [("context", i) for i in range(1, 5)]
        card = (whole.path / "card.md").read_text()
        assert "Held out, and not trained on: 1 subject (m" in card and f"{whole.n_windows} held-out windows" in card and not whole.stopped
        assert whole.held_out in card and "the file 100,723 with the heads" in card and json.loads((whole.path / "report.json").read_text()) == whole.report

    def test_an_interrupted_run_resumes_to_the_same_weights(self, data, whole, tmp_path):
        class Interrupt(Exception):
            pass

        def progress(stage, fraction):
            if stage == "pretrain: window" and fraction > 0.7:
                raise Interrupt

        with pytest.raises(Interrupt):
            pretrain(data, tmp_path / "r", config=BRIEF, seed=3, progress=progress)
        run = pretrain(data, tmp_path / "r", config=BRIEF, seed=3, resume=True)
        a, b = load_file(whole.path / "model.safetensors"), load_file(run.path / "model.safetensors")
        assert all(torch.equal(a[k], b[k]) for k in a)
        assert [r["loss"] for r in _rows(whole.path)] == [r["loss"] for r in _rows(run.path)]

    def test_existing_folders(self, data, whole, tmp_path):
        with pytest.raises(OutputExistsError, match="resume"):
            pretrain(data, whole.path, config=BRIEF, seed=3)
        with pytest.raises(CheckpointError, match="another config or seed"):
            pretrain(data, whole.path, config=BRIEF, seed=4, resume=True)
        (tmp_path / "x").write_text("")
        with pytest.raises(CheckpointError, match="no run to resume"):
            pretrain(data, tmp_path, config=BRIEF, resume=True)

    def test_a_loss_that_is_not_finite_names_its_windows(self, data, tmp_path):
        with pytest.raises(InputError, match=r"not finite at step \d+ .* on s\d at"):
            pretrain(data, tmp_path / "n", config=BRIEF | dict(learning_rate=1e30))

    def test_a_pretrained_encoder_can_be_fine_tuned(self, data, whole):
        model = finetune(data, encoder=whole.path, config=QUICK | dict(steps=2))
        assert model.encoder.config == EncoderConfig(**ENCODER)


def _rows(path):
    with (path / "metrics.csv").open(newline="") as f:
        return list(csv.DictReader(f))


@pytest.mark.parametrize("name", [n for n in resource_names("configs") if n.startswith(("pretrain/", "finetune/"))])
def test_packaged_configs_parse(name):
    load_config(PretrainConfig if name.startswith("pretrain/") else FinetuneConfig, name)
