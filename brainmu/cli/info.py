"""brainmu info: what is in a file, folder, store or checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, key_values, note, warn

COMMON = Common()


def info(
    path: Annotated[Path, Parameter(help="A recording file or folder, a store (*.zarr or a URL), or a checkpoint folder or its packaged name.")],
    /,
    *,
    verify: Annotated[bool, Parameter(negative="", help="Check every byte of a store against its checksums.")] = False,
    write_manifest: Annotated[bool, Parameter(negative="", help="Draft a brainmu.yaml into a folder of arrays, to be filled in.")] = False,
    manifest: Annotated[Path | None, Parameter(help="A brainmu.yaml that lies elsewhere.")] = None,
    option: Annotated[list[str] | None, Parameter(help="key=value for the reader of the format, as in rate=30000 (repeatable).", negative="")] = None,
    storage_option: Annotated[list[str] | None, Parameter(help="key=value for the file system of a URL (fsspec; repeatable).", negative="")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace an existing brainmu.yaml.")] = False,
    common: Common = COMMON,
) -> int:
    """What is in a file, folder, store or checkpoint; --verify checks it.

    Opening reads no samples, so this is quick on files of any size.

    For example:

    brainmu info night.edf

    brainmu info m1.zarr --verify

    brainmu info my_arrays/ --write-manifest

    brainmu info tracking.csv --option rate=30 --option pixels_per_cm=8
    """
    from brainmu.store.places import url_of

    if write_manifest:
        return _write_manifest(path, overwrite, common)
    if (url := url_of(path)) or (path / "zarr.json").exists() or path.suffix == ".partial":
        return _store(url or path, verify, key_values(storage_option, "--storage-option"), common)
    if (folder := _checkpoint_folder(path)) is not None:
        return _checkpoint(folder, common)
    reader = key_values(option, "--option") | ({"manifest": manifest} if manifest else {})
    return _recording(path, reader, common)


def _recording(path: Path, reader: dict[str, Any], common: Common) -> int:
    import brainmu.formats

    described = brainmu.formats.describe(path, **reader)
    recordings = brainmu.formats.read_all(path, **reader)
    text = [f"{path}: {described['format']}"]
    for r in recordings:
        text += [r.summary(), *(f"  check: {doubt}" for doubt in r.doubts())]
    emit(common, described, "\n".join(text))
    return 0


def _store(path: Path | str, verify: bool, storage: dict[str, Any], common: Common) -> int:
    import brainmu.store

    problems = brainmu.store.verify(path, storage_options=storage or None) if verify else None
    session = brainmu.store.open(path, storage_options=storage or None)
    result: dict[str, Any] = {
        "format": "brainmu store", "path": str(path), "id": session.id, "subject": session.subject, "species": session.species, "duration": session.duration,
        "signals": {k: {"n_channels": s.n_channels, "n_samples": s.n_samples, "rate": s.rate, "unit": s.unit, "start": s.start, "channels": s.names,
                        "kinds": s.channels["kind"].tolist()} for k, s in session.signals.items()},
        "spikes": None if session.spikes is None else {"n_spikes": len(session.spikes), "n_units": session.spikes.n_units},
        "labels": {k: repr(v) for k, v in session.labels.items()}, "warnings": session.warnings, "provenance": session.provenance,
    }  # fmt: skip
    text = repr(session)
    if problems is not None:
        result |= {"verified": not problems, "problems": problems}
        text += "\n" + ("verified: every byte matches its checksum" if not problems else "\n".join(f"PROBLEM: {p}" for p in problems))
    emit(common, result, text)
    return 1 if problems else 0


def _checkpoint_folder(path: Path) -> Path | None:
    from brainmu.config import resource, resource_names

    if (path / "config.yaml").is_file():
        return path
    return resource("checkpoints", str(path)) if not path.exists() and str(path).removeprefix("checkpoints/") in resource_names("checkpoints") else None


def _checkpoint(folder: Path, common: Common) -> int:
    from brainmu.config import read_yaml
    from brainmu.errors import CheckpointError

    config = read_yaml(folder / "config.yaml")
    result: dict[str, Any] = {"format": "checkpoint", "type": config.get("type"), "config": config}
    lines = [f"{folder.name}: checkpoint of type {config.get('type', 'unknown')}"]
    for weights in sorted(folder.rglob("*.safetensors")):
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(weights, framework="np") as f:
                shapes = {k: f.get_slice(k).get_shape() for k in f.keys()}  # noqa: SIM118  (not a mapping)
        except SafetensorError as error:
            raise CheckpointError(f"{weights}: not readable as safetensors ({error}): it is truncated or corrupt, fetch or save it again") from None
        n = 0
        for shape in shapes.values():
            size = 1
            for k in shape:
                size *= k
            n += size
        result.setdefault("weights", {})[weights.relative_to(folder).as_posix()] = {"tensors": len(shapes), "parameters": n}
        lines.append(f"  {weights.relative_to(folder)}: {len(shapes)} tensors, {n:,} parameters")
    card = folder / "card.md"
    if card.is_file():
        result["card"] = card.read_text(encoding="utf-8")
        lines += ["", result["card"].strip()]
    emit(common, result, "\n".join(lines))
    return 0


def _write_manifest(folder: Path, overwrite: bool, common: Common) -> int:
    import brainmu.formats
    from brainmu.errors import OutputExistsError

    target = folder / "brainmu.yaml"
    text = brainmu.formats.draft_manifest(folder)
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target}: exists already: edit it, or pass --overwrite to draft it anew")
    target.write_text(text, encoding="utf-8")
    emit(common, {"manifest": str(target), "text": text}, text)
    note(common, f"wrote {target}: fill in what it asks, then run brainmu info {folder}")
    warn(common, [])
    return 0
