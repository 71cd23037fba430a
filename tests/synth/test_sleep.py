from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import brainmu.synth as synth
from brainmu.errors import InputError
from brainmu.synth.effects import Mechanism, live
from brainmu.synth.interventions import simulate_interventions
from brainmu.synth.sleep import HumanSleep, RodentSleep, human_arousals, human_bouts, score

_DAY = 86400.0
_SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "figures" / "synth_sleep_fit.py"


@pytest.fixture(scope="module")
def fit():
    monkey = pytest.MonkeyPatch()
    spec = importlib.util.spec_from_file_location("synth_sleep_fit", _SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkey.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    yield module
    monkey.undo()


def _mouse(sleep, stop, seed=0, **mechanism):
    return live(Mechanism(**mechanism), sleep, 0.0, stop, np.random.default_rng(seed))


def _stage(bouts, t):
    return bouts["stage"].to_numpy().astype(str)[np.searchsorted(bouts["start"].to_numpy(), t, side="right") - 1]


def _assert_tiles(bouts, start, stop):
    assert bouts["start"].iloc[0] == start
    assert bouts["stop"].iloc[-1] == stop
    assert (bouts["start"].to_numpy()[1:] == bouts["stop"].to_numpy()[:-1]).all()
    assert (bouts["stop"] > bouts["start"]).all()
    stage = bouts["stage"].to_numpy()
    assert (stage[1:] != stage[:-1]).all()


# -- invariants -------------------------------------------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(120.0, 5000.0), st.booleans(), st.floats(0.0, 24.0), st.floats(0.0, 6.0))
def test_rodent_bouts_tile_the_span(seed, stop, drive, zeitgeber, circadian):
    life = _mouse(RodentSleep(drive=drive, zeitgeber=zeitgeber, circadian=circadian), stop, seed)
    _assert_tiles(life.bouts, 0.0, stop)
    moves = set(zip(life.bouts.stage[:-1], life.bouts.stage[1:]))
    assert moves <= {("WAKE", "NREM"), ("NREM", "WAKE"), ("NREM", "REM"), ("REM", "WAKE"), ("REM", "NREM")}
    assert ((life.need > 0) & (life.need < 1)).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(400.0, 40000.0), st.floats(0.0, 1.0), st.floats(0.0, 0.05))
def test_human_bouts_tile_the_span_and_arousals_lie_inside_bouts(seed, stop, night_sd, rate):
    model = HumanSleep(night_sd=night_sd, arousal_rate=rate)
    bouts = human_bouts(model, stop, np.random.default_rng(seed))
    _assert_tiles(bouts, 0.0, stop)
    arousals = human_arousals(model, bouts, np.random.default_rng(seed))
    k = np.searchsorted(bouts["start"].to_numpy(), arousals.start, side="right") - 1
    assert (arousals.stop <= bouts["stop"].to_numpy()[k]).all()
    assert (arousals.start - bouts["start"].to_numpy()[k] >= 10.0).all()
    assert ((arousals.duration > 3 - 1e-6) & (arousals.duration < 15 + 1e-6)).all()
    assert (arousals.start[1:] - arousals.stop[:-1] >= 10.0 - 1e-6).all()
    assert (arousals.stage == bouts["stage"].to_numpy()[k]).all()
    assert not (arousals.stage == "W").any()


def test_a_human_wakes_for_the_day_and_sleeps_again():
    bouts = human_bouts(HumanSleep(time_in_bed=8.0), 34 * 3600.0, np.random.default_rng(3))
    t = np.arange(5.0, 34 * 3600.0, 30.0)
    stage, hour = _stage(bouts, t), t / 3600
    assert (stage[(hour > 8) & (hour < 24)] == "W").all()
    for night in (0.0, 24.0):
        asleep = (hour > night + 0.8) & (hour < night + 8)
        assert (stage[asleep] != "W").mean() > 0.75
        assert np.isin(["N1", "N2", "N3", "R"], stage[asleep]).all()
    assert (stage[hour > 32] == "W").all()
    with pytest.raises(InputError, match="time_in_bed"):
        HumanSleep(time_in_bed=25.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1.0, 4.0, 10.0, 30.0]))
