"""Staging: hours a second on two channels beside YASA, and agreement on real recordings where their folder is given (BRAINMU_DATA).

Usage: python benchmarks/bench_staging.py [--quick] [--cross-validate]
--cross-validate runs the 4 subject folds of Sleep-EDF band powers (about ten minutes on two idle cores).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from brainmu.core import Hypnogram, Recording
from brainmu.sleep import SleepStager, evaluate, evaluate_many

STAGES = ["W", "N1", "N2", "N3", "R"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 h rather than 8")
    parser.add_argument("--cross-validate", action="store_true")
    args = parser.parse_args()
    speed(2.0 if args.quick else 8.0)
    folder = real_data()
    if folder is None:
        print("agreement: the folder of real recordings is absent (set BRAINMU_DATA)")
        return
    mouse(folder)
    if args.cross_validate:
        band_powers(folder)


def real_data() -> Path | None:
    given = os.environ.get("BRAINMU_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


# -- speed ----------------------------------------------------------------------------------------------------------
def speed(hours: float) -> None:
    """Hours of recording staged in a second: second call of each (warm), features to hypnogram."""
    print(f"two channels, {hours:g} h        warm s   h/s")
    rodent, human = night(hours, 200.0, "emg", "rodent3", 4.0), night(hours, 100.0, "eog", "aasm5", 30.0)
    report("rules, 4 s, 200 Hz", hours, lambda: SleepStager(stages="rodent3", method="rules").predict(rodent))
    rodents = SleepStager(stages="rodent3").fit(night(1.0, 200.0, "emg", "rodent3", 4.0))
    report("boosting, 4 s, 200 Hz", hours, lambda: rodents.predict(rodent))
    humans = SleepStager().fit(night(2.0, 100.0, "eog", "aasm5", 30.0))
    report("boosting, 30 s, 100 Hz", hours, lambda: humans.predict(human))
    if importlib.util.find_spec("yasa") is None:
        print("YASA                       absent")
        return
    import mne
    import yasa

    values = np.concatenate([s.read() for s in human.signals.values()], axis=1).T * 1e-6
    raw = mne.io.RawArray(values, mne.create_info(["C4", "EOG"], 100.0, ["eeg", "eog"], verbose=False), verbose=False)
    report("YASA, 30 s, 100 Hz", hours, lambda: yasa.SleepStaging(raw, eeg_name="C4", eog_name="EOG").predict())


def report(name: str, hours: float, work: Callable[[], object]) -> None:
    work()
    begin = time.perf_counter()
    work()
    spent = time.perf_counter() - begin
    print(f"{name:<26} {spent:6.2f} {hours / spent:5.1f}")


def night(hours: float, rate: float, second: str, stages: str, epoch: float) -> Recording:
    """Noise whose slow power and second channel follow a random hypnogram."""
    rng = np.random.default_rng(0)
    n = int(hours * 3600 / epoch)
    codes = np.repeat(rng.integers(0, 3 if stages == "rodent3" else 5, n // 10 + 1), 10)[:n]
    gain = np.repeat(1.0 + codes, int(epoch * rate))
    x = rng.standard_normal((len(gain), 2))
    x[:, 0] += 3 * gain * np.sin(2 * np.pi * 2 * np.arange(len(gain)) / rate)
    x[:, 1] *= gain
    signals = {k: {"values": x[:, i : i + 1], "rate": rate, "unit": "uV", "kind": k} for i, k in enumerate(("eeg", second))}
    return Recording.from_arrays(f"night_{second}", signals=signals, labels={"scoring": Hypnogram(codes, stages, epoch)})


# -- agreement ------------------------------------------------------------------------------------------------------
def mouse(folder: Path) -> None:
    """Rules on one real mouse with EEG and rectified EMG: a smoke test, it has two REM bouts."""
    eeg, emg, codes = (np.load(folder / "mouse-eeg-emg" / f"{k}_Acq4_hr0.npy") for k in ("EEG", "EMG", "States"))
    reference = Hypnogram.from_stages([("UNS", "WAKE", "NREM", "REM")[int(c)] for c in codes], epoch=4.0)
    signals = {k: {"values": v, "rate": 200.0, "kind": k} for k, v in (("eeg", eeg), ("emg", emg))}
    h = SleepStager(stages="rodent3", method="rules").predict(Recording.from_arrays("mouse", species="mouse", signals=signals))
    e = evaluate(h, reference)
    low, high = e["kappa_interval"]
    f1 = ", ".join(f"{k} {v:.2f}" for k, v in e["f1"].items())
    print(f"mouse-eeg-emg, rules: kappa {e['kappa']:.3f} [{low:.3f}, {high:.3f}], F1 {f1} (n = {e['n']} epochs; quality {h.attrs['quality']})")


def band_powers(folder: Path) -> None:
    """Boosting on Sleep-EDF band powers; fold of a subject = rank of its id modulo 4, the folds of the LightGBM reference (mean subject kappa 0.701)."""
    recordings = [features(p) for p in sorted((folder / "human-sleepedf-bandpower").glob("*.npz"))]
    ids = sorted({int(r.subject) for r in recordings})
    pairs, begin = [], time.perf_counter()
    for fold in range(4):
        test = [r for r in recordings if ids.index(int(r.subject)) % 4 == fold]
        stager = SleepStager().fit([r for r in recordings if r not in test], labels="scoring")
        pairs += [(r.subject, stager.predict(r), r.labels["scoring"]) for r in test]
    e = evaluate_many(pairs)
    low, high = e["kappa_subjects_interval"]
    print(f"Sleep-EDF band powers, 4 folds: mean subject kappa {e['kappa_subjects']:.4f} [{low:.3f}, {high:.3f}], pooled {e['kappa']:.4f}, "
          f"macro-F1 {e['macro_f1']:.3f}, ECE {e['ece']:.3f}, {e['n_subjects']} subjects, {time.perf_counter() - begin:.0f} s")  # fmt: skip
    print("  F1", {k: round(v, 3) for k, v in e["f1"].items()}, "fraction bias", {k: round(v, 4) for k, v in e["fraction_bias"].items()})


def features(path: Path) -> Recording:
    d = np.load(path)
    x, y = d["features"].reshape(len(d["labels"]), -1), d["labels"]
    scoring = Hypnogram.from_stages([STAGES[k] if k >= 0 else "UNS" for k in y], epoch=30.0, stage_set="aasm5")
    stream = {"values": x, "rate": 1 / 30, "kind": "features"}
    return Recording.from_arrays(path.stem, path.stem.split("__")[0], "human", signals={"power": stream}, labels={"scoring": scoring})


if __name__ == "__main__":
    main()
