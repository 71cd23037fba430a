"""An effect in the model against the planted one: the bench's own parts, small."""

import numpy as np
import pytest

from benchmarks import bench_intervene as bench


def test_every_pair_of_effects_meets_every_confounding():
    plans = [bench.design(i, 20) for i in range(60)]
    by = {level: {(b["negative"], b["positive"]) for b, c in plans if c == level} for level in (0.0, 0.3, 0.6)}
    assert len(by[0.0]) == len(by[0.3]) == len(by[0.6]) == len(bench.NEGATIVE) * len(bench.POSITIVE)
    assert all(b["neutral"] == b["novel"] == 0 for b, _ in plans)


def test_the_line_is_the_line_and_its_interval_covers():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        x = rng.choice([0.0, 0.3, 0.6, 0.9], 40)
        fit = bench.line(x, 0.1 + 0.9 * x + (0.05 + 0.1 * x) * rng.standard_normal(40))
        inside += fit["slope"][1] <= 0.9 <= fit["slope"][2]
    assert 364 <= inside <= 394
    exact = bench.line(x, 0.1 + 0.9 * x)
    assert exact["slope"][0] == pytest.approx(0.9) and exact["intercept"][0] == pytest.approx(0.1)


def test_a_recording_carries_what_was_planted():
    one, other = (bench.corpus(1, {"negative": 0.5}, 0.6, 1, 0.3, seeing)[0] for seeing in (False, True))
    assert one.signals["levels"].n_channels == 2 and other.signals["levels"].n_channels == 3
    np.testing.assert_array_equal(one.spikes.times, other.spikes.times)
    events = one.events("reactivation")
    k = int(np.flatnonzero(np.asarray(events.content) == "negative")[0])
    inside = (one.spikes.times >= events.start[k]) & (one.spikes.times < events.stop[k])
    assert np.bincount(one.spikes.unit_id[inside], minlength=20)[: bench.UNITS].sum() > 0.7 * inside.sum()
    told = bench.targets(one, 270)
    first = int(events.start[0] // bench.EPOCH)
    content = bench.CONTENTS.index(str(events.content[0]))
    assert told[first, content] >= 1 and told[first + 1, len(bench.CONTENTS) + content] >= 1


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_stopped(tmp_path, capsys):
    size = bench.Size(animals=3, hours=0.7, edited=1, events=12, placebos=2, steps=10)
    found = bench.run(tmp_path, 2, 1, size, 1)
    (tmp_path / "corpus_0001.json").unlink()
    kept = (tmp_path / "corpus_0000.json").stat().st_mtime_ns
    again = bench.run(tmp_path, 2, 1, size, 1)
    assert (tmp_path / "corpus_0000.json").stat().st_mtime_ns == kept
    assert [f["rows"] for f in found] == [f["rows"] for f in again] and [f["confounding"] for f in found] == [0.0, 0.6]
    # Blind and seeing heads of the confounded corpus; sets of nothing beside both corpora.
    rows = bench.flat(found)
    assert {r["seeing"] for r in rows if r["confounding"]} == {False, True} and sum(r["content"] == "nothing" for r in rows) == 4
    bench.tell(found)
    assert "bias on confounding" in capsys.readouterr().out
