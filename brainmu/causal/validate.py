"""Error rates of the estimators under planted truth: many studies a cell, cached on disk and resumable.

    python -m brainmu.causal.validate --out validation --studies 2000 --jobs 2

A cell plants a mechanism (:class:`brainmu.synth.Mechanism`), asks :func:`brainmu.estimate_effect` a question of each study, and counts how
often the interval misses the truth. Cells that plant the same mechanism ask their questions of the same studies, which are simulated once. Cells
marked "fail" are analyses that must go wrong: they show what the warnings are for.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainmu.causal.effect import estimate_effect
from brainmu.core import Recording
from brainmu.errors import BrainmuError, InputError

__all__ = ["ANIMALS", "Cell", "cells", "summarise", "validate"]

ANIMALS = (4, 6, 10, 20)
HERDS, HERD = 10, 20
"""Studies, and animals in each, whose mean answer is a "reference", as long as there are fewer than `ENOUGH` studies of so many animals."""
ENOUGH = 200
_FIELDS = ("study", "estimate", "low", "high", "p_value", "warned")
_NULL = {"negative": 0.0, "positive": 0.0}
_SPREAD = {"animal_sd": 0.5}
_OBSERVED = {"confounding": 0.6, **_SPREAD}


@dataclass(frozen=True)
class Cell:
    """One row of the validation table.

    Parameters
    ----------
    name : str
    animals : int
    hours : float
    mechanism : dict
        Arguments of :func:`brainmu.synth.study`.
    ask : dict
        Arguments of :func:`brainmu.estimate_effect`.
    truth : float or str
        The value; the name of one of ``StudyTruth.effects``; or "reference": what the same question comes to in studies of 20 animals, on average (those of
        the validation where there are 200, else ten of their own, whose error is a third of such a study's). The generator works in continuous time, so its
        coefficients are no per-epoch conditional odds ratio; coverage of the reference shows that intervals are right, and that the number is the planted
        one is shown by the null cells and by generators on the grid (the tests).
    expect : {"hold", "fail"}
        Whether the error rate must hold, or the analysis must be seen to fail.
    warning : str
        For "fail": words that the tool's own warnings must hold.
    of : str
        The cell whose "reference" is the truth, where it is another's: what the question comes to without this cell's errors of measurement.
    early : float, s
        By how much the covariate is stamped too early, so that what is adjusted for holds what followed the exposure.
    """

    name: str
    animals: int
    hours: float
    mechanism: dict[str, Any]
    ask: dict[str, Any]
    truth: float | str = 0.0
    expect: str = "hold"
    warning: str = ""
    of: str = ""
    early: float = 0.0

    @property
    def key(self) -> str:
        return f"{self.name}-{self.animals}"

    @property
    def world(self) -> str:
        """What is simulated; cells that share it are asked of the same studies."""
        return json.dumps([self.animals, self.hours, self.mechanism], sort_keys=True, default=dataclasses.asdict)


def cells(animals: Sequence[int] = ANIMALS, hours: float = 2.0) -> list[Cell]:
    """All cells: null and effect, randomised, observed confounder, feedback; and the analyses that are expected to fail."""
    from brainmu.synth import ScorerModel

    trial = {"exposure": "trials", "design": "trials", "horizon": 10.0, "draws": 999}
    seen = {"exposure": "reactivation", "design": "hazard", "horizon": 4.0, "content": "negative", "adjust": ["pressure"]}
    unseen = seen | {"adjust": []}
    weighted, alike, course = seen | {"design": "msm"}, seen | {"design": "matched"}, seen | {"design": "glm", "horizon": 20.0}
    long = seen | {"design": "msm", "horizon": 40.0, "dose": "count"}
    effect, feedback = {"log_hazard_ratio": {"negative": 0.7, "positive": -0.5}}, {"feedback": 0.1}
    null = {"log_hazard_ratio": _NULL}
    no_trials = {"trials": False}
    # A cause of both that changes within the window: a few histories were hardly possible, and their weights are huge.
    fast = {**null, **_SPREAD, "confounding": 2.0, "pressure_tau": 60.0, "reactivation_rate": {"negative": 0.1, "positive": 0.1}, **no_trials}
    found, scored = {"recall": 0.6, "precision": 0.8}, {"scorer": ScorerModel(scorers=2, disagreement=1.0)}
    told = seen | {"recall": (0.5, 0.7), "precision": (0.7, 0.9)}
    strong, pushing = {**null, **_SPREAD, "confounding": 1.2, **no_trials}, {**null, **_SPREAD, "confounding": 0.8, "feedback": 0.4, **no_trials}
    out = []
    for n in animals:
        out += [
            Cell("trials-null", n, hours, {**null, **_SPREAD, "trial_log_hazard_ratio": {"negative": 0.0}}, trial),
            Cell("trials-effect", n, hours, {**null, **_SPREAD}, trial, "itt_risk_difference"),
            Cell("hazard-null", n, hours, {**null, **_OBSERVED, **no_trials}, seen),
            Cell("hazard-effect", n, hours, {**effect, **_OBSERVED, **no_trials}, seen, "reference"),
            # With feedback a reactivation acts through the pressure even where its own effect is nil.
            Cell("hazard-feedback", n, hours, {**null, **_OBSERVED, **feedback, **no_trials}, seen, "reference"),
            Cell("msm-null", n, hours, {**null, **_OBSERVED, **no_trials}, weighted),
            Cell("msm-feedback", n, hours, {**null, **_OBSERVED, **feedback, **no_trials}, weighted, "reference"),
            Cell("matched-null", n, hours, {**null, **_OBSERVED, **no_trials}, alike),
            Cell("matched-effect", n, hours, {**effect, **_OBSERVED, **no_trials}, alike, "reference"),
            Cell("glm-null", n, hours, {**null, **_OBSERVED, **no_trials}, course),
            Cell("glm-effect", n, hours, {**effect, **_OBSERVED, **no_trials}, course, "reference"),
            Cell("detected-null", n, hours, {**null, **_OBSERVED, **found, **no_trials}, told),
            Cell("detected-effect", n, hours, {**effect, **_OBSERVED, **found, **no_trials}, told, "reference", of="hazard-effect"),
            Cell("scored-null", n, hours, {**null, **_OBSERVED, **scored, **no_trials}, seen),
            Cell(
                "scored-effect", n, hours, {**effect, **_OBSERVED, **scored, **no_trials}, seen, "reference", "fail", "another scorer has", of="hazard-effect"
            ),
            Cell("naive", n, hours, {**null, **_OBSERVED, **no_trials}, unseen, 0.0, "fail", "no measured confounder"),
            Cell("noisy-confounder", n, hours, {**strong, "reliability": 0.5}, seen, 0.0, "fail", "negative control"),
            # Reactivations come more often once the animal is awake, and the last epoch scored NREM holds the first seconds of waking.
            Cell("same-epoch", n, hours, {**null, **_SPREAD, "wake_reactivation": 4.0, **no_trials}, seen | {"lag": 0}, 0.0, "fail", "lag=0"),
            # What reactivations do here goes through the pressure alone, and the pressure is read after them.
            Cell("mediator", n, hours, pushing, seen, "reference", "fail", "moves after the exposure", early=8.0),
            Cell("few-like-rows", n, hours, fast, long, 0.0, "fail", "not identified by weighting"),
            Cell("truncated", n, hours, fast, long | {"truncate": 99.0}, 0.0, "fail", "truncated at 99 %"),
        ]
    return out


def validate(
    which: Sequence[Cell] | None = None, *, out: str | Path, studies: int = 2000, diagnosed: int = 50, jobs: int = 1, seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Run every study of every cell that is not yet on disk, and summarise.

    Parameters
    ----------
    out : path
        Folder of one CSV file a cell; studies already there are not run again.
    studies, diagnosed : int
        Studies a cell, and how many of them with full diagnostics (for their warnings).
    jobs : int
        Processes.

    Returns
    -------
    DataFrame, one row a cell; see :func:`summarise`.
    """
    if studies < 1 or jobs < 1:
        raise InputError(f"studies is {studies} and jobs {jobs}, expected at least one of each")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    plan = cells() if which is None else list(which)
    _same_questions(plan, folder)
    worlds = [[c for c in plan if c.world == w] for w in dict.fromkeys(c.world for c in plan)]
    for i, asked in enumerate(worlds):
        tasks = _left_to_do(asked, folder, studies, diagnosed, seed)
        for j, rows in enumerate(_run(tasks, jobs)):
            for cell, row in rows:
                with (folder / f"{cell.key}.csv").open("a", newline="") as file:
                    csv.DictWriter(file, _FIELDS).writerow(row)
            if progress is not None:
                progress(", ".join(c.key for c in asked), (i + (j + 1) / len(tasks)) / len(worlds))
    return summarise(plan, folder, seed)


def _same_questions(plan: Sequence[Cell], folder: Path) -> None:
    """Keep what each file's studies were asked. Raises InputError where a cell of that name was another: its studies would pass for these."""
    path = folder / "cells.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    for cell in plan:
        asked = json.loads(json.dumps([cell.world, cell.ask, cell.early]))
        if kept.setdefault(cell.key, asked) != asked:
            raise InputError(f"{folder}: the studies of {cell.key} there were made with other settings (such as hours): give another folder")
    path.write_text(json.dumps(kept, indent=0))


@dataclass(frozen=True)
class _Task:
    """One study of a world, and the cells that have not asked it yet."""

    cells: list[Cell]
    number: int
    diagnosed: bool
    seed: int


def _left_to_do(asked: list[Cell], folder: Path, studies: int, diagnosed: int, seed: int) -> list[_Task]:
    """Studies of one world that some cell lacks; files that are not there are begun."""
    done = {}
    for cell in asked:
        path = folder / f"{cell.key}.csv"
        if not path.exists():
            path.write_text(",".join(_FIELDS) + "\n")
        done[cell.key] = set(pd.read_csv(path)["study"])
    tasks = [_Task([c for c in asked if s not in done[c.key]], s, s < diagnosed, seed) for s in range(studies)]
    return [t for t in tasks if t.cells]


def _run(tasks: list[_Task], jobs: int) -> Iterator[list[tuple[Cell, dict[str, Any]]]]:
    if jobs == 1:
        yield from map(_one, tasks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_one, tasks, chunksize=4)


def _one(task: _Task) -> list[tuple[Cell, dict[str, Any]]]:
    """One study, and each cell's answer."""
    from brainmu.synth import study

    first = task.cells[0]
    # The world enters the seed, so that no two worlds see the same studies.
    entropy = [task.seed, task.number, first.animals, *first.world.encode()]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    recordings, _ = study(n_animals=first.animals, hours=first.hours, seed=seed, **first.mechanism)
    return [(cell, _answer(cell, recordings, task)) for cell in task.cells]


def _answer(cell: Cell, recordings: list[Recording], task: _Task) -> dict[str, Any]:
    """What the tool says of a study. One that cannot be analysed is recorded as NaN, not left out."""
    if cell.early:
        recordings = [_stamped_early(r, cell.early) for r in recordings]
    try:
        e = estimate_effect(recordings, diagnostics=task.diagnosed, seed=task.number, **cell.ask)
    except BrainmuError as error:
        return {"study": task.number, "estimate": np.nan, "low": np.nan, "high": np.nan, "p_value": np.nan, "warned": str(error)}
    warned = " | ".join(e.diagnostics["warnings"]) if task.diagnosed else ""
    return {"study": task.number, "estimate": e.estimate, "low": e.low, "high": e.high, "p_value": e.p_value, "warned": warned}


def _stamped_early(recording: Recording, seconds: float) -> Recording:
    signals = {k: dataclasses.replace(v, start=v.start - seconds) for k, v in recording.signals.items()}
    return recording.with_fields(signals=signals)


def summarise(plan: Sequence[Cell], folder: str | Path, seed: int = 0) -> pd.DataFrame:
    """Rejections and coverage of each cell with their exact 95 % limits.

    Columns: cell, animals, expect, studies, failed (not analysable), truth, bias with its 95 % limits over studies, rejected, rejected_low,
    rejected_high, covered, covered_low, covered_high, half_width (median), warned (share of diagnosed studies whose warnings hold the cell's words).
    """
    out = []
    for cell in plan:
        table = pd.read_csv(Path(folder) / f"{cell.key}.csv")
        truth = _truth(cell, folder, seed)
        ok = table.dropna(subset=["low", "high"])
        n = len(ok)
        rejected, covered = int((ok["p_value"] < 0.05).sum()), int(((ok["low"] <= truth) & (truth <= ok["high"])).sum())
        said = table["warned"].dropna().astype(str)
        said = said[said != ""] if not cell.warning else said
        out.append({
            "cell": cell.name, "animals": cell.animals, "expect": cell.expect, "studies": len(table), "failed": len(table) - n, "truth": truth,
            **_mean("bias", ok["estimate"] - truth), **_limits("rejected", rejected, n), **_limits("covered", covered, n),
            "half_width": float((ok["high"] - ok["low"]).median() / 2),
            "warned": float(said.str.contains(cell.warning, regex=False).mean()) if cell.warning and len(said) else float("nan"),
        })  # fmt: skip
    return pd.DataFrame(out)


def _limits(name: str, hits: int, n: int) -> dict[str, float]:
    from scipy import stats

    if not n:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), float("nan"))
    interval = stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
    return {name: hits / n, f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}


