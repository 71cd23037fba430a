"""Configuration: frozen dataclasses, YAML files that are checked key by key, and resources found by name.

`configs/` and `checkpoints/` lie beside the package in a source tree and inside it (``brainmu/_resources``) in an
installed wheel; :func:`resource` finds them in both.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from brainmu.errors import ConfigError, NotFoundError

__all__ = ["load_config", "plural", "read_yaml", "resource", "resource_names", "suggest"]

T = TypeVar("T")
_PACKAGE = Path(__file__).resolve().parent


def _roots(kind: str) -> list[Path]:
    return [p for p in (_PACKAGE / "_resources" / kind, _PACKAGE.parent / kind) if p.is_dir()]


def resource_names(kind: str) -> list[str]:
    """Names of the packaged ``configs`` (without .yaml) or ``checkpoints`` (folders with a config.yaml)."""
    names: set[str] = set()
    for root in _roots(kind):
        if kind == "checkpoints":
            names |= {p.parent.relative_to(root).as_posix() for p in root.rglob("config.yaml")}
        else:
            names |= {p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*.yaml")}
    return sorted(names)


def resource(kind: str, name: str) -> Path:
    """Path of a packaged config (``resource("configs", "demo/quick")``) or checkpoint (``resource("checkpoints", "brainmu-tiny")``).

    Raises NotFoundError with the names that exist.
    """
    wanted = name.removeprefix(f"{kind}/").strip("/")
    for root in _roots(kind):
        path = root / wanted if kind == "checkpoints" else root / f"{wanted.removesuffix('.yaml')}.yaml"
        if (path / "config.yaml").is_file() if kind == "checkpoints" else path.is_file():
            return path
    have = resource_names(kind)
    near = suggest(wanted, have)
    raise NotFoundError(f"{name}: no {kind.rstrip('s')} of that name{near}{' Packaged' if near else '; packaged'} are {_shown(wanted, have)}")


def _shown(wanted: str, have: list[str]) -> str:
    """The names to choose from: those of the group that was named (``pretrain/``), else the first of all."""
    group = [n for n in have if "/" in wanted and n.split("/")[0] == wanted.split("/")[0]]
    names = group or have
    return (", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")) or "none"


def plural(n: int, thing: str) -> str:
    """``1 subject``, ``2 subjects``."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def suggest(word: str, known: typing.Iterable[str]) -> str:
    """``: did you mean 'rate'?``, or nothing where none is near."""
    # One wrong letter of three must be borne ("tll" for "ttl"); of a longer name that would let "nothere.edf" be "note.md".
    close = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.6 if len(str(word)) <= 6 else 0.7)
    return f": did you mean {close[0]!r}?" if close else ""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML mapping from a file; an empty file is an empty mapping. Duplicate keys are an error."""
    p = Path(path)
    try:
        text = p.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFoundError(f"{p}: no such file, expected YAML") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{p}: cannot be read ({error})") from None
    try:
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{p}: not valid YAML ({' '.join(str(error).split())})") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{p}: holds a {type(data).__name__}, expected a mapping of keys to values")
    return data


def read_settings(source: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, or in the packaged config of that name."""
    path = Path(source)
    if path.suffix in (".yaml", ".yml") and (path.exists() or path.with_suffix("").as_posix() not in resource_names("configs")):
        return read_yaml(path)
    return read_yaml(resource("configs", str(source)))


def load_config(cls: type[T], source: str | Path | dict[str, Any] | None = None, **overrides: Any) -> T:
    """An instance of the dataclass `cls` from a YAML file, a packaged config's name or a mapping, with overrides.

    Unknown keys and wrong types raise ConfigError naming the file, the key and the nearest right one.
    """
    where = str(source) if isinstance(source, (str, Path)) else cls.__name__
    if source is None:
        data: dict[str, Any] = {}
    elif isinstance(source, dict):
        data = dict(source)
    else:
        data = read_settings(source)
    data.update({k: v for k, v in overrides.items() if v is not None})
    return _build(cls, data, where)


def _build(cls: type[T], data: dict[str, Any], where: str) -> T:
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    kwargs = {}
    for key, value in data.items():
        if key not in names:
            raise ConfigError(f"{where}: unknown key {key!r}{suggest(key, names)}; known keys are {', '.join(names)}")
        kwargs[key] = _coerce(value, hints[key], f"{where}: {key}")
    try:
        return cls(**kwargs)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from None


def _coerce(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        for option in options:
            try:
                return _coerce(value, option, where)
            except ConfigError:
                if len(options) == 1:
                    raise
        raise ConfigError(f"{where}: is {value!r}, expected {hint}")
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(f"{where}: is {value!r}, expected one of {', '.join(map(str, args))}{suggest(str(value), args)}")
        return value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: is {value!r}, expected a mapping")
        return _build(hint, value, where)  # type: ignore[arg-type]
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: is {value!r}, expected a list")
        inner = [_coerce(v, args[0] if args else Any, where) for v in value]
        return tuple(inner) if origin is tuple else inner
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: is {value!r}, expected a mapping")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
        raise ConfigError(f"{where}: is {value!r}, expected {hint.__name__}")
    return value


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


# YAML 1.2 in two points where PyYAML follows 1.1: a column or channel called "on" or "no" stays a word, and 1e-3 is a number.
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in resolvers if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"),
    list("-+.0123456789"),
)
_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
