"""brainmu preprocess: recordings to stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, key_values, note, progress, warn

COMMON = Common()


def preprocess(
    source: Annotated[list[Path], Parameter(help="Files or folders: NWB, EDF, Neurosuite, Trodes, arrays with a brainmu.yaml, ...", negative="")],
    /,
    *,
    out: Annotated[Path, Parameter(help="One source: the store itself if it ends in .zarr. Otherwise a folder (or URL) for <id>.zarr each.")],
    lfp_rate: Annotated[
        float | None, Parameter(help="Rate (Hz) that faster voltage signals are brought to. Slower ones are never upsampled. 0 keeps each rate.")
    ] = None,
    notch: Annotated[float | None, Parameter(help="Mains frequency (50 or 60 Hz) to take out of voltages, with its harmonics.")] = None,
    band: Annotated[tuple[float, float] | None, Parameter(help="Pass band (low high, Hz) of lfp and eeg. One open side: use --config.")] = None,
    reference: Annotated[str | None, Parameter(help="Re-reference lfp and eeg: average, median (by shank or region), or a channel's name.")] = None,
    derive: Annotated[
        list[str] | None, Parameter(help="Streams to compute and store: speed, position_smoothed, dff, emg_from_lfp.", consume_multiple=True, negative="")
    ] = None,
    compression: Annotated[str | None, Parameter(help="none (mapped into memory, the default) or lz4 (smaller).")] = None,
    clock: Annotated[str | None, Parameter(help="Clock that gives the session's time, where streams run on several; none aligns nothing.")] = None,
    sync: Annotated[
        list[str] | None, Parameter(help="CLOCK=LABEL: the event label or sync signal with the shared pulses of a clock (repeatable).", negative="")
    ] = None,
    max_residual: Annotated[float | None, Parameter(help="How far (s) a sync pulse may lie from its clock's fitted map. Default 0.005.")] = None,
    max_drift: Annotated[float | None, Parameter(help="With --clock none: how far (s) a stream's time may be off. Default 0.005.")] = None,
    manifest: Annotated[Path | None, Parameter(help="A brainmu.yaml that lies elsewhere than in the source folder.")] = None,
    option: Annotated[list[str] | None, Parameter(help="key=value for the reader of the format, as in groups=[good,mua] (repeatable).", negative="")] = None,
    storage_option: Annotated[list[str] | None, Parameter(help="key=value for the file system of a URL (fsspec; repeatable).", negative="")] = None,
    jobs: Annotated[int, Parameter(help="Processes; they share long recordings and many short ones alike. The bytes do not depend on it.")] = 1,
    scheduler: Annotated[str | None, Parameter(help="Address of a Dask scheduler (tcp://host:8786) whose workers do the work instead.")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace another store at the output (kept until the new one is whole).")] = False,
    plan: Annotated[bool, Parameter(negative="", help="Say what would be read, aligned, resampled, dropped and written, and stop.")] = False,
    common: Common = COMMON,
) -> int:
    """Recordings in any format to aligned, checksummed stores.

    The same command on the same sources goes on where it stopped, or says "already complete".

    For example:

    brainmu preprocess night.edf --out night.zarr

    brainmu preprocess day1/ day2/ --out stores/

    brainmu preprocess arrays/ --manifest pipelines/mouse_eeg_emg/brainmu.yaml --out stores/

    brainmu preprocess day1/ --out day1.zarr --notch 50 --reference median --derive speed --jobs 2
    """
    import brainmu.formats
    import brainmu.store
    from brainmu.errors import BrainmuError, UsageError
    from brainmu.store.places import is_url

    recordings = []
    failed: dict[str, str] = {}
    reader = key_values(option, "--option") | ({"manifest": manifest} if manifest else {})
    for path in source:
        try:
            recordings += [(path, r) for r in brainmu.formats.read_all(path, **reader)]
        except BrainmuError as error:
            # One bad source among many must not cost the night's work on the others.
            if len(source) == 1:
                raise
            failed[str(path)] = str(error)
    single = out.suffix == ".zarr"
    if not single and not is_url(out) and out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file, expected a folder, or a store that ends in .zarr")
    if single and len(recordings) > 1:
        names = ", ".join(r.id for _, r in recordings)
        raise UsageError(f"--out {out} is one store, but the sources hold {len(recordings)} recordings ({names}): give a folder instead")
    ids = [r.id for _, r in recordings]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise UsageError(f"two sources have the id {twice[0]!r} and would write the same store: preprocess them into different folders")
    given = {"notch": notch, "band": band, "reference": reference, "derive": derive, "compression": compression, "clock": clock,
             "max_residual": max_residual, "max_drift": max_drift}  # fmt: skip
    options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    if lfp_rate is not None:
        options["lfp_rate"] = lfp_rate or None
    if sync:
        options["sync"] = key_values(sync, "--sync")
    if common.config is not None:
        options["config"] = common.config
    if plan:
        plans = [brainmu.store.plan(r, jobs=jobs, **options) for _, r in recordings]
        emit(common, {"plans": plans, "failed": failed}, "\n\n".join(brainmu.store.format_plan(p) for p in plans))
        return 1 if failed else 0
    for _, recording in recordings:
        warn(common, [f"{recording.id}: {w}" for w in [*recording.warnings, *recording.doubts()]])
    if storage_option:
        options["storage_options"] = key_values(storage_option, "--storage-option")
    before = {id(r): {*r.warnings, *r.doubts()} for _, r in recordings}
    done = []
    for path, recording, outcome in _stores(recordings, out, single, jobs, scheduler, overwrite, common, options):
        if outcome.error is not None:
            if len(recordings) == 1:
                raise outcome.error
            failed[f"{path}: {recording.id}"] = str(outcome.error)
            continue
        session = outcome.session
        done.append(
            {
                "id": session.id,
                "path": str(session.path),
                "duration": session.duration,
                "already_complete": outcome.already_complete,
                "warnings": session.warnings,
            }
        )
        warn(common, [f"{session.id}: {w}" for w in session.warnings if w not in before[id(recording)]])
    lines = [f"{d['path']}: {'already complete' if d['already_complete'] else 'written'}, {d['duration'] / 60:.1f} min" for d in done]
    lines += [f"FAILED {path}: {why}" for path, why in failed.items()]
    emit(common, {"stores": done, "failed": failed}, "\n".join(lines))
    if failed:
        note(common, f"{len(failed)} of {len(failed) + len(done)} failed")
    return 1 if failed else 0


def _stores(
    recordings: list[tuple[Path, Any]], out: Path, single: bool, jobs: int, scheduler: str | None, overwrite: bool, common: Common, options: dict[str, Any]
) -> list[tuple[Path, Any, Any]]:  # fmt: skip
    """Each source path and recording with the outcome of storing it; one that fails does not stop the others."""
    import brainmu.store
    from brainmu.store.batch import Outcome
    from brainmu.store.places import url_of

    if not recordings:
        return []
    place: Any = url_of(out) or out
    with progress(common, f"preprocess {recordings[0][1].id}" if single else "preprocess") as report:
        if single:
            session = brainmu.store.preprocess(
                recordings[0][1], place, overwrite=overwrite, progress=report, jobs=jobs, scheduler=scheduler, **options
            )  # fmt: skip
            outcomes = [Outcome(str(recordings[0][0]), session.id, session.path, None, session.already_complete)]
        else:
            if place is out:
                out.mkdir(parents=True, exist_ok=True)
            outcomes = brainmu.store.preprocess_many(
                [r for _, r in recordings], place, jobs=jobs, scheduler=scheduler, overwrite=overwrite, progress=report, **options
            )
    return [(path, recording, outcome) for (path, recording), outcome in zip(recordings, outcomes)]
