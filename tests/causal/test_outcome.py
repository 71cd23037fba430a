import numpy as np
import pytest

from brainmu.causal import estimate_effect
from brainmu.causal.grid import EpochGrid, Transition
from brainmu.causal.outcome import Outcome, inverse_censoring
from brainmu.core import EventTable, Hypnogram, Recording, Signal
from brainmu.errors import DesignError, MissingDataError

KEYS = {"W": "WAKE", "N": "NREM", "R": "REM", "A": "ART", "U": "UNS"}


def grid_of(text, target, epoch=4.0):
    rec = Recording("r", "m", labels={"scoring": Hypnogram.from_stages([KEYS[c] for c in text], epoch=epoch)})
    return EpochGrid.of(rec, "m", Transition("NREM", target), "scoring")


def where(mask):
    return np.flatnonzero(mask).tolist()


def test_micro_arousals_are_short_and_return_to_the_source():
    #       0123456789012345678901
    text = "NNWNNWWWWNNWWRRNNWWANW"
    brief, lasting = grid_of(text, "microarousal"), grid_of(text, "awakening")
    assert where(brief.target) == [2]  # of the others one is long, one goes on to REM, two have an unseen end
    assert where(lasting.target) == [5, 6, 7, 8]
    assert where(~brief.scored) == [17, 18, 19, 21] == where(~lasting.scored)
    assert where(grid_of(text, "any").target) == [i for i, c in enumerate(text) if c in "WR"]
    # Exactly 15 s is one; epochs of 30 s cannot hold any.
    assert where(grid_of("NWWWN", "microarousal", epoch=5.0).target) == [1, 2, 3]
    with pytest.raises(DesignError, match="score finer"):
        grid_of("NWN", "microarousal", epoch=30.0)


@pytest.mark.parametrize(
    ("text", "kind", "transition", "signal"),
    [
        ("NREM->REM", "transition", "NREM->REM", ""),
        ("NREM -> microarousal", "transition", "NREM->microarousal", ""),
        ("time to WAKE", "time", "NREM->WAKE", ""),
        ("time to WAKE from REM", "time", "REM->WAKE", ""),
        ("bout length", "time", "NREM->any", ""),
        ("signal:bands:delta", "signal", "NREM->any", "bands:delta"),
        ("change:pupil from REM", "signal", "REM->any", "pupil"),
        ("depth:bands:delta", "signal", "NREM->any", "bands:delta"),
        ("rebound:bands:delta", "signal", "NREM->any", "bands:delta"),
    ],
)
def test_outcomes_in_words(text, kind, transition, signal):
    o = Outcome.parse(text)
    assert (o.kind, str(o.transition), o.signal) == (kind, transition, signal)
    assert (o.change, o.asleep) == (text.startswith(("change", "rebound")), text.startswith(("depth", "rebound")))


@pytest.mark.parametrize("text", ["", "waking", "time to", "time to NREM", "signal:", "bout length of the animal", "NREM->NREM"])
def test_words_that_are_no_outcome(text):
    with pytest.raises(DesignError):
        Outcome.parse(text)


def test_weights_for_what_was_cut_short_give_back_kaplan_meier():
    from statsmodels.duration.survfunc import SurvfuncRight

    rng = np.random.default_rng(0)
    t, c = rng.geometric(0.1, 400).astype(float), rng.geometric(0.05, 400) + 0.5
    hit, latency = t <= c, np.minimum(t, c)
    y = inverse_censoring(hit, ~hit, latency)
    theirs = SurvfuncRight(latency, hit.astype(int))
    for at in (3, 8, 15):
        s = theirs.surv_prob[np.searchsorted(theirs.surv_times, at, side="right") - 1]
        assert (y * (latency <= at)).mean() == pytest.approx(1 - s, abs=1e-9)
    assert inverse_censoring(hit, np.zeros(400, bool), latency).tolist() == hit.astype(float).tolist()


