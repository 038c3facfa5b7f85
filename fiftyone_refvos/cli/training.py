"""The verbs that train segmenters: train, train-mllmseg."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from fiftyone_refvos.cli.options import add_samples, named_samples
from fiftyone_refvos.cli.progress import ProgressLine
from fiftyone_refvos.models.registry import DEFAULT_MODEL, TRAINABLE
from fiftyone_refvos.training.config import Precision, SamplingConfig, TrainingConfig, Wording
from fiftyone_refvos.training.mllmseg.config import RECIPE_STEPS, Measure, MllmsegTrainingConfig

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `refvos --help` should not
    import fiftyone as fo

_RECIPE = TrainingConfig()
_MLLMSEG = MllmsegTrainingConfig()
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
    train.add_argument("--no-target", action="store_true", help="learn from expressions that mean nothing, too")
    _add_validation(train, "J&F", "videos")
    add_numbers(train, _RECIPE)
    train.set_defaults(run=_train)


def add_train_mllmseg(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos train-mllmseg`."""
    train = verbs.add_parser("train-mllmseg", help="train MLLMSeg on the expressions and masks of an image dataset")
    add_samples(train)
    train.add_argument(
        "base", help="a name such as mllmseg-8b-res, or a checkpoint folder, also of a plain InternVL2.5"
    )
    train.add_argument("folder", type=Path, help="gets merged checkpoint, plot, logs; an old one goes on")
    train.add_argument("--masks-field", default="ground_truth", help="masks to learn (default: %(default)s)")
    _add_validation(train, "gIoU or cIoU", "images")
    train.add_argument(
        "--measure", choices=get_args(Measure), default=_MLLMSEG.measure, help="(default: %(default)s)"
    )
    train.add_argument(
        "--task", choices=list(RECIPE_STEPS), default="res", help="whose number of steps (default: %(default)s)"
    )
    add_numbers(train, _MLLMSEG, {"steps": "50000 for res, 20000 for gres", "warmup_steps": "3 % of the steps"})
    train.add_argument("--trainable", choices=["published", "all"], default=_MLLMSEG.trainable)
    train.add_argument("--wording", choices=get_args(Wording), default=_MLLMSEG.sampling.wording)
    train.add_argument(
        "--expressions", type=int, default=_MLLMSEG.sampling.expressions, help="of an image (default: %(default)s)"
    )
    train.set_defaults(run=_train_mllmseg)


def _add_validation(train: argparse.ArgumentParser, measure: str, media: str) -> None:
    held = train.add_mutually_exclusive_group()
    held.add_argument("--validation-view", help=f"name of a saved view to measure {measure} on")
    held.add_argument("--validation-share", type=float, help=f"hold out this share of the {media}, such as 0.1")
    train.add_argument(
        "--validation-field", default="ground_truth", help="true masks to measure with (default: %(default)s)"
    )


def add_numbers(
    train: argparse.ArgumentParser, recipe: TrainingConfig, defaults: Mapping[str, str] | None = None
) -> None:
    """Adds the numbers of a recipe, which `given_numbers` reads; some defaults are said in words."""
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
        said = {**_SAID, **(defaults or {})}.get(name, getattr(recipe, name))
        text = f"(default: {said})".replace("%", "%%")
        train.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    train.add_argument("--precision", choices=get_args(Precision), default=recipe.precision)
    train.set_defaults(recipe=[*numbers, "precision"])


def given_numbers(args: argparse.Namespace) -> dict[str, Any]:
    """What the arguments say of a recipe, by name."""
    return {name: getattr(args, name) for name in args.recipe if getattr(args, name) is not None}


def _train(args: argparse.Namespace) -> int:
    from fiftyone_refvos.training.train import train

    sampling = SamplingConfig(no_target=args.no_target)
    config = TrainingConfig.of_length(**{"steps": _RECIPE.steps, "sampling": sampling, **given_numbers(args)})
    samples, validation = held_out(args, config.seed)
    with ProgressLine("step") as progress:
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
            progress=progress,
        )
    print(trained)
    return 0


def _train_mllmseg(args: argparse.Namespace) -> int:
    from fiftyone_refvos.training.mllmseg.train import train_mllmseg

    given: dict[str, Any] = {"steps": RECIPE_STEPS[args.task], **given_numbers(args), "trainable": args.trainable}
    given["sampling"] = SamplingConfig(expressions=args.expressions, wording=args.wording, no_target=True)
    config = MllmsegTrainingConfig.of_length(**given, measure=args.measure)
    samples, validation = held_out(args, config.seed)
    with ProgressLine("step") as progress:
        trained = train_mllmseg(
            samples,
            args.base,
            folder=args.folder,
            config=config,
            validation_view=validation,
            masks_field=args.masks_field,
            validation_field=args.validation_field,
            progress=progress,
        )
    print(trained)
    return 0


def held_out(
    args: argparse.Namespace, seed: int
) -> tuple[fo.Dataset | fo.DatasetView, fo.Dataset | fo.DatasetView | None]:
    """What to train on, and what to validate on, as the arguments say."""
    from fiftyone_refvos.training.train import hold_out

    samples = named_samples(args)
    if args.validation_view:
        return samples, samples._root_dataset.load_saved_view(args.validation_view)
    if args.validation_share is not None:
        return hold_out(samples, args.validation_share, seed=seed)
    return samples, None
