"""Does pretraining help? Read-outs of the frozen encoder, pretrained and untrained, beside classical features or decoders, by share of the labels.

  planted    mice of five labs (other channels, units, rates, cells); each lab is tested by read-outs of the other four. With --without emg the tested mice
             lack a modality that training had; with --finetune stage models are fine-tuned (probe, adapters, full) at the same shares
  bandpower  Sleep-EDF band powers of 53 people; for each fold an encoder is pretrained on its training subjects, without their labels
  mouse      one mouse, EEG and EMG, blocks of time: nothing on new animals
  heads      19 head-direction cells as counts, wake, NREM and REM in three matrices: halves, summaries only (the context would show the neighbours, which
             are of one state), beside counts; also an encoder pretrained on the training half
  track      running position from spikes, fifths of the record (3 hold running), beside the package's decoders and a linear regression on counts

All but planted need BRAINMU_DATA. Chance is kappa 0 (or the error of places dealt out anew); a control has its training labels shuffled; intervals are 95 %
over subjects and seeds, or over stretches of time where there is one animal, which is weaker. One pretraining run is judged: how runs differ is not in them.

Seconds of one core, --quick and (roughly) in full: planted 60 and 300 (with --finetune 150 and three hours), bandpower 60 and 1,200, mouse 12 and 20,
heads 40 and 550, track 60 and 400.

Usage: python benchmarks/bench_probe.py [--quick] [--data planted|bandpower|mouse|heads|track] [--encoder CKPT] [--without KIND] [--finetune]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_staging import features, real_data

from brainmu import synth
from brainmu.core import Hypnogram, Recording, metrics
from brainmu.models import Encoder, StageModel
from brainmu.models.checkpoint import load_encoder
from brainmu.sleep.probe_inputs import scorings
from brainmu.sleep.probing import SHARES, probe, untrained
from brainmu.sleep.readout import draw_labels, folds_by_group
from brainmu.train import finetune, pretrain

STEPS = 120  # of fine-tuning, with few labels as with many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer animals, seeds and steps")
    parser.add_argument("--data", choices=("planted", "bandpower", "mouse", "heads", "track"), default="planted")
    parser.add_argument("--encoder", default="brainmu-tiny", help="a checkpoint's name or folder (not for bandpower)")
    parser.add_argument("--without", default="", help="planted: a kind that the tested mice lack, such as emg")
    parser.add_argument("--finetune", action="store_true", help="planted: fine-tune as well")
    args = parser.parse_args()
    began = time.perf_counter()
    if args.data == "planted":
        planted(args.encoder, args.quick, args.without, args.finetune)
    else:
        folder = real_data()
        if folder is None:
            print(f"{args.data}: the folder of real recordings is absent (set BRAINMU_DATA)")
            return
        if args.data == "bandpower":
            bandpower(folder, args.quick)
        elif args.data == "mouse":
            mouse(folder, args.encoder, args.quick)
        else:
            from probe_spikes import heads, track

            {"heads": heads, "track": track}[args.data](folder, args.encoder, args.quick)
    print(f"\n{args.data}: {time.perf_counter() - began:.0f} s")


# -- planted ----------------------------------------------------------------------------------------------------------
def planted(encoder: str, quick: bool, without: str, tune: bool) -> None:
    recordings = corpus(quick)
    labs = [r.subject_meta["lab"] for r in recordings]
    for r in recordings[: len(set(labs))]:
        streams = ", ".join(f"{s.n_channels} {s.kind} at {s.rate:.0f} Hz in {s.unit}" for s in r.signals_of("lfp", "eeg", "emg").values())
        print(f"  {r.subject_meta['lab']}: {streams}, {r.spikes.n_units if r.spikes is not None else 0} units")
    print(f"{len(set(labs))} labs, each tested by read-outs of the others")
    print(probe(recordings, encoder, groups=labs, seeds=2 if quick else 5, without=[without] if without else (), folds=len(set(labs))), flush=True)
    if tune:
        tuned(recordings, labs, encoder, quick)


def corpus(quick: bool) -> list[Recording]:
    """Mice of every lab in turn, scored every 4 s."""
    # Half the channels and rate of this probe say the same of sleep, at a tenth of the time.
    light = {"neuropixels": {"n_channels": 4, "n_cortex": 2, "lfp_rate": 1250.0}}
    labs = [dataclasses.replace(lab, **light.get(name, {})) for name, lab in synth.LABS.items() if lab.species == "mouse"]
    return [r for r, _ in synth.iter_corpus((2 if quick else 3) * len(labs), hours=0.5 if quick else 1.0, seed=52_000, labs=labs, epoch=4.0)]


def tuned(recordings: list[Recording], labs: list[str], encoder: str, quick: bool) -> None:
    """Kappa of stage models fine-tuned with few labels, from pretrained and untrained weights, in the first fold (all folds where not quick)."""
    data = scorings(recordings, "scoring", labs)
    parts = folds_by_group(data, len(set(labs)))[: 1 if quick else None]
    shares, modes, seeds = ((0.05,), ("probe", "full"), 1) if quick else (SHARES, ("probe", "adapters", "full"), 2)
    print(f"\nfine-tuned for {STEPS} steps, {seeds} seed{'s' * (seeds > 1)}, labs tested: {'; '.join(f.name for f in parts)}\n")
    print("| labels | mode | pretrained | untrained | difference | mice | seconds a run |\n|---|---|---|---|---|---|---|")
    given = load_encoder(encoder)
    for share in shares:
        for mode in modes:
            began, found = time.perf_counter(), {"pretrained": [], "untrained": []}
            for k, fold in enumerate(parts):
                test = [r for r, m in zip(recordings, fold.test) if m.any()]
                for seed in range(seeds):
                    masks = draw_labels(data, fold.train, share, np.random.default_rng([0, seed, k]))
                    train = [with_labels(r, m) for r, m in zip(recordings, masks) if m.any()]
                    # Trained from scratch where all of it is trained: that is what one would do without a checkpoint, with its own learning rate.
                    fresh = None if mode == "full" else untrained(given, seed + 1, 0)[f"untrained {seed}"]
                    for name, start in (("pretrained", given), ("untrained", fresh)):
                        found[name].append(kappas(train, test, start, mode, seed))
            a, b = (np.mean(np.reshape(found[n], (len(parts), seeds, -1)), axis=1).ravel() for n in found)
            low, high = metrics.bootstrap_interval((a - b).tolist(), lambda d: float(np.mean(d)))
            spent = (time.perf_counter() - began) / (2 * len(parts) * seeds)
            said = f"{np.mean(a - b):+.3f} [{low:+.3f}, {high:+.3f}]"
            print(f"| {share:.0%} | {mode} | {a.mean():.3f} | {b.mean():.3f} | {said} | {len(a)} | {spent:.0f} |", flush=True)


def with_labels(recording: Recording, mask: np.ndarray) -> Recording:
    """The recording with only the labels of some epochs."""
    h = recording.hypnogram("scoring")
    codes = np.where(mask, h.codes, -2).astype(np.int8)
    return Recording(
        id=recording.id, subject=recording.subject, species=recording.species, signals=recording.signals, spikes=recording.spikes,
        labels={"scoring": Hypnogram(codes, h.stages, h.epoch, h.start)},
    )  # fmt: skip


def kappas(train: list[Recording], test: list[Recording], start: Encoder | None, mode: str, seed: int) -> list[float]:
    config = {"steps": STEPS, "stop_on": "none"}
    model: StageModel = finetune(train, encoder=start, mode=mode, config=config, seed=seed)
    out = []
    for r in test:
        h = r.hypnogram("scoring")
        proba = model.predict_proba(r)[0]
        n = min(len(h), len(proba))
        out.append(metrics.cohen_kappa(metrics.confusion(h.codes[:n], proba[:n].argmax(1), len(h.stages))))
    return out


# -- real -------------------------------------------------------------------------------------------------------------
def bandpower(folder: Path, quick: bool) -> None:
    recordings = [features(p) for p in sorted((folder / "human-sleepedf-bandpower").glob("*.npz"))]
    if quick:
        first = {r.subject: r for r in reversed(recordings)}
        recordings = [first[s] for s in sorted(first)[:16]]
    steps = {"steps": 80, "context_steps": 40, "batch": 128, "span": 128} if quick else {"steps": 800, "context_steps": 600, "batch": 256, "span": 256}

    def pretrained(training: list[Recording]) -> Encoder:
        with tempfile.TemporaryDirectory() as work:
            run = pretrain(training, Path(work) / "run", config={"encoder": {"window": 30.0}, **steps}, seed=0)
            print(f"  pretrained on {len(training)} nights:", {k: {m: round(x, 3) for m, x in v.items()} for k, v in run.report.items()}, flush=True)
            return run.encoder

    print(probe(recordings, pretrained, folds=2 if quick else 3, seeds=2 if quick else 3))


def mouse(folder: Path, encoder: str, quick: bool) -> None:
    eeg, emg, codes = (np.load(folder / "mouse-eeg-emg" / f"{k}_Acq4_hr0.npy") for k in ("EEG", "EMG", "States"))
    scoring = Hypnogram.from_stages([("UNS", "WAKE", "NREM", "REM")[int(c)] for c in codes], epoch=4.0)
    signals = {k: {"values": v, "rate": 200.0, "kind": k} for k, v in (("eeg", eeg), ("emg", emg))}
    recording = Recording.from_arrays("mouse", "mouse", "mouse", signals=signals, labels={"scoring": scoring})
    print(probe(recording, encoder, split="time", folds=5, guard=30.0, seeds=3 if quick else 10))


if __name__ == "__main__":
    main()
