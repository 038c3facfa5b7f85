"""The command `refvos`: each verb is one call of the library."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fiftyone_refvos.models.registry import DEFAULT_MODEL, MODELS
from fiftyone_refvos.segment import Progress


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
    _add_demo(verbs)
    _add_segment(verbs)
    _add_segment_video(verbs)
    _add_evaluate(verbs)
    _add_verify(verbs)
    install = verbs.add_parser("install", help="make FiftyOne find the plugin and the models")
    install.set_defaults(run=_install)
    return parser


def _add_demo(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = verbs.add_parser("demo", help="segment generated videos, or a clip of your own, and show them")
    demo.add_argument("--videos", type=int, default=8, help="how many videos to generate (default 8)")
    demo.add_argument("--video", type=Path, help="a clip of your own instead")
    demo.add_argument("--expression", action="append", help="what to look for in it; may be repeated")
    demo.add_argument("--app", action="store_true", help="open the FiftyOne App")
    demo.set_defaults(run=_demo)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_MODEL, choices=list(MODELS), help="(default: %(default)s)")
    parser.add_argument("--checkpoint", help="a folder to load instead of the published weights")
    parser.add_argument("--clip-path", help="a folder with the CLIP model, for published checkpoints")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: the GPU where there is one)")


def _add_segment(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    segment = verbs.add_parser("segment", help="segment the videos of a FiftyOne dataset")
    segment.add_argument("dataset", help="name of the dataset")
    segment.add_argument("--view", help="name of a saved view of it")
    segment.add_argument("--label-field", required=True, help="frame field for the masklets")
    segment.add_argument("--prompt", action="append", dest="prompts", help="what to look for; may be repeated")
    segment.add_argument(
        "--prompt-field", default="expressions", help="field with expressions (default: %(default)s)"
    )
    segment.add_argument("--overwrite", action="store_true", help="replace what the label field holds")
    _add_model_options(segment)
    segment.set_defaults(run=_segment)


def _add_segment_video(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    video = verbs.add_parser("segment-video", help="segment one file or image folder into an overlay video")
    video.add_argument("path", type=Path)
    video.add_argument("expression", nargs="+")
    video.add_argument("--output", type=Path, help="the overlay video (default: NAME_masklets.mp4)")
    _add_model_options(video)
    video.set_defaults(run=_segment_video)


def _add_evaluate(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    evaluate = verbs.add_parser("evaluate", help="J&F of the masklets of a FiftyOne dataset")
    evaluate.add_argument("dataset", help="name of the dataset")
    evaluate.add_argument("--view", help="name of a saved view of it")
    evaluate.add_argument("--pred-field", required=True, help="frame field with the masklets of a model")
    evaluate.add_argument(
        "--gt-field", default="ground_truth", help="frame field with the truth (default: %(default)s)"
    )
    evaluate.add_argument("--eval-key", required=True, help="name of the evaluation run")
    evaluate.add_argument("--protocol", default="mevis", help="name of a protocol (default: %(default)s)")
    evaluate.add_argument("--workers", type=int, default=1, help="number of processes (default: %(default)s)")
    evaluate.add_argument("--skip-failures", action="store_true", help="leave out videos that have errors")
    evaluate.set_defaults(run=_evaluate)


def _add_verify(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verify = verbs.add_parser("verify", help="compare models with golden cases, stage by stage")
    verify.add_argument("cases", nargs="+", type=Path, help="case folders, parents of such, or single files")
    verify.set_defaults(run=_verify)


def _install(args: argparse.Namespace) -> int:
    from fiftyone_refvos.installation import install

    print("\n".join(install()))
    return 0


def _demo(args: argparse.Namespace) -> int:
    from fiftyone_refvos.demo.run import run_demo

    return run_demo(num_videos=args.videos, video=args.video, expressions=args.expression, app=args.app)


def _model_options(args: argparse.Namespace) -> dict[str, str]:
    named = {"checkpoint": args.checkpoint, "clip_path": args.clip_path, "device": args.device}
    return {name: value for name, value in named.items() if value is not None}


def _show(progress: Progress) -> None:
    line = f"\rvideo {progress.video}/{progress.num_videos}, {progress.fraction:4.0%}"
    print(line, end="", file=sys.stderr, flush=True)


def _segment(args: argparse.Namespace) -> int:
    import fiftyone as fo
    import fiftyone.zoo as foz

    from fiftyone_refvos.segment import segment

    dataset = fo.load_dataset(args.dataset)
    report = segment(
        dataset.load_saved_view(args.view) if args.view else dataset,
        foz.load_zoo_model(args.model, **_model_options(args)),
        label_field=args.label_field,
        prompts=args.prompts,
        prompt_field=args.prompt_field,
        overwrite=args.overwrite,
        progress=_show if sys.stderr.isatty() else None,
    )
    print(report)
    return 1 if report.failures else 0


def _segment_video(args: argparse.Namespace) -> int:
    from fiftyone_refvos.single_video import segment_video

    result = segment_video(args.path, args.expression, model=args.model, output=args.output, **_model_options(args))
    for masklet in result.masklets:
        found = "no such object" if masklet.no_target else f"score {masklet.score:.2f}"
        print(f"{masklet.expression.text!r}: {found}")
    print(f"overlay: {result.overlay}")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    import fiftyone as fo

    from fiftyone_refvos.evaluate import evaluate

    dataset = fo.load_dataset(args.dataset)
    results = evaluate(
        dataset.load_saved_view(args.view) if args.view else dataset,
        args.pred_field,
        gt_field=args.gt_field,
        eval_key=args.eval_key,
        protocol=args.protocol,
        num_workers=args.workers,
        skip_failures=args.skip_failures,
        progress=_show if sys.stderr.isatty() else None,
    )
    results.print_report()
    return 1 if results.failures else 0


def _verify(args: argparse.Namespace) -> int:
    from fiftyone_refvos.verify import verify

    reports = []
    for report in verify(args.cases):
        print("\n".join(report.lines()), flush=True)
        reports.append(report)
    if not reports:
        print("nothing was recognised as a golden case", file=sys.stderr)
        return 2
    failed = sum(not report.passed for report in reports)
    print(f"{len(reports) - failed} of {len(reports)} cases passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
