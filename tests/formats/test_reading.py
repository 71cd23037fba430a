"""Which format a path is, what is in it, and what is said where that cannot be known."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from brainmu.errors import FormatError, InputError, NotFoundError
from brainmu.formats import FORMATS, describe, read, read_all, sniff


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "eeg.npy", np.arange(400.0))
    np.save(tmp_path / "hyp.npy", np.array([0, 1, 2, -1]))
    (tmp_path / "brainmu.yaml").write_text(
        "id: r1\nsubject: m1\nsignals: {eeg: {file: eeg.npy, rate: 200, unit: uV, kind: eeg}}\n"
        "labels: {scoring: {type: hypnogram, file: hyp.npy, epoch: 0.5, codec: yasa}, run: {type: intervals, bounds: [[0, 1]]}}\n"
        "notes: made up\n"
    )
    return tmp_path


def test_describe_is_plain_json(folder):
    d = json.loads(json.dumps(describe(folder)))
    assert (d["format"], d["bytes"] > 3000, len(d["files"])) == ("manifest", True, 3)
    (r,) = d["recordings"]
    assert (r["id"], r["subject"], r["duration"], r["notes"]) == ("r1", "m1", 2.0, "made up")
    assert r["signals"]["eeg"] == {
        "kinds": ["eeg"], "n_channels": 1, "channels": ["eeg_0"], "regions": [], "rate": 200.0, "n_samples": 400, "unit": "uV", "start": 0.0, "stop": 2.0,
        "duration": 2.0, "dtype": "float64", "gaps": 0, "gap_duration": 0,
    }  # fmt: skip
    assert r["labels"]["scoring"]["stages"] == {"W": 1, "N1": 1, "N2": 1, "ART": 1}
    assert r["labels"]["run"]["bounds"] == [[0, 1]]


def test_options_correct_what_the_file_says(folder):
    rec = read(folder, id="other", subject="m9", species="rat", zeitgeber=3.0, subject_meta={"sex": "F"})
    assert (rec.id, rec.subject, rec.species, rec.zeitgeber, rec.subject_meta) == ("other", "m9", "rat", 3.0, {"sex": "F"})
    with pytest.raises(InputError, match="expected a non-empty name"):
        read(folder, id="a/b")
    with pytest.raises(InputError, match="manifest has no option 'recordng': did you mean 'recording'"):
        read(folder, recordng="x")


def test_paths_that_are_not_there(folder):
    with pytest.raises(NotFoundError, match=r"did you mean 'eeg.npy'"):
        read(folder / "egg.npy")
    with pytest.raises(NotFoundError, match=r"the folder .* does not exist"):
        sniff(folder / "no" / "x.edf")


def test_unknown_things_name_the_fix(folder, tmp_path_factory):
    with pytest.raises(FormatError, match=r"is a plain array.*--write-manifest"):
        read(folder / "eeg.npy")
    (folder / "notes.docx").write_text("x")
    with pytest.raises(FormatError, match="format not recognised; known are a folder of arrays"):
        read(folder / "notes.docx")
    with pytest.raises(FormatError, match=r"format 'edff' is not known: did you mean 'edf'"):
        read(folder, format="edff")
    with pytest.raises(FormatError, match="holds nothing of format nwb"):
        read(folder, format="nwb")
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(FormatError, match="nothing in it is known"):
        read_all(empty)
    np.save(empty / "a.npy", np.zeros(3))
    with pytest.raises(FormatError, match=r"holds plain arrays and no brainmu.yaml"):
        read_all(empty)


def test_a_folder_of_several_formats(tmp_path):
    (tmp_path / "a.edf").write_bytes(b"0")
    (tmp_path / "b.nwb").write_bytes(b"0")
    with pytest.raises(FormatError, match=r"several formats .edf, nwb.: name one file, or say format="):
        sniff(tmp_path)
    (tmp_path / "m.xml").write_text("<parameters><acquisitionSystem/></parameters>")
    (tmp_path / "p.videoPositionTracking").write_bytes(b"0")
    with pytest.raises(FormatError, match="could be read as neurosuite or as trodes: say which with format="):
        sniff(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read(folder):
    (folder / "eeg.npy").chmod(0)
    with pytest.raises(FormatError, match="check its permissions"):
        read(folder)


def test_every_format_has_a_reader():
    from brainmu.formats.reading import _module

    for name in FORMATS:
        module = _module(name)
        assert callable(module.detect)
        assert callable(module.read)


def test_importing_the_room_is_light():
    """No pynwb, MNE, neo, h5py or scipy.io before a file needs them."""
    code = "import sys, brainmu.formats; print([m for m in ('mne', 'pynwb', 'neo', 'h5py', 'torch', 'matplotlib') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_loose_arrays_beside_a_recognised_file_that_lacks_its_rate(tmp_path):
    (tmp_path / "vidDLC.csv").write_text("scorer,a,a,a\nbodyparts,nose,nose,nose\ncoords,x,y,likelihood\n0,1,1,1\n1,1,1,1\n")
    with pytest.raises(InputError, match="carry no time") as alone:
        read_all(tmp_path)
    assert "--write-manifest" not in str(alone.value)
    np.save(tmp_path / "lfp.npy", np.zeros((10, 1)))
    for reader in (read, read_all):
        with pytest.raises(InputError, match=r"carry no time.*; lfp\.npy lie beside it.*brainmu info .* --write-manifest"):
            reader(tmp_path)
