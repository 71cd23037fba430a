"""Attribution maps on the page: what the model used, whether the map passed its checks, and the curves that say so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from brainmu.core import Hypnogram, Recording
from brainmu.errors import BrainmuError
from brainmu.report.html import Report
from brainmu.report.inputs import Material

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["draw_maps"]

_FACTS = {
    "method": "Method:", "baseline": "baseline:", "baseline_stage": "of:", "n_epochs": "epochs explained:", "explains": "explained:",
    "network_agreement": "epochs where the network and the stager agree:", "completeness_error": "completeness error:",
    "share_through_tap": "share that flows through the tap:", "randomised_weights_correlation": "correlation with the map of a network with random weights:",
    "randomised_labels_correlation": "with that of a stager fitted to shuffled labels:", "skill": "AUROC of the stager for the target:",
    "agreement_with": "another method:", "agreement": "rank correlation with its map:",
    "agreement_low": "95 % from", "agreement_high": "to",
    "recovery": "AUROC of the map against what was planted (chance 0.5):", "planted": "planted:",
}  # fmt: skip


def draw_maps(report: Report, material: Material) -> None:
    """A section with every map that was given; nothing where there is none."""
    if not material.maps:
        return
    report.section(
        "What the model used",
        "Attribution says which inputs moved the model's answer for these epochs. It describes the model: it is no evidence that the brain uses the same.",
    )
    for name, maps in material.maps.items():
        owner = material.recordings.get(str(maps.attrs.get("recording"))) or (
            next(iter(material.recordings.values())) if len(material.recordings) == 1 else None
        )
        if len(material.maps) > 1:
            report.subsection(name)
        _verdict(report, name, maps)
        _map(report, name, maps, *_beside(owner, material))


def _verdict(report: Report, name: str, maps: xr.Dataset) -> None:
    verdict = str(maps.attrs.get("verdict", ""))
    if verdict.startswith("failed"):
        reasons = verdict.partition(": ")[2] or "no reason given"
        report.warning(f"{name} FAILED its checks ({reasons}): it is no evidence of what the model used.")
    elif verdict:
        open_ = verdict.partition(": ")[2]
        but = f" Not checked: {open_}." if open_ else ""
        report.verdict(f"{name} passed its checks: the map is of what the model learned, as far as they tell.{but}")
    else:
        report.note(f"{name} was not checked: nothing says whether this map is true.")


def _map(report: Report, name: str, maps: xr.Dataset, hypnogram: Any, events: Any) -> None:
    from brainmu.explain.checks import ATTENTION
    from brainmu.report.figures.explain import attribution_figure, curves_figure

    beside = [k for k, v in maps.data_vars.items() if v.attrs.get("unit") == ATTENTION]
    what = ", ".join(f"{words} {_said(maps.attrs[k])}" for k, words in _FACTS.items() if k in maps.attrs)
    target = f" to {maps.attrs['target']}" if maps.attrs.get("target") else ""
    failed = "FAILED ITS CHECKS. " if str(maps.attrs.get("verdict", "")).startswith("failed") else ""
    parts = "latent and dimension of the tap" if str(maps.attrs.get("method")) == "layer_conductance" else "channel, unit and band"
    caption = (
        f"{failed}{name}: attribution{target} by {parts} (mean over the explained epochs), and over the session. "
        f"Red speaks for the target, blue against it.{f' {what}.' if what else ''}"
    )
    try:
        report.figure(attribution_figure(maps.drop_vars(beside), hypnogram=hypnogram, events=events), caption)
        if "deletion" in maps.attrs and "insertion" in maps.attrs:
            report.figure(
                curves_figure(maps.attrs),
                f"{failed}{name}: log odds of the target left as parts are taken away (deletion) or given back (insertion), the largest share first; 1 is the "
                "whole input, 0 the baseline. A true map falls sooner and rises sooner than random orders do.",
            )  # fmt: skip
        if beside:
            report.figure(attribution_figure(maps[beside], hypnogram=hypnogram), f"{name}: {maps.attrs.get('attention_note', 'attention rollout')}.")
    except BrainmuError as error:
        report.note(str(error))


def _said(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, (float, np.floating)) else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _beside(recording: Recording | None, material: Material) -> tuple[Any, Any]:
    """The hypnogram and the events to draw beside a map: those given for the recording, else its labels."""
    if recording is None:
        return None, None
    hypnograms = {k: v for k, v in recording.labels.items() if isinstance(v, Hypnogram)} | material.of("hypnograms", recording)
    events = material.of("events", recording)
    return next(iter(hypnograms.values()), None), next((e for e in events.values() if len(e)), None)
