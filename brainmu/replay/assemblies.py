"""Cell assemblies: groups of units that fire together beyond chance, how strongly each is active, and when.

1. Spike counts of one epoch in bins of 10 to 50 ms, z-scored unit by unit, give the correlation matrix.
2. The number of assemblies is how many of its eigenvalues exceed what independent units would give: the Marchenko-Pastur bound, or
   the 99th percentile of the largest eigenvalue of trains that were shifted circularly.
3. Templates are the eigenvectors (PCA), or the independent components within the space they span (ICA), which may share units.
4. Strength at any time is z' P z, where P is the template's outer product with a zero diagonal: one unit's bursts count for nothing.
   Nor do pairs of units on one electrode, in 1 and 4, where the units table names it: clusters that share spikes look like assemblies.

References
----------
Peyrache, Benchenane, Khamassi, Wiener & Battaglia (2010), J Comput Neurosci 29:309 (PCA, Marchenko-Pastur, reactivation strength).
Lopes-dos-Santos, Ribeiro & Tort (2013), J Neurosci Methods 220:149 (ICA).
van de Ven, Trouche, McNamara, Allen & Dupret (2016), Neuron 92:968 (trains convolved with a Gaussian, zero diagonal).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import Intervals, Recording, Spikes
from brainmu.errors import FormatError, InputError, MissingDataError, NotFoundError
from brainmu.replay.decode import bins_within, counts_in
from brainmu.replay.epochs import epochs_of, spikes_of
from brainmu.replay.fields import select_units

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Assemblies", "fit_assemblies"]

Float = NDArray[np.float32]

_BINS = (0.01, 0.05)
_ELECTRODES = ("tetrode", "shank", "group", "electrode_group", "electrode", "channel", "peak_channel")
_VERSION = 1


@dataclass(frozen=True)
class Assemblies:
    """Assemblies of one epoch of one recording.

    Attributes
    ----------
    templates : float32 (assembly, unit)
        Weights, each row of norm 1, its largest weight positive; strongest assembly first.
    units : int32 (unit,)
        Ids of the units, in the order of the columns.
    regions : tuple of str
        Region of each unit ("" where unknown).
    names : tuple of str
        What the events' `content` says of each assembly.
    bin_size : float, s
    method, number : str
        "ica" or "pca"; how the number of assemblies was told.
    eigenvalues : float64 (unit,)
        Of the correlation matrix, falling.
    bound : float
        The largest eigenvalue that independent units would give.
    during : Intervals
        What the templates rest on.
    recording : str
        Id of the recording they come from.
    matched : tuple of int
        Units carried over, and units there were; the same number twice where the templates have not been carried.
    same : str
        Column of the units table that names the electrode: pairs on one electrode count for nothing. "" where all pairs count.
    """

    templates: Float
    units: NDArray[np.int32]
    regions: tuple[str, ...]
    names: tuple[str, ...]
    bin_size: float
    method: str
    number: str
    eigenvalues: NDArray[np.float64]
    bound: float
    during: Intervals
    recording: str = ""
    matched: tuple[int, int] = field(default=(0, 0))
    same: str = ""
    subject: str = ""

    def __len__(self) -> int:
        return len(self.templates)

    @property
    def members(self) -> list[list[int]]:
        """Ids of the units of each assembly that weigh more than 1 / sqrt(units), what all would weigh if they had equal parts in it."""
        return [self.units[w > 1 / np.sqrt(len(w))].tolist() for w in self.templates]

    def carried_to(self, recording: Recording, units: Mapping[int, int] | None = None, *, least: float = 0.8) -> Assemblies:
        """The templates for another recording of the same units, such as the next day's.

        Parameters
        ----------
        units : mapping of id here to id there, or None
            Which unit is which; None takes equal ids for the same unit.
        least : float
            Share of every template's squared weight that the units found again must hold.

        Returns
        -------
        Assemblies
            Columns are the units found again, templates are scaled to norm 1, `matched` says how many of how many were found.

        Raises
        ------
        MissingDataError
            If too few units match: the message says how many.
        InputError
            If the recording is of another subject and `units` is None, units that are said to be the same lie in different regions, or two map to one.
        """
        there = spikes_of(recording).units
        if units is None and self.subject and recording.subject and self.subject != recording.subject:
            raise InputError(
                f"assemblies: the templates are of {self.subject}, {recording.id} is of {recording.subject}, so equal ids are not the same units: "
                "pass units={id here: id there}, or fit assemblies anew"
            )
        pairs = {int(u): int(u) for u in self.units} if units is None else {int(a): int(b) for a, b in units.items()}
        wanted = [pairs.get(int(u)) for u in self.units]
        known = set(there["id"].tolist())
        keep = np.array([w is not None and w in known for w in wanted], dtype=bool)
        ids = np.array([w for w, k in zip(wanted, keep) if k], dtype=np.int32)
        who = f"{int(keep.sum())} of {len(keep)} units of {self.recording or 'the templates'} are in {recording.id}"
        if len(set(ids.tolist())) < len(ids):
            raise InputError(f"assemblies: two units map to one ({who}), expected one unit each")
        region = dict(zip(there["id"].tolist(), there["region"].astype(str)))
        moved = [(u, a, region[u]) for u, a in zip(ids.tolist(), np.array(self.regions, dtype=object)[keep]) if a and region[u] and a != region[u]]
        if moved:
            u, a, b = moved[0]
            raise InputError(f"assemblies: unit {u} lies in {b} and was in {a}, so equal ids are not the same units ({who}): pass units={{id here: id there}}")
        held = (self.templates[:, keep] ** 2).sum(1)
        if keep.sum() < 2 or (held < least).any():
            worst = float(held.min(initial=1.0))
            raise MissingDataError(
                f"assemblies: {who}, which hold {worst:.0%} of a template's squared weight, expected at least {least:.0%}: "
                "pass units={id here: id there}, or fit assemblies anew"
            )
        kept = self.templates[:, keep] / np.sqrt(np.maximum(held, 1e-12))[:, None]
        return replace(
            self, templates=kept.astype(np.float32), units=ids, regions=tuple(region[int(u)] for u in ids), matched=(int(keep.sum()), len(keep))
        )  # fmt: skip

    def strength(self, recording: Recording, spans: str | Intervals | None = "rest", *, step: float = 0.002) -> xr.DataArray:
        """Strength (time, assembly) every `step` s of `spans`.

        Trains are convolved with a Gaussian of SD bin_size / sqrt(12) and z-scored over `spans`. A unit that is silent there counts
        for nothing.

        Raises
        ------
        MissingDataError
            If the recording lacks units of the templates (see :meth:`carried_to`).
        """
        from brainmu.replay.activations import strength

        return strength(self, recording, spans, step)

    # -- files ----------------------------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write the templates to a file (.npz), whole or not at all."""
        p = Path(path)
        about = {
            "version": _VERSION, "names": self.names, "regions": self.regions, "bin_size": self.bin_size, "method": self.method, "number": self.number,
            "bound": self.bound, "recording": self.recording, "subject": self.subject, "matched": self.matched, "same": self.same,
        }  # fmt: skip
        part = p.with_name(f"{p.name}.part")
        with open(part, "wb") as file:
            np.savez(
                file, templates=self.templates, units=self.units, eigenvalues=self.eigenvalues, during=self.during.bounds,
                about=np.array(json.dumps(about)),
            )  # fmt: skip
        part.replace(p)

    @classmethod
    def load(cls, path: str | Path) -> Assemblies:
        """Read what :meth:`save` wrote."""
        p = Path(path)
        if not p.exists():
            raise NotFoundError(f"{p}: no such file, expected assemblies written by Assemblies.save")
        try:
            with open(p, "rb") as file, np.load(file, allow_pickle=False) as f:
                about = json.loads(str(f["about"]))
                found = {k: f[k] for k in ("templates", "units", "eigenvalues", "during")}
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise FormatError(f"{p}: not a file of assemblies ({error}), expected one written by Assemblies.save") from None
        if about.pop("version", None) != _VERSION:
            raise FormatError(f"{p}: assemblies of another version, expected version {_VERSION}: fit and save them anew")
        tuples = {k: tuple(about.pop(k)) for k in ("names", "regions", "matched")}
        return cls(during=Intervals(found.pop("during")), **found, **tuples, **about)

    def __repr__(self) -> str:
        return f"Assemblies({len(self)} of {len(self.units)} units, {self.method}, {self.bin_size * 1000:g} ms, {self.number})"


