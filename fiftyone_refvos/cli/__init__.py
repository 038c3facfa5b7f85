"""The command `refvos`: each verb is one call of the library."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fiftyone_refvos.cli import (
    asking,
    describing,
    exchanging,
    keeping,
    key_frames,
    measuring,
    segmenting,
    training,
    voting,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit status (0 done, 1 something failed, 2 nothing to do or wrong usage)."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"refvos {args.verb}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="refvos", description="Referring video object segmentation in FiftyOne")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    segmenting.add_demo(verbs)
    segmenting.add_segment(verbs)
    segmenting.add_segment_video(verbs)
    asking.add_ask(verbs)
    measuring.add_evaluate(verbs)
    measuring.add_pseudo_labels(verbs)
    describing.add_describe(verbs)
    measuring.add_find_failures(verbs)
    measuring.add_compare(verbs)
    voting.add_vote(verbs)
    key_frames.add_select(verbs)
    key_frames.add_quality(verbs)
    training.add_train(verbs)
    training.add_train_mllmseg(verbs)
    key_frames.add_train(verbs)
    exchanging.add_import(verbs)
    exchanging.add_export(verbs)
    exchanging.add_import_predictions(verbs)
    key_frames.add_import(verbs)
    keeping.add_relocate(verbs)
    keeping.add_verify(verbs)
    keeping.add_install(verbs)
    return parser
