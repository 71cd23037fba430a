"""The parts of a report that draw one recording: overview, sleep, events, place and replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Spikes
from brainmu.errors import BrainmuError
from brainmu.report.figures.events import best_examples, events_figure, snippet_figure
from brainmu.report.figures.overview import overview_figure
from brainmu.report.figures.reading import pick_channel
from brainmu.report.figures.replay import decoding_figure, fields_figure, replay_figure, track_figure
from brainmu.report.figures.sleep import hypnogram_figure, sleep_structure_figure, staging_figure
from brainmu.report.html import Report

__all__ = ["draw_events_alone", "draw_recording", "draw_sleep_alone"]

_BANDS = {"ripple": (150.0, 250.0), "replay": (150.0, 250.0), "burst": (150.0, 250.0), "spindle": (9.0, 16.0), "slow_wave": (0.3, 4.0)}
_PADS = {"spindle": 1.0, "slow_wave": 1.0}
_SIGNAL_KINDS = ("ripple", "burst", "hse", "spindle", "slow_wave", "replay", "assembly")
Heading = Callable[..., None]


def draw_recording(report: Report, recording: Recording, material: Any, heading: Heading) -> None:
    """Every picture of one recording and of the results that belong to it."""
    hypnograms = {k: v for k, v in recording.labels.items() if isinstance(v, Hypnogram) and len(v)} | material.of("hypnograms", recording)
    labelled = {k: v for k, v in recording.labels.items() if isinstance(v, EventTable) and len(v)}
    events = labelled | material.of("events", recording)
    _overview(report, recording, hypnograms, events, heading)
    _sleep(report, recording, hypnograms, heading)
    contexts = _contexts(report, recording, heading)
    _events(report, recording, events, contexts, heading)


def _overview(report: Report, recording: Recording, hypnograms: Mapping[str, Hypnogram], events: Mapping[str, EventTable], heading: Heading) -> None:
    heading("The session")
    _try(
        report, lambda: overview_figure(recording),
        f"{recording.id}: the whole session on one clock. Voltages show their RMS, other streams their mean; hatched where a stream holds nothing. "
        "Below: the labels that came with the recording.",
    )  # fmt: skip
    _clocks(report, recording)
    start, stop = _busy_moment(recording, hypnograms, events)
    table = next((e for e in events.values() if len(e) and str(e.kind[0]) in _SIGNAL_KINDS), None)
    _try(
        report, lambda: snippet_figure(recording, start, stop, events=table, hypnogram=next(iter(hypnograms.values()), None)),
        f"{recording.id}: {stop - start:g} s of raw data, unfiltered{', with the events found shaded' if table is not None else ''}.",
    )  # fmt: skip


def _clocks(report: Report, recording: Recording) -> None:
    """What the maps of the recording's clocks are worth, where it had several."""
    fitted = {k: c for k, c in recording.clocks.items() if isinstance(c, dict) and "breakpoints" in c}
    if not fitted:
        return
    rows = [
        (
            name, ", ".join(c["streams"]), f"{c['offset']:+.4f}", f"{c['ppm']:+.2f}", f"{1e3 * c['drift']:+.1f}" if "drift" in c else "as given",
            "; ".join(f"{1e3 * j['size']:+.1f} ms at {j['at']:.0f} s" for j in c["jumps"][:4]) or "none",
            f"{c['matched']} of {c['pulses']}" if "matched" in c else "", f"{c['residual_rms_us']:.0f} / {c['residual_max_us']:.0f}" if "matched" in c else "",
        )
        for name, c in fitted.items()
    ]  # fmt: skip
    columns = ("clock", "streams", "offset (s)", "ppm", "drift (ms)", "jumps", "pulses matched", "residual RMS / largest (us)")
    report.table(rows, columns=columns, caption=f"{recording.id}: clocks that were brought to the session's, by their sync pulses.")


