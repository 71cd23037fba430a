"""A clock's map fitted to pulses that it and the reference recorded, and what the fit is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.dsp.pulses import Matches, match_pulses
from brainmu.errors import InputError
from brainmu.store.clock_pairs import fill, holes_of, move_by_pattern, noise_of, pair
from brainmu.store.clock_pieces import assemble, find_jumps
from brainmu.store.clocks import ClockMap

__all__ = ["fit_clock"]

Floats = NDArray[np.float64]


def fit_clock(own: ArrayLike, reference: ArrayLike, *, offset: float | None = None, max_ppm: float = 500.0, max_jump: float = 1.0) -> ClockMap:
    """The map from a stream's clock to the reference's, from pulses that both recorded.

    Pulses are paired (:func:`brainmu.dsp.pulses.match_pulses`), jumps are found in the paired differences, and between jumps a line is fitted, or a
    bent line with as few knots as the noise of the pulses asks for (crystals drift with temperature). Robust throughout: a pulse that lies far off its
    line does not count.

    Parameters
    ----------
    own, reference : float64 (pulse,), s
        The same pulses on the two clocks, in any number missing or spurious.
    offset : float, s
        What to add to `own` to come near `reference`, if roughly known: needed where pulses are regular and the trains begin apart.
    max_ppm, max_jump : float
        Limits of what is looked for.

    Raises
    ------
    InputError
        If the trains do not belong together, or have fewer than three pulses in common.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> own = np.cumsum(rng.uniform(0.5, 1.5, 2000))
    >>> clock = fit_clock(own, own * (1 + 32e-6) - 4.0)
    >>> round(clock.diagnostics["ppm"], 3), round(clock.to_session(1000.0), 6)
    (32.0, 996.032)
    """
    p, r = np.asarray(own, dtype=np.float64).ravel(), np.asarray(reference, dtype=np.float64).ravel()
    matches = match_pulses(p, r, offset=offset, max_ppm=max_ppm, max_jump=max_jump)
    i, j = matches.own, matches.other
    if matches.period is not None:
        i, j = move_by_pattern(p, r, i, j, matches.period)
    clock = assemble(p[i], r[j], find_jumps(p[i], r[j] - p[i]))
    # Near jumps the pairing lost some pulses, and took some that only happened to lie near: pair again, now that the map is known.
    reach = max_jump if matches.period is None else min(max_jump, 0.45 * matches.period)
    paired = 0
    for _ in range(6):
        noise = noise_of(p[i], r[j] - p[i])
        i, j = fill(clock, *pair(clock, p, r, noise), p, r, noise, reach)
        if len(i) < 3:
            raise InputError(f"{len(i)} pulses pair with the reference's, expected at least 3: give the right pulses, or a rough offset")
        clock = assemble(p[i], r[j], find_jumps(p[i], r[j] - p[i]))
        if len(i) <= paired:
            break
        paired = len(i)
    clock, i, j = _simplest(clock, i, j, p, r)
    holes = holes_of(i, j, p, r)
    diagnostics = _diagnose(clock, p, r, i, j, matches)
    _refuse(diagnostics, holes, offset, matches.period)
    return ClockMap(clock.starts, clock.values, clock.slopes, clock.jumps, diagnostics, holes)


def _refuse(d: dict[str, Any], holes: list[tuple[float, float]], offset: float | None, period: float | None) -> None:
    """Raise where the map cannot be what was meant."""
    lost = sum(b - a for a, b in holes)
    if lost > 0.25 * (d["last"] - d["first"]):
        raise InputError(
            f"in {lost:.0f} of {d['last'] - d['first']:.0f} s no pulses pair ({d['matched']} of {d['pulses']} pulses do): the clock jumps too often, "
            "or the trains are not of one source: give the right pulses"
        )
    if d["n_jumps"] > max(8, d["matched"] / 50):
        raise InputError(
            f"the best fit has {d['n_jumps']} jumps in {d['matched']} pulses, more than a clock makes: they are paired wrongly (regular pulses after a jump "
            "of half a period or more), or are not of one source: use irregular pulses, or cut the recording at the jump"
        )
    if offset is not None and period is not None and abs(d["offset"] - offset) > 0.5 * period + 1e-4 * abs(d["first"]):
        raise InputError(f"the pulses fit at an offset of {d['offset']:.3f} s, more than half a period ({period / 2:.3g} s) from the given {offset:g} s")


def _simplest(
    clock: ClockMap, i: NDArray[np.int64], j: NDArray[np.int64], p: Floats, r: Floats
) -> tuple[ClockMap, NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """The map without the stretches between jumps that are not needed: where the line before (or after) them pairs as many pulses.

    Barcodes look alike when shifted by one of their bars, so that a stretch may be paired wrongly at first.
    """
    k, noise = 0, noise_of(p[i], r[j] - p[i])
    while k < len(clock.jumps):
        simpler = None
        for other in (_without(clock, k, before=True), _without(clock, k, before=False)):
            a, b = pair(other, p, r, noise)
            if len(a) >= max(3, len(i)):
                found = assemble(p[a], r[b], find_jumps(p[a], r[b] - p[a]))
                if len(found.jumps) < len(clock.jumps):
                    simpler = found, a, b
                    break
        k = k + 1 if simpler is None else 0
        clock, i, j = simpler or (clock, i, j)
    return clock, i, j


def _without(clock: ClockMap, k: int, *, before: bool) -> ClockMap:
    """The map with the line before jump `k` going on until the next jump (or the line after it reaching back to the one before)."""
    at = clock.jumps[k]["at"]
    if before:
        until = clock.jumps[k + 1]["at"] if k + 1 < len(clock.jumps) else np.inf
        keep = (clock.starts < at) | (clock.starts >= until)
        return ClockMap(clock.starts[keep], clock.values[keep], clock.slopes[keep], clock.jumps[:k] + clock.jumps[k + 1 :])
    since = clock.jumps[k - 1]["at"] if k else -np.inf
    keep = (clock.starts < since) | (clock.starts >= at)
    starts, values, slopes = clock.starts[keep], clock.values[keep], clock.slopes[keep]
    first = int(np.searchsorted(starts, at))
    back = max(since, clock.starts[0]) - at
    starts, values = starts.copy(), values.copy()
    starts[first], values[first] = starts[first] + back, values[first] + slopes[first] * back
    return ClockMap(starts, values, slopes, clock.jumps[:k] + clock.jumps[k + 1 :])


def _diagnose(clock: ClockMap, p: Floats, r: Floats, i: NDArray[np.int64], j: NDArray[np.int64], matches: Matches) -> dict[str, Any]:
    first, last = p[i[0]], p[i[-1]]
    residual = r[j] - clock.to_session(p[i])
    offset = float(clock.to_session(first) - first)
    drift = float((clock.to_session(last) - last) - offset)
    total = sum(jump["size"] for jump in clock.jumps)
    span = max(last - first, 1e-9)
    return {
        "offset": offset, "ppm": float(1e6 * (drift - total) / span), "drift": drift, "first": float(first), "last": float(last), "pulses": len(p),
        "reference_pulses": len(r), "matched": len(i), "missing": int(((r >= r[j[0]]) & (r <= r[j[-1]])).sum() - len(j)),
        "spurious": int(((p >= first) & (p <= last)).sum() - len(i)), "residual_rms_us": float(1e6 * np.sqrt(np.mean(residual**2))),
        "residual_max_us": float(1e6 * np.abs(residual).max()), "residual_median_us": float(1e6 * np.median(np.abs(residual))), "period": matches.period,
        "patterned": matches.patterned,
        "n_jumps": len(clock.jumps),
    }  # fmt: skip
