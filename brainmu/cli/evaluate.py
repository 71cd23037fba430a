"""brainmu evaluate: scores of a stager, by subject; or what an encoder adds where labels are few."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_sessions, progress, refuse_existing

COMMON = Common()


def evaluate(
    stores: Annotated[list[Path], Parameter(help="Labelled stores, or folders of stores.", negative="")],
    /,
    *,
    model: Annotated[str, Parameter(help="A stager or encoder: a folder, a packaged checkpoint's name, or 'rules' (rodents).")],
    labels: Annotated[str, Parameter(help="Name of the hypnogram in the stores.")] = "scoring",
    shares: Annotated[
        list[float] | None, Parameter(help="Encoder: shares of the labels to learn from (0.01 0.05 0.25 1).", consume_multiple=True, negative="")
    ] = None,
    seeds: Annotated[int | None, Parameter(help="Encoder: draws of the labels, each with an untrained encoder of its own (5).")] = None,
    split: Annotated[
        Literal["subject", "time"] | None, Parameter(help="Encoder: test on other subjects (default), or on other times of the same ones.")
    ] = None,
    folds: Annotated[int | None, Parameter(help="Encoder: parts of the subjects, or of the time, each tested once (5).")] = None,
    guard: Annotated[float | None, Parameter(help="Encoder, split by time: seconds left out beside what is tested (60).")] = None,
    without: Annotated[
        list[str] | None, Parameter(help="Encoder: channel kinds, or spikes, that the tested recordings lack.", consume_multiple=True, negative="")
    ] = None,
    out: Annotated[Path | None, Parameter(help="Also write the scores as JSON.")] = None,
    plot: Annotated[
        Path | None, Parameter(help="Stager: also draw where it and the labels differ, with a confusion matrix (.png, .svg or .pdf by suffix).")
    ] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace an existing file.")] = False,
    common: Common = COMMON,
) -> int:
    """Score a stager on labelled stores: kappa, F1, n, chance, intervals by subject. Of an encoder, what pretraining adds.

    Scores of a stager mean something only on subjects that it has not seen. An encoder has no stages to score: a linear read-out of it is trained on shares
    of the labels and tested on other subjects, beside the same encoder untrained and classical features, with a control of shuffled labels.

    For example:

    brainmu evaluate stores/ --model rules

    brainmu evaluate new_lab/ --model stager/ --json

    brainmu evaluate new_lab/ --model stager/ --plot disagreements.png

    brainmu evaluate new_lab/ --model brainmu-tiny --labels scoring --shares 0.05 1
    """
    import json

    from brainmu.core.effect import jsonable
    from brainmu.errors import StoreError, UsageError
    from brainmu.sleep import SleepStager

    for target in (out, plot):
        if target is not None:
            refuse_existing(target, overwrite)
    if plot is not None and plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageError(f"--plot {plot} has no suffix of a picture: use .png, .svg or .pdf")
    given = {"shares": shares, "seeds": seeds, "split": split, "folds": folds, "guard": guard, "without": without}
    asked = {k: v for k, v in given.items() if v is not None}
    encoder = model != "rules" and _is_encoder(model)
    if asked and not encoder:
        raise UsageError(f"--{next(iter(asked))} is for encoders, and {model} is a stager: leave it out, or name an encoder")
    if guard is not None and split != "time":
        raise UsageError(f"--guard {guard:g} goes with --split time: between subjects there is nothing to guard")
    if plot is not None and encoder:
        raise UsageError(f"--plot draws what a stager scored, and {model} is an encoder: leave it out, or name a stager")
    sessions = open_sessions(stores, common)
    if encoder:
        scores, text = probe_encoder(common, model, sessions, labels, asked)
    else:
        stager = SleepStager(stages="rodent3", epoch=4.0, method="rules") if model == "rules" else SleepStager.load(model)
        pairs = [(s, stager.predict(s), s.hypnogram(labels)) for s in sessions]
        scores = score_pairs([(s.subject or s.id, predicted, true) for s, predicted, true in pairs])
        lines = score_lines(scores)
        if scores.setdefault("fitted_on", sorted({r["subject"] for r in scores["subjects"]} & set(stager.subjects_))):
            known = scores["fitted_on"]
            shown = ", ".join(known[:6]) + (", …" if len(known) > 6 else "")
            lines.append(f"  note: the stager was fitted on {len(known)} of these subjects ({shown}): their scores say nothing of new ones")
        text = "\n".join(lines)
        if plot is not None:
            draw_disagreements(plot, [(s.id, true, predicted) for s, predicted, true in pairs], (labels, model))
            scores["plot"] = str(plot)
    emit(common, scores, text)
    if plot is not None:
        note(common, f"drew {plot}")
    if out is not None:
        try:
            out.write_text(json.dumps(jsonable(scores), indent=1), encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{out}: cannot be written ({error.strerror}); the scores are above: choose another --out") from None
        note(common, f"wrote {out}")
    return 0


def _is_encoder(model: str) -> bool:
    from brainmu.config import read_yaml
    from brainmu.models.checkpoint import find_checkpoint

    return read_yaml(find_checkpoint(model) / "config.yaml").get("type") == "encoder"


def probe_encoder(common: Common, model: str, sessions: list[Any], labels: str, options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What an encoder adds to a linear read-out of stages: plain values, and a table for people."""
    from brainmu.sleep.probing import probe

    with progress(common, "evaluate") as report:
        result = probe(sessions, model, labels=labels, seed=common.seed, progress=report, **options)
    return {"model": model, **result.to_dict()}, str(result)


