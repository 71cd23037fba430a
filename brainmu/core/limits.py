"""Parameters that cannot be right are refused by name before any work is done."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np

from brainmu.errors import InputError

__all__ = ["check_model", "number", "whole"]


def number(name: str, value: Any, least: float = 0.0, *, above: bool = False, most: float = np.inf) -> float:
    """`value` as a float, or InputError unless it is finite and least <= value <= most (`above`: least < value)."""
    x = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else np.nan
    if not (np.isfinite(x) and x <= most and (x > least if above else x >= least)):
        if least == -np.inf:
            raise InputError(f"{name} is {value!r}, expected a finite number")
        upper = f" and at most {most:g}" if np.isfinite(most) else ""
        raise InputError(f"{name} is {value!r}, expected a number {'above' if above else 'of at least'} {least:g}{upper}")
    return x


def whole(name: str, value: Any, least: int = 0) -> int:
    """`value` as an int, or InputError unless it is a whole number of at least `least`."""
    n = int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else None
    if n is None or n < least:
        raise InputError(f"{name} is {value!r}, expected a whole number of at least {least}")
    return n


def check_model(model: Any, *, positive: Iterable[str] = (), shares: Iterable[str] = (), signed: Iterable[str] = ()) -> None:
    """Every number of a dataclass must be zero or more; `positive` ones above zero, `shares` at most one, `signed` ones finite."""
    for f in dataclasses.fields(model):
        value = getattr(model, f.name)
        if isinstance(f.default, (int, float)) and not isinstance(f.default, bool):
            least = -np.inf if f.name in signed else 0.0
            number(f.name, value, least, above=f.name in positive, most=1.0 if f.name in shares else np.inf)
