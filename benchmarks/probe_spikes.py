"""Read-outs of an encoder that sees spikes only: sleep from head-direction cells, running position from hippocampal units (for bench_probe)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import loadmat
from sklearn.linear_model import Ridge

import brainmu as bm
from brainmu.core import Intervals, Recording
from brainmu.models import Encoder
from brainmu.models.checkpoint import load_encoder
from brainmu.replay.decode import counts_in, cross_validated_error, units_and_position
from brainmu.replay.position import moving, speed_threshold
from brainmu.sleep.comparison import compare_inputs
from brainmu.sleep.probe_inputs import Input
from brainmu.sleep.probing import untrained
from brainmu.sleep.readout import Fold, Scoring
from brainmu.train import pretrain
from brainmu.windows import WindowGrid

Floats = NDArray[np.float32]
PER_EPOCH = 400  # bins of 10 ms in 4 s


def heads(folder: Path, name: str, quick: bool) -> None:
    """Wake, NREM or REM from summaries of single 4-s windows: first halves of the three matrices against second halves, and the reverse."""
    counts, codes = matrices(folder)
    recording = from_counts(counts, "heads")
    half = np.concatenate([np.arange(n) >= n // 2 for n in np.bincount(codes)])
    # A minute between the halves belongs to neither when it would train.
    middle = np.concatenate([np.abs(np.arange(n) - n // 2) < 15 for n in np.bincount(codes)])
    parts = [Fold([side & ~middle], [~side], text) for side, text in ((~half, "second halves"), (half, "first halves"))]
    data = [Scoring("mouse", "mouse", codes, 15)]  # labels in stretches of a minute: REM lasts 16
    given, seeds = load_encoder(name), 2 if quick else 10
    plain = np.sqrt(counts.reshape(len(codes), PER_EPOCH, -1).sum(1)).astype(np.float32)
    fixed = {"classical": same(plain)} | {k: same(summaries(e, recording, 4.0, 0.0, len(codes))) for k, e in untrained(given, seeds, 0).items()}

    def packaged(k: int) -> dict[str, Input]:
        return fixed | {"pretrained": same(summaries(given, recording, 4.0, 0.0, len(codes)))}

    def own(k: int) -> dict[str, Input]:
        seen = counts.reshape(len(codes), PER_EPOCH, -1)[parts[k].train[0]]
        encoder = pretrained([from_counts(seen.reshape(-1, counts.shape[1]), "half")], quick)
        return fixed | {"pretrained": same(summaries(encoder, recording, 4.0, 0.0, len(codes)))}

    for text, inputs in ((f"pretrained is {name}", packaged), ("pretrained on the training half, without labels", own)):
        print(f"{text}; classical is the square root of each unit's count; single epochs of 4 s, without context")
        print(compare_inputs(data, parts, inputs, stages=("WAKE", "NREM", "REM"), epochs=[4.0], seeds=seeds, split="time"), "\n", flush=True)


def matrices(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Counts (10-ms bin, unit) of the three states one after the other, whole epochs of each, and the state of each epoch."""
    m = loadmat(folder / "mouse-hd-sleep-spikes" / "DataHDCells_RunSleep.mat")
    found = [m[k][: len(m[k]) // PER_EPOCH * PER_EPOCH] for k in ("Qrun", "Qsws", "Qrem")]
    return np.concatenate(found), np.repeat(np.arange(3, dtype=np.int8), [len(x) // PER_EPOCH for x in found])


def from_counts(counts: NDArray[np.uint8], name: str) -> Recording:
    """Spikes spread evenly within their bins."""
    place, unit = np.nonzero(counts)
    n = counts[place, unit].astype(np.int64)
    nth = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
    times = (np.repeat(place, n) + (nth + 0.5) / np.repeat(n, n)) * 0.01
    order = np.argsort(times, kind="stable")
    return Recording.from_arrays(name, "mouse", "mouse", spikes={"times": times[order], "unit": np.repeat(unit, n)[order]})


def summaries(encoder: Encoder, recording: Recording, window: float, start: float, count: int) -> Floats:
    grid = WindowGrid(recording, window, start, count, kinds=("spikes",), patch=encoder.config.patch, bin=encoder.config.bin)
    return encoder.summaries(grid)[0].numpy()


def same(x: Floats) -> Input:
    return Input([x], [x])


def pretrained(training: list[Recording], quick: bool) -> Encoder:
    config = {"steps": 60, "context_steps": 10, "batch": 32, "span": 64, "kinds": ["spikes"]}
    config |= {} if quick else {"steps": 600, "context_steps": 50, "batch": 64}
    with tempfile.TemporaryDirectory() as work:
        run = pretrain(training, Path(work) / "run", config=config, seed=0)
        print("  pretrained:", {k: {m: round(v, 4) for m, v in row.items()} for k, row in run.report.items()}, flush=True)
        return run.encoder


# -- position ---------------------------------------------------------------------------------------------------------
BIN = 0.5  # s
SHARES = (0.05, 0.25, 1.0)
STRETCH = 20  # bins of running in a row that are labelled, left out or drawn anew together


def track(folder: Path, name: str, quick: bool) -> None:
    """Median error of a ridge regression of position on states of the encoder, in bins of half a second while the rat runs."""
    recording = bm.read(folder / "rat-linear-track")
    spikes, position = units_and_position(recording)
    ran = moving(position, speed_threshold(position))
    start, n = float(position.times[0]), int((position.times[-1] - position.times[0]) / BIN) // 8 * 8
    centres = start + (np.arange(n) + 0.5) * BIN
    truth = position.at(centres)
    running = ran.contains(centres) & np.isfinite(truth).all(1)
    # The position record in five, as the package's own decoders are cross-validated; parts without running are not tested.
    edges = np.linspace(position.times[0], position.times[-1], 6)
    spans = [(a, b) for a, b in pairwise(edges) if (running & (centres >= a) & (centres < b)).sum() >= STRETCH]
    cells = Recording(id="rat", subject="rat", species="rat", spikes=spikes)
    given, seeds = load_encoder(name), 2 if quick else 5

    # Rows of every input: all bins; an encoder made for the fold sees its training parts, without positions.
    counts = np.sqrt(counts_in(spikes, np.c_[centres - BIN / 2, centres + BIN / 2])).astype(np.float32)
    around = np.concatenate([np.roll(counts, k, axis=0) for k in range(-4, 5)], axis=1)
    made = [pretrained(outside(cells, a, b), quick) for a, b in spans]
    states: dict[str, Callable[[Encoder], Floats]] = {
        "summary of 0.5 s": lambda e: summaries(e, cells, BIN, start, n), "latents of 4 s": lambda e: latents(e, cells, start, n),
    }  # fmt: skip
    inputs: dict[str, list[list[Floats]]] = {"counts in 0.5 s": [[counts]], "counts in 0.5 s and 4 bins either side": [[around]]}  # (seed, fold or 1)
    for what, read in states.items():
        inputs[f"untrained, {what}"] = [[read(e)] for e in untrained(given, seeds, 0).values()]
        inputs[f"{name}, {what}"] = [[read(given)]]
        inputs[f"pretrained on the other folds, {what}"] = [[read(e) for e in made]]
    report(inputs, truth, running, [(centres >= a) & (centres < b) for a, b in spans], seeds)
    bayes = cross_validated_error(recording, bin_size=BIN)
    print(f"\nfor comparison, all labels: state space {bayes['state_space']:.1f} px, memoryless Bayes {bayes['memoryless']:.1f} px, chance "
          f"{bayes['chance']:.1f} px, {bayes['n_bins']} bins of {BIN} s, {bayes['folds_used']} folds")  # fmt: skip


def outside(recording: Recording, a: float, b: float) -> list[Recording]:
    from brainmu.windows.splits import cut

    spans = Intervals([[recording.start, recording.stop]]).subtract(Intervals([[a, b]]))
    return [cut(recording, x, y, f"{recording.id}.{i}") for i, (x, y) in enumerate(spans) if y - x > 60]


@torch.no_grad()
def latents(encoder: Encoder, recording: Recording, start: float, n: int) -> Floats:
    """Latents of 4-s windows as rows of half a second (n, width), each the latent nearest to its middle."""
    grid = WindowGrid(recording, 4.0, start, n // 8, kinds=("spikes",), patch=encoder.config.patch, bin=encoder.config.bin)
    found = torch.cat([encoder.window(grid.batch(slice(i, min(i + 64, len(grid)))))[0] for i in range(0, len(grid), 64)])
    nearest = ((np.arange(8) + 0.5) * found.shape[1] / 8).astype(int)
    return found[:, nearest].reshape(n, -1).numpy()


def report(inputs: dict[str, list[list[Floats]]], truth: NDArray[np.float64], running: NDArray[np.bool_], tests: list[NDArray[np.bool_]], seeds: int) -> None:
    every = np.flatnonzero(running)
    errors = {k: {s: errors_of(v, truth, every, tests, s, seeds) for s in (*SHARES, None)} for k, v in inputs.items()}
    chance = np.median(np.linalg.norm(truth[every] - truth[np.random.default_rng(0).permutation(every)], axis=1))
    print(f"\nn = {len(every)} bins of {BIN} s in {len(tests)} contiguous folds of one rat, {seeds} seeds; chance (places dealt out anew) {chance:.1f} px")
    print("median error, px; differences with 95 % intervals over stretches of running and seeds, all labels (below 0: the row is better)\n")
    untrained_of = {k: next((u for u in inputs if u.startswith("untrained") and k.endswith(u.partition(", ")[2])), "") for k in inputs}
    print(f"| input | {' | '.join(f'{s:.0%}' for s in SHARES)} | shuffled | minus untrained | minus counts in 0.5 s |\n|{'---|' * (len(SHARES) + 4)}")
    for k, found in errors.items():
        cells = [f"{np.median(found[s], axis=1).mean():.1f}" for s in (*SHARES, None)]
        for other in (untrained_of[k], "counts in 0.5 s"):
            cells.append("" if other in ("", k) else difference(found[1.0], errors[other][1.0]))
        print(f"| {k} | {' | '.join(cells)} |")


def errors_of(
    states: list[list[Floats]], truth: NDArray[np.float64], every: NDArray[np.int64], tests: list[NDArray[np.bool_]], share: float | None, seeds: int
) -> NDArray[np.float64]:
    """Errors (seed, running bin) of a ridge regression; `share` None trains on places that belong to other times."""
    out = np.full((seeds, len(every)), np.nan)
    for seed in range(seeds):
        by_fold = states[seed % len(states)]
        for k, test in enumerate(tests):
            x = by_fold[k % len(by_fold)]
            inside = test[every]
            train = every[~inside]
            y = truth[train]
            if share is None:
                y = np.roll(y, len(y) // 3 + seed * STRETCH, axis=0)
            else:
                pieces = np.arange(len(train)) // STRETCH
                chosen = np.random.default_rng([seed, k]).permutation(pieces[-1] + 1)[: max(2, round(share * (pieces[-1] + 1)))]
                keep = np.isin(pieces, chosen)
                train, y = train[keep], y[keep]
            out[seed, inside] = np.linalg.norm(ridge(x[train], y, x[every[inside]]) - truth[every[inside]], axis=1)
    return out


def ridge(x: Floats, y: NDArray[np.float64], test: Floats) -> NDArray[np.float64]:
    """Predictions (n, 2); the penalty from four contiguous parts of the training bins."""
    mean, sd = x.mean(0), x.std(0)
    x, test = (x - mean) / np.where(sd > 1e-6, sd, np.inf), (test - mean) / np.where(sd > 1e-6, sd, np.inf)
    part = np.arange(len(x)) * 4 // len(x)
    strengths = (1.0, 10.0, 100.0, 1e3, 1e4)

    def missed(a: float) -> float:
        return sum(float(np.linalg.norm(Ridge(a).fit(x[part != i], y[part != i]).predict(x[part == i]) - y[part == i], axis=1).sum()) for i in range(4))

    return Ridge(min(strengths, key=missed)).fit(x, y).predict(test)


def difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    """Of the medians, mean over seeds, with an interval over stretches of running and seeds."""
    rng = np.random.default_rng(0)
    stretches = np.arange(one.shape[1]) // STRETCH
    rows = [np.flatnonzero(stretches == k) for k in range(stretches[-1] + 1)]
    draws = []
    for _ in range(500):
        which = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        some = rng.integers(0, len(one), len(one))
        draws.append(np.mean(np.median(one[some][:, which], axis=1) - np.median(other[some][:, which], axis=1)))
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{np.mean(np.median(one, axis=1) - np.median(other, axis=1)):+.1f} [{low:+.1f}, {high:+.1f}]"
