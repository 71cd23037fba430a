"""Train a classifier to tell synthetic from real windows and say what gave them away; prints the table of docs/explanation/synth.md.

Features are log powers in bands, each window's mean taken off (amplifiers' gains differ), and six shapes of the waveform. Whole groups
are held out: subjects where there are several, stretches of minutes where there is one.

Usage: python docs/figures/synth_classifier.py FOLDER_OF_REAL_RECORDINGS
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from real_recordings import dreams, mouse_ieeg
from scipy.signal import butter, sosfiltfilt, welch
from scipy.stats import kurtosis, skew
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.inspection import permutation_importance

import brainmu.synth

Windows = list[tuple[np.ndarray, int]]
"""Windows (window, sample) of one group, and the group's number."""


def features(x: np.ndarray, rate: float, bands: list[tuple[float, float]], shapes: bool) -> tuple[np.ndarray, list[str]]:
    """Features (window, feature) and their names of windows (window, sample)."""
    f, p = welch(x, rate, nperseg=int(2 * rate), axis=1)
    power = np.log(np.stack([p[:, (f >= a) & (f < b)].mean(1) for a, b in bands], axis=1) + 1e-12)
    power -= power.mean(1, keepdims=True)
    names = [f"{a:g}-{b:g} Hz" for a, b in bands]
    if not shapes:
        return power, names
    x = x - x.mean(1, keepdims=True)
    step = np.diff(x, axis=1)
    mobility = step.std(1) / x.std(1)
    waves = {
        "skewness": skew(x, axis=1), "kurtosis": kurtosis(x, axis=1), "skewness of steps": skew(step, axis=1), "kurtosis of steps": kurtosis(step, axis=1),
        "mobility": np.log(mobility), "complexity": np.log(np.diff(step, axis=1).std(1) / step.std(1) / mobility),
    }  # fmt: skip
    return np.c_[power, np.stack(list(waves.values()), axis=1)], names + list(waves)


