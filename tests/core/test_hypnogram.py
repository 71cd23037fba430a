"""Stage names, codecs that collide, groups, bouts, and the refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainmu.core import Hypnogram
from brainmu.core.hypnogram import CODECS
from brainmu.errors import InputError


@pytest.mark.parametrize(
    ("names", "stage_set"),
    [
        (["W", "N1", "N2", "N3", "R"], "aasm5"),
        (["WAKE", "NREM", "REM"], "rodent3"),
        (["Wake", "SWS", "rem", "art"], "rodent3"),
        (["Sleep stage W", "Sleep stage 2", "Sleep stage R", "Sleep stage ?"], "aasm5"),
        (["WAKE", "N2", "REM"], "aasm5"),
        (["W", "NREM", "R"], "rodent3"),
        (["W", "W", "R"], "aasm5"),
    ],
)
def test_stage_set_is_inferred(names, stage_set):
    assert Hypnogram.from_stages(names, epoch=30).stage_set == stage_set


@given(st.lists(st.sampled_from(["W", "N1", "N2", "N3", "R", "ART", "UNS"]), min_size=1))
def test_names_round_trip(names):
    assert Hypnogram.from_stages(names, epoch=30, stage_set="aasm5").stages_list() == names


@given(st.sampled_from(sorted(CODECS)), st.data())
def test_codecs_round_trip(codec, data):
    # Somnotate's three artefact codes and the codecs' own unscored codes come back as one of their kind.
    codes = data.draw(st.lists(st.sampled_from([k for k, v in CODECS[codec].items() if v not in ("ART", "UNS")]), min_size=1))
    h = Hypnogram.from_codes(codes, codec, epoch=4)
    assert h.to_codes(codec).tolist() == codes


def test_code_one_means_something_else_everywhere():
    assert {c: Hypnogram.from_codes([1], c, epoch=4).stages_list()[0] for c in CODECS} == {
        "yasa": "N1", "accusleep": "REM", "somnotate": "WAKE", "buzcode": "WAKE",
    }  # fmt: skip


def test_rechtschaffen_kales_is_merged_only_when_asked_and_stated():
    with pytest.raises(InputError, match="rk=True"):
        Hypnogram.from_stages(["S2", "S4"], epoch=30)
    h = Hypnogram.from_stages(["S1", "S2", "S3", "S4"], epoch=30, rk=True)
    assert h.stages_list() == ["N1", "N2", "N3", "N3"] and "S4" in h.attrs["merged"]


def test_groups_and_rodent_view():
    h = Hypnogram.from_stages(["W", "N1", "N3", "R"], epoch=30, start=60, proba=np.eye(5)[[0, 1, 3, 4]])
    assert h.mask("NREM").tolist() == [False, True, True, False] and h.mask("REM").tolist() == [False, False, False, True]
    r = h.as_rodent3()
    assert r.stages_list() == ["WAKE", "NREM", "NREM", "REM"] and r.proba.sum(1).tolist() == [1, 1, 1, 1]
    assert h.intervals("NREM").bounds.tolist() == [[90, 150]]


def test_at_is_half_open_and_unscored_outside():
    h = Hypnogram.from_stages(["WAKE", "REM"], epoch=4, start=10)
    assert h.at([9.99, 10, 13.99, 14, 18, np.nan]).tolist() == [-2, 0, 0, 2, -2, -2]


def test_bouts():
    b = Hypnogram.from_stages(["WAKE", "NREM", "NREM", "REM"], epoch=4, start=2).bouts()
    assert b["stage"].tolist() == ["WAKE", "NREM", "REM"] and b["start"].tolist() == [2, 6, 14] and b["duration"].sum() == 16


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Hypnogram.from_stages(["NREM", "N2"], epoch=4), "mix"),
        (lambda: Hypnogram.from_stages(["deep"], epoch=4), "'deep' is not known"),
        (lambda: Hypnogram([7], "rodent3", epoch=4), "outside -2..2"),
        (lambda: Hypnogram([0.5], "rodent3", epoch=4), "expected integers"),
        (lambda: Hypnogram([0], "rodent3", epoch=0), "positive"),
        (lambda: Hypnogram([0], "rodent4", epoch=4), "aasm5"),
        (lambda: Hypnogram([0], "rodent3", epoch=4, proba=[[0.5, 0.5]]), "expected \\(1, 3\\)"),
        (lambda: Hypnogram([0], "rodent3", epoch=4, proba=[[0.5, 0.1, 0.1]]), "sum to 1"),
        (lambda: Hypnogram.from_codes([9], "yasa", epoch=30), "does not exist in yasa"),
        (lambda: Hypnogram.from_codes([1], "yaza", epoch=30), "yasa"),
        (lambda: Hypnogram.from_stages(["N2"], epoch=30).to_codes("accusleep"), "no code in accusleep"),
    ],
)
def test_refusals(make, says):
    with pytest.raises(InputError, match=says):
        make()
