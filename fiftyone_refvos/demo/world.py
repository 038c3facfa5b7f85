"""The demo world: what a video of moving shapes consists of.

Lengths are in short sides of the frame, so that a seed gives the same video at every resolution of one shape.
Scene coordinates have x to the right and y down; the picture shows them shifted by the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

Split = Literal["train", "valid", "test"]
Shape = Literal["circle", "square", "triangle", "star", "cross", "moon"]
Color = Literal["red", "orange", "yellow", "green", "blue", "purple", "white", "black"]
Size = Literal["small", "large"]
Motion = Literal[
    "still",
    "left",
    "right",
    "up",
    "down",
    "stops",  # moves, then stands still
    "starts",  # stands still, then moves
    "turns",  # moves one way, then back
    "circles",
    "leaves",
    "enters",
    "returns",  # leaves the picture and comes back
    "bounces",  # runs into another shape, both go back
]
Texture = Literal["noise", "stripes", "checker"]

SPLITS: tuple[Split, ...] = get_args(Split)
SHAPES: tuple[Shape, ...] = get_args(Shape)
COLORS: tuple[Color, ...] = get_args(Color)
SIZES: tuple[Size, ...] = get_args(Size)
MOTIONS: tuple[Motion, ...] = get_args(Motion)
TEXTURES: tuple[Texture, ...] = get_args(Texture)

RGB: dict[Color, tuple[int, int, int]] = {
    "red": (218, 32, 38),
    "orange": (250, 132, 24),
    "yellow": (250, 226, 50),
    "green": (30, 160, 62),
    "blue": (36, 84, 222),
    "purple": (150, 48, 190),
    "white": (246, 246, 246),
    "black": (18, 18, 20),
}

MIN_FRAMES = 8
"""Shorter videos cannot show that something stops, or leaves and comes back."""


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """What the videos look like.

    Attributes:
        height, width: size of the frames in pixels
        num_frames: length of the videos; motion is scaled to it, so longer videos are slower
        frame_rate: frames per second
        min_objects, max_objects: how many shapes a video has
        max_per_kind: at most so many expressions of each kind per video
        camera: how far the camera moves from the middle of its way at most, in short sides of the frame
    """

    height: int = 240
    width: int = 426
    num_frames: int = 24
    frame_rate: int = 12
    min_objects: int = 4
    max_objects: int = 6
    max_per_kind: int = 1
    camera: float = 0.05

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 16:
            raise ValueError(f"frames must be at least 16 pixels high and wide, got {self.height}x{self.width}")
        if max(self.extent) > 3:
            raise ValueError(f"frames of {self.height}x{self.width} are too long: at most 3 to 1")
        if self.num_frames < MIN_FRAMES:
            raise ValueError(f"a video needs at least {MIN_FRAMES} frames, got num_frames={self.num_frames}")
        if self.frame_rate < 1:
            raise ValueError(f"frame_rate must be at least 1, got {self.frame_rate}")
        if not 2 <= self.min_objects <= self.max_objects <= 6:
            raise ValueError(f"need 2 <= min_objects <= max_objects <= 6, got {self.min_objects}, {self.max_objects}")
        if not 0 <= self.camera <= 0.06:
            raise ValueError(f"camera must be in [0, 0.06], got {self.camera}")

    @property
    def short_side(self) -> int:
        """The unit of all lengths, in pixels."""
        return min(self.height, self.width)

    @property
    def extent(self) -> tuple[float, float]:
        """(width, height) of the picture in short sides."""
        return self.width / self.short_side, self.height / self.short_side


@dataclass(frozen=True, slots=True)
class DemoObject:
    """One shape and its way through the scene.

    Attributes:
        id: its position in `World.objects` as a string
        shape, color, size, motion: what it is and does
        side: side of the square of equal area, in short sides
        angle: how far it is tilted clockwise, in radians
        path: (x, y) of its centre in each of the T frames, in scene coordinates
    """

    id: str
    shape: Shape
    color: Color
    size: Size
    motion: Motion
    side: float
    angle: float
    path: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Background:
    """A texture that is fixed in the scene.

    Attributes:
        texture: its kind
        colors: the two RGB colours it runs between, each 0..255
        period: size of its pattern in short sides
        angle: direction of stripes in radians
        seed: seed of the noise that lies in every texture
    """

    texture: Texture
    colors: tuple[tuple[int, int, int], tuple[int, int, int]]
    period: float
    angle: float
    seed: int


@dataclass(frozen=True, slots=True)
class World:
    """Everything that can be seen in a video; a pure value, equal and hashable by its content.

    Attributes:
        config: size and length
        background: the texture behind everything
        camera: (x, y) scene coordinates of the picture's upper left corner in each of the T frames
        objects: the shapes from back to front
    """

    config: DemoConfig
    background: Background
    camera: tuple[tuple[float, float], ...]
    objects: tuple[DemoObject, ...]

    def scene_paths(self) -> FloatArray:
        """Where the objects are in the scene: `(N, T, 2)`, (x, y) in short sides."""
        return np.array([thing.path for thing in self.objects], dtype=np.float64)

    def picture_paths(self) -> FloatArray:
        """Where they are in the picture: `(N, T, 2)`, (x, y) from its upper left corner, in short sides."""
        return self.scene_paths() - np.array(self.camera, dtype=np.float64)


def video_seed(split: Split, index: int) -> int:
    """The seed of a split's video number `index` (from 0): no seed belongs to two splits.

    Raises:
        ValueError: for an unknown split or a negative index
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if index < 0:
        raise ValueError(f"videos are numbered from 0, got index {index}")
    return index * len(SPLITS) + SPLITS.index(split)


def generator(*entropy: int) -> np.random.Generator:
    """A random generator whose stream depends on the given numbers alone.

    The bit generator is named, because numpy may change what `default_rng` uses.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
