"""brainmu finetune: a stager, or a detector of replay, from labelled stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_sessions, progress, refuse_folder, warn
from brainmu.cli.evaluate import score_lines, score_stager

COMMON = Common()


def finetune(
    stores: Annotated[list[Path], Parameter(help="Labelled stores, or folders of stores.", negative="")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder for what is fitted; brainmu stage --model or brainmu replay --model takes it.")],
    from_: Annotated[str | None, Parameter(name="--from", help="Pretrained encoder: a folder, or a packaged checkpoint's name.")] = None,
    task: Annotated[Literal["stage", "replay"], Parameter(help="What the head predicts: sleep stages, or events.")] = "stage",
    labels: Annotated[
        str | None, Parameter(help="Name of the hypnogram (default: scoring) or of the events (default: reactivation; ripple, burst and hse are found).")
    ] = None,
    within: Annotated[str | None, Parameter(help="Replay: label of the epochs in which all events are marked (default: everywhere).")] = None,
    stages: Annotated[Literal["rodent3", "aasm5"], Parameter(help="WAKE NREM REM, or W N1 N2 N3 R.")] = "rodent3",
    epoch: Annotated[float | None, Parameter(help="Epoch, s (4 for rodents, 30 for people).")] = None,
    method: Annotated[
        Literal["encoder", "boosting", "combined"],
        Parameter(help="A head on the encoder; boosted trees on classical features; these trees and a network over the night (three subjects or more)."),
    ] = "encoder",
    mode: Annotated[
        Literal["probe", "adapters", "context", "full"] | None, Parameter(help="What of the encoder is trained: none, low-rank adapters, its context, all.")
    ] = None,
    settings: Annotated[str | None, Parameter(help="How the head is trained: a YAML file, or a packaged name (finetune/stage).")] = None,
    held_out: Annotated[float, Parameter(help="Share of subjects kept aside and scored (0 trains on all).")] = 0.25,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace an earlier stager.")] = False,
    common: Common = COMMON,
) -> int:
    """Fit a head on labelled stores: sleep stages from an encoder or from scratch, or replay on a frozen encoder.

    Subjects are split, never recordings of one subject; those held out are scored with n, chance and an interval.
    An interrupted run begins again: nothing is written before the end.

    For example:

    brainmu finetune stores/ --from brainmu-tiny --labels scoring --out stager/

    brainmu finetune stores/ --from brainmu-tiny --mode adapters --settings mine.yaml --out stager/

    brainmu finetune stores/ --from brainmu-tiny --task replay --labels reactivation --within rest --out detector/
    """
    from brainmu.config import plural
    from brainmu.errors import UsageError
    from brainmu.models.checkpoint import find_checkpoint
    from brainmu.sleep import SleepStager

    if not 0 <= held_out < 1:
        raise UsageError(f"--held-out {held_out:g}: expected a share of the subjects from 0 to below 1, such as 0.25; 0 trains on all")
    refuse_folder(out, overwrite)
    if from_ is not None:
        find_checkpoint(from_)
    if task == "replay":
        given = {"stages": stages != "rodent3", "epoch": epoch, "method": method != "encoder", "mode": mode, "settings": settings}
        for name in (k for k, v in given.items() if v):
            raise UsageError(f"--{name} is for --task stage: the detector's encoder stays as it is, and it has no stages or epochs")
        return _replay(stores, out, from_, labels or "reactivation", within, held_out, overwrite, common)
    if within is not None:
        raise UsageError(f"--within {within} is for --task replay: a hypnogram says itself which epochs are scored")
    labels = labels or "scoring"
    if from_ is not None and method != "encoder":
        raise UsageError(f"--from {from_} is an encoder, --method {method} uses none: leave one of them out")
    if method != "encoder" and (mode is not None or settings is not None):
        raise UsageError(f"--{'mode' if mode is not None else 'settings'} says how an encoder is trained, --method {method} uses none: leave one of them out")
    sessions = open_sessions(stores, common)
    train, test = _sides(sessions, held_out, common.seed)
    if not test:
        note(common, "note: no subject is held out, so the stager is not scored on an animal it has not seen")
    options = {} if mode is None else {"mode": mode}
    stager = SleepStager(stages=stages, epoch=epoch, method=method, encoder=from_, config=settings, seed=common.seed, **options)
    with progress(common, "finetune") as report:
        stager.fit(train, labels=labels, progress=report)
    stager.save(out, overwrite=overwrite)
    note(common, f"wrote {out}")
    result: dict[str, Any] = {
        "out": str(out),
        "method": stager.method_,
        "n_train": len(train),
        "n_test": len(test),
        "subjects_test": sorted({s.subject or s.id for s in test}),
    }
    result["n_epochs"] = stager.n_epochs_
    lines = [f"{stager!r} fitted on {plural(stager.n_epochs_, 'epoch')} of {plural(stager.n_subjects_, 'subject')}"]
    if method == "encoder":
        warn(common, stager.model_.notes)
        result |= {"mode": mode or ("full" if from_ is None else "context"), "n_weights_trained": stager.model_.n_trained, "notes": stager.model_.notes}
        lines.append(f"{stager.model_.n_trained:,} weights trained (mode {result['mode']})")
    if test:
        scores = score_stager(stager, test, labels)
        result["held_out"] = scores
        names = result["subjects_test"]
        lines += [f"scored on {plural(len(names), 'held-out subject')} ({', '.join(names)}):", *score_lines(scores)]
    emit(common, result, "\n".join(lines))
    return 0


def _sides(sessions: list[Any], held_out: float, seed: int) -> tuple[list[Any], list[Any]]:
    """What is trained on, and what is kept aside and scored."""
    from brainmu.errors import InputError
    from brainmu.windows import split

    if held_out == 0 or len(sessions) < 2:
        return sessions, []
    nameless = [s for s in sessions if not s.subject]
    if nameless:
        raise InputError(
            f"{nameless[0].path}: names no subject, so no subject can be held out: write subject: into its manifest (brainmu.yaml) and preprocess it again, "
            "or pass --held-out 0"
        )
    if len({s.subject for s in sessions}) < 2:
        return sessions, []
    return split(sessions, by="subject", test=held_out, seed=seed)


def _replay(stores: list[Path], out: Path, encoder: str | None, labels: str, within: str | None, held_out: float, overwrite: bool, common: Common) -> int:
    """A detector of events, and how well it does on subjects that it has not seen."""
    from brainmu.config import plural
    from brainmu.replay import ReplayDetector

    train, test = _sides(open_sessions(stores, common), held_out, common.seed)
    if len({s.subject or s.id for s in train}) < 2 and test:
        train, test = [*train, *test], []
    if not test:
        note(common, "note: no subject is held out, so the detector is not scored on an animal it has not seen")
    detector = ReplayDetector(encoder, seed=common.seed)
    with progress(common, "finetune") as report:
        detector.fit(train, labels, within=within, progress=report)
    detector.save(out, overwrite=overwrite)
    note(common, f"wrote {out}")
    warn(common, detector.notes_)
    left_out = {k: {"calibration_error": c.error, "n_events": c.n_events, "minutes": c.minutes} for k, c in detector.calibration_.items()}
    result: dict[str, Any] = {
        "out": str(out), "task": "replay", "labels": labels, "n_train": len(train), "n_test": len(test), "n_events": detector.n_events_, "left_out": left_out,
        "subjects_test": sorted({s.subject or s.id for s in test}), "notes": detector.notes_,
    }  # fmt: skip
    lines = [f"{detector!r} fitted on {plural(detector.n_events_, 'event')} ({labels}) of {plural(detector.n_subjects_, 'subject')}"]
    lines += [
        f"{k}: calibration error {c.error:.3f} in subjects left out in turn ({c.n_events} events, {c.minutes:.0f} min)"
        for k, c in detector.calibration_.items()
    ]
    if test:
        result["held_out"] = {"average_precision": detector.score(test, labels, within=within)}
        of = f"{plural(len(test), 'recording')} of {plural(len(result['subjects_test']), 'subject')}"
        lines.append(f"held out: average precision {result['held_out']['average_precision']:.3f}, mean over {of}")
    emit(common, result, "\n".join(lines))
    return 0
