"""Digital lines to events: the edges of TTL words, as tables that synchronise clocks.

Every line that changes becomes one label, ``ttl_<line>`` (``ttl_<device>_<line>`` where a recording has several devices), with the number that the
device itself gives the line. One row is one pulse: `start` is its rising edge, `stop` its falling one. A pulse that is high at the first sample
starts there, one that is still high at the end stops there; the table's attrs count both (``open_start``, ``open_stop``). ``attrs["clock"]`` names the
clock the times are on, as :attr:`Signal.clock` does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.core import EventTable

__all__ = ["edges_of_words", "pulses"]

_CHUNK = 1 << 20


def edges_of_words(words: Any, lines: dict[int, int], *, chunk: int = _CHUNK) -> dict[int, tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Changes of some bits of a stream of words, read `chunk` words at a time.

    Parameters
    ----------
    words : integers (n,) or (n, 1), lazy
    lines : mapping of bit to line number

    Returns
    -------
    dict
        For each line that changes or is ever high: sample index (k,) of each change, and whether the line went up (k,). A line that is high at
        the first sample goes up at sample 0.

    Examples
    --------
    >>> edges_of_words(np.array([0, 1, 1, 0, 3]), {0: 1, 1: 2})[1]
    (array([1, 3, 4]), array([ True, False,  True]))
    """
    n = int(words.shape[0])
    at: dict[int, list[NDArray[np.int64]]] = {bit: [] for bit in lines}
    up: dict[int, list[NDArray[np.bool_]]] = {bit: [] for bit in lines}
    last = np.zeros(1, dtype=np.int64)
    for i in range(0, n, chunk):
        block = np.asarray(words[i : min(i + chunk, n)]).reshape(-1).astype(np.int64)
        changed = np.diff(block, prepend=last)
        moved = np.flatnonzero(changed)
        if len(moved):
            before, after = np.r_[last, block][moved], block[moved]
            for bit in lines:
                mask = ((before ^ after) >> bit) & 1 == 1
                at[bit].append(moved[mask].astype(np.int64) + i)
                up[bit].append((after[mask] >> bit) & 1 == 1)
        last = block[-1:]
    return {lines[b]: (np.concatenate(at[b]), np.concatenate(up[b])) for b in lines if any(len(a) for a in at[b])}


def pulses(times: ArrayLike, up: ArrayLike, stop: float, *, line: int | str, clock: str = "session", first: float | None = None, **attrs: Any) -> EventTable:
    """One row a pulse from the edges (n,), s, of one line. `stop` (s) ends a pulse that never falls; `first` starts one that never rose.

    Two edges of one direction in a row (one between them was lost) end the pulse where the second begins, and are counted in ``attrs["lost_edges"]``.
    """
    t, rising = np.asarray(times, dtype=np.float64), np.asarray(up, dtype=bool)
    order = np.argsort(t, kind="stable")
    t, rising = t[order], rising[order]
    doubled = rising[1:] == rising[:-1]
    open_start = int(bool(len(rising)) and (not rising[0] or (first is not None and t[0] <= first)))
    following = np.r_[t[1:], max(stop, t[-1])] if len(t) else t
    starts, stops = t[rising], following[rising]
    if len(t) and not rising[0]:
        starts, stops = np.r_[min(first if first is not None else t[0], t[0]), starts], np.r_[t[0], stops]
    about = {
        "line": line, "clock": clock, "open_start": open_start, "open_stop": int(bool(len(rising)) and bool(rising[-1])),
        "lost_edges": int(doubled.sum()), **attrs,
    }  # fmt: skip
    return EventTable(starts, stops, kind="ttl", line=line, attrs=about)
