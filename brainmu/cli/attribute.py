"""brainmu attribute: what a stager used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_sessions, progress, refuse_existing

COMMON = Common()


def attribute(
    store: Annotated[Path, Parameter(help="A store (*.zarr).")],
    /,
    *,
    model: Annotated[str, Parameter(help="A stager folder, or a packaged checkpoint's name.")],
    target: Annotated[str, Parameter(help="The stage to explain: WAKE, NREM, REM, W, N1, N2, N3, R.")],
    method: Annotated[Literal["integrated_gradients", "occlusion"] | None, Parameter(help="Integrated gradients where the stager holds an encoder.")] = None,
    out: Annotated[Path | None, Parameter(help="Write the map (log odds by channel, band, time, unit) as netCDF (.nc).")] = None,
    max_epochs: Annotated[int, Parameter(help="Integrated gradients: explain at most this many epochs.")] = 32,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace an existing file.")] = False,
    common: Common = COMMON,
) -> int:
    """What a head used: channel, unit, band, time.

    Shares are in log odds of the target and sum, for integrated gradients, to the difference between the recording and nothing.

    For example:

    brainmu attribute m1.zarr --model stager/ --target REM --out rem.nc
    """
    import brainmu.explain
    import brainmu.loading
    from brainmu.explain.files import save_map

    if out is not None:
        refuse_existing(out, overwrite)
    session = open_sessions([store])[0]
    stager = brainmu.loading.load(model)
    with progress(common, "attribute") as report:
        maps = brainmu.explain.attribute(stager, session, target, method=method, max_epochs=max_epochs, seed=common.seed, progress=report)
    mean = {name: v.mean(v.dims[0]) for name, v in maps.data_vars.items()}
    lines = [f"{target} in {session.id}: {maps.attrs['n_epochs']} epochs, {maps.attrs['method']}, mean share in log odds"]
    for name, m in mean.items():
        flat = m.to_series().sort_values(key=abs, ascending=False)
        lines += [f"  {name} {' '.join(map(str, key if isinstance(key, tuple) else (key,)))}: {value:+.3f}" for key, value in flat.head(5).items()]
    if "completeness_error" in maps.attrs:
        lines.append(f"completeness error {maps.attrs['completeness_error']:.2%}")
    if "randomised_weights_correlation" in maps.attrs:
        lines.append(f"rank correlation with the map of randomised weights {maps.attrs['randomised_weights_correlation']:.2f} (near 1: the map says nothing)")
    result = {**maps.attrs, "shares": {str(n): {"index": list(m.dims), "values": m.to_series().reset_index().to_numpy().tolist()} for n, m in mean.items()}}
    if out is not None:
        save_map(maps, out)
        result["out"] = str(out)
        note(common, f"wrote {out}")
    emit(common, result, "\n".join(lines))
    return 0
