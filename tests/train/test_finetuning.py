"""Fine-tuning: adapters, rates by layer, what decides when to stop, a barely trained encoder, labels and signals that cannot be used."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch

import brainmu as bm
from brainmu.cli import main
from brainmu.core import Hypnogram, Recording, metrics
from brainmu.errors import ConfigError, InputError, MissingDataError
from brainmu.models import Encoder, EncoderConfig, StageModel
from brainmu.models.adapters import add_adapters, merged
from brainmu.train import FinetuneConfig, finetune, finetuning, pretrain
from brainmu.train.labelled import hold_out, labelled

ENCODER = dict(width=32, heads=2, latents=4, window_layers=1, context_layers=2)
QUICK = dict(encoder=ENCODER, steps=3, span=32, batch=4)


def animal(seed: int, epochs=40, subject=None, stages=("WAKE", "NREM", "REM"), bout=5) -> Recording:
    """LFP whose slow waves and theta, and EMG whose size, follow the stage."""
    rng = np.random.default_rng(seed)
    codes = np.resize(np.repeat(np.arange(len(stages)), bout), epochs)
    t = np.arange(epochs * 400) / 100
    by = np.repeat(codes, 400)
    lfp = np.sin(2 * np.pi * 2.3 * t) * (by == 1) * 2 + np.sin(2 * np.pi * 7.4 * t) * np.array([0.5, 0.1, 1.5])[by] + rng.standard_normal(len(t))
    emg = rng.standard_normal(len(t)) * np.array([3.0, 1.0, 0.4])[by]
    signals = {k: dict(values=v[:, None], rate=100.0, unit="uV", kind=k) for k, v in (("lfp", lfp), ("emg", emg))}
    scoring = Hypnogram.from_stages([stages[c] for c in codes], epoch=4.0)
    return Recording.from_arrays(f"s{seed}", subject or f"m{seed}", "mouse", signals=signals, labels={"scoring": scoring})


def kappa(model: StageModel, recordings: list[Recording]) -> float:
    return metrics.cohen_kappa(sum(metrics.confusion(r.hypnogram().codes, model.predict_proba(r)[0].argmax(1), 3) for r in recordings))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderConfig(**ENCODER))


@pytest.fixture(scope="module")
def data() -> list[Recording]:
    return [animal(i) for i in range(4)]


class TestAdapters:
    def test_train_adapters_and_head_alone_and_leave_a_plain_model(self, data, encoder, tmp_path):
        before = {k: v.clone() for k, v in encoder.state_dict().items()}
        model = finetune(data[:2], encoder=encoder, mode="adapters", config=QUICK | dict(adapters=dict(rank=2, dropout=0.1)), out=tmp_path / "m")
        after = model.encoder.state_dict()
        assert list(after) == list(before) and all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())
        changed = [k for k in before if not torch.equal(before[k], after[k])]
        assert len(changed) == 4 * 5
        for k in changed:
            assert (".attention." in k or ".mlp." in k) and k.endswith(".weight") and after[k].ndim == 2
            values = torch.linalg.svdvals((after[k] - before[k]).double())
            assert values[2:].max() < 1e-4 * values[0]
        width, head = 32, 2 * 2 * 32 + 3 * 2 * 32 + 3
        assert model.n_trained == head + 4 * 2 * (2 * width + 3 * width + 2 * width + 2 * 5 * width)
        assert f"{model.n_trained:,} weights trained (adapters of rank 2, folded in, and the head)" in model.card
        again = StageModel.load(tmp_path / "m")
        np.testing.assert_array_equal(again.predict_proba(data[0])[0], model.predict_proba(data[0])[0])

    def test_learn_what_a_probe_of_a_random_encoder_cannot(self, encoder):
        train, test = [animal(i, 100) for i in range(3)], [animal(9, 100)]
        config = QUICK | dict(steps=40)
        probe, adapters = (kappa(finetune(train, encoder=encoder, mode=m, config=config), test) for m in ("probe", "adapters"))
        assert adapters > 0.7 and adapters > probe + 0.1

    def test_an_encoder_that_has_adapters_is_read_with_them(self, data, encoder):
        adapted = copy.deepcopy(encoder)
        with torch.no_grad():
            for p in add_adapters(adapted):
                p.normal_(std=0.3)
        one, two = (finetune(data[:1], encoder=e, mode="probe", config=QUICK | dict(steps=1)) for e in (adapted, merged(adapted)))
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))
        assert not torch.equal(one.encoder.window.read.mlp[1].weight, encoder.window.read.mlp[1].weight)

    def test_beside_no_encoder_they_come_with_a_note(self, data):
        for mode in ("adapters", "full"):
            notes = finetune(data[:1], mode=mode, config=QUICK | dict(steps=1)).notes
            assert any("encoder is untrained" in n for n in notes) == (mode == "adapters")

    def test_as_many_weights_as_said_in_each_mode(self, data, encoder):
        n = {m: finetune(data[:1], encoder=encoder, mode=m, config=QUICK | dict(steps=1)).n_trained for m in ("probe", "context", "full")}
        head = 2 * 2 * 32 + 3 * 2 * 32 + 3
        assert n == {"probe": head, "context": head + sum(p.numel() for p in encoder.context.parameters()), "full": head + encoder.n_parameters}


class TestLayerRates:
    def test_every_weight_has_one_layer(self, encoder):
        layers = finetuning._layers(encoder)
        names = {id(p): k for k, p in encoder.named_parameters()}
        depth = {names[id(p)]: i for i, layer in enumerate(layers) for p in layer}
        assert sum(map(len, layers)) == len(depth) == len(names)
        order = ["context.norm.weight", "context.blocks.0.norm.weight", "summarise.weight", "window.blocks.0.norm.weight", "window.read.norm.weight"]
        assert [depth[k] for k in [*order, "window.tokens.norm.weight"]] == [0, 1, 2, 3, 4, 5]
        assert depth["context.blocks.1.norm.weight"] == depth["context.locals.1.weight"] == 0 and depth["window.latents"] == 5

    def test_deeper_layers_move_less_and_none_is_todays_result(self, data, encoder):
        def moved(**more):
            config = QUICK | dict(steps=1, weight_decay=0.0) | more
            after = finetune(data[:2], encoder=encoder, mode="full", config=config).encoder.state_dict()
            return {k: (after[k] - v).abs().max() for k, v in encoder.state_dict().items()}

        plain, decayed = moved(), moved(layer_decay=0.5)
        # Adam's first step has the size of the rate.
        for k, depth in (("context.norm.weight", 0), ("summarise.weight", 2), ("window.latents", 5)):
            assert float(decayed[k] / plain[k]) == pytest.approx(0.5**depth, rel=0.05)
        assert all(torch.equal(a, b) for a, b in zip(plain.values(), moved(layer_decay=1.0).values()))

    def test_bad_values(self):
        for bad in (dict(layer_decay=0.0), dict(layer_decay=1.5), dict(held_out=1.0), dict(guard=-1.0), dict(steps=0), dict(patience=0),
                    dict(gradient_windows=0), dict(cache_mib=-1),
                    dict(learning_rate=np.nan), dict(encoder_rate=0.0), dict(weight_decay=-1.0), dict(drop_stream=1.0)):  # fmt: skip
            with pytest.raises(ConfigError, match=next(iter(bad))):
                FinetuneConfig(**bad)
        with pytest.raises(ConfigError, match="did you mean 'subjects'"):
            finetune([animal(0)], config=QUICK | dict(stop_on="subject"))


def trainer(data, c: FinetuneConfig) -> finetuning._Trainer:
    """A trainer in mode "full" with a model that draws nothing at random."""
    torch.manual_seed(1)
    model = StageModel(finetuning.StageConfig(), Encoder(EncoderConfig(**ENCODER, dropout=0.0)))
    return finetuning._Trainer(model, [labelled(model, r, "scoring") for r in data], [], c, "full", 0, fresh=True)


class TestGradientWindows:
    PLAIN = FinetuneConfig(steps=4, span=40, batch=2, drop_stream=0.0, drop_channel=0.0)
    SPANS = ((0, 0, 40), (1, 3, 33))

    def gradient(self, data, drawn, monkeypatch) -> tuple[float, dict[str, torch.Tensor]]:
        """Loss, and gradients of the window encoder through windows `drawn` of each span."""
        t = trainer(data[:2], dataclasses.replace(self.PLAIN, gradient_windows=sum(map(len, drawn))))
        monkeypatch.setattr(finetuning, "_drawn", lambda *_: [np.asarray(w) for w in drawn])
        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)
        loss = t._step(list(self.SPANS), 0)
        return loss, {k: p.grad for k, p in t.model.encoder.named_parameters() if k.startswith(("window", "summarise"))}

    def test_gradients_through_some_windows_add_up_to_those_through_all(self, data, monkeypatch):
        rng = np.random.default_rng(0)
        first = [np.sort(rng.choice(n, n // 3, replace=False)) for n in (40, 30)]
        second = [np.setdiff1d(np.arange(n), w) for n, w in zip((40, 30), first)]
        (a, one), (b, two), (c, all_) = (self.gradient(data, w, monkeypatch) for w in (first, second, [np.arange(40), np.arange(30)]))
        # Summaries that are not drawn are what they would be, so that the loss is the same.
        assert a == pytest.approx(c, rel=1e-4) and b == pytest.approx(c, rel=1e-4)
        assert float(one["window.tokens.field.bent.0.weight"].norm()) > 0
        for k, g in all_.items():
            if g is not None:
                assert torch.allclose(one[k] + two[k], g, rtol=1e-3, atol=1e-3 * float(g.abs().max()) + 1e-9), k

    def test_as_many_as_there_are_is_plain_back_propagation(self, data):
        made = [finetune(data[:2], mode="full", config=QUICK | dict(gradient_windows=n)) for n in (128, 10_000)]
        assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in made)))

    def test_windows_are_drawn_evenly_and_never_more_than_asked(self):
        rng, hits = np.random.default_rng(0), np.zeros(70)
        for _ in range(400):
            a, b = finetuning._drawn([40, 30], 16, rng)
            assert len(a) + len(b) == 16 and (np.diff(a) > 0).all() and (np.diff(b) > 0).all()
            hits[a] += 1
            hits[40 + b] += 1
        assert abs(hits / 400 - 16 / 70).max() < 5 * np.sqrt(16 / 70 / 400)

    @pytest.mark.parametrize("mode", ["full", "adapters"])
    def test_what_the_others_were_is_made_afresh_each_round(self, data, mode, monkeypatch):
        passes = []
        summaries = Encoder.summaries
        monkeypatch.setattr(Encoder, "summaries", lambda e, g, *a, **k: passes.append(g.recording.id) or summaries(e, g, *a, **k))
        config = QUICK | dict(steps=20, span=40, batch=1, gradient_windows=5, held_out=0.0)
        model = finetune(data[:1], encoder=Encoder(EncoderConfig(**ENCODER)), mode=mode, config=config)
        assert passes == ["s0"] * 10 and all(np.isfinite(h["loss"]) for h in model.history)

    def test_few_windows_learn(self):
        config = QUICK | dict(steps=60, span=100, batch=1, gradient_windows=16, held_out=0.0)
        assert kappa(finetune([animal(5, 100)], mode="full", config=config), [animal(5, 100)]) > 0.7


class TestStopping:
    def split(self, recordings, stop_on="auto", share=0.25, guard=20.0):
        model = StageModel(finetuning.StageConfig(), Encoder(EncoderConfig(**ENCODER)))
        return hold_out([labelled(model, r, "scoring") for r in recordings], stop_on, share, guard, seed=0)

    def test_subjects_are_held_out_whole(self):
        recordings = [animal(i, subject=f"m{i // 2}") for i in range(8)]
        for stop_on in ("auto", "subjects"):
            training, held, notes = self.split(recordings, stop_on)
            assert {d.subject for d in training}.isdisjoint(d.subject for d in held)
            assert len(training) == 6 and len(held) == 2 and "held-out subjects: m" in notes[0]

    def test_one_subject_holds_out_time_with_a_guard_and_says_so(self):
        recordings = [animal(i, 80, subject="m") for i in range(2)]
        training, held, notes = self.split(recordings)
        assert "end of each recording, 20 s" in notes[0] and "new animals" in notes[0]
        for r, a, b in zip(recordings, training, held):
            assert (len(a.codes), len(b.codes), len(b.grid)) == (55, 20, 20) and b.grid.start == 240.0
            np.testing.assert_array_equal(np.r_[a.codes, r.hypnogram().codes[55:60], b.codes], r.hypnogram().codes)
            # The windows of the end are those of the whole.
            whole, end = a.grid.batch([63]).streams[0], b.grid.batch([3]).streams[0]
            assert torch.equal(whole.values, end.values)

    def test_two_or_three_subjects_and_short_recordings_take_all_steps_unless_asked(self):
        three = [animal(i) for i in range(3)]
        for recordings, why in ((three, "3 subjects are too few"), ([animal(0, 7)], "too short"), ([animal(0, 40, bout=20)], "no subject with two stages")):
            training, held, notes = self.split(recordings)
            assert len(training) == len(recordings) and not held and why in notes[0]
        assert len(self.split(three, "subjects")[1]) == 1 and len(self.split(three, "time")[1]) == 3
        assert self.split(three, "none")[1] == [] == self.split([animal(i) for i in range(5)], share=0.0)[1]

    def test_nobody_left_to_decide(self):
        with pytest.raises(InputError, match="all recordings are of m0"):
            self.split([animal(0)], "subjects")
        with pytest.raises(InputError, match="too short"):
            self.split([animal(0, 7)], "time")
        with pytest.raises(InputError, match="stage without labels"):
            self.split([animal(0, 40), animal(1, 40, stages=("WAKE", "NREM"))], "subjects")
        with pytest.raises(InputError, match="no subject with two stages"):
            self.split([animal(0, 40, bout=20)], "time")

    def test_the_best_weights_are_kept_not_the_last(self, encoder):
        recordings = [animal(i, 60) for i in range(5)]
        c = dataclasses.replace(finetuning.load_config(FinetuneConfig, QUICK), steps=20, learning_rate=0.3, patience=20)
        model = finetune(recordings, encoder=encoder, mode="probe", config=c, seed=2)
        scores = [h["held_out_kappa"] for h in model.history]
        assert scores[-1] < max(scores)  # so that the last would be the wrong ones
        held = [r for r in recordings if f"subjects: {r.subject}." in model.notes[0]]
        assert len(held) == 1 and kappa(model, held) == pytest.approx(max(scores), abs=1e-9)
        assert f"weights of step {model.history[int(np.argmax(scores))]['step']}" in model.card

    def test_patience_stops_early(self, encoder):
        model = finetune([animal(i) for i in range(4)], encoder=encoder, mode="probe", config=QUICK | dict(steps=60, learning_rate=1e-12, patience=2))
        assert len(model.history) == 3


def test_a_barely_trained_encoder_does_not_collapse_to_one_stage(tmp_path):
    recordings = [r for r, _ in bm.synth.corpus(2, hours=0.15, seed=5, n_cells=0, n_channels=1)]
    barely = pretrain(recordings, tmp_path / "run", config=dict(steps=4, context_steps=2, batch=32), seed=0).encoder
    model = finetune(recordings, encoder=barely, mode="context", config=dict(steps=60))
    found = np.concatenate([model.predict_proba(r)[0].argmax(1) for r in recordings])
    truth = np.concatenate([r.hypnogram().codes for r in recordings])
    assert metrics.cohen_kappa(metrics.confusion(truth, found, 3)) > 0.9
    assert any("summaries were standardised" in n for n in model.notes) and "summaries were standardised" in model.card


def test_an_encoder_whose_summaries_differ_is_left_as_it_is(data, encoder):
    model = finetune(data[:2], encoder=encoder, mode="probe", config=QUICK)
    assert torch.equal(model.encoder.summarise.weight, encoder.summarise.weight) and not any("standardised" in n for n in model.notes)


class TestBadData:
    def test_labels(self, data):
        bare = Recording.from_arrays("bare", "m9", signals=data[0].signals)
        with pytest.raises(MissingDataError, match="bare"):
            finetune([data[0], bare], config=QUICK)
        lone = [animal(i, stages=("NREM",)) for i in range(2)]
        with pytest.raises(MissingDataError, match=r"only (WAKE|NREM)"):
            finetune(lone, config=QUICK)
        with pytest.raises(InputError, match="cannot be refined"):
            finetune(data, stages="aasm5", config=QUICK)
        two = finetune([animal(i, stages=("WAKE", "NREM")) for i in range(2)], config=QUICK)
        assert any("No epoch is labelled REM" in n for n in two.notes) and "No epoch is labelled REM" in two.card

    def test_missing_samples_are_left_out_and_what_holds_no_data_is_refused(self, data):
        def holed(first, last, channels=("lfp", "emg")):
            signals = {}
            for k in ("lfp", "emg"):
                v = np.array(data[0].signals[k].values)
                if k in channels:
                    v[first * 400 : last * 400] = np.nan
                signals[k] = dict(values=v, rate=100.0, kind=k)
            return Recording.from_arrays("holed", "m0", signals=signals, labels=data[0].labels)

        model = finetune([holed(5, 15)], config=QUICK)
        assert all(bool(torch.isfinite(v).all()) for v in model.state_dict().values()) and np.isfinite(model.history[-1]["loss"])
        finetune([holed(0, 40, ("emg",))], config=QUICK)
        with pytest.raises(MissingDataError, match="holed: has emg, lfp, none usable"):
            finetune([holed(0, 40)], config=QUICK)
        half = holed(0, 20)
        half.labels = {"scoring": Hypnogram.from_stages(["WAKE", "NREM"] * 10, epoch=4.0)}
        for mode in ("probe", "full"):
            with pytest.raises(MissingDataError, match=r"no scored epoch holds data .*holed"):
                finetune([half], mode=mode, config=QUICK)
            with pytest.raises(MissingDataError, match=r"19 scored epochs hold data .*at least 20"):
                finetune([holed(0, 21)], mode=mode, config=QUICK)
        for mode in ("probe", "adapters", "full"):
            model = finetune([holed(5, 15)], mode=mode, config=QUICK)
            assert model.n_epochs == 30 and "10 of 40 scored epochs hold no data: they were left out." in model.notes
            assert "Trained on 30 epochs" in model.card

    def test_what_the_labels_say_of_epochs_without_data_changes_nothing(self, data):
        """They are neither trained on nor counted in the weights of classes."""
        signals = {k: dict(values=np.array(data[0].signals[k].values), rate=100.0, kind=k) for k in ("lfp", "emg")}
        for s in signals.values():
            s["values"][5 * 400 : 15 * 400] = np.nan
        stages = ["WAKE", "NREM", "REM"] * 13 + ["WAKE"]
        for mode in ("context", "full"):
            made = []
            for there in (stages[5:15], ["NREM"] * 10):
                scoring = Hypnogram.from_stages([*stages[:5], *there, *stages[15:]], epoch=4.0)
                made.append(finetune([Recording.from_arrays("r", "m", signals=signals, labels={"scoring": scoring})], mode=mode, config=QUICK))
            assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in made)))


class TestCommand:
    @pytest.fixture
    def stores(self, tmp_path):
        for i in range(2):
            bm.preprocess(animal(i), tmp_path / "stores" / f"s{i}.zarr")
        return tmp_path / "stores"

    def test_same_bytes_as_from_python(self, stores, tmp_path, capsys):
        settings = tmp_path / "settings.yaml"
        settings.write_text("steps: 3\nspan: 32\nadapters: {rank: 2}\n")
        args = ["--from", "brainmu-tiny", "--mode", "adapters", "--settings", str(settings), "--held-out", "0", "--seed", "4", "--out", str(tmp_path / "s")]
        assert main(["finetune", str(stores), *args, "--json"]) == 0
        out, err = capsys.readouterr()
        result = json.loads(out)
        sessions = [bm.open(p) for p in sorted(stores.glob("*.zarr"))]
        model = bm.finetune(sessions, encoder="brainmu-tiny", mode="adapters", config=str(settings), seed=4, out=tmp_path / "m")
        for name in ("model.safetensors", "config.yaml", "card.md"):
            assert (tmp_path / "s" / "encoder" / name).read_bytes() == (tmp_path / "m" / name).read_bytes()
        assert (result["mode"], result["n_weights_trained"], result["notes"]) == ("adapters", model.n_trained, model.notes)
        assert "note: All steps were taken: 2 subjects are too few" in err

    def test_goes_on_from_a_stager_and_names_whom_it_scored(self, stores, tmp_path, capsys):
        settings = tmp_path / "settings.yaml"
        settings.write_text("steps: 3\nspan: 32\n")
        args = ["finetune", str(stores), "--mode", "probe", "--settings", str(settings), "--held-out", "0.5"]
        assert main([*args, "--from", "brainmu-tiny", "--out", str(tmp_path / "runs" / "a")]) == 0
        out = capsys.readouterr().out
        assert "fitted on 40 epochs of 1 subject\n" in out and "scored on 1 held-out subject (m" in out
        assert main([*args, "--from", str(tmp_path / "runs" / "a"), "--out", str(tmp_path / "runs" / "a"), "--quiet"]) == 1
        assert "--overwrite" in capsys.readouterr().err
        assert main([*args, "--from", str(tmp_path / "runs" / "a"), "--out", str(tmp_path / "runs" / "a"), "--overwrite", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["n_epochs"] == 40

    def test_a_store_without_subject_names_the_manifest(self, stores, tmp_path, capsys):
        nameless = dataclasses.replace(animal(7), subject="")
        bm.preprocess(nameless, stores / "nameless.zarr")
        assert main(["finetune", str(stores), "--out", str(tmp_path / "o"), "--quiet"]) == 1
        assert "nameless.zarr: names no subject" in (err := capsys.readouterr().err) and "subject:" in err and "by=" not in err

    def test_wrong_usage(self, stores, tmp_path, capsys):
        for args, status, says in (
            (["--method", "boosting", "--mode", "probe"], 2, "uses none"),
            (["--method", "boosting", "--settings", "finetune/stage"], 2, "--settings says"),
            (["--mode", "adapter"], 2, "adapter"),
            (["--settings", "finetune/stag"], 1, "did you mean 'finetune/stage'"),
            (["--labels", "expert"], 1, "expert"),
            (["--held-out", "1.5"], 2, "--held-out 1.5"),
            (["--from", "brainmu-tinny"], 1, "did you mean 'brainmu-tiny'"),
        ):
            assert main(["finetune", str(stores), "--out", str(tmp_path / "o"), "--quiet", *args]) == status
            err = capsys.readouterr().err
            assert says in err and err.strip().count("\n") == 0
        assert not (tmp_path / "o").exists()