def test_an_epoch_is_scored_as_what_fills_most_of_it(seed, epoch):
    bouts = human_bouts(HumanSleep(), 3600.0, np.random.default_rng(seed))
    scored = np.array(score(bouts, epoch, "aasm5", 0.0, 3600.0).stages_list())
    fine = _stage(bouts, np.arange(0.0, 3600.0, 0.05) + 0.025).reshape(len(scored), -1)
    clear = np.array([(row == s).mean() > 0.52 for row, s in zip(fine, scored)])
    best = np.array([max((row == s).mean() for s in set(row)) for row in fine])
    assert (clear | (best <= 0.53)).all()


# -- the clock and the need for sleep ---------------------------------------------------------------------------------
def test_without_the_drive_a_mouse_sleeps_as_it_always_did():
    """The bouts of two hours at seed 0 as they were before there was a clock."""
    bouts = _mouse(RodentSleep(), 7200.0).bouts
    assert len(bouts) == 121
    assert bouts.start.iloc[[1, 2, 10, 50, -1]].tolist() == pytest.approx(
        [89.15980196768683, 151.20336909509268, 627.4982113837365, 2259.000068740394, 6922.315940599001], abs=1e-6
    )
    inert = RodentSleep(zeitgeber=15.0, circadian=3.0, homeostatic=3.0, consolidation=9.0, need=0.9)
    assert _mouse(inert, 7200.0).bouts.equals(bouts)
    assert _mouse(RodentSleep(drive=True, circadian=0.0, homeostatic=0.0), 7200.0).bouts.equals(bouts)
    assert not _mouse(RodentSleep(drive=True), 7200.0).bouts.equals(bouts)


def test_a_day_has_a_night():
    light, dark, longest = [], [], []
    t = np.arange(0.0, _DAY, 5.0)
    zeitgeber = (2.0 + t / 3600) % 24
    for seed in range(6):
        bouts = _mouse(RodentSleep(drive=True), _DAY, seed, trials=False).bouts
        asleep = _stage(bouts, t) != "WAKE"
        light.append(asleep[zeitgeber < 12].mean())
        dark.append(asleep[zeitgeber >= 12].mean())
        wake = bouts[(bouts.stage == "WAKE") & ((2.0 + bouts.start / 3600) % 24 >= 12)]
        longest.append((wake.stop - wake.start).max())
    assert 0.58 < np.mean(light) < 0.67
    assert 0.28 < np.mean(dark) < 0.42
    assert np.median(longest) > 2400.0


def test_lights_off_twelve_hours_later_moves_the_night():
    t = np.arange(0.0, 10 * 3600.0, 10.0)

    def asleep(sleep, seed):
        return (_stage(_mouse(sleep, 10 * 3600.0, seed, trials=False).bouts, t) != "WAKE").mean()

    share = [np.mean([asleep(RodentSleep(drive=True, zeitgeber=z), s) for s in range(4)]) for z in (1.0, 13.0)]
    assert share[0] > share[1] + 0.15
    constant = RodentSleep(drive=True, light=24.0)
    assert (constant.dark(t) == 0).all()
    assert (RodentSleep(drive=True, light=0.0).dark(t) == 1).all()
    assert RodentSleep().dark([-2 * 3600.0 - 1, 4 * 3600.0, 16 * 3600.0, 10 * 3600.0]) == pytest.approx([1, 0, 1, 0.5], abs=0.51)


def test_process_s_is_what_its_equation_says():
    sleep = RodentSleep(drive=True)
    life = _mouse(sleep, 3 * 3600.0, 4)
    need, step = sleep.need, 0.5
    nrem = _stage(life.bouts, np.arange(0.0, 3 * 3600.0, step) + step / 2) == "NREM"
    for t in np.arange(0.0, 3 * 3600.0, step):
        need += step / 3600 * (-need / sleep.need_fall if nrem[round(t / step)] else (1 - need) / sleep.need_rise)
    assert life.need[3 * 3600] == pytest.approx(need, abs=1e-3)


def test_whoever_needs_sleep_sleeps_more():
    t = np.arange(0.0, 7200.0, 5.0)

    def asleep(need, seed):
        return (_stage(_mouse(RodentSleep(drive=True, need=need), 7200.0, seed, trials=False).bouts, t) == "NREM").mean()

    share = {n: np.mean([asleep(n, s) for s in range(12)]) for n in (0.1, 0.8)}
    assert share[0.8] > share[0.1] + 0.1


