"""A file or folder in any known format to a Recording, lazily. This room never writes.

``read`` opens one recording, ``read_all`` every one, ``sniff`` names the format, ``describe`` says what is inside,
``draft_manifest`` drafts the brainmu.yaml of a folder of plain arrays.
"""

from brainmu.formats.draft import draft_manifest
from brainmu.formats.reading import FORMATS, describe, read, read_all, sniff

__all__ = ["FORMATS", "describe", "draft_manifest", "read", "read_all", "sniff"]
