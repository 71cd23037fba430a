"""Many synthetic animals that differ as real ones do, in one lab or several, in memory or as a folder of stores with their truth."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainmu._version import __version__
from brainmu.config import suggest
from brainmu.core import Recording
from brainmu.core.limits import number, whole
from brainmu.errors import BrainmuError, FormatError, InputError, NotFoundError, OutputExistsError, StoreError
from brainmu.synth.labs import Lab, find_lab
from brainmu.synth.recording import PRESETS, recording, usual
from brainmu.synth.saving import replacing
from brainmu.synth.truth import Truth

__all__ = ["Corpus", "corpus", "iter_corpus", "open_corpus"]

Progress = Callable[[str, float], None]
_CHILD = "import sys; sys.path[:] = {path!r}; from brainmu.synth.corpus import serve; serve()"


@dataclass(frozen=True)
class _Plan:
    """One animal, before it is made."""

    id: str
    subject: str
    species: str
    seed: int
    hours: float
    lab: Lab | None
    held_out: bool
    parameters: dict[str, Any] = field(default_factory=dict)

    def make(self) -> tuple[Recording, Truth]:
        if self.lab is None:
            return recording(self.hours, self.seed, self.species, id=self.id, subject=self.subject, **self.parameters)
        return self.lab.recording(self.hours, self.seed, id=self.id, subject=self.subject, **self.parameters)

    @property
    def key(self) -> str:
        """Text that says all that decides the bytes."""
        lab = None if self.lab is None else asdict(self.lab)
        own = asdict(self) | {"lab": lab}
        return json.dumps(own, sort_keys=True, default=repr) + __version__


def _plans(
    n_subjects: int, hours: float, seed: int, species: str, variation: float, labs: Any, held_out: Any, parameters: dict[str, Any]
) -> list[_Plan]:  # fmt: skip
    whole("n_subjects", n_subjects, 1)
    whole("seed", seed)
    number("variation", variation, most=3.0)
    own = [name for name in ("id", "subject") if name in parameters]
    if own:
        raise InputError(f"{own[0]} is {parameters[own[0]]!r}, but every animal of a corpus has its own: use recording for one animal")
    if isinstance(labs, str | Lab):
        labs = [labs]
    if labs is not None and not isinstance(labs, Iterable):
        raise InputError(f"labs is {labs!r}, expected names or Labs")
    found = [find_lab(lab) for lab in labs] if labs is not None else []
    if labs is not None and (not found or len({lab.name for lab in found}) < len(found)):
        raise InputError(f"labs are {[lab.name for lab in found]}, expected one or more, each with a name of its own")
    if found and species != "mouse" and {lab.species for lab in found} != {species}:
        raise InputError(f"species is {species!r}, but the labs record {', '.join(sorted({lab.species for lab in found}))}: leave species out")
    apart = _held_out(held_out, found)
    if apart and n_subjects < len(found):
        raise InputError(f"n_subjects is {n_subjects} for {len(found)} labs that take turns, so that some would have no animal: give {len(found)} or more")
    out = []
    for i, child in enumerate(np.random.SeedSequence(seed).spawn(n_subjects)):
        rng = np.random.default_rng(child)
        lab = found[i % len(found)] if found else None
        kind = lab.species if lab is not None else species
        given = _vary(kind, _preset(parameters, lab), variation, rng)
        if lab is not None:
            fixed = lab.arguments()
            given = {k: v for k, v in given.items() if k not in fixed}
        subject = f"{kind}{i + 1:02d}"
        own = int(rng.integers(1 << 31))
        out.append(_Plan(f"{subject}_day1", subject, kind, own, hours, lab, lab is not None and lab.name in apart, given | parameters))
    return out


def _preset(parameters: dict[str, Any], lab: Lab | None) -> str:
    preset = parameters.get("preset", "typical" if lab is None else lab.parameters.get("preset", "typical"))
    if preset not in PRESETS:
        raise InputError(f"preset is {preset!r}, expected one of {', '.join(PRESETS)}{suggest(str(preset), PRESETS)}")
    return str(preset)


def _held_out(given: Any, labs: list[Lab]) -> set[str]:
    names = [lab.name for lab in labs]
    if given and not names:
        raise InputError(f"held_out is {given!r}, but no labs are given: name them with labs=")
    if given is None or given == 0:
        return set()
    if isinstance(given, bool) or not isinstance(given, int | str | Iterable):
        raise InputError(f"held_out is {given!r}, expected a number of labs, or names of labs")
    if isinstance(given, int):
        if not 0 < given < len(names):
            raise InputError(f"held_out is {given} of {len(names)} labs, expected fewer than there are labs")
        return set(names[-given:])
    wanted = [given] if isinstance(given, str) else list(given)
    for name in wanted:
        if name not in names:
            raise InputError(f"held_out names the lab {name!r}{suggest(str(name), names)}, the corpus has {', '.join(names) or 'no labs'}")
    if len(set(wanted)) == len(names):
        raise InputError(f"held_out names all {len(names)} labs, expected at least one to train on")
    return set(wanted)


def iter_corpus(
    n_subjects: int, *, hours: float = 2.0, seed: int = 0, species: str = "mouse", variation: float = 1.0, labs: Sequence[str | Lab] | str | Lab | None = None,
    held_out: Any = None, **parameters: Any,
) -> Iterator[tuple[Recording, Truth]]:  # fmt: skip
    """The animals of :func:`corpus` one at a time, so that only one need be held."""
    for plan in _plans(n_subjects, hours, seed, species, variation, labs, held_out, parameters):
        yield plan.make()


def corpus(
    n_subjects: int, *, hours: float = 2.0, seed: int = 0, species: str = "mouse", variation: float = 1.0, labs: Sequence[str | Lab] | str | Lab | None = None,
    held_out: int | str | Sequence[str] | None = None, out: str | Path | None = None, jobs: int = 1, overwrite: bool = False,
    progress: Progress | None = None, store: Mapping[str, Any] | None = None, **parameters: Any,
) -> Any:  # fmt: skip
    """Recordings of `n_subjects` different animals, each with its truth; in memory, or as stores in a folder.

    Parameters
    ----------
    n_subjects : int
        Subjects are "mouse01", "mouse02", … ("rat01", "human01").
    hours : float, h
        Length of each recording.
    seed : int
        Same seed, same corpus; the first animals of a larger corpus are those of a smaller one.
    species : {"mouse", "rat", "human"}
        Where no labs are named.
    variation : float
        How much the animals differ: 0 not at all, 1 as real ones (gains, noise, frequencies, number of channels and cells, sleep need).
    labs : names or Labs
        Labs of :data:`LABS`, or your own, that take turns with the animals. What a lab fixes (channels, rates, …) does not vary within it.
    held_out : int, name or names of labs
        Labs that are kept apart for testing: the last so many, or by name. Their animals are like the others; only the lab is new.
    out : folder
        Write a store and the truth of each recording there, and ``corpus.json``, which says what is what. The same call goes on where an interrupted
        one stopped.
    jobs : int
        Processes that write; the bytes do not depend on it.
    overwrite : bool
        Write again what another call left at `out`.
    progress : callable
        Called with a sentence and a fraction from 0 to 1.
    store : mapping
        Options of :func:`brainmu.store.preprocess`, such as ``{"compression": "lz4", "derive": ["speed"]}``.
    **parameters
        Anything :func:`~brainmu.synth.recording` takes; fixed for all animals. ``preset="easy"``, ``"typical"`` or ``"hard"`` among them.

    Returns
    -------
    list of (Recording, Truth), or Corpus where `out` is given

    Raises
    ------
    InputError
        If a parameter cannot be right.
    OutputExistsError
        If `out` holds another corpus.
    StoreError
        If some recordings could not be written; the others are, and the same call goes on with those.

    Examples
    --------
    >>> pairs = corpus(2, hours=0.2, seed=3, n_cells=10)
    >>> [rec.subject for rec, truth in pairs]
    ['mouse01', 'mouse02']
    """
    plans = _plans(n_subjects, hours, seed, species, variation, labs, held_out, parameters)
    if out is None:
        return [plan.make() for plan in plans]
    whole("jobs", jobs, 1)
    if not isinstance(out, str | os.PathLike) or not str(out):
        raise InputError(f"out is {out!r}, expected the path of a folder")
    if store is not None and not isinstance(store, Mapping):
        raise InputError(f"store is {store!r}, expected a mapping of options of brainmu.preprocess, such as {{'compression': 'lz4'}}")
    if progress is not None and not callable(progress):
        raise InputError(f"progress is {progress!r}, expected a function of a sentence and a fraction")
    folder = Path(out)
    about = {
        "version": 1,
        "brainmu_version": __version__,
        "seed": seed,
        "hours": hours,
        "variation": variation,
        "parameters": json.loads(json.dumps(parameters, default=repr)),
    }
    about |= {"labs": {p.lab.name: json.loads(json.dumps(asdict(p.lab), default=repr)) for p in plans if p.lab is not None}}
    about |= {"recordings": [_row(p) for p in plans]}
    _claim(folder, about, overwrite)
    _write_all(plans, folder, jobs, overwrite, dict(store or {}), progress or (lambda text, fraction: None))
    _write_text(folder / "corpus.json", json.dumps(about, indent=1))
    return open_corpus(folder)


# -- a folder of stores ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Corpus:
    """A folder of stores and their truth.

    Attributes
    ----------
    folder : Path
    table : DataFrame
        A row a recording: id, subject, species, lab, held_out, store, truth (paths from the folder).
    about : dict
        ``corpus.json``: seed, hours, parameters, labs.
    """

    folder: Path
    table: pd.DataFrame
    about: dict[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.table)

    def stores(self, *, held_out: bool | None = None) -> list[Path]:
        """Paths of the stores; only those of the held-out labs, or only the others, if asked for."""
        rows = self.table if held_out is None else self.table[self.table["held_out"] == held_out]
        return [self.folder / p for p in rows["store"]]

    def truth(self, id: str) -> Truth:
        """The truth of a recording. Raises InputError if there is none of that id."""
        row = self.table[self.table["id"] == id]
        if row.empty:
            raise InputError(f"{self.folder}: has no recording {id!r}{suggest(id, list(self.table['id']))}")
        return Truth.load(self.folder / row["truth"].iloc[0])


def open_corpus(folder: str | Path) -> Corpus:
    """The corpus that :func:`corpus` wrote to `folder`.

    Raises
    ------
    NotFoundError
        If there is no ``corpus.json``.
    FormatError
        If it is damaged.
    """
    path = Path(folder) / "corpus.json"
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file, expected a folder that synth.corpus(…, out=…) wrote whole")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        table = pd.DataFrame(about["recordings"])
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise FormatError(f"{path}: is damaged ({error}): run the same synth.corpus call again") from None
    return Corpus(Path(folder), table, about)


def _row(p: _Plan) -> dict[str, Any]:
    lab = "" if p.lab is None else p.lab.name
    return {"id": p.id, "subject": p.subject, "species": p.species, "lab": lab, "held_out": p.held_out, "store": f"{p.id}.zarr", "truth": f"{p.id}.truth.npz"}


def _claim(folder: Path, about: dict[str, Any], overwrite: bool) -> None:
    """Make the folder, or see that it holds this corpus, or part of it, and nothing else."""
    path = folder / "corpus.json"
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder}: is a file, expected a folder for the corpus")
    if path.is_file() and not overwrite:
        other = _other_corpus(path, about)
        if other:
            raise OutputExistsError(f"{folder}: holds another corpus ({other}): choose another folder, or pass overwrite=True")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made ({error.strerror or error}): choose a place that can be written to") from None


def _other_corpus(path: Path, about: dict[str, Any]) -> str:
    """What of the corpus that a folder holds is not as asked for, for people; "" where nothing."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        rows = [dict(r) for r in held["recordings"]]
    except (ValueError, KeyError, TypeError):
        return ""  # damaged: each recording's own note says what it is, and the list is written again
    for key in ("version", "seed", "hours", "variation", "parameters"):
        if held.get(key) != about[key]:
            return f"{key} {held.get(key)!r}, asked for {about[key]!r}"
    small, large = sorted((rows, about["recordings"]), key=len)
    for a, b in zip(small, large):
        if a != b:
            return "other " + ", ".join(k for k in b if a.get(k) != b[k]) + f" of {b['id']}"
    return f"{len(rows)} recordings, asked for {len(about['recordings'])}: a corpus can grow, not shrink" if len(rows) > len(about["recordings"]) else ""


