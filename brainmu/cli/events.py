"""brainmu events: ripples, bursts, high-synchrony events, spindles, slow waves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_session, progress, refuse_existing, warn

if TYPE_CHECKING:
    from brainmu.core import EventTable

COMMON = Common()


def events(
    store: Annotated[Path, Parameter(help="A store (*.zarr).")],
    /,
    *,
    kind: Annotated[
        Literal["ripple", "burst", "hse", "spindle", "slow_wave"],
        Parameter(help="What to find; burst is a population burst of spikes, hse a high-synchrony event: many distinct units at once."),
    ],
    out: Annotated[Path, Parameter(help="Events as BIDS events.tsv (onset, duration in s, then peak, score, ...).")],
    within: Annotated[str | None, Parameter(help="Only inside this label of the store (epochs), or inside a stage of its hypnogram, such as NREM.")] = None,
    channels: Annotated[
        list[str] | None, Parameter(help="Channels to look in (default: chosen by themselves, and said).", consume_multiple=True, negative="")
    ] = None,
    threshold: Annotated[
        float | None, Parameter(help="Threshold in SD of the baseline; of slow waves in means of all half-waves (default: set by the detector).")
    ] = None,
    false_rate: Annotated[
        float | None,
        Parameter(help="Ripples, bursts, hse: set the threshold so that surrogates (noise of the same spectrum; shifted trains) give this many a minute."),
    ] = None,
    per_channel: Annotated[bool, Parameter(negative="", help="Ripples of every channel by itself, in a column channel.")] = False,
    emg: Annotated[float | None, Parameter(help="Ripples, bursts, hse: leave out where the EMG lies so many robust SDs above its baseline.")] = None,
    artefacts: Annotated[
        list[str] | None,
        Parameter(
            help="Ripples, bursts, hse: labels of what to leave out, or none (default: labels artefact(s), artifact(s) and bad).",
            consume_multiple=True,
            negative="",
        ),
    ] = None,
    hypnogram: Annotated[Path | None, Parameter(help="A hypnogram file to use instead of the store's.")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace an existing file.")] = False,
    common: Common = COMMON,
) -> int:
    """Ripples, population bursts, high-synchrony events, spindles and slow waves.

    The rate found in surrogates of the same recording stands beside the rate found.

    For example:

    brainmu events m1.zarr --kind ripple --within NREM --out m1_ripples.tsv

    brainmu events m1.zarr --kind hse --false-rate 0.5 --artefacts twitches bad --out m1_hse.tsv
    """
    import brainmu.replay
    import brainmu.sleep

    options = _options(kind, channels, threshold, false_rate, per_channel, emg, artefacts)
    refuse_existing(out, overwrite)
    session = open_session(store)
    scored = brainmu.sleep.read_hypnogram(hypnogram) if hypnogram else None
    spans = _spans(session, within, scored)
    if scored is not None:
        options["hypnogram"] = scored
    with progress(common, f"find {kind}s") as report:
        found = brainmu.replay.find_events(session, kind=kind, within=spans, seed=common.seed, progress=report, **options)
    found.to_bids(out)
    # What was left out was not looked at: the rate stands beside that of surrogates, which have no movement.
    looked = float(found.attrs.get("seconds", spans.duration if spans is not None else session.duration))
    rate = len(found) / looked * 60 if looked else float("nan")
    result = {"out": str(out), "kind": kind, "n": len(found), "rate_per_min": rate, "looked_at_s": looked, **found.attrs}
    text = [f"{len(found)} {kind} events in {looked / 60:.1f} min: {rate:.2f} / min"]
    if "surrogate_rate" in found.attrs:
        text += _beside_surrogates(kind, found)
    if len(found):
        d = found.duration * 1000
        text.append(f"duration median {sorted(d)[len(d) // 2]:.0f} ms, {d.min():.0f} to {d.max():.0f} ms")
    if "polarity_by" in found.attrs:
        text.append(f"down state: {found.attrs['polarity']} ({found.attrs['polarity_by']})")
    lost = {k: v for k, v in found.attrs.get("vetoed_seconds", {}).items() if v}
    if lost:
        text.append("left out: " + ", ".join(f"{k} {v:.1f} s" for k, v in lost.items()))
    if "baseline" in found.attrs:
        text.append(f"baseline: {found.attrs['baseline']}")
    warn(common, list(found.attrs.get("warnings", [])))
    emit(common, result, "\n".join(text))
    note(common, f"wrote {out}")
    return 0


def _options(
    kind: str, channels: list[str] | None, threshold: float | None, false_rate: float | None, per_channel: bool, emg: float | None, artefacts: list[str] | None
) -> dict[str, Any]:
    """What was asked for, as find_events takes it."""
    from brainmu.errors import UsageError

    for name, value in (("threshold", threshold), ("false-rate", false_rate), ("emg", emg)):
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name} is {value:g}, expected a positive number")
    if per_channel and kind != "ripple":
        raise UsageError(f"--per-channel is for ripples, not for --kind {kind}: leave it out")
    if kind in ("spindle", "slow_wave"):
        for name, value in (("false-rate", false_rate), ("emg", emg), ("artefacts", artefacts)):
            if value is not None:
                raise UsageError(f"--{name} is for ripples, bursts and high-synchrony events, not for --kind {kind}: leave it out")
    if kind in ("burst", "hse") and channels is not None:
        raise UsageError(f"--channels is for events of the LFP, not for --kind {kind}: leave it out")
    if threshold is not None and false_rate is not None:
        raise UsageError("--threshold and --false-rate both given, expected one: the false rate sets the threshold")
    if artefacts is not None and "none" in artefacts:
        if len(artefacts) > 1:
            raise UsageError(f"--artefacts {' '.join(artefacts)}: expected labels, or none alone")
        artefacts = []
    given = {"channels": channels, "threshold": threshold, "false_rate": false_rate, "emg": emg, "artefacts": artefacts, "per_channel": per_channel or None}
    return {k: v for k, v in given.items() if v is not None}


def _beside_surrogates(kind: str, found: EventTable) -> list[str]:
    """The rate in surrogates, by channel where each was searched by itself."""
    what = "trains shifted by their own draws" if kind in ("burst", "hse") else "noise of the same spectrum"
    rate, beyond = found.attrs["surrogate_rate"], found.attrs.get("surrogate_rate_beyond")
    if not isinstance(rate, dict):
        return [f"in {what}: {rate:.2f} / min{_outside(beyond)}{_precision(found.attrs.get('precision'), found.attrs.get('precision_interval'))}"]
    precision, interval = (found.attrs.get(k) or {} for k in ("precision", "precision_interval"))
    return [
        f"{name}: {found.attrs['rate'][name]:.2f} / min; in {what}: {r:.2f} / min{_outside(beyond and beyond[name])}"
        f"{_precision(precision.get(name), interval.get(name))}"
        for name, r in rate.items()
    ]


def _outside(rate: float | None) -> str:
    return "" if rate is None else f" ({rate:.2f} outside the baseline)"


def _precision(share: float | None, interval: tuple[float, float] | None) -> str:
    return "" if share is None or interval is None else f", so precision {share:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"


def _spans(session, within: str | None, scored):
    """Intervals to look in: a label of epochs, or the spans of a stage; None for the whole session."""
    from brainmu.core import Hypnogram, Intervals
    from brainmu.errors import MissingDataError

    if within is None:
        return None
    label = session.labels.get(within)
    if isinstance(label, Intervals):
        return label
    # As find_events chooses its baseline: the recording's own scoring before what other labels say.
    by_name = sorted((k != "scoring", i, v) for i, (k, v) in enumerate(session.labels.items()) if isinstance(v, Hypnogram))
    hypnograms = [scored] if scored is not None else [v for _, _, v in by_name]
    if within in ("WAKE", "NREM", "REM", "W", "N1", "N2", "N3", "R") and hypnograms:
        return hypnograms[0].intervals(within)
    have = [k for k, v in session.labels.items() if isinstance(v, Intervals)]
    stages = "a stage such as NREM" if hypnograms else "no stage, as there is no hypnogram (stage it first, or pass --hypnogram)"
    raise MissingDataError(f"{session.id}: --within {within} is not a label of epochs; there are {', '.join(have) or 'none'}, and {stages}")
