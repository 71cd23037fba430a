"""Staging: agreement on planted and real recordings, what noise and a few labels do. Real ones where their folder is given (BRAINMU_DATA).

Usage: python benchmarks/bench_staging.py [--quick] [--only PART ...] [--cross-validate] [--folds 0 1 2 3] [--reference FILE]
       python benchmarks/bench_staging.py --time-fit

Parts: rodents, humans, noise, calibration, mouse, spikes. --time-fit does nothing but fit all 104 nights of Sleep-EDF band powers, on an idle machine
to be compared. --cross-validate adds the 4 subject folds of Sleep-EDF band powers (half an hour on
one core), paired with LightGBM subject by subject: by --reference, a JSON file with "subject_kappa" and "fraction_bias", or fitted here where lightgbm
is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu import synth
from brainmu.core import Hypnogram, Recording
from brainmu.core.metrics import bootstrap_interval, cohen_kappa, confusion
from brainmu.sleep import SleepStager, evaluate, evaluate_many

STAGES = ["W", "N1", "N2", "N3", "R"]
PRETRAINED = "brainmu-tiny-rodent3"

TRAINING = {"n_channels": 2, "n_cortex": 1, "n_cells": 0, "lfp_rate": 250.0}
"""What the animals that stagers are fitted on were recorded with."""

UNSEEN_LABS = (
    synth.Lab("unseen-screws", n_channels=1, n_cortex=2, n_cells=0, lfp_rate=400.0, unit="mV", kind="eeg", names="E{n}", parameters={"run_minutes": 0.0}),
    synth.Lab("unseen-probe", n_channels=3, n_cortex=1, n_cells=0, lfp_rate=24414.0625 / 32, unit="V", names="A{i}", hum_frequency=60.0,
              parameters={"hum": 15.0, "movement": 1 / 60}),
    synth.Lab("unseen-rats", "rat", n_channels=5, n_cortex=1, n_cells=0, lfp_rate=600.0, step=0.3, names="ch{i}",
              parameters={"gap_rate": 1 / 900, "dead_channels": 1}),
)  # fmt: skip
"""Instruments that no packaged checkpoint was made with: other rates, units, channels and faults."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "rodents": rodents, "humans": humans, "noise": noise, "calibration": calibration, "mouse": mouse, "spikes": spikes,
    }  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="shorter recordings and fewer animals")
    parser.add_argument("--only", nargs="+", choices=[*parts], help="these parts alone")
    parser.add_argument("--cross-validate", action="store_true")
    parser.add_argument("--folds", type=int, nargs="+", choices=range(4), default=range(4), help="these folds of --cross-validate alone")
    parser.add_argument("--time-fit", action="store_true", help="the time that fitting all nights of Sleep-EDF band powers takes, alone")
    parser.add_argument("--methods", nargs="+", default=["boosting", "combined"], help="what --cross-validate and --time-fit fit")
    parser.add_argument("--reference", type=Path, help="what LightGBM reached, as JSON")
    args = parser.parse_args()
    args.data = real_data()
    if args.time_fit:
        if folder(args, "human-sleepedf-bandpower"):
            time_fit(args)
        return
    for name in args.only or ([] if args.cross_validate else parts):
        parts[name](args)
    if args.cross_validate and folder(args, "human-sleepedf-bandpower"):
        band_powers(args)


def real_data() -> Path | None:
    given = os.environ.get("BRAINMU_DATA")
    path = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    return path if path.is_dir() else None


def folder(args: argparse.Namespace, name: str) -> Path | None:
    """The folder of a real data set, or None, said."""
    if args.data is None or not (args.data / name).is_dir():
        print(f"{name}: absent (set BRAINMU_DATA to the folder of real recordings)")
        return None
    return args.data / name


# -- planted --------------------------------------------------------------------------------------------------------
Planted = list[tuple[Recording, Hypnogram]]


def planted(n: int, hours: float, seed: int, **options: Any) -> Planted:
    """Recordings and what was truly planted; with 4-s (30-s) epochs whatever the lab's scorer uses."""
    return [(r, truth.hypnogram) for r, truth in synth.corpus(n, hours=hours, seed=seed, **options)]


def score(name: str, stager: SleepStager, animals: Planted) -> None:
    pairs = [(str(i), stager.predict(r), h) for i, (r, h) in enumerate(animals)]
    e = evaluate_many(pairs)
    low, high = e["kappa_subjects_interval"]
    each = [evaluate(h, t)["fraction_bias"] for _, h, t in pairs]
    worst = max(abs(v) for b in each for v in b.values())
    rem = e["f1"].get("REM", e["f1"].get("R"))
    off = max(abs(v) for v in e["fraction_bias"].values())
    print(f"  {name:<34} kappa {e['kappa_subjects']:.3f} [{low:.3f}, {high:.3f}], lowest {e['subjects']['kappa'].min():.3f}; REM F1 {rem:.3f}; "
          f"stage fractions off by {off:.3f}, in one subject by {worst:.3f}; ECE {e['ece']:.3f}", flush=True)  # fmt: skip


