"""Videos with masklets of a model whose scores are known, and what evaluations make of them."""

from __future__ import annotations

import fiftyone as fo
import numpy as np

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.masklet import BoolArray, Expression
from fiftyone_refvos.metrics import score_frame
from tests.fields_data import boxes, masklet, video_sample

SIZE = (40, 60)
TEXTS = ("the dog", "a cat", "no such thing")


def track(shift: int, *, num_objects: int = 1, num_frames: int = 4) -> BoolArray:
    """Squares that move to the right, `(T, N, H, W) bool`."""
    return boxes([(4 + shift, 5 + 2 * t) for t in range(num_frames)], SIZE, side=9, num_objects=num_objects)


def add_video(dataset: fo.Dataset, number: int, *, num_frames: int = 4) -> fo.Sample:
    """A video with three expressions: a good mask, a worse one with two objects, and none for no target."""
    metadata = fo.VideoMetadata(total_frame_count=num_frames, frame_height=SIZE[0], frame_width=SIZE[1])
    sample = video_sample(dataset, f"/videos/{number}.mp4", texts=TEXTS, num_frames=num_frames)
    dataset.set_values("metadata", {sample.id: metadata}, key_field="id")
    expressions = [Expression(str(n), text) for n, text in enumerate(TEXTS)]
    nothing = np.zeros((num_frames, 1, *SIZE), dtype=bool)
    cat = track(1, num_objects=2, num_frames=num_frames)
    truth = [track(number, num_frames=num_frames), cat, nothing]
    predicted = [track(number + 1, num_frames=num_frames), cat[:, :1], nothing.copy()]
    predicted[0][2] = False  # lost in the third frame
    for field, masks in (("truth", truth), ("model", predicted)):
        found = [masklet(m, expression=e) for m, e in zip(masks, expressions, strict=True)]
        fields.write_masklets(sample, field, found)
    return dataset[sample.id]


def add_videos(dataset: fo.Dataset) -> fo.Dataset:
    """Adds three of them."""
    for number in range(3):
        add_video(dataset, number)
    return dataset


def evaluate(samples, **options):
    """Evaluates the field `model`, as the run `run` unless options say otherwise."""
    return rv.evaluate(samples, "model", **{"gt_field": "truth", "eval_key": "run", **options})


def expected(number: int, expression: int, frame: int) -> tuple[float, float]:
    """J and F of an expression of the video `number` in a frame."""
    truth = [track(number)[frame], track(1, num_objects=2)[frame], np.zeros((1, *SIZE), bool)][expression]
    predicted = [track(number + 1)[frame], track(1)[frame], np.zeros((1, *SIZE), bool)][expression]
    if (expression, frame) == (0, 2):
        predicted = np.zeros_like(predicted)
    score = score_frame(truth, predicted)
    return score.J, score.F


def attributes(dataset: fo.Dataset) -> list[str]:
    """The paths of all fields that runs made."""
    dataset.reload()
    paths = [*dataset.get_field_schema(flat=True)]
    paths += [f"frames.{path}" for path in dataset.get_frame_field_schema(flat=True)]
    return [path for path in paths if path.split(".")[-1].startswith(("run_", "other_"))]


def remove_prediction_in_frame_3(sample: fo.Sample) -> str:
    sample.frames[3]["model"] = None
    sample.save()
    return r"frame 3 is annotated in 'truth', but not predicted in 'model'"