def test_need_deepens_delta_and_nothing_else():
    def nrem(need):
        rec, truth = synth.recording(hours=0.3, seed=3, n_cells=0, n_channels=1, n_cortex=0, drive=True, circadian=0.0, homeostatic=0.0, need=need)
        a, b = max(((a, b) for s, a, b in truth.bouts[["stage", "start", "stop"]].itertuples(index=False) if s == "NREM"), key=lambda x: x[1] - x[0])
        x = rec.signals["lfp"].read(int((a + 10) * 1250), int(b * 1250))[:, 0].astype(float)
        power = np.abs(np.fft.rfft(x * np.hanning(len(x)))) ** 2
        f = np.fft.rfftfreq(len(x), 1 / 1250)
        return truth, power[(f > 1) & (f < 4)].mean(), power[(f > 30) & (f < 80)].mean()

    (low, delta, gamma), (high, deep, same) = nrem(0.1), nrem(0.9)
    assert low.bouts.equals(high.bouts)
    assert deep > 1.8 * delta
    assert same == pytest.approx(gamma, rel=0.05)
    assert high.drivers["need"].mean() > low.drivers["need"].mean() + 0.3


def test_the_drive_comes_with_long_recordings():
    _, day = synth.study(n_animals=1, hours=12.0, seed=1)
    _, morning = synth.study(n_animals=1, hours=11.0, seed=1)
    assert day.sleep.drive
    assert not morning.sleep.drive
    rec, truth = synth.recording(hours=12.0, seed=0, n_cells=0, run_minutes=0, zeitgeber=6.0)
    assert truth.parameters["sleep"]["drive"] is True
    assert rec.zeitgeber == 6.0
    assert synth.recording(hours=12.0, seed=0, n_cells=0, run_minutes=0, drive=False)[1].parameters["sleep"]["drive"] is False


@pytest.mark.slow
def test_the_true_risk_difference_of_a_day_agrees_with_randomised_trials():
    m, sleep = Mechanism(), RodentSleep(drive=True)
    told = simulate_interventions(m, sleep, copies=6000, families=["trials"])["itt_risk_difference_exact"]
    woke = {True: [], False: []}
    for child in np.random.SeedSequence(9).spawn(16):
        life = live(m, sleep, 0.0, _DAY, np.random.default_rng(child))
        wake = life.bouts[life.bouts.stage == "WAKE"].start.to_numpy()
        k = np.searchsorted(wake, life.trials.start)
        hit = wake[np.minimum(k, len(wake) - 1)]
        hit = (hit >= life.trials.start) & (hit <= life.trials.start + 10.0)
        for assigned in (True, False):
            woke[assigned].append(hit[life.trials.assigned.astype(bool) == assigned])
    a, b = np.concatenate(woke[True]), np.concatenate(woke[False])
    error = np.hypot(np.sqrt(a.var() / len(a) + b.var() / len(b)), told.standard_error)
    assert abs(a.mean() - b.mean() - told.value) < 3.2 * error
    assert told.value > 0.05


@pytest.mark.parametrize(
    "change, word",
    [
        (dict(light=30.0), "light"),
        (dict(need=1.5), "need"),
        (dict(day=0.0), "day"),
        (dict(need_fall=0.0), "need_fall"),
        (dict(circadian=-1.0), "circ"),
        (dict(drive="yes"), "drive"),
        (dict(zeitgeber=25.0), "zeitgeber"),
    ],
)
def test_impossible_days_are_refused(change, word):
    with pytest.raises(InputError, match=word):
        synth.recording(hours=0.2, seed=0, **change)


def test_the_wildest_drive_stays_finite():
    bouts = _mouse(RodentSleep(drive=True, circadian=1e6, homeostatic=1e6, consolidation=1e6), 4 * 3600.0, 2).bouts
    _assert_tiles(bouts, 0.0, 4 * 3600.0)


# -- micro-arousals and arousals --------------------------------------------------------------------------------------
def test_micro_arousals_are_a_parameter():
    def brief(share):
        bouts = _mouse(RodentSleep(micro_share=share), 8 * 3600.0, 1).bouts
        after = (bouts.stage == "WAKE") & (bouts.stage.shift(1) == "NREM")
        return float(((bouts.stop - bouts.start)[after] < 20).mean())

    assert brief(0.9) > 0.75
    assert brief(0.0) < 0.25


