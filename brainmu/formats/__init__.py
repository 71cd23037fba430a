"""A file or folder in any known format to a Recording, lazily. This room never writes.

``read`` opens one recording, ``read_all`` every one, ``sniff`` names the format, ``describe`` says what is inside,
``draft_manifest`` drafts the brainmu.yaml of a folder of plain arrays. ``read_scoring`` reads the label files of other tools, ``read_events`` logs of events,
``describe_subject`` a table of subjects.
"""

from brainmu.formats.draft import draft_manifest
from brainmu.formats.eventlogs import read_events
from brainmu.formats.reading import FORMATS, describe, read, read_all, sniff
from brainmu.formats.scorings import SCORINGS, read_scoring
from brainmu.formats.subjects import describe_subject

__all__ = ["FORMATS", "SCORINGS", "describe", "describe_subject", "draft_manifest", "read", "read_all", "read_events", "read_scoring", "sniff"]
