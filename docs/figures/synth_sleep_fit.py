"""Fit of the synthetic sleep to scored sleep: shares, bout lengths and transitions by stage, night by night and together.

Usage: python docs/figures/synth_sleep_fit.py FOLDER_OF_REAL_RECORDINGS

The folder holds human-sleepedf-hypnograms (EDF+ hypnograms) and mouse-eeg-emg (one mouse, 4-s labels). Nights run from the first to the last epoch of sleep.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainmu.core import Hypnogram
from brainmu.core.metrics import accuracy, cohen_kappa
from brainmu.synth.effects import Mechanism, live
from brainmu.synth.scorer import ScorerModel, scorings
from brainmu.synth.sleep import HumanSleep, RodentSleep, human_bouts, score

HUMAN = ("W", "N1", "N2", "N3", "R")
RODENT = ("WAKE", "NREM", "REM")
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_CODES = {"Sleep stage W": "W", "Sleep stage 1": "N1", "Sleep stage 2": "N2", "Sleep stage 3": "N3", "Sleep stage 4": "N3", "Sleep stage R": "R"}


@dataclass
class Fit:
    """What a set of scored nights looks like.

    Attributes
    ----------
    stages : tuple of str
    share : float64 (night, stage)
    bouts : dict of stage to float64 (bout,), s
        Lengths of all bouts of all nights.
    moves : float64 (stage, stage)
        Number of direct changes from stage to stage.
    changes : float64 (night,), 1/h
        Changes of stage an hour.
    hours : float64 (night,)
    """

    stages: tuple[str, ...]
    share: np.ndarray
    bouts: dict[str, np.ndarray]
    moves: np.ndarray
    changes: np.ndarray
    hours: np.ndarray

    @property
    def chance(self) -> np.ndarray:
        """Chance (stage, stage) that a bout of a stage leads to each other one."""
        return self.moves / np.maximum(self.moves.sum(1, keepdims=True), 1)

    def quantiles(self, stage: str) -> np.ndarray:
        return np.quantile(self.bouts[stage], QUANTILES) if len(self.bouts[stage]) else np.full(len(QUANTILES), np.nan)


def describe(nights: list[np.ndarray], stages: tuple[str, ...], epoch: float) -> Fit:
    """Summarise nights, each an array (epoch,) of stage names; other names (unscored, movement) belong to no bout."""
    bouts: dict[str, list[float]] = {s: [] for s in stages}
    moves = np.zeros((len(stages), len(stages)))
    for night in nights:
        runs = [(str(s), sum(1 for _ in g)) for s, g in itertools.groupby(night)]
        for s, n in runs:
            if s in bouts:
                bouts[s].append(n * epoch)
        for (a, _), (b, _) in itertools.pairwise(runs):
            if a in bouts and b in bouts:
                moves[stages.index(a), stages.index(b)] += 1
    hours = np.array([len(n) * epoch / 3600 for n in nights])
    changes = np.array([np.sum(n[1:] != n[:-1]) for n in nights]) / hours
    share = np.array([[np.mean(n == s) for s in stages] for n in nights])
    return Fit(stages, share, {s: np.array(v) for s, v in bouts.items()}, moves, changes, hours)


def asleep(night: np.ndarray, sleep: tuple[str, ...]) -> np.ndarray:
    """A night from its first to its last epoch of sleep."""
    found = np.flatnonzero(np.isin(night, sleep))
    return night[found[0] : found[-1] + 1]


def real_nights(folder: Path) -> list[np.ndarray]:
    """Stage names (epoch,) of each scored human night."""
    import mne

    out = []
    for file in sorted((folder / "human-sleepedf-hypnograms").glob("*.edf")):
        notes = mne.read_annotations(file)
        night = np.array([_CODES.get(d, "UNS") for d, n in zip(notes.description, notes.duration) for _ in range(round(n / 30))])
        out.append(asleep(night, HUMAN[1:]))
    return out


def synthetic_nights(n: int, hours: float = 8.0, disagreement: float = 0.0) -> list[np.ndarray]:
    """Stage names (epoch,) of synthetic human nights, as a scorer writes them."""
    out = []
    for seed in range(n):
        rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
        bouts = human_bouts(HumanSleep(), hours * 3600, rng)
        scored = scorings(ScorerModel(disagreement=disagreement), score(bouts, 30.0, "aasm5", 0.0, hours * 3600), bouts, rng, (seed, 2))["scoring"]
        out.append(asleep(np.array(scored.stages_list()), HUMAN[1:]))
    return out


def real_mouse(folder: Path) -> list[np.ndarray]:
    codes = np.load(folder / "mouse-eeg-emg" / "States_Acq4_hr0.npy").ravel().astype(int)
    return [np.array(["UNS", *RODENT])[codes]]


def synthetic_mice(n: int, hours: float = 2.0) -> list[np.ndarray]:
    lives = [live(Mechanism(), RodentSleep(), 0.0, hours * 3600, np.random.default_rng(seed)) for seed in range(n)]
    return [np.array(score(x.bouts, 4.0, "rodent3", 0.0, hours * 3600).stages_list()) for x in lives]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance of two samples."""
    grid = np.concatenate([a, b])
    return float(np.abs(np.searchsorted(np.sort(a), grid, side="right") / len(a) - np.searchsorted(np.sort(b), grid, side="right") / len(b)).max())