def tell_apart(real: Windows, made: Windows, rate: float, bands: list[tuple[float, float]], shapes: bool) -> str:
    """Row of the table: accuracy on held-out groups (balanced), its interval over groups, chance, and the features that mattered most."""
    groups = [(x, g, label) for label, side in ((1, real), (0, made)) for x, g in side]
    names = features(groups[0][0][:1], rate, bands, shapes)[1]
    x = np.concatenate([features(w, rate, bands, shapes)[0] for w, _, _ in groups])
    y = np.concatenate([np.full(len(w), label) for w, _, label in groups])
    fold = np.concatenate([np.full(len(w), g) for w, g, _ in groups])
    scores, importance = [], np.zeros(len(names))
    for k in np.unique(fold):
        train, test = fold != k, fold == k
        weight = np.where(y[train] == 1, 0.5 / (y[train] == 1).mean(), 0.5 / (y[train] == 0).mean())
        model = HistGradientBoostingClassifier(max_iter=150, learning_rate=0.08, random_state=0).fit(x[train], y[train], sample_weight=weight)
        right = model.predict(x[test]) == y[test]
        scores.append(np.mean([right[y[test] == c].mean() for c in (0, 1)]))
        importance += permutation_importance(model, x[test], y[test], n_repeats=3, random_state=0, scoring="balanced_accuracy").importances_mean
    rng = np.random.default_rng(0)
    means = np.mean(rng.choice(scores, (2000, len(scores))), axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    first = np.argsort(-importance)[:3]
    why = ", ".join(f"{names[i]} ({importance[i] / len(scores):.2f})" for i in first)
    return f"{np.mean(scores):.2f} ({low:.2f} to {high:.2f}) | {len(scores)} | {why}"


def cut(x: np.ndarray, n: int) -> np.ndarray:
    """Windows (window, n) of a signal, one after the other."""
    return x[: len(x) // n * n].reshape(-1, n)


def mouse_eeg(folder: Path) -> tuple[Windows, Windows, float]:
    """4-s windows of one mouse's EEG and of synthetic cortex; 6 stretches of each held out in turn."""
    real = cut(np.load(folder / "mouse-eeg-emg" / "EEG_Acq4_hr0.npy").ravel().astype(float), 800)
    made = np.concatenate([cut(_cortex(seed), 800) for seed in range(3)])
    return _stretches(real, 6), _stretches(made, 6), 200.0


def _cortex(seed: int) -> np.ndarray:
    rec, _ = brainmu.synth.recording(hours=0.6, seed=seed, lfp_rate=200.0, n_cells=0, n_channels=1, run_minutes=0.0)
    return rec.signals["lfp"].read()[:, 1]


def _stretches(windows: np.ndarray, n: int) -> Windows:
    return [(part, k) for k, part in enumerate(np.array_split(windows, n))]


def intracranial(folder: Path) -> tuple[Windows, Windows, float]:
    """2-s windows of ten channels of two mice and of synthetic CA1 and cortex of two mice in waking; one animal of each held out."""
    real = [(np.concatenate([cut(c, 2000) for c in x.T.astype(float)]), k) for k, x in enumerate(mouse_ieeg(folder).values())]
    made = []
    for k in range(2):
        rec, truth = brainmu.synth.recording(hours=0.3, seed=40 + k, lfp_rate=1000.0, n_cells=0, n_channels=6, n_cortex=4, run_minutes=0.0)
        wake = truth.bouts[truth.bouts.stage == "WAKE"]
        a = float(wake.start.iloc[(wake.stop - wake.start).argmax()])
        x = rec.signals["lfp"].span(a, a + 60.0)[1].astype(float)
        made.append((np.concatenate([cut(c, 2000) for c in x.T]), k))
    return real, made, 1000.0


def human_n2(folder: Path) -> tuple[Windows, Windows, float]:
    """10-s windows of N2 of three subjects at 100 Hz and of three synthetic nights; one of each held out."""
    real, made = [], []
    for k, excerpt in enumerate(dreams(folder)[::2]):
        x = excerpt.signal
        if excerpt.rate == 200.0:
            x = sosfiltfilt(butter(6, 45.0, fs=200.0, output="sos"), x)[::2]
        real.append((np.concatenate([cut(x[int(a * 100) : int(b * 100)], 1000) for a, b in excerpt.asleep]), k))
        rec, truth = brainmu.synth.recording(hours=3.0, seed=60 + k, species="human", n_channels=3, lfp_rate=100.0)
        n2 = truth.bouts[truth.bouts.stage == "N2"]
        signal = rec.signals["eeg"].read()[:, 2].astype(float)
        made.append((np.concatenate([cut(signal[int(a * 100) : int(b * 100)], 1000) for a, b in zip(n2.start, n2.stop)])[:400], k))
    return real, made, 100.0


SETS: dict[str, tuple[Callable[[Path], tuple[Windows, Windows, float]], list[tuple[float, float]]]] = {
    "mouse EEG, 1-25 Hz": (mouse_eeg, [(1, 2), (2, 4), (4, 6), (6, 9), (9, 12), (12, 16), (16, 20), (20, 25)]),
    "mouse EEG, 0.5-80 Hz": (mouse_eeg, [(0.5, 1), (1, 4), (4, 9), (9, 16), (16, 25), (25, 40), (40, 60), (60, 80)]),
    "mouse intracranial EEG, 1-45 Hz": (intracranial, [(1, 2), (2, 4), (4, 6), (6, 9), (9, 12), (12, 16), (16, 25), (25, 45)]),
    "mouse intracranial EEG, 1-400 Hz": (intracranial, [(1, 4), (4, 9), (9, 16), (16, 30), (30, 50), (65, 90), (90, 150), (150, 250), (250, 400)]),
    "human N2, 1-20 Hz": (human_n2, [(1, 2), (2, 4), (4, 6), (6, 8), (8, 11), (11, 13), (13, 16), (16, 20)]),
}


def main() -> None:
    folder = Path(sys.argv[1])
    print("| windows, bands | features | balanced accuracy, groups held out | groups | what gave it away (accuracy lost when shuffled) |")
    print("|---|---|---|---|---|")
    for name, (load, bands) in SETS.items():
        real, made, rate = load(folder)
        for shapes in (False, True):
            print(f"| {name} | {'powers and shapes' if shapes else 'powers'} | {tell_apart(real, made, rate, bands, shapes)} |", flush=True)


if __name__ == "__main__":
    main()
