"""brainmu replay: decoding error, reactivated content of candidate events, assemblies, and a detector that was fitted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_session, progress, refuse_existing, warn

if TYPE_CHECKING:
    from brainmu.core import Recording

COMMON = Common()
METHOD_LOOKS = {"assembly": "assemblies are looked for all through the rest", "detector": "the detector finds its own"}


def replay(
    store: Annotated[Path, Parameter(help="A store (*.zarr) with spikes and position.")],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="Replay events as BIDS events.tsv with score, p_value, q_value, content, direction.")] = None,
    cross_validate: Annotated[bool, Parameter(negative="", help="Only say how well the spikes decode position (or --decode), by cross-validation.")] = False,
    decode: Annotated[str, Parameter(help="With --cross-validate: position, heading (head direction), or a label whose classes to tell apart.")] = "position",
    method: Annotated[
        Literal["sequence", "assembly", "detector"],
        Parameter(help="Trajectories of candidate events, activations of cell assemblies, or what a detector finds that finetune --task replay fitted."),
    ] = "sequence",
    model: Annotated[Path | None, Parameter(help="Detector: its folder.")] = None,
    probability: Annotated[float | None, Parameter(help="Detector: least probability of an event (default: the detector's, 0.5).")] = None,
    false_rate: Annotated[float | None, Parameter(help="Detector: instead, events a minute that were false in animals it had not seen.")] = None,
    templates: Annotated[Path | None, Parameter(help="Assemblies: use the templates in this file (.npz), such as yesterday's, matched by unit id.")] = None,
    save_templates: Annotated[Path | None, Parameter(help="Assemblies: write the templates fitted in the running epochs to this file (.npz).")] = None,
    run: Annotated[str, Parameter(help="Label of the running epochs (derived from speed where absent, and said).")] = "run",
    rest: Annotated[str, Parameter(help="Label of the epochs in which to look for replay.")] = "rest",
    candidates: Annotated[
        Literal["ripple", "burst", "hse"] | None, Parameter(help="Candidate events (default: ripples where there is LFP, else population bursts).")
    ] = None,
    bin_size: Annotated[float, Parameter(help="Time bin while running, s (cross-validation).")] = 0.25,
    folds: Annotated[int, Parameter(help="Contiguous folds of the cross-validation.")] = 5,
    shuffles: Annotated[int, Parameter(help="Shuffles of each kind an event.")] = 500,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace an existing file.")] = False,
    common: Common = COMMON,
) -> int:
    """Candidate events, decoded content, significance; --cross-validate gives the decoding error.

    Replay read with a decoder that cannot decode is noise: the cross-validated error while running always comes first.

    For example:

    brainmu replay s.zarr --cross-validate --json

    brainmu replay s.zarr --out replay.tsv

    brainmu replay s.zarr --method assembly --out assemblies.tsv --save-templates day1.npz

    brainmu replay s.zarr --method detector --model detector/ --false-rate 1 --out replay.tsv
    """
    import brainmu.replay
    from brainmu.errors import UsageError

    if not cross_validate and out is None:
        raise UsageError("replay: say where the events go (--out FILE.tsv), or ask for the decoding error only (--cross-validate)")
    if method != "assembly" and (templates or save_templates):
        raise UsageError("replay: --templates and --save-templates are for assemblies: add --method assembly")
    if method != "sequence" and candidates:
        raise UsageError(f"replay: --candidates is for --method sequence: {METHOD_LOOKS[method]}")
    if (method == "detector") != (model is not None):
        raise UsageError("replay: --method detector and --model FOLDER go together: give both")
    if method != "detector" and (probability is not None or false_rate is not None):
        raise UsageError("replay: --probability and --false-rate are for --method detector")
    if probability is not None and false_rate is not None:
        raise UsageError("replay: --probability and --false-rate both given, expected one: the false rate sets the least probability")
    if method == "detector" and cross_validate:
        raise UsageError("replay: --cross-validate says how well position is decoded, --method detector decodes none: leave one of them out")
    if templates and save_templates:
        raise UsageError("replay: --templates reads templates and --save-templates writes those that are fitted: give one of them")
    if decode != "position" and not cross_validate:
        raise UsageError(f"replay: --decode {decode} says what to cross-validate: add --cross-validate")
    for path in (out, save_templates):
        if path is not None:
            refuse_existing(path, overwrite)
    session = open_session(store)
    if cross_validate and out is None:
        return _cross_validate(session, decode, run, bin_size, folds, common)
    assert out is not None
    if model is not None:
        return _detected(session, out, model, rest, probability, false_rate, common)
    if method == "assembly":
        return _assemblies(session, out, run, rest, templates, save_templates, common)
    with progress(common, "replay") as report:
        found = brainmu.replay.find_replay(session, run=run, rest=rest, candidates=candidates, shuffles=shuffles, seed=common.seed, progress=report)
    found.to_bids(out)
    n = len(found)
    significant = int((found.q_value < 0.05).sum()) if n else 0
    nominal = int((found.p_value < 0.05).sum()) if n else 0
    result = {"out": str(out), "n_candidates": n, "n_p05": nominal, "n_q05": significant, **found.attrs}
    too_small = found.n_candidates - found.n_scored
    left = f" ({too_small} of {found.n_candidates} have fewer than {found.least_cells} cells or {found.least_bins} bins: not scored)" if too_small else ""
    text = [
        _error_line(found.decoding_error),
        f"{n} candidate events{left}; {nominal} at p < 0.05 ({0.05 * n:.1f} expected by chance), {significant} at q < 0.05 (FDR)",
    ]
    warn(common, list(found.attrs.get("warnings", [])))
    emit(common, result, "\n".join(text))
    note(common, f"wrote {out}")
    return 0


def _cross_validate(session: Recording, decode: str, run: str, bin_size: float, folds: int, common: Common) -> int:
    import brainmu.replay

    with progress(common, "decode") as report:
        if decode == "position":
            error = brainmu.replay.cross_validated_error(session, run=run, bin_size=bin_size, folds=folds, progress=report)
            text = _error_line(error)
        elif decode == "heading":
            error = brainmu.replay.cross_validated_angular_error(session, bin_size=bin_size, folds=folds, progress=report)
            text = _error_line(error).replace("while running", "of the head direction")
        else:
            error = brainmu.replay.cross_validated_label(session, decode, bin_size=bin_size, folds=folds, seed=common.seed)
            low, high = error["interval"]
            text = (
                f"{decode}: balanced accuracy {error['accuracy']:.3f} [{low:.3f}, {high:.3f}] (chance {error['chance']:.3f}, p {error['p_value']:.3g}), "
                f"{error['n_bins']} bins of {error['bin_size'] * 1000:g} ms, {folds} folds; {', '.join(error['classes'])}"
            )
    emit(common, {"decoding_error": error}, text)
    warn(common, list(error.get("warnings", [])))
    return 0


def _assemblies(session: Recording, out: Path, run: str, rest: str, templates: Path | None, save: Path | None, common: Common) -> int:
    """Activations of assemblies in rest, and how strong the templates are there beside dealt ones."""
    import brainmu.replay
    from brainmu.replay.assemblies import Assemblies

    found = Assemblies.load(templates).carried_to(session) if templates else brainmu.replay.fit_assemblies(session, run, seed=common.seed)
    if save is not None:
        found.save(save)
    with progress(common, "assemblies") as report:
        events = brainmu.replay.find_activations(session, found, rest, seed=common.seed, progress=report)
    events.to_bids(out)
    result: dict[str, Any] = {"out": str(out), "n": len(events), "n_assemblies": len(found), "members": found.members, **events.attrs}
    text = [f"{len(found)} assemblies of {len(found.units)} units ({found.number}); {events.matched[0]} of {events.matched[1]} units of the templates are here"]
    if len(found):
        table = brainmu.replay.template_strength(session, found, {"rest": rest}, seed=common.seed)
        result["strength"] = table.to_dict("records")
        for k, row in enumerate(table.itertuples()):
            rate = f"; {events.rate[k]:.2f} events / min, {events.surrogate_rate[k]:.2f} in shifted trains" if k < len(found) else ""
            text.append(f"{row.assembly}: strength in rest {row.strength:.3f} ({row.null_mean:.3f} with dealt units, p {row.p_value:.3g}){rate}")
    emit(common, result, "\n".join(text))
    note(common, f"wrote {out}" + (f" and {save}" if save else ""))
    return 0


def _detected(session: Recording, out: Path, model: Path, rest: str, probability: float | None, false_rate: float | None, common: Common) -> int:
    """What a fitted detector finds in the label of rest, or in all of the recording where there is none."""
    from brainmu.core import Intervals
    from brainmu.replay import ReplayDetector

    detector = ReplayDetector.load(model)
    spans = session.labels.get(rest)
    if not isinstance(spans, Intervals):
        spans = None
        note(common, f"note: no label {rest!r} of epochs in {session.id}: all of it is looked at")
    with progress(common, "detect") as report:
        found = detector.predict(session, spans, probability=probability, false_rate=false_rate, progress=report)
    found.to_bids(out)
    result = {"out": str(out), "n": len(found), **found.attrs, "within": rest if spans is not None else "everywhere"}
    read = " and ".join(found.attrs["modalities"]) or "nothing"
    text = [f"{len(found)} {detector.kind} events in {found.seconds / 60:.1f} min: {found.rate:.2f} / min, read from {read}"]
    text += [f"{m} not used: {why}" for m, why in found.absent.items()]
    text += [f"nothing said about {s:.1f} s: {why}" for why, s in found.abstained.items()]
    if len(found):
        d, p = sorted(found.duration * 1000), sorted(found.probability)
        text.append(f"duration median {d[len(d) // 2]:.0f} ms; probability median {p[len(p) // 2]:.2f}; content {found.attrs['content']}")
    emit(common, result, "\n".join(text))
    note(common, f"wrote {out}")
    return 0


def _error_line(error: dict) -> str:
    return (
        f"decoding error while running: median {error['median']:.3g} {error['unit']} (chance {error['chance']:.3g}), "
        f"{error['n_bins']} bins of {error['bin_size'] * 1000:g} ms, {error['folds']} folds"
    )
