"""``python -m disback_cli VERB ...`` is ``disback VERB ...``."""

import sys

from disback_cli.cli import main

sys.exit(main())
