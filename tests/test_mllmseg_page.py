"""docs/mllmseg.md: its Python runs as it stands but for the weights, and its options are those that there are."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import fiftyone as fo

from fiftyone_refvos.models.mllmseg.config import MllmsegVideoInference
from tests.conftest import REPOSITORY
from tests.refer_folder import REFS, write_refer
from tests.small_mllmseg import checkpoint_of

PAGE = (REPOSITORY / "docs" / "mllmseg.md").read_text(encoding="utf-8")


def test_the_page_runs_as_it_stands(fiftyone_home, tmp_path, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    weights = f'"mllmseg-8b-res", checkpoint="{checkpoint_of("res_internlm2")}", device="cpu"'
    block = block.replace('"mllmseg-8b-res"', weights).replace("/data/refer", str(write_refer(tmp_path, REFS)))
    names: dict[str, Any] = {}
    exec(block, names)
    dataset = names["dataset"]
    try:
        assert (names["report"].num_samples, names["report"].failures) == (3, [])
        printed = capsys.readouterr().out
        assert all(measure in printed for measure in ("cIoU", "gIoU", "Pr@0.5", "mIoU", "oIoU"))
        truth, found = (dataset.get_field(f"{name}.detections") for name in ("ground_truth", "mllmseg"))
        assert truth.field.document_type is found.field.document_type is fo.Detection
        assert {each.expression_id for sample in dataset for each in sample.mllmseg.detections} <= {
            each.expression_id for sample in dataset for each in sample.expressions.classifications
        }
    finally:
        dataset.delete()


def test_all_options_are_told():
    for option in fields(MllmsegVideoInference):
        assert f"`{option.name}" in PAGE
