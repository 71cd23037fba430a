"""Rodent stages without labels: slow waves, theta and muscle tone, each split at the dip of its own histogram.

NREM is where slow waves are high, REM where they are low while theta is high and muscles are silent, WAKE the rest.
A threshold is crossed only by going half-way to the other mode (sticky triggers), bouts shorter than a few seconds
are absorbed, and every recording gets a quality grade with its reasons: never silently wrong.

References
----------
Watson, Levenstein, Greene, Gelinas & Buzsáki 2016, Neuron 90:839 (the rules); Schomburg et al. 2014, Neuron 84:470 (EMG from LFP).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core.hypnogram import UNSCORED, Hypnogram
from brainmu.core.recording import Recording
from brainmu.core.signal import Signal
from brainmu.errors import InputError, MissingDataError
from brainmu.sleep.frames import Grid, brain_measures, grid_of, lfp_emg, muscle_level
from brainmu.sleep.sites import unlike_stages
from brainmu.sleep.thresholds import Threshold, find_threshold, sticky

__all__ = ["RuleSettings", "stage_by_rules"]

WAKE, NREM, REM = 0, 1, 2

_EVEN = 0.15
"""Range of the muscle level (log10 amplitude) over ten minutes below which it is noise alone.

White noise sampled at 100 to 1000 Hz has a range of 0.05 to 0.13, planted animals that wake and sleep meanwhile 0.7 or more, a real mouse 0.22 or more.
"""

_LEAST = 0.1
"""Share of the recording that a channel must cover to be used where none covers half of it."""


@dataclass(frozen=True)
class RuleSettings:
    """What the rules assume. Times in s.

    Parameters
    ----------
    smooth : float
        SD of the Gaussian over slow-wave and theta measures (Watson: 10-15 s windows; staging by eye of 4-s epochs is sharper).
    smooth_muscle : float
        SD of the Gaussian over the muscle level.
    min_bout : float
        Bouts shorter than this are absorbed by their neighbours.
    wake_before_rem : float
        REM after a longer bout of wakefulness counts as WAKE (healthy rodents enter REM from NREM); infinity allows it always.
    """

    smooth: float = 3.0
    smooth_muscle: float = 1.5
    min_bout: float = 4.0
    wake_before_rem: float = 20.0


@dataclass
class Evidence:
    """The three measures on frames and how each was split."""

    grid: Grid
    slow: NDArray[np.float64]
    theta: NDArray[np.float64]
    muscle: NDArray[np.float64]
    thresholds: dict[str, Threshold] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def stage_by_rules(
    recording: Recording, epoch: float = 4.0, *, settings: RuleSettings | None = None, start: float | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Hypnogram:  # fmt: skip
    """Stage a rodent recording from EEG or LFP, and EMG or (>= 1,250 Hz, several sites) EMG from LFP.

    Parameters
    ----------
    recording : Recording or Session
        Channels are found by kind: eeg/lfp and emg. Any unit; raw or rectified EMG.
    epoch : float, s
        1 to 10.
    settings : RuleSettings or None
    start : float or None, s
        Where the first epoch begins; the first sample of the signals used where not given.

    Returns
    -------
    Hypnogram
        WAKE NREM REM with probabilities; UNS where a measure is missing. ``attrs``: ``quality`` ("good", "fair" or "poor"), ``reasons`` (sentences),
        ``thresholds`` (how each measure was split), ``channels``, ``muscle`` ("emg" or "lfp"), ``centred`` (True).

    Raises
    ------
    MissingDataError
        Without EEG/LFP, or without any measure of muscle tone in a tenth of the recording; the message says why.

    References
    ----------
    Watson et al. 2016, Neuron 90:839.
    """
    if not 1.0 <= epoch <= 10.0:
        raise InputError(f"rules stage epochs of 1 to 10 s, got {epoch:g} s: choose one in that range (rodents are scored at 2.5 to 10 s)")
    settings = settings or RuleSettings()
    evidence = _gather(recording, epoch, settings, start, progress)
    state, proba = _decide(evidence, settings)
    quality, reasons = _grade(evidence, state, unlike_stages(recording, "rodent3"))
    grid = evidence.grid
    votes = np.stack([(state == k).reshape(grid.n, grid.per).sum(1) for k in (WAKE, NREM, REM)], axis=1)
    p = grid.per_epoch(proba)
    # The vote of the frames decides; the evidence breaks ties.
    codes = np.argmax(votes + 0.5 * np.nan_to_num(p), axis=1).astype(np.int8)
    unscored = (votes.sum(1) == 0) | ~np.isfinite(p).all(1)
    codes[unscored], p[unscored] = UNSCORED, np.nan
    attrs: dict[str, Any] = {
        "method": "rules", "quality": quality, "reasons": reasons, "thresholds": {k: t.to_dict() for k, t in evidence.thresholds.items()},
        "channels": evidence.chosen, "muscle": evidence.chosen["muscle_from"], "centred": True,
    }  # fmt: skip
    return Hypnogram(codes, "rodent3", epoch, grid.start, p.astype(np.float32), scorer="brainmu rules", attrs=attrs)


# -- evidence -------------------------------------------------------------------------------------------------------
def _gather(recording: Recording, epoch: float, settings: RuleSettings, start: float | None, progress: Callable[[str, float], None] | None) -> Evidence:
    brain = recording.signals_of("eeg", "lfp")
    brain = {k: s for k, s in brain.items() if s.rate is not None and s.rate >= 50}
    if not brain:
        have = ", ".join(f"{k} ({s.kind})" for k, s in recording.signals.items()) or "no signals"
        raise MissingDataError(f"{recording.id}: rules need an EEG or LFP signal of >= 50 Hz; the recording has {have}: fit a stager on what it has instead")
    emg = recording.signals_of("emg")
    correlated = {k: s for k, s in emg.items() if s.unit == "1" and s.attrs.get("derived")}
    emg = {k: s for k, s in emg.items() if k not in correlated}
    grid = grid_of(recording, [*brain.values(), *emg.values()], epoch, start)
    muscle, source, notes = _muscle(recording, brain, emg, correlated, grid)
    measures, names = _brain(brain, grid, progress)
    muscle = _smooth(muscle, settings.smooth_muscle / grid.step)
    notes += _doubt_channels(names, measures)
    if not _covering(measures["log_delta"]).any():
        raise MissingDataError("rules found no EEG or LFP channel with data in a tenth of the frames or more: check for flat or missing channels")
    t_muscle = find_threshold(muscle, "muscle")
    slow, t_slow, slow_name = _best_slow(measures, names, muscle, settings.smooth / grid.step)
    theta, theta_name = _best_theta(measures, names, slow < t_slow.value, settings.smooth / grid.step)
    restricted = (slow < t_slow.value) & (muscle < t_muscle.value)
    t_theta = _theta_threshold(theta, slow >= t_slow.value, restricted)
    return Evidence(
        grid, slow, theta, muscle, {"slow": t_slow, "theta": t_theta, "muscle": t_muscle},
        {"slow": slow_name, "theta": theta_name, "muscle_from": source}, notes,
    )  # fmt: skip


def _muscle(
    recording: Recording, brain: dict[str, Signal], emg: dict[str, Signal], correlated: dict[str, Signal], grid: Grid
) -> tuple[NDArray[np.float64], str, list[str]]:  # fmt: skip
    """Muscle level (frame,), where it came from, and notes.

    An EMG that covers half of the recording comes first, then the correlation of LFP sites as it was stored or as it can be had, then an EMG that covers less.
    """
    level, notes = _by_emg(emg, grid) if emg else (None, [])
    if level is not None and np.isfinite(level).mean() >= 0.5:
        return level, "emg", notes
    by_sites, why = _by_sites(brain, correlated, grid)
    if by_sites is not None:
        return by_sites[0], "lfp", [by_sites[1]] + ([] if level is None else ["the EMG covers less than half of the recording and was left out"])
    if level is not None:
        return level, "emg", notes
    said = "; ".join([*notes, "every EMG channel is flat or missing"]) if emg else "no EMG channel"
    raise MissingDataError(f"{recording.id}: rules cannot tell REM from wakefulness without muscle tone ({said}{why})")


def _by_emg(emg: dict[str, Signal], grid: Grid) -> tuple[NDArray[np.float64] | None, list[str]]:
    """Mean level (frame,) of the EMG channels that cover enough of the recording, None where none does, and what was assumed of them."""
    levels, notes = [], []
    for s in emg.values():
        level, said = muscle_level(s, grid)
        levels.append(level)
        notes += said
    level = np.concatenate(levels, axis=1).astype(np.float64)
    usable = _covering(level)
    if not usable.any():
        return None, notes
    z = level[:, usable] - np.nanmedian(level[:, usable], axis=0)
    count = np.isfinite(z).sum(axis=1)
    return np.where(count > 0, np.nansum(z, axis=1) / np.maximum(count, 1), np.nan), notes


def _by_sites(brain: dict[str, Signal], correlated: dict[str, Signal], grid: Grid) -> tuple[tuple[NDArray[np.float64], str] | None, str]:
    """Muscle level (frame,) from LFP sites with a note, or None; and why not."""
    why = ""
    for name, s in correlated.items():
        x, t = s.read()[:, 0].astype(np.float64), s.read_times()
        level = np.interp(grid.centres, t, x, left=np.nan, right=np.nan) if len(t) else np.full(len(grid.centres), np.nan)
        if np.isfinite(level).mean() > 0.5:
            return (level, f"muscle tone is read from {name!r}, the 300-600 Hz correlation of LFP sites"), why
        why += f"; {name} is missing for most of the time"
    for name, s in brain.items():
        if "lfp" not in set(s.channels["kind"]):
            continue
        try:
            level = lfp_emg(s, grid).astype(np.float64)
        except MissingDataError as error:
            why += f"; from {name}: {error}"
            continue
        return (level, "muscle tone is read from the 300-600 Hz correlation of LFP sites"), why
    return None, why


def _covering(x: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Channels (channel,) of measures (frame, channel) to use: those that cover half of the frames, or where none does as many as the best of them."""
    share = np.isfinite(x).mean(axis=0)
    return (share >= min(0.5, float(share.max()))) & (share >= _LEAST)


