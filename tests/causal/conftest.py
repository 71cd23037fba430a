"""A small structural simulator, written apart from the package's own so that it can referee it.

Everything happens an epoch at a time. At epoch k an animal in NREM has a pressure L_k (slow, measured perfectly or not), an event
with probability expit(a0 + a1 * L_k), and then leaves for WAKE with logit base_j + f(age) + gamma * L_k + effect * A_(k-1), else for REM.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from brainmu.core import EventTable, Hypnogram, Recording

EPOCH = 4.0


def expit(x):
    return 1 / (1 + np.exp(-x))


@dataclass
class Planted:
    """What is planted in a study."""

    effect: float = 0.0  # log odds of NREM->WAKE after an epoch with an event
    gamma: float = 0.0  # pressure on the hazard
    drive: float = 0.0  # pressure on events
    feedback: float = 0.0  # an event moves the pressure
    spread: float = 0.5  # SD between animals of the baseline
    effect_spread: float = 0.0  # SD between animals of the effect
    base: float = -3.2
    rate: float = -1.2
    contents: tuple[str, ...] = ()
    content_effects: tuple[float, ...] = ()
    trial_effect: float = 0.0
    trial_gap: int = 12  # epochs between trials


def simulate(seed: int, animals: int = 6, hours: float = 2.0, noise: float = 0.0, studies: int = 1, trials: bool = False, planted: Planted | None = None):
    """`studies` lists of recordings, all animals and studies stepped together."""
    p = planted or Planted()
    rng = np.random.default_rng(seed)
    m, n = animals * studies, round(hours * 3600 / EPOCH)
    base = p.base + p.spread * rng.standard_normal(m)
    effect = p.effect + p.effect_spread * rng.standard_normal(m)
    tone = p.trial_effect
    state = np.zeros(m, dtype=np.int8)  # 0 WAKE, 1 NREM, 2 REM
    age = np.zeros(m, dtype=int)
    tau = 300.0  # epochs
    pressure = rng.standard_normal(m)
    last = np.zeros(m)
    since, carry = np.full(m, 1000), np.zeros(m)
    coins = []
    stage, seen, events, kinds = np.empty((n, m), np.int8), np.empty((n, m)), np.zeros((n, m), bool), np.zeros((n, m), np.int8)
    onset_k, onset_m, assigned = [], [], []
    for k in range(n):
        stage[k], seen[k] = state, pressure
        nrem = state == 1
        age = np.where(nrem, age + 1, 0)
        a = nrem & (rng.random(m) < expit(p.rate + p.drive * pressure))
        events[k] = a
        dose = effect * last
        if p.contents:
            kinds[k] = rng.integers(0, len(p.contents), m)
            dose = np.asarray(p.content_effects)[kinds[k - 1]] * last if k else 0.0 * last
        if trials:
            since += 1
            start = nrem & (since >= p.trial_gap) & (age > 2) & (rng.random(m) < 0.3)
            coin = rng.random(m) < 0.5
            onset_k.append(np.full(start.sum(), k))
            onset_m.append(np.flatnonzero(start))
            assigned.append(coin[start])
            carry = np.where(start, np.where(coin, 2.0, 0.0), np.maximum(carry - 1, 0))
            since = np.where(start, 0, since)
        eta = base + 0.6 * np.exp(-age / 10) + p.gamma * pressure + dose + tone * (carry > 0)
        u = rng.random(m)
        wake = expit(eta)
        nxt = np.where(nrem, np.where(u < wake, 0, np.where(u < wake + 0.012, 2, 1)), state)
        v = rng.random(m)
        nxt = np.where(state == 0, np.where(v < 0.12, 1, 0), nxt)
        nxt = np.where(state == 2, np.where(v < 0.1, 0, 2), nxt)
        last = np.where(nrem & (nxt == 1), a, 0.0)
        pressure = pressure * (1 - 1 / tau) + np.sqrt(2 / tau) * rng.standard_normal(m) + p.feedback * a
        state = nxt.astype(np.int8)
    del coins
    jitter = rng.random((n, m)) * (EPOCH - 0.01)
    shown = seen + noise * rng.standard_normal((n, m))
    tk, tm, ta = (np.concatenate(x) if trials else np.empty(0, int) for x in (onset_k, onset_m, assigned))
    offset = rng.random(len(tk)) * (EPOCH - 0.1)
    out = []
    for i in range(m):
        k = np.flatnonzero(events[:, i])
        at = k * EPOCH + jitter[k, i]
        content = [p.contents[c] for c in kinds[k, i]] if p.contents else None
        labels = {"scoring": Hypnogram(stage[:, i], "rodent3", EPOCH), "reactivation": EventTable(at, at + 0.1, content=content, kind="replay")}
        if trials:
            mine = tm == i
            on = tk[mine] * EPOCH + offset[mine]
            labels["trials"] = EventTable(on, on + 0.05, kind="trial", assigned=ta[mine].astype(bool), delivered=ta[mine].astype(bool), probability=0.5)
        signal = {"pressure": dict(values=shown[:, i].astype(np.float32), rate=1 / EPOCH, kind="features", channels=["pressure"])}
        out.append(Recording.from_arrays(f"s{i}", f"m{i % animals}", "mouse", signals=signal, labels=labels))
    return [out[s * animals : (s + 1) * animals] for s in range(studies)]


@pytest.fixture(scope="session")
def planted_study():
    """The simulator and its settings: ``planted_study(seed, ..., planted=planted_study.settings(...))``."""
    simulate.settings = Planted
    return simulate
