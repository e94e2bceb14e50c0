"""``python -m conda_dedup_plugin.cli``."""

import sys

from . import main

sys.exit(main())
