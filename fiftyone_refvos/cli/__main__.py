"""`python -m fiftyone_refvos.cli`."""

import sys

from fiftyone_refvos.cli import main

sys.exit(main())
