"""Fixtures every test may use: the folder of real recordings, and a headless matplotlib."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")


def _real_data() -> Path | None:
    given = os.environ.get("BRAINMU_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings; tests that ask for it must be marked `realdata`."""
    folder = _real_data()
    if folder is None:
        pytest.skip("the folder of real recordings is absent: set BRAINMU_DATA to it")
    return folder
