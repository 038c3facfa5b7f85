"""Demo videos rendered once onto disk, squashed to the square that a small network sees: what it is trained on."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fiftyone_refvos.demo.actions import Truth
from fiftyone_refvos.demo.facts import PLACES, Facts
from fiftyone_refvos.demo.video import DemoVideo, generate
from fiftyone_refvos.demo.world import DemoConfig, Split, video_seed
from fiftyone_refvos.training.sources import TrainingExpression

SIZES: tuple[tuple[int, int], ...] = ((240, 426), (160, 284), (160, 284), (180, 240), (160, 284), (200, 356))
"""(H, W) in which the videos are drawn, one after the other: several shapes of a picture, and several sharpnesses."""

MAX_PER_KIND = 8
"""Many expressions of a video share what is computed of its frames."""

LOOK = "look"
"""The topic of expressions that say nothing but how something looks."""

_PIXELS, _LABELS, _TEXTS = "pixels.npy", "labels.npy", "videos.json"
_SAVE_EVERY = 50
_FEW = 8  # videos are drawn sooner than processes start
_FILTERS = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)  # CLIP's and SAM2's preprocessing
_MIRRORED = {"left": "right", "right": "left"}


@dataclass(frozen=True, slots=True)
class RenderedExpression(TrainingExpression):
    """One expression of a `DemoVideo`, known in every frame.

    Attributes:
        kind: of the `DemoExpression`
        topic: the name of its clause, LOOK where nothing but looks is said
    """

    kind: str = "attribute"
    topic: str = LOOK

    @property
    def static(self) -> bool:
        """Whether one frame tells what is meant."""
        return self.topic == LOOK or self.topic in PLACES


@dataclass(frozen=True)
class RenderedVideo:
    """One rendered video, a `TrainingVideo`.

    Attributes:
        name: its seed, and whether it is mirrored
        pixels: `(T, S, S, 3) uint8`
        labels: `(T, S, S) uint8`, 0 for the background, 1 + its position for an object
        objects: (size, colour, shape) of each object
        expressions: what is said about it
        actions: `Facts.single`, whether each object does something
    """

    name: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    objects: tuple[tuple[str, str, str], ...]
    expressions: tuple[RenderedExpression, ...]
    actions: Mapping[str, tuple[Truth, ...]]

    @property
    def size(self) -> tuple[int, int]:
        """(S, S)."""
        return self.labels.shape[1], self.labels.shape[2]

    def __len__(self) -> int:
        """T, the number of frames."""
        return len(self.labels)

    def frame_name(self, index: int) -> str:
        """Five digits, as in MeViS."""
        return f"{index:05d}"

    def read(self, indices: Iterable[int]) -> Iterator[NDArray[np.uint8]]:
        """The frames of the given indices in the given order, `(S, S, 3) uint8`."""
        return (np.ascontiguousarray(self.pixels[index]) for index in indices)

    def targets(self, expressions: Sequence[TrainingExpression], index: int) -> NDArray[np.uint8]:
        """Which pixels show an object of each of E expressions, `(E, S, S)`; the objects of a frame are disjoint."""
        labels = self.labels[index]
        wanted = [[int(identity) + 1 for identity in expression.object_ids] for expression in expressions]
        return np.stack([np.isin(labels, numbers) for numbers in wanted]).astype(np.uint8)

    def mirrored(self) -> RenderedVideo:
        """The video seen in a mirror, where left is right."""
        return replace(
            self,
            name=f"{self.name} mirrored",
            pixels=self.pixels[:, :, ::-1],
            labels=self.labels[:, :, ::-1],
            expressions=tuple(replace(each, text=mirrored_text(each.text)) for each in self.expressions),
            actions={name: self.actions[_MIRRORED.get(name, name)] for name in self.actions},
        )


class RenderedVideos:
    """A `TrainingSource` of rendered videos, each of them also mirrored.

    Args:
        folder: of `render`
        keep: the expressions that are asked for; all by default

    Raises:
        FileNotFoundError: if nothing was rendered there
    """

    name = "demo"
    contrastive = True

    def __init__(self, folder: Path, *, keep: Callable[[RenderedExpression], bool] | None = None) -> None:
        self._videos: list[dict[str, Any]] = json.loads((folder / _TEXTS).read_text(encoding="utf-8"))["videos"]
        self._pixels = np.load(folder / _PIXELS, mmap_mode="r")
        self._labels = np.load(folder / _LABELS, mmap_mode="r")
        self._keep = keep

    def __len__(self) -> int:
        """Twice the number of videos: each as it is, and mirrored."""
        return 2 * len(self._videos)

    def video(self, index: int) -> RenderedVideo:
        """A video; those with odd numbers are the mirrored ones."""
        described = self._videos[index // 2]
        expressions = tuple(
            RenderedExpression(**(each | {"object_ids": tuple(each["object_ids"])}))
            for each in described["expressions"]
        )
        video = RenderedVideo(
            name=str(described["seed"]),
            pixels=self._pixels[index // 2],
            labels=self._labels[index // 2],
            objects=tuple(tuple(each) for each in described["objects"]),
            expressions=tuple(filter(self._keep, expressions)) if self._keep else expressions,
            actions={name: tuple(truths) for name, truths in described["actions"].items()},
        )
        return video.mirrored() if index % 2 else video


def render(folder: Path, num_videos: int, *, side: int, split: Split = "train", first: int = 0) -> None:
    """Renders videos of a split, or goes on where an interrupted call for the same ones stopped.

    Args:
        folder: gets `pixels.npy`, `labels.npy` and `videos.json`
        num_videos: how many; about 2.5 MB each at a side of 160
        side: S, of the square that every frame is squashed to
        split: whose seeds are taken
        first: number of the split's first video that is taken

    Raises:
        ValueError: if the folder holds other videos
    """
    settings = {"num_videos": num_videos, "side": side, "split": split, "first": first}
    folder.mkdir(parents=True, exist_ok=True)
    done = json.loads((folder / _TEXTS).read_text()) if (folder / _TEXTS).exists() else None
    if done is not None and done["settings"] != settings:
        raise ValueError(f"{folder} holds other videos ({done['settings']}): choose another folder, or delete it")
    videos: list[dict[str, Any]] = done["videos"] if done is not None else []
    if done is None:
        frames = (num_videos, DemoConfig().num_frames, side, side)
        np.lib.format.open_memmap(folder / _PIXELS, "w+", np.uint8, (*frames, 3))
        np.lib.format.open_memmap(folder / _LABELS, "w+", np.uint8, frames)
    left, work = range(len(videos), num_videos), partial(_render, folder, split, first)
    with ExitStack() as stack:
        todo: Iterator[dict[str, Any]] = map(work, left)
        if len(left) > _FEW:
            # Not forked: a fork takes the locks along that other threads of the caller hold, and may wait for ever.
            spawned = ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))
            todo = stack.enter_context(spawned).map(work, left)
        for described in todo:
            videos.append(described)
            if len(videos) % _SAVE_EVERY == 0 or len(videos) == num_videos:
                _write_texts(folder, {"settings": settings, "videos": videos})


def _render(folder: Path, split: Split, first: int, index: int) -> dict[str, Any]:
    """Writes the pictures of one video into their place, and describes it."""
    pixels, labels = (np.load(folder / name, mmap_mode="r+")[index] for name in (_PIXELS, _LABELS))
    height, width = SIZES[index % len(SIZES)]
    video = generate(
        video_seed(split, first + index), DemoConfig(height=height, width=width, max_per_kind=MAX_PER_KIND)
    )
    scaling = _FILTERS[index // len(SIZES) % len(_FILTERS)]
    side = labels.shape[1]
    for t in range(len(video)):
        pixels[t] = np.asarray(Image.fromarray(video.frame(t)).resize((side, side), scaling))
        labels[t] = _labels(video, t, side)
    return _described(video)


def _write_texts(folder: Path, texts: dict[str, Any]) -> None:
    part = folder / f".{_TEXTS}.part"
    part.write_text(json.dumps(texts), encoding="utf-8")
    part.rename(folder / _TEXTS)


def _labels(video: DemoVideo, t: int, side: int) -> NDArray[np.uint8]:
    """Which object lies at the centre of each pixel of the square: `(S, S) uint8`."""
    height, width = video.size
    rows, columns = (((np.arange(side) + 0.5) * length / side).astype(int) for length in (height, width))
    masks = video.masks(t)[:, rows][:, :, columns]
    numbers = np.arange(1, len(masks) + 1, dtype=np.uint8)[:, None, None]
    return (masks * numbers).max(axis=0, initial=0)


def _described(video: DemoVideo) -> dict[str, Any]:
    return {
        "seed": video.seed,
        "objects": [(thing.size, thing.color, thing.shape) for thing in video.objects],
        "expressions": [
            asdict(
                RenderedExpression(
                    id=each.id,
                    text=each.text,
                    object_ids=each.object_ids,
                    kind=each.kind,
                    topic=each.meaning.clause.name if each.meaning.clause else LOOK,
                )
            )
            for each in video.expressions
        ],
        "actions": Facts.of(video.world).single,
    }


def mirrored_text(text: str) -> str:
    """What is true in the mirror: left is right there."""
    return " ".join(_MIRRORED.get(word, word) for word in text.split(" "))
