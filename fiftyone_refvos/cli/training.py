"""The verb that trains: train."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any, get_args

from fiftyone_refvos.cli.options import add_samples, named_samples, show_progress
from fiftyone_refvos.models.registry import DEFAULT_MODEL, TRAINABLE
from fiftyone_refvos.training.config import Precision, TrainingConfig

_RECIPE = TrainingConfig()
_SAID = {"warmup_steps": "100, or a tenth of fewer than 1000 steps", "patience": "never stop early"}


def add_train(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos train`."""
    train = verbs.add_parser("train", help="fine-tune a model on the expressions and masks of a FiftyOne dataset")
    add_samples(train)
    train.add_argument("folder", type=Path, help="gets adapter, merged checkpoint, plot, logs; an old one goes on")
    train.add_argument("--model", default=DEFAULT_MODEL, choices=list(TRAINABLE), help="(default: %(default)s)")
    train.add_argument("--checkpoint", help="a folder to load instead of the published weights")
    train.add_argument("--clip-path", help="a folder with the CLIP model, for published checkpoints")
    train.add_argument("--masklets-field", default="ground_truth", help="masks to learn (default: %(default)s)")
    train.add_argument("--min-iou", type=float, help="learn only from frames whose pseudo-label reaches it")
    held = train.add_mutually_exclusive_group()
    held.add_argument("--validation-view", help="name of a saved view to measure J&F on")
    held.add_argument("--validation-share", type=float, help="hold out this share of the videos, such as 0.1")
    train.add_argument(
        "--validation-field", default="ground_truth", help="true masks to measure with (default: %(default)s)"
    )
    add_numbers(train, _RECIPE)
    train.set_defaults(run=_train)


def add_numbers(train: argparse.ArgumentParser, recipe: TrainingConfig) -> None:
    """Adds the numbers of a recipe, which `given_numbers` reads."""
    numbers: dict[str, type] = {
        "steps": int,
        "batch_size": int,
        "accumulation": int,
        "learning_rate": float,
        "warmup_steps": int,
        "save_every": int,
        "validate_every": int,
        "patience": int,
        "seed": int,
    }
    for name, kind in numbers.items():
        text = f"(default: {_SAID.get(name, getattr(recipe, name))})"
        train.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    train.add_argument("--precision", choices=get_args(Precision), default=recipe.precision)
    train.set_defaults(recipe=[*numbers, "precision"])


def given_numbers(args: argparse.Namespace) -> dict[str, Any]:
    """What the arguments say of a recipe, by name."""
    return {name: getattr(args, name) for name in args.recipe if getattr(args, name) is not None}


def _train(args: argparse.Namespace) -> int:
    from fiftyone_refvos.training.train import hold_out, train

    config = TrainingConfig.of_length(**{"steps": _RECIPE.steps, **given_numbers(args)})
    samples, validation = named_samples(args), None
    if args.validation_view:
        validation = samples._root_dataset.load_saved_view(args.validation_view)
    elif args.validation_share is not None:
        samples, validation = hold_out(samples, args.validation_share, seed=config.seed)
    trained = train(
        samples,
        args.model,
        folder=args.folder,
        config=config,
        validation_view=validation,
        masklets_field=args.masklets_field,
        validation_field=args.validation_field,
        min_iou=args.min_iou,
        checkpoint=args.checkpoint,
        clip_path=args.clip_path,
        progress=partial(show_progress, counted="step") if sys.stderr.isatty() else None,
    )
    print(trained)
    return 0
