"""Golden numbers of the official video programs: single pairs of masks, and small sets in each data set's layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fiftyone_refvos import metrics
from fiftyone_refvos.metrics import BitMask, FrameMasks, Query, Summary, UnitScores, VideoMasks
from fiftyone_refvos.verify.report import CaseReport, Stage

TOLERANCE = 1e-9  # of averages; J and F of frames and all counts must be equal

Json = dict[str, Any]
Check = Callable[[Path, CaseReport, str], None]

_NAMES = {
    "JF": "J&F",
    "J&F-Mean": "J&F",
    "J-Mean": "J",
    "F-Mean": "F",
    "T_acc": "T-acc",
    "N_acc": "N-acc",
}
_VOS_BENCHMARKS = (metrics.VOS_BENCHMARK, metrics.VOS_BENCHMARK_ALL_FRAMES)
_SAVS = (metrics.SAV, metrics.SAV_ALL_FRAMES)
_NOT_VALUES = {"type_id", "n", "n_expressions"}


def is_case(path: Path) -> bool:
    """A folder with pairs of masks and their numbers, or with one set; the sets beside the pairs belong to it."""
    return _is_pairs(path) or _check_of(path) is not None


def check(path: Path) -> CaseReport:
    """Compares J and F of every frame, which must be equal, and all averages."""
    report = CaseReport(path, "video metrics")
    own = _check_of(path)
    if own is not None:
        own(path, report, "")
        return report
    _check_pairs(path / "pairs.json", report)
    for folder in sorted(child for child in path.iterdir() if child.is_dir()):
        checker = _check_of(folder)
        if checker is None:
            report.not_compared[folder.name] = "unknown layout"
        else:
            checker(folder, report, f"{folder.name}: ")
    return report


def compare_values(
    report: CaseReport, name: str, ours: Mapping[str, float], golden: Mapping[str, float | None]
) -> None:
    """Compares values under the names of the golden data; null is NaN, and nothing golden may be missing."""
    worst, note = 0.0, f"{len(golden)} values"
    for key, value in golden.items():
        expected = float("nan") if value is None else float(value)
        mine = ours.get(_NAMES.get(key, key))
        if mine is None or np.isnan(mine) != np.isnan(expected):
            worst, note = float("inf"), f"{key} is {mine}, golden {value}"
            break
        if abs(mine - expected) > worst:
            worst, note = abs(mine - expected), f"worst at {key}"
    report.stages.append(Stage(name, worst, TOLERANCE, note))


def _is_pairs(path: Path) -> bool:
    pairs = _read(path / "pairs.json")
    return isinstance(pairs, dict) and isinstance(pairs.get("pairs"), list)


def _check_of(path: Path) -> Check | None:
    """What checks a folder, told from the files in it, and from the keys of expected.json where they are alike."""
    if not all((path / name).is_file() for name in ("expected.json", "predictions.json")):
        return None
    files = {child.name for child in path.iterdir()}
    for needed, checker in _LAYOUTS:
        if needed <= files:
            return checker
    if "gt.json" in files:
        keys = _load(path, "expected").keys()
        return _check_sav if any(key.startswith("skip_first_last") for key in keys) else _check_davis
    return None


def _check_pairs(path: Path, report: CaseReport) -> None:
    """Once from RLEs, once from arrays."""
    pairs = json.loads(path.read_text(encoding="utf-8"))["pairs"]
    names = ("radius", "gt_area", "pred_area", "intersection", "union", "n_gt_boundary", "n_pred_boundary", "J", "F")
    golden = [tuple(pair[name] for name in names) for pair in pairs]
    for what in ("RLE", "arrays"):
        ours = []
        for pair in pairs:
            masks: list[Any] = [pair["gt"], pair["pred"], pair["void"]]
            if what == "arrays":
                masks = [None if mask is None else BitMask.of(mask).to_array().copy("C") for mask in masks]
            score = metrics.score_frame(*masks, size=tuple(pair["size"]), bound_th=pair["bound_th"])
            radius = metrics.boundary_radius(tuple(pair["size"]), pair["bound_th"])
            counts = (score.truth_area, score.prediction_area, score.intersection, score.union)
            edges = (score.truth_boundary, score.prediction_boundary)
            ours.append((radius, *counts, *edges, score.J, score.F))
        report.add_equal(f"pairs, from {what}", ours, golden)


def _check_mevis(path: Path, report: CaseReport, prefix: str) -> None:
    expected, units, summary = _expressions(path, metrics.MEVIS, "meta_expressions.json")
    _compare_frames(report, f"{prefix}frames", units, expected["per_frame"])
    _compare_units(report, f"{prefix}expressions", summary, expected["per_expression"])
    _compare_dataset(report, f"{prefix}dataset", summary.dataset, expected["dataset"], len(units))
    if "dataset_over_predicted_videos_only" in expected:
        golden = expected["dataset_over_predicted_videos_only"]
        number = sum(unit.predicted for unit in units)
        group = summary.groups["predicted videos only"]
        _compare_dataset(report, f"{prefix}predicted videos only", group, golden, number)


def _check_revos(path: Path, report: CaseReport, prefix: str) -> None:
    meta = "meta_expressions_valid_.json"
    programs = {
        "binary": (metrics.REVOS, None),
        "pred01_gtsum": (metrics.REVOS_RLE_PROGRAM, "reference_rle_predictions"),
        "pred255_gtsum": (metrics.REVOS_PNG_PROGRAM, "reference_png255_predictions"),
    }
    for variant, (protocol, reference) in programs.items():
        expected, units, summary = _expressions(path, protocol, meta)
        golden = {key: variants[variant] for key, variants in expected["per_frame"].items()}
        _compare_frames(report, f"{prefix}frames, {variant}", units, golden)
        for measure in ("A", "R"):
            values = {unit.key: getattr(unit, measure) for unit in units}
            _compare_lists(report, f"{prefix}{measure}, {variant}", values, golden, measure)
        if reference is not None:
            _compare_groups(report, f"{prefix}{protocol.name}", summary, expected[reference]["dataset"])
            rounded = expected[reference]["per_expression_percent_rounded"]
            _compare_units(report, f"{prefix}{protocol.name}, expressions", summary, rounded)
            continue
        exact = metrics.REVOS_UNROUNDED.summarize(units)
        fractions = {key: {n: v / 100 for n, v in values.items()} for key, values in exact.units.items()}
        _compare_groups(report, f"{prefix}rounded", summary, expected["dataset_binary_rounded_like_reference"])
        _compare_groups(report, f"{prefix}unrounded", exact, expected["dataset_binary_unrounded"])
        _compare_nested(report, f"{prefix}expressions", fractions, expected["per_expression"])


def _check_ref_sav(path: Path, report: CaseReport, prefix: str) -> None:
    expected, units, summary = _expressions(path, metrics.REF_SAV, "meta_expressions_valid.json")
    _compare_frames(report, f"{prefix}frames", units, expected["per_frame"])
    _compare_units(report, f"{prefix}expressions", summary, expected["per_expression_percent_rounded"])
    _compare_groups(report, f"{prefix}dataset", summary, expected["dataset"])


def _check_davis(path: Path, report: CaseReport, prefix: str) -> None:
    videos = [*_object_videos(path)]
    expected = _load(path, "expected")
    for protocol in (metrics.DAVIS17_SEMI_SUPERVISED, metrics.DAVIS17_UNSUPERVISED):
        if protocol.task in expected:
            units = [unit for video in videos for unit in protocol.score(video)]
            _compare_davis(report, f"{prefix}{protocol.task}", units, expected[protocol.task])
    _check_percent(report, prefix, expected, videos, "vos_benchmark_skip_first_last", _VOS_BENCHMARKS)


def _check_sav(path: Path, report: CaseReport, prefix: str) -> None:
    _check_percent(report, prefix, _load(path, "expected"), [*_object_videos(path)], "skip_first_last", _SAVS)


def _check_percent(
    report: CaseReport,
    prefix: str,
    expected: Json,
    videos: Sequence[VideoMasks],
    key: str,
    protocols: Sequence[metrics.Protocol],
) -> None:
    for protocol, skip in zip(protocols, ("true", "false"), strict=True):
        if f"{key}_{skip}" in expected:
            golden, summary = expected[f"{key}_{skip}"], protocol.evaluate(videos)
            _compare_units(report, f"{prefix}{protocol.name}, objects", summary, golden["per_object_percent"])
            compare_values(report, f"{prefix}{protocol.name}", summary.dataset, golden["dataset_percent"])


def _check_ref_davis(path: Path, report: CaseReport, prefix: str) -> None:
    expected, gt = _load(path, "expected"), _load(path, "gt")
    predictions = _load(path, "predictions")
    videos = []
    for name, video in _load(path, "meta_expressions")["videos"].items():
        queries = [
            Query(id, object_ids=(str(expression["obj_id"]),), annotator=int(id) % 4)
            for id, expression in video["expressions"].items()
        ]
        videos.append(_video(name, gt[name], predictions.get(name, {}), queries))
    units = [unit for video in videos for unit in metrics.REF_DAVIS17_PER_ANNOTATOR.score(video)]
    for annotator, golden in expected["annotators"].items():
        own = [unit for unit in units if str(unit.annotator) == annotator]
        _compare_davis(report, f"{prefix}annotator {annotator}", own, golden, key=f"{annotator}/")
    summary = metrics.REF_DAVIS17_PER_ANNOTATOR.summarize(units)
    compare_values(report, f"{prefix}mean over annotators", summary.dataset, expected["dataset_mean_over_annotators"])
    if (path / "merged_label_maps.json").is_file():
        _compare_label_maps(report, f"{prefix}label maps", videos, _load(path, "merged_label_maps"))
    golden = expected["per_expression_protocol"]
    summary = metrics.REF_DAVIS17_PER_EXPRESSION.evaluate(videos)
    _compare_units(report, f"{prefix}per expression, expressions", summary, golden["per_expression"])
    if "dataset" in golden:
        _compare_dataset(report, f"{prefix}per expression", summary.dataset, golden["dataset"], len(summary.units))
    if "anno_id_of" in golden:
        report.not_compared[f"{prefix}anno_id_of"] = "numbers of VISA's mask_dict.pkl, which no metric reads"


def _check_reasonvos(path: Path, report: CaseReport, prefix: str) -> None:
    expected, truth, predictions = (_load(path, name) for name in ("expected", "gt_masks", "predictions"))
    videos = []
    for name, video in _load(path, "meta_expressions")["videos"].items():
        full = f"{video['source']}_{name}"
        for id in dict.fromkeys(str(expression["obj_id"]) for expression in video["expressions"]):
            masks = truth.get(f"{full}_{id}", {})
            frames = sorted(masks)
            queries = [Query(str(e["exp_id"]), (id,)) for e in video["expressions"] if str(e["obj_id"]) == id]
            own = predictions.get(name, {})
            predicted = {q.id: [own[q.id][frame] for frame in frames] for q in queries if q.id in own}
            size = next((tuple(mask["size"]) for mask in masks.values() if mask), (1, 1))
            objects = {id: [masks[frame] for frame in frames]} if masks else {}
            videos.append(_masks(full, size, frames, objects, predicted, queries))
    summary = metrics.REASONVOS.evaluate(videos)
    _compare_units(report, f"{prefix}expressions", summary, expected["per_expression"])
    _compare_dataset(report, f"{prefix}dataset", summary.dataset, expected["dataset"], len(summary.units))


def _expressions(path: Path, protocol: metrics.Protocol, meta: str) -> tuple[Json, list[UnitScores], Summary]:
    """The expected numbers, and ours, of a set whose masks are numbered by annotation ids."""
    masks, predictions = _load(path, "mask_dict"), _load(path, "predictions")
    foreground = _load(path, "mask_dict_foreground") if (path / "mask_dict_foreground.json").is_file() else {}
    units: list[UnitScores] = []
    for name, video in json.loads((path / meta).read_text(encoding="utf-8"))["videos"].items():
        queries = [
            Query(id, tuple(map(str, expression["anno_id"])), type_id=expression.get("type_id"))
            for id, expression in video["expressions"].items()
        ]
        objects = {id: masks[id] for query in queries for id in query.object_ids}
        predicted = predictions.get(name, {})
        known = (mask for track in (*objects.values(), *predicted.values()) for mask in track if mask is not None)
        size = tuple(next(known, {"size": (1, 1)})["size"])  # a video without any mask has no size either
        extra = foreground[name]["masks_rle"] if name in foreground else None
        units += protocol.score(_masks(name, size, video["frames"], objects, predicted, queries, foreground=extra))
    return _load(path, "expected"), units, protocol.summarize(units)


def _object_videos(path: Path) -> Iterator[VideoMasks]:
    predictions = _load(path, "predictions")
    for name, video in _load(path, "gt").items():
        predicted = predictions.get(name, {})
        yield _video(name, video, predicted.get("objects", predicted), ())


def _video(name: str, gt: Json, predictions: Json, queries: Sequence[Query]) -> VideoMasks:
    size = (gt["height"], gt["width"])
    return _masks(name, size, gt["frames"], gt["objects"], predictions, queries, void=gt.get("void"))


def _masks(
    name: str,
    size: Any,
    frames: Sequence[str],
    objects: Mapping[str, Sequence[FrameMasks]],
    predictions: Mapping[str, Sequence[FrameMasks]],
    queries: Sequence[Query],
    void: Sequence[FrameMasks] | None = None,
    foreground: Sequence[FrameMasks] | None = None,
) -> VideoMasks:
    return VideoMasks(
        name=name,
        size=(size[0], size[1]),
        frames=frames,
        objects=objects,
        predictions=predictions,
        queries=queries,
        void=void,
        foreground=foreground,
    )


def _compare_davis(report: CaseReport, name: str, units: Sequence[UnitScores], golden: Json, key: str = "") -> None:
    summary = metrics.DAVIS17_UNSUPERVISED.summarize(units)
    objects = {unit[len(key) :]: values for unit, values in summary.units.items()}
    _compare_frames(report, f"{name}, frames", units, golden["per_frame"], key)
    _compare_nested(report, f"{name}, objects", objects, golden["per_object"])
    compare_values(report, name, summary.dataset, golden["dataset"])
    if "decay_64bit" in golden:
        exact = golden["decay_64bit"]
        decays = {id: _decays(values) for id, values in objects.items()}
        _compare_nested(report, f"{name}, decay64, objects", decays, exact["per_object"])
        compare_values(report, f"{name}, decay64", _decays(summary.dataset), exact["dataset"])


def _decays(values: Mapping[str, float]) -> dict[str, float]:
    return {measure: values[f"{measure}-Decay-64bit"] for measure in ("J", "F")}


def _compare_label_maps(report: CaseReport, name: str, videos: Sequence[VideoMasks], golden: Json) -> None:
    ours, expected = [], []
    for annotator, maps in golden.items():
        for video in videos:
            own = {q.object_ids[0]: video.predictions[q.id] for q in video.queries if str(q.annotator) == annotator}
            for id, merged in metrics.merge_labels(video, own).items():
                theirs = video.bits(maps[video.name].get(id, [None] * len(video.frames)), f"object {id!r}")
                ours += [mask.to_array().tobytes() for mask in video.bits(merged, f"object {id!r}")]
                expected += [mask.to_array().tobytes() for mask in theirs]
    report.add_equal(name, ours, expected)


def _compare_frames(
    report: CaseReport, name: str, units: Sequence[UnitScores], golden: Json, prefix: str = ""
) -> None:
    """J and F of all frames must be equal to the last bit."""
    by_key = {unit.key[len(prefix) :]: unit for unit in units}
    ours: list[object] = []
    expected: list[object] = []
    for key, values in golden.items():
        unit = by_key.get(key)
        for measure in ("J", "F"):
            ours += [key] if unit is None else getattr(unit, measure).tolist()
            expected += values[measure]
        if "frames" in values:
            ours.append(None if unit is None else list(unit.frames))
            expected.append(values["frames"])
    report.add_equal(name, ours, expected)


def _compare_lists(
    report: CaseReport, name: str, ours: Mapping[str, Any], golden: Mapping[str, Json], measure: str
) -> None:
    flat = {f"{key}[{t}]": value for key, values in ours.items() for t, value in enumerate(values)}
    expected = {f"{key}[{t}]": value for key, values in golden.items() for t, value in enumerate(values[measure])}
    compare_values(report, name, flat, expected)


def _compare_units(report: CaseReport, name: str, summary: Summary, golden: Mapping[str, Json]) -> None:
    _compare_nested(report, name, summary.units, golden)


def _compare_groups(report: CaseReport, name: str, summary: Summary, golden: Mapping[str, Json]) -> None:
    _compare_nested(report, name, summary.groups, golden)


def _compare_nested(
    report: CaseReport, name: str, ours: Mapping[str, Mapping[str, float]], golden: Mapping[str, Json]
) -> None:
    flat = {f"{key} {value}": number for key, values in ours.items() for value, number in values.items()}
    expected = {
        f"{key} {_NAMES.get(value, value)}": number
        for key, values in golden.items()
        for value, number in values.items()
        if value not in _NOT_VALUES
    }
    if len(ours) != len(golden):
        report.stages.append(Stage(name, float("inf"), 0, f"{len(ours)} units, golden has {len(golden)}"))
    else:
        compare_values(report, name, flat, expected)


def _compare_dataset(report: CaseReport, name: str, ours: Mapping[str, float], golden: Json, number: int) -> None:
    values = {key: value for key, value in golden.items() if key not in _NOT_VALUES}
    counts = {key: float(number) for key in golden if key in _NOT_VALUES}
    compare_values(report, name, {**ours, **counts}, {**values, **{key: golden[key] for key in counts}})


def _load(path: Path, name: str) -> Json:
    content = json.loads((path / f"{name}.json").read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path / name}.json should hold an object, got {type(content).__name__}")
    return content


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return None


_LAYOUTS: tuple[tuple[set[str], Check], ...] = (
    ({"gt_masks.json", "meta_expressions.json"}, _check_reasonvos),
    ({"gt.json", "meta_expressions.json"}, _check_ref_davis),
    ({"mask_dict.json", "meta_expressions_valid_.json"}, _check_revos),
    ({"mask_dict.json", "meta_expressions_valid.json"}, _check_ref_sav),
    ({"mask_dict.json", "meta_expressions.json"}, _check_mevis),
)
