"""What several verbs have in common: datasets and views, models."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fiftyone_refvos.models.registry import DEFAULT_MODEL, MODELS

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `refvos --help` should not
    import fiftyone as fo


def add_samples(parser: argparse.ArgumentParser) -> None:
    """Adds what `named_samples` reads."""
    parser.add_argument("dataset", help="name of the dataset")
    parser.add_argument("--view", help="name of a saved view of it")


def named_samples(args: argparse.Namespace) -> fo.Dataset | fo.DatasetView:
    """The dataset that the arguments name, or the saved view of it."""
    import fiftyone as fo

    dataset = fo.load_dataset(args.dataset)
    return dataset.load_saved_view(args.view) if args.view else dataset


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `model_options` reads, and the name of the model."""
    parser.add_argument("--model", default=DEFAULT_MODEL, choices=list(MODELS), help="(default: %(default)s)")
    parser.add_argument("--checkpoint", help="a folder to load instead of the published weights")
    parser.add_argument("--clip-path", help="a folder with the CLIP model, for published checkpoints of GLUS")
    parser.add_argument("--adapter", help="a folder with what a training changed of the model")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: the GPU where there is one)")


def model_options(args: argparse.Namespace) -> dict[str, str]:
    """What is to be passed on when a model is loaded."""
    named = {name: getattr(args, name) for name in ("checkpoint", "clip_path", "adapter", "device")}
    return {name: value for name, value in named.items() if value is not None}


def check_new_view(samples: fo.Dataset | fo.DatasetView, name: str | None) -> None:
    """Refuses the name of a view that exists before anything is computed."""
    if name and samples._root_dataset.has_saved_view(name):
        raise ValueError(f"there is a saved view {name!r} already: choose another name, or delete it")


def save_view(view: fo.DatasetView, name: str | None) -> None:
    """Saves a view in its dataset, if it is to have a name."""
    if name:
        view._root_dataset.save_view(name, view)
        print(f"saved as view {name!r}")
