"""Does reactivation drive sleep? From recordings to the figure: stores, staging, reactivation by content, and every design side by side.

    python -m pipelines.reactivation_sleep --out result/                       # planted sessions: found beside the truth
    python -m pipelines.reactivation_sleep --out result/ --quick               # the same, small, within two minutes
    python -m pipelines.reactivation_sleep --out result/ stores/*.zarr         # a lab's own stores

Each step leaves its result in --out and is not done again. Only the public API is used.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import brainmu as bm
from brainmu.core import EventTable, Hypnogram, Recording, metrics
from brainmu.errors import BrainmuError, UsageError

VALENCES = ("negative", "positive", "neutral")
CONTRASTS = (("negative", "neutral"), ("positive", "neutral"))
PLANTED: dict[str, Any] = {
    "n_channels": 2, "n_cells": 30, "contexts": {"A": "negative", "B": "positive", "C": "neutral"},
    "reactivation_rate": dict.fromkeys(VALENCES, 0.06), "confounding": 0.5, "animal_sd": 0.3,
}  # fmt: skip
"""Three tracks, one of each valence; a pressure that drives reactivation and waking alike, so that what is not adjusted for it is wrong."""

SIZES = {
    "full": {"animals": 8, "hours": 3.0, "learn": 3, "learn_hours": 1.0, "shuffles": 200, "placebos": 19, "edited": 100, "steps": 200, "copies": 10_000},
    "quick": {"animals": 4, "hours": 0.8, "learn": 2, "learn_hours": 0.5, "shuffles": 40, "placebos": 5, "edited": 20, "steps": 40, "copies": 2_000},
}


def main(argv: list[str] | None = None) -> int:
    """Every step that --out does not hold yet; 0 when done, 1 with one line on what is missing."""
    args = arguments(argv)
    try:
        settings = check_folder(args)
        study = planted(args, settings) if not args.stores else given(args)
        stage(args, study, settings)
        reactivation(args, study, settings)
        effects = estimate(args, study, settings)
        summarise(args, study, effects)
    except BrainmuError as error:
        print(f"reactivation_sleep: {error}", file=sys.stderr)
        return 1
    return 0


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """What was asked."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.reactivation_sleep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", type=Path, help="a lab's stores; planted sessions where none is given")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a small planted study, or few draws")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--outcome", default="NREM->WAKE")
    parser.add_argument("--horizon", type=float, default=10.0, help="of the trials, s")
    parser.add_argument("--adjust", nargs="*", default=["pressure"], help="signals that observation adjusts for, where the stores hold them")
    parser.add_argument("--labels", default="scoring", help="hypnogram of the stores")
    parser.add_argument("--events", default="reactivation", help="event label with content; without it replay is decoded (labels run and rest)")
    parser.add_argument("--trials", default="trials", help="ledger of randomised trials, where there is one")
    parser.add_argument("--valence", nargs="*", default=[], metavar="CONTENT=VALENCE", help="what contents mean, as A=negative B=neutral")
    parser.add_argument("--stager", type=Path, help="a past-only stager (SleepStager(causal=True).save), for stores without a hypnogram")
    parser.add_argument("--model", type=Path, help="a past-only stage model (finetune(causal=True)), for the in-model effect")
    return parser.parse_args(argv)


def check_folder(args: argparse.Namespace) -> dict[str, Any]:
    """The sizes; UsageError where --out holds another run."""
    sizes = SIZES["quick" if args.quick else "full"]
    asked = {k: [str(x) for x in v] if isinstance(v, list) else str(v) for k, v in vars(args).items() if k != "out"} | {"version": bm.__version__, **sizes}
    path = args.out / "settings.json"
    if path.exists() and (before := json.loads(path.read_text(encoding="utf-8"))) != asked:
        changed = [k for k in asked if before.get(k) != asked[k]]
        raise UsageError(f"{args.out} holds another run (other {', '.join(changed)}): choose another --out, or delete it")
    args.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asked, indent=1), encoding="utf-8")
    return sizes


@dataclasses.dataclass
class Study:
    """What is known so far: recordings, their hypnograms, events by valence, models, and the truth where it was planted.

    `scoring` and `events` are by recording id; `planted_events` and `truth` are empty for a lab's stores.
    """

    sessions: list[Recording]
    scoring: dict[str, Hypnogram] = dataclasses.field(default_factory=dict)
    events: dict[str, EventTable] = dataclasses.field(default_factory=dict)
    planted_events: dict[str, EventTable] = dataclasses.field(default_factory=dict)
    truth: dict[str, float] = dataclasses.field(default_factory=dict)
    learn: list[Recording] = dataclasses.field(default_factory=list)
    model: Any = None
    quality: dict[str, Any] = dataclasses.field(default_factory=dict)