def _night_table(name: str, fit: Fit) -> None:
    print(f"\n{name}, each (hours; changes an hour; share of each stage in %)")
    for hours, changes, share in zip(fit.hours, fit.changes, fit.share):
        print(f"  {hours:5.1f} h  {changes:5.1f}  " + "  ".join(f"{s} {100 * x:4.1f}" for s, x in zip(fit.stages, share)))


def _comparison(real: Fit, made: Fit, unit: float, unit_name: str) -> None:
    print(f"\nstage   share in % (SD over nights): real | synthetic    bouts an hour    bout quantiles {QUANTILES} in {unit_name}: real | synthetic    KS")
    for i, s in enumerate(real.stages):
        rate = [len(f.bouts[s]) / f.hours.sum() for f in (real, made)]
        q = [" ".join(f"{x / unit:5.1f}" for x in f.quantiles(s)) for f in (real, made)]
        shares = [f"{100 * f.share[:, i].mean():4.1f} ({100 * f.share[:, i].std():4.1f})" for f in (real, made)]
        gap = distance(real.bouts[s], made.bouts[s])
        print(f"{s:5}   {shares[0]} | {shares[1]}    {rate[0]:4.1f} | {rate[1]:4.1f}    {q[0]} | {q[1]}    {gap:.2f} (n = {len(real.bouts[s])})")
    print(f"changes of stage an hour: {real.changes.mean():.1f} ({real.changes.std():.1f}) | {made.changes.mean():.1f} ({made.changes.std():.1f})")
    print("transition probabilities in %, from row to column: real | synthetic (n real)")
    for i, s in enumerate(real.stages):
        row = ["  ".join(f"{100 * x:3.0f}" for x in f.chance[i]) for f in (real, made)]
        print(f"{s:5}   {row[0]}  |  {row[1]}   ({real.moves[i].sum():.0f})")


def _course(name: str, nights: list[np.ndarray]) -> None:
    parts = [[np.mean(part == s) for part in np.array_split(n, 4)] for n in nights for s in ("N3", "R")]
    n3, rem = (100 * np.mean(parts[k::2], axis=0) for k in (0, 1))
    print(f"{name:10} share in % by quarter of the night: N3 {' '.join(f'{x:4.1f}' for x in n3)}   R {' '.join(f'{x:4.1f}' for x in rem)}")