def _brain(brain: dict[str, Signal], grid: Grid, progress: Callable[[str, float], None] | None) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """Measures (frame, channel) of all EEG and LFP channels (at most 16 a signal, evenly chosen), and the channels' names."""
    parts: dict[str, list[NDArray[np.float32]]] = {}
    names: list[str] = []
    for i, (name, s) in enumerate(brain.items()):
        which = np.unique(np.linspace(0, s.n_channels - 1, min(s.n_channels, 16)).astype(int))
        picked = s.pick(which) if len(which) < s.n_channels else s
        told = None if progress is None else lambda f, i=i: progress("spectra", (i + f) / len(brain))
        for key, value in brain_measures(picked, grid, shape=False, progress=told).items():
            parts.setdefault(key, []).append(value)
        names += [f"{name}/{c}" for c in picked.names]
    return {k: np.concatenate(v, axis=1).astype(np.float64) for k, v in parts.items()}, names


def _best_slow(m: dict[str, NDArray[np.float64]], names: list[str], muscle: NDArray[np.float64], sd: float) -> tuple[NDArray[np.float64], Threshold, str]:
    """The slow-wave measure whose histogram is split best while it opposes muscle tone: delta share, delta power or spectral slope, of one channel."""
    candidates = {"delta share": m["log_delta"] - m["log_broad"], "delta power": m["log_delta"], "spectral slope": m["slope"]}
    best: tuple[float, NDArray[np.float64], Threshold, str] | None = None
    use = _covering(m["log_delta"])
    for what, value in candidates.items():
        for c, name in enumerate(names):
            if not use[c]:
                continue
            x = _smooth(value[:, c], sd)
            try:
                t = find_threshold(x, "slow")
            except MissingDataError:  # this channel never changes; another may
                continue
            both = np.isfinite(x) & np.isfinite(muscle)
            # Slow waves come with quiet muscles; a split that does not (movement artefact, dying electrode) is no sleep.
            opposed = -_rank_correlation(x[both], muscle[both])
            score = t.separation * (0.25 + max(0.0, opposed))
            if best is None or score > best[0]:
                best = (score, x, t, f"{what} of {name}")
    if best is None:
        raise MissingDataError("rules found no EEG or LFP channel whose slow waves vary: check for flat or synthetic channels")
    return best[1], best[2], best[3]


