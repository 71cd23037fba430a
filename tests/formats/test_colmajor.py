"""Pairs of ColMajor.bin and Meta.csv."""

import numpy as np
import pytest

from brainmu.errors import FormatError
from brainmu.formats import read, read_all, sniff

X = np.random.default_rng(0).normal(0, 100, (500, 3)).astype("<f4")
HEADER = "Entity,BinColumn,Label,ProbeInfo,SampleRate,Units,Precision,LastEdit"


def _write(folder, name, units="µV", rates=(1000, 1000, 1000), columns=(1, 2, 3)):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}_ColMajor.bin").write_bytes(X.T.copy().tobytes())
    rows = [f"{i},{c},C-{i:03d},Port,{r},{units},float32,2023-12-13T11:17:32" for i, (c, r) in enumerate(zip(columns, rates, strict=True), 1)]
    (folder / f"{name}_Meta.csv").write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return folder


def test_channels_rate_and_unit(tmp_path):
    folder = _write(tmp_path / "A10", "Cage 2 A10-0", units="mV")
    assert sniff(folder) == "colmajor"
    rec = read(folder, subject="A10", species="mouse")
    s = rec.signals["eeg"]
    assert (rec.id, rec.subject, s.rate, s.unit, s.names) == ("Cage_2_A10-0", "A10", 1000, "uV", ["C-001", "C-002", "C-003"])
    np.testing.assert_allclose(s.read(100, 200), X[100:200] * 1000, rtol=1e-6)
    assert read(folder, kind="lfp").signals["lfp"].n_channels == 3


def test_a_folder_of_animals(tmp_path):
    _write(tmp_path / "A", "a")
    _write(tmp_path / "B", "b1")
    _write(tmp_path / "B", "b2")
    assert [r.id for r in read_all(tmp_path)] == ["a", "b1", "b2"]
    with pytest.raises(FormatError, match="holds several recordings"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"), [({"rates": (1000, 1000, 500)}, "SampleRate differs"), ({"columns": (1, 2, 2)}, r"BinColumn is \[1, 2, 2\], expected 1 to 3")]
)
def test_tables_that_do_not_fit(tmp_path, options, message):
    with pytest.raises(FormatError, match=message):
        read(_write(tmp_path / "x", "x", **options))


def test_a_bin_that_does_not_fit(tmp_path):
    folder = _write(tmp_path / "x", "x")
    (folder / "x_ColMajor.bin").write_bytes(X.tobytes()[:-4])
    with pytest.raises(FormatError, match=r"not a multiple of 12 .3 channels of float32"):
        read(folder)
    (folder / "x_Meta.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FormatError, match="expected BinColumn, Label"):
        read(folder)
