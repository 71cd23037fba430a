from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import brainmu as bm
from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Spikes
from brainmu.errors import InputError
from brainmu.synth import ClockModel, on_clocks
from brainmu.synth.clocks import plan_clock, pulse_train

LONG = 1800.0


def _recording(stop: float = LONG) -> Recording:
    """A recording whose samples say when they were taken."""
    rng = np.random.default_rng(0)
    t = np.arange(int(stop * 50)) / 50.0
    spikes = np.sort(rng.uniform(0, stop, 4000))
    return Recording.from_arrays(
        "m1", "m1", "mouse",
        signals={
            "position": dict(values=np.c_[t, -t], rate=50.0, unit="m", kind="position"),
            "lfp": dict(values=np.sin(2 * np.pi * 5.0 * t)[:, None], rate=50.0, unit="uV", kind="lfp", gaps=Intervals([[100.0, 101.0]])),
        },
        spikes=Spikes(spikes, np.zeros(4000, dtype=int)),
        labels={"cues": EventTable(np.arange(10.0, stop - 5, 7.0), np.arange(10.0, stop - 5, 7.0) + 0.5, content="A"),
                "run": Intervals([[10.0, 200.0], [300.0, 500.0]]), "scoring": Hypnogram(np.arange(int(stop / 4)) % 3, "rodent3", 4.0)},
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), ppm=st.floats(-100, 100), offset=st.floats(-2000, 2000), lost=st.integers(0, 3), steps=st.integers(0, 3))
def test_the_true_map_goes_there_and_back(seed, ppm, offset, lost, steps):
    clock = plan_clock(ClockModel(ppm=ppm, offset=offset, lost=lost, steps=steps), LONG, np.random.default_rng(seed), np.empty(0))
    t = np.linspace(0, LONG - 1e-6, 5000)
    own = clock.to_own(t)
    seen = np.isfinite(own)
    assert np.abs(clock.to_session(own[seen]) - t[seen]).max() < 1e-8
    assert (np.diff(own[seen]) > 0).all()
    assert len(clock.jumps) == lost + steps
    assert sum(j["size"] > 0 for j in clock.jumps) == lost
    skipped = sum(j["size"] for j in clock.jumps if j["size"] > 0)
    assert (~seen).mean() == pytest.approx(skipped / LONG, abs=1e-3)
    assert clock.to_own(0.0) == pytest.approx(-offset / (1 + 1e-6 * ppm))


@pytest.mark.parametrize("pulses", ["random", "barcode", "regular", "frames"])
@pytest.mark.parametrize("jumps", [pytest.param({}, marks=pytest.mark.slow), {"lost": 1, "steps": 1}], ids=["steady", "jumping"])
def test_preprocess_recovers_the_planted_times(pulses, jumps, tmp_path):
    interval = {"random": 1.0, "barcode": 5.0, "regular": 1.0, "frames": 0.04}[pulses]
    size = 0.012 if pulses == "frames" else 0.1
    kind = dict(pulses=pulses, interval=interval, lost_time=size, step_time=size, **jumps)
    stop = 600.0 if pulses == "frames" else LONG
    rec = _recording(stop)
    there, true = on_clocks(rec, {
        "camera": ClockModel(streams=("position",), ppm=45.0, offset=3.0, **kind),
        "box": ClockModel(streams=("spikes", "cues"), ppm=-20.0, offset=-1.5, **kind),
    }, seed=3)  # fmt: skip
    assert not np.allclose(there.spikes.times[:100], rec.spikes.times[:100])
    store = bm.preprocess(there, tmp_path / "m1.zarr")
    unsure = Intervals.merge(
        np.array([[j["at"] - 6 * max(interval, 1.0), j["at"] + 6 * max(interval, 1.0)] for c in true.values() for j in c.jumps]).reshape(-1, 2)
    )
    seen = np.isfinite(true["box"].to_own(rec.spikes.times))
    error = np.abs(store.spikes.times - rec.spikes.times[seen])[~unsure.contains(rec.spikes.times[seen])]
    assert np.median(error) < 100e-6
    assert error.max() < 1e-3
    at = store.signals["position"].read_times()
    x = store.signals["position"].read()[:, 0]
    ok = np.isfinite(x) & ~unsure.contains(at) & (at > 5) & (at < stop - 5)
    # The samples hold the time at which they were taken (float32: 0.12 ms in half an hour).
    assert np.median(np.abs(x[ok] - at[ok])) < 300e-6
    assert np.abs(x[ok] - at[ok]).max() < 1e-3
    assert store.clocks["camera"]["ppm"] == pytest.approx(45.0, abs=1.0)


