"""An open video sample in the App: its frames, its label fields, and what these add to the picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DRAWING = 500  # milliseconds; nothing tells when the App has drawn
_TRIES = 3


@dataclass(frozen=True)
class Modal:
    """The first sample of the grid, opened.

    Attributes:
        page: the tab
        fields: the label fields of the dataset that the sidebar lists
        frame: index from 0 of the frame to look at; one where all has moved
        frame_rate: of the video
    """

    page: Any
    fields: Sequence[str]
    frame: int
    frame_rate: int

    def open(self) -> None:
        """Opens the first sample of the grid."""
        self.page.locator('[data-cy="looker"]').first.click()
        self._box(self.fields[-1]).wait_for()
        self.page.locator('[data-cy="modal"] [canvas-loaded="true"]').wait_for()

    def close(self) -> None:
        """Goes back to the grid."""
        self.page.mouse.click(10, 450)  # beside it
        self.page.locator('[data-cy="modal"]').wait_for(state="hidden")

    def show_only(self, *names: str) -> None:
        """Ticks these label fields in the sidebar, and no others."""
        for name in self.fields:
            self._box(name).locator("input").set_checked(name in names)
        self.page.wait_for_timeout(DRAWING)
        self._show_frame()  # FiftyOne goes back to the first frame when the fields of frames change

    def picture(self, size: tuple[int, int]) -> NDArray[np.int64]:
        """The video as it is shown, `(H, W, 3)` at the given (H, W)."""
        box = self.page.locator('[data-cy="modal"] canvas').first.bounding_box()
        scale = min(box["width"] / size[1], box["height"] / size[0])  # the video is fitted into the middle
        width, height = size[1] * scale, size[0] * scale
        clip = {
            "x": box["x"] + (box["width"] - width) / 2,
            "y": box["y"] + (box["height"] - height) / 2,
            "width": width,
            "height": height,
        }
        shown = Image.open(io.BytesIO(self.page.screenshot(clip=clip))).convert("RGB")
        return np.asarray(shown.resize((size[1], size[0]), Image.Resampling.NEAREST), dtype=int)

    def drawn(self, field: str, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The pixels that a label field changes, which have to be those of its masks, both `(H, W)`.

        The mp4 may be larger by a padded row and column. A busy machine may need longer to draw.
        """
        assert 0 < mask.mean() < 1, "the masks cannot be told from the picture"
        height, width = mask.shape
        for _ in range(_TRIES):
            changed = self._added_by(field, (height + height % 2, width + width % 2))[:height, :width]
            inside, outside = changed[mask].mean(), changed[~mask].mean()
            if inside > 0.95 and outside < 0.25:  # boxes and texts are drawn, too
                return changed
        raise AssertionError(f"{field} covers {inside:.0%} of its masks, and {outside:.0%} of the rest")

    def _added_by(self, field: str, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The pixels that a label field changes, `(H, W)`."""
        self.show_only()
        without = self.picture(size)
        self.show_only(field)
        return (np.abs(self.picture(size) - without) > 8).any(axis=2)

    def _box(self, field: str) -> Any:
        return self.page.locator(f'[data-cy="modal"] [data-cy="checkbox-{field}"]')

    def _show_frame(self) -> None:
        """Steps forward to the frame."""
        time = f"0:00.{100 * self.frame // self.frame_rate:02d} /"
        controls = self.page.get_by_test_id("timeline-controls-root")
        for _ in range(_TRIES * (self.frame + 1)):  # the App may go back to the first one meanwhile
            before = controls.inner_text()
            if before.startswith(time):
                break
            self.page.get_by_label("Step forward").click()
            controls.filter(has_not_text=before).wait_for()
        assert controls.inner_text().startswith(time)
        self.page.wait_for_timeout(DRAWING)


class ImageModal(Modal):
    """An open image."""

    def __init__(self, page: Any, fields: Sequence[str]) -> None:
        super().__init__(page, fields, frame=0, frame_rate=1)

    def _show_frame(self) -> None:
        """An image has one alone."""


def best_shift(changed: NDArray[np.bool_], mask: NDArray[np.bool_]) -> tuple[int, int]:
    """By how many pixels, down and to the right, masks have to be moved to fit best to what is drawn."""
    shifts = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]

    def overlap(shift: tuple[int, int]) -> float:
        moved = np.roll(mask, shift, axis=(0, 1))
        return (changed & moved).sum() / (changed | moved).sum()

    return max(shifts, key=overlap)