def rodents(args: argparse.Namespace) -> None:
    """Labs that no stager saw: other instruments, rates, units, faults and seeds."""
    hours, n = (0.7, 3) if args.quick else (2.0, 9)
    test = planted(n, hours, 901, labs=UNSEEN_LABS)
    train = planted(6 if args.quick else 12, hours, 17, **TRAINING)
    print(f"planted rodents of unseen labs ({n} animals x {hours:g} h; fitted on {len(train)} animals of other labs):")
    score("rules (no labels)", SleepStager(stages="rodent3", method="rules"), test)
    score(f"{PRETRAINED} (no labels)", SleepStager.load(PRETRAINED), test)
    for name, options in {"boosting": {}, "boosting, the past alone": {"causal": True}, "combined": {}}.items():
        stager = SleepStager(stages="rodent3", method=name.split(",")[0], **options)
        score(name, stager.fit([r for r, _ in train], labels="scoring"), test)


def humans(args: argparse.Namespace) -> None:
    """Raw EEG, EOG and EMG of planted nights."""
    hours, n = (2.0, 4) if args.quick else (7.0, 10)
    train, test = planted(n, hours, 31, species="human"), planted(n, hours, 931, species="human", lfp_rate=200.0)
    print(f"planted humans ({n} nights x {hours:g} h, fitted on {n} others):")
    for method in ("boosting", "combined"):
        score(method, SleepStager(method=method).fit([r for r, _ in train], labels="scoring"), test)