def _busy_moment(recording: Recording, hypnograms: Mapping[str, Hypnogram], events: Mapping[str, EventTable], length: float = 6.0) -> tuple[float, float]:
    """Six seconds around an event where there is one, else in NREM, else in the middle of the session."""
    centre = (recording.start + recording.stop) / 2
    found = next((e for e in events.values() if len(e) and str(e.kind[0]) in _SIGNAL_KINDS), None)
    spans = next((h.intervals("NREM") for h in hypnograms.values() if h.mask("NREM").any()), None)
    if found is not None:
        centre = float(found.peak[best_examples(found, 1)[0]])
    elif spans is not None:
        longest = int(np.argmax(spans.stop - spans.start))
        centre = float((spans.start[longest] + spans.stop[longest]) / 2)
    a = max(recording.start, min(centre - length / 2, recording.stop - length))
    return a, min(a + length, recording.stop)


# -- sleep ------------------------------------------------------------------------------------------------------------------
def _sleep(report: Report, recording: Recording, hypnograms: Mapping[str, Hypnogram], heading: Heading) -> None:
    if not hypnograms and pick_channel(recording) is None:
        return
    heading("Sleep" if hypnograms else "Spectrogram")
    channel = pick_channel(recording)
    over = f"over the spectrogram of {channel[0]}" if channel else "(no LFP or EEG channel for a spectrogram)"
    names = " and ".join(hypnograms) if hypnograms else "no hypnogram"
    _try(
        report, lambda: hypnogram_figure(recording, hypnograms),
        f"{recording.id}: {names} {over}. Colours name stages throughout this page; pale columns have no signal." if hypnograms
        else f"{recording.id}: power in time and frequency; pale columns have no signal.",
    )  # fmt: skip
    if not hypnograms:
        report.note("No hypnogram was given and the recording has none: stage it first (brainmu stage), and pass the file to the report.")
        return
    _structure(report, recording.id, hypnograms)
    if len(hypnograms) > 1:
        (first, true), *others = hypnograms.items()
        for name, h in others[:3]:
            _try(
                report, lambda name=name, h=h, first=first, true=true: staging_figure(true, h, (first, name)),  # type: ignore[misc]
                f"{recording.id}: {name} against {first}, on the epochs that both score. Rows of a sum to 100 %; counts below. The fractions of stages can "
                "be wrong although κ is high, so their bias stands beside it.",
            )  # fmt: skip


def _structure(report: Report, who: str, hypnograms: Mapping[str, Hypnogram]) -> None:
    _try(
        report, lambda: sleep_structure_figure(hypnograms),
        f"{who}: share of each stage, how long bouts last (share of bouts longer than the time given), and how often a stage gave way to another.",
    )  # fmt: skip


def draw_sleep_alone(report: Report, hypnograms: Mapping[str, Hypnogram]) -> None:
    """Hypnograms whose recording was not given."""
    report.note("The recordings of these hypnograms were not given, so there is no spectrogram: " + ", ".join(hypnograms) + ".")
    from brainmu.core import Recording as Bare

    for name, h in hypnograms.items():
        _try(report, lambda h=h, name=name: hypnogram_figure(Bare(name.replace("/", "_")), {name: h}), f"{name}: hypnogram.")  # type: ignore[misc]
    _structure(report, ", ".join(hypnograms), hypnograms)


