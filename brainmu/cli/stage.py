"""brainmu stage: a hypnogram."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_session, progress, refuse_existing

COMMON = Common()


def stage(
    store: Annotated[Path, Parameter(help="A store (*.zarr).")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Hypnogram; the suffix says how: .tsv, .npz, .edf (EDF+ annotations), _events.tsv (BIDS).")],
    model: Annotated[str, Parameter(help="A stager folder, a packaged checkpoint's name, or 'rules' (rodents, no labels needed).")] = "rules",
    epoch: Annotated[float | None, Parameter(help="Epoch length, s (rules: 4; a stager keeps its own).")] = None,
    abstain: Annotated[bool, Parameter(negative="", help="Leave epochs unscored (UNS) that are less probable than the stager's confidence (0.6).")] = False,
    abstain_rate: Annotated[float | None, Parameter(help="Leave this share of the epochs unscored, the least certain ones (0.05).")] = None,
    calibrate: Annotated[
        str | None, Parameter(help="Adapt the stager to this animal by a hypnogram (of the store, or a file) of a few minutes or more.")
    ] = None,
    calibrate_minutes: Annotated[float | None, Parameter(help="Calibrate by the first so many minutes that hypnogram scores (all of them).")] = None,
    labels: Annotated[str | None, Parameter(help="Also score against this hypnogram, less what calibrated the stager, and print kappa and F1.")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace an existing file.")] = False,
    common: Common = COMMON,
) -> int:
    """A hypnogram with probabilities, by a stager or by rules.

    For example:

    brainmu stage m1.zarr --model rules --out m1.tsv

    brainmu stage m1.zarr --model stager/ --out m1.edf --labels scoring

    brainmu stage m1.zarr --model brainmu-tiny-rodent3 --calibrate few_minutes --abstain-rate 0.05 --out m1.tsv

    brainmu stage m1.zarr --calibrate scoring --calibrate-minutes 10 --labels scoring --out m1.tsv
    """
    from brainmu.errors import UsageError
    from brainmu.sleep import SleepStager, evaluate, write_hypnogram

    refuse_existing(out, overwrite)
    if out.suffix not in (".tsv", ".npz", ".edf"):
        raise UsageError(f"{out}: hypnograms are written as .tsv, .npz or .edf (EDF+ annotations), by suffix: end the name in one of them")
    if abstain and abstain_rate is not None:
        raise UsageError(f"--abstain goes by confidence, --abstain-rate {abstain_rate:g} by share: leave one of them out")
    if calibrate_minutes is not None and calibrate is None:
        raise UsageError(f"--calibrate-minutes {calibrate_minutes:g} goes with --calibrate NAME: name the hypnogram that scores them")
    session = open_session(store)
    # Looked up before any work, so that a wrong name costs nothing and leaves nothing behind.
    reference = session.hypnogram(labels) if labels is not None else None
    used = None if calibrate is None else _of_store_or_file(session, calibrate)
    left_out = 0
    if reference is not None and used is not None:
        reference, left_out = unused(reference, used, calibrate_minutes, session.start)
        if not (reference.codes >= 0).any():
            raise UsageError(f"--labels {labels}: every epoch that it scores calibrates the stager: score by another hypnogram, or add --calibrate-minutes 10")
    if model == "rules":
        stager = SleepStager(stages="rodent3", epoch=4.0 if epoch is None else epoch, method="rules")
    else:
        stager = SleepStager.load(model)
        if epoch is not None and epoch != stager.epoch:
            raise UsageError(f"--epoch {epoch:g}: the stager {model} was fitted on epochs of {stager.epoch:g} s: leave --epoch out")
    with progress(common, "stage") as report:
        if report:
            report("predicting", 0.0)
        if calibrate is not None:
            stager = stager.calibrate(session, calibrate, minutes=calibrate_minutes)
        hypnogram = stager.predict(session, abstain=abstain if abstain_rate is None else abstain_rate)
    write_hypnogram(hypnogram, out)
    fractions = {s: float(hypnogram.mask(s).mean()) for s in (*hypnogram.stages, "ART", "UNS")}
    result = {"out": str(out), "n_epochs": len(hypnogram), "epoch": hypnogram.epoch, "stages": list(hypnogram.stages), "fractions": fractions,
              "scorer": hypnogram.scorer, "attrs": hypnogram.attrs}  # fmt: skip
    text = [repr(hypnogram)]
    if calibrate is not None:
        text.append(f"calibration: {hypnogram.attrs['calibration']}")
    if "abstained" in hypnogram.attrs:
        error = hypnogram.attrs["expected_error"]
        text.append(f"left unscored: {hypnogram.attrs['abstained']:.1%} of the epochs; of the others {error:.1%} are wrong if the probabilities are right")
    if "quality" in hypnogram.attrs:
        text.append(f"quality {hypnogram.attrs['quality']}: " + "; ".join(hypnogram.attrs.get("reasons", [])))
    elif hypnogram.attrs.get("reasons"):
        text.append("doubtful: " + "; ".join(hypnogram.attrs["reasons"]))
    if reference is not None:
        scores = evaluate(hypnogram, reference)
        result["scores"] = scores | ({"left_out": left_out} if used is not None else {})
        f1 = ", ".join(f"{k} {v:.2f}" for k, v in scores["f1"].items())
        without = f", without the {left_out} that calibrated the stager" if left_out else ""
        text.append(f"against {labels!r} (n = {scores['n']} epochs{without}): kappa {scores['kappa']:.3f}, accuracy {scores['accuracy']:.3f}, F1 {f1}")
    emit(common, result, "\n".join(text))
    note(common, f"wrote {out}")
    return 0


def _of_store_or_file(session: Any, name: str) -> Any:
    """The hypnogram of this name in the store, or in the file of this name, which then is a label of the session as well."""
    from brainmu.sleep import read_hypnogram

    if name not in session.labels and Path(name).is_file():
        session.labels[name] = read_hypnogram(name)
    return session.hypnogram(name)


def unused(reference: Any, used: Any, minutes: float | None, since: float) -> tuple[Any, int]:
    """A reference with those epochs unscored that calibrated the stager (all that `used` scores, or the first minutes since data began), and how many."""
    import numpy as np

    from brainmu.core.hypnogram import UNSCORED, Hypnogram

    scored = (used.codes >= 0) & (used.times + used.epoch > since)
    if minutes is not None:
        scored &= np.cumsum(scored) * used.epoch <= minutes * 60 + 1e-6
    # An epoch of either that reaches into one of the other counts, whatever their lengths and starts.
    begin = used.start + np.flatnonzero(scored) * used.epoch
    first = np.floor((begin - reference.start) / reference.epoch + 1e-6).astype(int)
    last = np.ceil((begin + used.epoch - reference.start) / reference.epoch - 1e-6).astype(int)
    edges = np.zeros(len(reference) + 1, dtype=int)
    np.add.at(edges, np.clip(first, 0, len(reference)), 1)
    np.add.at(edges, np.clip(last, 0, len(reference)), -1)
    gone = (np.cumsum(edges)[:-1] > 0) & (reference.codes >= 0)
    codes = np.where(gone, UNSCORED, reference.codes).astype(np.int8)
    return Hypnogram(codes, reference.stages, reference.epoch, reference.start, scorer=reference.scorer, attrs=reference.attrs), int(gone.sum())
