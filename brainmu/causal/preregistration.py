"""A question written down, and sealed with a hash, before any outcome is read."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brainmu._version import __version__
from brainmu.causal.estimand import contrast_sentence, coupling_sentence, hazard_sentence, matched_sentence, msm_sentence, trial_sentence
from brainmu.causal.hazard import HazardModel
from brainmu.causal.outcome import Outcome
from brainmu.errors import DesignError, InputError

__all__ = ["preregister", "question_hash"]

_NOT_ASKED = ("sessions", "diagnostics", "progress")
_OBSERVED = ("horizon", "labels", "adjust", "adjust_window", "lag", "blank", "clock", "weight", "content", "stage_draws", "seed")
_DETECTED = ("recall", "precision", "settle")
_OF_DESIGN = {
    "trials": ("horizon", "labels", "adjust", "blank", "weight", "competing", "scheme", "content", "contrast", "arms", "stage_draws", "draws", "seed"),
    "hazard": (*_OBSERVED, *_DETECTED, "dose", "draws"),
    "msm": (*_OBSERVED, "dose", "truncate"),
    "matched": (*_OBSERVED, *_DETECTED, "matches", "distance", "caliper", "draws"),
    "glm": (*_OBSERVED, *_DETECTED, "basis", "draws"),
}
"""What bears on the answer of each design besides exposure and outcome."""

_PLAN = {
    "trials": "Intention to treat; Fisher's randomisation test replaying the logged assignment; a t interval over animals.",
    "hazard": "Discrete-time hazard with a spline of time in bout and animal intercepts; animals as a random sample, Hartung-Knapp t interval.",
    "msm": "Stabilised weights; jackknife over animals; not identified where the effective sample is below 30 % of the rows.",
    "matched": "Exposed epochs against unexposed ones of the same animal at the same time in bout; conditional logistic (or mean difference); "
    "animals as a random sample, Hartung-Knapp t interval.",
    "glm": "Raised cosines of the time since each event in a discrete-time hazard; animals as a random sample, Hartung-Knapp t interval.",
}


def question_hash(question: Mapping[str, Any], version: str = __version__) -> str:
    """SHA-256 of a question and the version that answers it: the same for the same arguments of ``estimate_effect``, however they are written.

    Options that the design does not use do not count.
    """
    design = str(question["design"])
    kept = {k: _plain(question[k]) for k in ("design", "exposure", "outcome", *_OF_DESIGN[design]) if k != "arms" or question.get(k) is not None}
    return hashlib.sha256(json.dumps({"version": version, "question": kept}, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, Mapping):
        # Tables are data, not a choice; rules are a choice.
        return {str(k): str(v) if isinstance(v, str) else "events" for k, v in sorted(value.items())}
    return [str(v) for v in value] if isinstance(value, (list, tuple)) else str(value)


def preregister(path: str | Path | None = None, *, epoch: float = 4.0, overwrite: bool = False, **question: Any) -> str:
    """The question as Markdown: the estimand, the design, every option that bears on the answer, the version, and their hash. No data are read.

    ``estimate_effect`` of the same arguments and version gives the same hash in ``diagnostics["question"]``.

    Parameters
    ----------
    path : path or None
        Where to write it, too.
    epoch : float, s
        Length of the scored epochs, for the sentence.
    overwrite : bool
        Replace an existing file.
    **question
        Arguments of :func:`brainmu.estimate_effect`, without sessions.

    Raises
    ------
    DesignError
        If the question is none that can be asked.
    InputError
        If an argument is not known, or the file exists.

    Examples
    --------
    >>> text = preregister(exposure="trials", outcome="NREM->WAKE", design="trials", horizon=20.0)
    >>> "within 20 s of its onset" in text
    True
    """
    from brainmu.causal.effect import check_question, estimate_effect

    known = {k: p.default for k, p in inspect.signature(estimate_effect).parameters.items() if k not in _NOT_ASKED}
    stray = sorted(set(question) - set(known))
    if stray:
        raise InputError(f"estimate_effect has no argument {stray[0]!r}, expected some of {', '.join(known)}")
    if not isinstance(question.get("exposure"), str):
        raise DesignError(f"exposure is {question.get('exposure')!r}, expected the name of the events' label: it is written down before there are data")
    asked = known | question
    outcome = check_question(asked, epoch)
    text = _page(asked, outcome, epoch)
    if path is not None:
        file = Path(path)
        if file.exists() and not overwrite:
            raise InputError(f"{file} exists, and a preregistration is not to change: write another file, or pass overwrite=True")
        file.write_text(text, encoding="utf-8")
    return text


def _page(asked: dict[str, Any], outcome: Outcome, epoch: float) -> str:
    design = str(asked["design"])
    lines = [
        "# Preregistration", "", "## Question", "", _sentence(asked, outcome, epoch), "", "## Analysis", "", f"Design: {design}. {_PLAN[design]}", "",
        "| option | value |", "|---|---|", f"| exposure | {asked['exposure']} |", f"| outcome | {outcome} |",
        *(f"| {k} | {_word(asked[k])} |" for k in _OF_DESIGN[design]), "", "## Seal", "", f"- brainmu {__version__}",
        f"- epoch assumed in the question: {epoch:g} s",
        f"- SHA-256 of version and options: `{question_hash(asked)}`", "",
        "The same call on data gives this hash in `diagnostics[\"question\"][\"hash\"]`. No outcome was read to write this page.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _word(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "nothing"
    return str(value)


def _sentence(asked: dict[str, Any], outcome: Outcome, epoch: float) -> str:
    from brainmu.causal.effect import default_horizon

    design, animals = asked["design"], "the animals of the study"
    horizon = default_horizon(design, outcome, epoch) if asked["horizon"] is None else float(asked["horizon"])
    if design == "trials":
        pair = asked["arms"] or (asked["content"] if isinstance(asked["content"], tuple) else None)
        if pair is not None:
            return contrast_sentence(outcome, horizon, "arm" if asked["arms"] else "content", tuple(pair), "within animals where they have both", animals)
        return trial_sentence(outcome, horizon, asked["content"], asked["contrast"], animals, float(asked["blank"]))
    adjust = asked["adjust"]
    names = (adjust,) if isinstance(adjust, str) else tuple(adjust)
    model = HazardModel(lag=int(asked["lag"]), blank=float(asked["blank"]), adjust=names, content=asked["content"], count=asked["dose"] == "count")
    if design == "msm":
        return msm_sentence(model, outcome, horizon, epoch, animals)
    write = {"hazard": hazard_sentence, "matched": matched_sentence, "glm": coupling_sentence}[design]
    return write(model, outcome, horizon, epoch, ", ".join(names) or "no measured confounder", animals)