BEGAN = time.monotonic()


def say(text: str) -> None:
    """A line on stderr with the time since the start; stdout holds the table alone."""
    minutes, seconds = divmod(int(time.monotonic() - BEGAN), 60)
    print(f"{minutes:3d}:{seconds:02d}  {text}", file=sys.stderr, flush=True)


# -- recordings ----------------------------------------------------------------------------------------------------------------
def planted(args: argparse.Namespace, c: dict[str, Any]) -> Study:
    """A study whose answers are known, and other animals to learn staging from, as stores like any other."""
    say(f"sessions: {c['animals']} planted animals of {c['hours']:g} h, {c['learn']} more of {c['learn_hours']:g} h to learn staging from")
    pairs = bm.synth.corpus(c["animals"], hours=c["hours"], seed=args.seed, **PLANTED)
    others = [r for r, _ in bm.synth.corpus(c["learn"], hours=c["learn_hours"], seed=args.seed + 10_000, **PLANTED)]
    study = Study([stored(r, args.out / "stores") for r, _ in pairs])
    study.learn = [stored(r, args.out / "stores" / "learn") for r in others]
    study.planted_events = {r.id: t.reactivation for r, t in pairs}
    study.truth = kept(args.out / "truth.json", lambda: true_effects(pairs[0][1], c["copies"], args))
    return study


def stored(recording: Recording, folder: Path) -> Recording:
    """The store of a recording, made where there is none."""
    path = folder / f"{recording.id}.zarr"
    if not path.exists():
        say(f"store: {recording.id}")
    return bm.preprocess(recording, path)


def true_effects(truth: Any, copies: int, args: argparse.Namespace) -> dict[str, float]:
    """What each estimand comes to when the interventions themselves are simulated."""
    from brainmu.synth.interventions import simulate_interventions

    say("truth: simulating the interventions")
    m, sleep = truth.parameters["mechanism"], truth.parameters["sleep"]
    m, sleep = (x if not isinstance(x, dict) else make(**x) for x, make in ((m, bm.synth.Mechanism), (sleep, bm.synth.RodentSleep)))
    found = simulate_interventions(m, sleep, copies=copies, seed=args.seed, families=["trials", "hazard", "msm"])
    one = {v: found[f"epoch_log_odds_ratio[{v}]"].value for v in VALENCES}
    out = {"trials": found["itt_risk_difference"].value} | {f"hazard: {v}": x for v, x in one.items()}
    out |= {f"{d}: negative": one["negative"] for d in ("matched", "hazard, unadjusted")} | {"msm: negative": found["msm_log_odds_ratio[negative]"].value}
    for a, b in CONTRASTS:
        out |= {f"{d}: {a} - {b}": one[a] - one[b] for d in ("hazard", "hazard, planted events")}
    return out


def given(args: argparse.Namespace) -> Study:
    """A lab's stores."""
    sessions = [bm.open(p) for p in args.stores]
    say(f"sessions: {len(sessions)} stores of {len({s.subject for s in sessions})} animals")
    return Study(sessions)


# -- staging -------------------------------------------------------------------------------------------------------------------
def stage(args: argparse.Namespace, study: Study, c: dict[str, Any]) -> None:
    """A hypnogram each that used no future: the lab's own, or one by a stager that learnt from other animals."""
    if not study.learn and all(isinstance(s.labels.get(args.labels), Hypnogram) for s in study.sessions):
        study.scoring = {s.id: s.hypnogram(args.labels) for s in study.sessions}
    else:
        stager = past_only_stager(args, study)
        for s in study.sessions:
            study.scoring[s.id] = staged(args.out / "hypnograms" / f"{s.id}.npz", s, stager)
    if study.learn:
        kappas = []
        for s in study.sessions:
            h, true = study.scoring[s.id], s.hypnogram("scoring")
            m = metrics.confusion(true.at(h.times + h.epoch / 2), h.codes, 3)
            kappas.append(metrics.cohen_kappa(m))
        study.quality["staging, kappa with the scorer"] = [round(float(k), 3) for k in kappas]
    folder = args.model or args.out / "model"
    if study.learn and not folder.exists():
        say("model: learning to stage from everything, past only, for the in-model effect")
        bm.finetune(study.learn, encoder="brainmu-tiny", causal=True, config={"steps": c["steps"]}, seed=args.seed, out=folder)
    study.model = bm.load(str(folder)) if folder.exists() else None


