"""What a hypnogram says about sleep: amounts, latencies, bouts, transitions, as tidy tables with units."""

from __future__ import annotations

import numpy as np
import pandas as pd

from brainmu.core.hypnogram import Hypnogram
from brainmu.core.metrics import confusion
from brainmu.errors import InputError

__all__ = ["bout_survival", "bout_table", "cycles", "fragmentation", "micro_arousals", "statistics", "transitions"]


def statistics(hypnogram: Hypnogram) -> pd.DataFrame:
    """Sleep statistics, one row a measure: measure, stage, value, unit.

    Both stage sets give: time and share of each stage, total sleep time, sleep efficiency, sleep onset latency, REM latency from sleep onset,
    wake after sleep onset (to the end of the recording), bouts an hour and their lengths by stage, awakenings and stage shifts an hour. AASM adds the sleep
    period (from sleep onset to the last epoch of sleep) and sleep maintenance efficiency (sleep as a share of the scored epochs in it).

    ``recording`` is the whole hypnogram, from lights out to lights on where it was cut so (time in bed). Efficiency is sleep as a share of what is scored.
    Amounts, shares and bouts leave unscored epochs and artefacts out, which stand in ``unscored``; latencies and the sleep period are time on the clock and
    run across them. Sleep onset is the first epoch of any sleep stage (AASM); a latency that never ends is NaN.

    References
    ----------
    Berry et al., The AASM Manual for the Scoring of Sleep and Associated Events; Iber 2007.
    """
    h = hypnogram
    if not len(h):
        raise InputError("the hypnogram holds no epochs, expected at least one")
    minute = h.epoch / 60
    rows: list[tuple[str, str, float, str]] = []
    sleep = h.mask("NREM") | h.mask("REM")
    wake, rem = h.mask("WAKE"), h.mask("REM")
    scored = h.codes >= 0
    hours = scored.sum() * h.epoch / 3600
    onset = int(np.argmax(sleep)) if sleep.any() else -1
    last = int(len(h) - 1 - np.argmax(sleep[::-1])) if sleep.any() else -1
    tst = sleep.sum() * minute
    nan = float("nan")
    rows += [("recording", "", len(h) * minute, "min"), ("unscored", "", (~scored).sum() * minute, "min"), ("total sleep time", "", tst, "min")]
    rows += [("sleep efficiency", "", 100 * sleep.sum() / scored.sum() if scored.any() else nan, "%")]
    rows += [("sleep onset latency", "", onset * minute if onset >= 0 else nan, "min")]
    after = np.flatnonzero(rem[onset:]) if onset >= 0 else np.empty(0)
    rows += [("REM latency from sleep onset", "", after[0] * minute if len(after) else nan, "min")]
    rows += [("wake after sleep onset", "", wake[onset:].sum() * minute if onset >= 0 else nan, "min")]
    if h.stage_set == "aasm5":
        spt = (last - onset + 1) * minute if onset >= 0 else nan
        kept = 100 * sleep.sum() / scored[onset : last + 1].sum() if onset >= 0 else nan
        rows += [("sleep period", "", spt, "min"), ("sleep maintenance efficiency", "", kept, "%")]
    for i, s in enumerate(h.stages):
        n = int((h.codes == i).sum())
        rows += [("time", s, n * minute, "min"), ("share of scored time", s, 100 * n / scored.sum() if scored.any() else nan, "%")]
        if s not in ("W", "WAKE"):
            rows.append(("share of sleep", s, 100 * n / sleep.sum() if sleep.any() else nan, "%"))
            first = np.flatnonzero(h.codes[onset:] == i) if onset >= 0 else np.empty(0)
            rows.append(("latency from sleep onset", s, first[0] * minute if len(first) else nan, "min"))
    bouts = h.bouts()
    for s in h.stages:
        length = bouts.loc[bouts["stage"] == s, "duration"].to_numpy()
        rows += [
            ("bouts an hour", s, len(length) / hours if hours else nan, "1/h"),
            ("bout length, mean", s, float(length.mean()) if len(length) else nan, "s"),
        ]
        rows += [("bout length, median", s, float(np.median(length)) if len(length) else nan, "s")]
    pair = scored[:-1] & scored[1:]
    shifts = int((pair & (h.codes[:-1] != h.codes[1:])).sum())
    awakenings = int((sleep[:-1] & wake[1:]).sum())
    rows += [("stage shifts", "", shifts / hours if hours else nan, "1/h"), ("awakenings", "", awakenings / (tst / 60) if tst else nan, "1/h of sleep")]
    return pd.DataFrame(rows, columns=["measure", "stage", "value", "unit"])


