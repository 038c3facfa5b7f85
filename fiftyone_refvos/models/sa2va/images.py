"""Sa2VA on a single image: an answer, and a mask for each [SEG] in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fiftyone_refvos.models.sa2va.asking import Answer, Asker
from fiftyone_refvos.models.sa2va.families import IMAGE, Turn
from fiftyone_refvos.models.sa2va.tracking import FrameFeatures, encode_frame
from fiftyone_refvos.models.sam2_tracking import TrackedMasks, masks_through_image
from fiftyone_refvos.video import Frame


@dataclass(frozen=True)
class ImageAnswer:
    """What is said of an image, and where that is.

    Attributes:
        answer: of the language model
        masks: `(S, H, W) bool`, one per [SEG]
        scores: `(S,)` predicted IoU of each
    """

    answer: Answer
    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]


@torch.inference_mode()
def ask_about_image(
    asker: Asker,
    image: Frame,
    question: str,
    *,
    regions: NDArray[np.bool_] | None = None,
    history: Sequence[Turn] = (),
) -> ImageAnswer:
    """Asks one question about an RGB image.

    Args:
        asker: with its family
        image: `(H, W, 3) uint8`
        question: in which `<image>` says where the image comes; without it the image comes first. In a chat this
            holds for its first question, and later ones are about the same image
        regions: `(n, H, W)` masks that the question may call region1, region2, …
        history: earlier questions about this image, and their answers

    Raises:
        ValueError: for regions in a family that knows none, masks of another size, and `<image>` in a later question
    """
    family = asker.family
    visual = family.see_image(image)
    if regions is not None:
        if regions.ndim != 3 or regions.shape[1:] != image.shape[:2]:
            raise ValueError(f"regions are {regions.shape}, the image is {image.shape[:2]}; pass masks of its size")
        visual = family.mark(visual, torch.from_numpy(regions))
    asked, past = image_first(question, history)
    (answer,) = asker.ask([asked], visual, past)
    if len(answer.prompt_embeddings) == 0:
        empty = np.zeros((0, *image.shape[:2]), dtype=bool)
        return ImageAnswer(answer, empty, np.zeros(0, dtype=np.float32))
    _, masks = decode_image(asker, image, answer.prompt_embeddings)
    found = masks_through_image(masks.low_res, family.network.sam.image_size, image.shape[:2])
    return ImageAnswer(answer, found.cpu().numpy(), masks.ious.amax(dim=1).float().cpu().numpy())


def image_first(question: str, history: Sequence[Turn]) -> tuple[str, list[Turn]]:
    """A question and what came before it, with `<image>` before the first of all questions unless it says where."""
    past = list(history)
    if past and IMAGE not in past[0].question:
        past[0] = Turn(f"{IMAGE}{past[0].question}", past[0].answer)
    return question if past or IMAGE in question else f"{IMAGE}{question}", past


def decode_image(asker: Asker, image: Frame, prompts: Tensor) -> tuple[FrameFeatures, TrackedMasks]:
    """Decodes the objects of text embeddings `(S, d)` in an image."""
    sam = asker.family.network.sam
    features = encode_frame(sam, image)
    return features, sam.decode_alone(sam.language_decoder, features.language, prompts)
