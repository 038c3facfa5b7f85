"""The material that tests share: golden data, datasets in miniature, real clips."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def shared_root() -> Path:
    """The folder of the shared material, which need not exist; benchmarks use it, too."""
    return Path(os.environ.get("REFVOS_SHARED") or REPOSITORY.parent / "shared")


def shared_path(*parts: str) -> Path:
    """The path of a file or folder of the shared material, e.g. `shared_path("golden", "glus")`.

    The material lies in the folder that the environment variable REFVOS_SHARED names, else in `shared/`
    beside the repository. Where it is missing the test is skipped, or fails if REFVOS_REQUIRE_SHARED is set.
    """
    path = shared_root().joinpath(*parts)
    if not path.exists():
        reason = f"no shared test material at {path}: set REFVOS_SHARED to the folder that holds it"
        if os.environ.get("REFVOS_REQUIRE_SHARED"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return path