def _best_theta(m: dict[str, NDArray[np.float64]], names: list[str], not_slow: NDArray[np.bool_], sd: float) -> tuple[NDArray[np.float64], str]:
    """Theta share (5-10 of 2-20 Hz) of the channel where it reaches highest outside NREM (the hippocampus, or the cortex above it)."""
    share = m["log_rodent_theta"] - m["log_theta_surround"]
    use = _covering(share)
    top = [np.nanpercentile(share[not_slow, c], 90) if use[c] and np.isfinite(share[not_slow, c]).any() else -np.inf for c in range(len(names))]
    c = int(np.argmax(top))
    return _smooth(share[:, c], sd), names[c]


def _theta_threshold(theta: NDArray[np.float64], slow: NDArray[np.bool_], restricted: NDArray[np.bool_]) -> Threshold:
    """Split theta where it matters, among quiet frames without slow waves; where these are too few or of one kind, above what NREM shows."""
    x = theta[restricted & np.isfinite(theta)]
    if len(x) >= 40:
        t = find_threshold(x, "theta")
        # A dip between humps that overlap is a wrinkle of one state: quiet frames may all be REM.
        if t.method == "dip" and t.separation >= 2:
            return t
    nrem = theta[slow & np.isfinite(theta)]
    if len(nrem) < 20:
        return find_threshold(theta, "theta")
    # NREM is the reference that every recording has: REM theta stands clear of it, quiet wakefulness less so.
    low, spread = float(np.median(nrem)), float(np.percentile(nrem, 84) - np.median(nrem))
    high = float(np.percentile(theta[~slow & np.isfinite(theta)], 90)) if (~slow & np.isfinite(theta)).any() else low + 4 * spread
    value = min(low + 1.5 * spread, 0.5 * (low + high)) if high > low else low + 1.5 * spread
    return Threshold(
        "theta",
        value,
        "stated",
        low,
        max(high, value + spread),
        0.0,
        (high - low) / max(spread, 1e-9),
        "theta among quiet frames has no dip: set above the NREM range",
    )


