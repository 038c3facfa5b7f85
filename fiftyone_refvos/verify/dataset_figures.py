"""The figures of `expected_counts.json`, each by its name, computed of what was imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fiftyone_refvos.verify.report import CaseReport, Stage

if TYPE_CHECKING:
    from fiftyone_refvos.verify.datasets import Parsed

Videos = Sequence["Parsed"]

# What no import can tell, or only the file itself.
_FILE_FACTS = {
    "note": "a remark",
    "annotation_png_mode": "of the files, which samples do not keep",
    "videos_in_json": "of the file; the split has the videos to evaluate",
    "splitBy": "part of a file name",
}


def compare(report: CaseReport, expected: Mapping[str, Any], parsed: Mapping[str, Videos]) -> None:
    """Compares all figures, one stage for each kind.

    Args:
        report: gets a stage per figure
        expected: the contents of `expected_counts.json`
        parsed: what was imported, by name of the layout
    """
    figures = _Figures(report)
    for name, videos in parsed.items():
        content = expected.get(name, expected) if name in _FOLDERS else expected
        if name in _FOLDERS and len({image.name for image in videos}) < expected.get("n_images", 0):
            content = _of_imported(content, videos)
        figures.compare_dataset(content, videos)
    if parsed and set(parsed) <= _FOLDERS:
        images = [image for videos in parsed.values() for image in videos]
        found = {
            "n_images": len({image.name for image in images}),
            "n_annotations": len({anno_id for image in images for anno_id in image.anno_ids}),
        }
        for name in found.keys() & expected.keys():
            # Images without references are not imported, nor are their annotations.
            figures.add(name, min(found[name], expected[name]), found[name])
    figures.finish()


def _of_imported(content: Mapping[str, Any], images: Videos) -> dict[str, Any]:
    """The figures of a dataset without the annotations of images that have no references: they are not imported."""
    ids = {anno_id for image in images for anno_id in image.anno_ids}
    return {
        name: {id_: area for id_, area in value.items() if id_ in ids} if name == "polygon_mask_area" else value
        for name, value in content.items()
    }


# The datasets that share one folder, and one file of figures.
_FOLDERS = {"refcoco", "refcoco+", "refcocog", "grefcoco"}


class _Figures:
    """Gathers the comparisons of each figure into one line of the report."""

    def __init__(self, report: CaseReport) -> None:
        self._report = report
        self._pairs: dict[str, list[tuple[str, Any, Any]]] = {}

    def add(self, name: str, ours: Any, expected: Any, where: str = "") -> None:
        if name in _FORMS:
            ours, expected = _FORMS[name](ours), _FORMS[name](expected)
        self._pairs.setdefault(name, []).append((where, ours, expected))

    def finish(self) -> None:
        for name, pairs in self._pairs.items():
            wrong = [(where, ours, expected) for where, ours, expected in pairs if ours != expected]
            note = f"{len(pairs)} equal"
            if wrong:
                where, ours, expected = wrong[0]
                note = f"{where}: {str(ours)[:100]}, expected {str(expected)[:100]}"
            self._report.stages.append(Stage(name, len(wrong), 0, note))

    def compare_dataset(self, expected: Mapping[str, Any], videos: Videos) -> None:
        if "splits" in expected:
            for split, content in expected["splits"].items():
                self._compare_group(content, [video for video in videos if video.split == split], split)
            rest = {name: value for name, value in expected.items() if name != "splits"}
            self._compare_group(rest, videos, "")
        elif "eval" in expected or "train" in expected:
            for split in ("train", "eval"):
                found = [video for video in videos if video.split == split]
                self._compare_group({"videos": expected.get(split, {})}, found, split)
            rest = {name: value for name, value in expected.items() if name not in ("train", "eval")}
            self._compare_group(rest, videos, "")
        else:
            self._compare_group(expected, videos, "")

    def _compare_group(self, expected: Mapping[str, Any], videos: Videos, where: str) -> None:
        by_name = {video.name: video for video in videos}
        for name, value in expected.items():
            if name == "videos":
                # Videos that only a list of another split has are told by a name alone.
                self.add("videos", sorted(by_name), sorted(value), where)
                for video, content in value.items():
                    if video in by_name:
                        self._compare_video(content, by_name[video], f"{where} {video}".strip())
            elif name == "masklets":
                self._compare_masklets(value, videos, where)
            elif name == "categories":
                # The dataset may have categories of which no video has an object.
                unknown = {label["category"] for label in _labels(videos)} - set(value)
                self.add(f"{name}, unknown", sorted(unknown), [], where)
            elif name in _FILE_FACTS:
                self._report.not_compared[name] = _FILE_FACTS[name]
            elif name == "n_masklets":
                unnamed = _unnamed(expected.get("masklets", {}), videos)
                self.add(name, sum(len(_object_ids(video)) for video in videos) + len(unnamed), value, where)
            elif name in _OF_GROUPS:
                self.add(name, _OF_GROUPS[name](videos), value, where)
            elif name not in ("n_images", "n_annotations", *_FOLDERS):
                self._report.not_compared[name] = "not known"

    def _compare_masklets(self, expected: Mapping[str, Any], videos: Videos, where: str) -> None:
        masklets = {anno_id: video.objects[id_] for video in videos for anno_id, id_ in video.anno_ids.items()}
        lengths = {anno_id: len(video.frames) for video in videos for anno_id in video.anno_ids}
        unnamed = _unnamed(expected, videos)
        if unnamed:
            self._report.not_compared[f"masklets {', '.join(sorted(unnamed))}"] = "no expression names them"
        for anno_id, content in expected.items():
            if anno_id in unnamed:
                continue
            ours = masklets.get(anno_id, [0] * len(content["areas"]))
            self.add("masklets, areas", ours, content["areas"], f"{where} masklet {anno_id}")
            if anno_id in lengths:
                self.add("masklets, n_frames", lengths[anno_id], content["n_frames"], f"{where} masklet {anno_id}")
            empty = sum(area == 0 for area in ours)
            self.add("masklets, n_null at most the empty ones", content["n_null"] <= empty, True, anno_id)

    def _compare_video(self, expected: Mapping[str, Any], video: Parsed, where: str) -> None:
        for name, value in expected.items():
            if name == "expressions":
                self.add("expression ids", sorted(video.expressions), sorted(value), where)
                for id_, content in value.items():
                    if id_ in video.expressions:
                        self._compare_expression(content, video, id_, f"{where}, expression {id_}")
            elif name == "n_masklets":
                # One without a pixel that no expression names leaves nothing in a sample.
                unseen = {id_ for id_, areas in expected.get("areas", {}).items() if not any(areas)}
                self.add(name, len(_object_ids(video) | unseen), value, where)
            elif name in _FILE_FACTS:
                self._report.not_compared[name] = _FILE_FACTS[name]
            elif name in _OF_VIDEOS:
                self.add(name, _OF_VIDEOS[name](video), value, where)
            else:
                self._report.not_compared[name] = "not known"

    def _compare_expression(self, expected: Mapping[str, Any], video: Parsed, id_: str, where: str) -> None:
        label = video.expressions[id_]
        for name, value in expected.items():
            if name in ("union_area_per_frame", "area_per_frame", "areas"):
                # A frame that nobody annotated has no area; some figures say 0 there, some null.
                ours = video.areas.get(id_, [None] * len(video.frames))
                filled = [b if a is None and not b else a for a, b in zip(ours, value, strict=False)]
                self.add(name, filled, list(value), where)
                self.add(f"{name}, frames", len(ours), len(value), where)
            elif name in _OF_EXPRESSIONS:
                self.add(f"expressions, {name}", _OF_EXPRESSIONS[name](label), value, where)
            else:
                self._report.not_compared[f"expressions, {name}"] = "not known"


def _without_zeros(counts: Any) -> Any:
    """Counts without those of 0: of what is not there, some figures say 0 and some nothing."""
    return {key: count for key, count in counts.items() if count}


# Figures that can be written in several ways, and the one in which they are compared.
_FORMS: dict[str, Callable[[Any], Any]] = {
    "by_type": _without_zeros,
    "refs_per_split": _without_zeros,
    "annotated": lambda frames: {number: _without_zeros(areas) for number, areas in frames.items()},
    "annotation_folders": _without_zeros,  # a folder that is not there has no frames
    "areas": lambda objects: objects if isinstance(objects, list) else _seen(objects),
    "submission_files": sorted,
}


def _seen(areas: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """The objects that have a pixel in some frame; of another, no sample can tell."""
    return {id_: pixels for id_, pixels in areas.items() if any(pixels)}


def _unnamed(masklets: Mapping[str, Any], videos: Videos) -> set[str]:
    """Ids of masklets that no expression names: they are not imported, as nothing tells of which video they are."""
    imported = {anno_id for video in videos for anno_id in video.anno_ids}
    return {id_ for id_, content in masklets.items() if id_ not in imported and any(content["areas"])}


def _of_frames(video: Parsed) -> dict[str, dict[str, int]]:
    """Pixels by number of the annotated frame, from 1, and object; without those that are not there."""
    return {
        str(t + 1): {id_: areas[t] for id_, areas in sorted(video.objects.items()) if areas[t]}
        for t in sorted(video.annotated)
    }


def _folders(video: Parsed) -> dict[str, dict[str, int]]:
    """ReasonVOS: pixels by annotation folder and frame name."""
    found: dict[str, dict[str, int]] = {}
    for id_, label in video.expressions.items():
        (object_id,) = label.get("object_ids") or (None,)
        if object_id is not None:
            areas = video.areas.get(id_, [None] * len(video.frames))
            found[f"{video.fields['source']}_{video.name}_{object_id}"] = {
                frame: area for frame, area in zip(video.frames, areas, strict=True) if area is not None
            }
    return {folder: areas for folder, areas in found.items() if areas}


def _pickle_order(videos: Videos) -> list[list[str]]:
    """Ref-DAVIS17: number, video and expression id, in the order in which a pickle of some programs counts them."""
    pairs = [
        (video.name, id_)
        for video in sorted(videos, key=lambda video: video.name)
        for id_ in sorted(video.expressions)
    ]
    return [[str(n), name, id_] for n, (name, id_) in enumerate(pairs)]


def _submission_files(videos: Videos) -> list[str]:
    """Refer-YouTube-VOS: what a submission has to hold, a mask for every expression and frame."""
    return [
        f"Annotations/{video.name}/{id_}/{frame}.png"
        for video in videos
        for id_ in video.expressions
        for frame in video.frames
    ]


def _object_ids(video: Parsed) -> set[str]:
    named = {id_ for label in video.expressions.values() for id_ in label.get("object_ids") or ()}
    return named | set(video.objects)


def _refs(images: Iterable[Parsed]) -> dict[str, tuple[str, tuple[str, ...], int]]:
    """Split, objects and pixels of every reference."""
    return {
        str(label["ref_id"]): (image.split, tuple(label["object_ids"]), image.areas.get(id_, [0])[0] or 0)
        for image in images
        for id_, label in image.expressions.items()
    }


def _count_by(values: Iterable[Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[str(value)] = counts.get(str(value), 0) + 1
    return counts


def _labels(videos: Videos) -> list[dict[str, Any]]:
    return [label for video in videos for label in video.expressions.values()]


def _num_samples(videos: Videos, split: str | None = None) -> int:
    """A2D and JHMDB: pairs of an expression and an annotated frame with its object."""
    chosen = [video for video in videos if split in (None, video.split)]
    return sum(area is not None for video in chosen for areas in video.areas.values() for area in areas)


_OF_GROUPS: dict[str, Callable[[Videos], Any]] = {
    "n_videos": len,
    "videos_to_evaluate": len,
    "n_frames": lambda videos: sum(len(video.frames) for video in videos),
    "n_expressions": lambda videos: len(_labels(videos)),
    "n_expression_entries": lambda videos: len(_labels(videos)),
    "n_objects": lambda videos: sum(len(_object_ids(video)) for video in videos),
    "n_annotators": lambda videos: len({label.get("annotator") for label in _labels(videos)}),
    "by_type": lambda videos: _count_by(label["type_id"] for label in _labels(videos)),
    "mask_dict_pkl_order": _pickle_order,
    "submission_files": _submission_files,
    "n_samples": _num_samples,
    "n_train_samples": lambda videos: _num_samples(videos, "train"),
    "n_test_samples": lambda videos: _num_samples(videos, "test"),
    "n_refs": lambda images: len(_refs(images)),
    "n_sentences": lambda images: len(_labels(images)),
    "n_no_target": lambda images: sum(not objects for _, objects, _ in _refs(images).values()),
    "n_multi_target": lambda images: sum(len(objects) > 1 for _, objects, _ in _refs(images).values()),
    "refs_per_split": lambda images: _count_by(split for split, _, _ in _refs(images).values()),
    "polygon_mask_area": lambda images: {
        a: image.objects[id_][0] for image in images for a, id_ in image.anno_ids.items()
    },
    "union_polygon_area": lambda images: {ref: pixels for ref, (_, _, pixels) in _refs(images).items()},
}

_OF_VIDEOS: dict[str, Callable[[Parsed], Any]] = {
    "split": lambda video: video.split,
    "source": lambda video: video.fields["source"],
    "n_frames": lambda video: len(video.frames),
    "video_frames": lambda video: len(video.frames),
    "annotated_frames": lambda video: len(video.annotated),
    "annotation_stride": lambda video: min(
        (b - a for a, b in pairwise(sorted(video.annotated))), default=len(video.frames)
    ),
    "fps": lambda video: round(video.fields["metadata"].frame_rate),
    "height": lambda video: video.size[0],
    "width": lambda video: video.size[1],
    "first_frame": lambda video: video.frames[0],
    "n_objects": lambda video: len(_object_ids(video)),
    "object_ids": lambda video: sorted(int(id_) for id_ in _object_ids(video)),
    "n_expressions": lambda video: len(video.expressions),
    "n_expression_entries": lambda video: len(video.expressions),
    "n_distinct_exp_ids": lambda video: len({label["exp_id"] for label in video.expressions.values()}),
    "foreground_area_per_frame": lambda video: video.foreground,
    "void_pixels_per_frame": lambda video: video.void,
    "max_label_in_first_frame": lambda video: max(
        (int(id_) for id_, areas in video.objects.items() if areas[0]), default=0
    ),
    "frames_without_annotation_file": lambda video: [
        name for t, name in enumerate(video.frames) if t not in video.annotated
    ],
    "annotation_folders": _folders,
    "annotated": _of_frames,
    "area": lambda video: {number: sum(areas.values()) for number, areas in _of_frames(video).items()},
    "areas": lambda video: {
        id_: [video.objects[id_][t] if id_ in video.objects else 0 for t in sorted(video.annotated)]
        for id_ in _object_ids(video)
    },
    "query": lambda video: next(iter(video.expressions.values()))["text"],
}

_OF_EXPRESSIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "exp": lambda label: label.get("category") or label["text"],
    "text": lambda label: label["text"],
    "n_objects": lambda label: len(label["object_ids"]),
    "type_id": lambda label: label["type_id"],
    "type": lambda label: f"{label['kind']} (no target)" if label["kind"] == "hallucination" else label["kind"],
    "obj_id": lambda label: int(label["object_ids"][0]),
    "annotator": lambda label: label["annotator"],
}
