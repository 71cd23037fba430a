"""Navigation of the documentation: every page that exists, the known ones in the order a reader wants them.

A page is added by writing it; nothing else has to change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SECTIONS = {
    "Tutorials": ("tutorials", "first-steps mechanism-tour"),
    "How to": (
        "how-to",
        "fetch info formats manifest clocks preprocess remote export pretrain finetune stage evaluate events replay attribute intervene effect report demo"
        " synth",
    ),
    "Explanation": ("explanation", "architecture"),
    "Reference": (
        "reference",
        "index core fetching formats store synth synth-parameters windows models train sleep replay explain causal report errors",
    ),
}


def on_config(config: Any) -> Any:
    docs = Path(config["docs_dir"])
    nav: list[Any] = [{"Home": "index.md"}]
    for title, (folder, order) in SECTIONS.items():
        pages = {p.stem: f"{folder}/{p.name}" for p in sorted((docs / folder).glob("*.md"))}
        known = [pages.pop(name) for name in order.split() if name in pages]
        listed = known + list(pages.values())
        if listed:
            nav.append({title: listed})
    config["nav"] = nav
    return config
