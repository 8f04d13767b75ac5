"""`python -m lwbench` is `lwbench`."""

import sys

from .cli import main

sys.exit(main())
