"""Sa2VA on a single image, or none: segmentation, grounded captions, regions and chat."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fiftyone_refvos.models.sa2va.asking import Answer, Asker
from fiftyone_refvos.models.sa2va.families import IMAGE
from fiftyone_refvos.models.sa2va.tracking import FrameFeatures, encode_frame
from fiftyone_refvos.models.sam2_tracking import TrackedMasks, masks_through_image
from fiftyone_refvos.video import Frame

_PHRASE = re.compile(r"<p>(.*?)</p>")
_TAGS = re.compile(r"</?p>|\[SEG\]|<\|im_end\|>|<\|end\|>")


@dataclass(frozen=True)
class ImageAnswer:
    """What is said of an image, and where it is.

    Attributes:
        answer: of the language model
        masks: `(S, H, W) bool`, one per [SEG]
        scores: `(S,)` predicted IoU of each
    """

    answer: Answer
    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]

    @property
    def caption(self) -> str:
        """The answer as plain text."""
        return " ".join(_TAGS.sub(" ", self.answer.text).split())

    @property
    def phrases(self) -> list[str]:
        """The phrases of a grounded caption; the i-th belongs to the i-th mask."""
        return [phrase.strip() for phrase in _PHRASE.findall(self.answer.text)]


@torch.inference_mode()
def ask_about_image(
    asker: Asker, image: Frame, question: str, *, regions: NDArray[np.bool_] | None = None
) -> ImageAnswer:
    """Asks one question about an RGB image.

    Args:
        asker: with its family
        image: `(H, W, 3) uint8`
        question: in which `<image>` says where the image comes; without it the image comes first
        regions: `(n, H, W)` masks that the question may call region1, region2, …

    Raises:
        ValueError: for regions in a family that knows none, and masks of another size
    """
    family = asker.family
    visual = family.see_image(image)
    if regions is not None:
        if regions.ndim != 3 or regions.shape[1:] != image.shape[:2]:
            raise ValueError(f"regions are {regions.shape}, the image is {image.shape[:2]}; pass masks of its size")
        visual = family.mark(visual, torch.from_numpy(regions))
    asked = question if IMAGE in question else f"{IMAGE}{question}"
    (answer,) = asker.ask([asked], visual)
    if len(answer.prompt_embeddings) == 0:
        empty = np.zeros((0, *image.shape[:2]), dtype=bool)
        return ImageAnswer(answer, empty, np.zeros(0, dtype=np.float32))
    _, masks = decode_image(asker, image, answer.prompt_embeddings)
    found = masks_through_image(masks.low_res, family.network.sam.image_size, image.shape[:2])
    return ImageAnswer(answer, found.cpu().numpy(), masks.ious.amax(dim=1).float().cpu().numpy())


@torch.inference_mode()
def ask_without_image(asker: Asker, question: str) -> Answer:
    """Asks one question about nothing that can be seen."""
    (answer,) = asker.ask([question], None)
    return answer


def decode_image(asker: Asker, image: Frame, prompts: Tensor) -> tuple[FrameFeatures, TrackedMasks]:
    """Decodes the objects of text embeddings `(S, d)` in an image."""
    sam = asker.family.network.sam
    features = encode_frame(sam, image)
    return features, sam.decode_alone(sam.language_decoder, features.language, prompts)