def fit_assemblies(
    recording: Recording, during: str | Intervals | None = "run", *, bin_size: float = 0.025, method: Literal["ica", "pca"] = "ica",
    number: int | Literal["circular-shift", "marchenko-pastur"] = "circular-shift", shifts: int = 200, same: str | None = None, least_spikes: int = 50,
    fastest: float = 30.0, context: str = "", seed: int = 0,
) -> Assemblies:  # fmt: skip
    """Assemblies of the units that fire in `during`.

    Parameters
    ----------
    during : str, Intervals or None
        Label of epochs, or epochs; "run" and "rest" are derived from speed where the recording has no such label.
    bin_size : float, s
        10 to 50 ms.
    method : {"ica", "pca"}
    number : {"circular-shift", "marchenko-pastur"} or int
        How many: eigenvalues above the 99th percentile of the largest eigenvalue over `shifts` draws in which every unit's counts are
        shifted circularly (each keeps its own rhythm), or above the Marchenko-Pastur bound (independent units without memory, which
        independent cells that fire bursts exceed); or a number.
    same : str or None
        Column of the units table: the correlations of pairs with an equal value are set to 0, for spikes of one unit that end up in another's
        cluster look like an assembly. None takes the first of tetrode, shank, group, electrode_group, electrode, channel and
        peak_channel that the table has; "" keeps all pairs.
    least_spikes, fastest : int, float (Hz)
        Units with fewer spikes in `during`, or a higher mean rate, are left out.
    context : str
        Names the assemblies ("A 0", "A 1", …): the track, cue or valence of the epochs.

    Returns
    -------
    Assemblies
        Without any template where no eigenvalue exceeds chance: that is a result.

    Raises
    ------
    MissingDataError
        Without spikes, epochs, or with fewer than three units.
    InputError
        If the bin size, method or number is out of range, or there are fewer bins than units.
    """
    spikes, spans = _usable(recording, during, least_spikes, fastest)
    _check(bin_size, method)
    z, ids = _z_counts(spikes, spans, bin_size)
    n_bins, n = z.shape
    if n_bins <= n:
        raise InputError(f"assemblies: {n_bins} bins of {bin_size:g} s and {n} units, expected more bins than units: give longer epochs")
    one_electrode, column = electrode_pairs(spikes.units, same)
    value, vector = np.linalg.eigh(_correlations(z, one_electrode))
    value, vector = value[::-1].astype(np.float64), vector[:, ::-1]
    rng = np.random.default_rng(seed)
    marchenko = float((1 + np.sqrt(n / n_bins)) ** 2)
    bound, how = (_shift_bound(z, one_electrode, shifts, rng), "circular-shift") if number == "circular-shift" else (marchenko, "marchenko-pastur")
    if number in ("circular-shift", "marchenko-pastur"):
        k = int((value > bound).sum())
    elif isinstance(number, (int, np.integer)) and not isinstance(number, bool) and 1 <= number <= n:
        k, how = int(number), "given"
    else:
        raise InputError(f"assemblies: number is {number!r}, expected 'marchenko-pastur', 'circular-shift' or a whole number from 1 to {n}")
    templates = vector[:, :k].T if method == "pca" or k < 1 else _independent(z, vector[:, :k], rng)
    templates = _ordered(templates, z)
    region = dict(zip(spikes.units["id"].tolist(), spikes.units["region"].astype(str)))
    return Assemblies(
        templates.astype(np.float32), ids, tuple(region[int(u)] for u in ids), tuple(f"{context or 'assembly'} {i}" for i in range(k)), float(bin_size),
        method, how, value, bound, spans, recording.id, (n, n), column, recording.subject,
    )  # fmt: skip


