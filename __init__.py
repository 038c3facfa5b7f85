"""FiftyOne plugin entry. FiftyOne runs this file at every listing of operators: it imports nothing heavy."""

import importlib.util
import os
import sys
from typing import Any

if importlib.util.find_spec("fiftyone_refvos") is None:  # plugin downloaded without the pip package
    sys.path.append(os.path.dirname(os.path.realpath(__file__)))


def register(plugin: Any) -> None:
    from .operators import register as register_operators  # here: pytest and mypy read this file on its own

    register_operators(plugin)
