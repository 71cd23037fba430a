"""Small recordings that hold one of everything."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest

from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Spikes


def make_recording(seed: int = 0, **changes: Any) -> Recording:
    rng = np.random.default_rng(seed)
    raw = (rng.standard_normal((60000, 3)) * 300).astype(np.int16)
    values: dict[str, Any] = {
        "id": "m1_day2",
        "subject": "m1",
        "species": "mouse",
        "started_at": datetime(2024, 3, 1, 22, 15, 0, 123456, tzinfo=timezone(timedelta(hours=1))),
        "signals": {
            "lfp": {"values": raw, "rate": 20000.0, "unit": "uV", "kind": "lfp", "scale": 0.195, "channels": ["CA1_1", "CA1_2", "CA1_3"], "start": 12.5},
            "emg": {"values": raw[:3000], "rate": 1000.0, "unit": "mV", "kind": "emg", "scale": 0.001, "gaps": Intervals([[0.5, 0.75]])},
            "position": {"values": rng.random((300, 2)) * 100, "times": np.sort(rng.random(300)) * 3, "unit": "cm", "kind": "position", "channels": ["x", "y"]},
            "bands": {"values": rng.random((5, 4)), "rate": 1 / 30, "kind": "features"},
        },
        "spikes": Spikes(
            np.sort(rng.random(500) * 35), rng.integers(0, 4, 500), pd.DataFrame({"id": [3, 0, 1, 2], "region": list("abcd"), "width": [0.1, np.nan, 3, 4]})
        ),
        "labels": {
            "scoring": Hypnogram.from_stages(["WAKE", "NREM", "REM", "UNS"], epoch=1.0, proba=np.full((4, 3), 1 / 3), scorer="A. Expert", attrs={"k": (1, 2)}),
            "trials": EventTable(
                [0.5, 0.2], [1.0, 0.3], content=["A", ""], kind="trial", assigned=[True, False], p=[0.5, np.nan], attrs={"scheme": "bernoulli"}
            ),
            "run": Intervals([[0.0, 1.0], [1.0, 2.5]]),
        },
        "subject_meta": {"cage": 3, "virus": None},
        "zeitgeber": 2.25,
    }
    return Recording.from_arrays(**(values | changes))


@pytest.fixture
def recording() -> Recording:
    return make_recording()


@pytest.fixture
def make() -> Callable[..., Recording]:
    return make_recording
