"""brainmu preprocess: recordings to stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, progress, warn

COMMON = Common()


def preprocess(
    source: Annotated[list[Path], Parameter(help="Files or folders: NWB, EDF, Neurosuite, Trodes, arrays with a brainmu.yaml, ...", negative="")],
    /,
    *,
    out: Annotated[Path, Parameter(help="One source: the store itself if it ends in .zarr. Otherwise a folder that receives <id>.zarr each.")],
    lfp_rate: Annotated[
        float | None, Parameter(help="Rate (Hz) that faster voltage signals are brought to. Slower ones are never upsampled. 0 keeps each rate.")
    ] = None,
    manifest: Annotated[Path | None, Parameter(help="A brainmu.yaml that lies elsewhere than in the source folder.")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace another store at the output (kept until the new one is whole).")] = False,
    plan: Annotated[bool, Parameter(negative="", help="Say what would be read, resampled and written, and stop.")] = False,
    common: Common = COMMON,
) -> int:
    """Recordings in any format to aligned, checksummed stores.

    The same command on the same sources goes on where it stopped, or says "already complete".

    For example:

    brainmu preprocess night.edf --out night.zarr

    brainmu preprocess day1/ day2/ --out stores/

    brainmu preprocess arrays/ --manifest pipelines/mouse_eeg_emg/brainmu.yaml --out stores/
    """
    import brainmu.formats
    import brainmu.store
    from brainmu.errors import BrainmuError, OutputExistsError, UsageError

    recordings = []
    failed: dict[str, str] = {}
    for path in source:
        try:
            recordings += [(path, r) for r in brainmu.formats.read_all(path, **({"manifest": manifest} if manifest else {}))]
        except BrainmuError as error:
            # One bad source among many must not cost the night's work on the others.
            if len(source) == 1:
                raise
            failed[str(path)] = str(error)
    single = out.suffix == ".zarr"
    if single and len(recordings) > 1:
        names = ", ".join(r.id for _, r in recordings)
        raise UsageError(f"--out {out} is one store, but the sources hold {len(recordings)} recordings ({names}): give a folder instead")
    ids = [r.id for _, r in recordings]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise UsageError(f"two sources have the id {twice[0]!r} and would write the same store: preprocess them into different folders")
    options: dict[str, Any] = {} if lfp_rate is None else {"lfp_rate": lfp_rate or None}
    if common.config is not None:
        options["config"] = common.config
    if plan:
        plans = [brainmu.store.plan(r, **options) for _, r in recordings]
        emit(common, {"plans": plans, "failed": failed}, "\n\n".join(brainmu.store.format_plan(p) for p in plans))
        return 1 if failed else 0
    if not single:
        out.mkdir(parents=True, exist_ok=True)
    done = []
    for path, recording in recordings:
        warn(common, [f"{recording.id}: {w}" for w in recording.warnings])
        target = out if single else out / f"{recording.id}.zarr"
        try:
            with progress(common, f"preprocess {recording.id}") as report:
                session = brainmu.store.preprocess(recording, target, overwrite=overwrite, progress=report, **options)
        except BrainmuError as error:
            if len(recordings) == 1 or isinstance(error, UsageError):
                raise
            failed[str(path)] = str(error)
            continue
        except OSError as error:
            if len(recordings) == 1:
                raise
            failed[str(path)] = OutputExistsError(*error.args).__str__()
            continue
        done.append(
            {"id": session.id, "path": str(target), "duration": session.duration, "already_complete": session.already_complete, "warnings": session.warnings}
        )
        warn(common, [f"{session.id}: {w}" for w in session.warnings if w not in recording.warnings])
    lines = [f"{d['path']}: {'already complete' if d['already_complete'] else 'written'}, {d['duration'] / 60:.1f} min" for d in done]
    lines += [f"FAILED {path}: {why}" for path, why in failed.items()]
    emit(common, {"stores": done, "failed": failed}, "\n".join(lines))
    if failed:
        note(common, f"{len(failed)} of {len(failed) + len(done)} failed")
    return 1 if failed else 0