def past_only_stager(args: argparse.Namespace, study: Study) -> bm.SleepStager:
    """The stager that was given, or one fitted to the other animals."""
    folder = args.stager or args.out / "stager"
    if study.learn and not folder.exists():
        say("staging: learning from the other animals")
        stager = bm.SleepStager(stages="rodent3", epoch=4.0, method="boosting", causal=True, seed=args.seed)
        stager.fit([away_from_exposure(s, labels=True) for s in study.learn], labels="scoring").save(str(folder))
    if not folder.exists():
        raise UsageError(
            f"the stores lack a hypnogram {args.labels!r}: name it with --labels, or give --stager FOLDER (SleepStager(causal=True), fitted and saved)"
        )
    return bm.load(str(folder))


def away_from_exposure(s: Recording, labels: bool = False) -> Recording:
    """EEG, EMG and the LFP outside the hippocampus: a stage read from what reactivation was found in would answer to it by construction."""
    out = {}
    for name, signal in s.signals_of("eeg", "emg", "lfp").items():
        far = [n for n, r in zip(signal.channels["name"], signal.channels["region"]) if not str(r).startswith(("CA", "DG", "HPC"))]
        if far:
            out[name] = signal.pick(far)
    return Recording(s.id, s.subject, species=s.species, signals=out, labels={"scoring": s.hypnogram("scoring")} if labels else {})


def staged(path: Path, s: Recording, stager: Any) -> Hypnogram:
    """The hypnogram of a session, kept as a file."""
    if not path.exists():
        say(f"staging: {s.id}")
        path.parent.mkdir(parents=True, exist_ok=True)
        bm.sleep.write_hypnogram(stager.predict(away_from_exposure(s)), path)
    return bm.sleep.read_hypnogram(path)


# -- reactivation ----------------------------------------------------------------------------------------------------------------
def reactivation(args: argparse.Namespace, study: Study, c: dict[str, Any]) -> None:
    """Events by valence: the lab's own, or decoded replay of the tracks that is unlikely by chance."""
    meaning = dict(x.partition("=")[::2] for x in args.valence) or (PLANTED["contexts"] if study.learn else {})
    if not study.learn and all(isinstance(s.labels.get(args.events), EventTable) for s in study.sessions):
        found = {s.id: s.events(args.events) for s in study.sessions}
    else:
        found = {s.id: replayed(args, s, c["shuffles"], study.scoring[s.id]) for s in study.sessions}
    for name, table in found.items():
        content = [meaning.get(str(x), str(x)) for x in table.content]
        study.events[name] = table.assign(content=np.array(content, dtype=object))
    if study.planted_events:
        study.quality["reactivation"] = detection(study)


def replayed(args: argparse.Namespace, s: Recording, shuffles: int, scoring: Hypnogram) -> EventTable:
    """Replay of the tracks in NREM that fewer than 5 % of the null events match, kept as a file."""
    path = args.out / "reactivation" / f"{s.id}_events.tsv"
    if not path.exists():
        say(f"reactivation: {s.id}")
        path.parent.mkdir(parents=True, exist_ok=True)
        ripples = bm.find_events(s, kind="ripple", within=scoring.intervals("NREM"), hypnogram=scoring, seed=args.seed)
        found = bm.find_replay(s, run="run", rest="rest", candidates=ripples, shuffles=shuffles, null_sessions=5, null_shuffles=20, seed=args.seed)
        found[found.p_value < 0.05].to_bids(path)
    return EventTable.from_bids(path)


def detection(study: Study) -> dict[str, Any]:
    """Of the planted reactivations in NREM, how many were found, and how many of the found are one and named rightly."""
    planted_n = hits = found_n = right = 0
    for s in study.sessions:
        true = study.planted_events[s.id].within(study.scoring[s.id].intervals("NREM"))
        found = study.events[s.id]
        pairs = found.match(true, iou=0.05)
        same = [str(found.content[i]) == str(true.content[j]) for i, j in pairs]
        planted_n, found_n, hits, right = planted_n + len(true), found_n + len(found), hits + len(pairs), right + sum(same)
    return {
        "planted in NREM": planted_n, "found": found_n, "recall": round(hits / max(planted_n, 1), 3), "precision": round(hits / max(found_n, 1), 3),
        "content right among hits": round(right / max(hits, 1), 3),
    }  # fmt: skip


