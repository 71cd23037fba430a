"""From whatever was given to one page: what is there is drawn, what is lacking is said."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from brainmu._version import __version__
from brainmu.core import Effect, EventTable, Hypnogram, Recording
from brainmu.core.effect import LEVELS, jsonable
from brainmu.errors import BrainmuError
from brainmu.report.html import Report, check_output
from brainmu.report.inputs import Material, gather
from brainmu.report.maps import draw_maps

__all__ = ["compose_report", "write_report"]

Progress = Callable[[str, float], None]

_MOST_RECORDINGS = 4
"""Recordings that are drawn in full; of a larger study the others stand in the table."""


def write_report(
    paths_or_objects: Any, out: str | Path, *, title: str | None = None, overwrite: bool = False, progress: Progress | None = None,
) -> Path:  # fmt: skip
    """Write one HTML file that shows everything given.

    Parameters
    ----------
    paths_or_objects : path, object, or an iterable or mapping (name to either) of them
        Stores (paths or opened), recordings, hypnograms (``.tsv``, ``.npz``, ``.edf``), event tables (``.tsv``), effects (``.json``), attribution
        maps (``.nc``, zarr folders, xarray), training runs and stagers (folders), planted-against-found tables. Hypnograms and events belong to
        the recording whose id begins their name, or to the only one.
    out : path
        A ``.html`` file. It needs no network and no other file, and appears whole or not at all.
    title : str or None
    overwrite : bool
        Replace an existing file.
    progress : callable(stage, fraction) or None

    Returns
    -------
    Path

    Raises
    ------
    OutputExistsError
        If `out` exists and `overwrite` is false.
    NotFoundError, FormatError, InputError
        If something given does not exist or cannot be read; nothing is written then.

    Examples
    --------
    >>> write_report(["m1.zarr", "m1_hypnogram.tsv", "effect.json"], "m1.html")  # doctest: +SKIP
    """
    # Told before minutes of work, not after.
    path = check_output(out, overwrite)
    report = compose_report(paths_or_objects, title=title, progress=progress)
    return report.write(path, overwrite=overwrite)


def compose_report(paths_or_objects: Any, *, title: str | None = None, progress: Progress | None = None) -> Report:
    """The :class:`Report` that :func:`write_report` writes, for adding sections of one's own first."""
    say = progress or (lambda _stage, _fraction: None)
    say("read", 0.0)
    material = gather(paths_or_objects)
    report = Report(title or _title(material), lead=_lead(material))
    _at_a_glance(report, material)
    _recordings(report, material, say)
    say("results", 0.8)
    _orphans(report, material)
    _training(report, material)
    draw_maps(report, material)
    _effects(report, material)
    say("provenance", 0.95)
    _provenance(report, material)
    say("done", 1.0)
    return report


def _title(material: Material) -> str:
    ids = list(material.recordings)
    if len(ids) == 1:
        return ids[0]
    return f"{len(ids)} recordings" if ids else "Results"


def _lead(material: Material) -> str:
    parts = []
    recordings = list(material.recordings.values())
    if recordings:
        animals = len({r.subject or r.id for r in recordings})
        hours = sum(r.duration for r in recordings) / 3600
        length = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
        species = ", ".join(sorted({r.species for r in recordings} - {""}))
        many = f"{len(recordings)} recordings of {animals} subject{'s' if animals > 1 else ''}" if len(recordings) > 1 else "One recording"
        parts.append(f"{many}{f' ({species})' if species else ''}, {length} in all.")
    for n, what in ((len(material.hypnograms), "hypnogram"), (len(material.events), "event table"), (len(material.maps), "attribution map"),
                    (len(material.runs), "trained model"), (len(material.effects), "effect")):  # fmt: skip
        if n:
            parts.append(f"{n} {what}{'s' if n > 1 else ''}.")
    return " ".join(parts)


# -- at a glance ------------------------------------------------------------------------------------------------------------
def _at_a_glance(report: Report, material: Material) -> None:
    report.section("At a glance")
    for effect in sorted(material.effects.values(), key=lambda e: LEVELS.index(e.level)):
        report.verdict(effect_sentence(effect))
    if material.comparison:
        report.comparison(material.comparison, caption="What was planted in the synthetic recording, and what the analyses found without being told.")
    if material.recordings:
        rows = [_row(r, material) for r in material.recordings.values()]
        columns = ["recording", "subject", "species", "length (min)", "signals", "units", "hypnograms", "event tables"]
        report.table(rows, columns=columns, caption="Recordings, and what each holds; results given beside a recording are counted with it.")
        report.warning(*(f"{r.id}: {w}" if len(material.recordings) > 1 else w for r in material.recordings.values() for w in r.warnings))
        report.note(*(_lacks(r) for r in list(material.recordings.values())[:_MOST_RECORDINGS]))


