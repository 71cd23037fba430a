"""The acquisition systems that are read through Neo: how each is recognised, which class of ``neo.rawio`` reads it, and lazy arrays over its streams."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import BrainmuError, FormatError
from brainmu.formats.lazy import Rows
from brainmu.formats.neo_mends import mended

__all__ = ["SYSTEMS", "NeoRows", "System", "files_of", "neo_errors", "open_raw", "quiet", "system_of"]

_NEO_ERRORS = (ValueError, OSError, LookupError, TypeError, AttributeError, AssertionError, RuntimeError, ArithmeticError, struct.error, EOFError)


def _files(path: Path, *patterns: str) -> bool:
    return path.is_dir() and any(next(path.glob(p), None) is not None for p in patterns)


def _starts(path: Path, *heads: bytes) -> bool:
    with path.open("rb") as f:
        start = f.read(64)
    return any(h in start[: len(h) + 4] for h in heads)


def _suffix(*suffixes: str, head: tuple[bytes, ...] = ()) -> Callable[[Path], bool]:
    return lambda p: p.is_file() and p.name.lower().endswith(suffixes) and (not head or _starts(p, *head))


def _h5(test: Callable[[Any], bool], *suffixes: str) -> Callable[[Path], bool]:
    """A file of HDF5 whose groups tell what it is."""

    def detect(path: Path) -> bool:
        if not (path.is_file() and path.name.lower().endswith(suffixes)):
            return False
        with path.open("rb") as f:
            if f.read(8) != b"\x89HDF\r\n\x1a\n":
                return False
        import h5py

        try:
            with h5py.File(path, "r") as f:
                return test(f)
        except OSError:
            return False

    return detect


def _blackrock(path: Path) -> bool:
    if not path.is_file() or not re.fullmatch(r"\.(ns[1-6]|nev)", path.suffix.lower()):
        return False
    return path.suffix.lower() != ".nev" or not _starts(path, b"########")  # Neuralynx has a .nev too


@dataclass(frozen=True)
class System:
    """A class of ``neo.rawio``, what tells a path is one, its arguments, and the kind of its voltages.

    `tested` says that a test reads a valid file; `needs` names what Neo needs besides itself.
    """

    cls: str
    detect: Callable[[Path], bool]
    arguments: dict[str, Any] = field(default_factory=dict)
    kind: str = "lfp"
    tested: bool = False
    needs: str = ""


# Gaps shorter than a millisecond are the time stamps' own jitter; longer ones become missing samples.
_GAPS = {"gap_tolerance_ms": 1.0}
SYSTEMS: dict[str, System] = {
    "SpikeGLX": System("SpikeGLXRawIO", lambda p: _files(p, *(f"{d}*.{b}.meta" for d in ("", "*/") for b in ("ap", "lf", "nidq", "obx"))), tested=True),
    "Neuralynx": System("NeuralynxRawIO", lambda p: _files(p, "*.ncs", "*.Ncs", "*.NCS", "*.ntt", "*.nse"), _GAPS, tested=True),
    "Blackrock": System("BlackrockRawIO", _blackrock, _GAPS, tested=True),
    "Plexon": System("PlexonRawIO", _suffix(".plx"), {"progress_bar": False}, tested=True),
    "Plexon 2": System("Plexon2RawIO", _suffix(".pl2"), needs="the library of Plexon for Windows (wine elsewhere)"),
    "TDT": System("TdtRawIO", lambda p: _files(p, "*.tsq", "*.tbk")),
    "Spike2": System("Spike2RawIO", _suffix(".smr")),
    "CED": System("CedRawIO", _suffix(".smrx"), needs="sonpy"),
    "NeuroExplorer": System("NeuroExplorerRawIO", _suffix(".nex"), tested=True),
    "NeuroNexus": System("NeuroNexusRawIO", _suffix(".xdat.json")),
    "AlphaOmega": System("AlphaOmegaRawIO", lambda p: _files(p, "*.mpx")),
    "Micromed": System("MicromedRawIO", _suffix(".trc", head=(b"* MICROMED",)), kind="eeg"),
    "MaxWell": System("MaxwellRawIO", _h5(lambda f: ("wells" in f or "mapping" in f) and "version" in f, ".h5", ".raw.h5")),
    "MEArec": System("MEArecRawIO", _h5(lambda f: "recordings" in f and "info" in f and "channel_positions" in f, ".h5")),
    "3Brain": System("BiocamRawIO", _h5(lambda f: "3BData" in f or "Well_A1" in f, ".brw", ".h5")),
    "SpikeGadgets": System("SpikeGadgetsRawIO", _suffix(".rec", head=(b"<?xml", b"<Configuration"))),
    "MCS": System("RawMCSRawIO", _suffix(".raw", head=(b"MC_DataTool",)), tested=True),
    "WinEDR": System("WinEdrRawIO", _suffix(".edr"), kind="other", tested=True),
    "WinWCP": System("WinWcpRawIO", _suffix(".wcp"), kind="other"),
    "Axon": System("AxonRawIO", _suffix(".abf"), kind="other"),
    "AxoGraph": System("AxographRawIO", _suffix(".axgd", ".axgx"), kind="other"),
    "Elan": System("ElanRawIO", lambda p: p.is_file() and p.suffix == ".eeg" and p.with_name(p.name + ".ent").is_file(), kind="eeg"),
    "MED": System("MedRawIO", lambda p: p.is_dir() and p.suffix.lower() == ".medd", kind="eeg", needs="dhn-med-py"),
}
"""Systems by name."""


def system_of(path: Path) -> str | None:
    """Name of the acquisition system of a file or folder, or None."""
    return next((name for name, system in SYSTEMS.items() if system.detect(path)), None)


def files_of(path: Path) -> list[str]:
    """Every file of a recording."""
    if path.is_file():
        # Blackrock keeps a recording in several files of one name.
        return [str(p.resolve()) for p in sorted(path.parent.glob(re.sub(r"([*?\[])", r"[\1]", path.stem) + ".*"))]
    return [str(p.resolve()) for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith(".")]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Neo prints and logs as it parses; warnings are caught by who reads."""
    with contextlib.redirect_stdout(io.StringIO()):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


