"""Independent checks of the planted replay: a decoder written here, from the true fields and numpy alone, finds what was planted and nothing else."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pytest

import brainmu.synth as synth
from brainmu.core import EventTable, Intervals, Recording

_BIN, _LINES, _SHUFFLES = 0.015, 12, 19


@functools.cache
def _tracks(steps: int, places: int) -> tuple[np.ndarray, np.ndarray]:
    """Place (line, bin) of every line, and its slope (line,)."""
    ends = np.linspace(0, places - 1, _LINES)
    a, b = (x.ravel() for x in np.meshgrid(ends, ends))
    a, b = a[np.abs(b - a) >= places / 10], b[np.abs(b - a) >= places / 10]
    return np.rint(a[:, None] + (b - a)[:, None] * (np.arange(steps) + 0.5) / steps).astype(int), b - a


@dataclass
class Oracle:
    """A Poisson decoder with flat prior over every place of every context, and the best straight line through what it decodes."""

    rec: Recording
    fields: synth.PlaceFields

    def __post_init__(self) -> None:
        place = (self.rec.spikes.units["type"] == "place").to_numpy()
        self.ids = self.rec.spikes.units["id"].to_numpy()[place]
        # Place cells speak more equally in replay than on the track: their rates enter with a floor, over the contexts side by side.
        rate = self.fields.rate[:, : len(self.ids)] / 10.0
        rate = 60.0 * np.sqrt(rate) * np.minimum(4 * rate, 1.0) + 1.0
        self.rate = rate.transpose(1, 0, 2).reshape(len(self.ids), -1)
        self.shape = (len(self.fields.contexts), rate.shape[2])

    def counts(self, start: float, stop: float) -> np.ndarray:
        t, u = self.rec.spikes.span(start, stop)
        keep = np.isin(u, self.ids)
        n = max(3, round((stop - start) / _BIN))
        row = np.minimum(((t[keep] - start) / (stop - start) * n).astype(int), n - 1)
        out = np.zeros((n, len(self.ids)))
        np.add.at(out, (row, np.searchsorted(self.ids, u[keep])), 1)
        return out

    def posterior(self, counts: np.ndarray, seconds: float = _BIN) -> np.ndarray:
        """(bin, context, place)."""
        log = counts @ np.log(self.rate) - seconds * self.rate.sum(0)
        p = np.exp(log - log.max(1, keepdims=True))
        return (p / p.sum(1, keepdims=True)).reshape(len(counts), *self.shape)

    def near(self, p: np.ndarray) -> np.ndarray:
        """Probability (bin, context, place) within four bins of each place."""
        total = np.cumsum(np.pad(p, ((0, 0), (0, 0), (5, 4))), axis=2)
        return total[:, :, 9:] - total[:, :, :-9]

    def lines(self, near: np.ndarray) -> tuple[float, int, float]:
        """Score, context and slope (bins an event) of the best line that moves by a tenth of the track or more."""
        track, slope = _tracks(len(near), self.shape[1])
        score = near[np.arange(len(near))[None, :], :, track].mean(1)
        best, context = divmod(int(score.argmax()), score.shape[1])
        return float(score[best, context]), context, float(slope[best])

    def judge(self, start: float, stop: float, rng: np.random.Generator) -> tuple[float, float, int, float]:
        """The line's score, the larger of two p-values (cells permuted, moments permuted), context and slope."""
        counts = self.counts(start, stop)
        counts = counts[counts.sum(1) > 0]
        if len(counts) < 5:
            return 0.0, 1.0, 0, 0.0
        near = self.near(self.posterior(counts))
        score, context, slope = self.lines(near)
        cells = [self.lines(self.near(self.posterior(counts[:, rng.permutation(counts.shape[1])])))[0] for _ in range(_SHUFFLES)]
        times = [self.lines(near[rng.permutation(len(near))])[0] for _ in range(_SHUFFLES)]
        worst = max((1 + np.sum(np.array(null) >= score)) / (1 + _SHUFFLES) for null in (cells, times))
        return score, float(worst), context, slope

    def table(self, events: EventTable, most: int = 28) -> np.ndarray:
        """Rows (score, p, context, slope) of the first `most` events."""
        rng = np.random.default_rng(1)
        return np.array([self.judge(a, b, rng) for a, b in zip(events.start[:most], events.stop[:most])])


def _auc(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean((a[:, None] > b) + 0.5 * (a[:, None] == b)))


def _mostly(rows: np.ndarray) -> float:
    """Share of events that are more than chance, at 0.05."""
    return float(np.mean(rows[:, 1] <= 0.05))


# -- replay and its decoys -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hour() -> tuple[Recording, synth.Truth]:
    """An hour with as many decoys as replays, a third of the replays outside ripples."""
    return synth.recording(
        hours=1.0, seed=1, n_cells=60, fragmented=0.0, outside_ripples=0.35, shuffled_share=0.25, rate_matched_share=0.25, burst_share=0.25, burst_rate=0.12
    )


