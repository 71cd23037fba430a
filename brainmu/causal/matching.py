"""Which unexposed epochs an exposed one is compared with: as old in their bout, of the same animal, nearest in the rest; and how alike they came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.hazard import HazardModel, design_matrix
from brainmu.causal.logistic import fit_or_shrink, independent_columns
from brainmu.causal.risk_set import RiskSet
from brainmu.errors import DesignError

__all__ = ["CALIPERS", "DISTANCES", "MatchedSets", "Matching", "balance", "exposure_arms", "match_rows"]

DISTANCES = ("propensity", "mahalanobis")
CALIPERS = {"propensity": 0.2, "mahalanobis": 0.5}
_CHUNK = 256  # exposed rows compared at a time, so that memory stays at chunk x unexposed rows


@dataclass(frozen=True)
class Matching:
    """How exposed epochs are matched.

    Parameters
    ----------
    matches : int
        Most unexposed epochs an exposed one.
    distance : {"propensity", "mahalanobis"}
        Nearest in the log odds of exposure given time in bout, clock and covariates; or in clock and covariates themselves.
    caliper : float or None, SD within animals
        Greatest difference allowed in any one of those; None is 0.2 (propensity) or 0.5 (mahalanobis).
    """

    matches: int = 5
    distance: Literal["propensity", "mahalanobis"] = "propensity"
    caliper: float | None = None

    def __post_init__(self) -> None:
        if self.matches != int(self.matches) or self.matches < 1:
            raise DesignError(f"matches is {self.matches}, expected a whole number of unexposed epochs an exposed one: 5 is the default")
        if self.distance not in DISTANCES:
            raise DesignError(f"distance is {self.distance!r}, expected one of {', '.join(DISTANCES)}")
        if self.caliper is not None and not (np.isfinite(self.caliper) and self.caliper > 0):
            raise DesignError(f"caliper is {self.caliper}, expected a positive number of standard deviations")

    @property
    def width(self) -> float:
        """The caliper in force, SD."""
        return CALIPERS[self.distance] if self.caliper is None else float(self.caliper)


@dataclass
class MatchedSets:
    """Exposed rows, each with up to k unexposed ones.

    Attributes
    ----------
    exposed : int (s,)
        Rows of the risk set that found a match; control : int (s, k), -1 where fewer were found.
    unmatched : int (u,)
        Exposed rows without any.
    names : list of str
        What was matched on.
    """

    exposed: NDArray[np.intp]
    control: NDArray[np.intp]
    unmatched: NDArray[np.intp]
    names: list[str]

    @property
    def size(self) -> NDArray[np.int64]:
        """Controls of each set (s,)."""
        return (self.control >= 0).sum(1)

    def weights(self, animal: NDArray[np.int64], n_animals: int) -> NDArray[np.float64]:
        """Weight of each row (n,) in its animal's mean difference: sets count equally, controls share their set's weight."""
        n = len(animal)
        there = self.control >= 0
        shared = np.repeat(1 / self.size, self.size)
        w = np.bincount(self.exposed, minlength=n) - np.bincount(self.control[there], shared, n)
        sets = np.bincount(animal[self.exposed], minlength=n_animals)
        return w / np.maximum(sets, 1)[animal]

    def uses(self, n: int) -> NDArray[np.int64]:
        """In how many sets each of `n` rows serves as a control."""
        return np.bincount(self.control[self.control >= 0], minlength=n)


def exposure_arms(rows: RiskSet, content: str | tuple[str, str] | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Exposed and unexposed rows. With a content, rows that hold events of another one belong to neither.

    Raises DesignError where a content does not occur or an arm is empty.
    """
    for c in (content,) if isinstance(content, str) else content or ():
        if c not in rows.contents:
            raise DesignError(f"content {c!r} does not occur among the events, they have {', '.join(map(repr, rows.contents))}")
    dose = rows.dose > 0

    def only(c: str) -> NDArray[np.bool_]:
        i = rows.contents.index(c)
        return dose[:, i] & (dose.sum(1) == 1)

    exposed, unexposed = dose.any(1), ~dose.any(1)
    if isinstance(content, str):
        exposed = only(content)
    elif content is not None:
        exposed, unexposed = only(content[0]), only(content[1])
    if not exposed.any() or not unexposed.any():
        raise DesignError(
            f"of {len(rows)} epochs at risk {int(exposed.sum())} are exposed and {int(unexposed.sum())} can serve as their match, expected some of both: "
            "check the events' clock, content and lag"
        )
    return exposed, unexposed


