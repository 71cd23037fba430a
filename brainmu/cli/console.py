"""What every verb shares: its common options, progress on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

__all__ = ["Common", "emit", "key_values", "note", "open_session", "open_sessions", "progress", "refuse_existing", "refuse_folder", "warn"]


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every verb."""

    config: Annotated[Path | None, Parameter(help="YAML file with settings: keys are the long options.", group="Common")] = None
    seed: Annotated[int, Parameter(help="Seed of everything random.", group="Common")] = 0
    json: Annotated[bool, Parameter(negative="", help="Print exactly one JSON object on stdout.", group="Common")] = False
    quiet: Annotated[bool, Parameter(negative="", help="No progress and no notes on stderr.", group="Common")] = False
    debug: Annotated[bool, Parameter(negative="", help="Show the traceback of an error.", group="Common")] = False


def emit(common: Common, result: dict[str, Any], text: str) -> None:
    """The result on stdout: `result` as one JSON object with --json, else `text`."""
    from brainmu.core.effect import jsonable

    print(json.dumps(jsonable(result), allow_nan=False) if common.json else text)


def note(common: Common, text: str) -> None:
    """A line for people on stderr, unless --quiet."""
    if not common.quiet:
        print(text, file=sys.stderr)


def warn(common: Common, sentences: list[str]) -> None:
    """Notes of a recording (what was dropped, fixed or is doubtful) on stderr."""
    for s in dict.fromkeys(sentences):
        note(common, f"note: {s}")


@contextmanager
def progress(common: Common, what: str) -> Iterator[Callable[[str, float], None] | None]:
    """A progress callback (label, fraction) that draws a bar with ETA on a terminal and a line a stage elsewhere."""
    if common.quiet:
        yield None
        return
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"), TimeElapsedColumn(), TimeRemainingColumn()
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(what, total=1.0)
            yield lambda label, fraction: bars.update(task, description=f"{what}: {label}" if label else what, completed=fraction)
        return
    last: list[Any] = ["", time.monotonic()]

    def lines(label: str, fraction: float) -> None:
        # A log wants a line a stage, and one a half-minute while a stage lasts.
        if label != last[0] or time.monotonic() - last[1] > 30:
            print(f"{what}: {label} {fraction:.0%}", file=sys.stderr, flush=True)
            last[:] = [label, time.monotonic()]

    yield lines


def key_values(given: list[str] | None, flag: str) -> dict[str, Any]:
    """``["groups=[good, mua]", "rate=30000"]`` as a mapping; values are read as YAML.

    Raises UsageError where one is no ``key=value``.
    """
    import yaml

    from brainmu.errors import UsageError

    out: dict[str, Any] = {}
    for text in given or []:
        key, equals, value = text.partition("=")
        if not equals or not key.strip().isidentifier():
            raise UsageError(f"{flag} {text}: expected key=value, such as {flag} rate=30000")
        try:
            out[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"{flag} {text}: its value is not readable ({' '.join(str(error).split())})") from None
    return out


def open_sessions(paths: list[Path], common: Common | None = None) -> list[Any]:
    """Open stores; a folder of stores stands for all of them. A store that comes twice, by its path or as a copy, is opened once, and a note says so.

    Raises NotFoundError where a path holds no store.
    """
    import brainmu.store
    from brainmu.errors import NotFoundError
    from brainmu.store.places import is_url

    found: list[Path] = []
    for p in paths:
        if is_url(p) or (p / "zarr.json").exists() or not p.is_dir():
            found.append(p)
        else:
            inside = sorted(q for q in p.glob("*.zarr") if q.is_dir())
            if not inside:
                raise NotFoundError(f"{p}: holds no store (*.zarr): make one with brainmu preprocess {p} --out {p.name}.zarr")
            found += inside
    seen: dict[str, Path] = {}
    sessions = []
    for p in found:
        place = str(p) if is_url(p) else str(p.resolve())
        session = None if place in seen else brainmu.store.open(p)
        identity = place if session is None else str(session.provenance.get("identity", place))
        first = seen.get(place, seen.get(identity))
        if first is not None:
            same = "comes twice" if place in seen else f"is a copy of {first}"
            note(common or Common(), f"note: {p} {same}: it counts once")
        elif session is not None:
            sessions.append(session)
            seen[place] = seen[identity] = p
    return sessions


def open_session(path: Path) -> Any:
    """Open the one store that a verb takes.

    Raises NotFoundError where the path holds none, and UsageError where it holds several.
    """
    from brainmu.config import plural
    from brainmu.errors import UsageError

    found = open_sessions([path])
    if len(found) > 1:
        names = ", ".join(s.id for s in found[:3]) + (", …" if len(found) > 3 else "")
        raise UsageError(f"{path}: holds {plural(len(found), 'store')} ({names}), expected one: name it, and call once for each")
    return found[0]


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse before any work is done an output that is there already (unless --overwrite) or cannot be written."""
    import os

    from brainmu.errors import NotFoundError, OutputExistsError, StoreError

    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path}: exists already: choose another --out, or pass --overwrite")
    if path.is_dir():
        raise OutputExistsError(f"{path}: is a folder, expected a file: choose another --out")
    if path.parent.exists() and not path.parent.is_dir():
        raise NotFoundError(f"{path}: {path.parent} is a file, expected a folder: choose another --out")
    if not path.parent.exists():
        raise NotFoundError(f"{path}: its folder {path.parent} does not exist: make it first")
    if not os.access(path.parent, os.W_OK):
        raise StoreError(f"{path}: its folder {path.parent} cannot be written to: choose another --out")


def refuse_folder(path: Path, overwrite: bool = False) -> None:
    """Refuse before any work is done a folder for results that holds something (unless --overwrite) or cannot be made."""
    import tempfile

    from brainmu.errors import OutputExistsError, StoreError

    if path.exists() and not path.is_dir():
        raise OutputExistsError(f"{path}: is a file, expected a folder: choose another --out")
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise OutputExistsError(f"{path}: exists already: choose another --out, or pass --overwrite")
        if not (path / "config.yaml").is_file():
            raise OutputExistsError(f"{path}: holds no config.yaml, so it is no saved model and is not replaced: choose another --out")
    made: list[Path] = []
    try:
        for p in [*reversed(path.parents), path]:
            if not p.exists():
                p.mkdir()
                made.append(p)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise StoreError(f"{path}: no folder can be made or written to there ({error.strerror}): choose another --out") from None
    finally:
        for p in reversed(made):
            p.rmdir()
