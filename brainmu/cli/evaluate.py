"""brainmu evaluate: scores of a stager, by subject."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_sessions, refuse_existing

COMMON = Common()


def evaluate(
    stores: Annotated[list[Path], Parameter(help="Labelled stores, or folders of stores.", negative="")],
    /,
    *,
    model: Annotated[str, Parameter(help="A stager folder, a packaged checkpoint's name, or 'rules' (rodents).")],
    labels: Annotated[str, Parameter(help="Name of the hypnogram in the stores.")] = "scoring",
    out: Annotated[Path | None, Parameter(help="Also write the scores as JSON.")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace an existing file.")] = False,
    common: Common = COMMON,
) -> int:
    """Score a stager on labelled stores: kappa, F1, n, chance, intervals by subject.

    Scores mean something only on subjects that the stager has not seen.

    For example:

    brainmu evaluate stores/ --model rules

    brainmu evaluate new_lab/ --model stager/ --json
    """
    import json

    import brainmu.loading
    from brainmu.core.effect import jsonable
    from brainmu.sleep import SleepStager

    if out is not None:
        refuse_existing(out, overwrite)
    sessions = open_sessions(stores)
    stager = SleepStager(stages="rodent3", epoch=4.0, method="rules") if model == "rules" else brainmu.loading.load(model)
    scores = score_stager(stager, sessions, labels)
    if out is not None:
        out.write_text(json.dumps(jsonable(scores), indent=1), encoding="utf-8")
        note(common, f"wrote {out}")
    emit(common, scores, "\n".join(score_lines(scores)))
    return 0


def score_stager(stager: Any, sessions: list[Any], labels: str) -> dict[str, Any]:
    """Agreement of a stager with the labels of sessions, by subject, as plain values."""
    from brainmu.sleep import evaluate_many

    scores = evaluate_many([(s.subject or s.id, stager.predict(s), s.hypnogram(labels)) for s in sessions])
    return scores | {"subjects": scores["subjects"].to_dict("records")}


def score_lines(scores: dict[str, Any]) -> list[str]:
    """The scores for people."""
    low, high = scores["kappa_subjects_interval"]
    interval = f" [{low:.3f}, {high:.3f}]" if low == low else " (one subject: no interval)"
    lines = [
        f"  n = {scores['n']} epochs, {scores['n_subjects']} subjects, {scores['n_recordings']} recordings",
        f"  kappa, mean over subjects {scores['kappa_subjects']:.3f}{interval}; pooled {scores['kappa']:.3f}; accuracy {scores['accuracy']:.3f}",
        "  F1 " + ", ".join(f"{k} {v:.3f}" for k, v in scores["f1"].items()) + f"; macro {scores['macro_f1']:.3f}",
        "  fraction bias " + ", ".join(f"{k} {v:+.3f}" for k, v in scores["fraction_bias"].items()),
    ]
    chance = scores.get("chance")
    if isinstance(chance, dict):
        lines.append("  chance: " + ", ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in chance.items() if isinstance(v, float)) + "; kappa 0")
    if scores["n_subjects"] > 1:
        lines += [f"  {s['subject']}: kappa {s['kappa']:.3f}, n = {s['n']}" for s in scores["subjects"]]
    return lines
