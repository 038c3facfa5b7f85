"""Golden numbers of the image programs: one folder with the masks of all expressions and what each program says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fiftyone_refvos import metrics
from fiftyone_refvos.metrics import ImageScore
from fiftyone_refvos.verify.report import CaseReport
from fiftyone_refvos.verify.vos_metrics import compare_values

# The golden name of a program, and our protocol for it.
_PROGRAMS = {
    "gres_official_flag": "gres",
    "gres_official_mask_empty": "gres-by-mask",
    "res_official_targets_only": "res",
    "mllmseg_res": "mllmseg-res",
    "mllmseg_gres": "mllmseg-gres",
}


def is_case(path: Path) -> bool:
    """A folder with samples.json, a list of expressions with both masks, and the expected numbers."""
    if not all((path / name).is_file() for name in ("samples.json", "expected.json")):
        return False
    samples = json.loads((path / "samples.json").read_text(encoding="utf-8"))
    return isinstance(samples, list) and bool(samples) and {"gt", "pred", "pred_no_target"} <= set(samples[0])


def check(path: Path) -> CaseReport:
    """Compares the counts of every expression, which must be equal, and every program's numbers."""
    report = CaseReport(path, "image metrics")
    samples = json.loads((path / "samples.json").read_text(encoding="utf-8"))
    expected = json.loads((path / "expected.json").read_text(encoding="utf-8"))
    scores = [_score(sample, sample["gt"], sample["pred"]) for sample in samples]
    golden = [_counts(sample) for sample in samples]
    report.add_equal("counts and boxes, from RLE", [_ours(score) for score in scores], golden)
    if (path / "masks.npz").is_file():
        with np.load(path / "masks.npz") as masks:
            pairs = [(masks[f"gt_{k}"], masks[f"pred_{k}"]) for k in range(len(samples))]
        arrays = [_score(sample, *pair) for sample, pair in zip(samples, pairs, strict=True)]
        report.add_equal("counts and boxes, from arrays", [_ours(score) for score in arrays], golden)
    for name, values in expected.items():
        if name not in _PROGRAMS:
            report.not_compared[name] = "unknown program"
            continue
        ours = metrics.IMAGE_PROTOCOLS[_PROGRAMS[name]].summarize(scores)
        compare_values(report, name, {**_counted(scores), **_golden_names(ours)}, _flat(values))
    return report


def _score(sample: Mapping[str, Any], truth: Any, prediction: Any) -> ImageScore:
    return metrics.score_image(
        truth,
        prediction,
        image=sample["image"],
        no_target=sample["pred_no_target"],
        size=tuple(sample["size"]),
    )


def _counts(sample: Mapping[str, Any]) -> tuple[object, ...]:
    return (sample["intersection"], sample["union"], *(int(edge) for edge in sample["pred_box_xyxy"]))


def _ours(score: ImageScore) -> tuple[object, ...]:
    return (score.intersection, score.union, *(score.prediction_box or (0, 0, 0, 0)))


def _golden_names(values: Mapping[str, float]) -> dict[str, float]:
    # RES has neither accuracy; its program reports 0
    return {"N-acc": 0.0, "T-acc": 0.0, "rec_bbox_acc_0_5": values.get("REC@0.5", float("nan")), **values}


def _counted(scores: list[ImageScore]) -> dict[str, float]:
    """The numbers of cases, which some programs report too."""
    targets = [score for score in scores if score.truth_area]
    boxes = metrics.IMAGE_PROTOCOLS["mllmseg-res"].summarize(scores)["REC@0.5"]
    return {
        "count": len(scores),
        "num_expressions": len(targets),
        "num_images": len({score.image for score in targets}),
        "rec_total": len(targets),
        "rec_success": round(boxes * len(targets)),
        "NT TP": sum(score.no_target for score in scores if not score.truth_area),
        "NT FN": sum(not score.no_target for score in scores if not score.truth_area),
        "NT TN": sum(not score.no_target for score in targets),
        "NT FP": sum(score.no_target for score in targets),
    }


def _flat(values: Mapping[str, Any]) -> dict[str, float | None]:
    flat: dict[str, float | None] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{key} {name}": number for name, number in value.items()}
        else:
            flat[key] = value
    return flat