def z_scored(counts: NDArray[Any]) -> Float:
    """Counts (bin, unit) with mean 0 and SD 1 a unit; a unit that never varies becomes 0."""
    x = counts.astype(np.float32)
    x -= x.mean(0)
    sd = x.std(0)
    return np.divide(x, sd, out=np.zeros_like(x), where=sd > 0)


# -- fitting ------------------------------------------------------------------------------------------------------------


def _usable(recording: Recording, during: str | Intervals | None, least: int, fastest: float) -> tuple[Spikes, Intervals]:
    spikes = spikes_of(recording)
    spans = epochs_of(recording, during, "assemblies")
    inside = spans.contains(spikes.times)
    there = Spikes(spikes.times[inside], spikes.unit_id[inside], spikes.units)
    kept, _ = select_units(there, least, fastest)
    if kept.n_units < 3:
        raise MissingDataError(f"{recording.id}: {kept.n_units} units fire at least {least} spikes in these epochs, expected three or more for assemblies")
    return kept, spans


def _check(bin_size: float, method: str) -> None:
    if not _BINS[0] <= bin_size <= _BINS[1]:
        raise InputError(f"assemblies: bins of {bin_size:g} s, expected {_BINS[0]:g} to {_BINS[1]:g} s")
    if method not in ("ica", "pca"):
        raise InputError(f"assemblies: method is {method!r}, expected 'ica' or 'pca'")