# -- place and replay -------------------------------------------------------------------------------------------------------
def _contexts(report: Report, recording: Recording, heading: Heading) -> dict[str, Any]:
    """Place fields along the track of each context, drawn; empty where the recording does not allow them."""
    if recording.spikes is None or not len(recording.spikes) or not recording.signals_of("position"):
        return {}
    from brainmu.replay.contexts import fit_contexts
    from brainmu.replay.decode import units_and_position

    heading("Place and decoding")
    try:
        spikes, position = units_and_position(recording)
        contexts, how = fit_contexts(recording, spikes, position)
    except BrainmuError as error:
        report.note(f"Place fields: {error}")
        return {}
    report.text("" if how in ("labels", "given") else f"Running epochs: {how}.")
    _try(
        report, lambda: track_figure(contexts),
        f"{recording.id}: the track found from where the animal ran (left, its cells coloured by the coordinate), and the animal along it (right). A "
        "coordinate that jumps would spoil every field and every decoded event.",
    )  # fmt: skip
    _try(
        report, lambda: fields_figure({k: c.fields for k, c in contexts.items()}),
        f"{recording.id}: place fields of every unit along the track, each over its own peak rate, sorted by the place of the peak. Fields that tile the "
        "track are what decoding rests on.",
    )  # fmt: skip
    _decoding(report, recording, spikes, contexts)
    return contexts


def _decoding(report: Report, recording: Recording, spikes: Spikes, contexts: Mapping[str, Any]) -> None:
    """Replay read with a decoder that cannot decode is noise: the error comes first."""
    from brainmu.replay.decode import cross_validated_error

    try:
        error = cross_validated_error(recording)
    except BrainmuError as problem:
        report.note(f"Decoding error: {problem}")
        return
    context = max(contexts.values(), key=lambda c: c.ran.duration)
    _try(
        report, lambda: decoding_figure(*_held_out(spikes, context), unit=context.fields.unit, bin_size=0.25, folds=5),
        f"{recording.id}: position along the track{f' of {context.name}' if len(contexts) > 1 else ''}, decoded from spikes alone in 250 ms bins of "
        "running that the fields had not seen. Chance sets the same decoded positions against other moments. The error below is the one to quote: it is "
        "in the room rather than along the track, over all contexts, and its decoder also knows how fast the animal moves.",
    )  # fmt: skip
    report.facts({
        f"median decoding error ({error['unit'] or 'unit unknown'})": error["median"], "by chance": error["chance"], "quality": error["quality"],
        "bins": error["n_bins"], "bin (s)": error["bin_size"], "folds": error["folds"], "units": error["n_units"],
    })  # fmt: skip
    if error["quality"] == "poor":
        report.warning("The decoder does hardly better than chance while the animal runs: what it reads out of rest is not to be trusted.")


def _held_out(spikes: Spikes, context: Any, folds: int = 5, seconds: float = 0.25) -> tuple[Any, Any]:
    """True and decoded position along the track (bin,): each fifth of the running decoded with the fields of the others."""
    from brainmu.replay.decode import bins_within, counts_in, decode
    from brainmu.replay.fields import place_fields

    bins = bins_within(context.ran, seconds)
    true, decoded = [], []
    for part in np.array_split(bins, folds):
        span = Intervals([[part[0, 0], part[-1, 1]]])
        fields = place_fields(spikes, context.position, context.ran.subtract(span), smoothing=context.fields.smoothing, edges=context.fields.edges)
        p = decode(counts_in(spikes, part), fields, part[:, 1] - part[:, 0], prior="occupancy")
        decoded.append(fields.points[p.argmax(1), 0])
        true.append(context.position.at(part.mean(1))[:, 0])
    return np.concatenate(true), np.concatenate(decoded)


