"""The verbs that run models: demo, segment, segment-video."""

from __future__ import annotations

import argparse
from pathlib import Path

from fiftyone_refvos.cli.options import add_model_options, add_samples, model_options, named_samples
from fiftyone_refvos.cli.progress import ProgressLine


def add_demo(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos demo`."""
    demo = verbs.add_parser("demo", help="segment generated videos, or a clip of your own, and show them")
    demo.add_argument("--videos", type=int, default=8, help="how many videos to generate (default 8)")
    demo.add_argument("--video", type=Path, help="a clip of your own instead")
    demo.add_argument("--expression", action="append", help="what to look for in it; may be repeated")
    demo.add_argument("--app", action="store_true", help="open the FiftyOne App")
    demo.set_defaults(run=_demo)


def add_segment(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos segment`."""
    segment = verbs.add_parser("segment", help="segment the videos or images of a FiftyOne dataset")
    add_samples(segment)
    segment.add_argument(
        "--label-field", required=True, help="frame field for the masklets; for images the sample field"
    )
    segment.add_argument("--prompt", action="append", dest="prompts", help="what to look for; may be repeated")
    segment.add_argument(
        "--prompt-field", default="expressions", help="field with expressions (default: %(default)s)"
    )
    segment.add_argument("--key-frames", metavar="NAME", help="start from the key frames of that name")
    segment.add_argument("--overwrite", action="store_true", help="replace what the label field holds")
    add_model_options(segment)
    segment.set_defaults(run=_segment)


def add_segment_video(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos segment-video`."""
    video = verbs.add_parser("segment-video", help="segment one file or image folder into an overlay video")
    video.add_argument("path", type=Path)
    video.add_argument("expression", nargs="+")
    video.add_argument("--output", type=Path, help="the overlay video (default: NAME_masklets.mp4)")
    add_model_options(video)
    video.set_defaults(run=_segment_video)


def _demo(args: argparse.Namespace) -> int:
    from fiftyone_refvos.demo.run import run_demo

    return run_demo(num_videos=args.videos, video=args.video, expressions=args.expression, app=args.app)


def _segment(args: argparse.Namespace) -> int:
    import fiftyone.zoo as foz

    from fiftyone_refvos.segment import segment

    with ProgressLine() as progress:
        report = segment(
            named_samples(args),
            foz.load_zoo_model(args.model, **model_options(args)),
            label_field=args.label_field,
            prompts=args.prompts,
            prompt_field=args.prompt_field,
            key_frames=args.key_frames,
            overwrite=args.overwrite,
            progress=progress,
        )
    print(report)
    return 1 if report.failures else 0


def _segment_video(args: argparse.Namespace) -> int:
    from fiftyone_refvos.single_video import segment_video

    result = segment_video(args.path, args.expression, model=args.model, output=args.output, **model_options(args))
    for masklet in result.masklets:
        found = "no such object" if masklet.no_target else f"score {masklet.score:.2f}"
        print(f"{masklet.expression.text!r}: {found}")
    print(f"overlay: {result.overlay}")
    return 0