def test_streams_lie_where_the_device_puts_them():
    rec = _recording(600.0)
    out, true = on_clocks(rec, {"box": {"streams": ("lfp", "scoring", "run", "cues"), "ppm": 80.0, "offset": 2.0, "lost": 1, "lost_time": 0.5}})
    clock, s = true["box"], out.signals["lfp"]
    assert s.rate == 50.0
    assert s.clock == "box"
    when = clock.to_session(s.read_times())
    x = s.read()[:, 0]
    inside = (when > 5) & (when < 590) & np.isfinite(x)
    assert np.abs(x[inside] - np.sin(2 * np.pi * 5.0 * when[inside])).max() < 2e-3
    assert np.array_equal(s.read(1000, 1500)[:, 0], x[1000:1500], equal_nan=True)
    assert s.values[7].shape == (1,)
    assert s.values[[3, 5]].shape == (2, 1)
    ((a, b),) = s.gaps.bounds[:1]
    assert [a, b] == pytest.approx([clock.to_own(100.0), clock.to_own(101.0)])
    lost = clock.jumps[0]
    assert len(out.labels["cues"]) == len(rec.labels["cues"]) - int(
        ((rec.labels["cues"].start > lost["at"] - lost["size"]) & (rec.labels["cues"].start < lost["at"])).sum()
    )
    assert out.labels["scoring"].start == pytest.approx(-2.0, abs=0.01)
    assert out.labels["run"].bounds[0] == pytest.approx([clock.to_own(10.0), clock.to_own(200.0)])
    assert rec.signals["lfp"].clock == "session"
    assert not rec.clocks


def test_pulses_miss_and_add_as_asked():
    model = ClockModel(missing=0.1, spurious=0.05)
    rec = _recording()
    out, true = on_clocks(rec, {"box": model}, seed=1)
    n = len(true["box"].pulses)
    assert len(out.labels["sync_box"]) == pytest.approx(0.95 * n, rel=0.02)
    found = out.labels["sync_session"].start
    nearest = np.abs(found[np.clip(np.searchsorted(found, true["box"].pulses), 0, len(found) - 1)] - true["box"].pulses)
    assert (nearest < 1e-4).mean() > 0.4
    again, _ = on_clocks(rec, {"box": model}, seed=1)
    assert np.array_equal(again.labels["sync_box"].start, out.labels["sync_box"].start)


@pytest.mark.parametrize("pulses", ["barcode", "counter"])
def test_no_two_codes_are_the_same(pulses):
    code = pulse_train(ClockModel(pulses=pulses, interval=5.0), 600.0, np.random.default_rng(0))
    words = {tuple(np.rint((code[(code >= a) & (code < a + 5)] - a) / 0.03).astype(int)) for a in np.arange(0.0, 600, 5)}
    assert len(words) == 120


@pytest.mark.parametrize(
    ("clocks", "word"),
    [
        ({"box": {"streams": ("emg",)}}, "emg"), ({"box": {"stream": ("lfp",)}}, "streams"), ({"session": {}}, "session"),
        ({"box": {"pulses": "ttl"}}, "barcode"),
        ({"a": {"streams": ("lfp",)}, "b": {"streams": ("lfp",)}}, "two|name one"), ({"a": {}, "b": {"pulses": "barcode"}}, "different"),
        ({"a": {"ppm": 1e5}}, "ppm"), ({"a": {"streams": "lfp"}}, "tuple"), ({"a": 3}, "mapping"), ({"a": {"lost": 1.5}}, "lost"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(clocks, word):
    with pytest.raises(InputError, match=word):
        on_clocks(_recording(60.0), clocks)
