"""What is written is read back, by us and by the real libraries."""

from __future__ import annotations

import mne
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu.core import Hypnogram
from brainmu.errors import FormatError, InputError, NotFoundError
from brainmu.sleep import read_hypnogram, write_hypnogram


def _scored(stages: str = "rodent3", epoch: float = 4.0, start: float = 12.0) -> Hypnogram:
    rng = np.random.default_rng(0)
    k = 3 if stages == "rodent3" else 5
    p = rng.dirichlet(np.ones(k), 60).astype(np.float32)
    codes = np.repeat(p[::4].argmax(1), 4).astype(np.int8)
    codes[5], codes[9:12] = -1, -2
    p[9:12] = np.nan
    return Hypnogram(codes, stages, epoch, start, p, "me", {"quality": "good"})


@pytest.mark.parametrize("stages", ["rodent3", "aasm5"])
@pytest.mark.parametrize("name", ["h.tsv", "h_events.tsv", "h.edf", "h.npz"])
def test_round_trip(tmp_path, stages, name):
    h = _scored(stages, 30.0 if stages == "aasm5" else 4.0)
    path = write_hypnogram(h, tmp_path / name)
    back = read_hypnogram(path, stage_set=stages, epoch=None if name in ("h.tsv", "h.npz") else h.epoch)
    assert back == h
    if name in ("h.tsv", "h.npz"):
        assert np.allclose(back.proba, h.proba, atol=1e-5, equal_nan=True)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("codec", "stages"), [("yasa", "aasm5"), ("accusleep", "rodent3"), ("somnotate", "rodent3"), ("buzcode", "rodent3")])
@pytest.mark.parametrize("suffix", [".csv", ".npy", ".txt"])
def test_codes_of_other_tools(tmp_path, codec, stages, suffix):
    h = Hypnogram(np.array([0, 1, 1, 2, -2, 0]), stages, 4.0)
    path = write_hypnogram(h, tmp_path / f"h{suffix}", codec=codec)
    assert read_hypnogram(path, codec=codec, epoch=4.0) == h
    with pytest.raises(InputError, match="codec="):
        read_hypnogram(path, epoch=4.0)
    with pytest.raises(InputError, match="epoch="):
        read_hypnogram(path, codec=codec)


def test_mne_reads_our_edf(tmp_path):
    h = _scored("aasm5", 30.0, 60.0)
    notes = mne.read_annotations(write_hypnogram(h, tmp_path / "h.edf"))
    assert notes.onset[0] == 60.0 and set(notes.description) <= {f"Sleep stage {s}" for s in ("W", "N1", "N2", "N3", "R", "?")} | {"Movement time"}
    assert np.isclose(notes.duration.sum(), len(h) * 30)


@pytest.mark.realdata
def test_sleep_edf_hypnogram(real_data):
    h = read_hypnogram(real_data / "human-sleepedf-hypnograms" / "SC4011EH-Hypnogram.edf")
    assert h.epoch == 30.0 and h.stage_set == "aasm5" and "N3" in h.attrs["merged"]
    assert 0.02 < h.mask("N3").mean() < 0.3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, -1, -2]), min_size=1, max_size=40), st.sampled_from([1.0, 2.5, 4.0]), st.floats(0, 100).map(lambda v: round(v, 1)))
def test_bids_round_trip_of_anything(tmp_path_factory, codes, epoch, start):
    h = Hypnogram(np.array(codes), "rodent3", epoch, start)
    path = write_hypnogram(h, tmp_path_factory.mktemp("bids") / "h_events.tsv")
    assert read_hypnogram(path, epoch=epoch, stage_set="rodent3") == h


def test_bad_files(tmp_path):
    with pytest.raises(NotFoundError):
        read_hypnogram(tmp_path / "no.tsv")
    bad = tmp_path / "bad.tsv"
    bad.write_text("a\tb\n1\t2\n")
    with pytest.raises(FormatError, match="columns a, b"):
        read_hypnogram(bad)
    pd.DataFrame({"onset": [0, 10], "duration": [20, 5], "trial_type": ["WAKE", "REM"]}).to_csv(bad, sep="\t", index=False)
    with pytest.raises(FormatError, match="overlap"):
        read_hypnogram(bad)
    pd.DataFrame({"onset": [0, 10], "duration": [10, 5], "trial_type": ["WAKE", "dreaming"]}).to_csv(bad, sep="\t", index=False)
    with pytest.raises(InputError, match="dreaming"):
        read_hypnogram(bad)
    for name in ("x.npz", "x.edf"):
        (tmp_path / name).write_bytes(b"not this")
        with pytest.raises(FormatError, match=name):
            read_hypnogram(tmp_path / name)
    with pytest.raises(InputError, match="suffix"):
        write_hypnogram(_scored(), tmp_path / "h.xyz")
    with pytest.raises(InputError, match="NREM has no code"):
        write_hypnogram(_scored(), tmp_path / "h.csv", codec="yasa")
    assert not (tmp_path / "h.csv").exists()