@contextlib.contextmanager
def neo_errors(path: Path, name: str, doing: str = "read it") -> Iterator[None]:
    """Whatever Neo raises as one line that names the file."""
    try:
        yield
    except BrainmuError:
        raise
    except ImportError as error:
        needs = SYSTEMS[name].needs or str(error)
        raise FormatError(f"{path}: Neo reads {name} only with {needs} ({error}): install it, or export the recording") from None
    except Exception as error:
        # Neo has no error of its own: its parsers raise whatever they meet in a damaged file, the class Exception itself included.
        if not isinstance(error, _NEO_ERRORS) and type(error) is not Exception:
            raise
        said = " ".join(str(error).split())[:200]
        raise FormatError(f"{path}: Neo cannot {doing} as {name} ({type(error).__name__}: {said})") from None


def open_raw(path: Path, name: str) -> Any:
    """Neo's reader of `path`, its header parsed.

    Raises
    ------
    FormatError
        If Neo cannot read it, whatever it raised.
    """
    system = SYSTEMS[name]
    with neo_errors(path, name):
        cls = mended(getattr(importlib.import_module("neo.rawio"), system.cls))
        arguments: dict[str, Any] = {"dirname" if cls.rawmode == "one-dir" or path.is_dir() else "filename": str(path)} | system.arguments
        with quiet():
            raw = cls(**arguments)
            raw.parse_header()
    return raw


class NeoRows(Rows):
    """Some channels of one stream and segment, opened anew in each process."""

    def __init__(self, path: Path, system: str, raw: Any, segment: int, stream: int, channels: list[int], dtype: Any) -> None:
        self.path, self.system, self.segment, self.stream, self.channels, self.dtype = path, system, segment, stream, channels, np.dtype(dtype)
        self.shape = (int(raw.get_signal_size(block_index=0, seg_index=segment, stream_index=stream)), len(channels))
        self._raw: Any = raw

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_raw": None}

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        if j <= i:
            return np.empty((0, self.shape[1]), dtype=self.dtype)
        if self._raw is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said when the recording was opened first
                self._raw = open_raw(self.path, self.system)
        with neo_errors(self.path, self.system, f"read samples {i} to {j} of it"):
            block = self._raw.get_analogsignal_chunk(
                block_index=0, seg_index=self.segment, i_start=i, i_stop=j, stream_index=self.stream, channel_indexes=self.channels
            )
        if len(block) != j - i:
            raise FormatError(f"{self.path}: samples {i} to {j} were asked for and {len(block)} came: it is truncated, copy it again")
        return np.asarray(block)
