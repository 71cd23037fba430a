"""The question as a sentence, written before any outcome is read."""

from __future__ import annotations

import dataclasses

from brainmu.causal.grid import epochs_in
from brainmu.causal.hazard import HazardModel, describe_exposure
from brainmu.causal.outcome import Outcome

__all__ = ["contrast_sentence", "coupling_sentence", "hazard_sentence", "matched_sentence", "msm_sentence", "trial_sentence"]


def _window(model: HazardModel, horizon: float, epoch: float) -> str:
    return f"{horizon:g} s that begin {(model.lag + epochs_in(horizon, epoch) - 1) * epoch:g} s before"


def hazard_sentence(model: HazardModel, outcome: Outcome, horizon: float, epoch: float, adjusted: str, animals: str) -> str:
    """Design "hazard"."""
    t = outcome.transition
    return (
        f"By how much does {describe_exposure(model)} in the {_window(model, horizon, epoch)} a {t.source} epoch change the log odds that this epoch is "
        f"followed by {t.target}, at equal time in bout and equal {adjusted}, in {animals}?"
    )


def msm_sentence(model: HazardModel, outcome: Outcome, horizon: float, epoch: float, animals: str) -> str:
    """Design "msm"."""
    t = outcome.transition
    return (
        f"By how much would {describe_exposure(dataclasses.replace(model, count=False))} in the {_window(model, horizon, epoch)} a {t.source} epoch "
        f"change the log odds that this epoch is followed by {t.target}, had it been imposed on all epochs against on none, in {animals}?"
    )


def matched_sentence(model: HazardModel, outcome: Outcome, horizon: float, epoch: float, adjusted: str, animals: str) -> str:
    """Design "matched"; for outcomes that are no transition, `horizon` is how long they are followed."""
    t = outcome.transition
    what = describe_exposure(model)
    after = {0: "with its own end", 1: "with the end of the next epoch"}.get(model.lag, f"with the end of the epoch {model.lag} after its own")
    like = f" and like {adjusted}" if model.adjust else " (and no measured confounder)"
    alike = f"against unexposed epochs of the same animal at the same time in bout{like}, in {animals}?"
    if outcome.kind == "transition":
        return (
            f"Among exposed epochs: by how much does {what} in the {_window(model, horizon, epoch)} a {t.source} epoch change the log odds that this epoch is "
            f"followed by {t.target}, {alike}"
        )
    return (
        f"Among exposed epochs: by how much does {what} in a {t.source} epoch change the {outcome.quantity}, over the {horizon:g} s that begin "
        f"{after}, {t.source} lasting until then, {alike}"
    )


def coupling_sentence(model: HazardModel, outcome: Outcome, horizon: float, epoch: float, adjusted: str, animals: str) -> str:
    """Design "glm"."""
    t = outcome.transition
    what = describe_exposure(dataclasses.replace(model, count=True))
    first = model.lag * epoch
    return (
        f"By how much does {what} change the log odds that a {t.source} epoch is followed by {t.target}, on average over the time since the event "
        f"from {first:g} to {first + horizon:g} s, at equal time in bout and equal {adjusted}, in {animals}?"
    )


def trial_sentence(outcome: Outcome, horizon: float, content: str | None, contrast: tuple[str, str] | None, animals: str, blank: float = 0.0) -> str:
    """Design "trials"."""
    t = outcome.transition
    what = f"a trial assigned{' with content ' + content if content else ''}" if contrast is None else f"a trial of arm {contrast[0]} rather than {contrast[1]}"
    if outcome.kind == "transition":
        return (
            f"How much does {what} during {t.source} change the chance that {t.target} is the first stage reached within "
            f"{horizon:g} s of its onset, whether or not it was delivered, in {animals}?"
        )
    span = f"{blank:g} to {horizon:g} s after" if blank else f"{horizon:g} s from"
    bound = f", counted up to {horizon:g} s from its onset" if outcome.kind == "time" else f" over the {span} its onset"
    return f"How much does {what} during {t.source} change the {outcome.quantity}{bound}, whether or not it was delivered, in {animals}?"


def contrast_sentence(outcome: Outcome, horizon: float, kind: str, pair: tuple[str, str], among: str, animals: str) -> str:
    """Design "trials", one content or arm against another."""
    t = outcome.transition
    what = f"with content {pair[0]} than with content {pair[1]}" if kind == "content" else f"in arm {pair[0]} than in arm {pair[1]}"
    target = f"the chance that {t.target} is the first stage reached" if outcome.kind == "transition" else f"the {outcome.quantity}"
    return f"How much more does a trial assigned during {t.source} change {target} within {horizon:g} s of its onset {what}, {among}, in {animals}?"
