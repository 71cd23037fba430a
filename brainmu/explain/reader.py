"""Asks a stager about edited copies of a recording, and keeps what is read, what must not move, and how strange the edits are to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Recording
from brainmu.errors import InputError
from brainmu.explain.asking import Answer, ask, beyond_the_network, differentiable
from brainmu.explain.edits import TAPER, Edit, apply_edits

__all__ = ["Reader", "Reading"]

_USUAL = 512
"""Windows that the distance between neighbours in the model's view is measured on."""


@dataclass(frozen=True)
class Reading:
    """What a stager says around the places of some edits, without and with them.

    Attributes
    ----------
    before, after : float64 (place, epoch, stage)
        Probabilities of the epochs after each place; NaN beyond the end of the recording, and for places that are NaN.
    earlier : float
        Largest change of a probability in the epochs before the first edit: 0 where the model is causal.
    clean : int64 (place,)
        Epochs from the first that is read until the next edit.
    latents : float64 (place, epoch)
        How far the context of each epoch moved, in distances between neighbouring windows; NaN without an encoder.
    shift : float
        How far the summaries of edited windows moved, median, in the same unit.
    novel : float
        Share of edited windows that lie farther from any unedited one than 95 % of the unedited do; 0.05 where edits are like the rest.
    refits : tuple of (before, after)
        The same probabilities by each refitted head.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    earlier: float
    clean: NDArray[np.int64]
    latents: NDArray[np.float64]
    shift: float
    novel: float
    refits: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...] = ()


class Reader:
    """A stager and a recording; an encoder encodes only the windows that an edit touches.

    An offset and a temperature that a stager puts on its encoder's probabilities are part of what is read; what it decodes over the night is not.

    Parameters
    ----------
    stager : SleepStager or StageModel
    session : Recording
    hide : iterable of str
        Signals (and "spikes") that epochs which are read must not see themselves: what they say then comes through context, or other streams.
    refits : sequence of SleepStager or StageModel
        Other heads on the same encoder, which are asked along: they cost next to nothing.
    """

    def __init__(self, stager: Any, session: Recording, hide: Iterable[str] = (), refits: Sequence[Any] = ()) -> None:
        self.stager, self.session, self.model, self.hide = stager, session, differentiable(stager), frozenset(hide)
        self.heads: list[Any] = [self.model] if not refits else _checked([self.model, *(differentiable(r) for r in refits)])
        self.causal = bool(self.model.causal) if self.model is not None else bool(getattr(stager, "causal", False))
        if self.model is None:
            if self.hide:
                raise InputError("blind=True hides streams from single epochs, which needs a stager with an encoder (method='encoder')")
            self.answer = ask(stager, session)
            self.proba = [self.answer.proba]
            return
        for m in self.heads:
            m.eval()
        self.tempering = [beyond_the_network(s)[0] for s in (stager, *refits)]
        self.grid = self.model.grid(session)
        if self.hide and not self._shown():
            raise InputError(f"{session.id}: blind=True leaves the stager nothing to read: it needs a stream that is not edited")
        self.summaries, self.present = self.model.encoder.summaries(self.grid)
        self.proba, self.context = self._read(self.summaries)
        self.answer = Answer(self.proba[0], self.grid.start, self.grid.window, self.model.stages)
        self._measure()

    def read(self, edits: Sequence[Edit | None], stops: NDArray[np.float64], first: int, reach: int) -> Reading:
        """Read `reach` epochs at each place from the `first` after its own on, with the edits that are not None made.

        `stops` (place,), s, are the ends of the places, NaN where there is none; an edit may be None at a place that is read all the same.
        """
        made = [e for e in edits if e is not None]
        own = np.array([self.epoch_of(t) if np.isfinite(t) else -1 for t in stops], dtype=np.int64)
        rows = [range(k + first, min(k + first + reach, len(self.answer.proba))) for k in own[own >= 0].tolist()]
        before, context = self._base({i for r in rows for i in r})
        touched = self._touched(made)
        after, moved, shift, novel = before, np.full(len(self.answer.proba), np.nan), float("nan"), float("nan")
        if made and self.model is None:
            after = [ask(self.stager, apply_edits(self.session, made), self.answer.start).proba]
        elif made:
            after, moved, shift, novel = self._reencoded(made, touched, context, {i for r in rows for i in r})
        read = [(_windows(b, own + first, reach, own >= 0), _windows(a, own + first, reach, own >= 0)) for b, a in zip(before, after, strict=True)]
        return Reading(
            *read[0], _before_any(before[0], after[0], touched), _clean(own, touched, first),
            _windows(moved, own + first, reach, own >= 0), shift, novel, tuple(read[1:]),
        )  # fmt: skip

    def epoch_of(self, time: float) -> int:
        return int((time - self.answer.start) // self.answer.epoch)

    # -- parts ----------------------------------------------------------------------------------------------------------
    def _touched(self, made: Sequence[Edit]) -> NDArray[np.int64]:
        """Epochs that edits change, with their fades, sorted."""
        spans = [(self.epoch_of(p.start - 2 * TAPER), self.epoch_of(p.stop + 2 * TAPER)) for e in made for p in e.places()]
        rows = {k for a, b in spans for k in range(a, b + 1) if 0 <= k < len(self.answer.proba)}
        return np.array(sorted(rows), dtype=np.int64)

    def _base(self, read: set[int]) -> tuple[list[NDArray[np.float64]], Any]:
        """Probabilities (epoch, stage) by each head and context of the unedited recording, with read epochs blind where asked."""
        if self.model is None or not self.hide:
            return self.proba, getattr(self, "context", None)
        return self._read(self._blinded(self.summaries, self.grid, read))

    def _reencoded(
        self, made: Sequence[Edit], touched: NDArray[np.int64], context: Any, read: set[int]
    ) -> tuple[list[NDArray[np.float64]], Any, float, float]:  # fmt: skip
        import torch

        assert self.model is not None
        grid = self.model.grid(apply_edits(self.session, made), self.grid.statistics, self.grid.start, len(self.grid))
        with torch.no_grad():
            parts = [self.model.encoder.summary(grid.batch(touched[i : i + 64]))[0] for i in range(0, len(touched), 64)]
            fresh, summaries = torch.cat(parts), self.summaries.clone()
            shift = float((fresh - summaries[touched]).norm(dim=1).median() / self.usual)
            summaries[touched] = fresh
            novel = float((self._nearest(fresh, touched) > self.far).mean())
            proba, edited = self._read(self._blinded(summaries, grid, read) if self.hide else summaries)
            moved = (edited - context).norm(dim=1).double().numpy() / self.usual_context
        return proba, moved, shift, novel

    def _measure(self) -> None:
        """How far windows lie from the next, and from the nearest: the yardsticks of an edit."""
        import torch

        with torch.no_grad():
            self.usual = float((self.summaries[1:] - self.summaries[:-1]).norm(dim=1).median()) if len(self.summaries) > 1 else float("nan")
            self.usual_context = float((self.context[1:] - self.context[:-1]).norm(dim=1).median()) if len(self.context) > 1 else float("nan")
        some = np.unique(np.linspace(0, len(self.summaries) - 1, _USUAL).round().astype(np.int64))
        self.far = float(np.quantile(self._nearest(self.summaries[some], some), 0.95)) if len(self.summaries) > 2 else float("nan")

    def _nearest(self, summaries: Any, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Distance (n,) of each summary to the nearest unedited one of another window."""
        import torch

        out = []
        for i in range(0, len(rows), 64):
            away = torch.cdist(summaries[i : i + 64], self.summaries)
            away[torch.arange(len(away)), torch.from_numpy(rows[i : i + 64])] = torch.inf
            out.append(away.min(1).values)
        return torch.cat(out).double().numpy()

    def _shown(self) -> list[str]:
        """Streams of the grid that are not hidden."""
        s = self.grid.statistics
        return [n for n, x in s.signals.items() if x.signal not in self.hide] + (["spikes"] if s.spikes is not None and "spikes" not in self.hide else [])

    def _blinded(self, summaries: Any, grid: Any, read: set[int]) -> Any:
        """Summaries in which the windows that are read do not see the hidden streams."""
        import torch

        from brainmu.models.tokens import Hidden

        assert self.model is not None
        rows = np.array(sorted(k for k in read if 0 <= k < len(grid)), dtype=np.int64)
        out, shown = summaries.clone(), set(self._shown())
        for i in range(0, len(rows), 64):
            batch = grid.batch(rows[i : i + 64])
            hidden = [Hidden(torch.full_like(s.valid, s.name not in shown)) for s in batch.streams]
            with torch.no_grad():
                out[rows[i : i + 64]] = self.model.encoder.summary(batch, hidden)[0]
        return out

    def _read(self, summaries: Any) -> tuple[list[NDArray[np.float64]], Any]:
        """Probabilities (epoch, stage) by each head, and the context."""
        import torch

        assert self.model is not None
        out = []
        with torch.no_grad():
            context = self.model.encoder.contexts(summaries, self.present, self.grid.window)
            for m, tempering in zip(self.heads, self.tempering):
                proba = (m.read_out(summaries, context) - m.log_weight).softmax(-1).double().numpy()
                proba[~self.present.numpy()] = np.nan
                out.append(proba if tempering is None else tempering.probabilities(proba))
        return out, context


