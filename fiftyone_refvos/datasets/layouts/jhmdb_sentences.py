"""JHMDB-Sentences: one actor and one sentence per video; for evaluation only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from fiftyone_refvos.datasets.files import DatasetError, as_number, inside, natural_key, read_json
from fiftyone_refvos.datasets.layout import Layout, record_or_problem
from fiftyone_refvos.datasets.masks import image_size, to_rle
from fiftyone_refvos.datasets.records import (
    Annotations,
    ExpressionRecord,
    FolderMedia,
    MediaRecord,
    ObjectRecord,
    Size,
)
from fiftyone_refvos.video import IMAGE_SUFFIXES

SAMPLES = "jhmdb_sentences_samples_metadata.json"
PREFIX = "jhmdb_sentences"  # what the paths in that file begin with: the folder of the dataset
SPLIT = "test"
OBJECT = "0"  # the one actor
MASKS = "part_mask"
MAX_FRAMES = 10_000  # a file that says more is damaged, and would fill the memory
FRAME_RATE = 30.0  # the dataset does not tell; only players use it


class JHMDBSentences(Layout):
    """`Rename_Images/<class>/<video>/<frame>.png` and `puppet_mask/<class>/<video>/puppet_mask.mat`.

    The annotated frames are those that the list of samples has.
    """

    name = "jhmdb-sentences"
    title = "JHMDB-Sentences"

    def splits(self) -> tuple[str, ...]:
        return (SPLIT,) if (self.root / SAMPLES).is_file() else ()

    def records(self, split: str) -> Sequence[MediaRecord]:
        path = self.root / SAMPLES
        by_video: dict[str, list[tuple[Path, Path, str]]] = defaultdict(list)
        for n, value in enumerate(read_json(path, list)):
            video, image, masks, text = self._sample(value, f"{path}, sample {n}")
            by_video[video].append((image, masks, text))
        return [
            record_or_problem(video, split, partial(_record, video, samples, path))
            for video, samples in by_video.items()
        ]

    def _sample(self, value: Any, where: str) -> tuple[str, Path, Path, str]:
        """Video, image, masks, sentence."""
        if not isinstance(value, list) or len(value) != 5 or not all(isinstance(value[n], str) for n in (0, 1, 2, 4)):
            raise DatasetError(f"{where} is not [video, image, masks, number of frames, sentence]")
        return value[0], self._path(value[1]), self._path(value[2]), value[4]

    def _path(self, text: str) -> Path:
        parts = PurePosixPath(text.replace("\\", "/")).parts
        return inside(self.root, *parts[1:]) if parts[:1] == (PREFIX,) and parts[1:] else inside(self.root, text)


def _record(video: str, samples: Sequence[tuple[Path, Path, str]], path: Path) -> MediaRecord:
    where = f"{path}, video {video!r}"
    folder, masks = samples[0][0].parent, samples[0][1]
    if {(image.parent, mask) for image, mask, _ in samples} != {(folder, masks)}:
        raise DatasetError(f"{where} has frames or masks in several places: videos have to have names of their own")
    if not folder.is_dir():
        raise DatasetError(f"the folder {folder} is missing: unpack the images of the dataset there")
    found = (file.name for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    names = tuple(sorted((name for name in found if not name.startswith(".")), key=natural_key))
    annotated: dict[int, int] = {}
    for image, _, _ in samples:
        if image.name not in names:
            raise DatasetError(f"the frame {image} of {where} is missing: unpack the images again")
        annotated[names.index(image.name)] = as_number(image.stem, f"{where}: the frame {image.name!r}")
    texts = dict.fromkeys(text for _, _, text in samples)
    return MediaRecord(
        name=video,
        split=SPLIT,
        media=FolderMedia(folder, names, FRAME_RATE),
        expressions=tuple(ExpressionRecord(str(n), text, (OBJECT,)) for n, text in enumerate(texts)),
        read_annotations=partial(_read, masks, folder / names[0], len(names), annotated),
        attributes={"action": folder.parent.name},
    )


def _read(path: Path, image: Path, num_frames: int, annotated: Mapping[int, int]) -> Annotations:
    """Reads the masks of the `annotated` frames, index in the video -> number of the frame, from 1."""
    size = image_size(image)
    masks = _part_mask(path, size)
    found: list[Any] = [None] * num_frames
    for t, number in annotated.items():
        if not 1 <= number <= masks.shape[2]:
            raise DatasetError(
                f"{path} has masks for {masks.shape[2]} frames, and none for frame {number}, which {SAMPLES} lists"
            )
        found[t] = to_rle(masks[:, :, number - 1] != 0)
    return Annotations(size, (ObjectRecord(OBJECT, tuple(found)),), annotated=frozenset(annotated))


def _part_mask(path: Path, size: Size) -> NDArray[Any]:
    """`(H, W, T)`; T need not be the number of images."""
    if not path.is_file():
        raise DatasetError(f"{path} is missing: unpack the masks of the dataset there")
    try:
        shapes = {name: shape for name, shape, _ in scipy.io.whosmat(path)}
        if MASKS not in shapes:
            raise DatasetError(f"{path} has no variable {MASKS!r}, only {', '.join(sorted(shapes)) or 'none'}")
        shape = shapes[MASKS]  # Matlab drops a last axis of length 1
        if tuple(shape[:2]) != size or len(shape) not in (2, 3) or (*shape, 1)[2] > MAX_FRAMES:
            raise DatasetError(
                f"{path}: {MASKS!r} is {'x'.join(map(str, shape))}, but the images are {size[0]}x{size[1]} (height x "
                "width): unpack images and masks of the same release"
            )
        masks = np.asarray(scipy.io.loadmat(path, variable_names=[MASKS])[MASKS]).reshape(*size, -1)
    except DatasetError:
        raise
    except Exception as error:  # a damaged file makes scipy fail in any way
        raise DatasetError(f"{path} cannot be read ({type(error).__name__}: {error}): unpack it again") from error
    if masks.dtype.kind not in "buif":
        raise DatasetError(f"{path}: {MASKS!r} holds {masks.dtype}, not numbers")
    return masks
