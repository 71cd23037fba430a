"""Every parameter of every model of `brainmu.synth`, from the docstrings: a hook of MkDocs, so that the page cannot go stale.

Usage: python docs/figures/synth_parameters.py      (prints the page)
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from typing import Any, NamedTuple

import brainmu.synth
from brainmu.synth import LABS, PRESETS

MARK = "<!-- parameters of brainmu.synth -->"


class Entry(NamedTuple):
    """One parameter as its docstring has it."""

    name: str
    kind: str
    unit: str
    text: str
    source: str


def models() -> list[type]:
    """The dataclasses of brainmu.synth that hold parameters (their docstrings have a section of that name)."""
    found = []
    for info in pkgutil.iter_modules(brainmu.synth.__path__):
        module = importlib.import_module(f"brainmu.synth.{info.name}")
        for value in vars(module).values():
            public = inspect.isclass(value) and value.__module__ == module.__name__ and not value.__name__.startswith("_")
            if public and dataclasses.is_dataclass(value) and "Parameters\n-----" in inspect.cleandoc(value.__doc__ or ""):
                found.append(value)
    return sorted(set(found), key=lambda c: c.__name__)


def entries(thing: Any) -> dict[str, Entry]:
    """The parameters that a numpydoc docstring describes."""
    doc = inspect.cleandoc(thing.__doc__ or "")
    section = re.search(r"Parameters\n-+\n(.*?)(?=\n\n?[A-Z][\w ]+\n-{3,}|\Z)", doc, re.DOTALL)
    references = dict(re.findall(r"\.\. \[(\d+)\] (.*?)(?=\n\.\. \[|\n\n|\Z)", doc, re.DOTALL))
    blanket = re.search(r"(numbers|values|sizes) are assumptions", doc) is not None
    out: dict[str, Entry] = {}
    for names, what, text in re.findall(r"^([*\w, ]+?) : (.*)\n((?:    .*\n?|\n)*)", (section.group(1) if section else "") + "\n", re.MULTILINE):
        listed = [n.strip() for n in names.split(",")]
        kind, units = _kind_and_units(what, len(listed))
        said = " ".join(text.split())
        for name, unit in zip(listed, units):
            source = _source(said, references)
            source = "assumption" if source == "—" and blanket else source
            out[name] = Entry(name, kind, unit, re.sub(r"\s*\[\d+\]_", "", said), source)
    return out


def _kind_and_units(what: str, n: int) -> tuple[str, list[str]]:
    """ "float, s and Hz" for two parameters: the kind, and the unit of each."""
    if what.startswith("{"):
        return "one of " + re.sub(r"[{}\"]", "", what), [""] * n
    kind, _, unit = what.partition(", ")
    parts = [p.strip() for p in re.split(r",| and ", unit) if p.strip() and p.strip() != "optional"]
    return kind, parts if len(parts) == n else [", ".join(parts)] * n


def _source(text: str, references: dict[str, str]) -> str:
    cited = [references[k] for k in re.findall(r"\[(\d+)\]_", text) if k in references]
    cited += re.findall(r"\(([A-Z][\w&' -]+,? (?:et al\. )?\(?\d{4}[^)]*)\)", text)
    short = [m.group(0) if (m := re.match(r".*?\(\d{4}\)", " ".join(c.split()))) else " ".join(c.split()) for c in cited]
    if short:
        return "; ".join(dict.fromkeys(short))
    return "assumption" if "assumption" in text.lower() else "—"


def _default(f: dataclasses.Field[Any]) -> str:
    if f.default is not dataclasses.MISSING:
        value = f.default
    elif f.default_factory is not dataclasses.MISSING:
        value = f.default_factory()
    else:
        return "required"
    return _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if dataclasses.is_dataclass(value):
        return f"{type(value).__name__}()"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) or "{}"
    return str(value) if value not in ("", ()) else '""' if value == "" else "()"


def _cell(text: str) -> str:
    return re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", text).replace("|", "\\|")


def markdown() -> str:
    """The tables."""
    lines = []
    for cls in models():
        known = entries(cls)
        first = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        lines += [f"## {cls.__name__}", "", _cell(first), "", "| parameter | default | unit or kind | meaning | source |", "|---|---|---|---|---|"]
        for f in dataclasses.fields(cls):
            e = known[f.name]
            lines.append(f"| `{f.name}` | {_cell(_default(f))} | {_cell(e.unit or e.kind)} | {_cell(e.text)} | {_cell(e.source)} |")
        lines.append("")
    names = list(PRESETS)
    lines += ["## Presets", "", "What each changes; — leaves the default.", "", f"| parameter | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for key in dict.fromkeys(k for p in PRESETS.values() for k in p):
        lines.append(f"| `{key}` | {' | '.join(_cell(_shown(PRESETS[n][key])) if key in PRESETS[n] else '—' for n in names)} |")
    lines += [
        "",
        "## Labs",
        "",
        "| lab | species | channels | rate (Hz) | unit | mains (Hz) | epoch (s) | own clocks | format |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for lab in LABS.values():
        unit = f"{lab.unit}, int16 of {lab.step:g} uV" if lab.step else lab.unit
        channels = lab.n_channels + (lab.n_cortex if lab.species != "human" else 0)
        lines.append(
            f"| `{lab.name}` | {lab.species} | {channels} | {lab.lfp_rate:.6g} | {unit} | {lab.hum_frequency:g} | {lab.epoch:g} | "
            f"{', '.join(lab.clocks) or '—'} | {lab.format} |"
        )
    return "\n".join(lines) + "\n"


def on_page_markdown(markdown_of_page: str, **_: Any) -> str:
    """MkDocs: put the tables where the page has its mark."""
    return markdown_of_page.replace(MARK, markdown()) if MARK in markdown_of_page else markdown_of_page


if __name__ == "__main__":
    print(markdown())
