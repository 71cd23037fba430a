import numpy as np
import pytest

from brainmu.synth import mediated_study


def test_the_truth_is_what_the_trials_do():
    """40 animals: the risks of waking by arm differ by the planted total; nothing is direct, or mediated, where that was asked."""
    recordings, truth = mediated_study(40, 60, early=0.0, seed=3)
    risk = {0: [], 1: []}
    for r in recordings:
        h, t = r.hypnogram("scoring"), r.events("trials")
        for on, a in zip(t.start, t.assigned):
            starts = np.arange(len(h)) * h.epoch
            risk[int(a)].append((h.mask("WAKE") & (starts > on) & (starts <= on + 20)).any())
    assert np.mean(risk[1]) - np.mean(risk[0]) == pytest.approx(truth.total, abs=0.05)
    assert truth.total == pytest.approx(truth.indirect + truth.direct)
    assert mediated_study(1, 2, through=0.0)[1].indirect == 0.0 and mediated_study(1, 2, shift=0.0)[1].indirect == pytest.approx(0.0, abs=2e-3)
    assert mediated_study(1, 2, direct=0.0)[1].direct == pytest.approx(0.0, abs=1e-12)


def test_only_the_lc_answers_to_assignment():
    recordings, _ = mediated_study(4, 60, seed=2)
    moved = {"LC": [], "CA1": []}
    for r in recordings:
        t = r.events("trials")
        for region, out in moved.items():
            units = r.spikes.units
            times = r.spikes.pick(units["id"][units["region"] == region]).times
            n = np.searchsorted(times, t.start + 2) - np.searchsorted(times, t.start)
            a = t.assigned.astype(bool)
            out.append((n[a].mean() - n[~a].mean()) / n.std())
    assert np.mean(moved["LC"]) > 0.4 and abs(np.mean(moved["CA1"])) < 0.3
    again = mediated_study(4, 60, seed=2)[0]
    assert np.array_equal(again[0].spikes.times, recordings[0].spikes.times)
