"""Physical units: volts to µV, lengths to metres, and a clear answer where a unit is not known."""

from __future__ import annotations

import difflib

__all__ = ["canonical_unit", "unit_factor", "unit_hint"]

_VOLT = {"v": 1e6, "volt": 1e6, "volts": 1e6, "mv": 1e3, "millivolt": 1e3, "millivolts": 1e3}
_VOLT |= {"uv": 1.0, "microvolt": 1.0, "microvolts": 1.0, "nv": 1e-3, "nanovolt": 1e-3, "nanovolts": 1e-3}
_METRE = {"m": 1.0, "metre": 1.0, "metres": 1.0, "meter": 1.0, "meters": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6}
_METRE |= {f"{prefix}met{end}": factor for prefix, factor in (("centi", 1e-2), ("milli", 1e-3)) for end in ("er", "ers", "re", "res")}


def _key(unit: str) -> str:
    return unit.strip().replace("µ", "u").replace("μ", "u").lower()


def unit_factor(unit: str, *, kind: str = "") -> tuple[float, str]:
    """Factor and name that bring values in `unit` to brainmu's own: µV for voltages, m for positions.

    Unknown units come back unscaled (factor 1) under their own name, so the caller can flag them.

    Examples
    --------
    >>> unit_factor("mV")
    (1000.0, 'uV')
    >>> unit_factor("px")
    (1.0, 'px')
    """
    k = _key(unit)
    if k in _VOLT and kind not in ("position", "speed"):
        return _VOLT[k], "uV"
    if k in _METRE and kind in ("position", ""):
        return _METRE[k], "m"
    return 1.0, unit.strip()


def unit_hint(unit: str) -> str:
    """``: did you mean 'uV'?`` where an unknown unit resembles a known one of voltage, or nothing.

    Examples
    --------
    >>> unit_hint("uVolt"), unit_hint("a.u.")
    (": did you mean 'uV'?", '')
    """
    k = _key(unit)
    if not k or k in _VOLT:
        return ""
    for prefix, meant in (("micro", "uV"), ("milli", "mV"), ("nano", "nV"), ("u", "uV"), ("m", "mV"), ("n", "nV"), ("", "V")):
        if k.startswith(prefix) and difflib.SequenceMatcher(None, k.removeprefix(prefix).strip(" _-.()[]"), "volts").ratio() > 0.65:
            return f": did you mean {meant!r}?"
    close = difflib.get_close_matches(k, ["uv", "mv", "nv"], n=1, cutoff=0.75)
    return f": did you mean {close[0].replace('v', 'V')!r}?" if close else ""


def canonical_unit(unit: str) -> str:
    """The spelling brainmu stores: ``uV`` for any spelling of microvolt, otherwise the unit as it came."""
    return "uV" if _key(unit) in ("uv", "microvolt", "microvolts") else unit.strip()
