"""brainmu attribute: what a stager used."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_session, progress, refuse_existing

COMMON = Common()


def attribute(
    store: Annotated[Path, Parameter(help="A store (*.zarr).")],
    /,
    *,
    model: Annotated[str, Parameter(help="A stager or detector folder, or a packaged checkpoint's name.")],
    target: Annotated[str, Parameter(help="The stage to explain: WAKE, NREM, REM, W, N1, N2, N3, R. Of a detector of replay: event, or a content.")],
    method: Annotated[
        Literal["integrated_gradients", "gradient_shap", "feature_ablation", "layer_conductance", "occlusion"] | None,
        Parameter(help="Integrated gradients where the stager holds an encoder, else occlusion, where not given."),
    ] = None,
    baseline: Annotated[
        str, Parameter(help="What the input is compared with: zero, stage_mean or matched (a window near in time); stage_mean:NREM names a stage.")
    ] = "zero",
    tap: Annotated[str, Parameter(help="Layer conductance: the tap, such as window.0, latents, summary, context.0, context.")] = "summary",
    rollout: Annotated[bool, Parameter(negative="", help="Attention rollout beside the map. It is not an attribution of the output.")] = False,
    out: Annotated[
        Path | None,
        Parameter(
            help="Write the map (log odds by channel, band, time, unit) as netCDF (.nc). Parts are kept in FILE.parts until it is done; run again to go on."
        ),
    ] = None,
    max_epochs: Annotated[int, Parameter(help="With an encoder: explain at most this many epochs (occlusion explains all); of a detector: events.")] = 32,
    check: Annotated[bool, Parameter(help="Check whether the map is true, and mark it where it is not.")] = True,
    control: Annotated[str | None, Parameter(help="A stager fitted to shuffled labels: the map must differ from its.")] = None,
    labels: Annotated[str | None, Parameter(help="Hypnogram that the stager's skill is checked against; the only one where not given.")] = None,
    planted: Annotated[
        list[str] | None, Parameter(negative="", help="A known driver of a planted session: lfp/CA1_1/theta or spikes/7. The map is scored against all.")
    ] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace an existing file.")] = False,
    common: Common = COMMON,
) -> int:
    """What a head used: channel, unit, band, time.

    Shares are in log odds of the target and sum, for integrated gradients, to the difference between the recording and the baseline.
    Hours of work cut off midway go on where they were, when the same command with --out runs again.

    For example:

    brainmu attribute m1.zarr --model stager/ --target REM --out rem.nc

    brainmu attribute m1.zarr --model stager/ --target REM --method gradient_shap --baseline matched

    brainmu attribute m1.zarr --model detector/ --target event
    """
    import brainmu.explain
    import brainmu.loading
    from brainmu.explain.files import check_suffix, save_map

    if out is not None:
        refuse_existing(out, overwrite)
        check_suffix(out)
    session = open_session(store)
    stager = brainmu.loading.load(model)
    with progress(common, "attribute") as report:
        maps = brainmu.explain.attribute(
            stager, session, target, method=method, max_epochs=max_epochs, check=check, control=None if control is None else brainmu.loading.load(control),
            labels=labels, seed=common.seed, progress=report, baseline=baseline, tap=tap, rollout=rollout,
            planted=None if planted is None else [_driver(p) for p in planted],
            parts=None if out is None else out.with_name(f"{out.name}.parts"),
        )  # fmt: skip
    mean = {name: v.mean(v.dims[0], keep_attrs=True) for name, v in maps.data_vars.items()}
    what = "events" if "n_events" in maps.attrs else "epochs"
    lines = [f"{target} in {session.id}: {maps.attrs['n_epochs']} {what}, {maps.attrs['method']}, mean share in log odds{_marked(maps.attrs)}"]
    for name, m in mean.items():
        flat = m.to_series().sort_values(key=abs, ascending=False)
        what = "" if m.attrs.get("unit", "log odds") == "log odds" else f" {m.attrs['unit']}, not an attribution"
        lines += [f"  {name} {' '.join(map(str, key if isinstance(key, tuple) else (key,)))}: {value:+.3f}{what}" for key, value in flat.head(5).items()]
    lines += _checks(maps.attrs)
    result = {**maps.attrs, "shares": {str(n): {"index": list(m.dims), "values": m.to_series().reset_index().to_numpy().tolist()} for n, m in mean.items()}}
    if out is not None:
        save_map(maps, out)
        shutil.rmtree(out.with_name(f"{out.name}.parts"))
        result["out"] = str(out)
        note(common, f"wrote {out}")
    emit(common, result, "\n".join(lines))
    return 0


def _driver(words: str) -> tuple[str, ...]:
    """STREAM/CHANNEL/BAND or STREAM/UNIT; a channel's name may hold slashes of its own."""
    from brainmu.explain.bands import BANDS

    stream, _, rest = words.partition("/")
    member, _, band = rest.rpartition("/")
    return tuple(p for p in ((stream, member, band) if band in BANDS and member else (stream, rest)) if p)


def _marked(attrs: dict[str, Any]) -> str:
    """What a reader must see before the numbers."""
    return " (FAILED ITS CHECKS: not to be read as what the stager used)" if str(attrs.get("verdict", "")).startswith("failed") else ""


def _checks(attrs: dict[str, Any]) -> list[str]:
    """Lines that say whether the map is true."""
    lines = [f"of: {attrs['explains']}"] if "explains" in attrs else []
    if "network_agreement" in attrs:
        lines.append(f"the network alone and the stager agree on {attrs['network_agreement']:.0%} of epochs")
    if "epochs_left_out" in attrs:
        lines.append(f"{attrs['epochs_left_out']} of the epochs named were left out: raise --max-epochs to explain them too")
    if "baseline" in attrs:
        of = attrs.get("baseline_stage", "")
        lines.append(f"baseline {attrs['baseline']}{f' ({of})' if of and not attrs['baseline'].endswith(f':{of}') else ''}")
    if "share_through_tap" in attrs:
        lines.append(f"share of the difference that flows through the tap {attrs['share_through_tap']:.2f}")
    if "completeness_error" in attrs:
        lines.append(f"completeness error {attrs['completeness_error']:.2%}")
    if "deletion_auc" in attrs:
        lines.append(
            f"deletion {attrs['deletion_auc']:.2f}, insertion {attrs['insertion_auc']:.2f} (in random order "
            f"{attrs['random_deletion_auc']:.2f}, {attrs['random_insertion_auc']:.2f})"
        )
    for key, name in (("randomised_weights_correlation", "randomised weights"), ("randomised_labels_correlation", "shuffled labels")):
        if key in attrs:
            lines.append(f"rank correlation with the map of {name} {attrs[key]:.2f} (near 1: the map says nothing)")
    if "agreement" in attrs:
        lines.append(
            f"rank correlation with the map by {attrs['agreement_with'].replace('_', ' ')} {attrs['agreement']:.2f} "
            f"[{attrs['agreement_low']:.2f}, {attrs['agreement_high']:.2f}]"
        )
    if "skill" in attrs:
        lines.append(f"AUROC of the stager for the target {attrs['skill']:.2f}")
    if "recovery" in attrs:
        lines.append(f"AUROC of the map against what was planted ({', '.join(attrs['planted'])}) {attrs['recovery']:.2f} (chance 0.50)")
    if "attention_note" in attrs:
        lines.append(attrs["attention_note"])
    return lines + ([f"checks {attrs['verdict']}"] if "verdict" in attrs else [])
