"""The demo: generated videos, or a clip of the user's own, segmented by the default model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import fiftyone as fo
import fiftyone.zoo as foz

from fiftyone_refvos.demo.dataset import load
from fiftyone_refvos.models.registry import DEFAULT_MODEL
from fiftyone_refvos.segment import Progress, SegmentReport, segment
from fiftyone_refvos.video import open_video

LABEL_FIELD = DEFAULT_MODEL.replace("-", "_")
NUM_VIDEOS = 8  # of `load`
CLIP_DATASET = "refvos-clip"
CLIP_EXPRESSION = "the main object"

_DEMO_NOTE = (
    "glus-tiny knows these shapes alone: it finds most by their look and place, and by how they move.\n"
    "The exact masks to compare with are in 'frames.ground_truth'."
)
_CLIP_NOTE = (
    "glus-tiny knows the shapes of the demo videos alone: here its masks show that everything runs, not where\n"
    "the objects are. For videos of your own take a model with published weights, such as 'glus-s'."
)


def run_demo(
    *,
    num_videos: int = NUM_VIDEOS,
    video: Path | None = None,
    expressions: Sequence[str] | None = None,
    app: bool = False,
) -> int:
    """Makes a dataset, writes masklets into it, and says what it wrote and how to look at it.

    Args:
        num_videos: how many videos to generate
        video: a clip of the user's own instead
        expressions: what to look for in it
        app: open the App, and wait until it is closed

    Returns:
        the exit status, 1 if a video failed

    Raises:
        VideoError: if there is no such clip, or it is no video
    """
    dataset = _demo_dataset(num_videos) if video is None else _clip_dataset(video)
    prompts = None if video is None else list(expressions or [CLIP_EXPRESSION])
    print(f"Segmenting {len(dataset)} video(s) with {DEFAULT_MODEL} …", flush=True)
    model = foz.load_zoo_model(DEFAULT_MODEL)
    report = segment(dataset, model, label_field=LABEL_FIELD, prompts=prompts, progress=_show)
    print(_summary(dataset, report, _DEMO_NOTE if video is None else _CLIP_NOTE))
    if app:
        fo.launch_app(dataset).wait(-1)
    return 1 if report.failures else 0


def _demo_dataset(num_videos: int) -> fo.Dataset:
    """The dataset of `load()`, or one of its own for another number of videos: results are never dropped."""
    return load() if num_videos == NUM_VIDEOS else load(num_videos, name=f"refvos-demo-{num_videos}")


def _clip_dataset(video: Path) -> fo.Dataset:
    """The persistent dataset of users' clips, with this one in it."""
    open_video(video)  # raises an error for what is no video, before the dataset knows of it
    path = str(video.resolve())
    if fo.dataset_exists(CLIP_DATASET):
        dataset = fo.load_dataset(CLIP_DATASET)
    else:
        dataset = fo.Dataset(CLIP_DATASET, persistent=True)
    if path not in dataset.values("filepath"):
        dataset.add_sample(fo.Sample(filepath=path))
    view: fo.Dataset = dataset.match(fo.ViewField("filepath") == path)
    return view


def _show(progress: Progress) -> None:
    if progress.fraction == (progress.video - 1) / progress.num_videos:  # a video begins
        print(f"  video {progress.video} of {progress.num_videos}", flush=True)


def _summary(dataset: fo.Dataset | fo.DatasetView, report: SegmentReport, note: str) -> str:
    name = dataset.dataset_name if isinstance(dataset, fo.DatasetView) else dataset.name
    count = dataset.count(f"frames.{LABEL_FIELD}.detections")
    return "\n".join(
        [
            "",
            str(report),
            f"The dataset {name!r} now holds {count} masks in 'frames.{LABEL_FIELD}'.",
            note,
            "",
            "Look at them:",
            "  make demo APP=1",
            "  or in Python: import fiftyone as fo; "
            f"session = fo.launch_app(fo.load_dataset({name!r})); session.wait(-1)",
        ]
    )
