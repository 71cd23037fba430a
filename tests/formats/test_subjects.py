"""Tables of subjects beside recordings."""

from datetime import UTC, datetime

import numpy as np
import pytest

from brainmu.core import Recording
from brainmu.errors import FormatError, InputError, MissingDataError
from brainmu.formats.subjects import describe_subject, read_subjects, subjects_beside, zeitgeber_of


def rec(subject="m1", id="m1_day2", **more):
    return Recording.from_arrays(id, subject, signals={"lfp": dict(values=np.zeros((10, 1)), rate=1.0, unit="uV", kind="lfp")}, **more)


def test_subject_table(tmp_path):
    path = tmp_path / "subjects.csv"
    path.write_text("Animal,Group,cage,sex,batch,virus,day,species,lights_on\nm1,ctrl,7,female,2,AAV-ChR2,3,mouse,07:00\nm2,exp,,M,2,,1,mouse,07:00\n")
    assert subjects_beside(tmp_path / "m1.edf") == path
    assert subjects_beside(tmp_path / "m1") == path
    r = rec(started_at=datetime(2024, 5, 1, 16, 30, tzinfo=UTC))
    describe_subject(r, path)
    assert r.subject_meta == {"group": "ctrl", "cage": 7, "sex": "F", "batch": 2, "virus": "AAV-ChR2", "day": 3, "lights_on": "07:00"}
    assert (r.species, r.zeitgeber, r.warnings) == ("mouse", 9.5, [])
    other = rec("m2")
    describe_subject(other, read_subjects(path))
    assert (other.subject_meta["sex"], other.zeitgeber) == ("M", None)
    assert "cage" not in other.subject_meta
    assert any("start is not known" in w for w in other.warnings)
    with pytest.raises(MissingDataError, match="has no subject 'm3'; it has m1, m2"):
        describe_subject(rec("m3"), path)


def test_bids_names_and_a_row_a_day(tmp_path):
    path = tmp_path / "participants.tsv"
    path.write_text("participant_id\tsession_id\tage\tsex\tday\nsub-01\tses-a\t30\tF\t1\nsub-01\tses-b\t30\tn/a\t2\nsub-02\tses-a\tn/a\tM\t1\n")
    a, b = rec("01", "a"), rec("sub-01", "ses-b")
    describe_subject(a, path)
    describe_subject(b, path)
    assert (a.subject_meta, b.subject_meta) == ({"age": 30, "sex": "F", "day": 1}, {"age": 30, "day": 2})
    with pytest.raises(MissingDataError, match="none for this recording"):
        describe_subject(rec("01", "ses-c"), path)
    path.write_text("participant_id\tage\nsub-01\t30\nsub-01\t31\n")
    with pytest.raises(InputError, match="has 2 rows for subject '01'"):
        describe_subject(rec("01"), path)


def test_what_the_recording_knows_stays(tmp_path):
    path = tmp_path / "subjects.csv"
    path.write_text("subject,group,species,lights_on\n7,exp,rat,7\n8,exp,rat,25\n")
    r = rec("7", subject_meta={"group": "ctrl"}, species="mouse", zeitgeber=1.0, started_at=datetime(2024, 5, 1, 10, tzinfo=UTC))
    describe_subject(r, path)
    assert (r.subject_meta["group"], r.species, r.zeitgeber) == ("ctrl", "mouse", 1.0)
    for sentence in ("group is ctrl by the recording and exp by", "species is mouse by the recording and rat", "zeitgeber is 1 h by the recording and 3 h"):
        assert any(sentence in w for w in r.warnings)
    with pytest.raises(InputError, match="lights_on is 25, expected a time of day"):
        describe_subject(rec("8"), path)
    path.write_text("name,group\nm1,a\n")
    with pytest.raises(FormatError, match="expected one that names the subject"):
        describe_subject(r, path)
    path.write_text("subject,group\n,a\nm1,b\n")
    with pytest.raises(FormatError, match="row 1 names no subject"):
        describe_subject(r, path)


def test_zeitgeber_in_the_zone_of_the_lights():
    r = rec(started_at=datetime(2024, 7, 1, 4, 0, tzinfo=UTC))
    assert zeitgeber_of(r, "07:00") == 21.0
    assert zeitgeber_of(r, "07:00", "Europe/Zurich") == 23.0
    assert zeitgeber_of(r, 6.5, "Europe/Zurich") == 23.5
    assert zeitgeber_of(rec(), "07:00") is None
    with pytest.raises(InputError, match="time zone 'Zurich' is not known"):
        zeitgeber_of(r, "07:00", "Zurich")
