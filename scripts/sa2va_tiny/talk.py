"""What is asked about demo clips, what is to be answered, and which objects each [SEG] of an answer stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from fiftyone_refvos.demo.rendered import RenderedExpression, RenderedVideo
from fiftyone_refvos.models.sa2va.inference import segmentation_question
from scripts.glus_tiny.points import FEWEST_PIXELS

CAPTION_QUESTION = (
    "<image>\nCould you please give me a brief description of the image? Please respond with interleaved "
    "    segmentation masks for the corresponding parts of the answer."
)
REGION_QUESTION = "<image>\nPlease give me a short description of the region in the picture marked by region1."
PICTURE_QUESTION = "<image>\nWhat is in the picture?"
VIDEO_QUESTION = "<image>\nWhat is in the video?"
FOUND, NOT_FOUND = "Sure, it is [SEG].", "It is not there."

RATES = {"attribute": 2.0, "relation": 2.0, "motion": 1.0, "multi": 1.5, "no_target": 1.0}
_MOST_NAMED = 4


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    Attributes:
        question: with `<image>` where the frames come
        answer: without its end
        objects: for each [SEG] of the answer the numbers of what it stands for
    """

    question: str
    answer: str
    objects: tuple[tuple[int, ...], ...] = ()


def refer(expressions: Sequence[RenderedExpression], count: int, rng: np.random.Generator) -> list[Turn]:
    """Questions for the masks of some expressions, kinds that are hard to learn more often."""
    rates = np.array([RATES[each.kind] for each in expressions])
    if not len(rates):
        return []
    chosen = rng.choice(len(rates), min(count, len(rates)), replace=False, p=rates / rates.sum())
    turns = []
    for expression in (expressions[number] for number in chosen):
        numbers = tuple(int(identity) for identity in expression.object_ids)
        question = segmentation_question(expression.text, "first")
        turns.append(Turn(question, FOUND, (numbers,)) if numbers else Turn(question, NOT_FOUND))
    return turns


def caption(video: RenderedVideo, frame: int) -> Turn:
    """A grounded caption: all that can be seen, from left to right."""
    seen = visible(video, frame)[:_MOST_NAMED]
    parts = [f"<p>{' '.join(video.objects[number])}</p>[SEG]" for number in seen]
    return Turn(CAPTION_QUESTION, f"{', '.join(parts)}.", tuple((number,) for number in seen))


def look_around(video: RenderedVideo, frames: Sequence[int]) -> Turn:
    """What is in a picture, or in a video: every object that can be seen in any of the frames."""
    seen = dict.fromkeys(number for frame in frames for number in visible(video, frame))
    looks = [" ".join(video.objects[number]) for number in seen]
    return Turn(PICTURE_QUESTION if len(frames) == 1 else VIDEO_QUESTION, f"{', '.join(looks)}.")


def region(video: RenderedVideo, frame: int, side: int, rng: np.random.Generator) -> tuple[Turn, NDArray[np.int64]]:
    """A question about a marked object, and the visual tokens that mark it, in a grid of `side` by `side`.

    Without an object that covers any of the places where the grid is looked up, the region is empty.
    """
    labels = torch.from_numpy(video.labels[frame].astype(np.float32))
    cells = F.interpolate(labels[None, None], size=(side, side), mode="nearest")[0, 0].long().flatten().numpy()
    hit = [number for number in np.unique(cells) if number > 0]
    if not hit:
        return Turn(REGION_QUESTION, "nothing."), np.zeros(0, np.int64)
    number = int(rng.choice(hit))
    return Turn(REGION_QUESTION, f"{' '.join(video.objects[number - 1])}."), np.flatnonzero(cells == number)


def visible(video: RenderedVideo, frame: int) -> list[int]:
    """Numbers of the objects that can be seen in a frame, from left to right."""
    places = []
    for number in range(len(video.objects)):
        columns = np.nonzero(video.labels[frame] == number + 1)[1]
        if len(columns) >= FEWEST_PIXELS:
            places.append((columns.mean(), number))
    return [number for _, number in sorted(places)]
