"""Where the channels lie: regions, probe geometry, each channel's share of every source, and coherence that falls with distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["COMPONENTS", "REGIONS", "Layout", "coherence", "layout"]

REGIONS = ("CA1", "CTX", "BLA")
"""Pyramidal layer to stratum radiatum of CA1, the cortex above it, and a basolateral amygdala-like region."""

COMPONENTS = ("flat", "delta", "gamma")
"""Noises that all channels of a region share."""

# Top of each region's shank (x posterior, y lateral, z down, mm from the pyramidal layer of CA1) and the spacing of its channels.
# CA1's shank reaches the stratum radiatum, 0.3 mm deeper, however many channels lie on it.
_PLACE = {"CA1": (0.0, 0.0, 0.0), "CTX": (0.0, 0.0, -1.2), "BLA": (0.3, 1.8, 3.2)}
_SPACING = {"CTX": 0.1, "BLA": 0.1}
_CA1_DEPTH = 0.3
_HALF = 25.0  # Hz at which the coherence length is half of what it is at 0 Hz

# Share of each source by region; CA1's shares of theta, ripples and sharp waves change with depth and are in `layout`.
_SHARES = {
    "gain": (1.0, 0.75, 0.7), "theta_gain": (0.0, 0.35, 0.25), "theta_shift": (0.0, 0.3, 0.6), "ripple": (0.0, 0.03, 0.02), "sharp": (0.0, 0.1, 0.05),
    "slow": (70.0, 170.0, 80.0), "spindle": (25.0, 120.0, 15.0), "delta": (1.0, 0.75, 0.8), "gamma": (1.0, 0.7, 1.2),
}  # fmt: skip


@dataclass
class Layout:
    """Where each channel lies: its place (channel, 3), mm, and its share of every source."""

    region: list[str]
    place: NDArray[np.float64]
    gain: NDArray[np.float32]
    theta_gain: NDArray[np.float32]
    theta_shift: NDArray[np.float32]
    ripple: NDArray[np.float32]
    sharp: NDArray[np.float32]
    slow: NDArray[np.float32]
    spindle: NDArray[np.float32]
    delta: NDArray[np.float32]
    gamma: NDArray[np.float32]

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that have shared sources; CA1 and CTX always, so that a recording's noise does not depend on which of them has channels."""
        return REGIONS if "BLA" in self.region else REGIONS[:2]

    def sources(self) -> list[tuple[str, int]]:
        """(component, region number) of every shared noise, in the order in which they are drawn; BLA last, so that it shifts no other."""
        first = [(c, r) for c in COMPONENTS for r in range(2)]
        return [*first, ("emg", 0), *[(c, 2) for c in COMPONENTS if "BLA" in self.regions]]

    def weights(self, emg_leak: float) -> NDArray[np.float32]:
        """Weight (channel, source) of every shared noise and, after them, of the cosine and sine of theta and of its harmonic."""
        number = np.array([REGIONS.index(r) for r in self.region])
        share = {"flat": np.ones(len(number)), "delta": self.delta, "gamma": self.gamma}
        columns = [np.full(len(number), emg_leak) if c == "emg" else share[c] * (number == r) for c, r in self.sources()]
        gain, shift = self.theta_gain, self.theta_shift
        columns += [gain * np.cos(shift), -gain * np.sin(shift), 0.22 * gain * np.cos(2 * shift + 0.8), -0.22 * gain * np.sin(2 * shift + 0.8)]
        return np.stack(columns, axis=1).astype(np.float32)


def layout(n_channels: int, n_cortex: int, n_amygdala: int, rng: np.random.Generator) -> Layout:
    """CA1 channels span the pyramidal layer to stratum radiatum; cortical ones hold slow waves and spindles; BLA follows theta and has strong gamma."""
    counts = dict(zip(REGIONS, (n_channels, n_cortex, n_amygdala)))
    n = sum(counts.values())
    number = np.repeat(np.arange(3), list(counts.values()))
    ca1 = number == 0
    depth = np.where(ca1, np.arange(n) / max(n_channels - 1, 1), 0.0)
    steps = np.concatenate([np.arange(c) for c in counts.values()])
    place = np.array([_PLACE[r] for r in REGIONS])[number]
    place[:, 2] += np.where(ca1, _CA1_DEPTH * depth, np.array([0.0, _SPACING["CTX"], _SPACING["BLA"]])[number] * steps)
    share = {name: np.array(values)[number] for name, values in _SHARES.items()}
    profile = {"theta_gain": 0.75 + 0.5 * depth, "theta_shift": 0.9 * depth, "ripple": 1.0 - 0.55 * depth, "sharp": 0.4 - 2.2 * depth}
    share |= {name: np.where(ca1, values, share[name]) for name, values in profile.items()}
    share["gain"] = share["gain"] * np.exp(0.08 * rng.standard_normal(n))
    return Layout([REGIONS[i] for i in number], place, **{name: values.astype(np.float32) for name, values in share.items()})


def coherence(lay: Layout, length: float, extra: int = 0) -> Callable[[float], NDArray[np.float64]] | None:
    """Coherence (source, source) of the noises at a frequency: exp(-distance / length), the length halved at 25 Hz and shorter above.

    Sources are each channel's own background at the channel's place, then the shared ones of each region at the region's place, then `extra` independent ones.
    Different components are independent. None where `length` is 0: everything is independent.
    """
    if length == 0:
        return None
    shared = lay.sources()
    place = np.concatenate([lay.place, [_PLACE[REGIONS[r]] for _, r in shared]])
    kind = np.array(["background"] * len(lay.place) + [c for c, _ in shared])
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    distance[kind[:, None] != kind[None]] = np.inf
    n = len(kind)

    def at(f: float) -> NDArray[np.float64]:
        out = np.eye(n + extra)
        out[:n, :n] = np.exp(-distance / length * (1.0 + f / _HALF))
        return out

    return at
