"""The verbs of key frames: select-key-frames, train-selector, key-frame-quality, and their files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fiftyone_refvos.cli.options import add_samples, named_samples
from fiftyone_refvos.cli.progress import ProgressLine
from fiftyone_refvos.cli.training import add_numbers, given_numbers, held_out
from fiftyone_refvos.key_frames import WITHOUT_WEIGHTS
from fiftyone_refvos.models.registry import SELECTORS
from fiftyone_refvos.training.config import SamplingConfig
from fiftyone_refvos.training.selector.config import SelectorTrainingConfig

_RECIPE = SelectorTrainingConfig()


def add_select(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos select-key-frames`."""
    select = verbs.add_parser("select-key-frames", help="choose the frame that shows best what each expression names")
    add_samples(select)
    select.add_argument("selector", choices=[*WITHOUT_WEIGHTS, *SELECTORS])
    select.add_argument("--field", required=True, help="name of the key frames: a field of masklets, or another")
    select.add_argument("--masklets-field", help="for oracle and confidence: whose (default: --field)")
    select.add_argument("--overwrite", action="store_true", help="choose anew where there are key frames")
    select.add_argument("--checkpoint", help="a folder with the selector")
    select.add_argument("--clip-path", help="a folder with the CLIP model, for published checkpoints")
    select.add_argument("--device", help="cpu, cuda, cuda:1 (default: the GPU where there is one)")
    select.add_argument("--export", type=Path, metavar="FILE", help="also write them for GLUS")
    select.add_argument("--export-scores", type=Path, metavar="FOLDER", help="also write the score of every frame")
    select.set_defaults(run=_select)


def add_import(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos import-key-frames` and `refvos import-pseudo-labels`."""
    for name, what, run in (
        ("import-key-frames", "key frames as GLUS publishes them: a JSON file", _import_key_frames),
        ("import-pseudo-labels", "label files, <video>/<expression id>.json: a folder", _import_pseudo_labels),
    ):
        importing = verbs.add_parser(name, help=f"read {what}")
        add_samples(importing)
        importing.add_argument("path", type=Path)
        importing.add_argument("--field", required=True, help="what they are named after in the dataset")
        importing.set_defaults(run=run)


def add_quality(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos key-frame-quality`."""
    quality = verbs.add_parser("key-frame-quality", help="scores of a selector against the true IoU of masklets")
    add_samples(quality)
    quality.add_argument("field", help="name of the key frames")
    quality.add_argument("masklets_field", help="field of masklets that have pseudo-labels")
    quality.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="write a plot per expression, and the calibration"
    )
    quality.set_defaults(run=_quality)


def add_train(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos train-selector`."""
    train = verbs.add_parser("train-selector", help="train a key frame selector on pseudo-labels")
    add_samples(train)
    train.add_argument("base", type=Path, help="a folder with a selector, or with the base of one")
    train.add_argument("folder", type=Path, help="gets the selector, plot, logs; an old one goes on")
    train.add_argument("--field", required=True, help="the masklets that have pseudo-labels, or their name")
    train.add_argument("--clip-path", help="a folder with the CLIP model, for published bases")
    held = train.add_mutually_exclusive_group()
    held.add_argument("--validation-view", help="name of a saved view to measure the rank correlation on")
    held.add_argument("--validation-share", type=float, help="hold out this share of the videos, such as 0.1")
    add_numbers(train, _RECIPE)
    train.add_argument(
        "--context-frames", type=int, nargs=2, metavar=("FEWEST", "MOST"), help="of a sample (default: 8 12)"
    )
    train.add_argument("--trainable", choices=["published", "all", "all_but_clip"], default=_RECIPE.trainable)
    train.add_argument("--wording", choices=["random", "inference"], default=_RECIPE.sampling.wording)
    train.set_defaults(run=_train)


def _select(args: argparse.Namespace) -> int:
    from fiftyone_refvos.key_frame_files import export_frame_scores, export_key_frames
    from fiftyone_refvos.key_frames import select_key_frames

    samples = named_samples(args)
    named = {name: getattr(args, name) for name in ("checkpoint", "clip_path", "device")}
    with ProgressLine() as progress:
        report = select_key_frames(
            samples,
            args.selector,
            field=args.field,
            masklets_field=args.masklets_field,
            overwrite=args.overwrite,
            progress=progress,
            **{name: value for name, value in named.items() if value is not None},
        )
    print(report)
    if args.export:
        print(f"{export_key_frames(samples, args.export, args.field)} key frames written to {args.export}")
    if args.export_scores:
        print(f"{export_frame_scores(samples, args.export_scores, args.field)} files written to {args.export_scores}")
    return 1 if report.failures else 0


def _import_key_frames(args: argparse.Namespace) -> int:
    from fiftyone_refvos.key_frame_files import import_key_frames

    print(import_key_frames(named_samples(args), args.path, args.field))
    return 0


def _import_pseudo_labels(args: argparse.Namespace) -> int:
    from fiftyone_refvos.key_frame_files import import_pseudo_labels

    print(import_pseudo_labels(named_samples(args), args.path, args.field))
    return 0


def _quality(args: argparse.Namespace) -> int:
    from fiftyone_refvos.key_frame_quality import key_frame_quality

    quality = key_frame_quality(named_samples(args), args.field, args.masklets_field)
    print(quality)
    if args.plots:
        print(f"{len(quality.save_plots(args.plots))} plots written to {args.plots}")
    return 0


def _train(args: argparse.Namespace) -> int:
    from fiftyone_refvos.training.selector.train import train_selector

    given: dict[str, Any] = {**given_numbers(args), "trainable": args.trainable}
    if args.trainable != "published":
        given["lora"] = None
    if args.context_frames:
        given["context_frames"] = tuple(args.context_frames)
    given["sampling"] = SamplingConfig(wording=args.wording)
    config = SelectorTrainingConfig.of_length(**{"steps": _RECIPE.steps, **given})
    samples, validation = held_out(args, config.seed)
    with ProgressLine("step") as progress:
        trained = train_selector(
            samples,
            args.base,
            field=args.field,
            folder=args.folder,
            config=config,
            validation_view=validation,
            clip_path=args.clip_path,
            progress=progress,
        )
    print(trained)
    return 0
