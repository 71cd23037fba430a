"""A whole synthetic recording and its truth: running, rest, signals, spikes, replay that drives sleep, randomised trials."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.config import suggest
from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Signal
from brainmu.core.limits import number, whole
from brainmu.errors import InputError
from brainmu.synth.arenas import Arena, make_arena, run_in
from brainmu.synth.assemblies import AssemblyModel
from brainmu.synth.cells import CellPlan, Cells
from brainmu.synth.decoys import DecoyModel, Decoys, plan_decoys
from brainmu.synth.devices import check_devices, with_devices
from brainmu.synth.effects import Life, Mechanism, live
from brainmu.synth.human import HUMAN_PRESETS, EEGModel, human_recording
from brainmu.synth.instruments import FaultModel, Faults, plan_faults, sorted_by_machine
from brainmu.synth.interventions import planted_effects, simulate_interventions
from brainmu.synth.populations import PopulationModel
from brainmu.synth.reactivation import Microstructure, RippleModel, microstructure, rest_before
from brainmu.synth.scorer import ScorerModel, scorings
from brainmu.synth.signals import Drivers, LFPModel, drivers, emg_signal, lfp_signal, ripple_background
from brainmu.synth.sleep import DRIVE_FROM, HumanSleep, RodentSleep, bout_table, score
from brainmu.synth.spikes import CellModel
from brainmu.synth.track import Run
from brainmu.synth.truth import Truth

__all__ = ["PRESETS", "recording", "usual"]

PRESETS: dict[str, dict[str, Any]] = {
    "easy": {"confounding": 0.0, "ripple_amplitude": 90.0, "ripple_spread": 0.25, "replay_gain": 70.0, "replay_noise": 0.0, "movement": 0.0, "hum": 0.0},
    "typical": {"confounding": 0.5},
    "hard": {
        "confounding": 0.8, "feedback": 0.2, "reliability": 0.7, "ripple_amplitude": 38.0, "ripple_spread": 0.65, "replay_gain": 30.0, "replay_noise": 0.3,
        "movement": 1 / 60, "hum": 15.0, "lap_spread": 0.6, "ripple_rate": 0.45, "emg_leak": 0.06, "dead_channels": 1,
        "gamma_burst_rate": 1 / 12, "spike_leak_rate": 1 / 20, "hum_harmonics": 0.4, "hum_wander": 0.3, "emg_burst_rate": 1 / 60,
        "pop_rate": 1 / 200, "gap_rate": 1 / 900, "missed": 0.15, "contamination": 0.05, "scorer_error": 0.02, "shuffled_share": 0.2, "fragmented": 0.25,
        "rate_matched_share": 0.1, "burst_share": 0.1, "burst_rate": 0.05, "outside_ripples": 0.15, "partial": 0.2, "rate_drift": 0.2,
    },
}  # fmt: skip
"""What each preset changes; anything else passed to :func:`recording` goes on top."""

_SPECIES = {
    "mouse": {"track_length": 1.6, "run_speed": 0.35, "ripple_frequency": 176.0, "theta_frequency": 7.2},
    "rat": {
        "track_length": 2.4, "run_speed": 0.45, "ripple_frequency": 166.0, "theta_frequency": 7.0, "field_width": 0.15, "rem_mean": 90.0, "wake_rate": 1 / 160,
        "compression": 12.0,
    },
}  # fmt: skip
_RUN_MINUTES = 15.0
_SIZE = {"open": {"mouse": 0.8, "rat": 1.2}, "arms": {"mouse": 0.6, "rat": 1.0}}  # side of a box, length of an arm, m
_MODELS: dict[str, type] = {
    "sleep": RodentSleep, "ripples": RippleModel, "lfp": LFPModel, "decoys": DecoyModel, "cells": CellModel, "mechanism": Mechanism,
    "faults": FaultModel, "scorer": ScorerModel, "assemblies": AssemblyModel, "populations": PopulationModel,
}  # fmt: skip


def usual(species: str, preset: str, names: Iterable[str]) -> dict[str, float]:
    """The values of some parameters in a recording of that species and preset that says nothing else."""
    if species == "human":
        chosen = {f.name: f.default for cls in (HumanSleep, EEGModel) for f in dataclasses.fields(cls)} | HUMAN_PRESETS[preset]
    else:
        chosen = {f.name: f.default for cls in _MODELS.values() for f in dataclasses.fields(cls)} | _SPECIES[species] | PRESETS[preset]
    return {name: chosen[name] for name in names}


def recording(
    hours: float = 2.0, seed: int = 0, species: str = "mouse", *, id: str | None = None, subject: str | None = None, n_channels: int = 4,
    n_cortex: int = 1, n_amygdala: int = 0, lfp_rate: float | None = None, n_cells: int = 40, preset: str = "typical", epoch: float | None = None,
    run_minutes: float | None = None, contexts: Mapping[str, str] | None = None, track_length: float | None = None, run_speed: float | None = None,
    position_rate: float = 40.0, arena: str = "linear", arms: Sequence[str] = ("stem", "left", "right"), n_head: int = 0, n_cortical: int = 0,
    n_amygdala_cells: int = 0, pre_rest_minutes: float = 0.0, calcium: Any = None, photometry: Any = None, clocks: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> tuple[Recording, Truth]:  # fmt: skip
    """A recording of `hours` whose answers are known.

    Rodents run on two tracks first, then rest and sleep; reactivations of the two tracks come inside ripples and drive waking as
    :class:`~brainmu.synth.Mechanism` says. Humans sleep a night with EEG, EOG and EMG. Signals are made when they are read: the
    recording holds no samples, and reading any span twice gives the same numbers.

    Parameters
    ----------
    hours : float, h
        Whole length, from 0.1. Below 1.3 h the sleep cycle is shortened in proportion, so that every stage occurs.
    seed : int
        Same seed and parameters, same bytes.
    species : {"mouse", "rat", "human"}
    id, subject : str
        Default "synth_mouse_0", "mouse01".
    n_channels, n_cortex, n_amygdala : int
        LFP channels of CA1, the cortex above it and the basolateral amygdala; for a human `n_channels` EEG channels.
    lfp_rate : float, Hz
        1250 for rodents, 128 for humans.
    n_cells : int
        Place cells and interneurons; 0 for a recording without spikes.
    preset : {"easy", "typical", "hard"}
        See :data:`PRESETS`.
    epoch : float, s
        Of the scored hypnogram: 4 for rodents, 30 for humans.
    run_minutes : float, min
        On the tracks together, 15 where left out; at most 30 % of a short recording, with a note where more was asked for. 0 for rest alone.
    contexts : mapping of track to content
        Default ``{"A": "negative", "B": "positive"}``: what the reactivation of each track's cells means.
    track_length, run_speed : float, m and m/s
        1.6 and 0.35 (mouse), 2.4 and 0.45 (rat). In a box the length is its side (0.8, 1.2 m), in a maze that of each arm (0.6, 1.0 m).
    position_rate : float, Hz
    arena : {"linear", "open", "arms"}
        Straight tracks, open boxes or mazes; one for each context.
    arms : sequence of str
        Arms of a maze. A first arm named "stem" makes a T, visited between the others; ("north", "east", "south", "west") makes a plus.
    n_head, n_cortical, n_amygdala_cells : int
        Head-direction cells (region ADN; they bring a signal "heading"), cortical (PFC) and amygdala (BLA) cells, beside the `n_cells` of CA1;
        see :class:`PopulationModel`.
    pre_rest_minutes : float, min
        Rest before the running, at most 40 % of a short recording, with a note where more was asked for; see `preplay` of :class:`RippleModel`.
    calcium : True, CalciumModel or mapping of its fields
        Also image every cell: signals "calcium" and "neuropil".
    photometry : True, PhotometryModel or mapping of its fields
        Also a fibre over the population: signal "photometry" with its isosbestic channel.
    clocks : mapping of a device's name to a ClockModel or its fields
        Devices with clocks of their own; see :func:`on_clocks`. For example ``{"camera": {"streams": ("position",), "ppm": 40.0}}``.
    **parameters
        Any field of :class:`Mechanism`, :class:`RodentSleep`, :class:`RippleModel`, :class:`LFPModel`, :class:`DecoyModel`, :class:`CellModel`,
        :class:`FaultModel` :class:`ScorerModel`, :class:`AssemblyModel` or :class:`PopulationModel` by its name
        (for humans of :class:`HumanSleep`, :class:`EEGModel` and :class:`ScorerModel`).

    Returns
    -------
    Recording
        Signals "lfp" (regions CA1, CTX and BLA), "emg", "position" (rodents on the track), "pressure" (1 Hz; the latent pressure as
        measured); labels "scoring", "run", "rest", "context", "reactivation", "trials".
    Truth

    Raises
    ------
    InputError
        If a number is out of range or a parameter is not known.

    Examples
    --------
    >>> rec, truth = recording(hours=0.3, seed=1)
    >>> rec.signals["lfp"].rate, sorted(rec.labels)
    (1250.0, ['context', 'reactivation', 'rest', 'run', 'scoring', 'trials'])
    """
    number("hours", hours, 0.1)
    whole("n_channels", n_channels, 1)
    for key, count in (("seed", seed), ("n_cortex", n_cortex), ("n_amygdala", n_amygdala), ("n_cells", n_cells), ("n_head", n_head),
                       ("n_cortical", n_cortical), ("n_amygdala_cells", n_amygdala_cells)):  # fmt: skip
        whole(key, count)
    if run_minutes is not None:
        number("run_minutes", run_minutes)
    number("pre_rest_minutes", pre_rest_minutes)
    for key, value, least in (("lfp_rate", lfp_rate, 50.0), ("epoch", epoch, 0.1), ("track_length", track_length, 0.3), ("run_speed", run_speed, 0.05)):
        if value is not None:
            number(key, value, least)
    number("position_rate", position_rate, 5.0, most=1000.0)
    if epoch is not None and epoch > 3600.0 * hours:
        raise InputError(f"epoch is {epoch:g} s, longer than the recording of {hours:g} h")
    if species not in (*_SPECIES, "human"):
        raise InputError(f"species is {species!r}, expected one of {', '.join((*_SPECIES, 'human'))}")
    if preset not in PRESETS:
        raise InputError(f"preset is {preset!r}, expected one of {', '.join(PRESETS)}{suggest(preset, PRESETS)}")
    check_devices(calcium, photometry, clocks)
    name, who = id or f"synth_{species}_{seed}", subject or f"{species}01"
    if species == "human":
        of_rodents = {
            "arena": arena != "linear", "n_head": n_head, "n_cortical": n_cortical, "n_amygdala_cells": n_amygdala_cells, "pre_rest_minutes": pre_rest_minutes,
            "run_minutes": run_minutes, "contexts": contexts, "track_length": track_length, "run_speed": run_speed, "n_amygdala": n_amygdala,
            "n_cells": n_cells not in (0, 40), "n_cortex": n_cortex not in (0, 1), "position_rate": position_rate != 40.0,
        }  # fmt: skip
        for key, asked in of_rodents.items():
            if asked:
                raise InputError(f"{key} is for rodents: a human sleeps a night without units or tracks")
        night = human_recording(hours, seed, name, who, n_channels, lfp_rate or 128.0, epoch or 30.0, preset, parameters)
        return with_devices(*night, calcium=calcium, photometry=photometry, clocks=clocks, seed=seed)
    given = {"A": "negative", "B": "positive"} if contexts is None else contexts
    if not isinstance(given, Mapping) or not all(isinstance(x, str) and x for pair in given.items() for x in pair):
        raise InputError(f"contexts is {contexts!r}, expected a mapping of track to content, such as {{'A': 'negative', 'B': 'positive'}}")
    given = dict(given)
    if not given or len(set(given.values())) != len(given):
        raise InputError(f"contexts are {given}, expected one track or more with a different content each")
    if not isinstance(arena, str):
        raise InputError(f"arena is {arena!r}, expected one of linear, open, arms")
    if isinstance(arms, str) or not isinstance(arms, Sequence) or not all(isinstance(x, str) for x in arms):
        raise InputError(f"arms is {arms!r}, expected a sequence of names")
    made = _Rodent(hours, seed, species, name, who, n_channels, n_cortex, n_amygdala, lfp_rate or 1250.0, n_cells, preset, epoch or 4.0, run_minutes, given,
                   track_length, run_speed, position_rate, arena, tuple(arms), n_head, n_cortical, n_amygdala_cells,
                   pre_rest_minutes, parameters).build()  # fmt: skip
    return with_devices(*made, calcium=calcium, photometry=photometry, clocks=clocks, seed=seed)


@dataclasses.dataclass
class _Rodent:
    """The parameters of one recording, and the steps that make it, in order."""

    hours: float
    seed: int
    species: str
    id: str
    subject: str
    n_channels: int
    n_cortex: int
    n_amygdala: int
    lfp_rate: float
    n_cells: int
    preset: str
    epoch: float
    run_minutes: float | None
    contexts: dict[str, str]
    track_length: float | None
    run_speed: float | None
    position_rate: float
    arena: str
    arms: tuple[str, ...]
    n_head: int
    n_cortical: int
    n_amygdala_cells: int
    pre_rest_minutes: float
    parameters: dict[str, Any]

    def build(self) -> tuple[Recording, Truth]:
        stop = self.hours * 3600.0
        models = self._models(stop)
        track, sleeping, micro, cells, slow, flaws = (np.random.default_rng(c) for c in np.random.SeedSequence(self.chances).spawn(6))
        own = [np.random.default_rng(c) for c in np.random.SeedSequence([self.chances, 61]).spawn(5)]
        begin = min(self.pre_rest_minutes * 60.0, 0.4 * stop)
        arenas = {c: make_arena(self.arena, k, self.length, self.arms) for k, c in enumerate(self.contexts)}
        runs = self._runs(begin, stop, arenas, track)
        ready = runs[-1].stop + min(30.0, 0.02 * stop) if runs else begin
        life = live(models["mechanism"], models["sleep"], ready, stop, sleeping, latency=min(180.0, 0.1 * (stop - ready)))
        before, preplay, unrelated = rest_before(models["mechanism"], models["sleep"], life, begin, models["ripples"].preplay, own[0])
        bouts = bout_table([*before["stage"], "WAKE", *life.bouts["stage"]], [*before["start"], begin, *life.bouts["start"]], stop)
        pauses = EventTable.concat([EventTable(r.pauses.start, r.pauses.stop, content=r.context, kind="pause") for r in runs])
        tracks = {content: context for context, content in self.contexts.items()}
        replays = EventTable.concat([preplay.assign(phase="pre"), life.reactivation.assign(phase="post")])
        background = ripple_background(models["lfp"])
        events = microstructure(bouts, pauses, replays, tracks, models["ripples"], background, micro, own[1], unrelated, begin)
        speed = (np.concatenate([r.time for r in runs]), np.concatenate([r.speed for r in runs])) if runs else None
        d = drivers(bouts, 0.0, stop, speed, models["lfp"], slow)
        if models["sleep"].drive:
            d.delta_gain = models["sleep"].delta_gain(np.interp(d.time, life.time, life.need))
        decoys = plan_decoys(models["decoys"], bouts, d.time, d.weights, events.ripples, (self.chances, 51))
        plan = CellPlan(
            self.n_cells, self.n_head, self.n_cortical, self.n_amygdala_cells, self.contexts, arenas, self.speed,
            models["cells"], models["assemblies"], models["populations"],
        )  # fmt: skip
        fired = plan.fire(runs, d, events, stop, cells, (own[2], own[3], own[4]))
        faults = plan_faults(models["faults"], self.n_channels + self.n_cortex + self.n_amygdala, 0.0, stop, flaws)
        hypnogram = score(bouts, self.epoch, "rodent3", 0.0, stop)
        rec = Recording(
            id=self.id, subject=self.subject, species=self.species, subject_meta={"group": models["mechanism"].day.name},
            zeitgeber=models["sleep"].zeitgeber, source={"format": "synthetic", "files": []},
            spikes=None if fired.spikes is None else sorted_by_machine(fired.spikes, models["faults"], flaws),
            signals=self._signals(stop, d, events, decoys, models["lfp"], faults, life, runs, fired),
            labels=self._labels(scorings(models["scorer"], hypnogram, bouts, flaws, (self.chances, 41)), life, runs, begin, ready, stop, events.reactivation),
        )  # fmt: skip
        for key, asked, most in (("run_minutes", self.run_minutes, self._longest_run(stop)), ("pre_rest_minutes", self.pre_rest_minutes, 0.4 * stop / 60.0)):
            if asked is not None and asked > most:
                rec.warn(f"{key} is {asked:g}, but a recording of {self.hours:g} h has room for {most:g}: cut to that")
        if models["ripples"].ripple_frequency > 0.42 * self.lfp_rate:
            mean = models["ripples"].ripple_frequency
            rec.warn(f"ripples of {mean:g} Hz do not fit into an LFP of {self.lfp_rate:g} Hz: they are in the truth and the spikes only")
        if len(decoys.spikes) and self.lfp_rate <= 600:
            rec.warn(f"leaked spikes do not fit into an LFP of {self.lfp_rate:g} Hz: they are in truth.decoys only")
        truth = Truth(
            id=self.id, bouts=bouts, hypnogram=hypnogram, ripples=events.ripples, reactivation=fired.played.reactivation, awake_replay=fired.played.awake,
            spindles=events.spindles, slow_waves=events.slow_waves, trials=life.trials, place_fields=fired.fields, faults=faults, decoys=decoys.table,
            artefacts=d.bursts, stimulation=life.stimulation, detected=life.detected,
            fragments=fired.played.fragments, replay_decoys=fired.played.decoys, volleys=fired.played.volleys, assemblies=fired.assemblies,
            populations=fired.others.table, head_direction=fired.others.head, spikes=fired.spikes,
            drivers={"time": life.time, "pressure": life.pressure, "need": life.need, "activity": np.interp(life.time, d.time, d.activity)},
            parameters=self._record(models), planted=planted_effects(models["mechanism"]) | decoys.planted(),
            simulate=functools.partial(simulate_interventions, models["mechanism"], models["sleep"], epoch=self.epoch, seed=self.seed),
        )  # fmt: skip
        return rec, truth

    @staticmethod
    def _longest_run(stop: float) -> float:
        """Minutes on the tracks that leave time to sleep."""
        return 0.3 * stop / 60.0

    def _run_minutes(self, stop: float) -> float:
        return min(_RUN_MINUTES if self.run_minutes is None else self.run_minutes, self._longest_run(stop))

    @property
    def chances(self) -> int:
        """What all draws begin from: the seed, another one for each species, so that a rat and a mouse of one seed share nothing."""
        return self.seed + (list(_SPECIES).index(self.species) << 40)

    @property
    def length(self) -> float:
        return self.track_length or _SIZE.get(self.arena, {}).get(self.species) or _SPECIES[self.species]["track_length"]

    @property
    def speed(self) -> float:
        return self.run_speed or _SPECIES[self.species]["run_speed"]

    def _models(self, stop: float) -> dict[str, Any]:
        """Every model with species, preset and the caller's parameters on top of its defaults.

        Below 80 minutes the slow parts of sleep (long waking, NREM before REM) shrink with the recording, so that every stage occurs.
        """
        owner = {f.name: name for name, cls in _MODELS.items() for f in dataclasses.fields(cls)}
        stray = sorted(set(self.parameters) - set(owner))
        if stray:
            near = suggest(stray[0], [*owner, *inspect.signature(recording).parameters])
            raise InputError(f"recording has no parameter {stray[0]!r}{near}; see {', '.join(c.__name__ for c in _MODELS.values())}")
        rates: dict[str, Any] = {"reactivation_rate": dict.fromkeys(self.contexts.values(), 0.04)}
        contents = set(self.contexts.values())
        rates["log_hazard_ratio"] = {c: v for c, v in Mechanism().log_hazard_ratio.items() if c in contents}
        brief = min(1.0, stop / 4800.0)
        rates |= {f.name: f.default * brief for f in dataclasses.fields(RodentSleep) if f.name in ("long_median", "quiet_median", "rem_after")}
        rates["drive"] = stop >= 3600.0 * DRIVE_FROM
        chosen = rates | {k: v for k, v in _SPECIES[self.species].items() if k in owner} | PRESETS[self.preset] | self.parameters
        if not isinstance(chosen["reactivation_rate"], Mapping):
            raise InputError(f"reactivation_rate is {chosen['reactivation_rate']!r}, expected a mapping of content to rate (1/s)")
        unknown = set(chosen["reactivation_rate"]) - contents
        if unknown:
            raise InputError(f"reactivation_rate names {sorted(unknown)[0]!r}, which is the content of no track: contexts are {self.contexts}")
        return {name: cls(**{k: v for k, v in chosen.items() if owner[k] == name}) for name, cls in _MODELS.items()}

    def _runs(self, begin: float, stop: float, arenas: dict[str, Arena], rng: np.random.Generator) -> list[Run]:
        total = self._run_minutes(stop) * 60.0
        if total == 0:
            return []
        each, runs, t = total / len(arenas), [], begin
        if each < 5.0:
            raise InputError(f"run_minutes is {total / 60:g}: {each:.1f} s in each of {len(arenas)} contexts, expected at least 5 s (or 0 for none)")
        between = min(20.0, 0.01 * stop, 0.25 * each)
        for row, (context, arena) in enumerate(arenas.items()):
            runs.append(run_in(arena, context, row, t, t + each - between, rng, speed=self.speed, pause=4.0, rate=self.position_rate, jitter=0.003))
            t += each
        return runs

    def _signals(
        self, stop: float, d: Drivers, events: Microstructure, decoys: Decoys, model: LFPModel, faults: Faults, life: Life, runs: list[Run], fired: Cells
    ) -> dict[str, Signal]:
        seed = (self.chances, 11)
        out = {
            "lfp": lfp_signal(
                self.lfp_rate,
                0.0,
                stop,
                d,
                events,
                model,
                faults,
                decoys,
                n_channels=self.n_channels,
                n_cortex=self.n_cortex,
                n_amygdala=self.n_amygdala,
                stimulation=life.stimulation,
                seed=seed,
            ),
            "emg": emg_signal(self.lfp_rate, 0.0, stop, d, model, (self.chances, 12)),
        }
        if runs:
            out["position"] = self._tracked(runs, [r.xy for r in runs], "m", "position", ["x", "y"])
        if fired.headings:
            out["heading"] = self._tracked(runs, [np.arctan2(np.sin(h), np.cos(h))[:, None] for h in fired.headings], "rad", "behaviour", ["heading"])
        first = int(life.time[0])
        values = np.interp(np.arange(first, int(stop), dtype=np.float64), life.time, life.measured)[:, None].astype(np.float32)
        out["pressure"] = Signal(values, rate=1.0, start=float(first), unit="SD", kind="other", channels=["pressure"])
        return out

    def _tracked(self, runs: list[Run], values: list[NDArray[np.float64]], unit: str, kind: str, channels: list[str]) -> Signal:
        """What a camera saw on each run (frame, channel), with gaps between."""
        n = round(runs[-1].stop * self.position_rate)
        out = np.full((n, len(channels)), np.nan, dtype=np.float32)
        for r, x in zip(runs, values):
            i = round(r.start * self.position_rate)
            out[i : i + len(x)] = x[: n - i]
        gaps = Intervals([[r.start, r.stop] for r in runs]).complement(0.0, n / self.position_rate)
        return Signal(out, rate=self.position_rate, unit=unit, kind=kind, channels=channels, gaps=gaps)

    def _labels(
        self, scorings: dict[str, Hypnogram], life: Life, runs: list[Run], begin: float, ready: float, stop: float, reactivation: EventTable
    ) -> dict[str, Any]:
        labels: dict[str, Any] = {**scorings, "rest": Intervals([[0.0, begin], [ready, stop]] if begin and runs else [[0.0 if begin else ready, stop]])}
        if begin and runs:
            labels |= {"pre_rest": Intervals([[0.0, begin]]), "post_rest": Intervals([[ready, stop]])}
        if runs:
            labels["run"] = Intervals([[r.start, r.stop] for r in runs])
            spans = np.array([[r.start, r.stop] for r in runs])
            labels["context"] = EventTable(spans[:, 0], spans[:, 1], content=[r.context for r in runs], kind="context")
        plain = ("start", "stop", "peak", "kind", "content", "context")
        frame = reactivation.to_frame()
        labels["reactivation"] = EventTable.from_frame(frame[[c for c in plain if c in frame]])
        labels["trials"] = life.trials
        return labels

    def _record(self, models: dict[str, Any]) -> dict[str, Any]:
        given = {k: v for k, v in dataclasses.asdict(self).items() if k != "parameters"}
        used = {"run_minutes": self._run_minutes(3600.0 * self.hours), "track_length": self.length, "run_speed": self.speed}
        return given | used | {k: dataclasses.asdict(v) for k, v in models.items()}