@pytest.fixture(scope="module")
def judged(hour) -> dict[str, tuple[EventTable, np.ndarray]]:
    rec, truth = hour
    oracle, d = Oracle(rec, truth.place_fields), truth.replay_decoys
    events = {k: d[(d.kind == k) & (d.duration > 0.1)] for k in ("identity_shuffled", "rate_matched", "burst")}
    events["replay"] = truth.reactivation[truth.reactivation.duration > 0.1]
    return {k: (x[:28], oracle.table(x)) for k, x in events.items()}


def test_the_oracle_finds_replay_its_content_and_its_direction(judged):
    events, rows = judged["replay"]
    found = rows[:, 1] <= 0.05
    assert found.mean() > 0.85
    assert np.mean((rows[:, 2] == 1) == (events.context == "B")) > 0.9
    assert np.mean((rows[found, 3] > 0) == (events.direction[found] == "forward")) > 0.95


def test_replay_outside_ripples_is_replay_too(hour, judged):
    truth = hour[1]
    events, rows = judged["replay"]
    outside = events.ripple < 0
    assert 0.2 < np.mean(truth.reactivation.ripple < 0) < 0.5
    assert _mostly(rows[outside]) > 0.8
    middle = (events.start[outside] + events.stop[outside]) / 2
    assert not truth.ripples.intervals().contains(middle).any()


@pytest.mark.parametrize("kind", ["identity_shuffled", "rate_matched", "burst"])
def test_decoys_do_not_fool_the_oracle(judged, kind):
    (events, real), (decoys, false) = judged["replay"], judged[kind]
    assert len(decoys) >= 25
    # As many spikes as in a replay: nothing but their order tells.
    assert 0.75 < np.mean(decoys.n_spikes) / np.mean(events.n_spikes) < 1.35
    assert _mostly(false) < 0.16
    assert _auc(-real[:, 1], -false[:, 1]) > 0.9


def _above_three_sd(rec: Recording, truth: synth.Truth) -> Intervals:
    """Where the smoothed rate of all cells is beyond three SD of NREM, as Kay's detector takes ripples by the LFP."""
    step = 0.002
    rate = np.histogram(rec.spikes.times, np.arange(0.0, rec.duration, step))[0].astype(float)
    kernel = np.exp(-0.5 * (np.arange(-20, 21) * step / 0.015) ** 2)
    rate = np.convolve(rate, kernel / kernel.sum(), mode="same")
    asleep = Intervals(truth.bouts[truth.bouts["stage"] == "NREM"][["start", "stop"]].to_numpy()).contains(np.arange(len(rate)) * step)
    high = np.flatnonzero(np.diff(np.r_[0, (asleep & (rate > rate[asleep].mean() + 3 * rate[asleep].std())).astype(int), 0]))
    return Intervals.merge(np.c_[high[::2] * step - 0.02, high[1::2] * step + 0.02])


def test_a_threshold_on_multi_unit_activity_takes_decoys_for_replay(hour, judged):
    rec, truth = hour
    found, decoys = _above_three_sd(rec, truth), truth.replay_decoys
    peaks = (found.start + found.stop) / 2
    fooled, right = decoys.intervals().contains(peaks), truth.reactivation.intervals().contains(peaks)
    # It does find replay; but most of what it calls replay is none, and nearly every burst is called one.
    assert right.mean() > 0.15
    assert fooled.mean() > 0.5
    assert fooled.sum() > 1.5 * right.sum()
    asleep = decoys[(decoys.kind == "burst") & (decoys.ripple < 0)]
    assert found.contains((asleep.start + asleep.stop) / 2).mean() > 0.7
    # Of the same decoys the oracle passes one in ten or fewer.
    assert np.mean([_mostly(rows) for kind, (_, rows) in judged.items() if kind != "replay"]) < 0.1


def test_without_replay_the_oracle_finds_chance():
    nothing = dict.fromkeys(("negative", "positive"), 0.0)
    rec, truth = synth.recording(hours=1.0, seed=3, n_cells=60, reactivation_rate=nothing, ripple_firing=10.0, shuffled_share=0.0)
    assert len(truth.reactivation) == 0
    rest = truth.ripples[(truth.ripples.carries == "") & (truth.ripples.duration > 0.08)]
    rows = Oracle(rec, truth.place_fields).table(rest, 40)
    assert np.mean(rows[:, 0] > 0) > 0.7
    assert _mostly(rows) < 0.12


def test_before_the_running_there_is_no_replay_of_the_tracks_unless_it_is_planted():
    given = dict(hours=1.2, seed=4, n_cells=60, pre_rest_minutes=25.0, fragmented=0.0)
    rec, truth = synth.recording(**given)
    d = truth.replay_decoys
    before = d[(d.kind == "other_map") & (d.duration > 0.1)]
    run = rec.labels["run"].start[0]
    assert (before.stop < run).all()
    assert len(before) > 30
    assert (truth.reactivation.start > run).all()
    assert _mostly(Oracle(rec, truth.place_fields).table(before, 28)) < 0.15
    rec, truth = synth.recording(**given, preplay=1.0)
    a = truth.reactivation
    early = a[(a.phase == "pre") & (a.duration > 0.1)]
    assert len(early) > 30
    assert (early.stop < run).all()
    assert _mostly(Oracle(rec, truth.place_fields).table(early, 14)) > 0.8


