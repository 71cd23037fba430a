"""Does reactivation drive sleep? Reactivation by valence, and randomised trials, from stores to the figure.

    python pipelines/reactivation_sleep/run.py --out result/                     # a planted study: found beside the truth
    python pipelines/reactivation_sleep/run.py stores/*.zarr --out result/       # a lab's own stores

Stores hold a hypnogram "scoring", events "reactivation" with content (negative, positive, neutral), the ledger "trials" where there were any,
and a signal "pressure" (or what --adjust names). With --model, the model's own effect is measured too (level "model", never a brain effect).
Only the public API is used.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import brainmu as bm


def main() -> None:
    """Sessions, effects, table, figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--adjust", nargs="*", default=["pressure"])
    parser.add_argument("--outcome", default="NREM->WAKE")
    parser.add_argument("--animals", type=int, default=10, help="animals of the planted study")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="a stager, to ask what the model makes of the events")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    sessions, truth = ([bm.open(p) for p in args.stores], {}) if args.stores else planted(args)
    effects = estimate(sessions, args)
    for name, effect in effects.items():
        (args.out / f"{slug(name)}.json").write_text(effect.to_json(indent=1), encoding="utf-8")
    table(effects, truth, args.out)
    figure(effects, truth, args.out / "effects.png")


def planted(args: argparse.Namespace) -> tuple[list[bm.Recording], dict[str, float]]:
    """A study whose answer is known, preprocessed into stores like any other."""
    recordings, truth = bm.synth.study(n_animals=args.animals, hours=args.hours, seed=args.seed, confounding=0.5, animal_sd=0.3)
    sessions = [bm.preprocess(r, args.out / "stores" / f"{r.id}.zarr") for r in recordings]
    found = truth.effects
    names = {
        "trials: assigned": "itt_risk_difference",
        "hazard: negative": "epoch_log_odds_ratio[negative]",
        "hazard: positive": "epoch_log_odds_ratio[positive]",
    }
    return sessions, {name: found[key].value for name, key in names.items() if key in found}


def estimate(sessions: list[bm.Recording], args: argparse.Namespace) -> dict[str, bm.Effect]:
    """Every question the sessions can answer, by name."""
    out: dict[str, bm.Effect] = {}
    common = {"outcome": args.outcome, "labels": "scoring", "seed": args.seed}
    if all("trials" in s.labels for s in sessions):
        out["trials: assigned"] = bm.estimate_effect(sessions, exposure="trials", design="trials", horizon=10.0, **common)
    if not all("reactivation" in s.labels for s in sessions):
        return out
    adjust = [name for name in args.adjust if all(name.partition(":")[0] in s.signals for s in sessions)]
    contents = sorted({str(c) for s in sessions for c in s.events("reactivation").content} - {""})
    for content in contents or [None]:
        name = content or "any event"
        ask = {"exposure": "reactivation", "content": content, **common}
        out[f"hazard: {name}"] = bm.estimate_effect(sessions, design="hazard", adjust=adjust, **ask)
        out[f"hazard, unadjusted: {name}"] = bm.estimate_effect(sessions, design="hazard", **ask)
        if adjust and len({s.subject for s in sessions}) > 1:
            out[f"msm: {name}"] = bm.estimate_effect(sessions, design="msm", adjust=adjust, **ask)
    if args.model is not None:
        model = bm.load(str(args.model))
        for s in sessions:
            out[f"in the model: {s.id}"] = bm.intervene(model, s, events=s.events("reactivation"), operation="remove")
    return out


def table(effects: dict[str, bm.Effect], truth: dict[str, float], out: Path) -> None:
    """Print the effects with what was planted, and write them."""
    rows = []
    for name, e in effects.items():
        planted = truth.get(name, truth.get(name.replace("msm", "hazard")))
        beside = "" if planted is None else f"{planted:+.3f}"
        rows.append({"effect": name, **{k: getattr(e, k) for k in ("unit", "level", "estimate", "low", "high", "p_value", "n_units")}, "planted": planted})
        print(f"{name:34s} {e.unit:16s} {e.estimate:+.3f} [{e.low:+.3f}, {e.high:+.3f}]  p {e.p_value:.3g}  planted {beside or '-'}")
        print(f"    {e.diagnostics.get('verdict', '')}")
    (out / "effects.json").write_text(json.dumps(rows, indent=1, default=lambda x: None), encoding="utf-8")


def figure(effects: dict[str, bm.Effect], truth: dict[str, float], path: Path) -> None:
    """One row an effect, a panel a unit: estimate, interval, and the planted value as a ring."""
    units = list(dict.fromkeys(e.unit for e in effects.values()))
    groups = [[(n, e) for n, e in effects.items() if e.unit == u] for u in units]
    fig, axes = plt.subplots(
        len(units),
        1,
        figsize=(7, 1 + 0.45 * len(effects)),
        squeeze=False,
        gridspec_kw={"height_ratios": [max(len(g), 1.5) for g in groups]},
        layout="constrained",
    )
    colours = {"experimental": "C0", "observational": "C1", "model": "C2"}
    for ax, unit, group in zip(axes[:, 0], units, groups):
        for i, (name, e) in enumerate(group):
            ax.plot([e.low, e.high], [i, i], color=colours[e.level], lw=2)
            ax.plot(e.estimate, i, "o", color=colours[e.level])
            planted = truth.get(name, truth.get(name.replace("msm", "hazard")))
            if planted is not None:
                ax.plot(planted, i, "o", mfc="none", mec="k", ms=11, label="planted" if i == 0 else None)
        ax.axvline(0, color="0.7", lw=1, zorder=0)
        ax.set_yticks(np.arange(len(group)), [n for n, _ in group])
        ax.set_ylim(len(group) - 0.5, -0.5)
        ax.set_xlabel(unit)
        ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=150)
    plt.close(fig)


def slug(name: str) -> str:
    """A file name."""
    return "".join(c if c.isalnum() else "_" for c in name).strip("_")


if __name__ == "__main__":
    main()
