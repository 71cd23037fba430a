"""Tables that cannot belong to their recordings: one clear line from Python and from the command line."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import brainmu as bm
from brainmu.cli import main
from brainmu.core import EventTable, Recording
from brainmu.errors import BrainmuError, DesignError

OBSERVED = ("hazard", "msm", "matched", "glm")


@pytest.fixture(scope="module")
def study():
    return bm.synth.study(n_animals=3, hours=0.7, seed=1)[0]


def changed(recordings, label, change, only=None):
    """The same recordings with one table changed in all, or in the one whose number is `only`."""
    out = []
    for i, r in enumerate(recordings):
        table = EventTable.from_frame(change(r.events(label).to_frame())) if only in (None, i) else r.events(label)
        out.append(dataclasses.replace(r, labels=dict(r.labels) | {label: table}))
    return out


def ask(recordings, design, **more):
    more |= {"adjust": ["pressure"]} if design == "msm" else {}
    return bm.estimate_effect(recordings, exposure="trials" if design == "trials" else "reactivation", design=design, draws=99, **more)


def later(seconds, rows=slice(None)):
    def change(f):
        f.loc[f.index[rows], ["start", "stop", "peak"]] += seconds
        return f

    return change


def setting(**columns):
    return lambda f: f.assign(**columns)


@pytest.mark.parametrize("design", ["trials", *OBSERVED])
@pytest.mark.parametrize(("rows", "only"), [(slice(None), None), (slice(None), 2), (slice(-2, None), 1)])
def test_events_outside_their_recording(study, design, rows, only):
    label = "trials" if design == "trials" else "reactivation"

    def change(f):
        f = later(1e5, rows)(f)
        return f.assign(gate_time=f.start) if "gate_time" in f else f

    with pytest.raises(
        DesignError, match=rf"mouse0\d_study: \d+ of \d+ {'trials' if design == 'trials' else 'events'} lie outside the scored time and the recording"
    ):
        ask(changed(study, label, change, only), design)


@pytest.mark.parametrize("design", OBSERVED)
def test_events_where_nothing_is_scored(study, design):
    def cut(r, n):
        h = r.hypnogram("scoring")
        return dataclasses.replace(r, labels=dict(r.labels) | {"scoring": bm.Hypnogram(h.codes[n:], h.stages, h.epoch, h.start + n * h.epoch)})

    found = ask([cut(r, 150) for r in study], design, diagnostics=True)
    assert any("begin where nothing is scored" in w for w in found.diagnostics["warnings"])
    early = changed(study, "reactivation", lambda f: f[f.start < 500], only=0)
    with pytest.raises(DesignError, match=r"mouse01_study: all .* outside the scored time"):
        ask([cut(early[0], 150), *study[1:]], design)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: pd.concat([f, f.iloc[:3]]), "3 of 39 trials are logged more than once"),
        (setting(probability="half"), "probability holds 'half', expected the chance of assignment"),
        (setting(gate_time="late"), "gate_time holds 'late', expected seconds"),
        (lambda f: f.assign(gate_time=f.start - 600), "600 s before its onset"),
        (lambda f: f.assign(stop=f.start + 500), "trials overlap"),
        (lambda f: f.assign(delivered=~f.assigned.astype(bool)), "does not match the deliveries"),
        (setting(assigned=np.nan), "assigned holds nan"),
        (setting(assigned=True, delivered=True), "control arm is empty"),
    ],
)
def test_a_ledger_that_cannot_be(study, change, message):
    with pytest.raises(DesignError, match=message):
        ask(changed(study, "trials", change), "trials")


@pytest.mark.parametrize("design", OBSERVED)
def test_events_that_are_all_listed_twice(study, design):
    with pytest.raises(DesignError, match="130 of 260 events are listed more than once"):
        ask(changed(study, "reactivation", lambda f: pd.concat([f, f])), design)


def test_a_few_events_listed_twice_are_said(study):
    found = ask(changed(study, "reactivation", lambda f: pd.concat([f, f.iloc[:10]])), "hazard")
    assert any("30 of 350 events repeat another one" in w for w in found.diagnostics["warnings"])


@pytest.mark.parametrize("design", OBSERVED)
def test_events_in_every_epoch(study, design):
    always = np.arange(0.5, 2519.0)
    filled = [dataclasses.replace(r, labels=dict(r.labels) | {"reactivation": EventTable(always, always + 0.1)}) for r in study]
    with pytest.raises(DesignError, match="expected some"):
        ask(filled, design)


@pytest.mark.parametrize("design", ["trials", *OBSERVED])
def test_the_order_of_a_table_does_not_matter(study, design):
    label = "trials" if design == "trials" else "reactivation"
    shuffled = changed(study, label, lambda f: f.sample(frac=1, random_state=0))
    assert ask(shuffled, design, diagnostics=False).estimate == pytest.approx(ask(study, design, diagnostics=False).estimate, rel=1e-9)


@pytest.mark.parametrize("design", ["trials", *OBSERVED])
def test_animals_without_a_name(study, design):
    with pytest.raises(DesignError, match="3 of 3 recordings name no animal"):
        ask([dataclasses.replace(r, subject="") for r in study], design)


def test_times_that_are_no_numbers():
    with pytest.raises(BrainmuError, match="event starts hold 1 NaN"):
        EventTable([0.0, np.nan], [1.0, 2.0])


def test_the_command_line_says_the_same_in_one_line(study, tmp_path, capsys):
    broken: dict[str, tuple[list[Recording], list[str], str]] = {
        "twice": (changed(study, "trials", lambda f: pd.concat([f, f.iloc[:1]])), ["--design", "trials"], "logged more than once"),
        "text": (changed(study, "trials", setting(probability="half")), ["--design", "trials"], "probability holds 'half'"),
        "clock": (
            changed(study, "reactivation", later(1e5), only=2),
            ["--design", "hazard", "--exposure", "reactivation"],
            "outside the scored time and the recording",
        ),
    }
    for name, (recordings, question, message) in broken.items():
        for r in recordings:
            bm.preprocess(r, tmp_path / name / f"{r.id}.zarr", lfp_rate=None)
        assert main(["effect", str(tmp_path / name), *question, "--quiet"]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("brainmu: ") and message in err and err.count("\n") == 1


@pytest.mark.parametrize("wrong", [None, 3, EventTable([1.0], [2.0])])
def test_an_exposure_that_names_nothing(study, wrong):
    with pytest.raises(BrainmuError, match="expected the name of an event label, or a mapping"):
        bm.estimate_effect(study, exposure=wrong, design="hazard")
