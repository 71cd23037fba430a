"""Fixtures every test may use: the folder of real recordings, a headless matplotlib, and suites that must not be skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")

_REQUIRED = set(os.environ.get("BRAINMU_REQUIRE", "").split())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """A skipped test of a suite named in BRAINMU_REQUIRE is a failure: CI says which suites it can run."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and (marks := _REQUIRED & {m.name for m in item.iter_markers()}):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but the suite {', '.join(sorted(marks))} is required here: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings; tests that ask for it must be marked `realdata`."""
    given = os.environ.get("BRAINMU_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder of real recordings is absent: set BRAINMU_DATA to it")
    return folder
