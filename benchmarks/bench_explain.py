"""Is a map of what a stager used true, how long does it take, and does its memory grow with the recording?

Truth: planted sessions (planted_drivers.py says how), in which a channel's band and a unit tell REM from the rest. A stager is trained on some sessions and
explained on others; the map is scored by AUROC over all channels' bands and units (60) beside

- the map of the same network with random weights (mean over draws), in the same epochs;
- power in the explained epochs, by channel and band, and the rate of units: as it is, or relative to the channel's whole power, whichever scores better;
- a contrast: how much power and rates of the explained epochs differ from those of the others. That is told the target, finds whatever goes with it, and has
  no bar: it says that the driver is there to be found.

A stager trained on shuffled labels must be marked. Intervals are those of t over drivers.

python benchmarks/bench_explain.py [--quick] [--only recovery marked time memory] [--plants restless quiet] [--drivers 20 21 …] [--hours 1]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from bench_staging_speed import own_memory
from numpy.typing import NDArray
from planted_drivers import CHANNELS, EPOCH, RATE, planted
from scipy import stats

import brainmu as bm
from brainmu import synth
from brainmu.core import Recording
from brainmu.errors import MissingDataError
from brainmu.explain import agreement, attribute, recovery
from brainmu.explain.bands import BANDS
from brainmu.explain.parts import randomised
from brainmu.loading import load
from brainmu.train import finetune

SMALL = {"width": 64, "heads": 4, "latents": 4}
TRAINING = {
    "quiet": (3, {"steps": 200, "patience": 20, "encoder": SMALL}),
    "restless": (6, {"steps": 1200, "span": 32, "batch": 2, "patience": 20, "encoder": SMALL}),
}
"""Sessions, and how a stager is trained on them. Chosen with drivers 90 and 91."""
OTHERS = [
    *((m, b) for m in ("integrated_gradients", "gradient_shap", "feature_ablation") for b in ("zero", "stage_mean", "matched")), ("occlusion", "zero"),
]  # fmt: skip
UNSEEN = (100, 101)
Truth = list[tuple[str, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one driver of the restless plant, a quarter of an hour to time")
    parser.add_argument("--only", nargs="+", choices=["recovery", "marked", "time", "memory"], default=["recovery", "marked", "time", "memory"])
    parser.add_argument("--plants", nargs="+", choices=list(TRAINING), default=["quiet", "restless"])
    parser.add_argument("--drivers", nargs="+", type=int, default=list(range(20, 24)))
    parser.add_argument("--jobs", type=int, default=2, help="drivers side by side")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(explained(*args.job)))
        return
    drivers = args.drivers[:1] if args.quick else args.drivers
    if "recovery" in args.only:
        for plant in ["restless"] if args.quick else args.plants:
            recoveries(plant, drivers, args.quick, args.jobs)
    if "marked" in args.only:
        marked(drivers, args.jobs)
    if "time" in args.only:
        timed(0.25 if args.quick else args.hours)
    if "memory" in args.only:
        memory((1, 2) if args.quick else (1, 8, 24))


# -- truth -----------------------------------------------------------------------------------------------------------------
def trained(plant: str, driver: int, shuffled: bool = False) -> Any:
    n, config = TRAINING[plant]
    return finetune([planted(plant, driver, s, shuffled)[0] for s in range(n)], labels="scoring", stages="rodent3", epoch=EPOCH, config=config)


def recoveries(plant: str, drivers: list[int], quick: bool, jobs: int) -> None:
    """The default map of unseen sessions; on the restless plant every method and baseline too, of the first of them."""
    print(f"\n{plant} plant: AUROC of integrated gradients from zero against the planted driver, on unseen sessions")
    print("driver session  AUROC  random  power  contrast  completeness  insertion-deletion (random order)  agreement with ablation  skill  verdict")
    methods: dict[tuple[str, str], dict[int, list[tuple[float, ...]]]] = {}
    said = []
    for d, (lines, found) in zip(drivers, side_by_side(partial(of_driver, plant, quick), drivers, jobs)):
        said += [line.rsplit("  ", 1)[1] for line in lines]
        for how, rows in found.items():
            methods.setdefault(how, {})[d] = rows
    print(f"{sum(x == 'passed' for x in said)} of {len(said)} maps passed their checks")
    table(methods)


def of_driver(plant: str, quick: bool, d: int) -> tuple[list[str], dict[tuple[str, str], list[tuple[float, ...]]]]:
    """A line for each unseen session, printed as it is known; for each method and baseline the scores, session by session."""
    model, lines = trained(plant, d), []
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for s in UNSEEN[:1] if quick else UNSEEN:
        rec, truth = planted(plant, d, s)
        maps = attribute(model, rec, "REM")
        epochs = epochs_of(maps)
        row = scored(model, rec, truth, maps, epochs, 5)
        found.setdefault(OTHERS[0], []).append((*row, maps.attrs["completeness_error"]))
        lines.append(f"{d:6} {s:7}  {row[0]:.3f}  {row[1]:.3f}   {row[2]:.3f}  {row[3]:.3f}     {beside(model, rec, maps, epochs)}")
        print(lines[-1], flush=True)
        for method, baseline in OTHERS[1:] if s == UNSEEN[0] and not quick and plant == "restless" else []:
            how = {"method": method, "baseline": baseline, "shifts": 1}
            other = attribute(model, rec, "REM", epochs=epochs, check=False, **how)
            row = scored(model, rec, truth, other, epochs, 1, **how)
            found.setdefault((method, baseline), []).append((*row, other.attrs.get("completeness_error", np.nan)))
    return lines, found


def side_by_side(work: Callable[[int], Any], items: list[int], jobs: int) -> Iterator[Any]:
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, items)


def epochs_of(maps: xr.Dataset) -> NDArray[np.int64]:
    return np.unique((maps["time_lfp"].to_numpy() // EPOCH).astype(int))


def scored(model: Any, rec: Recording, truth: Truth, maps: xr.Dataset, epochs: NDArray[np.int64], draws: int, **how: Any) -> tuple[float, ...]:
    """Recovery by a map, by that of random weights, by power and by the contrast. Occlusion moves all units together: its bands alone are scored."""
    bands_only = how.get("method") == "occlusion"

    def score(m: xr.Dataset) -> float:
        return recovery(m[["lfp"]] if bands_only else m, truth[:1] if bands_only else truth)

    def by(level: Callable[..., NDArray[np.float64]]) -> float:
        return score(ranks(maps, rec, epochs, level))

    random = [score(attribute(randomised(model, k), rec, "REM", epochs=epochs, check=False, **how)) for k in range(draws)]
    return score(maps), float(np.mean(random)), max(by(absolute), by(relative)), by(contrast)


def beside(model: Any, rec: Recording, maps: xr.Dataset, epochs: NDArray[np.int64]) -> str:
    a = maps.attrs
    same = agreement(maps, attribute(model, rec, "REM", method="feature_ablation", epochs=epochs, check=False), draws=100)
    gap, random = a["insertion_auc"] - a["deletion_auc"], a["random_insertion_auc"] - a["random_deletion_auc"]
    return (
        f"{a['completeness_error']:.2%}  {gap:.2f} ({random:.2f})  {same['correlation']:.2f} [{same['low']:.2f}, {same['high']:.2f}]  "
        f"{a['skill']:.2f}  {a['verdict']}"
    )


def table(methods: dict[tuple[str, str], dict[int, list[tuple[float, ...]]]]) -> None:
    """Means over drivers, with intervals."""
    print("\n| method | baseline | AUROC (bar 0.9) | above random weights (bar +0.15) | above power (bar +0.15) | contrast | completeness error, median |")
    print("|---|---|---|---|---|---|---|")
    for (method, baseline), rows in methods.items():
        each = np.array([np.nanmean(np.array(sessions)[:, :4], axis=0) for sessions in rows.values()])
        errors = [r[4] for sessions in rows.values() for r in sessions if len(r) > 4 and np.isfinite(r[4])]
        columns = [each[:, 0], each[:, 0] - each[:, 1], each[:, 0] - each[:, 2], each[:, 3]]
        shown = [interval(c, "+" if 0 < i < 3 else "") for i, c in enumerate(columns)]
        print(f"| {method} | {baseline} | {' | '.join(shown)} | {f'{np.median(errors):.2%}' if errors else ''} |")


def interval(x: NDArray[np.float64], sign: str = "") -> str:
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else np.nan
    return f"{x.mean():{sign}.3f} [{x.mean() - half:{sign}.3f}, {x.mean() + half:{sign}.3f}]"


# -- competitors that need no stager ---------------------------------------------------------------------------------------
def ranks(maps: xr.Dataset, rec: Recording, epochs: NDArray[np.int64], level: Callable[..., NDArray[np.float64]]) -> xr.Dataset:
    """The map with the rank of a level in place of its shares, as a part of 1 in each stream, so that bands and units can be compared."""
    out = maps.copy(deep=True)
    for name, value in (("lfp", level(*powers(rec), epochs)), ("spikes", level(*rates(rec), epochs))):
        held = (maps[name].to_numpy() != 0).any(0)
        out[name] = xr.zeros_like(maps[name])
        if held.shape == value.shape:  # occlusion has all units as one, and is scored by bands alone
            rank = np.zeros(value.shape)
            rank[held] = (np.argsort(np.argsort(value[held])) + 1.0) / held.sum()
            out[name] = out[name] + rank
    return out


def powers(rec: Recording) -> tuple[NDArray[np.float64], bool]:
    """Power (epoch, channel, band), and that it is by band."""
    x = rec.signals["lfp"].read()
    n = int(EPOCH * RATE)
    spectrum = np.abs(np.fft.rfft(x[: len(x) // n * n].reshape(-1, n, CHANNELS), axis=1)) ** 2
    f = np.fft.rfftfreq(n, 1 / RATE)
    return np.stack([spectrum[:, (f >= a) & (f < b)].sum(1) for a, b in BANDS.values()], axis=-1), True


def rates(rec: Recording) -> tuple[NDArray[np.float64], bool]:
    """Spikes (epoch, unit), and that they are not by band."""
    assert rec.spikes is not None
    n = int(rec.duration / EPOCH + 0.5)
    edges = np.arange(n + 1) * EPOCH
    return np.stack([np.histogram(rec.spikes.times[rec.spikes.unit_id == u], edges)[0] for u in rec.spikes.units["id"]], axis=-1).astype(float), False


def absolute(x: NDArray[np.float64], banded: bool, epochs: NDArray[np.int64]) -> NDArray[np.float64]:
    return x[epochs].mean(0)


def relative(x: NDArray[np.float64], banded: bool, epochs: NDArray[np.int64]) -> NDArray[np.float64]:
    level = x[epochs].mean(0)
    return level / level.sum(-1, keepdims=True) if banded else level


def contrast(x: NDArray[np.float64], banded: bool, epochs: NDArray[np.int64]) -> NDArray[np.float64]:
    logs = np.log(x + 1.0)
    rest = np.setdiff1d(np.arange(len(x)), epochs)
    return np.abs(logs[epochs].mean(0) - logs[rest].mean(0)) / np.maximum(logs.std(0), 1e-9)


# -- shuffled labels -------------------------------------------------------------------------------------------------------
def marked(drivers: list[int], jobs: int) -> None:
    """Maps of stagers trained on shuffled labels, in the epochs they take for the target, or in any where they take none."""
    print("\nstagers trained on shuffled labels, restless plant")
    said = []
    for lines in side_by_side(marked_of, drivers, jobs):
        said += lines
    print(f"marked: {sum(': failed' in x for x in said)} of {len(said)}")


def marked_of(d: int) -> list[str]:
    model, lines = trained("restless", d, shuffled=True), []
    for s in UNSEEN[:1]:
        rec, _ = planted("restless", d, s)
        for target in ("WAKE", "NREM", "REM"):
            try:
                said = attribute(model, rec, target).attrs["verdict"]
            except MissingDataError:
                said = attribute(model, rec, target, epochs=range(0, 280, 9)).attrs["verdict"] + " (it takes no epoch for the target: every ninth)"
            lines.append(f"driver {d}, session {s}, {target}: {said}")
            print(lines[-1], flush=True)
    return lines


# -- time and memory -------------------------------------------------------------------------------------------------------
def timed(hours: float) -> None:
    print("\ntime, the packaged tiny stager")
    model = load("brainmu-tiny-rodent3")
    for channels, units, bar in ((4, 50, 60), (16, 80, 180)):
        rec, _ = synth.recording(hours=hours, seed=0, n_channels=channels - 1, n_cortex=1, n_cells=units)
        for method, check in (("integrated_gradients", False), ("integrated_gradients", True), ("gradient_shap", True), ("feature_ablation", True)):
            began, used = time.perf_counter(), time.process_time()
            maps = attribute(model, rec, "NREM", method=method, check=check)
            what = f"{method}, {'with' if check else 'without'} checks"
            took = f"{time.perf_counter() - began:.0f} s ({time.process_time() - used:.0f} s of CPU, load {os.getloadavg()[0]:.1f})"
            error = f", completeness error {maps.attrs['completeness_error']:.2%}" if "completeness_error" in maps.attrs else ""
            print(
                f"{what}: {took} for {hours:g} h, {channels} channels + {units} units, {maps.attrs['n_epochs']} epochs explained (bar {bar} s){error}",
                flush=True,
            )
        print(f"peak memory so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def memory(lengths: tuple[int, ...]) -> None:
    """A process each, from a store: the peak of its own memory. Spike times are data that it holds whole, 12 bytes a spike: they are counted apart."""
    print("\nmemory, four channels and 50 units from a store, a process each: s, peak GB of its own beside its spikes + GB of spikes")
    print("| | " + " | ".join(f"{h} h" for h in lengths) + " | last beside the first |\n|---|" + "---|" * (len(lengths) + 1))
    with tempfile.TemporaryDirectory() as folder:
        stores = [str(bm.preprocess(night(h), Path(folder) / f"{h}.zarr").path) for h in lengths]
        for method in ("staging", "integrated_gradients", "feature_ablation", "occlusion"):
            rows = []
            for store in stores:
                done = subprocess.run([sys.executable, __file__, "--job", method, store], capture_output=True, text=True, check=True)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(
                f"| {method} | "
                + " | ".join(f"{r['seconds']:.0f}, {r['beside']:.2f} + {r['spikes']:.2f}" for r in rows)
                + f" | x{rows[-1]['beside'] / rows[0]['beside']:.2f} |",
                flush=True,
            )


def night(hours: float) -> Recording:
    """Noise whose slow power follows a random hypnogram, four channels at 200 Hz, and 50 units of 2 spikes a second."""
    rng = np.random.default_rng(0)
    n, rate = round(hours * 900), 200.0
    gain = np.repeat(np.repeat(rng.integers(1, 4, n // 10 + 1), 10)[:n], int(EPOCH * rate)).astype(np.float32)
    x = rng.standard_normal((len(gain), 4), dtype=np.float32)
    x += (3 * gain * np.sin(2 * np.pi * 2 * np.arange(len(gain)) / rate).astype(np.float32))[:, None]
    times = rng.uniform(0, n * EPOCH, round(100 * n * EPOCH))
    signals = {"lfp": {"values": x, "rate": rate, "unit": "uV", "kind": "lfp"}}
    return Recording.from_arrays(f"night{hours}", "m", signals=signals, spikes=dict(times=times, unit=rng.integers(0, 50, len(times))))


def explained(method: str, store: str) -> dict[str, float]:
    """Seconds and GB of an attribution, the stager's own answer included; occlusion of three of its parts, each of which is a staging of its own."""
    import brainmu.explain.occlusion as occlusion

    parts = occlusion._parts
    occlusion._parts = lambda recording: parts(recording)[:2] + parts(recording)[-1:]
    began = time.perf_counter()
    with own_memory() as own:
        session, model = bm.open(store), load("brainmu-tiny-rodent3")
        proba = model.predict_proba(session)[0]
        if method != "staging":
            target = model.stages[int(np.bincount(np.nan_to_num(proba).argmax(1)).argmax())]
            attribute(model, session, target, method=method, check=False, shifts=1)
    assert session.spikes is not None
    spikes = (session.spikes.times.nbytes + session.spikes.unit_id.nbytes) / 1e9
    return {"seconds": time.perf_counter() - began, "beside": own[0] - spikes, "spikes": spikes}


if __name__ == "__main__":
    main()
