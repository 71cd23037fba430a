"""brainmu replay: decoding error, and reactivated content of candidate events."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_sessions, progress, refuse_existing, warn

COMMON = Common()


def replay(
    store: Annotated[Path, Parameter(help="A store (*.zarr) with spikes and position.")],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="Replay events as BIDS events.tsv with score, p_value, q_value, content, direction.")] = None,
    cross_validate: Annotated[bool, Parameter(negative="", help="Only say how well position decodes while running, by cross-validation.")] = False,
    run: Annotated[str, Parameter(help="Label of the running epochs (derived from speed where absent, and said).")] = "run",
    rest: Annotated[str, Parameter(help="Label of the epochs in which to look for replay.")] = "rest",
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
    """
    import brainmu.replay
    from brainmu.errors import UsageError

    if not cross_validate and out is None:
        raise UsageError("replay: say where the events go (--out FILE.tsv), or ask for the decoding error only (--cross-validate)")
    if out is not None:
        refuse_existing(out, overwrite)
    session = open_sessions([store])[0]
    if cross_validate and out is None:
        with progress(common, "decode") as report:
            error = brainmu.replay.cross_validated_error(session, run=run, bin_size=bin_size, folds=folds, progress=report)
        emit(common, {"decoding_error": error}, _error_line(error))
        warn(common, list(error.get("warnings", [])))
        return 0
    assert out is not None
    with progress(common, "replay") as report:
        found = brainmu.replay.find_replay(session, run=run, rest=rest, shuffles=shuffles, seed=common.seed, progress=report)
    found.to_bids(out)
    n = len(found)
    significant = int((found.q_value < 0.05).sum()) if n else 0
    nominal = int((found.p_value < 0.05).sum()) if n else 0
    result = {"out": str(out), "n_candidates": n, "n_p05": nominal, "n_q05": significant, **found.attrs}
    text = [
        _error_line(found.decoding_error),
        f"{n} candidate events; {nominal} at p < 0.05 ({0.05 * n:.1f} expected by chance), {significant} at q < 0.05 (FDR)",
    ]
    warn(common, list(found.attrs.get("warnings", [])))
    emit(common, result, "\n".join(text))
    note(common, f"wrote {out}")
    return 0


def _error_line(error: dict) -> str:
    return (
        f"decoding error while running: median {error['median']:.3g} {error['unit']} (chance {error['chance']:.3g}), "
        f"{error['n_bins']} bins of {error['bin_size'] * 1000:g} ms, {error['folds']} folds"
    )
