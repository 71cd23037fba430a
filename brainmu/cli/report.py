"""brainmu report: the pictures and the provenance in one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, progress

COMMON = Common()


def report(
    paths: Annotated[list[Path], Parameter(help="Stores, hypnograms, event tables, effects (JSON), attribution maps, run folders.", negative="")],
    /,
    *,
    out: Annotated[Path, Parameter(help="The HTML file; it needs no network and no other file.")],
    title: Annotated[str | None, Parameter(help="Title of the page.")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace an existing file.")] = False,
    common: Common = COMMON,
) -> int:
    """The pictures and the provenance in one HTML file.

    What is given is shown; what is lacking is said.

    For example:

    brainmu report m1.zarr m1_hypnogram.tsv m1_ripples.tsv effect.json --out m1.html
    """
    import brainmu.report

    with progress(common, "report") as say:
        written = brainmu.report.write_report(list(paths), out, title=title, overwrite=overwrite, progress=say)
    emit(common, {"out": str(written), "bytes": written.stat().st_size}, f"wrote {written} ({written.stat().st_size / 1e6:.1f} MB)")
    return 0
