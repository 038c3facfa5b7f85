"""Tensor names and shapes of published MLLMSeg checkpoints."""

from __future__ import annotations

from pathlib import Path

from fiftyone_refvos.models.mllmseg.config import ARCHITECTURE, MllmsegConfig
from fiftyone_refvos.models.mllmseg.weights import check_published_keys
from fiftyone_refvos.verify.report import CaseReport
from fiftyone_refvos.verify.tables import names_stage, read_json

_MARK = "res_decoder.conv2.weight"


def is_key_table(path: Path) -> bool:
    """A JSON object with names and shapes, the mask decoder among them, and the configuration that they belong to."""
    table = read_json(path)
    return isinstance(table, dict) and _MARK in table.get("keys", {}) and "_assumed_config" in table


def check_keys(path: Path) -> CaseReport:
    """Builds the network of the configuration, without weights, and accounts for every tensor."""
    report = CaseReport(path, "MLLMSeg tensor names")
    table = read_json(path)
    shapes = {name: tuple(shape) for name, shape in table["keys"].items()}
    own = {"architectures": [ARCHITECTURE], "downsample_ratio": 0.5}
    config = MllmsegConfig.from_dict({**table["_assumed_config"], **own}, where=path)
    with names_stage(report, len(shapes)):
        check_published_keys(shapes, config, where=str(path))
    return report
