"""The demo world as a FiftyOne dataset: an mp4 per video, its expressions, and their masks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.demo.expressions import DemoExpression
from fiftyone_refvos.demo.video import DemoVideo, generate
from fiftyone_refvos.demo.world import DemoConfig, Split, video_seed
from fiftyone_refvos.overlay import write_video

VERSION = 1
"""Goes into the file names, and so into the settings; to be raised when a seed gives another video."""

INFO_KEY = "refvos_demo"
"""Where `dataset.info` holds the settings a dataset was made with."""


def load(
    num_videos: int = 8,
    *,
    split: Split = "test",
    config: DemoConfig | None = None,
    folder: str | os.PathLike[str] | None = None,
    name: str = "refvos-demo",
    overwrite: bool = False,
) -> fo.Dataset:
    """Makes a persistent dataset of demo videos, or loads the one made earlier with the same settings.

    A dataset `name` that exists is

    - loaded, if it is complete and has these settings; video files that are missing are written again,
    - made anew, if making it was interrupted, or if it has other settings and nobody added fields to it,
    - left alone with an error, if it has other settings and new fields, or is no demo dataset at all.

    Args:
        num_videos: how many videos
        split: "train", "valid" or "test", which share no video; also the tag of the samples
        config: what the videos look like; height and width must be even
        folder: where the mp4 files go; by default `refvos-demo` in FiftyOne's default dataset folder
        name: of the dataset
        overwrite: make the dataset anew whatever is there under its name

    Returns:
        the dataset, with `expressions` on the samples and `ground_truth` on the frames

    Raises:
        FileNotFoundError: if ffmpeg is not installed
        ValueError: for settings without sense, or if a dataset of that name must be left alone
    """
    config = config or DemoConfig()
    if num_videos < 1:
        raise ValueError(f"num_videos must be at least 1, got {num_videos}")
    if config.height % 2 or config.width % 2:
        raise ValueError(f"H.264 needs even sizes, got {config.height}x{config.width}")
    folder = Path(folder or Path(fo.config.default_dataset_dir) / "refvos-demo").absolute()
    seeds = {folder / _file_name(split, index, config): video_seed(split, index) for index in range(num_videos)}
    settings = {"split": split, "config": asdict(config), "files": [str(path) for path in seeds]}

    if shutil.which("ffprobe") is None:
        raise FileNotFoundError(
            "ffprobe is missing, with which FiftyOne reads the metadata of videos: install ffmpeg, for example with "
            "`apt-get install ffmpeg` or `brew install ffmpeg`"
        )
    if fo.dataset_exists(name):
        dataset = fo.load_dataset(name)
        if not overwrite and _is_complete(dataset, settings):
            for path, seed in seeds.items():
                _write_missing(path, seed, config)
            return dataset
        if not overwrite:
            _check_replaceable(dataset)
        dataset.delete()
    dataset = fo.Dataset(name, persistent=True)
    dataset.info[INFO_KEY] = {"settings": settings, "complete": False}
    dataset.save()
    samples = (_sample(path, seed, config, split) for path, seed in seeds.items())
    dataset.add_samples(samples, num_samples=num_videos)
    _finish(dataset, settings)
    return dataset


def _finish(dataset: fo.Dataset, settings: dict[str, Any]) -> None:
    dataset.add_dynamic_sample_fields()
    dataset.add_dynamic_frame_fields()
    dataset.info[INFO_KEY] = {"settings": settings, "complete": True, "fields": _fields(dataset)}
    dataset.save()


def _is_complete(dataset: fo.Dataset, settings: dict[str, Any]) -> bool:
    made = dataset.info.get(INFO_KEY) or {}
    return bool(made.get("complete")) and made["settings"] == settings


def _check_replaceable(dataset: fo.Dataset) -> None:
    """Raises an error if somebody would miss the dataset."""
    made = dataset.info.get(INFO_KEY)
    advice = "pass overwrite=True to replace it, or another name"
    if made is None:
        raise ValueError(f"the dataset {dataset.name!r} is no demo dataset: {advice}")
    added = sorted(set(_fields(dataset)) - set(made["fields"])) if made["complete"] else []
    if added:
        raise ValueError(
            f"the demo dataset {dataset.name!r} was made with other settings and has got new fields "
            f"({', '.join(added)}): {advice}"
        )


def _fields(dataset: fo.Dataset) -> list[str]:
    """Names of all fields, those of the frames with `frames.` before them."""
    return [*dataset.get_field_schema(), *(f"frames.{field}" for field in dataset.get_frame_field_schema())]


def _file_name(split: Split, index: int, config: DemoConfig) -> str:
    """A name that no other settings give, so that a file that exists is the right one."""
    digest = hashlib.sha256(json.dumps([VERSION, asdict(config)], sort_keys=True).encode()).hexdigest()
    return f"{split}_{index:04d}_{digest[:8]}.mp4"


def _write_missing(path: Path, seed: int, config: DemoConfig) -> None:
    # `write_video` gives a file its name when it is complete: one that exists is complete.
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, generate(seed, config).frames(), config.frame_rate)


def _sample(path: Path, seed: int, config: DemoConfig, split: Split) -> fo.Sample:
    _write_missing(path, seed, config)
    video = generate(seed, config)
    sample = fo.Sample(filepath=str(path), tags=[split], metadata=fo.VideoMetadata.build_for(str(path)))
    sample["seed"] = seed
    sample["expressions"] = fo.TemporalDetections(
        detections=[_expression(expression, len(video)) for expression in video.expressions]
    )
    for number, detections in _ground_truth_frames(video).items():
        sample.frames[number] = fo.Frame(ground_truth=detections)
    return sample


def _expression(expression: DemoExpression, num_frames: int) -> fo.TemporalDetection:
    return fo.TemporalDetection(
        label=expression.text,
        support=[1, num_frames],
        expression_id=expression.id,
        kind=expression.kind,
        object_ids=list(expression.object_ids),
        no_target=not expression.object_ids,
    )


def _ground_truth_frames(video: DemoVideo) -> dict[int, fo.Detections]:
    """For each frame number (from 1) the masks that can be seen, one per expression and object."""
    tracks = [
        (expression, object_id, fo.Instance())
        for expression in video.expressions
        for object_id in expression.object_ids
    ]
    frames: dict[int, fo.Detections] = {}
    for t in range(len(video)):
        crops = {
            thing.id: _crop(mask) for thing, mask in zip(video.objects, video.masks(t), strict=True) if mask.any()
        }
        frames[t + 1] = fo.Detections(
            detections=[
                fo.Detection(
                    label=expression.text,
                    expression_id=expression.id,
                    object_id=object_id,
                    index=index,
                    instance=instance,
                    bounding_box=crops[object_id][0],
                    mask=crops[object_id][1],
                )
                for index, (expression, object_id, instance) in enumerate(tracks, start=1)
                if object_id in crops
            ]
        )
    return frames


def _crop(mask: NDArray[np.bool_]) -> tuple[list[float], NDArray[np.bool_]]:
    """The relative box `[x, y, w, h]` of a mask `(H, W)` that is not empty, and the mask in the box."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
    return box, np.ascontiguousarray(mask[top:bottom, left:right])
