"""Work that was cut off goes on where it was, and parts of another question are refused."""

import numpy as np
import pytest
import xarray as xr

from brainmu.core import Recording
from brainmu.errors import InputError
from brainmu.explain import attribute
from brainmu.explain.saved import Saved


class Cut(Exception):
    pass


def cut_after(label, n):
    seen = []

    def progress(said, fraction):
        seen.append(said)
        if seen.count(label) > n:
            raise Cut

    return progress


@pytest.mark.parametrize("method", ["integrated_gradients", "feature_ablation", "occlusion"])
def test_a_map_that_was_cut_off_goes_on(decided, sessions, tmp_path, method):
    session = sessions[0]
    if method == "occlusion":
        emg = session.signals["emg"]
        session = Recording.from_arrays("short", signals={"emg": dict(values=emg.read(0, 100 * 125), rate=125.0, unit="uV", kind="emg")})
    ask = dict(max_epochs=24, epochs=[10, 14, 18], method=method, shifts=1, check=method == "integrated_gradients")
    label = "occlude" if method == "occlusion" else method
    whole = attribute(decided, session, "NREM", **ask)
    with pytest.raises(Cut):
        attribute(decided, session, "NREM", parts=tmp_path / "p", progress=cut_after(label, 1), **ask)
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "p").glob("*.npz")}
    assert len(kept) == 3  # the answer, and the two parts that were done
    again = attribute(decided, session, "NREM", parts=tmp_path / "p", **ask)
    xr.testing.assert_identical(again.drop_attrs(), whole.drop_attrs())
    assert again.attrs.keys() == whole.attrs.keys() and again.attrs.get("verdict") == whole.attrs.get("verdict")
    assert all((tmp_path / "p" / k).stat().st_mtime_ns == t for k, t in kept.items())
    n = len(list((tmp_path / "p").glob("*.npz")))
    attribute(decided, session, "NREM", parts=tmp_path / "p", **ask)
    assert len(list((tmp_path / "p").glob("*.npz"))) == n and not list((tmp_path / "p").glob("*.partial"))


def test_parts_of_another_question_are_refused(decided, untrained, sessions, tmp_path):
    attribute(decided, sessions[0], "NREM", max_epochs=4, method="feature_ablation", check=False, parts=tmp_path)
    with pytest.raises(InputError, match="with baseline 'zero', now 'matched': ask the same, or delete"):
        attribute(decided, sessions[0], "NREM", max_epochs=4, method="feature_ablation", check=False, parts=tmp_path, baseline="matched")
    with pytest.raises(InputError, match="another model's or recording's"):
        attribute(untrained, sessions[0], "NREM", max_epochs=4, method="feature_ablation", check=False, parts=tmp_path)


def test_parts_against_another_control_are_refused(decided, untrained, sessions, tmp_path):
    ask = dict(max_epochs=4, method="feature_ablation", check=False, parts=tmp_path)
    attribute(decided, sessions[0], "NREM", control=untrained, **ask)
    with pytest.raises(InputError, match="a map with control"):
        attribute(decided, sessions[0], "NREM", control=decided, **ask)


def test_a_folder_of_other_files_is_left_alone_and_half_a_beginning_is_not(tmp_path):
    said = np.eye(3)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        Saved(tmp_path / "notes", {}, said)
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "answer.npz.partial").write_bytes(b"half")
    saved = Saved(begun, {"a": 1}, said)
    saved.put("x", values=np.arange(3))
    assert Saved(begun, {"a": 1}, said).get("x")["values"].tolist() == [0, 1, 2] and saved.get("y") is None
    # A damaged part is made again; a damaged question cannot be told from another one.
    (begun / "x.npz").write_bytes((begun / "x.npz").read_bytes()[:60])
    assert Saved(begun, {"a": 1}, said).get("x") is None
    (begun / "question.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        Saved(begun, {"a": 1}, said)
