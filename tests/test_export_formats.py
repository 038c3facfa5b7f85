"""What every format has: a type, a name of its own, pictures of all kinds of media, or labels alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fiftyone_refvos import types
from fiftyone_refvos.datasets.records import FileMedia
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.media import MediaMode
from fiftyone_refvos.exports.registry import FORMATS
from fiftyone_refvos.overlay import write_video
from tests.export_records import files_of, two_objects, write
from tests.mevis_folder import SIZE, picture

FOLDERS_OF_JPEGS = ("youtube-vis", "coco-frames", "davis", "object-png", "sa-v", "reason-seg")


def test_every_format_has_a_type_and_a_name_of_its_own():
    offered = {
        FORMATS[each.format]
        for each in vars(types).values()
        if isinstance(each, type) and issubclass(each, types.MaskletFormat) and each is not types.MaskletFormat
    }
    assert offered == set(FORMATS.values())
    assert len({each.title for each in offered}) == len(offered)
    assert all(each.description and each.description == each.description.strip() for each in offered)
    assert all(FORMATS[each.name] is each for each in offered)


@pytest.mark.parametrize("name", FOLDERS_OF_JPEGS)
def test_video_files_are_decoded(tmp_path, name):
    exported = two_objects(tmp_path, stems=("00000", "00001", "00002"))
    frames = [np.pad(np.array(picture(t)), ((0, 1), (0, 1), (0, 0)), mode="edge") for t in range(3)]
    write_video(tmp_path / "a.mp4", iter(frames), 24.0)
    size = (SIZE[0] + 1, SIZE[1] + 1)
    in_file = replace(exported, record=replace(exported.record, media=FileMedia(tmp_path / "a.mp4")))
    root = write(FORMATS[name], tmp_path / "out", in_file)
    images = sorted(root.rglob("*.jpg"))
    assert len(images) == (8 if name == "reason-seg" else 3)
    for path in images:
        with Image.open(path) as image:
            assert (image.height, image.width) == size


@pytest.mark.parametrize("format_cls", [FORMATS[name] for name in FOLDERS_OF_JPEGS])
def test_labels_can_be_written_alone(tmp_path, format_cls: type[Format]):
    everything = files_of(write(format_cls, tmp_path / "all", two_objects(tmp_path)))
    labels = files_of(write(format_cls, tmp_path / "labels", two_objects(tmp_path), media=MediaMode.NONE))
    assert labels == [path for path in everything if not path.endswith(".jpg")]
    assert len(labels) < len(everything)