NOISE = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""SD of the white noise added to every channel, in SDs of that channel."""


def noise(args: argparse.Namespace) -> None:
    """How agreement declines as noise is added to all channels of the tested animals."""
    table = noise_table(2 if args.quick else 4, 0.7 if args.quick else 1.5)
    print("kappa (REM F1) as white noise is added to every channel, in SDs of the channel:")
    print(f"  {'':<28}" + "".join(f"{s:>14g}" for s in NOISE))
    for name, rows in table.groupby("stager", sort=False):
        print(f"  {name:<28}" + "".join(f"{k:>7.2f} ({f:.2f})" for k, f in zip(rows["kappa"], rows["rem_f1"])))


def noise_table(n: int, hours: float) -> pd.DataFrame:
    """One row a stager and amount of noise: mean kappa over animals of unseen labs and REM F1 of all."""
    test = planted(n, hours, 911, labs=UNSEEN_LABS)
    train = planted(6, hours, 17, **TRAINING)
    stagers = {
        "rules": SleepStager(stages="rodent3", method="rules"), PRETRAINED: SleepStager.load(PRETRAINED),
        "boosting": SleepStager(stages="rodent3", method="boosting").fit([r for r, _ in train], labels="scoring"),
    }  # fmt: skip
    rows = []
    for name, stager in stagers.items():
        for amount in NOISE:
            pairs = [(str(i), stager.predict(synth.with_noise(r, amount, i)), h) for i, (r, h) in enumerate(test)]
            e = evaluate_many(pairs)
            rows.append({"stager": name, "noise": amount, "kappa": e["kappa_subjects"], "rem_f1": e["f1"]["REM"]})
    return pd.DataFrame(rows)


def calibration(args: argparse.Namespace) -> None:
    """Five labelled minutes of each animal: staging of the rest without and with them, animals alike and animals unlike those of training."""
    hours, n = (0.7, 3) if args.quick else (1.0, 8)
    train = planted(6, 1.0, 17, **TRAINING)
    stagers = {
        "boosting": SleepStager(stages="rodent3", method="boosting").fit([r for r, _ in train], labels="scoring"),
        "rules": SleepStager(stages="rodent3", method="rules"), PRETRAINED: SleepStager.load(PRETRAINED),
    }  # fmt: skip
    alike = planted(n, hours, 921, labs=UNSEEN_LABS)
    sets = {"unseen labs": alike, "the same with noise of 4 SD": [(synth.with_noise(r, 4.0, i), h) for i, (r, h) in enumerate(alike)]}
    for what, animals in sets.items():
        print(f"five labelled minutes, planted, {what} (n = {n}; scored on the rest of each recording):")
        for name, stager in stagers.items():
            pairs = [with_minutes(stager, r, h, spread_labels(h, 300.0)) for r, h in animals]
            before, after = np.array(pairs).T
            low, high = bootstrap_interval(list(after - before), lambda k: float(np.mean(k)))
            print(f"  {name:<24} kappa {before.mean():.3f} -> {after.mean():.3f}, paired {np.mean(after - before):+.3f} [{low:+.3f}, {high:+.3f}], "
                  f"worst animal {np.min(after - before):+.3f}", flush=True)  # fmt: skip


def spread_labels(h: Hypnogram, seconds: float, pieces: int = 5) -> NDArray[np.int8]:
    """Codes of `seconds` in pieces spread evenly over the recording, as a scorer would pick them; unscored elsewhere."""
    codes = np.full(len(h), -2, dtype=np.int8)
    each = round(seconds / pieces / h.epoch)
    for first in np.linspace(0, len(h) - each, 2 * pieces + 1).astype(int)[1::2]:
        codes[first : first + each] = h.codes[first : first + each]
    return codes


def with_minutes(stager: SleepStager, recording: Recording, h: Hypnogram, given: NDArray[np.int8]) -> tuple[float, float]:
    """Kappa on what was not given, before and after calibration."""
    labels = {"few": Hypnogram(given, h.stages, h.epoch, h.start)}
    known = Recording.from_arrays(recording.id, recording.subject, recording.species, signals=dict(recording.signals), labels=labels)
    rest = Hypnogram(np.where(given >= 0, -2, h.codes).astype(np.int8), h.stages, h.epoch, h.start)
    out = [evaluate(s.predict(known, start=h.start), rest)["kappa"] for s in (stager, stager.calibrate(known, "few"))]
    return out[0], out[1]


# -- real -----------------------------------------------------------------------------------------------------------
def mouse(args: argparse.Namespace) -> None:
    """One real mouse with EEG and rectified EMG: a smoke test, it has two REM bouts."""
    where = folder(args, "mouse-eeg-emg")
    if where is None:
        return
    eeg, emg, codes = (np.load(where / f"{k}_Acq4_hr0.npy") for k in ("EEG", "EMG", "States"))
    reference = Hypnogram.from_stages([("UNS", "WAKE", "NREM", "REM")[int(c)] for c in codes], epoch=4.0)
    signals = {k: {"values": v, "rate": 200.0, "kind": k} for k, v in (("eeg", eeg), ("emg", emg))}
    recording = Recording.from_arrays("mouse", species="mouse", signals=signals, labels={"scoring": reference})
    train = planted(6, 1.0, 17, **TRAINING)
    stagers = {
        "rules": SleepStager(stages="rodent3", method="rules"), f"{PRETRAINED} (synthetic animals only)": SleepStager.load(PRETRAINED),
        "boosting (synthetic animals only)": SleepStager(stages="rodent3", method="boosting").fit([r for r, _ in train], labels="scoring"),
    }  # fmt: skip
    given = spread_labels(reference, 300.0)
    rest = Hypnogram(np.where(given >= 0, -2, reference.codes).astype(np.int8), "rodent3", 4.0)
    few = Hypnogram(given, "rodent3", 4.0)
    recording.labels["few"] = few
    print("mouse-eeg-emg, 22 min, intervals over bouts; 'rest' leaves out five minutes in five pieces, which calibrate the third column:")
    for name, stager in stagers.items():
        h = stager.predict(recording)
        calibrated = stager.calibrate(recording, "few")
        rows = [evaluate(h, reference), evaluate(h, rest), evaluate(calibrated.predict(recording), rest)]
        shown = [f"{e['kappa']:.3f} [{e['kappa_interval'][0]:.2f}, {e['kappa_interval'][1]:.2f}] REM {e['f1']['REM']:.2f}" for e in rows]
        print(f"  {name:<46} all {shown[0]}; rest {shown[1]}; with five minutes {shown[2]} ({calibrated.calibration_.note})", flush=True)


def spikes(args: argparse.Namespace) -> None:
    """Head-direction cells of one mouse: single 10-s epochs in shuffled order, trained on the first half of each state and tested on the second, beside LDA."""
    where = folder(args, "mouse-hd-sleep-spikes")
    if where is None:
        return
    from scipy.io import loadmat
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    stored = loadmat(where / "DataHDCells_RunSleep.mat")
    halves: list[list[NDArray[np.float64]]] = [[], []]
    labels: list[list[int]] = [[], []]
    for code, key in enumerate(("Qrun", "Qsws", "Qrem")):
        q = counts_of(stored[key])
        epochs = q[: len(q) // 1000 * 1000].reshape(-1, 1000, q.shape[1])
        for half, part in enumerate(np.array_split(epochs, 2)):
            halves[half] += [*part]
            labels[half] += [code] * len(part)
    rng = np.random.default_rng(0)
    order = [rng.permutation(len(v)) for v in labels]
    x = [np.stack(h)[o] for h, o in zip(halves, order)]
    y = [np.array(v)[o] for v, o in zip(labels, order)]
    print(f"mouse-hd-sleep-spikes, {len(y[0])} epochs of 10 s to fit, {len(y[1])} to test, shuffled; balanced accuracy:")
    lda = LinearDiscriminantAnalysis().fit(np.sqrt(x[0].sum(1)), y[0])
    print(f"  LDA on root counts of the units    {balanced(y[1], lda.predict(np.sqrt(x[1].sum(1)))):.3f}")
    for name, make in (("boosting on the population", as_spikes), ("boosting on counts of the units", as_counts)):
        train, test = (make(a, b, i) for i, (a, b) in enumerate(zip(x, y)))
        stager = SleepStager(stages="rodent3", epoch=10.0, method="boosting", duration=False).fit(train, labels="scoring")
        found = np.full(len(y[1]), -2)
        codes = stager.predict(test, start=0.0).codes[: len(found)]
        found[: len(codes)] = codes  # a last epoch without spikes is not staged, which counts as wrong
        print(f"  {name:<34} {balanced(y[1], found):.3f}", flush=True)


def counts_of(stored: Any) -> NDArray[np.float64]:
    """Counts (bin, unit) of a matrix that may be wrapped in an object."""
    q = stored
    while getattr(q, "dtype", None) is not None and q.dtype == object:
        q = q.item()
    q = np.asarray(q.toarray() if hasattr(q, "toarray") else q, dtype=np.float64)
    return q if q.shape[0] > q.shape[1] else q.T


def as_spikes(x: NDArray[np.float64], y: NDArray[np.integer], seed: int) -> Recording:
    """Epochs (epoch, bin of 10 ms, unit) end to end as a recording of sorted units."""
    flat = x.reshape(-1, x.shape[2]).astype(int)
    at, unit = np.nonzero(flat)
    times = np.repeat(at, flat[at, unit]) * 0.01 + np.random.default_rng(seed).random(int(flat.sum())) * 0.01
    order = np.argsort(times)
    given = {"times": times[order], "unit": np.repeat(unit, flat[at, unit])[order]}
    return Recording.from_arrays(f"hd_{seed}", spikes=given, labels={"scoring": Hypnogram(y.astype(np.int8), "rodent3", 10.0)})


def as_counts(x: NDArray[np.float64], y: NDArray[np.integer], seed: int) -> Recording:
    """The units' root counts as a stream of features; no scale but the recording's own, which holds all states."""
    stream = {"values": np.sqrt(x.sum(1)), "rate": 0.1, "kind": "features"}
    return Recording.from_arrays(f"hd_{seed}", signals={"counts": stream}, labels={"scoring": Hypnogram(y.astype(np.int8), "rodent3", 10.0)})


def balanced(y: NDArray[np.integer], found: NDArray[np.integer]) -> float:
    return float(np.mean([(found[y == k] == k).mean() for k in np.unique(y)]))


# -- band powers ----------------------------------------------------------------------------------------------------
def band_powers(args: argparse.Namespace) -> None:
    """Sleep-EDF band powers, 4 folds over subjects (rank of the id modulo 4), paired with LightGBM and YASA's smoothing in the same folds."""
    recordings = nights(args)
    ids = sorted({int(r.subject) for r in recordings})
    fold = {r.id: ids.index(int(r.subject)) % 4 for r in recordings}
    peer = json.loads(args.reference.read_text()) if args.reference else lightgbm(recordings, fold)
    for method in args.methods:
        pairs, begin, longest = [], time.perf_counter(), 0.0
        for k in args.folds:
            start = time.perf_counter()
            stager = SleepStager(method=method).fit([r for r in recordings if fold[r.id] != k], labels="scoring")
            longest = max(longest, time.perf_counter() - start)
            pairs += [(r.subject, stager.predict(r), r.labels["scoring"]) for r in recordings if fold[r.id] == k]
        e = evaluate_many(pairs)
        low, high = e["kappa_subjects_interval"]
        print(f"Sleep-EDF band powers, {method}, folds {' '.join(map(str, args.folds))}: mean subject kappa {e['kappa_subjects']:.4f} [{low:.3f}, {high:.3f}], "
              f"pooled {e['kappa']:.4f}, macro-F1 {e['macro_f1']:.3f}, ECE {e['ece']:.3f}, {e['n_subjects']} subjects; "
              f"{time.perf_counter() - begin:.0f} s, longest fit {longest:.0f} s")  # fmt: skip
        print("  F1", {k: round(v, 3) for k, v in e["f1"].items()}, "fraction bias", {k: round(v, 4) for k, v in e["fraction_bias"].items()}, flush=True)
        if peer is not None:
            own = by_subject(pairs)
            gain = [own[s] - v for s, v in ((int(s), v) for s, v in peer["subject_kappa"].items()) if s in own]
            low, high = bootstrap_interval(gain, lambda g: float(np.mean(g)))
            print(f"  minus LightGBM (mean {np.mean(list(peer['subject_kappa'].values())):.4f}): {np.mean(gain):+.4f} [{low:+.4f}, {high:+.4f}], "
                  f"better in {np.mean(np.array(gain) > 0):.0%} of subjects; fraction bias, largest and mean of absolutes: {off(e['fraction_bias'].values())} "
                  f"against {off(peer['fraction_bias'])} over all folds", flush=True)  # fmt: skip


