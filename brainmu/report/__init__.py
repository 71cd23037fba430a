"""The pictures a scientist looks for first, and the single-file report that holds them.

Figures are plain :class:`matplotlib.figure.Figure` objects made from brainmu's types; :class:`Report` turns text, tables and
figures into one HTML file without a single outside request; :func:`write_report` composes it from stores and result files.
Names are resolved when first used, so that importing the room does not import matplotlib.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Report": "brainmu.report.html",
    "write_report": "brainmu.report.compose",
    "compose_report": "brainmu.report.compose",
}

__all__ = ["Report", "compose_report", "write_report"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'brainmu.report' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