def _day(n: int = 12) -> None:
    """The second of two days of synthetic mice."""
    sleep = RodentSleep(drive=True)
    t = np.arange(86400.0, 172800.0, 10.0)
    zeitgeber = (sleep.zeitgeber + t / 3600) % 24
    asleep, need, waking = [], [], []
    for seed in range(n):
        life = live(Mechanism(), sleep, 0.0, 172800.0, np.random.default_rng(seed))
        bouts = life.bouts
        asleep.append((bouts["stage"].to_numpy() != "WAKE")[np.searchsorted(bouts["start"].to_numpy(), t, side="right") - 1])
        need.append(np.interp(t, life.time, life.need))
        wake = bouts[(bouts.stage == "WAKE") & (bouts.start >= 86400)]
        dark = ((sleep.zeitgeber + wake.start / 3600) % 24 >= 12).to_numpy()
        length = (wake.stop - wake.start).to_numpy()
        waking.append([(length[~dark] > 600).sum(), (length[dark] > 600).sum(), length[~dark].max() / 60, length[dark].max() / 60])
    share, level = np.array(asleep), np.array(need)
    for name, hours in (("light", zeitgeber < 12), ("dark", zeitgeber >= 12)):
        print(f"sleep in the {name}: {100 * share[:, hours].mean():.0f} % (SD over {n} mice {100 * share[:, hours].mean(1).std():.0f})")
    by = [(zeitgeber >= h) & (zeitgeber < h + 3) for h in range(0, 24, 3)]
    print("by 3 h from lights-on: sleep in % " + " ".join(f"{100 * share[:, b].mean():.0f}" for b in by) + ", process S "
          + " ".join(f"{level[:, b].mean():.2f}" for b in by))  # fmt: skip
    print("waking above 10 min, light and dark: {:.1f} and {:.1f} a day; the longest {:.0f} and {:.0f} min".format(*np.mean(waking, axis=0)))


def _agreement(species: str, disagreement: float, n: int = 12) -> None:
    """How far three scorers of one recording agree with one another and with the truth."""
    kappa, agree, right = [], [], []
    for seed in range(n):
        rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
        if species == "human":
            bouts = human_bouts(HumanSleep(), 28800.0, rng)
            truth = score(bouts, 30.0, "aasm5", 0.0, 28800.0)
        else:
            bouts = live(Mechanism(), RodentSleep(), 0.0, 14400.0, rng).bouts
            truth = score(bouts, 4.0, "rodent3", 0.0, 14400.0)
        scored = list(scorings(ScorerModel(scorers=3, disagreement=disagreement), truth, bouts, rng, (seed, 2)).values())
        right += [accuracy(_counts(truth, x)) for x in scored]
        pairs = [_counts(a, b) for a, b in itertools.combinations(scored, 2)]
        kappa += [cohen_kappa(c) for c in pairs]
        agree += [accuracy(c) for c in pairs]
    print(f"{species:6} disagreement {disagreement:g}: two scorers agree on {100 * np.mean(agree):.0f} % (kappa {np.mean(kappa):.2f}, SD {np.std(kappa):.2f}); "
          f"one is right in {100 * np.mean(right):.0f} %")  # fmt: skip


def _counts(a: Hypnogram, b: Hypnogram) -> np.ndarray:
    out = np.zeros((len(a.stages), len(a.stages)), dtype=int)
    np.add.at(out, (a.codes, b.codes), 1)
    return out


def main() -> None:
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit("usage: python docs/figures/synth_sleep_fit.py FOLDER_OF_REAL_RECORDINGS")
    folder = Path(sys.argv[1])
    nights, made = real_nights(folder), synthetic_nights(100)
    real = describe(nights, HUMAN, 30.0)
    print(f"HUMANS: {len(nights)} scored nights of Sleep-EDF beside {len(made)} synthetic nights of 8 h (majority of the true bouts)")
    _night_table("real nights", real)
    _comparison(real, describe(made, HUMAN, 30.0), 60.0, "min")
    _course("real", nights)
    _course("synthetic", made)
    scored = describe(synthetic_nights(100, disagreement=1.0), HUMAN, 30.0)
    print("\nthe same nights as a scorer with the published errors writes them")
    _comparison(real, scored, 60.0, "min")
    mouse, mice = describe(real_mouse(folder), RODENT, 4.0), describe(synthetic_mice(40), RODENT, 4.0)
    print("\nMICE: one mouse scored for 22 minutes beside 40 synthetic mice of 2 h")
    _comparison(mouse, mice, 1.0, "s")
    print("\nA DAY of synthetic mice, clock and need for sleep on")
    _day()
    print("\nSCORERS, three of each of 12 recordings")
    for species, disagreement in (("human", 1.0), ("human", 0.8), ("mouse", 1.0), ("mouse", 0.8)):
        _agreement(species, disagreement)


if __name__ == "__main__":
    main()
