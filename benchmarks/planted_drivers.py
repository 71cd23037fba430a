"""Recordings in which one channel's band and one unit tell REM from the rest, and nothing else does: a truth for maps of what a stager used.

Two plants. In both another channel is the loudest, another unit the fastest, and one channel shares the driver's noise without its modulation.

"quiet": outside its driver nothing changes with time, except a tone of NREM. Whatever weights look at such a recording, what stands out in REM epochs is the
driver: a network that learned nothing finds it almost as well as one that learned everything, and the comparison says little.

"restless": what a recording does without regard to stage, it does here. Power falls with frequency, so that the driver's is the highest band in no channel,
REM included. Every channel's bands wax and wane over a minute, as rates of units do; bursts like those of movement come once a minute over some channels; and
decoys are as strong as the driver, rise and fall in bouts as long as those of sleep, and are drawn independently of the stage (six channels' bands, five
units). The mark of NREM is there in every second bout of REM too, so that it tells NREM from WAKE and nothing of REM. A driver is then what goes with the
stage, not what moves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Hypnogram, Recording

__all__ = ["CHANNELS", "EPOCH", "PLANTS", "RATE", "UNITS", "planted"]

RATE, CHANNELS, UNITS, EPOCH = 125.0, 6, 24, 4.0
CENTRES = {"delta": 2.3, "theta": 7.3, "sigma": 13.0, "beta": 22.0}
PLANTS = {"quiet": 12.0, "restless": 20.0}
"""Minutes of a session."""
BACKGROUND, SHARED, RHYTHM, STRENGTH = 18.0, 8.0, 2.0, 3.0
"""Restless plant, µV: SD of each channel's noise (power as 1 / frequency), of what the driver's channel shares with another, and of the rhythm in each band;
amplitude of a rhythm in bouts of the driver, or of a decoy, beside its others."""
WAX, WANE = 0.5, 60.0
"""SD of the log amplitude of every band and rate, and its time constant, s."""

Rng = np.random.Generator


def planted(plant: str, driver: int, seed: int, shuffled: bool = False) -> tuple[Recording, list[tuple[str, ...]]]:
    """A session and its drivers of REM, as (stream, channel, band) and (stream, unit); `driver` draws them, `seed` the session.

    `shuffled`: its epochs are labelled at random.
    """
    plan = np.random.default_rng([driver, 11])
    order = plan.permutation(CHANNELS)
    # Delta is the highest band of every restless channel, and may not drive.
    band, unit = str(plan.choice(list(CENTRES)[0 if plant == "quiet" else 1 :])), int(plan.integers(UNITS))
    rng = np.random.default_rng([driver, seed, 12])
    n = round(PLANTS[plant] * 60 / EPOCH)
    h = Hypnogram.from_stages(np.array(["WAKE", "NREM", "REM"])[_bouts(n, rng)].tolist(), epoch=EPOCH)
    make = _quiet if plant == "quiet" else _restless
    x, times, ids = make(h, order, band, unit, plan, rng)
    labels = Hypnogram(rng.permutation(h.codes), "rodent3", EPOCH) if shuffled else h
    signals = {"lfp": dict(values=x.astype(np.float32), rate=RATE, unit="uV", kind="lfp", channels=[f"c{i}" for i in range(CHANNELS)])}
    rec = Recording.from_arrays(
        f"d{driver}s{seed}{'x' if shuffled else ''}", f"m{seed}", "mouse", signals=signals, spikes=dict(times=times, unit=ids), labels={"scoring": labels}
    )
    return rec, [("lfp", f"c{order[0]}", band), ("spikes", str(unit))]


def _bouts(n: int, rng: Rng) -> NDArray[np.int64]:
    """Codes 0, 1, 2 of n epochs in bouts of 4 to 13."""
    codes = [np.full(rng.integers(4, 14), rng.integers(3)) for _ in range(n)]
    return np.concatenate(codes)[:n]


def _spikes(rate: NDArray[np.float64], rng: Rng) -> NDArray[np.float64]:
    """Spikes, s, of a unit with a rate (epoch,), Hz."""
    count = rng.poisson(rate * EPOCH)
    return (np.repeat(np.arange(len(rate)), count) + rng.random(count.sum())) * EPOCH


# -- quiet -----------------------------------------------------------------------------------------------------------------
def _quiet(h: Hypnogram, order: NDArray[np.int64], band: str, unit: int, plan: Rng, rng: Rng) -> tuple[NDArray[np.float64], ...]:
    channel, loud, decoy = order[:3].tolist()
    t = np.arange(round(len(h) * EPOCH * RATE)) / RATE
    rem, nrem = (np.repeat(h.codes == k, int(EPOCH * RATE)) for k in (2, 1))
    x = 10 * rng.standard_normal((len(t), CHANNELS))
    common = 6 * rng.standard_normal(len(t))
    x[:, channel] += common + 9 * np.sin(2 * np.pi * CENTRES[band] * t + rng.uniform(0, 6)) * rem
    x[:, decoy] += common + 9 * np.sin(2 * np.pi * CENTRES[band] * t + rng.uniform(0, 6)) * 0.4
    x[:, loud] += _loud(t)
    x[:, (channel + 1) % CHANNELS if (channel + 1) % CHANNELS != loud else decoy] += 9 * np.sin(2 * np.pi * 17.7 * t) * nrem
    rates = rng.uniform(2, 8, UNITS)
    rates[(unit + 1) % UNITS] = 25.0
    trains = [_spikes(r * np.where((h.codes == 2) | (u != unit), 1.0, 0.25), rng) for u, r in enumerate(rates)]
    return x, np.concatenate(trains), np.repeat(np.arange(UNITS), [len(s) for s in trains])


def _loud(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return 60 * np.sin(2 * np.pi * 36.0 * t) + 40 * np.sin(2 * np.pi * 1.3 * t)


# -- restless --------------------------------------------------------------------------------------------------------------
def _restless(h: Hypnogram, order: NDArray[np.int64], band: str, unit: int, plan: Rng, rng: Rng) -> tuple[NDArray[np.float64], ...]:
    channel, loud, decoy = order[:3].tolist()
    n, per = len(h), int(EPOCH * RATE)
    t = np.arange(n * per) / RATE
    driver, mark = (channel, band), (int(order[3]), str(plan.choice([b for b in CENTRES if b != band])))
    others = [(c, b) for c in range(CHANNELS) for b in CENTRES if c != loud and (c, b) not in (driver, mark)]
    decoys = {others[i] for i in plan.permutation(len(others))[:6]}
    other_units = plan.permutation([u for u in range(UNITS) if u != unit])[:5]
    marked = (h.codes == 1) | ((h.codes == 2) & _every_second(h.codes == 2))

    x = BACKGROUND * np.stack([_pink(len(t), rng) for _ in range(CHANNELS)], axis=1)
    shared = SHARED * _pink(len(t), rng)
    x[:, channel] += shared
    x[:, decoy] += shared
    x[:, loud] += _loud(t)
    for c in range(CHANNELS):
        for name, centre in CENTRES.items():
            on = h.codes == 2 if (c, name) == driver else marked if (c, name) == mark else _bouts(n, rng) == 2 if (c, name) in decoys else np.zeros(n, bool)
            x[:, c] += RHYTHM * _rhythm(centre, len(t), rng) * np.repeat(_drift(n, rng) * np.where(on, STRENGTH, 1.0), per)
    for a in rng.uniform(0, t[-1], rng.poisson(t[-1] / 60)):
        i = slice(int(a * RATE), int((a + rng.uniform(1, 3)) * RATE))
        x[i] += 30 * rng.standard_normal(x[i].shape) * (rng.random(CHANNELS) < 0.5)

    rates = rng.uniform(2, 8, UNITS)
    rates[(unit + 1) % UNITS] = 25.0
    trains = []
    for u, r in enumerate(rates):
        on = h.codes == 2 if u == unit else _bouts(n, rng) == 2 if u in other_units else np.ones(n, bool)
        trains.append(_spikes(r * _drift(n, rng) * np.where(on, 1.0, 1 / 4), rng))
    return x, np.concatenate(trains), np.repeat(np.arange(UNITS), [len(s) for s in trains])


def _every_second(on: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which epochs lie in an odd bout of `on`."""
    return np.cumsum(np.diff(np.r_[False, on].astype(np.int8)) == 1) % 2 == 1