def match_rows(rows: RiskSet, exposed: NDArray[np.bool_], unexposed: NDArray[np.bool_], model: HazardModel, matching: Matching) -> MatchedSets:
    """Nearest unexposed rows of the same animal at exactly the same time in bout, within the caliper; a row may serve in several sets.

    Nothing but the same time in bout will do. Long bouts give many epochs, most of which do not end them: epochs of a long bout matched
    to other times in other bouts look too safe, and epochs matched within their own bout are safe until its last one, which few others
    lie next to. Either way an exposure that does nothing moved the odds by a tenth to a third. At one time in bout, all who got
    that far are alike.
    """
    place = rows.animal * (int(rows.age.max()) + 1) + rows.age
    # Only epochs at a time in bout that holds both arms can be compared; what exposes others is of no account.
    shared = np.isin(place, np.intersect1d(place[exposed], place[unexposed]))
    exposed, unexposed, all_exposed = exposed & shared, unexposed & shared, exposed
    if not shared.any():
        return MatchedSets(np.empty(0, np.intp), np.empty((0, matching.matches), np.intp), np.flatnonzero(all_exposed), ["time in bout"])
    names, coordinates = _coordinates(rows, exposed, unexposed, model, matching)
    caliper = matching.width if names else np.inf
    if not names:
        # Nothing is to be alike but time in bout: the nearest in time.
        coordinates = rows.onset_hours[:, None]
    spread = np.cov(_within(coordinates, rows.animal), rowvar=False).reshape(coordinates.shape[1], -1)
    values, vectors = np.linalg.eigh(spread)
    keep = values > 1e-6 * values.max(initial=1e-12)
    white = coordinates @ vectors[:, keep] / np.sqrt(values[keep])
    control = np.full((len(rows), matching.matches), -1, dtype=np.intp)
    for p in np.unique(place[exposed]):
        treated, pool = (np.flatnonzero(arm & (place == p)) for arm in (exposed, unexposed))
        for i in range(0, len(treated), _CHUNK):
            some = treated[i : i + _CHUNK]
            control[some] = _nearest(some, pool, coordinates, white, rows.onset_hours, caliper, matching.matches)
    treated = np.flatnonzero(all_exposed)
    found = control[treated, 0] >= 0
    return MatchedSets(treated[found], control[treated[found]], treated[~found], ["time in bout", *names])


def _nearest(
    some: NDArray[np.intp], pool: NDArray[np.intp], coordinates: NDArray[np.float64], white: NDArray[np.float64], hours: NDArray[np.float64],
    caliper: float, k: int,
) -> NDArray[np.intp]:  # fmt: skip
    """Up to `k` rows of `pool` for each of `some`, nearest first, (len(some), k); -1 where there are fewer."""
    out = np.full((len(some), k), -1, dtype=np.intp)
    if not len(pool):
        return out
    apart = ((white[some][:, None, :] - white[pool]) ** 2).sum(-1)
    apart += 1e-9 * np.abs(hours[some][:, None] - hours[pool])  # of equally near ones the nearest in time
    for column in coordinates.T:
        apart[np.abs(column[some][:, None] - column[pool]) > caliper] = np.inf
    k = min(k, len(pool))
    near = np.argsort(apart, axis=1, kind="stable")[:, :k]
    out[:, :k] = np.where(np.isfinite(np.take_along_axis(apart, near, axis=1)), pool[near], -1)
    return out


def _coordinates(
    rows: RiskSet, exposed: NDArray[np.bool_], unexposed: NDArray[np.bool_], model: HazardModel, matching: Matching
) -> tuple[list[str], NDArray[np.float64]]:  # fmt: skip
    """What is matched on besides time in bout, in SD within animals."""
    if not model.clock and not rows.covariates:
        return [], np.empty((len(rows), 0))
    if matching.distance == "propensity":
        arm = exposed | unexposed
        z = design_matrix(rows[arm], model)[0]
        z = z[:, independent_columns(z)]
        fit = fit_or_shrink(z, exposed[arm].astype(np.float64), len(np.unique(rows.animal[arm])))[0]
        odds = np.zeros(len(rows))
        odds[arm] = fit.eta
        names, columns = ["log odds of exposure"], [odds]
    else:
        names, columns = measured(rows, model)
        names, columns = names[1:], columns[1:]
    out = np.column_stack(columns)
    compared = exposed | unexposed
    spread = _within(out[compared], rows.animal[compared]).std(0)
    return names, out / np.where(spread > 0, spread, 1.0)


def measured(rows: RiskSet, model: HazardModel) -> tuple[list[str], list[NDArray[np.float64]]]:
    """Time in bout, clock and covariates of each row."""
    names, columns = ["time in bout"], [np.log2(rows.age.astype(np.float64))]
    if model.clock:
        names.append("time since sleep onset")
        columns.append(rows.onset_hours)
        if len(rows) and np.isfinite(rows.zeitgeber).all() and np.ptp(rows.onset_hours) > 24:
            # Within a day the time since sleep onset says it already.
            phase = rows.zeitgeber * (2 * np.pi / 24)
            names += ["zeitgeber sin", "zeitgeber cos"]
            columns += [np.sin(phase), np.cos(phase)]
    return names + list(rows.covariates), columns + list(rows.values.T)


def _within(values: NDArray[np.float64], animal: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values (n, p) less their animal's mean."""
    size = np.maximum(np.bincount(animal), 1)
    return np.column_stack([v - (np.bincount(animal, v) / size)[animal] for v in values.T])


def balance(rows: RiskSet, sets: MatchedSets, exposed: NDArray[np.bool_], unexposed: NDArray[np.bool_], model: HazardModel) -> list[dict[str, Any]]:
    """Exposed less unexposed epochs in what was to be made alike, in SD within animals: before matching (within animals) and after it."""
    names, columns = measured(rows, model)
    values = _within(np.column_stack(columns), rows.animal)
    spread = values.std(0)
    n = len(rows.names)
    w = sets.weights(rows.animal, n)
    share = np.bincount(rows.animal[sets.exposed], minlength=n) / max(len(sets.exposed), 1)
    both = (np.bincount(rows.animal, exposed, n) > 0) & (np.bincount(rows.animal, unexposed, n) > 0)
    out = []
    for name, v, sd in zip(names, values.T, np.where(spread > 0, spread, 1.0)):
        means = [np.bincount(rows.animal, v * arm, n) / np.maximum(np.bincount(rows.animal, arm, n), 1) for arm in (exposed, unexposed)]
        count = np.bincount(rows.animal, exposed, n) * both
        out.append({
            "covariate": name, "before": float((means[0] - means[1]) @ count / max(count.sum(), 1) / sd),
            "after": float(share @ np.bincount(rows.animal, w * v, n) / sd),
        })  # fmt: skip
    return out
