"""Many synthetic animals that differ as real ones do: noise, gain, channels, cells, how they sleep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from brainmu.core import Recording
from brainmu.synth.limits import number, whole
from brainmu.synth.recording import recording
from brainmu.synth.truth import Truth

__all__ = ["corpus", "iter_corpus"]


def iter_corpus(
    n_subjects: int, *, hours: float = 2.0, seed: int = 0, species: str = "mouse", variation: float = 1.0, **parameters: Any
) -> Iterator[tuple[Recording, Truth]]:
    """The animals of :func:`corpus` one at a time, so that only one need be held."""
    whole("n_subjects", n_subjects, 1)
    whole("seed", seed)
    number("variation", variation)
    for i, child in enumerate(np.random.SeedSequence(seed).spawn(n_subjects)):
        rng = np.random.default_rng(child)
        given = _vary(species, variation, rng) | parameters
        own = int(rng.integers(1 << 31))
        yield recording(hours, own, species, id=f"{species}{i + 1:02d}_day1", subject=f"{species}{i + 1:02d}", **given)


def corpus(
    n_subjects: int, *, hours: float = 2.0, seed: int = 0, species: str = "mouse", variation: float = 1.0, **parameters: Any
) -> list[tuple[Recording, Truth]]:
    """Recordings of `n_subjects` different animals, each with its truth.

    Parameters
    ----------
    n_subjects : int
        Subjects are "mouse01", "mouse02", … ("rat01", "human01").
    hours : float, h
        Length of each recording.
    seed : int
        Same seed, same corpus; the first animals of a larger corpus are those of a smaller one.
    species : {"mouse", "rat", "human"}
    variation : float
        How much the animals differ: 0 not at all, 1 as real ones (gains, noise, frequencies, number of channels and cells, sleep need).
    **parameters
        Anything :func:`~brainmu.synth.recording` takes; fixed for all animals.

    Examples
    --------
    >>> pairs = corpus(2, hours=0.2, seed=3, n_cells=10)
    >>> [rec.subject for rec, truth in pairs]
    ['mouse01', 'mouse02']
    """
    return list(iter_corpus(n_subjects, hours=hours, seed=seed, species=species, variation=variation, **parameters))


def _vary(species: str, v: float, rng: np.random.Generator) -> dict[str, Any]:
    """One animal's parameters: log-normal around the defaults."""
    z = v * np.clip(rng.standard_normal(8), -2.0, 2.0)
    if species == "human":
        return {"gain": float(np.exp(0.25 * z[0])), "spindle_rate": float(0.06 * np.exp(0.35 * z[1])), "difficulty": float(0.25 * np.exp(0.25 * z[2])),
                "latency": float(900 * np.exp(0.4 * z[3]))}  # fmt: skip
    return {
        "gain": float(np.exp(0.25 * z[0])), "emg_gain": float(np.exp(0.35 * z[1])), "theta_frequency": 7.2 + 0.35 * float(z[2]),
        "hum": float(2.0 * np.exp(0.8 * z[3])), "ripple_frequency": 174.0 + 6.0 * float(z[4]), "wake_rate": float(np.exp(0.2 * z[5]) / 110),
        "n_channels": int(np.clip(4 + round(1.5 * z[6]), 2, 8)), "n_cells": int(np.clip(40 + round(10 * z[7]), 16, 80)),
    }  # fmt: skip