def _doubt_channels(names: list[str], m: dict[str, NDArray[np.float64]]) -> list[str]:
    missing = [n for n, use in zip(names, _covering(m["log_delta"])) if not use]
    return [f"channel {n} is flat or missing in most frames and was left out" for n in missing]


# -- decision -------------------------------------------------------------------------------------------------------
def _decide(e: Evidence, settings: RuleSettings) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """State (frame,), -2 where nothing is known, and probabilities (frame, 3)."""
    t = e.thresholds
    slow, theta, quiet = sticky(e.slow, t["slow"]), sticky(e.theta, t["theta"]), ~sticky(e.muscle, t["muscle"])
    # Strong movement overrules slow waves: chewing and grooming put large slow deflections into EEG.
    moving = t["muscle"].probability(e.muscle) > 0.95
    state = np.where(slow & ~moving, NREM, np.where(theta & quiet & ~slow, REM, WAKE)).astype(np.int8)
    known = np.isfinite(e.slow) & np.isfinite(e.theta) & np.isfinite(e.muscle)
    state[~known] = UNSCORED
    state = absorb_short(state, settings.min_bout / e.grid.step)
    if np.isfinite(settings.wake_before_rem):
        state = _forbid_wake_to_rem(state, settings.wake_before_rem / e.grid.step)
    p_slow, p_theta, p_move = (t[k].probability(x) for k, x in (("slow", e.slow), ("theta", e.theta), ("muscle", e.muscle)))
    p_nrem = p_slow * (1 - 0.5 * p_move)
    p_rem = (1 - p_slow) * p_theta * (1 - p_move)
    soft = np.stack([1 - p_nrem - p_rem, p_nrem, p_rem], axis=1)
    hard = np.where((state >= 0)[:, None], np.eye(3)[np.maximum(state, 0)], np.nan)
    # Half the evidence of the moment, half the decision, which also knows the bout that the moment belongs to.
    return state, 0.5 * (soft + hard)


