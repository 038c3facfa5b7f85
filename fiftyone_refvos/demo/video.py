"""`generate`: from a seed to a short video with exact masks and expressions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.demo.expressions import DemoExpression, write_expressions
from fiftyone_refvos.demo.facts import Facts
from fiftyone_refvos.demo.render import render_frame, render_masks
from fiftyone_refvos.demo.scene import sample_world
from fiftyone_refvos.demo.world import DemoConfig, DemoObject, World, generator


@dataclass(frozen=True, slots=True)
class DemoVideo:
    """A video of the demo world; frames and masks are drawn when asked for, in any order.

    It is a `FrameSource`, so a model can segment it without a file.

    Attributes:
        seed: what it was generated from
        world: everything that can be seen in it
        expressions: what is said about it
    """

    seed: int
    world: World
    expressions: tuple[DemoExpression, ...]

    @property
    def name(self) -> str:
        """What errors call this video."""
        return f"demo video {self.seed}"

    @property
    def config(self) -> DemoConfig:
        """Size and length."""
        return self.world.config

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of every frame."""
        return self.config.height, self.config.width

    @property
    def objects(self) -> tuple[DemoObject, ...]:
        """The N shapes from back to front."""
        return self.world.objects

    def __len__(self) -> int:
        """T, the number of frames."""
        return self.config.num_frames

    def frame(self, t: int) -> NDArray[np.uint8]:
        """The picture with index `t` (from 0): `(H, W, 3) uint8`, RGB."""
        return render_frame(self.world, self._checked(t))

    def masks(self, t: int) -> NDArray[np.bool_]:
        """What can be seen of each object in the frame `t` (from 0): `(N, H, W) bool`, disjoint."""
        return render_masks(self.world, self._checked(t))

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """All T pictures in order."""
        return self.read(range(len(self)))

    def read(self, indices: Iterable[int]) -> Iterator[NDArray[np.uint8]]:
        """The pictures of the given indices, in the given order."""
        return (self.frame(t) for t in indices)

    def targets(self, expression: DemoExpression, t: int) -> NDArray[np.bool_]:
        """Masks of the objects an expression means, in the order of its `object_ids`: `(n, H, W) bool`."""
        ids = [thing.id for thing in self.objects]
        return self.masks(t)[[ids.index(object_id) for object_id in expression.object_ids]]

    def _checked(self, t: int) -> int:
        if not 0 <= t < len(self):
            raise IndexError(f"{self.name} has frames 0 to {len(self) - 1}, not {t}")
        return t


def generate(seed: int, config: DemoConfig | None = None) -> DemoVideo:
    """Generates the video of a seed: the same on every machine, whatever was generated before.

    Args:
        seed: a number from 0 on, for instance of `video_seed`
        config: size and length; at another resolution of the same shape a seed gives the same video
    """
    config = config or DemoConfig()
    world = sample_world(generator(seed, 0), config)
    return DemoVideo(seed, world, write_expressions(generator(seed, 1), world, Facts.of(world)))