# -- effects ---------------------------------------------------------------------------------------------------------------------
def estimate(args: argparse.Namespace, study: Study, c: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every question the sessions can answer, by name; what one lacks is said and left out."""
    scored = [dataclasses.replace(plain(s), labels=dict(s.labels) | {"staged": study.scoring[s.id]}) for s in study.sessions]
    adjust = [name for name in args.adjust if all(name.partition(":")[0] in s.signals for s in scored)]
    several = len({s.subject for s in scored}) > 1
    contents = {str(x) for t in study.events.values() for x in t.content}
    ask: dict[str, Any] = {"outcome": args.outcome, "labels": "staged", "seed": args.seed, "draws": 999 if args.quick else 10_000}
    seen = ask | {"exposure": study.events, "adjust": adjust}
    calls: dict[str, Callable[[], Any]] = {}
    if all(isinstance(s.labels.get(args.trials), EventTable) for s in scored):
        calls["trials"] = lambda: bm.estimate_effect(scored, exposure=args.trials, design="trials", horizon=args.horizon, **ask)
    for a, b in CONTRASTS:
        if {a, b} <= contents:
            calls[f"hazard: {a} - {b}"] = lambda a=a, b=b: bm.estimate_effect(scored, design="hazard", content=(a, b), **seen)
            if study.planted_events:
                true = ask | {"exposure": study.planted_events, "adjust": adjust, "diagnostics": False}
                calls[f"hazard, planted events: {a} - {b}"] = lambda a=a, b=b, q=true: bm.estimate_effect(scored, design="hazard", content=(a, b), **q)
    for v in sorted(contents - {""}) or [None]:
        calls[f"hazard: {v or 'any event'}"] = lambda v=v: bm.estimate_effect(scored, design="hazard", content=v, **seen)
    if "negative" in contents:
        bare = seen | {"adjust": [], "clock": False}
        calls["hazard, unadjusted: negative"] = lambda: bm.estimate_effect(scored, design="hazard", content="negative", **bare)
        calls["matched: negative"] = lambda: bm.estimate_effect(scored, design="matched", content="negative", **seen)
        if adjust and several:
            calls["msm: negative"] = lambda: bm.estimate_effect(scored, design="msm", content="negative", **seen)
    if study.model is not None:
        edit = {"operation": "remove", "placebos": c["placebos"], "max_events": c["edited"], "outcome": args.outcome, "seed": args.seed}
        tables = [study.events[s.id] for s in study.sessions]
        for v in [x for x in VALENCES if x in contents]:
            calls[f"in the model, removed: {v}"] = lambda v=v: bm.intervene(study.model, study.sessions, tables, content=v, **edit)
    out = {}
    for i, (name, call) in enumerate(calls.items()):
        try:
            out[name] = kept(args.out / "effects" / f"{slug(name)}.json", lambda n=name, call=call, i=i: computed(f"{n} ({i + 1} of {len(calls)})", call))
        except BrainmuError as error:
            say(f"not answered: {name}: {error}")
    return out


def computed(name: str, call: Callable[[], Any]) -> dict[str, Any]:
    """An effect as plain values."""
    say(f"effect: {name}")
    return json.loads(call().to_json())


def plain(s: Recording) -> Recording:
    """A recording with labels of its own, whose samples stay in the store."""
    return Recording(s.id, s.subject, species=s.species, signals=dict(s.signals), labels=dict(s.labels), zeitgeber=s.zeitgeber, subject_meta=s.subject_meta)


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the file holds, made first where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".partial")
        part.write_text(json.dumps(make(), indent=1), encoding="utf-8")
        part.replace(path)
    return json.loads(path.read_text(encoding="utf-8"))


def slug(name: str) -> str:
    """A file name."""
    return "_".join("".join(c if c.isalnum() else " " for c in name).split())


# -- table and figure ------------------------------------------------------------------------------------------------------------
def summarise(args: argparse.Namespace, study: Study, effects: dict[str, dict[str, Any]]) -> None:
    """Print the table; write effects.md and effects.png."""
    if not effects:
        raise UsageError("no question could be answered: see the lines above for what each one lacks")
    if __package__:
        from pipelines.reactivation_sleep.figure import draw, table
    else:
        from figure import draw, table

    text = table(effects, study.truth, study.quality)
    (args.out / "effects.md").write_text(text, encoding="utf-8")
    draw(effects, study.truth, args.out / "effects.png")
    say(f"done: {args.out / 'effects.png'}, {args.out / 'effects.md'}")
    print(text)


if __name__ == "__main__":
    sys.exit(main())
