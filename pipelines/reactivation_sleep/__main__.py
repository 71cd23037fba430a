"""python -m pipelines.reactivation_sleep --out DIR [STORES...]"""

import sys

from pipelines.reactivation_sleep.run import main

sys.exit(main())