def _row(r: Recording, material: Material) -> list[Any]:
    kinds = [
        f"{s.n_channels} {'/'.join(dict.fromkeys(s.channels['kind']))} ({'irregular' if s.rate is None else f'{s.rate:g} Hz'})" for s in r.signals.values()
    ]
    hypnograms = [k for k, v in r.labels.items() if isinstance(v, Hypnogram)] + list(material.of("hypnograms", r))

    tables = [k for k, v in r.labels.items() if isinstance(v, EventTable)] + list(material.of("events", r))
    units = r.spikes.n_units if r.spikes is not None else "–"
    return [
        r.id,
        r.subject or "–",
        r.species or "–",
        round(r.duration / 60, 1),
        "; ".join(kinds) or "–",
        units,
        ", ".join(hypnograms) or "–",
        ", ".join(tables) or "–",
    ]


def _lacks(r: Recording) -> str:
    """What the recording does not hold, and what therefore cannot be drawn."""
    kinds = {k for s in r.signals.values() for k in s.channels["kind"]}
    absent = []
    if not kinds & {"lfp", "eeg"}:
        absent.append("LFP or EEG (no spectrogram, ripples or spindles)")
    if "emg" not in kinds:
        absent.append("EMG")
    if r.spikes is None or not len(r.spikes):
        absent.append("spikes (no decoding)")
    if "position" not in kinds:
        absent.append("position (no place fields)")
    if not any(isinstance(v, Hypnogram) for v in r.labels.values()):
        absent.append("hypnogram of its own")
    return f"{r.id} holds no {'; no '.join(absent)}." if absent else ""


def effect_sentence(effect: Effect) -> str:
    """The effect in one sentence: the verdict of its diagnostics, or its estimand with the numbers."""
    verdict = effect.diagnostics.get("verdict")
    if isinstance(verdict, str) and verdict:
        return verdict
    level = {"model": "in the model", "observational": "observational", "experimental": "randomised"}[effect.level]
    numbers = f"{effect.estimate:+.3g} [{effect.low:+.3g}, {effect.high:+.3g}]".replace("-", "−")
    p = f", p = {effect.p_value:.2g}" if np.isfinite(effect.p_value) else ""
    counts = ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for n, what in ((effect.n_units, "animal"), (effect.n_events, "event")))
    return f"{effect.estimand.rstrip('.?')}: {numbers} {effect.unit} ({level}{p}; {counts})."


# -- recordings -------------------------------------------------------------------------------------------------------------
def _recordings(report: Report, material: Material, say: Progress) -> None:
    from brainmu.report.sections import draw_recording

    shown = list(material.recordings.values())[:_MOST_RECORDINGS]
    for i, recording in enumerate(shown):
        say(f"draw {recording.id}", 0.05 + 0.7 * i / len(shown))
        single = len(material.recordings) == 1
        if not single:
            report.section(recording.id)
        draw_recording(report, recording, material, heading=report.section if single else report.subsection)
    if len(material.recordings) > len(shown):
        others = list(material.recordings)[len(shown) :]
        report.note(f"{len(others)} more recordings are in the table above and not drawn ({', '.join(others[:12])}{', …' if len(others) > 12 else ''}).")


def _orphans(report: Report, material: Material) -> None:
    """Hypnograms and events without their recording: what can be drawn of them alone."""
    from brainmu.report.sections import draw_events_alone, draw_sleep_alone

    hypnograms, events = material.orphans("hypnograms"), material.orphans("events")
    if hypnograms:
        report.section("Sleep")
        draw_sleep_alone(report, hypnograms)
    if events:
        report.section("Events")
        draw_events_alone(report, events)


