"""Small datasets in the layout of MeViS, for tests that break them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from fiftyone_refvos.demo import DemoConfig
from fiftyone_refvos.demo.video import generate
from fiftyone_refvos.demo.world import video_seed

SIZE = (33, 47)  # odd, so that the mp4 is padded


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A smooth picture that JPEG and H.264 keep recognisable."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(rows / (5 + n) + columns / 7 + seed * (n + 1)) for n in range(3)]
    return Image.fromarray(np.uint8(127 + 100 * np.stack(waves, axis=-1)))


def box_mask(top: int, left: int, height: int, width: int, size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    """A filled rectangle, `(H, W) bool`."""
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask as the JSON files of datasets have it."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def write_images(folder: Path, names: Sequence[str], size: tuple[int, int] = SIZE) -> None:
    """One JPEG per name, without suffix."""
    folder.mkdir(parents=True)
    for seed, name in enumerate(names):
        picture(seed, size).save(folder / f"{name}.jpg", quality=95)


def write_mevis(
    root: Path,
    videos: Mapping[str, Mapping[str, Any]],
    masks: Mapping[str, Sequence[Any]] | None,
    split: str = "train",
    size: tuple[int, int] = SIZE,
) -> Path:
    """Writes one split; `videos` as in the meta file, images for the frames that it lists."""
    folder = root / split
    for name, video in videos.items():
        write_images(folder / "JPEGImages" / name, video["frames"], size)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta_expressions.json").write_text(json.dumps({"videos": videos}), encoding="utf-8")
    if masks is not None:
        (folder / "mask_dict.json").write_text(json.dumps(masks), encoding="utf-8")
    return root


def simple_mevis(root: Path, names: Sequence[str] = ("one", "two")) -> Path:
    """Videos of 4 frames with two objects each and three expressions: one, the other, both."""
    videos: dict[str, Any] = {}
    masks: dict[str, list[Any]] = {}
    for n, name in enumerate(names):
        a, b = 2 * n, 2 * n + 1
        videos[name] = {
            "expressions": {
                "0": {"exp": "the left one", "obj_id": [0], "anno_id": [a]},
                "1": {"exp": "the right one", "obj_id": [1], "anno_id": [b]},
                "2": {"exp": "both", "obj_id": [0, 1], "anno_id": [a, b]},
            },
            "vid_id": n,
            "frames": [f"{t:05d}" for t in range(4)],
        }
        masks[str(a)] = [rle(box_mask(5 + t, 3, 8, 9)) for t in range(4)]
        masks[str(b)] = [None if t == 0 else rle(box_mask(10, 30 + t, 23, 14)) for t in range(4)]
    return write_mevis(root, videos, masks)


def demo_mevis(root: Path, config: DemoConfig, num_videos: int, split: str = "train") -> Path:
    """Videos of the demo world as JPEGs, with their expressions and masks; of any size, also an odd one."""
    videos: dict[str, Any] = {}
    masks: dict[str, list[Any]] = {}
    for n in range(num_videos):
        video = generate(video_seed("test", n), config)
        name = f"demo_{n}"
        frames = [f"{t:05d}" for t in range(len(video))]
        (root / split / "JPEGImages" / name).mkdir(parents=True)
        for frame, pixels in zip(frames, video.frames(), strict=True):
            Image.fromarray(pixels).save(root / split / "JPEGImages" / name / f"{frame}.jpg", quality=95)
        anno_ids = {thing.id: len(masks) + index for index, thing in enumerate(video.objects)}
        seen = np.stack([video.masks(t) for t in range(len(video))])  # (T, N, H, W)
        for index, thing in enumerate(video.objects):
            masks[str(anno_ids[thing.id])] = [rle(mask) if mask.any() else None for mask in seen[:, index]]
        expressions = {
            expression.id: {
                "exp": expression.text,
                "obj_id": [int(object_id) for object_id in expression.object_ids],
                "anno_id": [anno_ids[object_id] for object_id in expression.object_ids],
            }
            for expression in video.expressions
        }
        videos[name] = {"expressions": expressions, "vid_id": n, "frames": frames}
    (root / split / "meta_expressions.json").write_text(json.dumps({"videos": videos}), encoding="utf-8")
    (root / split / "mask_dict.json").write_text(json.dumps(masks), encoding="utf-8")
    return root