def _write_all(plans: list[_Plan], folder: Path, jobs: int, overwrite: bool, store: dict[str, Any], progress: Progress) -> None:
    stopped = threading.Event()
    failed: list[str] = []
    with ThreadPoolExecutor(jobs) as writers:
        task = _in_process if jobs == 1 else _in_child
        waiting: dict[Future[bool], _Plan] = {writers.submit(task, p, folder, overwrite, store, stopped): p for p in plans}
        done = 0
        try:
            while waiting:
                for result in wait(waiting, return_when=FIRST_COMPLETED).done:
                    plan = waiting.pop(result)
                    done += 1
                    try:
                        progress(f"{plan.id}: {'written' if result.result() else 'already complete'}", done / len(plans))
                    except BrainmuError as error:
                        failed.append(f"{plan.id}: {error}")
                        progress(failed[-1], done / len(plans))
        except BaseException:
            stopped.set()
            for result in waiting:
                result.cancel()
            raise
    if failed:
        raise StoreError(
            f"{len(failed)} of {len(plans)} recordings were not written, the first because {failed[0]}; once that is mended the same call goes on with them"
        )


def _in_process(plan: _Plan, folder: Path, overwrite: bool, store: dict[str, Any], stopped: threading.Event) -> bool:
    return not stopped.is_set() and write_one(plan, folder, overwrite, store)


