"""Rebuild the released checkpoints: python pipelines/release/build.py [--out checkpoints] [--real FOLDER] [--steps 2500]."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np

from brainmu import synth
from brainmu.core import Recording, metrics
from brainmu.formats import read_all
from brainmu.models import StageModel
from brainmu.train import finetune, pretrain, reconstruction_scores, reconstruction_table

SEED = 20_000
"""Far from the seeds of tests, benchmarks and the demo: none of their animals is in the training set."""


def animals(mice: int, rats: int, humans: int, hours: float, seed: int) -> list[Recording]:
    """Synthetic subjects of each species, typical and hard."""
    out = []
    for k, (species, n) in enumerate((("mouse", mice), ("rat", rats), ("human", humans))):
        if n:
            out += [recording for recording, _ in synth.corpus(n, hours=hours, seed=seed + k, species=species)]
    return out


def laboratories(each: int, hours: float, seed: int) -> list[Recording]:
    """Synthetic subjects of every laboratory: other probes, rates, units of voltage, species, calcium, photometry."""
    labs = list(synth.LABS)
    out = [recording for recording, _ in synth.iter_corpus(each * len(labs), hours=hours, seed=seed, labs=labs, epoch=4.0)]
    for recording in out:
        # Both corpora count their animals from one; these are others.
        recording.subject, recording.id = f"lab_{recording.subject}", f"lab_{recording.id}"
    return out


def elsewhere(recordings: list[Recording], seed: int) -> list[Recording]:
    """The potentials of each recording as others have them: with white noise of half to 5.7 times the SD of the channel, EMG as it is, rectified, or none.

    Nothing else goes with them, neither units nor names and regions of channels: a model that may read those instead fails where they are not known.
    """
    out = []
    amounts = 2 ** np.random.default_rng(seed).uniform(-1.0, 2.5, len(recordings))
    for i, (r, amount) in enumerate(zip(recordings, amounts)):
        bare = {}
        for name, s in synth.with_noise(r, float(amount), seed=i).signals_of("eeg", "lfp", "emg").items():
            if s.kind == "emg" and i % 3 == 2:
                continue
            values = np.abs(s.read()) if s.kind == "emg" and i % 3 else s.read()
            bare[name] = {"values": values, "rate": s.rate, "start": s.start, "unit": s.unit, "kind": s.kind}
        if any(s["kind"] != "emg" for s in bare.values()):
            out.append(Recording.from_arrays(r.id, r.subject, r.species, signals=bare, labels=r.labels))
    return out


REAL = ("mouse-ieeg", "nwb/A8604-211122.nwb", "nwb/sub-4_ses-4_ecephys+image.nwb", "mouse-hd-neurosuite")
"""Public recordings under the MIT licence; what brainmu is measured on elsewhere is not among them."""


def real(folder: Path) -> list[Recording]:
    """The public recordings in a folder, each of a subject of its own where none is named."""
    out = [recording for name in REAL for recording in read_all(folder / name)]
    for recording in out:
        recording.subject = recording.subject or recording.id
    return out


def scored(model: StageModel, recordings: list[Recording], how: str) -> str:
    """Kappa and F1 of the model on animals it has not seen, as a line of the card."""
    kappas, total = [], np.zeros((3, 3), dtype=int)
    for r in recordings:
        proba, start, epoch = model.predict_proba(r)
        true = r.hypnogram("scoring").at(start + (np.arange(len(proba)) + 0.5) * epoch)
        found = np.where(np.isnan(proba).any(1), -1, np.nan_to_num(proba).argmax(1))
        m = metrics.confusion(true, found, 3)
        kappas.append(metrics.cohen_kappa(m))
        total += m
    low, high = metrics.bootstrap_interval(kappas, lambda k: float(np.mean(k)))
    f1 = ", ".join(f"{s} {v:.2f}" for s, v in zip(model.stages, metrics.f1_by_class(total)))
    return f"- On {len(recordings)} further synthetic animals{how}: mean kappa {np.mean(kappas):.3f} [{low:.3f}, {high:.3f}] over animals; F1 {f1}.\n"


def main() -> None:
    """Pretrain, fine-tune, score, and write both folders with their cards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[2] / "checkpoints")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--context-steps", type=int, default=600)
    parser.add_argument("--real", type=Path, help="folder of public recordings; without it, synthetic ones only")
    parser.add_argument("--work", type=Path, default=Path("brainmu-release"))
    a = parser.parse_args()
    began = time.time()

    def tell(stage: str, fraction: float) -> None:
        print(f"\r{time.time() - began:7.0f} s  {stage} {fraction:.0%}   ", end="", flush=True)

    corpus = animals(mice=6, rats=2, humans=2, hours=0.5, seed=SEED) + laboratories(3, 0.5, SEED + 50)
    public = real(a.real) if a.real else []
    config = {"steps": a.steps, "context_steps": a.context_steps, "batch": 64}
    run = pretrain(corpus + public, a.work, config=config, seed=0, resume=a.work.exists(), progress=tell)
    rebuild = f"\nLicence: BSD-3-Clause, as the code. Rebuild: `python pipelines/release/build.py{' --real FOLDER' if a.real else ''}`.\n"
    target = a.out / "brainmu-tiny"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "config.yaml", "report.json"):
        shutil.copy(run.path / name, target / name)
    hours = sum(r.duration for r in public) / 3600
    shown = f"{len(public)} real ones under the MIT licence ({', '.join(REAL)}; {hours:.1f} h)" if public else "no real ones"
    made = f"6 mice, 2 rats, 2 humans, and 3 subjects of each of {len(synth.LABS)} laboratories, half an hour each"
    data = f"\nData: synthetic recordings ({made}) and {shown}.\n"
    further = reconstruction_table(reconstruction_scores(run.path, laboratories(2, 0.3, SEED + 150)))
    apart = f"\nThe same on {2 * len(synth.LABS)} further subjects, two of each laboratory, with 95 % intervals over subjects:\n\n{further}\n"
    (target / "card.md").write_text((run.path / "card.md").read_text(encoding="utf-8") + apart + data + rebuild, encoding="utf-8")
    rodents = [r for r in corpus if r.species != "human"]
    config = {"steps": 200, "encoder_rate": 1e-3}
    model = finetune(rodents + elsewhere(rodents, SEED), encoder=run.path, mode="full", config=config, progress=tell)
    unseen = animals(mice=6, rats=2, humans=0, hours=1.0, seed=SEED + 100)
    model.card += scored(model, unseen, "") + scored(model, elsewhere(unseen, SEED + 100), ", their potentials alone as other laboratories have them")
    model.card += "- Each animal was shown as recorded, and its potentials alone: noisier by 0.5 to 5.7 SD, channels unnamed, EMG as is, rectified or none.\n"
    limits = "- Limits: synthetic animals only, in training and in scoring; score it on your own subjects before you rely on it."
    lines = [limits if line.startswith("- Limits") else line for line in model.card.replace(str(run.path), "brainmu-tiny").splitlines()]
    model.card = "\n".join([*lines, rebuild])
    model.save(a.out / "brainmu-tiny-rodent3", overwrite=True)
    print(f"\n{(target / 'card.md').read_text(encoding='utf-8')}\n{model.card}")


if __name__ == "__main__":
    main()
