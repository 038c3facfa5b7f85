"""Datasets in the JSON format of YouTube-VIS, whose expressions are the names of the categories in a video."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from fiftyone_refvos.datasets.files import DatasetError, as_ids, frame_files, inside, member
from fiftyone_refvos.datasets.json_index import JsonIndex, Span
from fiftyone_refvos.datasets.layout import record_or_problem
from fiftyone_refvos.datasets.layouts.mask_dict import number_of, parse_masks
from fiftyone_refvos.datasets.masks import image_size
from fiftyone_refvos.datasets.records import Annotations, ExpressionRecord, FolderMedia, MediaRecord, ObjectRecord


@dataclass(frozen=True)
class _Instance:
    """One annotation: its number, its category, and where in the file it is."""

    id: str
    category: str
    span: Span


@dataclass(frozen=True)
class YouTubeVISSplit:
    """One split of such a dataset.

    Attributes:
        name: of the split
        content: the JSON file
        images: the folder to which the file names in it are relative
        frame_rate: of the images
    """

    name: str
    content: JsonIndex
    images: Path
    frame_rate: float

    def records(self) -> Sequence[MediaRecord]:
        """The videos, in the order of the file; the expressions of each in the order of the alphabet.

        Raises:
            DatasetError: if files are missing or hold something else
        """
        where = self.content.path
        content = {key: self.content[key] for key in ("categories", "videos") if key in self.content}
        categories = {
            _id(each, "id", where): member(each, "name", str, where)
            for each in member(content, "categories", list, where)
        }
        instances = self._instances(categories)
        videos = member(content, "videos", list, where)
        return [
            record_or_problem(id_, self.name, partial(self._record, video, instances.get(id_, [])))
            for id_, video in ((_id(video, "id", where), video) for video in videos)
        ]

    def _instances(self, categories: Mapping[str, str]) -> Mapping[str, Sequence[_Instance]]:
        """The annotations by video; each is parsed on its own, since all together do not fit into memory."""
        found: dict[str, list[_Instance]] = defaultdict(list)
        for n, (span, value) in enumerate(self.content.objects("annotations"), start=1):
            where = f"{self.content.path}, annotation number {n}"
            category = categories.get(_id(value, "category_id", where))
            if category is None:
                raise DatasetError(f"{where} has the category {value['category_id']!r}, which 'categories' has not")
            found[_id(value, "video_id", where)].append(_Instance(_id(value, "id", where), category, span))
        return found

    def _record(self, video: Any, instances: Sequence[_Instance]) -> MediaRecord:
        where = f"{self.content.path}, video {video.get('id')!r}"
        files = [name.replace("\\", "/") for name in as_ids(member(video, "file_names", list, where), where)]
        folders = {str(PurePosixPath(name).parent) for name in files}
        if len(folders) != 1:
            raise DatasetError(f"{where} has frames in {len(folders)} folders, not in one")
        (name,) = folders
        folder = inside(self.images, name)
        names = frame_files(folder, [PurePosixPath(file).name for file in files])
        members: dict[str, list[str]] = defaultdict(list)
        for n, instance in enumerate(instances):
            members[instance.category].append(str(n))
        return MediaRecord(
            name=name,
            split=self.name,
            media=FolderMedia(folder, names, self.frame_rate),
            expressions=tuple(
                ExpressionRecord(str(n), category, tuple(members[category]))
                for n, category in enumerate(sorted(members))
            ),
            read_annotations=partial(_read, self.content, instances, folder / names[0], len(names), where),
            attributes=number_of(video["id"], where),
        )


def _id(value: Any, key: str, where: object) -> str:
    return str(member(value, key, (int, str), where))


def _read(
    content: JsonIndex, instances: Sequence[_Instance], first_image: Path, num_frames: int, where: str
) -> Annotations:
    size = image_size(first_image)
    objects = []
    for n, instance in enumerate(instances):
        here = f"{where}, annotation {instance.id}"
        masks = member(content.object_at(instance.span), "segmentations", list, here)
        objects.append(ObjectRecord(str(n), parse_masks(masks, size, num_frames, here), instance.id))
    return Annotations(size, tuple(objects))
