"""The demo world: seeded short videos of moving shapes, with exact masks and expressions that are true.

`generate` makes a video out of a seed and needs numpy only; `load` makes a FiftyOne dataset of several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiftyone_refvos.demo.expressions import KINDS, DemoExpression
from fiftyone_refvos.demo.video import DemoVideo, generate
from fiftyone_refvos.demo.world import SPLITS, DemoConfig, DemoObject, Split, World, video_seed

if TYPE_CHECKING:
    from fiftyone_refvos.demo.dataset import load as load

__all__ = [
    "KINDS",
    "SPLITS",
    "DemoConfig",
    "DemoExpression",
    "DemoObject",
    "DemoVideo",
    "Split",
    "World",
    "generate",
    "video_seed",
]


def __getattr__(name: str) -> Any:
    # `import fiftyone` takes ten seconds, which training on generated videos should not have to wait for.
    if name == "load":
        from fiftyone_refvos.demo.dataset import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
