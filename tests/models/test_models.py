"""Encoder, stage model, door and checkpoints: invariances, causality, completeness, strict loading."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from brainmu.core import Recording
from brainmu.errors import CheckpointError, ConfigError, InputError, MissingDataError, NotFoundError, OutputExistsError
from brainmu.models import Encoder, EncoderConfig, StageModel, load_encoder
from brainmu.models.checkpoint import fit_weights
from brainmu.models.context_encoder import ContextEncoder
from brainmu.models.stage_model import StageConfig
from brainmu.models.tokens import Hidden
from brainmu.windows import WindowGrid, collate
from brainmu.windows.spectra import N_BANDS

SMALL = EncoderConfig(width=32, heads=2, latents=4, window_layers=1, context_layers=1)


def recording(name="a", seconds=80.0, rate=250.0, units=4, seed=0, **more) -> Recording:
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    signals = {"lfp": dict(values=np.cumsum(rng.standard_normal((n, 3)), 0) * 0.1 + rng.standard_normal((n, 3)), rate=rate, unit="uV", kind="lfp")}
    signals["emg"] = dict(values=rng.standard_normal((n, 1)), rate=rate, unit="uV", kind="emg")
    k = round(seconds * 10)
    spikes = dict(times=np.sort(rng.uniform(0, seconds, k)), unit=rng.integers(0, units, k)) if units else None
    return Recording.from_arrays(name, "m1", "mouse", signals=signals | more, spikes=spikes)


@pytest.fixture(scope="module")
def model() -> StageModel:
    torch.manual_seed(0)
    return StageModel(StageConfig(), Encoder(SMALL)).eval()


@pytest.fixture(scope="module")
def rec() -> Recording:
    return recording()


class TestContextMask:
    """Which windows the context encoder reads."""

    N = 40

    @staticmethod
    def run(encoder: ContextEncoder, x: torch.Tensor, present: torch.Tensor | None) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Context, and gradients of all weights from that of windows with data."""
        encoder.zero_grad()
        out = encoder(x, torch.arange(x.shape[1], dtype=torch.float64)[None] * 4, present)
        (out if present is None else out[present.expand(out.shape[:2])]).square().sum().backward()
        return out.detach(), [torch.zeros_like(p) if p.grad is None else p.grad for p in encoder.parameters()]

    @pytest.fixture
    def encoder(self) -> ContextEncoder:
        torch.manual_seed(0)
        return ContextEncoder(16, 2, 2)

    @pytest.fixture
    def spans(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Summaries of spans with many windows with data, few, one, and none."""
        g = torch.Generator().manual_seed(1)
        present = torch.rand(4, self.N, generator=g) < torch.tensor([0.7, 0.3, 0.0, 0.0])[:, None]
        present[2, 7] = True
        return torch.randn(4, self.N, 16, generator=g), present

    def test_it_is_a_mask_of_the_windows_with_data(self, encoder, spans):
        """The same attention with all windows as keys, those without data masked, told block by block."""
        x, present = spans
        x, present = x[:3], present[:3]
        out, _ = self.run(encoder, x, present)
        y = torch.where(present[..., None], encoder.enter(x), encoder.missing)
        at = encoder.rotary(torch.arange(self.N, dtype=torch.float64)[None] * 4)
        for local, block in zip(encoder.locals, encoder.blocks):
            y = block(local(y), at, mask=present[:, None, None, :])
        assert torch.allclose(out, encoder.norm(y), atol=1e-5)

    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("there", ["some", "all", "none"])
    def test_asked_windows_are_told_what_they_would_be_among_all(self, encoder, spans, causal, there):
        encoder.causal, (x, present) = causal, spans
        for local in encoder.locals:
            local.causal = causal
        present = {"some": present, "all": torch.ones_like(present), "none": torch.zeros_like(present)}[there]
        asked = torch.rand(present.shape, generator=torch.Generator().manual_seed(2)) < 0.4
        asked[1] = False
        time = torch.arange(self.N, dtype=torch.float64)[None] * 4
        told = []
        for wanted in (None, asked):
            encoder.zero_grad()
            out = encoder(x, time, present, asked=wanted)
            out[asked].square().sum().backward()
            told.append((out[asked].detach(), [p.grad for p in encoder.parameters() if p.grad is not None]))
        (a, ga), (b, gb) = told
        assert torch.allclose(a, b, atol=1e-5) and len(ga) == len(gb)
        assert all(torch.allclose(p, q, atol=1e-4, rtol=1e-4) for p, q in zip(ga, gb))

    def test_all_windows_with_data_is_no_mask(self, encoder, spans):
        x, _ = spans
        a, b = self.run(encoder, x, None), self.run(encoder, x, torch.ones(1, self.N, dtype=torch.bool))
        assert torch.equal(a[0], b[0]) and all(torch.equal(p, q) for p, q in zip(a[1], b[1]))

    @pytest.mark.parametrize("causal", [False, True])
    def test_what_absent_windows_hold_does_not_matter(self, encoder, spans, causal):
        encoder.causal, (x, present) = causal, spans
        for local in encoder.locals:
            local.causal = causal
        other = torch.where(present[..., None], x, 100 * torch.randn_like(x))
        a, b = self.run(encoder, x, present), self.run(encoder, other, present)
        assert torch.equal(a[0], b[0]) and all(torch.equal(p, q) for p, q in zip(a[1], b[1]))

    def test_attention_reads_absent_windows_nowhere(self, spans):
        """Without the convolution, windows with data know nothing of the vector that stands for the absent ones; these read them."""
        torch.manual_seed(0)
        encoder, (x, present) = ContextEncoder(16, 2, 2, kernel=1), spans
        a, _ = self.run(encoder, x, present)
        with torch.no_grad():
            encoder.missing.normal_()
        b, grads = self.run(encoder, x, present)
        assert torch.equal(a[present], b[present]) and not torch.isclose(a[:3][~present[:3]], b[:3][~present[:3]]).all(-1).any()
        missing = next(i for i, (name, _) in enumerate(encoder.named_parameters()) if name == "missing")
        assert not grads[missing].any()
        x[:2, present[:2].all(0).nonzero()[0, 0]] *= -1
        c, _ = self.run(encoder, x, present)
        assert not torch.isclose(b[:2][~present[:2]], c[:2][~present[:2]]).all(-1).any() and torch.equal(b[2:], c[2:])

    def test_a_span_is_the_same_in_any_batch(self, encoder, spans):
        x, present = spans
        together, _ = self.run(encoder, x, present)
        alone = torch.cat([self.run(encoder, x[i : i + 1], present[i : i + 1])[0] for i in range(len(x))])
        assert torch.allclose(together, alone, atol=1e-5)

    def test_one_presence_for_the_whole_batch(self, encoder, spans):
        x, present = spans
        assert torch.allclose(self.run(encoder, x, present[:1])[0], self.run(encoder, x, present[:1].repeat(4, 1))[0], atol=1e-6)

    @pytest.mark.parametrize("causal", [False, True])
    def test_what_is_padded_is_as_alone(self, spans, causal):
        torch.manual_seed(0)
        encoder, (x, present) = ContextEncoder(16, 2, 2, causal=causal).eval(), spans
        time, ends = torch.arange(self.N, dtype=torch.float64)[None] * 4, [self.N, 25, 11, 1]
        within = torch.arange(self.N)[None] < torch.tensor(ends)[:, None]
        out = encoder(x, time, present & within, within=within)
        for i, end in enumerate(ends):
            assert torch.allclose(out[i, :end], encoder(x[i : i + 1, :end], time[:, :end], present[i : i + 1, :end])[0], atol=1e-5)

    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("batch", [1, 3])
    def test_no_window_with_data(self, causal, batch):
        torch.manual_seed(0)
        encoder = ContextEncoder(16, 2, 2, causal=causal)
        x = torch.randn(batch, self.N, 16, requires_grad=True)
        out = encoder(x, torch.arange(self.N, dtype=torch.float64)[None] * 4, torch.zeros(batch, self.N, dtype=torch.bool))
        out.square().sum().backward()
        assert torch.isfinite(out).all() and all(torch.isfinite(p.grad).all() for p in encoder.parameters())
        assert encoder.missing.grad.any() and not x.grad.any()

    @pytest.mark.parametrize("n_absent", [0, 12, 39, 40])
    def test_causal_context_knows_no_later_window(self, n_absent):
        torch.manual_seed(0)
        encoder, cut = ContextEncoder(16, 2, 2, causal=True), 20
        x, present = torch.randn(2, self.N, 16), torch.ones(2, self.N, dtype=torch.bool)
        present[:, torch.randperm(self.N)[:n_absent]] = False
        a, _ = self.run(encoder, x, present)
        x[:, cut:], present[:, cut:] = torch.randn(2, self.N - cut, 16), torch.rand(2, self.N - cut) > 0.5
        b, _ = self.run(encoder, x, present)
        assert torch.allclose(a[:, :cut], b[:, :cut], atol=1e-6) and not torch.allclose(a[:, cut:], b[:, cut:], atol=1e-3)

    def test_mask_of_a_causal_encoder_is_the_same_added_to_scores_or_bool(self, spans):
        encoder, (x, present) = ContextEncoder(16, 2, 2, causal=True), spans
        bias = encoder._mask(present, x)
        with torch.autocast("cpu", torch.bfloat16):
            mask = encoder._mask(present, x)
        assert mask.dtype == torch.bool and bias.dtype == x.dtype
        assert torch.equal(bias == 0, mask) and torch.equal(torch.isneginf(bias), ~mask)
        for b, i, j in np.ndindex(len(x), self.N, self.N):
            assert bool(mask[b, 0, i, j]) == ((bool(present[b, j]) or i == j) and j <= i)

    def test_half_precision(self, encoder, spans):
        x, present = spans
        with torch.autocast("cpu", torch.bfloat16):
            out, grads = self.run(encoder, x, present)
        assert torch.allclose(out.float(), self.run(encoder, x, present)[0], atol=0.1) and all(torch.isfinite(g).all() for g in grads)


class TestEncoder:
    def test_tiny_has_at_most_a_million_weights(self):
        assert Encoder().n_parameters < 1_000_000

    def test_order_of_channels_and_units_does_not_matter(self, model, rec):
        grid = WindowGrid(rec)
        batch = grid.batch([0, 3])
        turned = WindowGrid(rec).batch([0, 3])
        for s in turned.streams:
            order = torch.randperm(len(s.identity), generator=torch.Generator().manual_seed(1))
            s.identity, s.values = s.identity[order], s.values[:, order]
            if s.modality == "spikes":
                s.expected = s.expected[order]
            else:
                s.valid = s.valid[:, order]
        with torch.no_grad():
            a, b = model.encoder.summary(batch)[0], model.encoder.summary(turned)[0]
        assert torch.allclose(a, b, atol=1e-5)

    def test_waveforms_reach_the_latents_from_the_first_step(self):
        """What pretraining is to keep must be there to be kept: a hidden channel, told linearly by the latents that lie in its patch."""
        rng = np.random.default_rng(0)
        shared = rng.standard_normal((400 * 250, 1)).cumsum(0)
        shared = np.diff(shared - np.convolve(shared[:, 0], np.ones(250) / 250, "same")[:, None], axis=0, prepend=0)
        shared = np.apply_along_axis(lambda x: np.convolve(x, np.hanning(25), "same"), 0, shared)
        own = shared + 0.2 * shared.std() * rng.standard_normal((len(shared), 4))
        grid = WindowGrid(Recording.from_arrays("a", "m1", "mouse", signals={"lfp": dict(values=own, rate=250.0, unit="uV", kind="lfp")}))
        batch = grid.batch(slice(None))
        stream = batch.streams[0]
        hidden = torch.zeros_like(stream.valid)
        hidden[:, 0] = True
        torch.manual_seed(0)
        with torch.no_grad():
            latents = Encoder().eval().window(batch, [Hidden(hidden)])[0]
        x = latents.unflatten(1, (grid.n_patches, -1)).flatten(2).flatten(0, 1).numpy()
        y = stream.values[:, 0, :, N_BANDS:].flatten(0, 1).numpy()
        half = len(x) // 2
        mean, target = x[:half].mean(0), y[:half].mean(0)
        a = x[:half] - mean
        weights = np.linalg.solve(a.T @ a + 10 * np.eye(a.shape[1]), a.T @ (y[:half] - target))
        left = ((y[half:] - target - (x[half:] - mean) @ weights) ** 2).mean() / y[half:].var()
        assert left < 0.8

    def test_a_token_a_spike(self, rec):
        config = EncoderConfig(width=32, heads=2, latents=4, window_layers=1, context_layers=1, spike_tokens=True)
        torch.manual_seed(0)
        encoder = Encoder(config).eval()
        batch = collate([WindowGrid(rec).batch([0, 3]), WindowGrid(recording("b", units=0)).batch([1])])
        spikes = next(s for s in batch.streams if s.modality == "spikes")
        others = sum(s.valid[0].numel() for s in batch.streams if s.name in ("lfp", "emg")) // 2 + spikes.valid.shape[1]
        tokens = encoder.window.tokens(batch)
        for k in range(2):
            unit, bins = torch.nonzero(spikes.values[k] > 0, as_tuple=True)
            ours = torch.arange(tokens.valid.shape[1])[tokens.valid[k]][others:]
            assert len(ours) == len(unit)
            assert torch.allclose(tokens.time[k, ours], (bins.double() + 0.5) * (4.0 / spikes.values.shape[2]))
        hidden = [Hidden(torch.zeros_like(s.valid)) for s in batch.streams]
        where = next(i for i, s in enumerate(batch.streams) if s.modality == "spikes")
        hidden[where].units = torch.zeros(spikes.values.shape[:2], dtype=torch.bool)
        hidden[where].units[:, 0] = True
        with torch.no_grad():
            a = encoder.window(batch, hidden)[0]
            # The order of units does not matter; what is hidden is not heard.
            order = torch.tensor([2, 1, 0, 3])
            spikes.values, spikes.identity, spikes.expected = spikes.values[:, order], spikes.identity[order], spikes.expected[order]
            hidden[where].units = hidden[where].units[:, order]
            spikes.values[:, 2] += 3
            b = encoder.window(batch, hidden)[0]
        assert torch.allclose(a, b, atol=1e-5)

    def test_a_window_does_not_depend_on_its_batch(self, model, rec):
        other = WindowGrid(recording("b", rate=100.0, units=0, seed=2))
        with torch.no_grad():
            alone = model.encoder.summary(WindowGrid(rec).batch([4]))[0]
            mixed = model.encoder.summary(collate([other.batch([0, 1]), WindowGrid(rec).batch([4])]))[0]
        assert torch.allclose(alone[0], mixed[2], atol=1e-5)

    def test_any_modality_may_be_missing(self, model, rec):
        for keep in (("lfp",), ("emg",), ("spikes",), ("emg", "spikes")):
            summary, present = model.encoder.summary(WindowGrid(rec, kinds=keep).batch([0]))
            assert torch.isfinite(summary).all() and present.all()

    def test_empty_windows_are_told_apart_and_harm_nothing(self, model, rec):
        grid = WindowGrid(rec, start=-8.0, count=10, kinds=("lfp",))
        with torch.no_grad():
            summary, present = model.encoder.summaries(grid)
            context = model.encoder.contexts(summary, present, 4.0)
            changed = summary.clone()
            changed[:2] += 10.0
            again = model.encoder.contexts(changed, present, 4.0)
        assert present.tolist() == [False] * 2 + [True] * 8
        assert torch.isfinite(context).all() and torch.allclose(context[2:], again[2:], atol=1e-5)

    def test_causal_context_ignores_the_future_and_bidirectional_does_not(self):
        for causal in (True, False):
            torch.manual_seed(0)
            context = Encoder(EncoderConfig(width=32, heads=2, context_layers=2, causal=causal)).eval().context
            x = torch.randn(1, 50, 32)
            time, present = torch.arange(50.0)[None] * 4, torch.ones(1, 50, dtype=torch.bool)
            holed = present.clone()
            holed[0, 7] = False
            changed = x.clone()
            changed[0, 30:] = torch.randn(20, 32)
            for p in (present, holed):
                moved = (context(x, time, p) - context(changed, time, p)).abs().amax(-1)[0, :30]
                assert (moved.max() == 0) if causal else (moved.max() > 1e-4)

    def test_context_depends_on_time_differences_only(self, model):
        x, time = torch.randn(1, 20, 32), torch.arange(20.0, dtype=torch.float64)[None] * 4
        a, b = model.encoder.context(x, time), model.encoder.context(x, time + 50_000.0)
        assert torch.allclose(a, b, atol=1e-5)

    def test_long_recordings_are_read_in_overlapping_spans(self, monkeypatch):
        import brainmu.models.encoder as module

        torch.manual_seed(0)
        encoder = Encoder(EncoderConfig(width=32, heads=2, context_layers=1)).eval()
        x, present = torch.randn(300, 32), torch.ones(300, dtype=torch.bool)
        monkeypatch.setattr(module, "CONTEXT", 120)
        with torch.no_grad():
            out = encoder.contexts(x, present, 4.0)
        assert out.shape == (300, 32) and torch.isfinite(out).all()

    def test_bad_width(self):
        with pytest.raises(ConfigError, match="multiple"):
            EncoderConfig(width=30, heads=4)


class TestStageModel:
    def test_predict_proba(self, model, rec):
        proba, start, epoch = model.predict_proba(rec)
        assert proba.shape == (20, 3) and proba.dtype == np.float32 and (start, epoch) == (0.0, 4.0)
        np.testing.assert_allclose(proba.sum(1), 1, atol=1e-5)

    def test_position_and_latent_states_are_not_read(self, model):
        rng = np.random.default_rng(1)
        extra = {
            "position": dict(values=rng.standard_normal((2400, 2)), rate=30.0, kind="position"),
            "p": dict(values=rng.standard_normal(80), rate=1.0, kind="other"),
        }
        np.testing.assert_allclose(model.predict_proba(recording(**extra))[0], model.predict_proba(recording())[0], atol=1e-6)

    def test_epochs_without_data_are_nan(self, model):
        values = np.random.default_rng(0).standard_normal((250 * 40, 1))
        values[250 * 8 : 250 * 16] = np.nan
        proba = model.predict_proba(Recording.from_arrays("g", signals={"eeg": dict(values=values, rate=250.0, kind="eeg")}))[0]
        assert np.isnan(proba).all(1).tolist() == [False, False, True, True] + [False] * 6

    def test_nothing_to_read(self, model):
        only = Recording.from_arrays("g", signals={"x": dict(values=np.zeros((100, 2)), rate=10.0, kind="position")})
        with pytest.raises(MissingDataError, match="position"):
            model.predict_proba(only)

    def test_save_and_load(self, model, rec, tmp_path):
        model.save(tmp_path / "m")
        again = StageModel.load(tmp_path / "m")
        assert again.load_report.new == again.load_report.missing == []
        np.testing.assert_array_equal(again.predict_proba(rec)[0], model.predict_proba(rec)[0])
        assert load_encoder(tmp_path / "m").config == SMALL
        with pytest.raises(OutputExistsError):
            model.save(tmp_path / "m")
        model.save(tmp_path / "m", overwrite=True)


class TestDoor:
    @pytest.mark.parametrize("domain", ["time", "fourier"])
    def test_same_logits_as_prediction(self, model, rec, domain):
        door = model.door(rec, 5, 8, domain=domain)
        with torch.no_grad():
            proba = door.forward(*door.tensors)[0].softmax(-1).numpy()
        np.testing.assert_allclose(proba, model.predict_proba(rec)[0][5:8], atol=1e-5)
        np.testing.assert_allclose(door.times, [20.0, 24.0, 28.0])

    @pytest.mark.parametrize("domain", ["time", "fourier"])
    def test_integrated_gradients_are_complete(self, model, rec, domain):
        from captum.attr import IntegratedGradients

        door = model.door(rec, 5, 7, domain=domain, surround=4)
        ig = IntegratedGradients(lambda *x: door.forward(*x)[:, 0, 2])
        with torch.no_grad():
            change = float((door.forward(*door.tensors) - door.forward(*door.baselines))[0, 0, 2])
        maps = ig.attribute(door.tensors, door.baselines, n_steps=64, internal_batch_size=32)
        assert sum(float(m.sum()) for m in maps) == pytest.approx(change, abs=0.03 * abs(change) + 0.01)
        assert [m.shape for m in maps] == [t.shape for t in door.tensors]

    def test_fourier_door_says_which_frequency(self, model, rec):
        door = model.door(rec, 0, 1, domain="fourier")
        k = door.names.index("lfp")
        assert door.tensors[k].shape == (1, 1, 3, 4, 126, 2) and door.frequencies["lfp"][7] == 7.0
        assert door.keys["spikes"] == ("0", "1", "2", "3") and door.modality == {"lfp": "field", "emg": "field", "spikes": "spikes"}

    def test_versions_are_independent(self, model, rec):
        door = model.door(rec, 5, 8)
        with torch.no_grad():
            both = door.forward(*(torch.cat([t, b]) for t, b in zip(door.tensors, door.baselines)))
            one = door.forward(*door.baselines)
        assert torch.allclose(both[1], one[0], atol=1e-5)

    def test_bad_arguments(self, model, rec):
        with pytest.raises(InputError, match="domain"):
            model.door(rec, 0, 1, domain="wavelet")
        with pytest.raises(InputError, match="windows"):
            model.door(rec, 19, 25)


class TestCheckpoint:
    def test_nothing_fits(self):
        with pytest.raises(CheckpointError, match="none of its 1 weights"):
            fit_weights(Encoder(SMALL), {"other.weight": torch.zeros(3)})

    def test_new_missing_and_reshaped_need_leave(self):
        weights = Encoder(SMALL).state_dict()
        gone = {k: v for k, v in weights.items() if not k.startswith("summarise")}
        with pytest.raises(CheckpointError, match="2 new"):
            fit_weights(Encoder(SMALL), gone)
        report = fit_weights(Encoder(SMALL), gone, may_be_new=["summarise"])
        assert sorted(report.new) == ["summarise.bias", "summarise.weight"] and len(report.matched) == len(gone)
        with pytest.raises(CheckpointError, match="1 missing"):
            fit_weights(Encoder(SMALL), {**weights, "more": torch.zeros(1)})
        with pytest.raises(CheckpointError, match="another shape"):
            fit_weights(Encoder(EncoderConfig(width=32, heads=2, latents=4, window_layers=1, context_layers=1, kernel=5)), weights)

    def test_damaged_and_foreign_folders(self, model, tmp_path):
        path = model.save(tmp_path / "m")
        (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:1000])
        with pytest.raises(CheckpointError, match="damaged"):
            StageModel.load(path)
        (path / "config.yaml").write_text("format: 1\ntype: banana\n")
        with pytest.raises(CheckpointError, match="banana"):
            StageModel.load(path)
        (path / "config.yaml").write_text("format: 99\ntype: stage_model\n")
        with pytest.raises(CheckpointError, match="update brainmu"):
            StageModel.load(path)
        with pytest.raises(NotFoundError, match="no config"):
            StageModel.load(tmp_path)
        with pytest.raises(NotFoundError):
            load_encoder("brainmu-imaginary")

    def test_weights_that_do_not_match_their_config(self, model, tmp_path):
        path = model.save(tmp_path / "m")
        weights = load_file(path / "model.safetensors")
        save_file({k: v for k, v in weights.items() if "summarise" not in k}, path / "model.safetensors")
        with pytest.raises(CheckpointError, match="new"):
            StageModel.load(path)
