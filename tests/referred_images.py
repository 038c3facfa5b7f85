"""Images with expressions, and MLLMSeg in miniature to look for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from fiftyone_refvos.fields import to_detection
from fiftyone_refvos.masklet import encode
from fiftyone_refvos.models.mllmseg.per_frame import PerFrameSegmenter
from fiftyone_refvos.zoo import RefVOSImageModel, RefVOSImageModelConfig
from tests.shared import shared_path
from tests.small_mllmseg import checkpoint_of, golden_segmenter, noise_image

CASE = "gres_internlm2"
TEXTS = ("all the red cars", "man near blue box", "green horse", "small plane on top")


def small_model(**settings: Any) -> RefVOSImageModel:
    """The model of a golden case as the zoo makes it, whose networks are loaded once."""
    options = {"name": "mllmseg-8b-gres", "checkpoint": str(checkpoint_of(CASE)), "device": "cpu", **settings}
    return RefVOSImageModel(RefVOSImageModelConfig(options), PerFrameSegmenter(golden_segmenter(CASE, **settings)))


def expressions(texts: Sequence[str], **attributes: Any) -> fo.Classifications:
    """Expressions of an image, which have no ids yet."""
    return fo.Classifications(classifications=[fo.Classification(label=text, **attributes) for text in texts])


def add_pictures(dataset: fo.Dataset, folder: Path, count: int, texts: Sequence[str] = TEXTS[:2]) -> fo.Dataset:
    """Adds images of noise, all with the same expressions."""
    for number in range(count):
        path = folder / f"{number}.png"
        Image.fromarray(noise_image(40 + number, 60)).save(path)
        dataset.add_sample(fo.Sample(filepath=str(path), expressions=expressions(texts)))
    return dataset


def published_case() -> dict[str, Any]:
    """What the published program was asked of a golden case, and the numbers that it printed."""
    content: dict[str, Any] = json.loads(
        shared_path("golden", "mllmseg", CASE, "inputs", "expressions.json").read_text()
    )
    return content


def turned_copy(path: Path, folder: Path) -> Path:
    """A JPEG whose pixels lie on their side, and whose EXIF orientation puts them upright."""
    copy = folder / f"{path.stem}.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise before it is shown
    with Image.open(path) as image:
        image.convert("RGB").transpose(Image.Transpose.ROTATE_90).save(copy, quality=95, exif=exif)
    return copy


def add_published_case(dataset: fo.Dataset, *, turned_into: Path | None = None) -> fo.Dataset:
    """Adds the images of a golden case with their expressions and true masks.

    Args:
        dataset: to add to
        turned_into: a folder for copies that are shown by their EXIF orientation, instead of the images themselves
    """
    folder = shared_path("golden", "mllmseg", CASE)
    stored = load_file(folder / "outputs.safetensors")
    for number, image in enumerate(published_case()["images"]):
        truth, labels = [], []
        for n, (text, mask) in enumerate(zip(image["expressions"], stored[f"img{number}.gt_masks"], strict=True)):
            rle = encode(np.asarray(mask, dtype=bool)[None])[0]
            found = to_detection(rle, mask.shape, label=text, expression_id=str(n), object_id="1")
            truth += [found] if found else []
            ids = ["1"] if found else []
            labels.append(
                fo.Classification(label=text, expression_id=str(n), kind="refexp", object_ids=ids, no_target=not ids)
            )
        path = folder / "inputs" / image["file"]
        sample = fo.Sample(filepath=str(path if turned_into is None else turned_copy(path, turned_into)))
        sample["ground_truth"] = fo.Detections(detections=truth)
        sample["expressions"] = fo.Classifications(classifications=labels)
        dataset.add_sample(sample, dynamic=True)
    return dataset