def _mean(name: str, values: pd.Series) -> dict[str, float]:
    mean, half = float(values.mean()), 1.96 * float(values.std()) / max(len(values), 1) ** 0.5
    return {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}


def _truth(cell: Cell, folder: str | Path, seed: int) -> float:
    """The cell's true value; simulated ones are kept beside the results."""
    if not isinstance(cell.truth, str):
        return float(cell.truth)
    if cell.of:
        cell = next(c for c in cells((cell.animals,), cell.hours) if c.name == cell.of)
    herds = Path(folder) / f"{cell.name}-{HERD}.csv"
    # Studies asked with a flaw of their own know nothing of the truth.
    if cell.truth == "reference" and not cell.early and herds.exists() and len(found := pd.read_csv(herds)["estimate"].dropna()) >= ENOUGH:
        return float(found.mean())
    path = Path(folder) / f"truth-{cell.name}.csv"
    if not path.exists():
        from brainmu.synth import study
        from brainmu.synth.interventions import simulate_interventions

        if cell.truth == "reference":
            seeds = np.random.SeedSequence([seed, *b"reference"]).generate_state(HERDS)
            herds = (study(n_animals=HERD, hours=cell.hours, seed=int(s), **cell.mechanism)[0] for s in seeds)
            values = [estimate_effect(herd, diagnostics=False, **cell.ask).estimate for herd in herds]
            rows = [{"name": "reference", "value": float(np.mean(values)), "standard_error": float(np.std(values, ddof=1) / HERDS**0.5)}]
        else:
            truth = study(n_animals=1, hours=cell.hours, seed=seed, **cell.mechanism)[1]
            found = simulate_interventions(truth.mechanism, truth.sleep, copies=100_000, seed=seed)
            rows = [{"name": k, "value": v.value, "standard_error": v.standard_error} for k, v in found.items()]
        pd.DataFrame(rows).to_csv(path, index=False)
    table = pd.read_csv(path).set_index("name")["value"]
    return float(table[cell.truth])


def main() -> None:
    import argparse
    import sys

    parser = argparse.ArgumentParser(description="Error rates of brainmu.estimate_effect under planted truth")
    parser.add_argument("--out", required=True, help="folder of results; what is there is not run again")
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--diagnosed", type=int, default=50, help="studies a cell with full diagnostics, for their warnings: each takes as long as ten others")
    parser.add_argument("--animals", type=int, nargs="+", default=list(ANIMALS))
    parser.add_argument("--cells", nargs="+", help="names of cells; all where left out")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    known = list(dict.fromkeys(c.name for c in cells((args.animals[0],), args.hours)))
    if stray := sorted(set(args.cells or ()) - set(known)):
        parser.error(f"no cell {stray[0]!r}, expected some of {', '.join(known)}")
    plan = [c for c in cells(args.animals, args.hours) if not args.cells or c.name in args.cells]
    table = validate(
        plan,
        out=args.out,
        studies=args.studies,
        diagnosed=args.diagnosed,
        jobs=args.jobs,
        progress=lambda what, done: sys.stderr.write(f"\r{what} {done:.1%}   "),
    )
    sys.stdout.write("\n" + table.round(3).to_string(index=False) + "\n")


if __name__ == "__main__":
    main()
