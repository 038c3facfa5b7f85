"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO: one folder, with references beside COCO's instances.

A reference (`ref_id`) means one object, in gRefCOCO any number of them, and says it in several sentences. The images
of a split are those with references of that split; an image can be in several splits. Where a folder has the
references of several authors (`splitBy`), the first of unc, umd, google is read, and the others are not mixed in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from fiftyone_refvos.datasets.files import DatasetError, as_ids, as_number, inside, member, read_json
from fiftyone_refvos.datasets.instances import Instances, InstancesImage
from fiftyone_refvos.datasets.layout import Layout, record_or_problem
from fiftyone_refvos.datasets.masks import image_size
from fiftyone_refvos.datasets.pickles import read_pickle
from fiftyone_refvos.datasets.records import Annotations, ExpressionRecord, FileMedia, MediaRecord

SPLIT_BY = ("unc", "umd", "google")  # in this order
SPLITS = ("train", "val", "testA", "testB", "test")
IMAGES = ("images/mscoco/images/train2014", "images/train2014")  # where REFER and where gRefCOCO's tool look
NO_TARGET = "-1"


@dataclass(frozen=True)
class _Ref:
    """One reference: `ids` of what it means, and pairs of the id and the text of a sentence."""

    id: int
    split: str
    image_id: str
    ids: tuple[str, ...]
    sentences: tuple[tuple[int, str], ...]


class _Refer(Layout):
    """`<name>/{refs(<splitBy>).p,instances.json}` and the images of COCO train2014 in `images`."""

    media_type = "image"
    refs_name: ClassVar[str] = "refs({}).p"

    def splits(self) -> tuple[str, ...]:
        if self._refs_path is None:
            return ()
        try:
            there = {ref.split for ref in self._refs}
        except DatasetError:
            return SPLITS  # it is such a folder; what is wrong with it is told when it is read
        return (*(split for split in SPLITS if split in there), *sorted(there - set(SPLITS)))

    def records(self, split: str) -> Sequence[MediaRecord]:
        by_image: dict[str, list[_Ref]] = defaultdict(list)
        for ref in self._refs:
            if ref.split == split:
                by_image[ref.image_id].append(ref)
        return [
            record_or_problem(image_id, split, partial(self._record, split, image_id, refs))
            for image_id, refs in by_image.items()
        ]

    @cached_property
    def _folder(self) -> Path:
        """That of this dataset, which may itself be given as the root."""
        inner = self.root / self.name
        return self.root if self.root.name == self.name and not inner.is_dir() else inner

    @cached_property
    def _refs_path(self) -> Path | None:
        paths = (self._folder / self.refs_name.format(name) for name in SPLIT_BY)
        return next((path for path in paths if path.is_file()), None)

    @cached_property
    def _refs(self) -> list[_Ref]:
        if (path := self._refs_path) is None:
            raise DatasetError(f"{self._folder} has no {self.refs_name.format(SPLIT_BY[0])}: put it there")
        content = read_pickle(path, list) if path.suffix == ".p" else read_json(path, list)
        return [_ref(value, f"{path}, reference {n}") for n, value in enumerate(content)]

    @cached_property
    def _instances(self) -> Instances:
        return Instances(self._folder / "instances.json", {ref.image_id for ref in self._refs})

    @cached_property
    def _images(self) -> tuple[Path, ...]:
        folders = [self._folder.parent / name for name in IMAGES]
        return tuple(folder for folder in folders if folder.is_dir()) or (folders[0],)

    def _record(self, split: str, image_id: str, refs: Sequence[_Ref]) -> MediaRecord:
        image = self._instances.images.get(image_id)
        if image is None:
            raise DatasetError(
                f"{self._instances.path} does not list the image {image_id}, which reference {refs[0].id} of "
                f"{self._refs_path} is about: the two files belong to different releases"
            )
        paths = [inside(folder, image.file_name) for folder in self._images]
        path = next((path for path in paths if path.is_file()), paths[0])
        return MediaRecord(
            name=image.file_name.rsplit(".", 1)[0],
            split=split,
            media=FileMedia(path),
            expressions=tuple(_expressions(refs)),
            read_annotations=partial(_read, self._instances, image, path, tuple(refs)),
            attributes={"image_id": as_number(image.id, f"{self._instances.path}: the id of an image")},
        )


class RefCOCO(_Refer):
    """References by players, with places allowed."""

    name = "refcoco"
    title = "RefCOCO"


class RefCOCOPlus(_Refer):
    """References by players, without words of place."""

    name = "refcoco+"
    title = "RefCOCO+"


class RefCOCOg(_Refer):
    """Longer references, by `umd` or by `google`."""

    name = "refcocog"
    title = "RefCOCOg"


class GRefCOCO(_Refer):
    """References to one object, several, or none: `grefcoco/{grefs(unc),instances}.json`."""

    name = "grefcoco"
    title = "gRefCOCO"
    refs_name = "grefs({}).json"


def _ref(value: Any, where: str) -> _Ref:
    ids = as_ids(member(value, "ann_id", (int, str, list), where), where)
    (image_id,) = as_ids(member(value, "image_id", (int, str), where), where)
    sentences = []
    for n, sentence in enumerate(member(value, "sentences", list, where)):
        here = f"{where}, sentence {n}"
        text = member(sentence, "sent", str, here)
        sentences.append((as_number(member(sentence, "sent_id", (int, str), here), f"{here}: 'sent_id'"), text))
    return _Ref(
        id=as_number(member(value, "ref_id", (int, str), where), f"{where}: 'ref_id'"),
        split=member(value, "split", str, where),
        image_id=image_id,
        ids=tuple(id_ for id_ in dict.fromkeys(ids) if id_ != NO_TARGET),
        sentences=tuple(sentences),
    )


def _expressions(refs: Iterable[_Ref]) -> Iterable[ExpressionRecord]:
    """One per sentence; its id is that of the sentence, with a number behind it where an image has it again."""
    times: dict[int, int] = defaultdict(int)
    for ref in refs:
        for sent_id, text in ref.sentences:
            times[sent_id] += 1
            id_ = f"{sent_id}" if times[sent_id] == 1 else f"{sent_id}_{times[sent_id]}"
            yield ExpressionRecord(id_, text, ref.ids, attributes={"ref_id": ref.id, "sent_id": sent_id})


def _read(instances: Instances, image: InstancesImage, path: Path, refs: Sequence[_Ref]) -> Annotations:
    size = image_size(path)
    if size != image.size:
        raise DatasetError(
            f"{path} is {size[0]}x{size[1]}, but {instances.path} says {image.size[0]}x{image.size[1]} (height x "
            "width): the masks do not fit; take the images of COCO train2014 as they were published"
        )
    objects = instances.objects(image)
    known = {thing.id for thing in objects}
    for ref in refs:
        if missing := [id_ for id_ in ref.ids if id_ not in known]:
            raise DatasetError(
                f"reference {ref.id} names the annotation {missing[0]}, which {instances.path} does not have for "
                f"image {image.id} ({path.name}): the two files belong to different releases"
            )
    return Annotations(size, objects)
