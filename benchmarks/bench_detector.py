"""The learned replay detector beside the classical chain (ripples, population bursts and both) on synthetic animals that neither has seen.

Run: python benchmarks/bench_detector.py [--train 9] [--test 8] [--hours 0.2]

Planted: every reactivation in rest and replay in pauses on the track, in easy, typical and hard recordings of mice and rats. What imitates replay (shuffled
cells, bursts in no order) counts as false for every method; the column "without decoys" leaves detections on it out. "burst and ripple" weighs the z-scores
of both and the length by logistic regression on the training animals, so that it was shown as much as the detector. All methods are compared at the threshold
that gives one false event a minute over the test sessions. Intervals: 95 %, resampling sessions. Control: a detector fitted to labels that were moved in time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

import brainmu as bm
from brainmu.core import EventTable
from brainmu.core.events import match_events
from brainmu.core.metrics import auroc, bootstrap_interval
from brainmu.errors import MissingDataError
from brainmu.replay import ReplayDetector

PRESETS = ("easy", "typical", "hard")
FALSE_RATE, IOU, BIN = 1.0, 0.2, 0.1


@dataclass
class Case:
    """A session with what was planted; events as (n, 2), s."""

    recording: bm.Recording
    truth: EventTable
    decoys: EventTable


@dataclass
class Found:
    """Candidates (n, 2) with scores of one method in one session, and the seconds it took."""

    spans: np.ndarray
    score: np.ndarray
    seconds: float
    probability: np.ndarray | None = None
    silent: float = 0.0


def case(seed: int, hours: float) -> Case:
    species = "rat" if seed % 4 == 3 else "mouse"
    recording, truth = bm.synth.recording(
        hours=hours, seed=seed, subject=f"animal{seed}", id=f"animal{seed}", species=species, preset=PRESETS[seed % 3], n_cells=(20, 40, 60)[(seed // 3) % 3],
        n_channels=2 + seed % 3,
    )  # fmt: skip
    lfp = recording.signals["lfp"]
    recording.signals["lfp"] = lfp.with_values(lfp.read())  # made once: the cost of a method is not that of the generator
    return Case(recording, EventTable.concat([truth.reactivation, truth.awake_replay]).sorted(), truth.replay_decoys)


def only(recording: bm.Recording, modality: str) -> bm.Recording:
    signals = {k: v for k, v in recording.signals.items() if modality == "lfp" or k != "lfp"}
    return bm.Recording(
        recording.id, recording.subject, recording.species, recording.started_at, signals=signals, labels=recording.labels,
        spikes=recording.spikes if modality == "spikes" else None,
    )  # fmt: skip


def moved(c: Case, seed: int) -> EventTable:
    """The planted events, all later by one draw, round the end of the recording."""
    length = c.recording.duration
    start = (c.truth.start + np.random.default_rng(seed).uniform(0.2, 0.8) * length) % length
    keep = start + c.truth.duration < length
    return EventTable(start[keep], (start + c.truth.duration)[keep])


# -- methods ----------------------------------------------------------------------------------------------------------------


def classical(kind: str, threshold: float) -> Callable[[bm.Recording], Found]:
    def run(r: bm.Recording) -> Found:
        t = time.perf_counter()
        e = bm.find_events(r, kind, threshold=threshold)
        return Found(np.c_[e.start, e.stop], np.asarray(e.score, dtype=float), time.perf_counter() - t)

    return run


def chain_features(r: bm.Recording) -> tuple[np.ndarray, np.ndarray, float]:
    """Bursts and the ripples outside them, (n, 2); burst z, ripple z, log length; seconds."""
    ripple, burst = classical("ripple", 2.0)(r), classical("burst", 1.0)(r)
    t = time.perf_counter()
    z = np.array([max(ripple.score[(ripple.spans[:, 0] < b) & (ripple.spans[:, 1] > a)], default=0.0) for a, b in burst.spans])
    alone = np.array([not ((burst.spans[:, 0] < b) & (burst.spans[:, 1] > a)).any() for a, b in ripple.spans], dtype=bool)
    spans = np.concatenate([burst.spans, ripple.spans[alone]])
    features = np.c_[np.r_[burst.score, np.zeros(alone.sum())], np.r_[z, ripple.score[alone]], np.log(spans[:, 1] - spans[:, 0])]
    return spans, features, ripple.seconds + burst.seconds + time.perf_counter() - t


def chain(train: list[Case]) -> Callable[[bm.Recording], Found]:
    rows = []
    for c in train:
        spans, x, _ = chain_features(c.recording)
        rows.append((x, hits(spans, c.truth)))
    fitted = LogisticRegression().fit(np.concatenate([x for x, _ in rows]), np.concatenate([y for _, y in rows]))

    def run(r: bm.Recording) -> Found:
        spans, x, seconds = chain_features(r)
        return Found(spans, fitted.decision_function(x), seconds)

    return run


def learned(detector: ReplayDetector, modality: str | None = None) -> Callable[[bm.Recording], Found]:
    def run(r: bm.Recording) -> Found:
        r = r if modality is None else only(r, modality)
        t = time.perf_counter()
        e = detector.predict(r, probability=0.0)
        return Found(np.c_[e.start, e.stop], np.asarray(e.score, dtype=float), time.perf_counter() - t, np.asarray(e.probability, dtype=float),
                     sum(e.attrs["abstained"].values()))  # fmt: skip

    return run


# -- scores -----------------------------------------------------------------------------------------------------------------


def hits(spans: np.ndarray, truth: EventTable) -> np.ndarray:
    out = np.zeros(len(spans), dtype=bool)
    out[match_events(spans, np.c_[truth.start, truth.stop], IOU)[:, 0]] = True
    return out


def precision_recall(f: Found, c: Case) -> float:
    """Average precision."""
    hit = hits(f.spans, c.truth)[np.argsort(-f.score, kind="stable")]
    return float((np.cumsum(hit) / np.arange(1, len(hit) + 1) * hit).sum() / len(c.truth))


def roc(f: Found, c: Case) -> float:
    """Area under the ROC curve of bins of 100 ms; a bin has the score of the best candidate that overlaps it."""
    n = int(c.recording.duration / BIN)
    score, inside = np.full(n, -np.inf), np.zeros(n, dtype=bool)
    for (a, b), s in zip(f.spans, f.score):
        part = slice(int(a / BIN), int(b / BIN) + 1)
        score[part] = np.maximum(score[part], s)
    for a, b in zip(c.truth.start, c.truth.stop):
        inside[int(a / BIN) : int(b / BIN) + 1] = True
    return auroc(np.where(np.isfinite(score), score, -1e9), inside)


def threshold(found: list[Found], cases: list[Case], decoys: bool) -> float:
    """The score above which the sessions together hold FALSE_RATE false events a minute."""
    false = []
    for f, c in zip(found, cases):
        wrong = ~hits(f.spans, c.truth)
        if not decoys and len(c.decoys):
            wrong &= ~c.decoys.intervals().contains(f.spans.mean(1))
        false.append(f.score[wrong])
    k = int(FALSE_RATE * sum(c.recording.duration for c in cases) / 60)
    ordered = np.sort(np.concatenate(false))[::-1]
    return float(ordered[k]) if k < len(ordered) else -np.inf


def recall(f: Found, c: Case, level: float) -> float:
    return float((hits(f.spans, c.truth) & (f.score > level)).sum() / len(c.truth))


def edges(f: Found, c: Case, level: float) -> np.ndarray:
    """Absolute errors of start and stop (n, 2), ms, of the events found."""
    keep = f.spans[f.score > level]
    pairs = match_events(keep, np.c_[c.truth.start, c.truth.stop], IOU)
    return 1000 * np.abs(keep[pairs[:, 0]] - np.c_[c.truth.start, c.truth.stop][pairs[:, 1]])


def shown(values: list[float]) -> str:
    low, high = bootstrap_interval(list(values), lambda v: float(np.mean(v)))
    return f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}]"


def reliability(found: list[Found], cases: list[Case]) -> str:
    p = np.concatenate([f.probability for f in found])
    y = np.concatenate([hits(f.spans, c.truth) for f, c in zip(found, cases)])
    rows = []
    for a, b in zip((0.0, 0.1, 0.3, 0.5, 0.7, 0.9), (0.1, 0.3, 0.5, 0.7, 0.9, 1.01)):
        inside = (p >= a) & (p < b)
        if inside.any():
            rows.append(f"{p[inside].mean():.2f}: {y[inside].mean():.2f} (n={inside.sum()})")
    return "; ".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", type=int, default=9)
    parser.add_argument("--test", type=int, default=8)
    parser.add_argument("--hours", type=float, default=0.2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="few short sessions and steps: the numbers are rougher")
    args = parser.parse_args()
    if args.quick:
        args.train, args.test, args.hours, args.steps = 3, 3, 0.12, 100
    train, test = ([case(s, args.hours) for s in range(a, a + n)] for a, n in ((0, args.train), (100, args.test)))
    test = [c for c in test if len(c.truth)]
    print(f"fitted on {len(train)} animals, {sum(len(c.truth) for c in train)} events; tested on {len(test)} others, {sum(len(c.truth) for c in test)} events, "
          f"{sum(c.recording.duration for c in test) / 3600:.1f} h", flush=True)  # fmt: skip

    def fitted(encoder: str | None, labels: list[EventTable], folds: int) -> ReplayDetector:
        t = time.perf_counter()
        out = ReplayDetector(encoder, steps=args.steps, folds=folds).fit([c.recording for c in train], labels)
        print(f"fit with encoder {encoder}: {time.perf_counter() - t:.0f} s", flush=True)
        return out

    full = fitted("brainmu-tiny", [c.truth for c in train], 3)
    bare = fitted(None, [c.truth for c in train], 2)
    methods = {
        "ripple": classical("ripple", 2.0), "burst": classical("burst", 1.0), "high synchrony": classical("hse", 1.5), "burst and ripple": chain(train),
        "detector": learned(full), "detector, LFP only": learned(full, "lfp"), "detector, spikes only": learned(full, "spikes"),
        "no encoder": learned(bare), "no encoder, LFP only": learned(bare, "lfp"), "no encoder, spikes only": learned(bare, "spikes"),
    }  # fmt: skip
    try:
        methods["control: labels moved"] = learned(fitted("brainmu-tiny", [moved(c, k) for k, c in enumerate(train)], 2))
    except MissingDataError as error:
        print(f"control, labels moved: fit refuses ({error})")
    print(f"{'method':24s} {'average precision':22s} {'ROC area, bins':22s} {'recall, 1 false/min':22s} {'without decoys':22s} start, stop error   s per hour")
    curves = {}
    for name, run in methods.items():
        found = [run(c.recording) for c in test]
        level, lenient = threshold(found, test, True), threshold(found, test, False)
        errors = np.concatenate([edges(f, c, level) for f, c in zip(found, test)])
        ms = "{:.1f}, {:.1f} ms".format(*np.median(errors, axis=0)) if len(errors) else "none found"
        cost = sum(f.seconds for f in found) / sum(c.recording.duration for c in test) * 3600
        curves[name] = [precision_recall(f, c) for f, c in zip(found, test)]
        rows = (curves[name], [roc(f, c) for f, c in zip(found, test)], [recall(f, c, level) for f, c in zip(found, test)],
                [recall(f, c, lenient) for f, c in zip(found, test)])  # fmt: skip
        print(f"{name:24s} " + " ".join(f"{shown(r):22s}" for r in rows) + f" {ms:19s} {cost:.1f}", flush=True)
        if found[0].probability is not None:
            silent = sum(f.silent for f in found) / sum(c.recording.duration for c in test)
            print(f"{'':24s} probability: share that are events  {reliability(found, test)}; says nothing about {silent:.2%}", flush=True)
    for a, b in (("detector", "burst and ripple"), ("detector", "no encoder"), ("detector, LFP only", "ripple"), ("detector, LFP only", "no encoder, LFP only"),
                 ("detector, spikes only", "burst"), ("detector, spikes only", "no encoder, spikes only")):  # fmt: skip
        print(f"{a} - {b}: average precision {shown([x - y for x, y in zip(curves[a], curves[b])])}")


if __name__ == "__main__":
    main()
