"""One image file as models and metrics see it: RGB with eight bits, turned as it is displayed.

- EXIF orientation is applied, as in FiftyOne's metadata, in browsers, and by `cv2.imread`.
- Opacity is ignored: the colours are those that the file stores, also where nothing of them shows; FiftyOne's own
  reader and the tools of the datasets do the same.
- Of 16 bits the upper eight count (value // 256), whatever the range that the image makes use of.
- 32 bits per pixel and signed integers tell no brightness, whatever their values are, and are refused.
- Grey images, palettes and CMYK become RGB; of an animation the first picture counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, SAMPLEFORMAT, TiffImageFile

from fiftyone_refvos.decoding import VideoError

Pixels = NDArray[np.uint8]

_DEEP = ("I", "F")  # what modes of more than 8 bits begin with
_SIXTEEN = ("PNG", "PPM")  # formats without 32-bit integers, of which Pillow may make mode "I" all the same
_SIGNED = 2  # in the tag SampleFormat of TIFF


@dataclass(frozen=True, eq=False)
class ImageFrame:
    """An image as a video of one frame; it is decoded already.

    Attributes:
        path: of the file
        pixels: `(H, W, 3) uint8` RGB
    """

    path: Path
    pixels: Pixels

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) as displayed."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def __len__(self) -> int:
        """One."""
        return 1

    def read(self, indices: Iterable[int]) -> Iterator[Pixels]:
        """Yields the image for every index, which can only be 0.

        Raises:
            IndexError: for another index
        """
        for index in indices:
            if index != 0:
                raise IndexError(f"{self.name} is an image, and has no frame {index}")
            yield self.pixels


def open_image(path: Path | str) -> ImageFrame:
    """Opens an image file as a video of one frame.

    Raises:
        VideoError: as `read_image`
    """
    return ImageFrame(Path(path), read_image(Path(path)))


def read_image(path: Path) -> Pixels:
    """Reads an image file as RGB `(H, W, 3) uint8`, see above.

    Raises:
        VideoError: if it is missing, damaged, no image, too large to be one, or has 32 bits per pixel or signed
            integers
    """
    if not path.exists():
        raise VideoError(path, "there is no such image", "check the list of frame names against the folder")
    try:
        with Image.open(path) as image:
            problem = _no_brightness(image)
            upright = ImageOps.exif_transpose(image)
            deep = upright.mode.startswith(_DEEP)
            pixels = np.array(upright if deep else upright.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # for broken files
        raise VideoError(path, f"is no readable image ({error})", "copy or download it again") from error
    if problem:
        raise VideoError(path, f"has {problem}, which tell no brightness", "convert it to 8 or 16 bits, unsigned")
    return _from_deep(pixels) if deep else pixels


def _no_brightness(image: Image.Image) -> str | None:
    """What a file holds instead of grey values or colours, by its format: the values of a dark image tell nothing."""
    if isinstance(image, TiffImageFile) and _SIGNED in image.tag_v2.get(SAMPLEFORMAT, ()):
        bits = max(image.tag_v2.get(BITSPERSAMPLE, (1,)))
        return f"signed integers of {bits} bits" if bits < 32 else "32 bits per pixel"
    if image.mode == "F" or (image.mode == "I" and image.format not in _SIXTEEN):
        return "32 bits per pixel"
    return None


def _from_deep(values: NDArray[Any]) -> Pixels:
    """Grey values of 16 bits as RGB; Pillow's own conversion makes white of all above 255."""
    return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
