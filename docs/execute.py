"""Execute the tutorials (docs/tutorials/*.ipynb) and write each as Markdown with its pictures for the documentation.

Usage: python docs/execute.py [--inplace]

Every cell runs; an error in one fails the build. With --inplace the notebooks keep the fresh outputs (do that before a release,
so that the copy in the repository shows what the code prints).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

TUTORIALS = Path(__file__).parent / "tutorials"


def main() -> None:
    for path in sorted(TUTORIALS.glob("*.ipynb")):
        book = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as empty:
            # An empty folder, so that a tutorial cannot lean on files of the repository.
            NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": empty}}).execute()
        if "--inplace" in sys.argv:
            nbformat.write(book, path)
        body, resources = MarkdownExporter().from_notebook_node(book, resources={"output_files_dir": f"{path.stem}_files"})
        path.with_suffix(".md").write_text(body, encoding="utf-8")
        for name, data in resources["outputs"].items():
            picture = TUTORIALS / name
            picture.parent.mkdir(exist_ok=True)
            picture.write_bytes(data)
        print(f"executed {path.name}: {len(book.cells)} cells, {len(resources['outputs'])} pictures")


if __name__ == "__main__":
    main()
