"""The experience of the day before: named conditions that shift how animals sleep and what they reactivate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from brainmu.config import suggest
from brainmu.core.limits import number
from brainmu.errors import InputError

__all__ = ["EXPERIENCES", "Experience", "assign_groups", "experience"]


@dataclass(frozen=True)
class Experience:
    """What an experience does to the rest that follows.

    Parameters
    ----------
    name : str
        Group of the animal.
    log_wake_hazard, log_rem_hazard : float
        Shift of the log baseline hazards of NREM→WAKE and NREM→REM. Sizes are assumptions.
    log_reactivation_rate : mapping of content to float
        Shift of the log rate of reactivation of each content. New experience raises reactivation [1]_ [2]_; the sizes are assumptions.

    References
    ----------
    .. [1] Cheng S, Frank LM (2008). New experiences enhance coordinated neural activity in the hippocampus. Neuron 57:303.
    .. [2] McNamara CG et al. (2014). Dopaminergic neurons promote hippocampal reactivation and spatial memory persistence. Nat Neurosci 17:1658.
    """

    name: str
    log_wake_hazard: float = 0.0
    log_rem_hazard: float = 0.0
    log_reactivation_rate: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("log_wake_hazard", "log_rem_hazard"):
            number(f"{self.name}: {name}", getattr(self, name), -3.0, most=3.0)
        for content, value in self.log_reactivation_rate.items():
            number(f"{self.name}: log_reactivation_rate[{content}]", value, -3.0, most=3.0)


EXPERIENCES = {
    e.name: e
    for e in (
        Experience("control"),
        Experience("stress", log_wake_hazard=0.3, log_rem_hazard=-0.3, log_reactivation_rate={"negative": 0.6, "positive": -0.3}),
        Experience("novelty", log_wake_hazard=-0.1, log_rem_hazard=0.1, log_reactivation_rate={"negative": 0.2, "neutral": 0.5, "positive": 0.5}),
    )
}
"""Conditions by name: after stress animals wake more and reactivate the negative, after novelty they reactivate more of everything."""


def experience(which: str | Experience) -> Experience:
    """The condition of that name.

    Raises
    ------
    InputError
        If there is none.
    """
    if isinstance(which, Experience):
        return which
    if not isinstance(which, str) or which not in EXPERIENCES:
        raise InputError(f"experience is {which!r}, expected one of {', '.join(EXPERIENCES)}{suggest(str(which), EXPERIENCES)} or an Experience")
    return EXPERIENCES[which]


def assign_groups(groups: tuple[Experience, ...], n: int, rng: np.random.Generator) -> list[Experience]:
    """A group for each of `n` animals, at random with sizes as equal as they can be."""
    order = np.concatenate([rng.permutation(len(groups)) for _ in range(-(-n // len(groups)))])[:n]
    return [groups[i] for i in rng.permutation(order)]
