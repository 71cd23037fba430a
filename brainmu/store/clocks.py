"""The map from one clock to another: offset, drift, bends and jumps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.core import Intervals

__all__ = ["ClockMap"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClockMap:
    """A piecewise linear map from a stream's own time to session time, both float64 s.

    Between its knots a clock runs at a constant rate; at a jump it lost or repeated time. Beyond the first and last pulse the outer pieces go on.

    Attributes
    ----------
    starts, values, slopes : float64 (piece,)
        Own time at which a piece begins, session time there, and session seconds per own second. The first piece also holds for all earlier times.
    jumps : list of dict(at, size, after, before)
        Own time of the jump (the middle between the pulses `after` and `before` which it lies; it cannot be told nearer), and how much session time it
        skips (s, positive: the stream lost samples).
    diagnostics : dict
        offset (s, at the first pulse), ppm (over all, jumps apart), drift (s, what the clock gains or loses over the span), pulses, reference_pulses,
        matched, missing (reference pulses that the stream lacks while it ran), spurious (pulses without partner between the first and the last that
        have one), residual_rms_us, residual_max_us, first and last pulse (own s), period (s, of regular pulses), patterned (their
        small irregularities told which pulse is which).
    holes : list of (after, before)
        Own times of stretches in which no pulses pair although both trains have some: the map only spans them.
    """

    starts: Floats
    values: Floats
    slopes: Floats
    jumps: list[dict[str, float]] = field(default_factory=list)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    holes: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def constant(cls, offset: float = 0.0, ppm: float = 0.0) -> ClockMap:
        """Session time is ``own * (1 + ppm / 1e6) + offset``.

        >>> round(ClockMap.constant(offset=2.0, ppm=50).to_session(1000.0), 6)
        1002.05
        """
        slope = 1 + 1e-6 * ppm
        return cls(np.zeros(1), np.array([float(offset)]), np.array([slope]), [], {"offset": float(offset), "ppm": float(ppm)})

    @property
    def is_linear(self) -> bool:
        """Whether one offset and one rate hold throughout."""
        return len(self.starts) == 1

    def to_session(self, times: ArrayLike) -> Any:
        """Session times of own times, s."""
        t = np.asarray(times, dtype=np.float64)
        k = np.clip(np.searchsorted(self.starts, t, side="right") - 1, 0, None)
        out = self.values[k] + self.slopes[k] * (t - self.starts[k])
        return float(out) if np.ndim(times) == 0 else out

    def to_own(self, times: ArrayLike) -> Any:
        """Own times of session times, s; NaN within a jump, where the stream has no time. Where a clock repeated time, its earlier run counts."""
        t = np.asarray(times, dtype=np.float64)
        entry, stop = self._session_spans()
        k = np.clip(np.searchsorted(entry, t, side="right") - 1, 0, None)
        own = self.starts[k] + (t - self.values[k]) / self.slopes[k]
        own = np.where(t >= stop[k], np.nan, own)
        return float(own) if np.ndim(times) == 0 else own

    def _session_spans(self) -> tuple[Floats, Floats]:
        """Session times at which each piece takes over, and at which it ends."""
        ends = np.r_[self.values[:-1] + self.slopes[:-1] * np.diff(self.starts), np.inf]
        entry = self.values.copy()
        entry[0] = -np.inf
        if len(entry) > 1:
            # Rounding must not open a hole between pieces that meet.
            meet = np.abs(entry[1:] - ends[:-1]) < 1e-9
            ends[:-1][meet] = entry[1:][meet]
            entry[1:] = np.maximum(entry[1:], ends[:-1])
        return entry, ends

    @property
    def uncertain(self) -> Intervals:
        """Session times that may be off: between the two pulses around each jump, which lies somewhere there (by its size), and where no pulses pair."""
        spans = [(self.to_session(j["after"]), self.to_session(j["before"])) for j in self.jumps]
        spans += [(self.to_session(a), self.to_session(b)) for a, b in self.holes]
        spans = [(min(a, b), max(a, b)) for a, b in spans]
        out = Intervals()
        for a, b in spans:
            out = out.union(Intervals([[a, b]])) if b > a else out
        return out

    def describe(self) -> dict[str, Any]:
        """The map and its diagnostics as plain numbers, as a store holds them."""
        breakpoints = [[float(a), float(b), float(1e6 * (s - 1))] for a, b, s in zip(self.starts, self.values, self.slopes)]
        return self.diagnostics | {"jumps": self.jumps, "holes": [list(h) for h in self.holes], "breakpoints": breakpoints}

    def sentence(self) -> str:
        """What the clock did, for people."""
        d = self.diagnostics
        text = f"offset {d['offset']:+.6f} s, {d['ppm']:+.2f} ppm"
        if "matched" not in d:
            return text + " (as given)"
        text += f" ({1e3 * d['drift']:+.1f} ms over {_length(d['last'] - d['first'])})"
        if self.jumps:
            shown = ", ".join(f"{1e3 * j['size']:+.1f} ms at {j['at']:.1f} s" for j in self.jumps[:4])
            text += f"; {len(self.jumps)} jump{'s' * (len(self.jumps) > 1)}: {shown}{', …' if len(self.jumps) > 4 else ''}"
        if len(self.starts) > len(self.jumps) + 1:
            text += f"; its rate changes, {len(self.starts) - len(self.jumps)} pieces"
        text += f"; {d['matched']} of {d['pulses']} pulses matched ({d['missing']} missing, {d['spurious']} spurious)"
        return text + f"; residual RMS {d['residual_rms_us']:.0f} us, largest {d['residual_max_us']:.0f} us"


def _length(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"
