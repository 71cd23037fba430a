"""Recordings in the files that instruments and other tools write, so that readers are tested on what they will meet."""

from __future__ import annotations

import contextlib
import importlib
import re
import shutil
from pathlib import Path

from brainmu.config import suggest
from brainmu.core import Recording
from brainmu.errors import BrainmuError, InputError, OutputExistsError
from brainmu.synth.native.disk import refused

__all__ = ["FORMATS", "write"]

FORMATS = {"nwb": ".nwb", "edf": ".edf", "neurosuite": "", "phy": "", "manifest": ""}
"""Formats, and how the name of the file ends; "" for a folder of files."""

_SIGNS = {"manifest": "brainmu.yaml", "phy": "params.py", "neurosuite": "*.xml"}


def write(recording: Recording, folder: str | Path, *, format: str, overwrite: bool = False) -> Path:
    """Write `recording` into `folder` as another tool would have, a block at a time, and return what :func:`brainmu.read` reads.

    What a format has no place for is left out and said (``recording.warnings``): none of them holds everything.

    Parameters
    ----------
    recording : Recording
    folder : path
        Made if it is not there; the recording becomes ``folder/ID.nwb``, ``folder/ID.edf`` or the folder ``folder/ID``.
    format : {"nwb", "edf", "neurosuite", "phy", "manifest"}
        NWB 2 (pynwb): electrical series, position, fluorescence, units, intervals. EDF+ (16 bits): voltages that start together; stages and events as
        annotations. Neurosuite: ``.xml .lfp .res .clu .evt``, stages as buzcode's ``SleepState``. Phy: a sorter's arrays with the curator's groups.
        Manifest: ``.npy`` and ``.csv`` with a ``brainmu.yaml``; holds everything, clocks included.
    overwrite : bool
        Replace what is there, if it is of the same format: a folder with anything else in it is never deleted.

    Raises
    ------
    InputError
        If the format is not known, the recording has nothing that it can hold, or (except in a manifest) a stream that it would hold runs on another
        clock than the session's: write ``brainmu.store.align(recording)``.
    OutputExistsError
        If the file or folder exists and `overwrite` is not set, or holds something else than this format.
    StoreError
        If the disk is full, or the folder cannot be written to; nothing is left behind.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> rec = Recording.from_arrays("m1", signals={"lfp": dict(values=np.zeros((5000, 2)), rate=1250.0, unit="uV", kind="lfp")})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(rec, folder, format="edf").name
    'm1.edf'
    """
    if not isinstance(format, str) or format not in FORMATS:
        raise InputError(f"format is {format!r}{suggest(str(format), FORMATS)}, expected one of {', '.join(FORMATS)}")
    name = re.sub(r"[^\w.+-]+", "_", recording.id)
    target = Path(folder) / f"{name}{FORMATS[format]}"
    if target.exists():
        _refuse_other(target, format)
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target}: exists already: choose another folder, or pass overwrite=True")
    made = [p for p in target.parents if not p.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(recording, target, name, format)
    except OSError as error:
        raise error if isinstance(error, BrainmuError) else refused(error, target) from None
    finally:
        if not target.exists():
            with contextlib.suppress(OSError):
                for folder in made:
                    folder.rmdir()
    return target


def _write_whole(recording: Recording, target: Path, name: str, format: str) -> None:
    """Write beside `target`, and put it there when it is whole."""
    partial = target.with_name(f".{name}.partial{FORMATS[format]}")
    _remove(partial)
    try:
        importlib.import_module(f"brainmu.synth.native.{format}").write(recording, partial, name)
        _remove(target)
        partial.replace(target)
    finally:
        _remove(partial)


def _refuse_other(target: Path, format: str) -> None:
    """Raise where `target` is not what this format writes: overwriting would delete it."""
    if target.is_dir() != (not FORMATS[format]):
        found = "a folder" if target.is_dir() else "a file"
        raise OutputExistsError(f"{target}: is {found}, which {format} would not replace: choose another folder")
    if target.is_dir() and any(target.iterdir()) and not any(target.glob(_SIGNS[format])):
        held = next((f"the files of {k}" for k, sign in _SIGNS.items() if any(target.glob(sign))), "other files")
        raise OutputExistsError(f"{target}: holds {held}, which {format} would delete (also with overwrite=True): write each format into a folder of its own")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