# -- behaviour decoded -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arena", "arms", "bound"), [("open", ("stem",), 0.12), ("arms", ("stem", "left", "right"), 0.10), ("arms", tuple("NESW"), 0.10)])
def test_an_oracle_decodes_place_in_boxes_and_mazes(arena, arms, bound):
    rec, truth = synth.recording(hours=0.5, seed=2, n_cells=70, arena=arena, arms=arms)
    fields = truth.place_fields
    place = np.flatnonzero((rec.spikes.units["type"] == "place").to_numpy())
    for c, (a, b) in enumerate(rec.labels["run"].bounds):
        edges = np.arange(a, b, 0.3)
        n = rec.spikes.counts(edges)[:, place]
        t, xy = rec.signals["position"].span(a, b)
        where = np.c_[np.interp(edges[:-1] + 0.15, t, xy[:, 0]), np.interp(edges[:-1] + 0.15, t, xy[:, 1])]
        moving = np.hypot(*np.gradient(where, axis=0).T) / 0.3 > 0.1
        errors = []
        for k in (c, 1 - c):
            rate = fields.rate[k][place] + 0.1
            best = (n @ np.log(rate) - 0.3 * rate.sum(0)).argmax(1)
            errors.append(np.median(np.hypot(*(fields.xy[c][best] - where).T)[moving]))
        assert errors[0] < bound < 2 * bound < errors[1]


@pytest.mark.parametrize("arena", ["open", "arms"])
def test_replay_sweeps_along_the_routes_of_the_arena(arena):
    rec, truth = synth.recording(hours=0.6, seed=6, n_cells=80, arena=arena, fragmented=0.0, preset="easy")
    oracle, f = Oracle(rec, truth.place_fields), truth.place_fields
    a = truth.reactivation[(truth.reactivation.duration > 0.12) & (truth.reactivation.n_cells > 8)]
    right, errors = [], []
    for i in range(min(len(a), 60)):
        p = oracle.posterior(oracle.counts(a.start[i], a.stop[i]))
        c = f.contexts.index(a.context[i])
        right.append(p.sum((0, 2)).argmax() == c)
        ends = f.xy[c][p[:, c].argmax(1)[[0, -1]]]
        if arena == "open":
            true = np.array([[a.x_from[i], a.y_from[i]], [a.x_to[i], a.y_to[i]]])
        else:
            true = f.xy[c][np.searchsorted(f.grid, [a.x_from[i], a.x_to[i]]).clip(0, len(f.grid) - 1)]
            assert f.arm[np.searchsorted(f.grid, a.x_from[i])] == a.arm_from[i]
        errors += [np.hypot(*(ends - true).T), np.hypot(*(ends[::-1] - true).T)]
    assert np.mean(right) > 0.95
    as_planted, backwards = np.median(np.array(errors)[::2]), np.median(np.array(errors)[1::2])
    assert as_planted < 0.16
    assert backwards > 2 * as_planted


@pytest.mark.parametrize("arena", ["open", "linear"])
def test_an_oracle_reads_the_heading_from_head_direction_cells(arena):
    rec, truth = synth.recording(hours=0.4, seed=3, n_cells=0, n_head=24, arena=arena)
    head = truth.head_direction
    log, rate = np.log(head.rate), head.rate.sum(0)

    def decoded(moments, width):
        n = np.stack([rec.spikes.counts([m - width / 2, m + width / 2])[0] for m in moments])
        return head.angle[(n @ log - width * rate).argmax(1)]

    def error(a, b):
        return np.abs(np.angle(np.exp(1j * (a - b))))

    a, b = rec.labels["run"].bounds[0]
    moments = np.arange(a + 1, b - 1, 0.5)
    t, h = rec.signals["heading"].span(a, b)
    seen = h[np.searchsorted(t, moments).clip(0, len(t) - 1), 0]
    assert np.rad2deg(np.median(error(decoded(moments, 0.2), seen))) < 15
    # Asleep the same cells code a direction that wanders by itself, ten times faster in NREM.
    wander = {}
    for stage in ("NREM", "REM"):
        bout = max(truth.bouts[truth.bouts["stage"] == stage].itertuples(), key=lambda x: x.stop - x.start)
        moments = np.arange(bout.start + 2, bout.stop - 2, 0.3)
        latent = np.interp(moments, head.time, head.heading)
        wander[stage] = np.abs(np.diff(np.interp(np.arange(bout.start + 2, bout.stop - 2, 0.04), head.time, head.heading))).mean()
        assert np.rad2deg(np.median(error(decoded(moments, 0.06), latent))) < 35
    assert 5 < wander["NREM"] / wander["REM"] < 15