def time_fit(args: argparse.Namespace) -> None:
    recordings = nights(args)
    for method in args.methods:
        begin, used = time.perf_counter(), time.process_time()
        SleepStager(method=method).fit(recordings, labels="scoring")
        print(f"{method}, fitted on {len(recordings)} nights: {time.perf_counter() - begin:.0f} s ({time.process_time() - used:.0f} s of CPU, "
              f"load {os.getloadavg()[0]:.1f})", flush=True)  # fmt: skip


def nights(args: argparse.Namespace) -> list[Recording]:
    return [features(p) for p in sorted((args.data / "human-sleepedf-bandpower").glob("*.npz"))]


def off(bias: Iterable[float]) -> str:
    size = np.abs(list(bias))
    return f"{size.max():.4f} and {size.mean():.4f}"


def by_subject(pairs: list[tuple[str, Hypnogram, Hypnogram]]) -> dict[int, float]:
    """Kappa of each subject, over its nights."""
    matrix: dict[int, NDArray[np.int64]] = {}
    for subject, found, true in pairs:
        ok = (true.codes >= 0) & (found.codes >= 0)
        matrix[int(subject)] = matrix.get(int(subject), 0) + confusion(true.codes[ok], found.codes[ok], len(STAGES))
    return {s: cohen_kappa(m) for s, m in matrix.items()}


