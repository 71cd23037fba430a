"""brainmu info: what is in a file, folder, store or checkpoint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, key_values, note, warn

COMMON = Common()


def info(
    path: Annotated[Path, Parameter(help="A recording file or folder, a store (*.zarr or a URL) or a folder of them, a checkpoint folder or packaged name.")],
    /,
    *,
    verify: Annotated[bool, Parameter(negative="", help="Check every byte of a store against its checksums, or that a checkpoint loads.")] = False,
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
    from brainmu.errors import CheckpointError, UsageError
    from brainmu.models.checkpoint import is_unfinished
    from brainmu.store.places import url_of

    if write_manifest:
        return _write_manifest(path, overwrite, common)
    if (url := url_of(path)) or (path / "zarr.json").exists() or path.suffix == ".partial":
        return _store(url or path, verify, key_values(storage_option, "--storage-option"), common)
    if is_unfinished(path):
        if verify:
            raise CheckpointError(f"{path}: is an unfinished pretraining run, there is nothing whole to verify: brainmu info {path} says how to go on")
        return _unfinished(path, common)
    if (folder := _checkpoint_folder(path)) is not None:
        return _checkpoint(folder, verify, common)
    _refuse_absent(path)
    if (stores := sorted(p for p in path.glob("*.zarr") if (p / "zarr.json").is_file())) and not _is_recording(path):
        return _folder_of_stores(path, stores, verify, common)
    if verify:
        raise UsageError(f"--verify checks stores and checkpoints, and {path} is neither: leave it out")
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


def _refuse_absent(path: Path) -> None:
    """Say what a name that is no path may have meant: a packaged checkpoint. A wrong path is for the readers to refuse."""
    from brainmu.config import resource_names, suggest
    from brainmu.errors import NotFoundError

    if not path.exists() and len(path.parts) == 1 and (near := suggest(str(path), resource_names("checkpoints"))):
        raise NotFoundError(f"{path}: no file or folder, and no packaged checkpoint of that name{near}")


def _is_recording(path: Path) -> bool:
    """Whether a folder that holds stores is a recording all the same: raw data beside the stores made of it."""
    import brainmu.formats
    from brainmu.errors import FormatError

    try:
        brainmu.formats.sniff(path)
    except FormatError:
        return False
    return True


def _folder_of_stores(path: Path, stores: list[Path], verify: bool, common: Common) -> int:
    """A line a store."""
    import brainmu.store
    from brainmu.config import plural

    rows: list[dict[str, Any]] = []
    lines = [f"{path}: folder of {plural(len(stores), 'store')}"]
    for p in stores:
        problems = brainmu.store.verify(p) if verify else None
        s = brainmu.store.open(p)
        rows.append({"path": str(p), "id": s.id, "subject": s.subject, "species": s.species, "duration": s.duration, "signals": list(s.signals),
                     "n_units": 0 if s.spikes is None else s.spikes.n_units, "labels": list(s.labels)})  # fmt: skip
        what = [*s.signals, *([plural(s.spikes.n_units, "unit")] if s.spikes is not None else [])]
        who = ", ".join(x for x in (f"subject {s.subject}" if s.subject else "", s.species) if x) or "no subject"
        lines.append(f"  {p.name}: {s.id} ({who}), {s.duration / 3600:.2f} h: {', '.join(what)}; labels {', '.join(s.labels) or 'none'}")
        if problems is not None:
            rows[-1] |= {"verified": not problems, "problems": problems}
            lines += [f"    PROBLEM: {x}" for x in problems] or ["    verified: every byte matches its checksum"]
    hours = sum(r["duration"] for r in rows) / 3600
    subjects = len({r["subject"] or r["id"] for r in rows})
    lines[0] += f" of {plural(subjects, 'subject')}, {hours:.1f} h"
    emit(common, {"format": "folder of stores", "path": str(path), "stores": rows}, "\n".join(lines))
    return 1 if any(r.get("problems") for r in rows) else 0


def _unfinished(path: Path, common: Common) -> int:
    """A pretraining run that was interrupted, or is still going on: how far it came."""
    import csv

    steps: dict[str, int] = {}
    if (path / "metrics.csv").is_file():
        with (path / "metrics.csv").open(encoding="utf-8") as f:
            steps = {row["stage"]: int(row["step"]) for row in csv.DictReader(f)}
    kept = [stage for stage in ("window", "context") if (path / "resume" / f"{stage}.ckpt").is_file()]
    far = ", ".join(f"step {n} of stage {stage}" for stage, n in steps.items()) or "no step"
    held = f"kept to resume from: stage {' and '.join(kept)}" if kept else "nothing is kept yet: it would begin again"
    lines = [
        f"{path}: unfinished run of brainmu pretrain, logged to {far}; {held}",
        f"  go on: brainmu pretrain STORES --out {path} --resume (with its own --config and --seed)",
    ]
    emit(common, {"format": "unfinished run", "path": str(path), "steps": steps, "kept": kept}, "\n".join(lines))
    return 0


def _verified(folder: Path) -> str:
    """Load a checkpoint wholly; what matched. Raises CheckpointError where it does not, or weights are not finite."""
    import torch

    import brainmu.loading
    from brainmu.errors import CheckpointError

    loaded = brainmu.loading.load(folder)
    model = getattr(loaded, "model_", loaded)
    if isinstance(model, torch.nn.Module):
        broken = [k for k, v in model.state_dict().items() if not bool(torch.isfinite(v).all())]
        if broken:
            raise CheckpointError(f"{folder}: {len(broken)} of its weights are not finite ({broken[0]}): fetch or train it again")
    report = getattr(model, "load_report", None)
    return "verified: it loads" + (f"; {report}" if report is not None else "")


def _parts(shapes: dict[str, int], kind: Any) -> str:
    """Numbers of weights of the encoder and of what stands on it, where there are both."""
    inner = sum(n for k, n in shapes.items() if k.startswith("encoder."))
    rest = sum(shapes.values()) - inner
    return f" ({inner:,} of the encoder, {rest:,} of {'the heads of pretraining' if kind == 'encoder' else 'the head'})" if inner and rest else ""


def _checkpoint(folder: Path, verify: bool, common: Common) -> int:
    from brainmu.config import read_yaml
    from brainmu.errors import CheckpointError

    config = read_yaml(folder / "config.yaml")
    result: dict[str, Any] = {"format": "checkpoint", "type": config.get("type"), "config": config}
    lines = [f"{folder.name}: checkpoint of type {config.get('type', 'unknown')}"]
    for weights in sorted(folder.rglob("*.safetensors")):
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(weights, framework="np") as f:
                sizes = {k: math.prod(f.get_slice(k).get_shape()) for k in f.keys()}  # noqa: SIM118  (not a mapping)
        except SafetensorError as error:
            raise CheckpointError(f"{weights}: not readable as safetensors ({error}): it is truncated or corrupt, fetch or save it again") from None
        n = sum(sizes.values())
        result.setdefault("weights", {})[weights.relative_to(folder).as_posix()] = {"tensors": len(sizes), "parameters": n}
        lines.append(f"  {weights.relative_to(folder)}: {len(sizes)} tensors, {n:,} numbers{_parts(sizes, config.get('type'))}")
    if verify:
        result["verified"] = True
        lines.append("  " + _verified(folder))
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
