"""brainmu events: ripples, bursts, spindles, slow waves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_sessions, progress, refuse_existing, warn

COMMON = Common()


def events(
    store: Annotated[Path, Parameter(help="A store (*.zarr).")],
    /,
    *,
    kind: Annotated[Literal["ripple", "burst", "spindle", "slow_wave"], Parameter(help="What to find; burst is a population burst of spikes.")],
    out: Annotated[Path, Parameter(help="Events as BIDS events.tsv (onset, duration in s, then peak, score, ...).")],
    within: Annotated[str | None, Parameter(help="Only inside this label of the store (epochs), or inside a stage of its hypnogram, such as NREM.")] = None,
    channels: Annotated[
        list[str] | None, Parameter(help="Channels to look in (default: chosen by themselves, and said).", consume_multiple=True, negative="")
    ] = None,
    threshold: Annotated[
        float | None, Parameter(help="Threshold in SD of the baseline; of slow waves in means of all half-waves (default: set by the detector).")
    ] = None,
    false_rate: Annotated[float | None, Parameter(help="Ripples: set the threshold so that noise of the same spectrum gives this many a minute.")] = None,
    hypnogram: Annotated[Path | None, Parameter(help="A hypnogram file to use instead of the store's.")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace an existing file.")] = False,
    common: Common = COMMON,
) -> int:
    """Ripples, population bursts, spindles and slow waves.

    The rate found in noise of the same spectrum stands beside the rate found.

    For example:

    brainmu events m1.zarr --kind ripple --within NREM --out m1_ripples.tsv
    """
    import brainmu.replay
    import brainmu.sleep
    from brainmu.errors import UsageError

    refuse_existing(out, overwrite)
    session = open_sessions([store])[0]
    scored = brainmu.sleep.read_hypnogram(hypnogram) if hypnogram else None
    spans = _spans(session, within, scored)
    given = {"hypnogram": scored, "channels": channels, "threshold": threshold, "false_rate": false_rate}
    options = {k: v for k, v in given.items() if v is not None}
    for name, value in (("threshold", threshold), ("false-rate", false_rate)):
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name} is {value:g}, expected a positive number")
    if false_rate is not None and kind != "ripple":
        raise UsageError(f"--false-rate sets the threshold of ripples, not of {kind}s: use --threshold")
    with progress(common, f"find {kind}s") as report:
        found = brainmu.replay.find_events(session, kind=kind, within=spans, seed=common.seed, progress=report, **options)
    found.to_bids(out)
    looked = spans.duration if spans is not None else session.duration
    rate = len(found) / looked * 60 if looked else float("nan")
    result = {"out": str(out), "kind": kind, "n": len(found), "rate_per_min": rate, "looked_at_s": looked, **found.attrs}
    text = [f"{len(found)} {kind} events in {looked / 60:.1f} min: {rate:.2f} / min"]
    if "surrogate_rate" in found.attrs:
        text.append(f"in noise of the same spectrum: {found.attrs['surrogate_rate']:.2f} / min")
    if len(found):
        d = found.duration * 1000
        text.append(f"duration median {sorted(d)[len(d) // 2]:.0f} ms, {d.min():.0f} to {d.max():.0f} ms")
    if "polarity_by" in found.attrs:
        text.append(f"down state: {found.attrs['polarity']} ({found.attrs['polarity_by']})")
    if "baseline" in found.attrs:
        text.append(f"baseline: {found.attrs['baseline']}")
    warn(common, list(found.attrs.get("warnings", [])))
    emit(common, result, "\n".join(text))
    note(common, f"wrote {out}")
    return 0


def _spans(session, within: str | None, scored):
    """Intervals to look in: a label of epochs, or the spans of a stage; None for the whole session."""
    from brainmu.core import Hypnogram, Intervals
    from brainmu.errors import MissingDataError

    if within is None:
        return None
    label = session.labels.get(within)
    if isinstance(label, Intervals):
        return label
    hypnograms = [scored] if scored is not None else [v for v in session.labels.values() if isinstance(v, Hypnogram)]
    if within in ("WAKE", "NREM", "REM", "W", "N1", "N2", "N3", "R") and hypnograms:
        return hypnograms[0].intervals(within)
    have = [k for k, v in session.labels.items() if isinstance(v, Intervals)]
    stages = "a stage such as NREM" if hypnograms else "no stage, as there is no hypnogram (stage it first, or pass --hypnogram)"
    raise MissingDataError(f"{session.id}: --within {within} is not a label of epochs; there are {', '.join(have) or 'none'}, and {stages}")