def absorb_short(state: NDArray[np.int8], shortest: float) -> NDArray[np.int8]:
    """Runs shorter than `shortest` frames take the state of their longer neighbour, shortest first; unscored runs stay."""
    s = state.copy()
    while True:
        first = np.flatnonzero(np.r_[True, np.diff(s) != 0])
        length = np.diff(np.r_[first, len(s)])
        code = s[first]
        short = np.flatnonzero((length < shortest) & (code >= 0))
        short = short[np.argsort(length[short], kind="stable")]
        for i in short:
            sides = [(length[j], code[j]) for j in (i - 1, i + 1) if 0 <= j < len(code) and code[j] >= 0]
            if sides:
                s[first[i] : first[i] + length[i]] = max(sides, key=lambda side: side[0])[1]
                break
        else:
            return s


def _forbid_wake_to_rem(state: NDArray[np.int8], longest: float) -> NDArray[np.int8]:
    """REM that follows more than `longest` frames of WAKE becomes WAKE; a brief arousal on the way from NREM does not make REM impossible."""
    s = state.copy()
    first = np.flatnonzero(np.r_[True, np.diff(s) != 0])
    length = np.diff(np.r_[first, len(s)])
    awake = 0
    for i, n in zip(first, length):
        if s[i] == REM and awake > longest:
            s[i : i + n] = WAKE
        awake = awake + n if s[i] == WAKE else 0
    return s


def _grade(e: Evidence, state: NDArray[np.int8], unlike: list[str]) -> tuple[str, list[str]]:
    """Quality of the staging and the reasons, worst first."""
    t, grave, mild = e.thresholds, list(unlike), []
    if e.chosen["muscle_from"] == "emg" and (at := _loose_wire(e.muscle, state, 300.0 / e.grid.step)) is not None:
        minutes = (e.grid.start + at * e.grid.step) / 60
        grave.append(f"the EMG changes its level for good at {minutes:.0f} min, as of a wire that comes loose: what was waking on its low side is called REM")
    if e.chosen["muscle_from"] == "emg" and (even := _even(e.muscle, e.slow >= t["slow"].value, round(600.0 / e.grid.step))).any():
        since, minutes = (e.grid.start + even.argmax() * e.grid.step) / 60, even.sum() * e.grid.step / 60
        (grave if even.mean() > 0.2 else mild).append(
            f"from {since:.0f} min on the EMG is for {minutes:.0f} min as even as noise while slow waves come and go, as of a plug that came loose"
        )
    for key, what in (("slow", "slow-wave"), ("muscle", "muscle")):
        if t[key].method != "dip":
            (grave if t[key].separation < 2 else mild).append(f"the {what} histogram has no dip ({t[key].note})")
    if t["theta"].method != "dip":
        mild.append(t["theta"].note or "the theta histogram has no dip")
    scored = state[state >= 0]
    if len(scored):
        share = [float((scored == k).mean()) for k in (WAKE, NREM, REM)]
        if min(share[:2]) < 0.02:
            grave.append(f"almost everything is one state (WAKE {share[0]:.0%}, NREM {share[1]:.0%}, REM {share[2]:.0%})")
        if share[REM] > 0.25:
            mild.append(f"REM makes {share[REM]:.0%} of the time, 5-15 % is usual")
        if share[REM] == 0:
            mild.append("no REM was found")
    unscored = float((state < 0).mean())
    if unscored > 0.02:
        lacking = {"EEG or LFP": ~(np.isfinite(e.slow) & np.isfinite(e.theta)), "muscle tone": ~np.isfinite(e.muscle)}
        which = " and ".join(f"{k} in {v.mean():.0%}" for k, v in lacking.items() if v.mean() > 0.005)
        (grave if unscored > 0.2 else mild).append(f"{unscored:.0%} of the recording is unscored, for want of {which}")
    seconds = len(state) * e.grid.step
    if seconds < 1800:
        length = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
        (grave if seconds < 300 else mild).append(f"{length} is short for histograms, an hour or more is wanted")
    if e.chosen["muscle_from"] == "lfp":
        mild.append("muscle tone is estimated from LFP")
    quality = "poor" if grave else "fair" if mild else "good"
    return quality, grave + mild + e.notes