def test_micro_arousals_show_in_the_emg():
    rec, truth = synth.recording(hours=1.0, seed=2, n_cells=0, run_minutes=0)
    x = rec.signals["emg"].read()[:, 0].astype(float)
    bouts = truth.bouts
    micro = bouts[(bouts.stage == "WAKE") & (bouts.stage.shift(1) == "NREM") & (bouts.stop - bouts.start < 20) & (bouts.stop - bouts.start > 4)]
    assert len(micro) > 5
    ratio = [x[int((a + 1) * 1250) : int((b - 1) * 1250)].std() / x[int((a - 12) * 1250) : int((a - 2) * 1250)].std() for a, b in zip(micro.start, micro.stop)]
    assert np.median(ratio) > 2


def test_arousals_come_as_often_as_asked_and_change_no_stage():
    _, truth = synth.recording(hours=8.0, seed=1, species="human")
    _, none = synth.recording(hours=8.0, seed=1, species="human", arousal_rate=0.0)
    assert len(none.arousals) == 0
    assert none.bouts.equals(truth.bouts)
    slept = (truth.bouts.stop - truth.bouts.start)[truth.bouts.stage != "W"].sum() / 3600
    assert 6 < len(truth.arousals) / slept < 14


def test_arousals_show_in_eeg_and_emg():
    rec, truth = synth.recording(hours=6.0, seed=2, species="human")
    eeg, emg = (rec.signals[k].read()[:, 0].astype(float) for k in ("eeg", "emg"))

    def fast(x):
        power = np.abs(np.fft.rfft(x * np.hanning(len(x)))) ** 2
        f = np.fft.rfftfreq(len(x), 1 / 128)
        return power[(f > 8) & (f < 30)].mean() / len(x)

    tone, quick = [], []
    for a, b in zip(truth.arousals.start, truth.arousals.stop):
        if b - a > 5:
            now, before = slice(int((a + 1) * 128), int((b - 1) * 128)), slice(int((a - 9) * 128), int((a - 2) * 128))
            tone.append(emg[now].std() / emg[before].std())
            quick.append(fast(eeg[now]) / fast(eeg[before]))
    assert len(tone) > 15
    assert np.median(tone) > 1.5
    assert np.median(quick) > 1.5


# -- beside scored nights ---------------------------------------------------------------------------------------------
def test_deep_sleep_comes_early_and_rem_late(fit):
    nights = fit.synthetic_nights(30)
    n3, rem = (np.mean([[np.mean(p == s) for p in np.array_split(n, 3)] for n in nights], axis=0) for s in ("N3", "R"))
    assert n3[0] > 2.5 * n3[2]
    assert rem[2] > 1.5 * rem[0]


@pytest.mark.realdata
def test_synthetic_nights_fit_the_scored_ones(fit, real_data):
    real = fit.describe(fit.real_nights(real_data), fit.HUMAN, 30.0)
    made = fit.describe(fit.synthetic_nights(80), fit.HUMAN, 30.0)
    assert len(real.hours) == 12
    assert np.abs(real.share.mean(0) - made.share.mean(0)).max() < 0.03
    assert np.abs(real.chance - made.chance).max() < 0.1
    assert made.changes.mean() == pytest.approx(real.changes.mean(), rel=0.15)
    for stage in fit.HUMAN:
        assert fit.distance(real.bouts[stage], made.bouts[stage]) < 0.18
        # Quantiles in epochs of 30 s: within one epoch or 40 %.
        assert (np.abs(real.quantiles(stage) - made.quantiles(stage)) <= np.maximum(30.0, 0.4 * real.quantiles(stage))).all()
    # Nights differ from one another about as much as real ones do.
    assert ((made.share.std(0) > 0.4 * real.share.std(0)) & (made.share.std(0) < 1.6 * real.share.std(0))).all()
    # A scorer with the published errors leaves about as many changes of stage as real scorers do.
    scored = fit.describe(fit.synthetic_nights(40, disagreement=1.0), fit.HUMAN, 30.0)
    assert scored.changes.mean() == pytest.approx(real.changes.mean(), rel=0.2)
