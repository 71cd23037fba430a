"""Events of a recording by kind: ripples, population bursts and high-synchrony events here, spindles and slow waves from the sleep room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from scipy.stats import chi2

from brainmu.config import suggest
from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Signal
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.bursts import find_bursts, find_hse
from brainmu.replay.position import moving, position_of, speed_threshold
from brainmu.replay.ripples import RippleSettings, find_ripples, find_ripples_by_channel
from brainmu.replay.vetoes import artefact_spans, emg_spans, movement_spans

__all__ = ["KINDS", "find_events", "lfp_channels"]

KINDS = ("ripple", "burst", "hse", "spindle", "slow_wave")
_LEAST_BASELINE = 30.0
_HUMAN_RIPPLES = (80.0, 150.0)
_HIPPOCAMPUS = ("ca1", "ca2", "ca3", "hpc", "hippocamp", "subic")


def find_events(
    session: Recording, kind: str = "ripple", within: Intervals | None = None, *, channels: Sequence[str] | None = None,
    hypnogram: Hypnogram | str | None = None, baseline: Intervals | str | None = None, movement: bool = False,
    artefacts: Intervals | EventTable | str | Sequence[str] | None = None, emg: float | None = None, threshold: float | None = None,
    per_channel: bool = False, seed: int = 0, progress: Callable[[str, float], None] | None = None, **settings: Any,
) -> EventTable:  # fmt: skip
    """Events of one kind.

    Parameters
    ----------
    session : Recording or Session
    kind : {"ripple", "burst", "hse", "spindle", "slow_wave"}
        A burst is a peak of the multiunit rate, a high-synchrony event (hse) one of the number of distinct units that fire within 20 ms.
    within : Intervals or None
        Where to look; None looks everywhere.
    channels : names or None
        LFP channels of the consensus; None takes up to eight, hippocampal ones where the regions say so, the rest by how far
        the power in the band rises above its median.
    hypnogram : Hypnogram, label name or None
        None takes the recording's "scoring", or its only hypnogram, if there is one.
    baseline : Intervals, {"NREM", "immobility", "session"} or None
        What events are measured against. None takes NREM, else immobility, else the whole session; ``attrs["baseline"]`` says which.
    movement : bool
        Keep events while the animal moves. Without a position nothing is known of movement, and attrs say so.
    artefacts : Intervals, EventTable, label name(s) or None
        Left out, and 50 ms on either side. None takes the labels artefact(s), artifact(s) and bad that there are; [] takes none.
    emg : float or None
        Leave out where the EMG lies more than this many robust SDs above its level in the baseline. None does not look at it: a baseline
        of NREM would make all of quiet wakefulness an outlier.
    threshold : float or None
        z of the peak. Ripples: None sets it so that surrogates of the same recording give `false_rate` events a minute. Bursts: 2,
        high-synchrony events: 3, unless `false_rate` sets it.
    per_channel : bool
        Ripples of every channel by itself, each with its own threshold and surrogates, in a column ``channel``; ``consensus`` says
        whether the ripples that the channels share hold it, ``n_channels`` on how many channels one overlaps it.
    **settings
        Ripples: ``band, false_rate, packet, edge, shortest, longest, gap, flank_low, flank_high``; bursts: ``sigma, edge,
        shortest, longest, least_units, false_rate``; high-synchrony events: these and ``window, least_share``; else the arguments of
        ``brainmu.sleep.events``.

    Returns
    -------
    EventTable
        With ``score``; attrs hold rate and surrogate_rate (events a minute; a mapping by channel if `per_channel`), precision (the share of
        events that surrogates, of the baseline and of the rest of what is looked at, do not account for) and its 95 % precision_interval,
        surrogate_rate_beyond (events a minute in surrogates of what is looked at outside the baseline), threshold, baseline, channels,
        method, movement, artefacts, emg, vetoed_seconds, seconds (looked at), warnings (if any), parameters.

    Raises
    ------
    MissingDataError
        If the recording lacks the modality, the baseline or the channel, or `within` lies outside it.
    InputError
        If the kind or a setting is unknown, or the signal is sampled too slowly for the band.

    Examples
    --------
    >>> import brainmu as bm, numpy as np
    >>> noise = np.random.default_rng(0).normal(size=(60_000, 2))
    >>> rec = bm.Recording.from_arrays("noise", signals={"lfp": dict(values=noise, rate=1000.0, unit="uV", kind="lfp")})
    >>> ripples = bm.find_events(rec, kind="ripple")
    >>> len(ripples) < 3, ripples.baseline
    (True, 'session')
    """
    if kind not in KINDS:
        raise InputError(f"event kind is {kind!r}{suggest(kind, KINDS)}; expected one of {', '.join(KINDS)}")
    scored = _hypnogram(session, hypnogram)
    if kind in ("spindle", "slow_wave"):
        for name, value in (("artefacts", artefacts), ("emg", emg), ("per_channel", per_channel or None)):
            if value is not None:
                raise InputError(f"{name} is for ripples, bursts and high-synchrony events, not for {kind} events: leave it out")
        return _sleep_events(session, kind, within, channels, scored, threshold, seed, progress, settings)
    if session.duration > 0:
        from brainmu.sleep.sites import refuse_other_times

        refuse_other_times(session, scored, session.start, session.stop)
    everything = Intervals([[session.start, session.stop]]) if session.duration > 0 else Intervals()
    spans = everything if within is None else within
    if within is not None and len(within) and not within.intersect(everything).duration > 0:
        raise MissingDataError(f"{session.id}: within holds {within.duration:.1f} s, none of it in the recording ({session.start:g}-{session.stop:g} s)")
    about: dict[str, Any] = {"within": "given" if within is not None else "everywhere"}
    reference, about["baseline"] = _baseline(session, baseline, scored, kind)
    still, reference = _vetoed(session, spans, reference, about, movement, artefacts, emg)
    looked = still.duration
    if per_channel and kind != "ripple":
        raise InputError(f"per_channel is for ripples, not for {kind} events: leave it out")
    if kind in ("burst", "hse"):
        table = _spike_events(session, kind, still, reference, about["baseline"] == "session", threshold, seed, settings)
    else:
        signal, about["selection"] = lfp_channels(session, channels, reference, settings.get("band"))
        ripple = _ripple_settings(session, threshold, settings)
        signal_spans = still.intersect(Intervals([[signal.start, signal.stop]])) if signal.n_samples else Intervals()
        finder = find_ripples_by_channel if per_channel else find_ripples
        table = finder(signal, signal_spans, reference, ripple, seed=seed, progress=progress)
        looked = signal_spans.duration - table.attrs["missing_seconds"]
    table.attrs |= about | {"baseline_seconds": reference.duration, "seconds": looked, "seed": seed}
    table.attrs |= _precision(table.attrs, still, reference)
    if not still.duration > 0:
        table.attrs["warnings"] = [
            *table.attrs.get("warnings", []),
            f"{session.id}: nothing to look at: within is empty, or movement, artefacts and EMG take all of it",
        ]
    return table


def _precision(attrs: dict[str, Any], looked: Intervals, baseline: Intervals) -> dict[str, Any]:
    """Share of the events that surrogates do not account for, with its 95 % interval by how few of theirs were counted; by channel where rates are.

    Surrogates of the baseline count for the baseline, those of the rest for the rest.
    """
    inside = looked.intersect(baseline).duration / looked.duration if looked.duration > 0 else 1.0
    known = "surrogate_rate_beyond" in attrs and inside < 1
    parts = [("surrogate_rate", attrs["surrogate_seconds"] / 60, inside if known else 1.0)]
    parts += [("surrogate_rate_beyond", attrs["surrogate_seconds_beyond"] / 60, 1 - inside)] if known else []
    if not isinstance(attrs["rate"], dict):
        share, interval = _true_share(attrs["rate"], [(attrs[k], m, w) for k, m, w in parts])
        return {"precision": share, "precision_interval": interval}
    both = {c: _true_share(r, [(attrs[k][c], m, w) for k, m, w in parts]) for c, r in attrs["rate"].items()}
    return {"precision": {c: v[0] for c, v in both.items()}, "precision_interval": {c: v[1] for c, v in both.items()}}


def _true_share(rate: float, false: list[tuple[float, float, float]]) -> tuple[float | None, tuple[float, float] | None]:
    """From the rate of events and (rate, minutes, share of the time looked at) of surrogates; None where nothing was found or there are none."""
    if not rate > 0 or not all(minutes > 0 for _, minutes, _ in false):
        return None, None
    expected = np.zeros(3)
    for per_minute, minutes, share in false:
        n = round(per_minute * minutes)
        least, most = float(chi2.ppf(0.025, 2 * n)) / 2 if n else 0.0, float(chi2.ppf(0.975, 2 * n + 2)) / 2
        expected += share * np.array([per_minute, most / minutes, least / minutes])
    middle, low, high = (float(v) for v in np.clip(1 - expected / rate, 0, 1))
    return middle, (low, high)


def _vetoed(
    session: Recording, spans: Intervals, reference: Intervals, about: dict[str, Any], movement: bool,
    artefacts: Intervals | EventTable | str | Sequence[str] | None, emg: float | None,
) -> tuple[Intervals, Intervals]:  # fmt: skip
    """`spans` and the baseline without what is not looked at; `about` is told what that was and how many seconds it took of `spans`."""
    marked, about["artefacts"] = artefact_spans(session, artefacts)
    reference = _some(reference.subtract(marked), f"artefact-free {about['baseline']}", session)
    out, seconds = spans, {}
    active, about["emg"] = emg_spans(session, emg, reference)
    fast, about["movement"] = movement_spans(session, movement)
    for name, veto in (("movement", fast), ("artefacts", marked), ("emg", active)):
        left = out.subtract(veto) if len(out) and len(veto) else out
        seconds[name], out = out.duration - left.duration, left
    if len(fast):
        about["movement"] += f" ({seconds['movement']:.1f} s)"
    about["vetoed_seconds"] = seconds
    return out, reference


def _spike_events(
    session: Recording, kind: str, spans: Intervals, baseline: Intervals, robust: bool, threshold: float | None, seed: int, settings: dict[str, Any]
) -> EventTable:
    given = dict(_known(settings, _HSE if kind == "hse" else _BURST, kind))
    if threshold is not None and given.get("false_rate") is not None:
        raise InputError(f"{kind}: threshold and false_rate both given, expected one: the false rate sets the threshold")
    if threshold is not None:
        given["threshold"] = threshold
    finder = find_hse if kind == "hse" else find_bursts
    return finder(session, spans, baseline, robust=robust, seed=seed, **given)


_BURST = ("sigma", "edge", "shortest", "longest", "least_units", "false_rate")
_HSE = (*_BURST, "window", "least_share")
_RIPPLE = tuple(f.name for f in fields(RippleSettings) if f.name != "threshold")


def _known(settings: dict[str, Any], names: Sequence[str], kind: str) -> dict[str, Any]:
    for key in settings:
        if key not in names:
            raise InputError(f"{kind} setting {key!r} is not known{suggest(key, names)}; expected one of {', '.join(names)}")
    return settings


def _ripple_settings(session: Recording, threshold: float | None, settings: dict[str, Any]) -> RippleSettings:
    given = dict(_known(settings, _RIPPLE, "ripple"))
    if "band" in given:
        band = tuple(float(v) for v in given["band"])
        if len(band) != 2:
            raise InputError(f"ripple band is {given['band']!r}, expected (low, high) in Hz")
        given["band"] = band
    elif session.species.lower() == "human":
        given["band"] = _HUMAN_RIPPLES
    return RippleSettings(threshold=threshold, **given)


def _sleep_events(
    session: Recording, kind: str, within: Intervals | None, channels: Sequence[str] | None, scored: Hypnogram | None, threshold: float | None,
    seed: int, progress: Callable[[str, float], None] | None, settings: dict[str, Any],
) -> EventTable:  # fmt: skip
    from brainmu.sleep.events import find_slow_waves, find_spindles

    more: dict[str, Any] = {"threshold": threshold} if threshold is not None else {}
    more |= {"seed": seed} if kind == "spindle" else {}  # slow waves draw nothing
    finder = find_spindles if kind == "spindle" else find_slow_waves
    return finder(session, within=within, channels=channels, hypnogram=scored, progress=progress, **more, **settings)


def _hypnogram(session: Recording, given: Hypnogram | str | None) -> Hypnogram | None:
    if isinstance(given, Hypnogram):
        return given
    if isinstance(given, str):
        return session.hypnogram(given)
    found = {k: v for k, v in session.labels.items() if isinstance(v, Hypnogram)}
    return found.get("scoring") or (next(iter(found.values())) if len(found) == 1 else None)


def _baseline(session: Recording, given: Intervals | str | None, scored: Hypnogram | None, kind: str) -> tuple[Intervals, str]:
    everything = Intervals([[session.start, session.stop]]) if session.duration > 0 else Intervals()
    if isinstance(given, Intervals):
        if not len(given):
            raise MissingDataError("the baseline that was given is empty, expected some seconds")
        return given, "given"
    if given not in (None, "NREM", "immobility", "session"):
        raise InputError(f"baseline is {given!r}, expected Intervals, 'NREM', 'immobility' or 'session'")
    if given in (None, "NREM") and scored is not None:
        nrem = scored.intervals("NREM").intersect(everything)
        if nrem.duration >= _LEAST_BASELINE or given == "NREM":
            return _some(nrem, "NREM", session), "NREM"
    if given == "NREM":
        raise MissingDataError(f"{session.id}: baseline 'NREM' needs a hypnogram, the recording has none: score it, or name another baseline")
    if given in (None, "immobility") and session.signals_of("position"):
        position = position_of(session)
        known = Intervals([[position.times[0], position.times[-1]]]).intersect(everything)
        still = known.subtract(moving(position, speed_threshold(position), shortest=0.1))
        if still.duration >= _LEAST_BASELINE or given == "immobility":
            return _some(still, "immobility", session), "immobility"
    if given == "immobility":
        raise MissingDataError(f"{session.id}: baseline 'immobility' needs a position signal, the recording has none")
    return _some(everything, "session", session), "session"


def _some(spans: Intervals, name: str, session: Recording) -> Intervals:
    if spans.duration <= 0:
        raise MissingDataError(f"{session.id}: no {name} in the recording, it cannot be the baseline of events")
    return spans


def lfp_channels(session: Recording, channels: Sequence[str] | None, baseline: Intervals, band: Any, most: int = 8) -> tuple[Signal, str]:
    """The LFP signal to search with only the chosen channels, and how they were chosen."""
    found = session.signals_of("lfp") or session.signals_of("eeg")
    if not found:
        raise MissingDataError(f"{session.id}: no LFP or EEG channels among {', '.join(session.signals) or 'no signals'}: ripples need some")
    if channels is not None:
        wanted = [str(c) for c in channels]
        for s in found.values():
            if set(wanted) <= set(s.names):
                return s.pick(wanted), "named"
        have = ", ".join(n for s in found.values() for n in s.names[:20])
        raise MissingDataError(f"{session.id}: channels {', '.join(wanted)} are not together in one LFP signal; there are {have}")
    signal = max(found.values(), key=lambda s: (s.rate or 0, s.n_channels))
    region = signal.channels["region"].astype(str).str.lower()
    inside = region.apply(lambda r: any(h in r for h in _HIPPOCAMPUS)).to_numpy(dtype=bool)
    if inside.any() and not inside.all():
        signal, how = signal.pick(inside), "hippocampal"
    else:
        how = "all"
    if signal.n_channels <= most:
        return signal, how
    return signal.pick(_liveliest(signal, baseline, band or (150.0, 250.0), most)), f"{how}, the {most} of {signal.n_channels} whose power rises highest"


def _liveliest(signal: Signal, baseline: Intervals, band: tuple[float, float], most: int) -> np.ndarray:
    """Channels whose power in the band has the highest 99.5th percentile over its median, in up to 60 s of the baseline."""
    from brainmu.dsp.filters import check_band, envelope

    check_band(signal.rate or 0.0, *band, what="ripple band")
    starts = baseline.windows(4.0)
    if not len(starts):
        return np.arange(most)
    chosen = starts[np.linspace(0, len(starts) - 1, min(15, len(starts))).astype(int)]
    score = np.zeros(signal.n_channels)
    block = np.concatenate([signal.span(t, t + 4.0)[1] for t in chosen])
    for c in range(signal.n_channels):
        x = block[:, c]
        if np.isfinite(x).mean() < 0.5 or not np.nanstd(x) > 0:
            score[c] = -np.inf
            continue
        e = envelope(x, signal.rate or 0.0, *band)
        score[c] = np.nanpercentile(e, 99.5) / max(float(np.nanmedian(e)), 1e-12)
    return np.sort(np.argsort(score)[::-1][:most])
