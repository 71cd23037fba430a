"""What a recording says about its own channels and units: scale, spectrum, firing. Measured once, used for every window.

Every channel is standardised by its median and its median absolute deviation (times 1.4826; the SD where that is zero, and
for slow traces, which rest most of the time) over patches spread evenly across the whole recording, and its band powers by
their median over the same patches. So a standardised value says "against this recording"; what is lost (the absolute
spectrum) goes into the channel's identity.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from brainmu.core.recording import Recording
from brainmu.core.signal import KINDS, Signal
from brainmu.core.spikes import Spikes
from brainmu.errors import InputError, MissingDataError
from brainmu.windows.spectra import N_BANDS, band_power, covered_bands

__all__ = ["IDENTITY_SIZE", "REGIONS", "SignalStatistics", "Statistics", "UnitStatistics", "measure", "modality_of"]

FIELD_KINDS = ("lfp", "eeg", "eog", "emg", "ecg")
SLOW_KINDS = ("calcium", "photometry", "position", "speed", "behaviour")
MODEL_KINDS = (*FIELD_KINDS, *SLOW_KINDS, "features", "spikes")
"""What enters a model. `sync` and `other` never do."""
REGIONS = ("", "hippocampus", "neocortex", "thalamus", "brainstem", "other")
_REGION_WORDS = {
    "hippocampus": ("ca1", "ca2", "ca3", "dg", "dentate", "hpc", "hipp", "subic", "ent", "mec", "lec"),
    "neocortex": ("cortex", "ctx", "pfc", "acc", "m1", "m2", "s1", "s2", "v1", "v2", "rsc", "ppc",
                  "frontal", "parietal", "occip", "temporal", "vis", "mos", "ssp"),
    "thalamus": ("thal", "adn", "lgn", "nre", "reuniens", "vpm"),
    "brainstem": ("hypothal", "brainstem", "vta", "lc", "raphe", "pons", "lha", "poa"),
}  # fmt: skip
SIGNATURE = 16
ISI_EDGES = np.array([0, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 4, np.inf])
IDENTITY_SIZE = {
    "field": len(KINDS) + len(REGIONS) + 2 * N_BANDS + SIGNATURE,
    "slow": len(KINDS) + len(REGIONS) + SIGNATURE,
    "features": len(KINDS) + len(REGIONS) + SIGNATURE,
    "spikes": len(REGIONS) + 2 + len(ISI_EDGES) - 1 + SIGNATURE,
}
"""Length of the identity vector of a channel or unit, by modality."""
MAX_CHANNELS = 32
_SAMPLES = 240
_SPIKES = 1 << 18
_CLIP = 30.0


@dataclass(frozen=True)
class SignalStatistics:
    """Scale and identity of the channels of one signal that a model uses.

    Attributes
    ----------
    signal, modality : str
    names : tuple of str
        Channels, in the order of every array below.
    columns : int64 (channel,)
        Their columns in the signal.
    centre, scale : float32 (channel,), in the signal's unit
    reference : float32 (channel, N_BANDS) or None
        Median power of each band of the standardised channel (field only).
    identity : float32 (channel, d)
    """

    signal: str
    modality: str
    names: tuple[str, ...]
    columns: NDArray[np.int64]
    centre: NDArray[np.float32]
    scale: NDArray[np.float32]
    identity: NDArray[np.float32]
    reference: NDArray[np.float32] | None = None

    def standardise(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(value - centre) / scale of samples (…, signal channel), as (…, channel); clipped at 30, NaN where missing or infinite."""
        x = values[..., self.columns]
        x -= self.centre
        x /= self.scale
        x[np.isinf(x)] = np.nan
        return np.clip(x, -_CLIP, _CLIP, out=x)


@dataclass(frozen=True)
class UnitStatistics:
    """Rate (unit,), Hz, and identity (unit, d) of units with the given ids."""

    ids: NDArray[np.int64]
    rate: NDArray[np.float32]
    identity: NDArray[np.float32]


@dataclass(frozen=True)
class Statistics:
    """Statistics of a recording, by stream name; ``spikes`` is None where there are no units in use."""

    signals: dict[str, SignalStatistics] = field(default_factory=dict)
    spikes: UnitStatistics | None = None


def modality_of(kind: str) -> str | None:
    """The modality of a channel kind, or None where it never enters a model."""
    if kind in FIELD_KINDS:
        return "field"
    if kind in SLOW_KINDS:
        return "slow"
    return kind if kind in ("features", "spikes") else None


