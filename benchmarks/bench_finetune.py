"""What fine-tuning reaches on mice it has not seen, by mode, from the packaged encoder and from an untrained one, on planted truth."""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

import brainmu as bm
from brainmu.core import metrics
from brainmu.models import Encoder, load_encoder
from brainmu.train import finetune
from brainmu.train.finetuning import MODES

SEEDS = (0, 1)


def score(model: bm.models.StageModel, recordings: list[bm.Recording]) -> tuple[float, float]:
    """Kappa and macro-F1, the mean over subjects."""
    tables = [metrics.confusion(r.hypnogram("scoring").codes, model.predict_proba(r)[0].argmax(1), len(model.stages)) for r in recordings]
    return float(np.mean([metrics.cohen_kappa(m) for m in tables])), float(np.mean([np.nanmean(metrics.f1_by_class(m)) for m in tables]))


def run(mice: int, hours: float, steps: int) -> None:
    """Train on all mice but three, score on those, print a line a run."""
    recordings = [r for r, _ in bm.synth.corpus(mice + 3, hours=hours, seed=71, preset="hard", n_cells=12)]
    train, test = recordings[:mice], recordings[mice:]
    print(f"{'encoder':12s} {'mode':9s} seed  kappa  macro-F1  weights trained  seconds")
    for name in ("brainmu-tiny", "untrained"):
        for mode in MODES:
            for seed in SEEDS:
                torch.manual_seed(seed)
                encoder = load_encoder("brainmu-tiny") if name == "brainmu-tiny" else Encoder()
                began = time.perf_counter()
                model = finetune(train, encoder=encoder, mode=mode, config={"steps": steps}, seed=seed)
                seconds = time.perf_counter() - began
                kappa, f1 = score(model, test)
                print(f"{name:12s} {mode:9s} {seed:4d}  {kappa:.3f}  {f1:.3f}     {model.n_trained:>12,}  {seconds:7.0f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four mice of a quarter of an hour, and fewer steps")
    quick = parser.parse_args().quick
    mice, hours, steps = (4, 0.25, 40) if quick else (6, 0.5, 120)
    print(f"{torch.get_num_threads()} threads; planted mice (hard), trained on {mice} of {hours:g} h, {steps} steps; scored on 3 others")
    run(mice, hours, steps)
