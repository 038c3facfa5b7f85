"""The verbs that measure: evaluate, pseudo-labels, find-failures, compare."""

from __future__ import annotations

import argparse
from pathlib import Path

from fiftyone_refvos.cli.options import add_samples, check_new_view, named_samples, save_view
from fiftyone_refvos.cli.progress import ProgressLine


def add_evaluate(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos evaluate`."""
    evaluate = verbs.add_parser("evaluate", help="measure the masklets of a FiftyOne dataset by a published protocol")
    add_samples(evaluate)
    evaluate.add_argument("--pred-field", required=True, help="frame field with the masklets of a model")
    evaluate.add_argument(
        "--gt-field", default="ground_truth", help="frame field with the truth (default: %(default)s)"
    )
    evaluate.add_argument("--eval-key", required=True, help="name of the evaluation run")
    evaluate.add_argument("--protocol", help="name of a protocol (default: mevis, for images gres)")
    evaluate.add_argument("--workers", type=int, default=1, help="number of processes (default: %(default)s)")
    evaluate.add_argument("--skip-failures", action="store_true", help="leave out videos that have errors")
    evaluate.set_defaults(run=_evaluate)


def add_pseudo_labels(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos pseudo-labels`."""
    labels = verbs.add_parser("pseudo-labels", help="IoU of every frame, from which a key frame selector learns")
    add_samples(labels)
    labels.add_argument("--pred-field", required=True, help="frame field with the masklets of a model")
    labels.add_argument(
        "--gt-field", default="ground_truth", help="frame field with the truth (default: %(default)s)"
    )
    labels.add_argument(
        "--absent-policy",
        choices=["one", "zero", "skip"],
        default="one",
        help="what frames without object and prediction are worth (default: %(default)s)",
    )
    labels.add_argument("--export", type=Path, metavar="FOLDER", help="also write <video>/<expression id>.json")
    labels.add_argument("--skip-failures", action="store_true", help="leave out videos that have errors")
    labels.set_defaults(run=_pseudo_labels)


def add_find_failures(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos find-failures`."""
    failures = verbs.add_parser("find-failures", help="what is wrong with every masklet, worst first")
    add_samples(failures)
    failures.add_argument("name", help="an evaluation of the dataset, or the frame field with the masklets")
    failures.add_argument("--kind", action="append", help="only this kind; may be repeated")
    failures.add_argument("--save-view", metavar="NAME", help="save the view of them in the dataset")
    failures.add_argument("--skip-failures", action="store_true", help="leave out videos that have errors")
    failures.set_defaults(run=_find_failures)


def add_compare(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos compare`."""
    compare = verbs.add_parser("compare", help="what one evaluation gains and loses over another")
    add_samples(compare)
    compare.add_argument("old", help="the evaluation to compare with")
    compare.add_argument("new", help="the one that wins or loses")
    compare.add_argument("--save-view", metavar="NAME", help="save a view of what became worse in the dataset")
    compare.set_defaults(run=_compare)


def _evaluate(args: argparse.Namespace) -> int:
    from fiftyone_refvos.evaluate import evaluate

    with ProgressLine() as progress:
        results = evaluate(
            named_samples(args),
            args.pred_field,
            gt_field=args.gt_field,
            eval_key=args.eval_key,
            protocol=args.protocol,
            num_workers=args.workers,
            skip_failures=args.skip_failures,
            progress=progress,
        )
    results.print_report()
    return 1 if results.failures else 0


def _pseudo_labels(args: argparse.Namespace) -> int:
    from fiftyone_refvos.pseudo_labels import make_pseudo_labels

    with ProgressLine() as progress:
        labels = make_pseudo_labels(
            named_samples(args),
            args.pred_field,
            args.gt_field,
            absent_policy=args.absent_policy,
            skip_failures=args.skip_failures,
            progress=progress,
        )
    print(labels)
    for failure in labels.failures:
        print(f"  failed: {failure.error}")
    if args.export:
        print(f"{len(labels.export(args.export))} files written to {args.export}")
    return 1 if labels.failures else 0


def _find_failures(args: argparse.Namespace) -> int:
    from fiftyone_refvos.failure_analysis import failure_table, find_failures

    samples = named_samples(args)
    check_new_view(samples, args.save_view)
    with ProgressLine() as progress:
        view = find_failures(
            samples,
            args.name,
            kind=args.kind,
            skip_failures=args.skip_failures,
            progress=progress,
        )
    print(failure_table(view, args.name))
    save_view(view, args.save_view)
    return 0


def _compare(args: argparse.Namespace) -> int:
    from fiftyone_refvos.comparison import compare

    samples = named_samples(args)
    check_new_view(samples, args.save_view)
    comparison = compare(samples, args.old, args.new)
    print(comparison)
    save_view(comparison.regressions(), args.save_view)
    return 0
