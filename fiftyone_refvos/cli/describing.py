"""The verb describe."""

from __future__ import annotations

import argparse

from fiftyone_refvos.cli.options import add_samples, named_samples
from fiftyone_refvos.cli.progress import ProgressLine
from fiftyone_refvos.describing.chat import MAX_TOKENS
from fiftyone_refvos.describing.stages import STAGES


def add_describe(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos describe`."""
    parser = verbs.add_parser("describe", help="let a chat model write expressions for objects that have masks")
    add_samples(parser)
    parser.add_argument("model", help="as the server calls it; without --server a folder, or a repository of the hub")
    parser.add_argument("--server", metavar="URL", help="an OpenAI-compatible server, to which pictures are sent")
    parser.add_argument("--key-variable", metavar="NAME", help="environment variable with the key of the server")
    parser.add_argument("--device", help="of a model without a server: cpu, cuda, cuda:1")
    parser.add_argument(
        "--max-tokens", type=int, default=MAX_TOKENS, metavar="N", help="of an answer (default: %(default)s)"
    )
    parser.add_argument("--field", default="ground_truth", help="frame field with the masks (default: %(default)s)")
    parser.add_argument(
        "--stage",
        action="append",
        choices=STAGES,
        help="whose descriptions become expressions; may be repeated (default: video)",
    )
    parser.add_argument(
        "--objects", choices=["unnamed", "all"], default="unnamed", help="which ones (default: %(default)s)"
    )
    parser.add_argument("--prompts", metavar="FILE", help="instead of the package's own")
    parser.add_argument("--overwrite", action="store_true", help="describe anew what is described already")
    parser.set_defaults(run=_describe)


def _describe(args: argparse.Namespace) -> int:
    from fiftyone_refvos.describe import describe_objects
    from fiftyone_refvos.describing.opening import open_chat

    with ProgressLine() as progress:
        report = describe_objects(
            named_samples(args),
            open_chat(
                args.model,
                server=args.server,
                key_variable=args.key_variable,
                device=args.device,
                max_tokens=args.max_tokens,
            ),
            field=args.field,
            stages=args.stage or ("video",),
            objects=args.objects,
            prompts=args.prompts,
            overwrite=args.overwrite,
            progress=progress,
        )
    print(report)
    return 1 if report.failures else 0
