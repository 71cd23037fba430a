"""Does a pretrained encoder help? A linear read-out of it, beside the same encoder untrained and classical features, by share of the labels.

What is compared, and why it is fair:

- **Inputs.** Of an encoder its taps: summary and context of each epoch. Of the recording its classical features
  (:mod:`brainmu.sleep.features`) with their context over minutes, as the context encoder has its own. Neighbours pooled on top of
  the taps added nothing (planted mice of five labs, lab left out: within 0.01 kappa at every share), so none are.
- **Centring.** Every input is centred on its own recording, without labels, then divided by its SD in the training recordings. Left out, a lab's gain
  and montage stay in the inputs: kappa of the untrained encoder falls by 0.1, of classical features by 0.01 to 0.02 at 1 % of the labels; the pretrained
  one loses as much by centring, at 1 % only. What helps the controls is done. A recording that holds one stage only is distorted by it.
- **Missing values** become 0 then: the training mean.
- **The penalty** is chosen for each input by cross-validation inside the training labels (:class:`~brainmu.sleep.readout.ReadOut`). Classes weigh alike:
  without that, kappa at 1 % falls by 0.03 to 0.07 for every input. PCA whitening (32 components) is not used: with few labels it lets directions
  of no variance count as much as the rest (kappa at 1 % fell from 0.78 to 0.5 or less, of classical features from 0.75 to 0.4).

Nothing of this was tuned on real recordings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainmu.core.recording import Recording, as_list
from brainmu.errors import InputError
from brainmu.sleep.comparison import SHARES, ProbeResult, compare_inputs
from brainmu.sleep.probe_inputs import Input, classical, encoded, scorings, taps, without_kinds
from brainmu.sleep.readout import Fold, folds_by_group, folds_by_time

if TYPE_CHECKING:
    from brainmu.models.encoder import Encoder

__all__ = ["SHARES", "ProbeResult", "probe", "taps", "without_kinds"]

Progress = Callable[[str, float], None]


def probe(
    sessions: Recording | Sequence[Recording], encoder: str | Path | Encoder | Callable[[list[Recording]], Encoder] = "brainmu-tiny", *,
    labels: str = "scoring", shares: Sequence[float] = SHARES, seeds: int = 5, split: str = "subject", folds: int = 5, guard: float = 60.0,
    without: str | Iterable[str] = (), groups: Sequence[str] | None = None, kinds: Sequence[str] | None = None, seed: int = 0, progress: Progress | None = None,
) -> ProbeResult:  # fmt: skip
    """Read stages from a frozen encoder with few labels, beside the same encoder untrained and classical features.

    Parameters
    ----------
    sessions : Recording or sequence of Recording
    encoder : path, packaged name, Encoder, or callable(list of Recording) -> Encoder
        A callable pretrains an encoder on the training recordings of each fold (their labels are not for it to read).
    labels : str
        Name of the hypnogram in each recording; its epochs are the encoder's windows.
    shares : sequence of float
        Shares of the training labels, in (0, 1]. They are drawn as stretches of 5 min, and at least so many that every stage is among them:
        ``minutes`` in the result says how much that was.
    seeds : int
        Draws of the labels; each has an untrained encoder of its own.
    split : {"subject", "time"}
        "subject" tests each subject once, by read-outs that have seen none of it. "time" cuts each recording into `folds` blocks and tests each
        block once: it says nothing of new animals.
    folds : int
        At most the number of subjects.
    guard : float, s
        Left out on either side of a tested block (``split="time"``).
    without : kind or kinds
        Channel kinds, and "spikes", that are removed from the tested recordings; training has them.
    groups : sequence of str or None
        One a session: what stays on one side (a lab, a litter). Subjects where None.
    kinds : sequence of str or None
        Channel kinds the encoder reads, and "spikes"; what the classical features read where None (no position, no speed).
    seed : int
    progress : callable(stage, fraction) or None

    Raises
    ------
    InputError
        If an argument is not known, there is one subject only, recordings differ in their stages, or nobody has what `without` names.
    MissingDataError
        If a recording lacks the labels or any data, or too few labels are left to train on.

    Examples
    --------
    >>> result = probe(sessions, "brainmu-tiny", shares=[0.05, 1.0])  # doctest: +SKIP
    >>> result.to_frame()[["share", "input", "kappa", "gain", "gain_low", "gain_high"]]  # doctest: +SKIP
    """
    began = time.perf_counter()
    recordings = as_list(sessions)
    drop = (without,) if isinstance(without, str) else tuple(without)
    _check(recordings, shares, seeds, split, guard, groups)
    data = scorings(recordings, labels, groups)
    notes = _missing(recordings, drop)
    bare = [without_kinds(r, drop) if _has(r, drop) else r for r in recordings]
    inputs = {"classical": classical(recordings, bare, labels, data, progress)}
    if split == "subject":
        parts = folds_by_group(data, folds)
    else:
        parts = folds_by_time(data, folds, [int(np.ceil(guard / r.hypnogram(labels).epoch)) for r in recordings])
    given = _encoders(encoder, recordings, parts, labels)
    fresh = untrained(given[0], seeds, seed)
    # One encoder for all folds is read with the untrained ones; one a fold when the fold comes.
    inputs |= encoded(({"pretrained": given[0]} if len(given) == 1 else {}) | fresh, recordings, bare, labels, kinds, progress)

    def of_fold(k: int) -> Mapping[str, Input]:
        return inputs if len(given) == 1 else inputs | encoded({"pretrained": given[k]}, recordings, bare, labels, kinds)

    epochs, stages = [r.hypnogram(labels).epoch for r in recordings], recordings[0].hypnogram(labels).stages
    result = compare_inputs(data, parts, of_fold, stages=stages, epochs=epochs, shares=shares, seeds=seeds, seed=seed, split=split, progress=progress)
    result.without, result.notes, result.seconds = drop, [*notes, *result.notes], time.perf_counter() - began
    return result


def _check(recordings: list[Recording], shares: Sequence[float], seeds: int, split: str, guard: float, groups: Sequence[str] | None) -> None:
    if not recordings:
        raise InputError("probe: no recordings came, expected labelled ones of at least two subjects")
    if split not in ("subject", "time"):
        raise InputError(f"probe: split is {split!r}, expected 'subject' or 'time'")
    stray = [s for s in shares if not 0 < s <= 1]
    if stray or not len(shares):
        raise InputError(f"probe: shares are {list(shares)}, expected at least one, each in (0, 1]: 0.05 is 5 %")
    if seeds < 1:
        raise InputError(f"probe: seeds is {seeds}, expected at least 1")
    if not (np.isfinite(guard) and guard >= 0):
        raise InputError(f"probe: guard is {guard}, expected seconds >= 0")
    if groups is not None and len(groups) != len(recordings):
        raise InputError(f"probe: {len(groups)} groups came for {len(recordings)} recordings, expected one for each")
    nameless = [r.id for r in recordings if not r.subject]
    if split == "subject" and groups is None and nameless:
        raise InputError(f"probe: recording {nameless[0]} names no subject, so leaving subjects out cannot be checked: set its subject, or split by time")


def _has(recording: Recording, kinds: Sequence[str]) -> bool:
    return bool(kinds) and (bool(recording.signals_of(*kinds)) or ("spikes" in kinds and recording.spikes is not None))


def _missing(recordings: list[Recording], kinds: Sequence[str]) -> list[str]:
    """A sentence where only some recordings have what is to be removed from the tested ones."""
    for kind in kinds:
        if not any(_has(r, (kind,)) for r in recordings):
            have = {k for r in recordings for s in r.signals.values() for k in s.channels["kind"]}
            have |= {"spikes" for r in recordings if r.spikes is not None}
            raise InputError(f"probe: without is {kind!r}, which no recording has: they have {', '.join(sorted(have))}")
    n = sum(_has(r, kinds) for r in recordings)
    if not kinds or n == len(recordings):
        return []
    return [f"{n} of {len(recordings)} recordings have {' or '.join(kinds)}; the others are tested as they are"]


def _encoders(
    source: str | Path | Encoder | Callable[[list[Recording]], Encoder], recordings: list[Recording], parts: list[Fold], labels: str
) -> list[Encoder]:  # fmt: skip
    """One pretrained encoder for all folds, or one a fold."""
    from brainmu.models.checkpoint import load_encoder
    from brainmu.models.encoder import Encoder

    if isinstance(source, Encoder):
        return [source]
    if isinstance(source, (str, Path)):
        return [load_encoder(source)]
    return [source(_training(recordings, fold, labels)) for fold in parts]


def _training(recordings: list[Recording], fold: Fold, labels: str) -> list[Recording]:
    """The recordings, or the parts of them, that a fold trains on."""
    from brainmu.windows.splits import cut

    out = []
    for r, mask in zip(recordings, fold.train):
        if mask.all():
            out.append(r)
            continue
        h = r.hypnogram(labels)
        edges = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(np.int8)))
        out += [cut(r, h.start + a * h.epoch, h.start + b * h.epoch, f"{r.id}.{a}") for a, b in edges.reshape(-1, 2).tolist()]
    return out


def untrained(like: Encoder, seeds: int, seed: int) -> dict[str, Encoder]:
    """Encoders of one config as they are before training, one a seed."""
    import torch

    from brainmu.models.encoder import Encoder

    out = {}
    for s in range(seeds):
        with torch.random.fork_rng():
            torch.manual_seed(seed + s)
            out[f"untrained {s}"] = Encoder(like.config).eval()
    return out