def lightgbm(recordings: list[Recording], fold: dict[str, int]) -> dict[str, Any] | None:
    """Kappa by subject and fraction bias of LightGBM with YASA's smoothing and settings; None where it is not installed."""
    if importlib.util.find_spec("lightgbm") is None:
        print("LightGBM: absent (pass --reference)")
        return None
    from lightgbm import LGBMClassifier

    def smoothed(r: Recording) -> NDArray[np.float64]:
        x = r.signals["power"].read().astype(np.float64)
        x = (x - np.nanmedian(x, 0)) / (np.nanpercentile(x, 95, 0) - np.nanpercentile(x, 5, 0) + 1e-9)
        f = pd.DataFrame(x)
        return np.c_[x, f.rolling(15, center=True, min_periods=1, win_type="triang").mean(), f.rolling(4, min_periods=1).mean()]

    pairs = []
    for k in range(4):
        train = [r for r in recordings if fold[r.id] != k]
        y = np.concatenate([r.labels["scoring"].codes for r in train])
        x = np.concatenate([smoothed(r) for r in train])[y >= 0]
        model = LGBMClassifier(n_estimators=400, num_leaves=90, max_depth=5, colsample_bytree=0.5, verbose=-1).fit(x, y[y >= 0])
        pairs += [(r.subject, Hypnogram(model.predict(smoothed(r)).astype(np.int8), "aasm5", 30.0), r.labels["scoring"]) for r in recordings if fold[r.id] == k]
    return {"subject_kappa": by_subject(pairs), "fraction_bias": list(evaluate_many(pairs)["fraction_bias"].values())}


def features(path: Path) -> Recording:
    d = np.load(path)
    x, y = d["features"].reshape(len(d["labels"]), -1), d["labels"]
    scoring = Hypnogram.from_stages([STAGES[k] if k >= 0 else "UNS" for k in y], epoch=30.0, stage_set="aasm5")
    stream = {"values": x, "rate": 1 / 30, "kind": "features"}
    return Recording.from_arrays(path.stem, path.stem.split("__")[0], "human", signals={"power": stream}, labels={"scoring": scoring})


if __name__ == "__main__":
    main()
