"""The verb that lets fields vote."""

from __future__ import annotations

import argparse

from fiftyone_refvos.cli.options import add_samples, check_new_view, named_samples, save_view
from fiftyone_refvos.cli.progress import ProgressLine


def add_vote(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos vote`."""
    vote = verbs.add_parser("vote", help="a field with what most of several fields of masklets say")
    add_samples(vote)
    vote.add_argument("fields", nargs="+", metavar="FIELD", help="frame field with masklets, two or more")
    vote.add_argument("--label-field", default="voted", help="frame field for the outcome (default: %(default)s)")
    vote.add_argument(
        "--rule",
        choices=["majority", "report"],
        default="majority",
        help="more than half, or literally as in the challenge report (default: %(default)s)",
    )
    weights = vote.add_mutually_exclusive_group()
    weights.add_argument(
        "--weight",
        action="append",
        type=_weight,
        metavar="FIELD=WEIGHT",
        help="a number, or the key of an evaluation of the field; one for every field",
    )
    weights.add_argument("--by-predicted-iou", action="store_true", help="weigh by the scores that models gave masks")
    vote.add_argument("--overwrite", action="store_true", help="replace what the label field holds")
    vote.add_argument("--save-view", metavar="NAME", help="save the view of the most disputed expressions")
    vote.set_defaults(run=_vote)


def _weight(text: str) -> tuple[str, float | str]:
    """The field, and its weight or evaluation."""
    field, equals, value = text.partition("=")
    if not (field and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=WEIGHT")
    try:
        return field, float(value)
    except ValueError:
        return field, value


def _vote(args: argparse.Namespace) -> int:
    from fiftyone_refvos.vote import Weights, most_disputed, vote

    samples = named_samples(args)
    check_new_view(samples, args.save_view)
    weights: Weights | None = dict(args.weight) if args.weight else None
    with ProgressLine() as progress:
        report = vote(
            samples,
            args.fields,
            label_field=args.label_field,
            rule=args.rule,
            weights="predicted_iou" if args.by_predicted_iou else weights,
            overwrite=args.overwrite,
            progress=progress,
        )
    print(report)
    if args.save_view:
        save_view(most_disputed(samples, args.label_field), args.save_view)
    return 1 if report.failures else 0