def night(i, n=80, sham=False):
    """40 s of NREM a trial: an assigned one wakes 8 s after its onset with a chance of 0.6 instead of 0.2, and lifts a signal by 3 for 10 s."""
    rng = np.random.default_rng([i, sham])
    coin = rng.random(n) < 0.5
    stages, x = [], rng.standard_normal(n * 40) + 2 * i
    for k, c in enumerate(coin):
        stages += ["NREM"] * 6 + (["WAKE"] * 2 if rng.random() < 0.2 + 0.4 * (c and not sham) else ["NREM"] * 2) + ["NREM"] * 2
        x[k * 40 + 17 : k * 40 + 27] += 3.0 * (c and not sham)
        x[k * 40 + 17] += 50.0 * c  # an artefact in the first second
    on = np.arange(n) * 40.0 + 16.0
    trials = EventTable(on, on + 1, kind="trial", assigned=coin, probability=0.5)
    signal = Signal(np.c_[x, x], rate=1.0, unit="uV", channels=["a", "b"])
    return Recording(f"r{i}", f"m{i}", labels={"scoring": Hypnogram.from_stages(stages, epoch=4.0), "trials": trials}, signals={"lfp": signal})


@pytest.fixture(scope="module")
def nights():
    return [night(i) for i in range(5)]


def test_time_to_wake_is_the_area_between_the_risks(nights):
    risk = estimate_effect(nights, exposure="trials", horizon=10.0, draws=99)
    time = estimate_effect(nights, exposure="trials", outcome="time to WAKE", horizon=20.0, draws=499)
    # Reached 8 s after the onset or not within 20 s: 12 s lost of 20 a waking.
    assert time.estimate == pytest.approx(-12.0 * risk.estimate, abs=1e-9)
    assert (time.unit, time.scale, time.level) == ("s", "difference in means", "experimental") and time.p_value <= 0.002
    assert time.diagnostics["mean_control"] > time.diagnostics["mean_assigned"] and "risk_ratio" not in time.diagnostics
    assert "counted up to 20 s" in time.estimand and "lowers the time until WAKE" in time.diagnostics["verdict"]
    assert estimate_effect(nights, exposure="trials", outcome="bout length", horizon=20.0, draws=99).estimate == pytest.approx(time.estimate)


def test_a_signal_after_the_onset_without_its_artefact(nights):
    ask = {"exposure": "trials", "horizon": 9.0, "draws": 499}
    clean = estimate_effect(nights, outcome="signal:lfp:a", blank=2.0, **ask)
    assert clean.unit == "uV" and clean.estimate == pytest.approx(3.0, abs=0.2) and clean.low > 2.5 and clean.p_value <= 0.002
    assert clean.blank == 2.0 and "2 to 9 s after its onset" in clean.estimand
    assert estimate_effect(nights, outcome="signal:lfp:a", **ask).estimate > 6.0
    assert estimate_effect(nights, outcome="change:lfp:a", blank=2.0, **ask).estimate == pytest.approx(3.0, abs=0.4)
    nothing = estimate_effect([night(i, sham=True) for i in range(5)], outcome="signal:lfp:b", blank=2.0, **ask)
    assert nothing.low < 0 < nothing.high and nothing.p_value > 0.01 and "No effect" in nothing.diagnostics["verdict"]


def sleepless(i, n=40):
    """80 s a trial: an assigned one wakes for 24 s, and the NREM that follows is deeper by 2. Delta is 5 less in waking."""
    rng = np.random.default_rng(i)
    coin = rng.random(n) < 0.5
    stages, x = [], rng.normal(10.0 + i, 1.0, n * 80)
    for k, c in enumerate(coin):
        stages += ["NREM"] * 6 + (["WAKE"] if c else ["NREM"]) * 6 + ["NREM"] * 8
        x[k * 80 + 24 : k * 80 + 48] -= 5.0 * c
        x[k * 80 + 48 : k * 80 + 80] += 2.0 * c
    on = np.arange(n) * 80.0 + 22.0
    trials = EventTable(on, on + 1, kind="trial", assigned=coin, probability=0.5)
    labels = {"scoring": Hypnogram.from_stages(stages, epoch=4.0), "trials": trials}
    return Recording(f"r{i}", f"m{i}", labels=labels, signals={"delta": Signal(x[:, None], rate=1.0, unit="uV", channels=["delta"])})


