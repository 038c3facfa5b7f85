"""The verb of questions: ask."""

from __future__ import annotations

import argparse

from fiftyone_refvos.cli.options import add_samples, named_samples
from fiftyone_refvos.cli.progress import ProgressLine
from fiftyone_refvos.models.registry import ANSWERING


def add_ask(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos ask`."""
    asking = verbs.add_parser("ask", help="ask a model about images or videos, or have them or regions described")
    add_samples(asking)
    task = asking.add_mutually_exclusive_group(required=True)
    task.add_argument("--question", help="free text, to be answered about every sample")
    task.add_argument("--describe", action="store_true", help="a caption, with a mask for each phrase")
    task.add_argument("--regions-field", help="a caption for each box, mask or set of points of this field")
    asking.add_argument("--field", required=True, help="field for the texts; of regions the attribute of each label")
    asking.add_argument("--label-field", help="field for the masks of what is shown; needed with --describe")
    asking.add_argument("--overwrite", action="store_true", help="replace texts, each once there is a new one")
    asking.add_argument("--model", default=ANSWERING[0], choices=ANSWERING, help="(default: %(default)s)")
    asking.add_argument("--checkpoint", help="a folder to load instead of the published weights")
    asking.add_argument("--device", help="cpu, cuda, cuda:1 (default: the GPU where there is one)")
    asking.set_defaults(run=_ask)


def _ask(args: argparse.Namespace) -> int:
    import fiftyone.zoo as foz

    from fiftyone_refvos.ask import ask, caption, caption_regions

    if args.describe and not args.label_field:
        raise ValueError("--describe needs --label-field, for the masks of the phrases")
    samples = named_samples(args)
    options = {name: value for name in ("checkpoint", "device") if (value := getattr(args, name)) is not None}
    model = foz.load_zoo_model(args.model, **options)
    with ProgressLine("sample") as progress:
        if args.question is not None:
            report = ask(
                samples,
                model,
                args.question,
                answer_field=args.field,
                label_field=args.label_field,
                overwrite=args.overwrite,
                progress=progress,
            )
        elif args.describe:
            report = caption(
                samples,
                model,
                caption_field=args.field,
                label_field=args.label_field,
                overwrite=args.overwrite,
                progress=progress,
            )
        else:
            report = caption_regions(
                samples,
                model,
                regions_field=args.regions_field,
                attribute=args.field,
                overwrite=args.overwrite,
                progress=progress,
            )
    print(report)
    return 1 if report.failures else 0