def score_stager(stager: Any, sessions: list[Any], labels: str) -> dict[str, Any]:
    """Agreement of a stager with the labels of sessions, by subject, as plain values."""
    return score_pairs([(s.subject or s.id, stager.predict(s), s.hypnogram(labels)) for s in sessions])


def score_pairs(pairs: list[tuple[str, Any, Any]]) -> dict[str, Any]:
    """Agreement of hypnograms with references, by subject, as plain values."""
    from brainmu.sleep import evaluate_many

    scores = evaluate_many(pairs)
    return scores | {"subjects": scores["subjects"].to_dict("records")}


def draw_disagreements(path: Path, pairs: list[tuple[str, Any, Any]], names: tuple[str, str]) -> None:
    """Draw where hypnograms and references of recordings differ; written whole or not at all."""
    from brainmu.errors import StoreError
    from brainmu.report.figures import disagreement_figure

    figure = disagreement_figure(pairs, names)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        figure.savefig(partial, dpi=150)
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}): choose another --plot") from None
    finally:
        partial.unlink(missing_ok=True)


def score_lines(scores: dict[str, Any]) -> list[str]:
    """The scores for people."""
    from brainmu.config import plural

    low, high = scores["kappa_subjects_interval"]
    interval = f" [{low:.3f}, {high:.3f}]" if low == low else " (one subject: no interval)"
    lines = [
        f"  n = {plural(scores['n'], 'epoch')}, {plural(scores['n_subjects'], 'subject')}, {plural(scores['n_recordings'], 'recording')}",
        f"  kappa, mean over subjects {scores['kappa_subjects']:.3f}{interval}; pooled {scores['kappa']:.3f}; accuracy {scores['accuracy']:.3f}",
        "  F1 " + ", ".join(f"{k} {v:.3f}" for k, v in scores["f1"].items()) + f"; macro {scores['macro_f1']:.3f}",
        "  fraction bias " + ", ".join(f"{k} {v:+.3f}" for k, v in scores["fraction_bias"].items()),
    ]
    chance = scores.get("chance")
    if isinstance(chance, dict):
        lines.append("  chance: " + ", ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in chance.items() if isinstance(v, float)) + "; kappa 0")
    shuffled = scores.get("shuffled")
    if isinstance(shuffled, dict) and shuffled["kappa"] == shuffled["kappa"]:
        lines[-1] += f"; with bouts in another order kappa {shuffled['kappa']:.3f} (95 % below {shuffled['kappa_95']:.3f})"
    if scores.get("calibration"):
        told = scores["calibration_error"]
        sure = next((r for r in scores["abstention"] if r["threshold"] == 0.8), None)
        side = "above" if told["overconfidence"] >= 0 else "below"
        lines.append(f"  calibration: ECE {told['ece']:.3f}, confidence {abs(told['overconfidence']):.3f} {side} accuracy")
        if sure is not None and sure["n"]:
            lines[-1] += f"; below 0.8 lie {sure['abstained_pct']:.1f} % of epochs, and the others are right {100 * sure['accuracy']:.1f} % of the time"
    if 1 < scores["n_subjects"] < 8:
        lines.append(f"  note: {scores['n_subjects']} subjects: intervals over so few are too narrow")
    if scores["n_subjects"] > 1:
        lines += [f"  {s['subject']}: kappa {s['kappa']:.3f}, n = {s['n']}" for s in scores["subjects"]]
    return lines