def _loose_wire(level: NDArray[np.float64], state: NDArray[np.int8], least: float) -> int | None:
    """The frame at which the muscle level (frame,) leaves its range for good, and its low side is REM for more than a quarter; None where there is none.

    `least` frames or more lie on either side. An animal that falls asleep for good leaves the range of its waking too, but not for REM.
    """
    known = np.flatnonzero(np.isfinite(level))
    x, best = level[known], (0.0, None)
    for split in np.unique(np.linspace(0, len(x), 41).astype(int)):
        before, after = x[:split], x[split:]
        if min(len(before), len(after)) < max(least, 0.1 * len(x)):
            continue
        sides = (before, state[known[:split]]), (after, state[known[split:]])
        (low, found), (high, _) = sorted(sides, key=lambda side: float(np.median(side[0])))
        apart = float(np.percentile(high, 5) - np.percentile(low, 95))
        if apart > best[0] and (found == REM).mean() > 0.25:
            best = apart, int(known[split])
    return best[1]


def _even(level: NDArray[np.float64], slow: NDArray[np.bool_], n: int) -> NDArray[np.bool_]:
    """Frames (frame,) in a stretch of `n` or more over which the muscle level hardly moves though slow waves come and go.

    Muscles that are there twitch in ten minutes that hold sleep and something else; ten minutes of sound sleep alone may be this quiet, and say nothing.
    """
    from scipy.ndimage import maximum_filter1d, minimum_filter1d, uniform_filter1d

    if len(level) < n:
        return np.zeros(len(level), dtype=bool)
    filled = np.where(np.isfinite(level), level, np.inf)
    with np.errstate(invalid="ignore"):  # a missing frame is in no stretch
        still = maximum_filter1d(filled, n) - minimum_filter1d(filled, n) < _EVEN
    changing = np.abs(uniform_filter1d(slow.astype(np.float64), n) - 0.5) < 0.4
    middle = np.arange(len(level))
    inside = (middle >= n // 2) & (middle < len(level) - (n - 1) // 2)  # filters reflect what lies beyond the ends
    edges = np.zeros(len(level) + 1, dtype=np.int64)
    begin = middle[still & changing & inside] - n // 2
    np.add.at(edges, begin, 1)
    np.add.at(edges, begin + n, -1)
    return np.cumsum(edges)[:-1] > 0


def _smooth(x: NDArray[np.float64], sd: float) -> NDArray[np.float64]:
    """Gaussian smoothing over frames that skips missing ones; a missing frame stays missing."""
    from scipy.ndimage import gaussian_filter1d

    if sd <= 0:
        return x.copy()
    ok = np.isfinite(x)
    weight = gaussian_filter1d(ok.astype(np.float64), sd, mode="nearest", truncate=3.0)
    total = gaussian_filter1d(np.where(ok, x, 0.0), sd, mode="nearest", truncate=3.0)
    return np.where(ok, total / np.maximum(weight, 1e-12), np.nan)


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    rank = [np.argsort(np.argsort(v)) for v in (a, b)]
    return float(np.corrcoef(rank[0], rank[1])[0, 1])
