"""How much of each object can be seen, on a coarse raster of fixed size.

The raster does not depend on the resolution of the video, and so neither do the expressions that rest on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.demo.shapes import inside, reach
from fiftyone_refvos.demo.world import DemoObject, FloatArray, World

CELLS = 48
"""Raster cells along the short side of the picture."""


@dataclass(frozen=True, eq=False)
class Visibility:
    """Areas of N objects over T frames, as fractions of an object's own area.

    Attributes:
        inside: `(N, T)` how much of it lies in the picture, hidden or not
        visible: `(N, T)` how much of it can be seen
        behind: `(T, N, N)` how much of object `[:, i]` lies in the picture and behind object `[:, :, j]`
        covered: `(T, N, N)` the same where object `[:, :, j]` is not itself behind a third
    """

    inside: FloatArray
    visible: FloatArray
    behind: FloatArray
    covered: FloatArray

    @classmethod
    def of(cls, world: World) -> Visibility:
        """Draws the objects as stamps into a raster, frame by frame."""
        width, height = (max(1, round(side * CELLS)) for side in world.config.extent)
        stamps = [_stamp(thing) for thing in world.objects]
        area = np.array([stamp.sum() for stamp in stamps], dtype=np.float64)
        paths = np.round(world.picture_paths() * CELLS).astype(int)
        frames = np.array([_areas(stamps, corners, height, width) for corners in paths.transpose(1, 0, 2)])
        shared, on_top = (frames / area[:, None]).swapaxes(0, 1)
        in_front = np.triu(np.ones((len(stamps), len(stamps)), dtype=bool), 1)  # later objects are in front
        return cls(
            inside=np.diagonal(shared, axis1=1, axis2=2).T,
            visible=np.diagonal(on_top, axis1=1, axis2=2).T,
            behind=shared * in_front,
            covered=on_top * in_front,
        )

    def seen(self, fraction: float = 0.4) -> NDArray[np.bool_]:
        """`(N, T)` whether at least this fraction of an object can be seen."""
        return self.visible >= fraction


def _stamp(thing: DemoObject) -> NDArray[np.bool_]:
    """The shape on a raster of odd size whose middle cell holds its centre."""
    radius = int(np.ceil(reach(thing.shape, thing.side) * CELLS))
    offsets = np.arange(-radius, radius + 1) / CELLS
    return inside(thing.shape, thing.side, thing.angle, offsets[None, :], offsets[:, None])


def _areas(stamps: list[NDArray[np.bool_]], centers: NDArray[np.int_], height: int, width: int) -> FloatArray:
    """Cells `(2, N, N)` that an object shares with another, and with what is seen of that other."""
    layers = np.zeros((len(stamps), height, width), dtype=bool)
    for layer, stamp, (x, y) in zip(layers, stamps, centers, strict=True):
        radius = len(stamp) // 2
        top, left = y - radius, x - radius
        bottom, right = top + len(stamp), left + len(stamp)
        if bottom > 0 and right > 0 and top < height and left < width:
            part = stamp[max(0, -top) : height - top, max(0, -left) : width - left]
            layer[max(0, top) : bottom, max(0, left) : right] = part
    seen = layers.copy()
    for index in range(1, len(layers)):
        seen[:index] &= ~layers[index]
    flat = layers.reshape(len(stamps), -1).astype(np.float64)
    return np.stack([flat @ flat.T, flat @ seen.reshape(len(stamps), -1).T])