def _z_counts(spikes: Spikes, spans: Intervals, bin_size: float) -> tuple[Float, NDArray[np.int32]]:
    """z-scored counts (bin, unit) in whole bins of `spans`, and the ids of the columns."""
    bins = bins_within(spans, bin_size)
    bins = bins[bins[:, 1] - bins[:, 0] > 0.999 * bin_size]
    return z_scored(counts_in(spikes, bins)), spikes.units["id"].to_numpy().astype(np.int32)


def electrode_pairs(units: pd.DataFrame, same: str | None) -> tuple[NDArray[np.bool_], str]:
    """Which pairs (unit, unit) of two units lie on one electrode, and the column of the units table that says so ("" for none)."""
    have = [str(c) for c in units.columns]
    if same and same not in have:
        raise InputError(f"pairs on one electrode: the units table has no column {same!r}, it has {', '.join(have)}: name another, or '' to keep all pairs")
    column = next((c for c in _ELECTRODES if c in have), "") if same is None else same
    out = np.zeros((len(units), len(units)), dtype=bool)
    if column:
        value = units[column].astype(str).to_numpy()
        out = (value[:, None] == value) & (value != "")[:, None] & ~np.eye(len(units), dtype=bool)
    return out, column


def _correlations(z: Float, without: NDArray[np.bool_]) -> Float:
    return np.where(without, np.float32(0), z.T @ z / np.float32(len(z)))


def _shift_bound(z: Float, without: NDArray[np.bool_], shifts: int, rng: np.random.Generator) -> float:
    if shifts < 20:
        raise InputError(f"assemblies: {shifts} circular shifts, expected at least 20")
    top, trains = [], np.ascontiguousarray(z.T)
    for _ in range(shifts):
        other = np.stack([np.roll(train, s) for train, s in zip(trains, rng.integers(0, len(z), len(trains)))])
        top.append(float(np.linalg.eigvalsh(_correlations(other.T, without))[-1]))
    return float(np.quantile(top, 0.99))


def _independent(z: Float, vector: Float, rng: np.random.Generator, rounds: int = 500) -> NDArray[np.float64]:
    """Independent components (component, unit) in the space of the leading eigenvectors: symmetric FastICA with tanh."""
    inside = (z @ vector).astype(np.float64)
    value, turn = np.linalg.eigh(inside.T @ inside / len(inside))
    white = inside @ turn / np.sqrt(np.maximum(value, 1e-12))
    w = _symmetric(rng.standard_normal((len(value), len(value))))
    for _ in range(rounds):
        g = np.tanh(white @ w.T)
        new = _symmetric(g.T @ white / len(white) - (1 - g**2).mean(0)[:, None] * w)
        close = float(np.abs(np.abs((new * w).sum(1)) - 1).max())
        w = new
        if close < 1e-6:
            break
    return w @ turn.T @ vector.T.astype(np.float64)


def _symmetric(w: NDArray[np.float64]) -> NDArray[np.float64]:
    u, _, v = np.linalg.svd(w)
    return u @ v


def _ordered(templates: NDArray[Any], z: Float) -> NDArray[Any]:
    """Norm 1, largest weight positive, strongest first (the variance that z has along the template)."""
    if not len(templates):
        return templates.reshape(0, z.shape[1])
    t = templates / np.linalg.norm(templates, axis=1, keepdims=True)
    t *= np.sign(t[np.arange(len(t)), np.abs(t).argmax(1)])[:, None]
    return t[np.argsort(-((z @ t.T) ** 2).mean(0), kind="stable")]