def _in_child(plan: _Plan, folder: Path, overwrite: bool, store: dict[str, Any], stopped: threading.Event) -> bool:
    """Have a plain interpreter write one recording: nothing is forked, and the calling script is not run again."""
    if stopped.is_set() or _is_written(plan, folder, store):
        return False
    try:
        work = pickle.dumps((plan, folder, overwrite, store))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(f"its parameters cannot go to another process ({error}): use jobs=1") from None
    with subprocess.Popen([sys.executable, "-c", _CHILD.format(path=sys.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(work)
            child.stdin.close()
        heard = threading.Thread(target=_kill_when, args=(stopped, child), daemon=True)
        heard.start()
        answer = child.stdout.read()
        code = child.wait()
    if not answer:
        raise StoreError(f"the process that wrote it ended with code {code} and without an answer: if it printed nothing, memory ran out; use fewer jobs")
    result = pickle.loads(answer)
    if isinstance(result, BaseException):
        raise result
    return bool(result)


def _kill_when(stopped: threading.Event, child: subprocess.Popen[bytes]) -> None:
    while child.poll() is None:
        if stopped.wait(0.2):
            child.kill()


def serve() -> None:
    """Write the one recording that comes through stdin, and answer through stdout."""
    answer, sys.stdout = sys.stdout.buffer, sys.stderr  # what libraries print must not mix with the answer
    plan, folder, overwrite, store = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        result: Any = write_one(plan, folder, overwrite, store)
    except BrainmuError as error:
        result = error
    with contextlib.suppress(BrokenPipeError):  # the parent was stopped
        answer.write(pickle.dumps(result))
        answer.flush()


def _end_with(parent: int) -> None:
    """A child whose parent was killed must not go on writing where the next run begins."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def write_one(plan: _Plan, folder: Path, overwrite: bool, store: dict[str, Any]) -> bool:
    """Write the store and truth of one recording; False where both were there."""
    from brainmu.store import preprocess

    if _is_written(plan, folder, store):
        return False
    note, path = _note(plan, folder), folder / f"{plan.id}.zarr"
    if path.exists() and not overwrite and note.exists() and note.read_text(encoding="utf-8").partition("\n")[0] != _stamp(plan, store):
        raise OutputExistsError(f"{path}: was made with other parameters: choose another folder, or pass overwrite=True")
    rec, truth = plan.make()
    preprocess(rec, path, overwrite=overwrite, threads=1, **store)
    truth.save(folder / f"{plan.id}.truth.npz")
    # Last: what says that both are whole.
    _write_text(note, _whole(plan, folder, store))
    return True


def _note(plan: _Plan, folder: Path) -> Path:
    return folder / f".{plan.id}.made"


def _stamp(plan: _Plan, store: dict[str, Any]) -> str:
    return plan.key + json.dumps(store, sort_keys=True, default=repr)


def _whole(plan: _Plan, folder: Path, store: dict[str, Any]) -> str:
    """What is noted of a recording that was written whole: all that decides its bytes, and the size of its truth."""
    return f"{_stamp(plan, store)}\ntruth {(folder / f'{plan.id}.truth.npz').stat().st_size} bytes"


def _is_written(plan: _Plan, folder: Path, store: dict[str, Any]) -> bool:
    note = _note(plan, folder)
    there = (folder / f"{plan.id}.zarr").is_dir() and (folder / f"{plan.id}.truth.npz").is_file() and note.is_file()
    return there and note.read_text(encoding="utf-8") == _whole(plan, folder, store)


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _vary(species: str, preset: str, v: float, rng: np.random.Generator) -> dict[str, Any]:
    """One animal's parameters, around those of its species and preset."""
    z = v * np.clip(rng.standard_normal(8), -2.0, 2.0)
    if species == "human":
        typical = usual(species, preset, ("gain", "spindle_rate", "difficulty", "latency"))
        own = {"spindle_frequency": usual(species, preset, ("spindle_frequency",))["spindle_frequency"] + 0.45 * float(z[4])}
        return {k: float(m * np.exp(sd * x)) for (k, m), sd, x in zip(typical.items(), (0.25, 0.35, 0.25, 0.4), z)} | own
    typical = usual(species, preset, ("gain", "emg_gain", "theta_frequency", "hum", "ripple_frequency", "wake_rate"))
    out = {k: float(typical[k] * np.exp(sd * z[i])) for i, k, sd in ((0, "gain", 0.25), (1, "emg_gain", 0.35), (3, "hum", 0.8), (5, "wake_rate", 0.2))}
    out |= {k: typical[k] + sd * float(z[i]) for i, k, sd in ((2, "theta_frequency", 0.35), (4, "ripple_frequency", 6.0))}
    return out | {"n_channels": int(np.clip(4 + round(1.5 * z[6]), 2, 8)), "n_cells": int(np.clip(40 + round(10 * z[7]), 16, 80))}
