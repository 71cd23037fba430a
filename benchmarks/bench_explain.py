"""Is a map of what a stager used true, and how long does it take?

Planted sessions: one channel's band and one unit tell REM from the rest. Another channel is louder, a third shares the driver's noise without its modulation.
A stager is trained on some of them and explained on unseen ones; the map is scored (AUROC over all channels' bands and units) beside the map of the
same network with random weights and the map of power alone. A stager trained on shuffled labels must be marked.

python benchmarks/bench_explain.py [--quick] [--drivers 2] [--hours 1]
"""

from __future__ import annotations

import argparse
import os
import resource
import time

import numpy as np
import xarray as xr

from brainmu import synth
from brainmu.core import Hypnogram, Recording
from brainmu.errors import MissingDataError
from brainmu.explain import agreement, attribute, recovery
from brainmu.explain.bands import BANDS
from brainmu.explain.parts import randomised
from brainmu.loading import load
from brainmu.train import finetune

RATE, CHANNELS, UNITS, EPOCH = 125.0, 6, 24, 4.0
CENTRES = {"delta": 2.3, "theta": 7.3, "sigma": 13.0, "beta": 22.0}
FITTING = {"steps": 200, "patience": 20, "encoder": {"width": 64, "heads": 4, "latents": 4}}


def planted(driver: int, seed: int, minutes: float = 12.0, shuffled: bool = False) -> tuple[Recording, list[tuple[str, ...]]]:
    """A session and its drivers of REM: a channel's band and a unit, drawn by `driver`."""
    plan = np.random.default_rng([driver, 11])
    channel, loud, decoy = plan.permutation(CHANNELS)[:3]
    band, unit = str(plan.choice(list(CENTRES))), int(plan.integers(UNITS))
    rng = np.random.default_rng([driver, seed, 12])
    n = round(minutes * 60 / EPOCH)
    stages = [s for _ in range(n) for s in [["WAKE", "NREM", "REM"][rng.integers(3)]] * rng.integers(4, 14)][:n]
    h = Hypnogram.from_stages(stages, epoch=EPOCH)
    t = np.arange(int(n * EPOCH * RATE)) / RATE
    rem, nrem = (np.repeat(h.codes == k, int(EPOCH * RATE)) for k in (2, 1))
    x = 10 * rng.standard_normal((len(t), CHANNELS))
    common = 6 * rng.standard_normal(len(t))
    x[:, channel] += common + 9 * np.sin(2 * np.pi * CENTRES[band] * t + rng.uniform(0, 6)) * rem
    x[:, decoy] += common + 9 * np.sin(2 * np.pi * CENTRES[band] * t + rng.uniform(0, 6)) * 0.4
    x[:, loud] += 60 * np.sin(2 * np.pi * 36.0 * t) + 40 * np.sin(2 * np.pi * 1.3 * t)
    x[:, (channel + 1) % CHANNELS if (channel + 1) % CHANNELS != loud else decoy] += 9 * np.sin(2 * np.pi * 17.7 * t) * nrem
    rates = rng.uniform(2, 8, UNITS)
    rates[(unit + 1) % UNITS] = 25.0
    times, ids = [], []
    for u, r in enumerate(rates):
        spikes = rng.uniform(0, n * EPOCH, rng.poisson(r * n * EPOCH))
        if u == unit:
            spikes = spikes[(h.codes[np.minimum((spikes / EPOCH).astype(int), n - 1)] == 2) | (rng.random(len(spikes)) < 0.25)]
        times.append(spikes)
        ids.append(np.full(len(spikes), u))
    labels = Hypnogram(rng.permutation(h.codes), "rodent3", EPOCH) if shuffled else h
    signals = {"lfp": dict(values=x.astype(np.float32), rate=RATE, unit="uV", kind="lfp", channels=[f"c{i}" for i in range(CHANNELS)])}
    name = f"d{driver}s{seed}{'x' if shuffled else ''}"
    rec = Recording.from_arrays(
        name, f"m{seed}", "mouse", signals=signals, spikes=dict(times=np.concatenate(times), unit=np.concatenate(ids)), labels={"scoring": labels}
    )
    return rec, [("lfp", f"c{channel}", band), ("spikes", str(unit))]


