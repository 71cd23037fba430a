"""``python -m brainmu``."""

import sys

from brainmu.cli import main

sys.exit(main())
