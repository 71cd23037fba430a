"""brainmu fetch: public data by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, progress, warn

COMMON = Common()


def fetch(
    name: Annotated[str | None, Parameter(help="A data set's name, or a YAML file that describes one. Without it, the list of names.")] = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="Folder for the files (default: one of the data set's name, here).")] = None,
    files: Annotated[
        list[str] | None, Parameter(help="Only files whose path or name fits a pattern, such as '*.nwb'.", consume_multiple=True, negative="")
    ] = None,
    list_: Annotated[bool, Parameter(name="--list", negative="", help="List the data sets, or the files of the one named, and stop.")] = False,
    jobs: Annotated[int, Parameter(help="Downloads at a time.")] = 3,
    update: Annotated[bool, Parameter(negative="", help="Ask the archive anew instead of trusting the lock file of an earlier run.")] = False,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace local files whose bytes are not the archive's.")] = False,
    common: Common = COMMON,
) -> int:
    """A public data set by name, checked against its archive's checksums.

    A download that broke off goes on where it stopped; what is there already is not downloaded again.

    For example:

    brainmu fetch

    brainmu fetch sleep-edfx --files 'sleep-cassette/SC4001*' --out sleep-edfx

    brainmu fetch dandi-000056 --list
    """
    import brainmu.fetching as fetching
    from brainmu.errors import UsageError

    if name is None:
        if out or files:
            raise UsageError("no data set is named: brainmu fetch NAME --out DIR; brainmu fetch --list names them")
        return _names(common)
    if not 1 <= jobs <= 16:
        raise UsageError(f"--jobs is {jobs}, expected 1 to 16 (archives ask for few connections at a time)")
    found = fetching.dataset(name)
    if list_:
        return _files(common, name, files)
    with progress(common, f"fetch {found.name}") as report:
        done = fetching.fetch(name, out, files=files, jobs=jobs, update=update, overwrite=overwrite, progress=report)
    warn(common, done.notes)
    result = {
        "name": found.name, "folder": str(done.folder), "downloaded": done.downloaded, "present": done.present, "licence": done.licence,
        "citation": list(found.citation), "pipeline": found.pipeline, "lock": str(done.folder / fetching.LOCK), "notes": done.notes,
    }  # fmt: skip
    text = [f"{done.folder}: {len(done.downloaded)} files downloaded, {len(done.present)} there already; every checksum is the archive's"]
    text += [f"licence: {done.licence}", *(f"cite: {c}" for c in found.citation)]
    text += [f"next: pipelines/{found.pipeline}"] if found.pipeline else []
    emit(common, result, "\n".join(text))
    return 0


def _names(common: Common) -> int:
    import brainmu.fetching as fetching

    rows = [fetching.as_row(fetching.dataset(n)) for n in fetching.dataset_names()]
    wide = {k: max(len(r[k]) for r in rows) for k in ("name", "archive", "species", "size")}
    lines = ["  ".join([f"{r[k]:{n}}" for k, n in wide.items()] + [r["title"]]) for r in rows]
    emit(common, {"datasets": rows}, "\n".join(lines))
    note(common, "brainmu fetch NAME --list shows the files; brainmu fetch NAME --out DIR downloads them")
    return 0


def _files(common: Common, name: str, files: list[str] | None) -> int:
    import brainmu.fetching as fetching

    listed = fetching.list_files(name, files)
    rows = [{"path": f.path, "size": f.size, "checksum": f.checksum or None} for f in listed]
    lines = [f"{'?' if f.size is None else f'{f.size / 1e6:.1f}':>10} MB  {f.path}" for f in listed]
    known = sum(f.size for f in listed if f.size)
    emit(common, {"files": rows}, "\n".join([*lines, f"{len(listed)} files, {known / 1e9:.2f} GB{'' if all(f.size for f in listed) else ' or more'}"]))
    return 0