def power_map(maps: xr.Dataset, rec: Recording) -> xr.Dataset:
    """The same coordinates, with the rank of power (bands) and of rate (units) as shares."""
    x = rec.signals["lfp"].read()
    f = np.fft.rfftfreq(len(x), 1 / RATE)
    spectrum = np.abs(np.fft.rfft(x - x.mean(0), axis=0)) ** 2
    power = np.array([[spectrum[(f >= a) & (f < b), c].sum() for a, b in BANDS.values()] for c in range(CHANNELS)])
    assert rec.spikes is not None
    rate = np.array([(rec.spikes.unit_id == int(u)).sum() for u in maps["unit"].to_numpy()], dtype=float)
    out = maps.copy(deep=True)
    for name, value in (("lfp", power), ("spikes", rate)):
        rank = (np.argsort(np.argsort(value.ravel())) + 1.0).reshape(value.shape) / value.size
        out[name] = xr.where(maps[name] != 0, rank, 0.0)
    return out


def recoveries(drivers: int, unseen: int) -> None:
    print("planted driver: AUROC over all channels' bands and units (of 60 and more), on unseen sessions")
    print("driver seed  AUROC  random weights  power  completeness  deletion-insertion gap (random order)  agreement with ablation  verdict")
    rows = []
    for d in range(drivers):
        began = time.perf_counter()
        model = finetune([planted(d, s)[0] for s in range(3)], labels="scoring", stages="rodent3", epoch=EPOCH, config=FITTING)
        fitted = time.perf_counter() - began
        for s in range(100, 100 + unseen):
            rec, truth = planted(d, s)
            maps = attribute(model, rec, "REM")
            epochs = np.unique((maps["time_lfp"].to_numpy() // EPOCH).astype(int))
            ablated = attribute(model, rec, "REM", method="feature_ablation", check=False)
            random = [attribute(randomised(model, k), rec, "REM", epochs=epochs, check=False) for k in range(3)]
            a = maps.attrs
            chance = float(np.mean([recovery(r, truth) for r in random]))
            row = recovery(maps, truth), chance, recovery(power_map(maps, rec), truth), a["completeness_error"]
            rows.append(row)
            gap, other = a["insertion_auc"] - a["deletion_auc"], a["random_insertion_auc"] - a["random_deletion_auc"]
            same = agreement(maps, ablated, draws=100)
            print(
                f"{d:6} {s:4}  {row[0]:.3f}  {row[1]:.3f}  {row[2]:.3f}  {row[3]:.2%}  {gap:.2f} ({other:.2f})  "
                f"{same['correlation']:.2f} [{same['low']:.2f}, {same['high']:.2f}]  {a['verdict']}", flush=True
            )  # fmt: skip
        print(f"       ({fitted:.0f} s to train)")
    mean, low = np.mean(rows, axis=0), np.min(rows, axis=0)
    above = f"above random weights {mean[0] - mean[1]:+.3f}, above power {mean[0] - mean[2]:+.3f} (bar +0.15)"
    print(f"mean AUROC {mean[0]:.3f} (least {low[0]:.3f}; bar 0.9), {above}")
    print(f"median completeness error {np.median([r[3] for r in rows]):.2%} (bar 1 %)")


def marked() -> None:
    model = finetune([planted(0, s, shuffled=True)[0] for s in range(3)], labels="scoring", stages="rodent3", epoch=EPOCH, config=FITTING)
    rec, _ = planted(0, 100)
    for target in ("WAKE", "NREM", "REM"):
        try:
            said = attribute(model, rec, target, max_epochs=16).attrs["verdict"]
        except MissingDataError:
            said = "refused: the stager takes no epoch for it"
        print(f"trained on shuffled labels, {target}: {said}", flush=True)


def timed(hours: float) -> None:
    model = load("brainmu-tiny-rodent3")
    for channels, units, bar in ((4, 50, 60), (16, 80, 180)):
        rec, _ = synth.recording(hours=hours, seed=0, n_channels=channels - 1, n_cortex=1, n_cells=units)
        for method, check in (("integrated_gradients", False), ("integrated_gradients", True), ("gradient_shap", True), ("feature_ablation", True)):
            began, used = time.perf_counter(), time.process_time()
            maps = attribute(model, rec, "NREM", method=method, check=check)
            what = f"{method}, {'with' if check else 'without'} checks"
            took = f"{time.perf_counter() - began:.0f} s ({time.process_time() - used:.0f} s of CPU, load {os.getloadavg()[0]:.1f})"
            print(f"{what}: {took} for {hours:g} h, {channels} channels + {units} units, {maps.attrs['n_epochs']} epochs explained (bar {bar} s)", flush=True)
        print(f"peak memory so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one driver, one unseen session, a quarter of an hour")
    parser.add_argument("--drivers", type=int, default=2)
    parser.add_argument("--unseen", type=int, default=2)
    parser.add_argument("--hours", type=float, default=1.0)
    args = parser.parse_args()
    recoveries(*((1, 1) if args.quick else (args.drivers, args.unseen)))
    if not args.quick:
        marked()
    timed(0.25 if args.quick else args.hours)


if __name__ == "__main__":
    main()
