"""Parts of a map on disk, each written as it is done, so that hours of work go on where they were cut off."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from brainmu.core.effect import jsonable
from brainmu.errors import InputError
from brainmu.explain.parts import Part

__all__ = ["Saved", "asked_once"]

_SAME = 1e-3
"""Answers of one model about one recording may differ by so much between machines and numbers of threads."""


class Saved:
    """Parts by name, in a folder; nothing is kept where the folder is None.

    Parameters
    ----------
    folder : path or None
    question : dict
        What was asked, in plain values.
    said : float64
        What the model says of the recording; it tells another model or recording.

    Raises
    ------
    InputError
        If the folder holds parts of another question, or other files.
    """

    def __init__(self, folder: str | Path | None, question: dict[str, Any], said: NDArray[np.float64]) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        asked = json.loads(json.dumps(jsonable(question)))
        head = self.folder / "question.json"
        if not head.is_file():
            if self.folder.exists() and (not self.folder.is_dir() or any(p.suffix != ".partial" for p in self.folder.iterdir() if p.name != "answer.npz")):
                raise InputError(f"{self.folder}: holds something else than parts of a map: name another folder")
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write("answer", {"said": said})
            partial = head.with_name("question.json.partial")
            partial.write_text(json.dumps(asked, indent=1), encoding="utf-8")
            partial.replace(head)
            return
        try:
            before = dict(json.loads(head.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise InputError(f"{head}: is damaged, so nobody can tell what its parts belong to: delete the folder") from None
        if changed := [k for k in sorted({*before, *asked}) if before.get(k) != asked.get(k)]:
            k = changed[0]
            raise InputError(f"{self.folder}: holds parts of a map with {k} {before.get(k)!r}, now {asked.get(k)!r}: ask the same, or delete the folder")
        answer = self.get("answer")
        if answer is None or not _alike(answer["said"], said):
            raise InputError(f"{self.folder}: holds parts of another model's or recording's map: ask the same, or delete the folder")

    def get(self, name: str) -> dict[str, NDArray[Any]] | None:
        """The arrays of a part, or None where it is not done yet, or damaged."""
        if self.folder is None or not (path := self.folder / f"{name}.npz").is_file():
            return None
        try:
            with path.open("rb") as f, np.load(f, allow_pickle=False) as held:
                return {k: held[k] for k in held.files}
        except (ValueError, OSError, EOFError, BadZipFile):
            return None

    def put(self, name: str, **arrays: Any) -> None:
        """Keep a part; it appears whole or not at all."""
        if self.folder is not None:
            self._write(name, arrays)

    def _write(self, name: str, arrays: dict[str, Any]) -> None:
        assert self.folder is not None
        partial = self.folder / f"{name}.npz.partial"
        with partial.open("wb") as f:
            np.savez(f, **arrays)
        partial.replace(self.folder / f"{name}.npz")


def asked_once(
    saved: Saved, known: dict[frozenset[Part], float], ask: Callable[[frozenset[Part]], float]
) -> Callable[[Sequence[Collection[Part]]], NDArray[np.float64]]:
    """A function from sets of parts to log odds (set,), which asks for each set once and keeps the answer; `known` holds those that need no asking."""

    def odds(sets: Sequence[Collection[Part]]) -> NDArray[np.float64]:
        for parts in map(frozenset, sets):
            if parts not in known:
                name = f"odds.{len(known)}"
                done = saved.get(name)
                if done is None:
                    done = {"odds": np.asarray(ask(parts))}
                    saved.put(name, **done)
                known[parts] = float(done["odds"])
        return np.array([known[frozenset(parts)] for parts in sets])

    return odds


def _alike(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, atol=_SAME, equal_nan=True))