def _checked(heads: list[Any]) -> list[Any]:
    """Refits differ in their heads alone: what is encoded once then serves them all."""
    import torch

    if any(h is None for h in heads):
        raise InputError("refits are heads on one encoder: expected stagers with an encoder (method='encoder') or stage models")
    own = heads[0].encoder.state_dict()
    for i, h in enumerate(heads[1:]):
        theirs = h.encoder.state_dict()
        if h.stages != heads[0].stages or theirs.keys() != own.keys() or not all(torch.equal(own[k], theirs[k]) for k in own):
            raise InputError(f"refit {i} has another encoder or other stages than the stager: refit heads on its own encoder (brainmu.train.outcome_heads)")
    return heads


def _windows(values: NDArray[np.float64], first: NDArray[np.int64], reach: int, there: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Rows [first, first + reach) of values (epoch, …) for each place; NaN outside."""
    at = first[:, None] + np.arange(reach)
    ok = (at >= 0) & (at < len(values)) & there[:, None]
    out = values[np.where(ok, at, 0)].astype(np.float64)
    out[~ok] = np.nan
    return out


def _before_any(before: NDArray[np.float64], after: NDArray[np.float64], touched: NDArray[np.int64]) -> float:
    """Largest change of a probability in the epochs before the first edit; NaN where there are none."""
    changed = np.abs(after - before)[: touched[0]] if len(touched) else np.empty((0, 1))
    return float(np.nanmax(changed)) if np.isfinite(changed).any() else float("nan")


def _clean(own: NDArray[np.int64], touched: NDArray[np.int64], first: int) -> NDArray[np.int64]:
    """Epochs from the first that is read until the next edit."""
    later = np.r_[touched, np.iinfo(np.int32).max]
    return np.maximum(later[np.searchsorted(touched, own, side="right")] - own - first, 0)