def measure(recording: Recording, kinds: Iterable[str] | None = None, patch: float = 1.0) -> Statistics:
    """Statistics of every channel and unit of `recording` that a model can use.

    Parameters
    ----------
    recording : Recording
    kinds : iterable of str or None
        Channel kinds to use, and "spikes"; None is all that a model knows.
    patch : float, s
        Length of a patch.

    Raises
    ------
    MissingDataError
        If nothing usable is left.
    InputError
        If `kinds` names a kind that does not enter a model.
    """
    wanted = MODEL_KINDS if kinds is None else tuple(kinds)
    stray = [k for k in wanted if k not in MODEL_KINDS]
    if stray:
        raise InputError(f"kind {stray[0]!r} does not enter a model: use some of {', '.join(MODEL_KINDS)}")
    signals: dict[str, SignalStatistics] = {}
    for name, s in recording.signals.items():
        groups = {m: [i for i, k in enumerate(s.channels["kind"]) if k in wanted and modality_of(k) == m] for m in ("field", "slow", "features")}
        groups = {m: c for m, c in groups.items() if c}
        for m, columns in groups.items():
            found = _signal_statistics(recording, name, s, m, columns, patch)
            if found is not None:
                signals[name if len(groups) == 1 else f"{name}:{m}"] = found
    spikes = None
    if recording.spikes is not None and recording.spikes.n_units and "spikes" in wanted:
        spikes = _unit_statistics(recording.spikes, recording.duration)
    if not signals and spikes is None:
        have = sorted({k for s in recording.signals.values() for k in s.channels["kind"]} | ({"spikes"} if recording.spikes is not None else set()))
        why = "".join(f"; {w}" for w in recording.warnings if "left out of the model" in w)
        raise MissingDataError(f"{recording.id}: has {', '.join(have) or 'no signals'}, none usable of the kinds asked for ({', '.join(wanted)}){why}")
    return Statistics(signals, spikes)


def _signal_statistics(recording: Recording, name: str, s: Signal, modality: str, columns: list[int], patch: float) -> SignalStatistics | None:
    if s.n_samples == 0:
        recording.warn(f"signal {name} is empty and is left out of the model")
        return None
    if modality == "field" and (s.rate is None or s.rate * patch < 8):
        recording.warn(f"signal {name} is {'irregular' if s.rate is None else f'sampled at {s.rate:g} Hz'}: too sparse for a spectrum, left out of the model")
        return None
    if len(columns) > MAX_CHANNELS:
        chosen = np.linspace(0, len(columns) - 1, MAX_CHANNELS).round().astype(int)
        recording.warn(f"signal {name}: the model uses {MAX_CHANNELS} evenly spaced of {len(columns)} {modality} channels")
        columns = [columns[i] for i in chosen]
    patches = _spread_patches(s, columns, patch)
    patches[np.isinf(patches)] = np.nan
    flat = patches.reshape(-1, len(columns))
    finite = np.isfinite(flat).any(0)
    centre, scale = np.zeros(len(columns), dtype=np.float32), np.zeros(len(columns), dtype=np.float32)
    if finite.any():
        centre[finite] = np.nanmedian(flat[:, finite], axis=0)
        scale[finite] = 1.4826 * np.nanmedian(np.abs(flat[:, finite] - centre[finite]), axis=0)
        # Behaviour and calcium rest most of the time: their median deviation says nothing of how far they go.
        still = finite & ((scale == 0) | (modality == "slow"))
        scale[still] = np.nanstd(flat[:, still], axis=0) if still.any() else 0
    # Rounding alone makes a constant channel vary by a few parts in 1e7.
    alive = finite & (scale > 1e-6 * np.abs(centre))
    if not alive.all():
        dead = [str(s.channels["name"].iloc[columns[i]]) for i in np.flatnonzero(~alive)]
        recording.warn(f"signal {name}: {', '.join(dead[:5])}{' …' if len(dead) > 5 else ''} constant or all missing, left out of the model")
    if not alive.any():
        return None
    keep = np.array(columns)[alive]
    table = s.channels.iloc[keep]
    reference = None
    profile = np.zeros((len(keep), 0), dtype=np.float32)
    if modality == "field":
        assert s.rate is not None
        z = np.clip((patches[..., alive] - centre[alive]) / scale[alive], -_CLIP, _CLIP)
        reference, covered = _typical_power(z, s.rate)
        profile = np.concatenate([np.log(reference) * covered / 4, np.broadcast_to(covered, reference.shape)], axis=1)
    identity = np.concatenate([
        _one_hot([KINDS.index(k) for k in table["kind"]], len(KINDS)), _one_hot([_region(r) for r in table["region"]], len(REGIONS)),
        profile, np.stack([_signature(f"channel:{n}") for n in table["name"]]),
    ], axis=1)  # fmt: skip
    names = tuple(str(n) for n in table["name"])
    return SignalStatistics(name, modality, names, keep, centre[alive], scale[alive], identity.astype(np.float32), reference)