def _drift(n: int, rng: Rng) -> NDArray[np.float64]:
    """A gain (epoch,) of median 1 that waxes and wanes (Ornstein-Uhlenbeck in its logarithm)."""
    keep = np.exp(-EPOCH / WANE)
    x = rng.standard_normal(n) * np.r_[1.0, np.full(n - 1, np.sqrt(1 - keep**2))]
    for i in range(1, n):
        x[i] += keep * x[i - 1]
    return np.exp(WAX * x)


def _rhythm(centre: float, n: int, rng: Rng) -> NDArray[np.float64]:
    """Gaussian noise within 1 Hz of `centre`, of variance 1."""
    return _noise(n, rng, lambda f: np.abs(f - centre) < 1.0)


def _pink(n: int, rng: Rng) -> NDArray[np.float64]:
    """Gaussian noise whose power falls as 1 / frequency above 0.2 Hz, of variance 1."""
    return _noise(n, rng, lambda f: np.maximum(f, 0.2) ** -0.5)


def _noise(n: int, rng: Rng, amplitude: Callable[[NDArray[np.float64]], NDArray[np.floating]]) -> NDArray[np.float64]:
    f = np.fft.rfftfreq(n, 1 / RATE)
    x = np.fft.irfft(amplitude(f) * (rng.standard_normal(len(f)) + 1j * rng.standard_normal(len(f))), n)
    return x / x.std()
