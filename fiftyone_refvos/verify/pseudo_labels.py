"""Pseudo-label cases: the IoU of predicted and true masks in every frame, as the key frame selector learns it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from fiftyone_refvos.datasets.masks import image_size, parse_rle, read_binary_png
from fiftyone_refvos.pseudo_labels import frame_iou
from fiftyone_refvos.verify.report import CaseReport

_TOLERANCE = 0.0
_FILES = (
    "inputs/mask_dict.json",
    "inputs/meta_expressions.json",
    "inputs/predictions",
    "outputs/iou_labels",
    "outputs/mean_j.json",
)


def is_case(path: Path) -> bool:
    """A folder with MeViS annotations, predicted masks and label files."""
    return path.is_dir() and all((path / name).exists() for name in _FILES)


def check(path: Path) -> CaseReport:
    """Makes the labels of every expression, and compares them number by number."""
    report = CaseReport(path, "IoU pseudo-labels")
    masks = _read(path / "inputs" / "mask_dict.json")
    means = _read(path / "outputs" / "mean_j.json")["mean_j"]
    files = {file.relative_to(path / "outputs") for file in (path / "outputs" / "iou_labels").rglob("*.json")}
    for name, video in _read(path / "inputs" / "meta_expressions.json")["videos"].items():
        for identity, expression in video["expressions"].items():
            file = Path("iou_labels", name, f"{identity}.json")
            with report.stage(str(file)):
                objects = [masks[str(anno_id)] for anno_id in expression["anno_id"]]
                folder = path / "inputs" / "predictions" / name / identity
                ious = torch.tensor(_ious(objects, folder, video["frames"]), dtype=torch.float64)
                stored = torch.tensor(_read(path / "outputs" / file), dtype=torch.float64)
                report.add_values(str(file), ious, stored, _TOLERANCE)
                mean = torch.tensor(means[f"{name}_{identity}"], dtype=torch.float64)
                report.add_values(f"mean_j {name}_{identity}", ious.mean(), mean, 1e-12)
                files.discard(file)
    for file in sorted(files):
        report.not_compared[str(file)] = "of no expression"
    return report


def _ious(objects: list[list[Any]], folder: Path, frames: list[str]) -> list[float | None]:
    ious = []
    for index, frame in enumerate(sorted(frames)):
        image = folder / f"{frame}.png"
        size = image_size(image)
        truth = [parse_rle(masks[index], size, f"frame {frame}") for masks in objects]
        predicted = [read_binary_png(image, size)]
        iou, _ = frame_iou([rle for rle in truth if rle], [rle for rle in predicted if rle], size)
        ious.append(iou)
    return ious


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