def _spread_patches(s: Signal, columns: list[int], patch: float) -> NDArray[np.float32]:
    """Up to 240 patches (patch, time, channel) spread evenly over the signal; the whole signal as one patch where it is short."""
    n = max(1, round(patch * s.rate)) if s.rate is not None else max(1, s.n_samples // _SAMPLES)
    n = n if s.rate is None or s.rate >= 1 / patch else 1
    count = min(_SAMPLES, s.n_samples // n)
    if count * n * 2 > s.n_samples or s.n_samples <= 4 * _SAMPLES:
        count = max(1, s.n_samples // n)
        n = min(n, s.n_samples)
        return s.read(0, count * n)[:, columns].reshape(count, n, len(columns))
    first = np.linspace(0, s.n_samples - n, count).astype(np.int64)
    return np.stack([s.read(int(i), int(i) + n)[:, columns] for i in first])


def _typical_power(z: NDArray[np.float32], rate: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Median band power (channel, N_BANDS) of standardised patches (patch, time, channel), and which bands are covered (N_BANDS,)."""
    covered = covered_bands(z.shape[1], rate).numpy()
    out = np.ones((z.shape[2], N_BANDS), dtype=np.float32)
    for c in range(z.shape[2]):
        whole = np.isfinite(z[:, :, c]).mean(1) > 0.9
        if whole.any():
            power = band_power(torch.from_numpy(np.nan_to_num(np.ascontiguousarray(z[whole, :, c]))), rate).numpy()
            # The floor is 70 dB below the channel's variance: quieter bands hold rounding, not signal.
            out[c] = np.where(covered > 0, np.maximum(np.median(power, axis=0), 1e-7), 1.0)
    return out, covered


def _unit_statistics(spikes: Spikes, duration: float) -> UnitStatistics:
    ids = spikes.units["id"].to_numpy(dtype=np.int64)
    counts, intervals = _interval_counts(spikes, ids)
    isi = np.sqrt(intervals / np.maximum(intervals.sum(1, keepdims=True), 1))
    rate = counts / max(duration, 1e-9)
    burst = isi[:, :3].sum(1, keepdims=True)
    regions = [_region(r) for r in spikes.units["region"]]
    identity = np.concatenate([
        _one_hot(regions, len(REGIONS)), np.log10(rate + 1e-2)[:, None], burst, isi, np.stack([_signature(f"unit:{u}") for u in ids]),
    ], axis=1)  # fmt: skip
    return UnitStatistics(ids, rate.astype(np.float32), identity.astype(np.float32))


def _interval_counts(spikes: Spikes, ids: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Spikes (unit,) of each unit, and its intervals between them by length (unit, bin); a block of spikes at a time, whatever their number."""
    n, bins = len(ids), len(ISI_EDGES) - 1
    order = np.argsort(ids)
    counts, intervals, last = np.zeros(n), np.zeros(n * bins), np.full(n, np.nan)
    for i in range(0, len(spikes), _SPIKES):
        times, who = spikes.times[i : i + _SPIKES], spikes.unit_id[i : i + _SPIKES]
        unit = order[np.searchsorted(ids[order], who)]
        by_unit = np.argsort(unit, kind="stable")
        unit, times = unit[by_unit], times[by_unit]
        first = np.r_[True, unit[1:] != unit[:-1]]
        since = times - np.where(first, last[unit], np.r_[np.nan, times[:-1]])
        last[unit[np.r_[first[1:], True]]] = times[np.r_[first[1:], True]]
        counts += np.bincount(unit, minlength=n)
        known = np.isfinite(since)
        intervals += np.bincount(unit[known] * bins + np.searchsorted(ISI_EDGES[:-1], since[known], side="right") - 1, minlength=n * bins)
    return counts, intervals.reshape(n, bins)


def _region(name: object) -> int:
    text = str(name).strip().lower()
    if not text or text == "nan":
        return 0
    for region, words in _REGION_WORDS.items():
        if any(w in text for w in words):
            return REGIONS.index(region)
    return REGIONS.index("other")


def _one_hot(index: list[int], size: int) -> NDArray[np.float32]:
    return np.eye(size, dtype=np.float32)[index]


def _signature(text: str) -> NDArray[np.float32]:
    """A fixed random vector of unit length for a name: tells channels and units apart without a table of known ones."""
    v = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(SIGNATURE).astype(np.float32)
    return v / np.linalg.norm(v)
