"""How long a newcomer waits for the first masks: `make demo` in a home without any settings, datasets or videos.

    python -m benchmarks.first_run

runs the commands of `make demo` after the set-up, whose length depends on the network (about 3 GB are downloaded),
and writes benchmarks/results/first_run.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import processor

RESULTS = Path(__file__).parent / "results"
REPOSITORY = Path(__file__).parents[1]
COMMANDS = (["install"], ["demo"])
LIMIT = 60
"""Seconds in which the right object is to be masked."""


def timed(arguments: list[str], home: Path) -> float:
    """Seconds of one command in a home of its own."""
    kept = ("FIFTYONE_DATABASE_URI",)  # where mongod cannot run
    environment = {
        name: value for name, value in os.environ.items() if name in kept or not name.startswith("FIFTYONE_")
    }
    environment |= {"HOME": str(home), "FIFTYONE_DATABASE_VALIDATION": "false", "FIFTYONE_DO_NOT_TRACK": "true"}
    began = time.perf_counter()
    refvos = Path(sys.executable).with_name("refvos")
    subprocess.run([refvos, *arguments], check=True, env=environment, cwd=REPOSITORY)
    return time.perf_counter() - began


def main() -> None:
    """Measures once, and again where everything is there."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:  # mongod may still be stopping
        seconds = {
            run: {" ".join(command): round(timed(command, Path(home)), 1) for command in COMMANDS}
            for run in ("first", "second")
        }
    figures = {"seconds": seconds, "processor": processor(), "cores": os.cpu_count(), "required": LIMIT}
    (RESULTS / "first_run.json").write_text(json.dumps(figures, indent=2) + "\n")
    lines = [
        "# The first run",
        "",
        f"`python -m benchmarks.first_run`; {processor()}, {os.cpu_count()} cores. Seconds of the commands of "
        "`make demo` after the set-up: 8 videos are generated and segmented. In the second run they are there.",
        "",
        "| | " + " | ".join(f"`refvos {' '.join(command)}`" for command in COMMANDS) + " | together |",
        "|---|" + "---|" * (len(COMMANDS) + 1),
        *(
            f"| {run} | " + " | ".join(f"{value}" for value in parts.values()) + f" | {sum(parts.values()):.1f} |"
            for run, parts in seconds.items()
        ),
        f"| required | | | {LIMIT} |",
    ]
    (RESULTS / "first_run.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
