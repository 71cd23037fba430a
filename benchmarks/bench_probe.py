"""Does pretraining help? A linear read-out of the frozen encoder, pretrained and untrained, beside one of classical features, by share of the labels.

Every read-out is multinomial logistic regression on standardised inputs. Subjects are split once (none is in both parts); the labels that count are
stretches of five minutes spread over the training subjects, 1, 5, 25 or 100 % of them, drawn anew for each seed. Differences are paired by test subject
and seed; the intervals are bootstraps over test subjects. Chance is kappa 0; below stands
a control whose training labels are dealt out anew, stretch by stretch.

  planted: mice of two labs are trained on, mice of two other labs are tested (brainmu-tiny has seen neither)
  bandpower: Sleep-EDF band powers, 53 subjects (BRAINMU_DATA); the encoder is pretrained on the training subjects, without labels

Usage: python benchmarks/bench_probe.py [--quick] [--data planted|bandpower] [--encoder CKPT]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from brainmu import synth
from brainmu.core import Hypnogram, Recording, metrics
from brainmu.models import Encoder, EncoderConfig
from brainmu.models.checkpoint import load_encoder
from brainmu.sleep.features import add_context, epoch_table
from brainmu.train import pretrain
from brainmu.windows import WindowGrid

SHARES = (0.01, 0.05, 0.25, 1.0)
STRETCH = 300.0  # s of labels in a row
_STRETCH_EPOCHS = 60
Floats = NDArray[np.float64]


@dataclass
class Night:
    """Inputs (epoch, feature) by name and codes (epoch,) of one recording; -1 where not scored."""

    subject: str
    inputs: dict[str, Floats]
    codes: NDArray[np.int8]


def taps(encoder: Encoder, recording: Recording, epoch: float, n: int) -> Floats:
    """Summary and context of every epoch."""
    out = encoder.taps(WindowGrid(recording, epoch, 0.0, n))
    return np.concatenate([out["summary"], out["context"]], axis=1).astype(np.float64)


def night(recording: Recording, encoders: dict[str, Encoder], stages: str, columns: list[str]) -> Night:
    scoring = recording.labels["scoring"]
    assert isinstance(scoring, Hypnogram)
    n = len(scoring)
    table = epoch_table(recording, scoring.epoch, start=0.0)
    plain = table.values[:n, [table.names.index(c) for c in columns]]
    classical = np.concatenate([plain, add_context(plain, scoring.epoch, stages)], axis=1)
    inputs = {"classical features": np.nan_to_num(classical)} | {k: taps(e, recording, scoring.epoch, n) for k, e in encoders.items()}
    n = min(n, *(len(x) for x in inputs.values()))
    return Night(recording.subject, {k: x[:n] for k, x in inputs.items()}, scoring.codes[:n])


def labelled(nights: list[Night], share: float, epoch: float, rng: np.random.Generator) -> list[NDArray[np.bool_]]:
    """Which epochs of each recording keep their label: whole stretches, drawn until the share is reached and every stage that occurs is among them."""
    size = round(STRETCH / epoch)
    places = [(i, a) for i, x in enumerate(nights) for a in range(0, len(x.codes), size)]
    wanted = max(1, round(share * len(places)))
    there = set(np.unique(np.concatenate([x.codes for x in nights]))) - {-1}
    masks = [np.zeros(len(x.codes), dtype=bool) for x in nights]
    seen: set[int] = set()
    for k, j in enumerate(rng.permutation(len(places))):
        i, a = places[j]
        codes = nights[i].codes[a : a + size]
        if k >= wanted and (there <= seen or not set(codes.tolist()) - seen - {-1}):
            continue
        masks[i][a : a + size] = codes >= 0
        seen |= set(codes[codes >= 0].tolist())
        if k >= wanted and there <= seen:
            break
    return masks


def kappas(train: list[Night], test: list[Night], name: str, masks: list[NDArray[np.bool_]], shuffled: bool = False) -> Floats:
    """Kappa of each test recording."""
    x = np.concatenate([t.inputs[name][m] for t, m in zip(train, masks)])
    y = np.concatenate([t.codes[m] for t, m in zip(train, masks)])
    if shuffled:
        stretches = np.array_split(y, max(2, len(y) // _STRETCH_EPOCHS))
        y = np.concatenate([stretches[k] for k in np.random.default_rng(0).permutation(len(stretches))])
    scale = StandardScaler().fit(x)
    model = LogisticRegression(C=0.1, max_iter=300, class_weight="balanced").fit(scale.transform(x), y)
    out = []
    for t in test:
        ok = t.codes >= 0
        found = model.predict(scale.transform(t.inputs[name][ok]))
        out.append(metrics.cohen_kappa(metrics.confusion(t.codes[ok], found, int(max(y.max(), t.codes.max())) + 1)))
    return np.array(out)


def compare(train: list[Night], test: list[Night], epoch: float, seeds: int) -> None:
    names = list(test[0].inputs)
    print(f"{len(train)} training and {len(test)} test recordings, {len({t.subject for t in test})} test subjects, {seeds} seeds\n")
    print(f"| labels | {' | '.join(names)} | pretrained - untrained | pretrained - classical |\n|{'---|' * (len(names) + 3)}")
    for share in (*SHARES, None):
        shuffled = share is None
        rows: dict[str, list[Floats]] = {n: [] for n in names}
        for seed in range(seeds if share != 1.0 else 1):
            masks = labelled(train, 1.0 if share is None else share, epoch, np.random.default_rng(seed))
            for n in names:
                rows[n].append(kappas(train, test, n, masks, shuffled))
            if shuffled:
                break
        mean = {n: np.mean(v, axis=0) for n, v in rows.items()}
        cells = [f"{v.mean():.3f}" for v in mean.values()]
        cells += [interval(mean["pretrained"] - mean[other]) for other in ("untrained", "classical features")]
        print(f"| {'shuffled' if shuffled else f'{share:.0%}'} | {' | '.join(cells)} |", flush=True)


def interval(difference: Floats) -> str:
    low, high = metrics.bootstrap_interval(difference.tolist(), lambda d: float(np.mean(d)))
    return f"{difference.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def planted(quick: bool, encoder: Encoder) -> tuple[list[Night], list[Night], float]:
    labs = [name for name, lab in synth.LABS.items() if lab.species == "mouse" and lab.epoch == 4.0]
    per = 1 if quick else 2
    made = list(synth.iter_corpus(per * len(labs), hours=0.5 if quick else 1.0, seed=52_000, labs=labs, held_out=2, epoch=4.0))
    return *halves([r for r, _ in made], per_lab(labs, per), encoder, "rodent3"), 4.0


def per_lab(labs: list[str], per: int) -> list[bool]:
    """Whether each animal, in turn from every lab, is of the last two."""
    return [i % len(labs) >= len(labs) - 2 for i in range(per * len(labs))]


def halves(recordings: list[Recording], held: list[bool], encoder: Encoder, stages: str) -> tuple[list[Night], list[Night]]:
    torch.manual_seed(1)
    encoders = {"untrained": Encoder(encoder.config).eval(), "pretrained": encoder.eval()}
    # A linear model needs the same columns everywhere: those that every laboratory has.
    names = [epoch_table(r, r.labels["scoring"].epoch, start=0.0).names for r in recordings]
    columns = [c for c in names[0] if all(c in other for other in names)]
    nights = [night(r, encoders, stages, columns) for r in recordings]
    return [x for x, out in zip(nights, held) if not out], [x for x, out in zip(nights, held) if out]


def bandpower(quick: bool) -> tuple[list[Night], list[Night], float]:
    from bench_staging import features

    folder = Path(os.environ["BRAINMU_DATA"]) / "human-sleepedf-bandpower"
    recordings = [features(p) for p in sorted(folder.glob("*.npz"))]
    ids = sorted({int(r.subject) for r in recordings})
    held = [ids.index(int(r.subject)) % 4 == 0 for r in recordings]
    config = {"encoder": {"window": 30.0}, "steps": 200 if quick else 1500, "context_steps": 100 if quick else 600, "span": 256, "batch": 256}
    with tempfile.TemporaryDirectory() as work:
        run = pretrain([r for r, out in zip(recordings, held) if not out], Path(work) / "run", config=config, seed=0)
        print({k: {m: round(x, 3) for m, x in v.items()} for k, v in run.report.items()})
        encoder = run.encoder
    assert isinstance(encoder.config, EncoderConfig)
    return *halves(recordings, held, encoder, "aasm5"), 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer animals and steps, two seeds")
    parser.add_argument("--data", choices=("planted", "bandpower"), default="planted")
    parser.add_argument("--encoder", default="brainmu-tiny", help="a checkpoint's name or folder, for planted data")
    args = parser.parse_args()
    began = time.perf_counter()
    made: dict[str, Callable[[], tuple[list[Night], list[Night], float]]] = {
        "planted": lambda: planted(args.quick, load_encoder(args.encoder)),
        "bandpower": lambda: bandpower(args.quick),
    }
    train, test, epoch = made[args.data]()
    print(f"{args.data}: kappa of a linear read-out; ", end="")
    compare(train, test, epoch, 2 if args.quick else 5)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
