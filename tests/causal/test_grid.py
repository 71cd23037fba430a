import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainmu.causal.grid import EpochGrid, Transition, epochs_in, exposure_of, subjects_of
from brainmu.core import Hypnogram, Recording
from brainmu.errors import DesignError, InputError

STAGES = st.lists(st.sampled_from(["WAKE", "NREM", "REM", "ART", "UNS"]), min_size=1, max_size=60)


def grid_of(stages, epoch=4.0, start=0.0, outcome="NREM->WAKE"):
    rec = Recording("r", "m", labels={"scoring": Hypnogram.from_stages(stages, epoch=epoch, start=start)})
    return EpochGrid.of(rec, "m", Transition.parse(outcome), "scoring")


@given(STAGES)
def test_at_risk_is_source_with_a_scored_successor(stages):
    g = grid_of(stages)
    for k, s in enumerate(stages):
        expected = s == "NREM" and k + 1 < len(stages) and stages[k + 1] not in ("ART", "UNS")
        assert g.at_risk[k] == expected


@given(STAGES)
def test_age_counts_from_the_bout_start_and_bouts_are_numbered(stages):
    g = grid_of(stages)
    age = 0
    for k, s in enumerate(stages):
        age = age + 1 if s == "NREM" else 0
        assert g.age[k] == age
        assert (g.bout[k] >= 0) == (s == "NREM")
        if age > 1:
            assert g.bout[k] == g.bout[k - 1]


@given(
    st.lists(st.floats(-20, 220, allow_nan=False), max_size=40),
    st.floats(0, 3.9), st.floats(-100, 100),
)  # fmt: skip
def test_exposure_counts_events_in_the_unblanked_part_of_their_epoch(times, blank, start):
    g = grid_of(["NREM"] * 50, start=start)
    times = np.array(times) + start
    # Times within rounding of a boundary belong to either side.
    inside = (times - start) % 4.0
    times = times[(np.abs(inside - (4.0 - blank)) > 1e-4) & (inside > 1e-4) & (inside < 4.0 - 1e-4)]
    count, first = exposure_of(g, times, blank)
    for k in range(50):
        t = g.time(k)
        here = times[(times >= t) & (times < t + 4.0 - blank)]
        assert count[k] == len(here)
        assert np.isnan(first[k]) == (len(here) == 0)
        if len(here):
            assert first[k] == pytest.approx(here.min() - t, abs=1e-6)


def test_an_event_on_the_boundary_belongs_to_the_later_epoch():
    g = grid_of(["NREM"] * 10, epoch=0.1, start=0.3)
    k = np.arange(10)
    assert np.array_equal(np.flatnonzero(exposure_of(g, g.time(k)[3:4], 0.0)[0]), [3])
    assert np.array_equal(g.index(g.time(k)), k)


def test_bout_after_a_gap_has_an_unseen_beginning():
    g = grid_of(["NREM", "WAKE", "NREM", "ART", "NREM", "NREM"])
    assert g.late.tolist() == [True, False, False, False, True, True]


def test_stage_groups_work_for_aasm():
    g = grid_of(["W", "N1", "N2", "N3", "R", "N2", "W"], epoch=30.0)
    assert g.source.tolist() == [False, True, True, True, False, True, False]
    assert grid_of(["W", "N2", "R"], outcome="NREM->REM").target.tolist() == [False, False, True]


@pytest.mark.parametrize("text", ["NREM", "NREM->", "NREM->N2", "WAKE->W", "sleep->WAKE", "A->B->C"])
def test_a_transition_that_makes_no_sense_is_refused(text):
    with pytest.raises(DesignError):
        Transition.parse(text)


def test_a_horizon_off_the_grid_names_its_neighbours():
    assert epochs_in(20.0, 4.0) == 5
    assert epochs_in(0.3, 0.1) == 3
    with pytest.raises(DesignError, match="use 8 or 12 s"):
        epochs_in(10.0, 4.0)
    with pytest.raises(DesignError, match="use 4 s"):
        epochs_in(2.0, 4.0)
    with pytest.raises(DesignError):
        epochs_in(-4.0, 4.0)


def test_animals_must_be_named():
    a, b = Recording("a"), Recording("b")
    with pytest.raises(DesignError, match="name no animal"):
        subjects_of([a, b])
    assert subjects_of([a])[0] == ["a"]
    with pytest.raises(DesignError, match="twice"):
        subjects_of([Recording("a", "m"), Recording("a", "m")])
    with pytest.raises(DesignError, match="no sessions"):
        subjects_of([])
    with pytest.raises(InputError, match="str"):
        subjects_of(["path.zarr"])