# -- results ----------------------------------------------------------------------------------------------------------------
def _training(report: Report, material: Material) -> None:
    from brainmu.report.figures.training import training_figure

    if not material.runs:
        return
    report.section("Trained models")
    for name, run in material.runs.items():
        if len(material.runs) > 1:
            report.subsection(name)
        if run.metrics is not None:
            caption = (
                f"{name}: loss by target during training. Held-out loss is what counts; the dashed line is what a prediction "
                "without any learning reaches, so a loss that does not fall below it has learned nothing of that target."
            )
            if run.held_out:
                predictors = list(dict.fromkeys(k for row in run.held_out.values() for k in row))
                rows = [[target, *(row.get(k, float("nan")) for k in predictors)] for target, row in run.held_out.items()]
                words = "Loss on hidden parts of held-out data; lower is better. What stands beside the model costs nothing to predict."
                report.table(rows, columns=["target", *predictors], caption=words)
            try:
                report.figure(training_figure(run.metrics, run.held_out), caption)
            except BrainmuError as error:
                report.note(str(error))
        if run.config:
            report.details(f"Configuration of {name}", run.config)


_LEVELS = {
    "experimental": ("Randomised trials", "What was assigned was drawn by lot, so the difference between the arms is caused by the assignment."),
    "observational": ("Observed effects", "Nothing was assigned: the number means what it says only if the assumptions hold."),
    "model": (
        "Interventions in the model",
        "The model's input was edited and its prediction read again. Effects in the model say nothing of a brain by themselves.",
    ),
}


def _effects(report: Report, material: Material) -> None:
    for level, (heading, words) in _LEVELS.items():
        found = {k: e for k, e in material.effects.items() if e.level == level}
        if found:
            report.section(heading, words)
        for name, effect in found.items():
            if len(found) > 1:
                report.subsection(name)
            _effect(report, name, effect)


def _effect(report: Report, name: str, effect: Effect) -> None:
    from brainmu.report.figures.effects import effect_figure, intervention_figure

    if effect.diagnostics.get("verdict"):
        report.text(effect.estimand)
    report.verdict(effect_sentence(effect))
    null = {
        "experimental": "Grey: the estimate under every re-drawn assignment, as if it had no effect.",
        "model": "Grey: the same estimate from placebo edits of equal size. Nothing here is an effect in a brain.",
        "observational": "",
    }[effect.level]
    try:
        figure = intervention_figure(effect) if effect.level == "model" else effect_figure(effect)
        report.figure(figure, f"{name}: point and bar are the estimate and its 95 % interval ({effect.unit}). {null if len(effect.null) else ''}".strip())
    except BrainmuError as error:
        report.note(str(error))
    report.facts({
        "level of evidence": effect.level, "scale": effect.scale or effect.unit, "animals": effect.n_units, "events": effect.n_events,
        "exposed": effect.n_exposed or None, "transitions": effect.n_transitions or None, "horizon (s)": effect.horizon, "lag (epochs)": effect.lag,
        "regime": effect.regime, "population": effect.population, "at risk": effect.risk_set,
    })  # fmt: skip
    warnings = effect.diagnostics.get("warnings")
    report.warning(*(warnings if isinstance(warnings, (list, tuple)) else ()))
    if effect.assumptions:
        report.details("It holds if", "\n".join(f"- {a}" for a in effect.assumptions))
    if effect.diagnostics:
        report.details("All diagnostics", jsonable(_shortened(effect.diagnostics)))


def _shortened(value: Any, most: int = 12) -> Any:
    """Long arrays cut to their head, and said so: a page is for reading."""
    if isinstance(value, dict):
        return {k: _shortened(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)) and len(value) > most and all(np.ndim(v) == 0 and not isinstance(v, dict) for v in value):
        return [*list(value[:most]), f"… {len(value)} in all"]
    return [_shortened(v) for v in value] if isinstance(value, (list, tuple)) else value


# -- provenance -------------------------------------------------------------------------------------------------------------
def _provenance(report: Report, material: Material) -> None:
    report.section("Provenance", "What this page was made from, so that it can be made again.")
    for r in material.recordings.values():
        given = getattr(r, "provenance", None)
        known = dict(given) if isinstance(given, dict) and given else {k: v for k, v in r.source.items() if k != "warnings"}
        report.details(f"{r.id}: sources and configuration", _without_folders(jsonable(known)) or {"format": "arrays in memory"})
    for name, table in material.events.items():
        if table.attrs:
            report.details(f"{name}: how these events were found", _shortened(jsonable(table.attrs)))
    report.details("Versions", _versions())


def _without_folders(value: Any) -> Any:
    """File names without the folders of this machine."""
    if isinstance(value, dict):
        return {k: _without_folders(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_folders(v) for v in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") and "\n" not in value else value


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    out = {"brainmu": __version__, "python": platform.python_version()}
    for name in ("numpy", "scipy", "pandas", "xarray", "zarr", "matplotlib", "torch"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out