# -- events -----------------------------------------------------------------------------------------------------------------
def _events(report: Report, recording: Recording, events: Mapping[str, EventTable], contexts: Mapping[str, Any], heading: Heading) -> None:
    drawn = {k: e for k, e in events.items() if len(e) and (str(e.kind[0]) in _SIGNAL_KINDS or {"score", "p_value"} & set(e.columns))}
    empty = [k for k, e in events.items() if not len(e)]
    if drawn or empty:
        heading("Events and replay")
        report.note(*(f"{k}: no event was found." for k in empty))
    for name, table in drawn.items():
        kind = str(table.kind[0])
        report.text(_rate_words(name, table))
        report.warning(_doubt(name, table))
        posteriors = _posteriors(recording, table, contexts) if kind in ("replay", "ripple", "burst") else {}
        order = _place_order(contexts)
        examples = "of lowest p-value" if "p_value" in table.columns else "of highest score" if "score" in table.columns else "that come first"
        _try(
            report,
            lambda t=table, kind=kind, o=order, p=posteriors: events_figure(  # type: ignore[misc]
                recording, t, band=_BANDS.get(kind, (150.0, 250.0)), order=o, posteriors=p, pad=_PADS.get(kind, 0.1)),
            f"{recording.id}, {name}: the events {examples} (n = {len(table)} in all), so the clearest and not the typical ones. From above: raw trace, "
            "filtered band, spikes, decoded position; what there is of them.",
        )  # fmt: skip
        if "p_value" in table.columns or kind == "replay":
            _try(
                report, lambda t=table: replay_figure(t),  # type: ignore[misc]
                f"{recording.id}, {name}: all {len(table)} events. Without any replay the p-values would lie evenly along the dashed line.",
            )  # fmt: skip


def _rate_words(name: str, table: EventTable) -> str:
    kind = str(table.kind[0]).replace("_", " ")
    out = f"{name}: {len(table)} {kind} event{'s' if len(table) != 1 else ''}, median length {1e3 * float(np.median(table.duration)):.0f} ms"
    rate, noise = (table.attrs.get(k) for k in ("rate", "surrogate_rate"))
    if kind == "replay" and "candidates" in table.attrs:
        out += f"; candidates: {table.attrs['candidates']}"
    if isinstance(rate, (int, float)):
        out += f", {rate:.2f} a minute"
    if isinstance(noise, (int, float)):
        out += f"; the same detector finds {noise:.2f} a minute in noise of the same spectrum"
    return out + "."


def _doubt(name: str, table: EventTable) -> str:
    """A warning where the detector finds about as much in noise."""
    rate, noise = (table.attrs.get(k) for k in ("rate", "surrogate_rate"))
    if not isinstance(rate, (int, float)) or not isinstance(noise, (int, float)) or noise < 0.5 * rate:
        return ""
    what = "candidates" if str(table.kind[0]) == "replay" else "events"
    return f"{name}: the detector finds {noise:.1f} {what} a minute in noise of the same spectrum and {rate:.1f} here, so most of these {what} may be noise."


def _place_order(contexts: Mapping[str, Any]) -> Any:
    """Units by the place of their field in each context: cells remap, so an event is sorted by the fields of what it was of."""
    return {k: c.fields.units[np.argsort(c.fields.peak[:, 0], kind="stable")] for k, c in contexts.items()} or None


def _posteriors(recording: Recording, table: EventTable, contexts: Mapping[str, Any]) -> dict[int, xr.DataArray]:
    """Decoded position of the example events, in the context that each names (the first where it names none)."""
    if not contexts:
        return {}
    from brainmu.replay.sequences import posterior

    out = {}
    for row in best_examples(table, 40):
        context = contexts.get(str(table.content[row]), next(iter(contexts.values())))
        p = posterior(recording, float(table.start[row]), float(table.stop[row]), context, bin_size=0.01 if str(table.kind[row]) == "ripple" else 0.02)
        if p.sizes["time"] >= 2:
            out[int(row)] = p
    return out


def draw_events_alone(report: Report, events: Mapping[str, EventTable]) -> None:
    """Event tables whose recording was not given."""
    report.note("The recordings of these events were not given, so no example is drawn: " + ", ".join(events) + ".")
    for name, table in events.items():
        if not len(table):
            report.note(f"{name}: no event was found.")
            continue
        _try(report, lambda t=table: replay_figure(t), f"{name}: all {len(table)} events.")  # type: ignore[misc]


def _try(report: Report, draw: Callable[[], Any], caption: str) -> None:
    """A figure, or the reason why there is none."""
    try:
        figure = draw()
    except BrainmuError as error:
        report.note(str(error))
        return
    report.figure(figure, caption)