def test_a_rebound_is_read_in_sleep_alone():
    ask = {"exposure": "trials", "horizon": 58.0, "draws": 499}
    sleepers = [sleepless(i) for i in range(5)]
    mixed = estimate_effect(sleepers, outcome="signal:delta", **ask)
    assert mixed.estimate < -0.5  # waking hides the deeper sleep that follows it
    depth = estimate_effect(sleepers, outcome="depth:delta", **ask)
    assert depth.estimate == pytest.approx(2.0, abs=0.25) and depth.unit == "uV" and depth.p_value <= 0.002
    rebound = estimate_effect(sleepers, outcome="rebound:delta", horizon=58.0, exposure="trials", draws=499)
    # Before the onset lies the rebound of the trial before, in either arm alike.
    assert rebound.estimate == pytest.approx(2.0, abs=0.5) and rebound.low > 0
    assert "change in delta while in NREM" in rebound.estimand and any("which of it is read" in a for a in rebound.assumptions)


@pytest.mark.parametrize("stamp", [0.0, 4.0])
def test_depth_is_of_sleep_alone_wherever_samples_are_stamped(stamp):
    """1 in NREM and 0 in WAKE, a sample an epoch, stamped at its beginning or its end; assignment wakes and does nothing else."""
    out = []
    for n in [night(i) for i in range(4)]:
        value = (n.hypnogram("scoring").codes == 1).astype(np.float32)
        out.append(n.with_fields(signals={"d": Signal(value[:, None], rate=0.25, start=stamp, channels=["d"])}))
    for outcome in ("depth:d", "rebound:d"):
        e = estimate_effect(out, exposure="trials", outcome=outcome, horizon=24.0, draws=0, diagnostics=False)
        assert (e.estimate, e.low, e.high) == (0.0, 0.0, 0.0)
    assert estimate_effect(out, exposure="trials", outcome="signal:d", horizon=24.0, draws=0, diagnostics=False).estimate < -0.05


def test_micro_arousals_after_trials(nights):
    """All wakings here last 8 s between NREM."""
    ask = {"exposure": "trials", "horizon": 10.0, "draws": 99}
    micro = estimate_effect(nights, outcome="NREM->microarousal", **ask)
    assert micro.estimate == pytest.approx(estimate_effect(nights, **ask).estimate)
    with pytest.raises(DesignError, match="reaches awakening"):
        estimate_effect(nights, outcome="NREM->awakening", **ask)


def test_rem_entry_in_every_design(planted_study):
    recs = planted_study(2, animals=4, hours=4.0, trials=True)[0]
    trial = estimate_effect(recs, exposure="trials", outcome="NREM->REM", horizon=20.0, draws=99)
    assert "REM is the first stage" in trial.estimand and abs(trial.estimate) < 0.3
    for design in ("hazard", "matched", "glm"):
        e = estimate_effect(recs, exposure="reactivation", outcome="NREM->REM", design=design, diagnostics=False)
        assert np.isfinite([e.low, e.high]).all() and e.n_transitions > 20


def test_outcomes_that_cannot_be_read(nights):
    ask = {"exposure": "trials", "draws": 9}
    with pytest.raises(MissingDataError, match="no signal 'delta' to read as the outcome"):
        estimate_effect(nights, outcome="signal:delta", **ask)
    with pytest.raises(DesignError, match="expected one as the outcome"):
        estimate_effect(nights, outcome="signal:lfp", **ask)
    for design in ("hazard", "msm", "glm"):
        with pytest.raises(DesignError, match="reads transitions"):
            estimate_effect(nights, outcome="time to WAKE", design=design, **ask)
    with pytest.raises(DesignError, match="leave time out of a signal only"):
        estimate_effect(nights, blank=1.0, **ask)
    with pytest.raises(DesignError, match="less than the horizon"):
        estimate_effect(nights, outcome="signal:lfp:a", horizon=5.0, blank=5.0, **ask)
    centred = [Recording(r.id, r.subject, labels=r.labels, signals={"lfp": Signal(np.zeros(3200), rate=1.0, attrs={"centred": True})}) for r in nights]
    with pytest.raises(DesignError, match="centred"):
        estimate_effect(centred, outcome="signal:lfp", **ask)
    late = [Recording(r.id, r.subject, labels=r.labels, signals={"lfp": Signal(np.zeros(10), rate=1.0, start=1e6)}) for r in nights]
    with pytest.raises(DesignError, match="check the signal's clock"):
        estimate_effect(late, outcome="signal:lfp", **ask)