def bout_table(hypnogram: Hypnogram) -> pd.DataFrame:
    """One row a bout: stage, start (s), duration (s), previous and next stage ("" at the ends), censored (touches an end or unscored time)."""
    b = hypnogram.bouts()[["stage", "start", "duration"]].copy()
    stages = b["stage"].tolist()
    b["previous"], b["next"] = ["", *stages[:-1]][: len(stages)], [*stages[1:], ""][: len(stages)]
    b["censored"] = b["previous"].isin(["", "UNS", "ART"]) | b["next"].isin(["", "UNS", "ART"])
    return b


def bout_survival(hypnogram: Hypnogram, stage: str | None = None) -> pd.DataFrame:
    """Kaplan-Meier survival of bouts, of one stage or of all: bouts cut by an end or a gap, on either side, are censored at what was seen of them.

    Returns
    -------
    DataFrame
        duration (s), at_risk, ended, survival, low, high (95 %, Greenwood's on the log-log scale), and for all stages `stage` first.

    References
    ----------
    Kaplan & Meier 1958, J. Am. Stat. Assoc. 53:457; Norman et al. 2006, Sleep 29:1625 (survival of sleep bouts).
    """
    if stage is None:
        parts = [bout_survival(hypnogram, s).assign(stage=s) for s in hypnogram.stages]
        whole = pd.concat([p for p in parts if len(p)] or parts[:1], ignore_index=True)
        return whole[["stage", *(c for c in whole if c != "stage")]]
    b = bout_table(hypnogram)
    b = b[b["stage"] == stage]
    if not len(b):
        return pd.DataFrame({"duration": [], "at_risk": [], "ended": [], "survival": [], "low": [], "high": []})
    length = b["duration"].to_numpy()
    cut = b["censored"].to_numpy()
    at = np.unique(length)
    risk = np.array([(length >= t).sum() for t in at])
    ended = np.array([((length == t) & ~cut).sum() for t in at])
    survival = np.cumprod(1 - ended / risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(np.cumsum(ended / (risk * (risk - ended)))) / np.abs(np.log(survival))
        low, high = survival ** np.exp(1.96 * error), survival ** np.exp(-1.96 * error)
    # Before the first ending nothing is known to vary, and after the last nothing is left that could.
    known = (survival > 0) & (survival < 1)
    low, high = np.where(known, low, survival), np.where(known, high, survival)
    return pd.DataFrame({"duration": at, "at_risk": risk, "ended": ended, "survival": survival, "low": low, "high": high})


def fragmentation(hypnogram: Hypnogram) -> pd.DataFrame:
    """How broken sleep is, one row a measure: measure, value, low, high, unit; rates an hour of sleep with exact 95 % Poisson intervals.

    Stage shifts (out of any sleep stage), awakenings (to wake), the sleep fragmentation index (awakenings and, in people, shifts to N1 from deeper sleep
    or REM), brief awakenings (at most 20 s in rodents; of one epoch in people, whose epochs hide what is shorter), arousals out of NREM and out of REM an
    hour of each, and the half-life of sleep: the time after which half of the sleep bouts (any stages, unbroken by wake) have ended, by Kaplan-Meier.

    References
    ----------
    Haba-Rubio et al. 2004, Sleep Med. 5:339 (the index); Norman et al. 2006, Sleep 29:1625 (survival of sleep).

    Raises
    ------
    InputError
        If nothing is scored as sleep.
    """
    h = hypnogram
    nrem, rem, wake = h.mask("NREM"), h.mask("REM"), h.mask("WAKE")
    sleep = nrem | rem
    if not sleep.any():
        raise InputError("the hypnogram holds no sleep, so there is nothing that could be broken: check its stages")
    a, b = slice(None, -1), slice(1, None)
    changed = sleep[a] & (h.codes[b] >= 0) & (h.codes[a] != h.codes[b])
    woken = sleep[a] & wake[b]
    lighter = (h.mask("N2") | h.mask("N3") | rem)[a] & h.mask("N1")[b] if h.stage_set == "aasm5" else np.zeros(len(woken), dtype=bool)
    brief = len(micro_arousals(h, longest=max(20.0, h.epoch) if h.stage_set == "rodent3" else h.epoch))
    of_sleep = sleep.sum() * h.epoch / 3600
    rows = [
        ("stage shifts", int(changed.sum()), of_sleep, "1/h of sleep"), ("awakenings", int(woken.sum()), of_sleep, "1/h of sleep"),
        ("sleep fragmentation index", int((woken | lighter).sum()), of_sleep, "1/h of sleep"), ("brief awakenings", brief, of_sleep, "1/h of sleep"),
        ("arousals from NREM", int((nrem[a] & wake[b]).sum()), nrem.sum() * h.epoch / 3600, "1/h of NREM"),
        ("arousals from REM", int((rem[a] & wake[b]).sum()), rem.sum() * h.epoch / 3600, "1/h of REM"),
    ]  # fmt: skip
    table = [(name, *(float(v / hours) if hours else float("nan") for v in (n, *_poisson(n))), unit) for name, n, hours, unit in rows]
    two = Hypnogram(np.where(sleep, 1, np.where(wake, 0, h.codes.clip(max=-1))), "rodent3", h.epoch, h.start)
    s = bout_survival(two, "NREM")
    half = [float(s.loc[s[c] <= 0.5, "duration"].min()) if (s[c] <= 0.5).any() else float("nan") for c in ("survival", "low", "high")]
    table.append(("half-life of sleep", *half, "s"))
    return pd.DataFrame(table, columns=["measure", "value", "low", "high", "unit"])


def _poisson(n: int) -> tuple[float, float]:
    """Exact 95 % interval of a Poisson mean of which `n` were counted."""
    from scipy.stats import chi2

    return (float(chi2.ppf(0.025, 2 * n) / 2) if n else 0.0), float(chi2.ppf(0.975, 2 * n + 2) / 2)


def transitions(hypnogram: Hypnogram) -> pd.DataFrame:
    """One row an ordered pair of stages: from, to, count, probability (of the next epoch), rate, rate_low, rate_high.

    Rates are 1/h of time in `from`, with exact 95 % Poisson limits. Steps into or out of unscored epochs count nowhere.

    References
    ----------
    Garwood 1936, Biometrika 28:437 (the interval).
    """
    h = hypnogram
    k = len(h.stages)
    m = confusion(h.codes[:-1], h.codes[1:], k)
    n = m.sum(1)
    rows = []
    for i, a in enumerate(h.stages):
        for j, b in enumerate(h.stages):
            p = m[i, j] / n[i] if n[i] else float("nan")
            hours = n[i] * h.epoch / 3600 if n[i] and i != j else float("nan")
            low, high = _poisson(int(m[i, j]))
            row = {"from": a, "to": b, "count": int(m[i, j]), "probability": p, "rate": m[i, j] / hours, "rate_low": low / hours, "rate_high": high / hours}
            rows.append(row | {"rate_unit": "1/h"})
    return pd.DataFrame(rows)


def cycles(hypnogram: Hypnogram, *, gap: float | None = None, nrem: float | None = None) -> pd.DataFrame:
    """NREM-REM cycles: cycle, start, stop (s), nrem, rem, wake (min).

    A cycle begins with NREM of at least `nrem` s since the last REM period and ends with the REM period that follows; REM parts less than
    `gap` s apart are one period. Defaults: 15 min each in people (Feinberg & Floyd 1979, Psychophysiology 16:283), 40 s and 30 s in rodents.
    """
    h = hypnogram
    human = h.stage_set == "aasm5"
    gap = (900.0 if human else 40.0) if gap is None else gap
    nrem = (900.0 if human else 30.0) if nrem is None else nrem
    periods = []
    for a, b in h.intervals("REM").bounds:
        if periods and a - periods[-1][1] < gap:
            periods[-1][1] = b
        else:
            periods.append([a, b])
    rows, since = [], h.start
    for _, stop in periods:
        i, j = round((since - h.start) / h.epoch), round((stop - h.start) / h.epoch)
        part = h.mask("NREM")[i:j]
        if part.sum() * h.epoch < nrem:
            continue
        first = i + int(np.argmax(part))
        amount = {k: float(h.mask(s)[first:j].sum() * h.epoch / 60) for k, s in (("nrem", "NREM"), ("rem", "REM"), ("wake", "WAKE"))}
        rows.append({"cycle": len(rows) + 1, "start": h.start + first * h.epoch, "stop": float(stop), **amount})
        since = float(stop)
    return pd.DataFrame(rows, columns=["cycle", "start", "stop", "nrem", "rem", "wake"])


def micro_arousals(hypnogram: Hypnogram, *, longest: float = 20.0) -> pd.DataFrame:
    """WAKE bouts of at most `longest` s between two sleep bouts: start, duration (s), previous, next.

    References
    ----------
    Watson et al. 2016, Neuron 90:839 (micro-arousals within sleep, < 40 s); 16-20 s is usual in mice with 4-s epochs.
    """
    b = bout_table(hypnogram)
    asleep = ["NREM", "REM", "N1", "N2", "N3", "R"]
    found = b["stage"].isin(["W", "WAKE"]) & (b["duration"] <= longest) & b["previous"].isin(asleep) & b["next"].isin(asleep)
    return b.loc[found, ["start", "duration", "previous", "next"]].reset_index(drop=True)
