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
def test_a_strong_effect_comes_out_and_a_run_goes_on(tmp_path, capsys):
    size = bench.Size(animals=5, hours=2.0, edited=1, events=20, placebos=2, steps=500)
    found = bench.run(tmp_path, 6, 5, size, 1)
    again = bench.run(tmp_path, 6, 5, size, 1)
    assert found == again and len(found) == 6
    rows = [r for r in bench.flat(found) if r["content"] == "negative" and r["operation"] == "remove" and r["dose"] == 1.0 and not r["confounding"]]
    assert bench.line(np.array([r["planted"] for r in rows]), np.array([r["estimate"] for r in rows]))["slope"][0] > 0.4
    bench.tell(found)
    assert "bias on confounding" in capsys.readouterr().out
