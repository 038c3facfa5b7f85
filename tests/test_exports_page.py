"""docs/exports.md: its Python runs as it stands, and its table names every format."""

from __future__ import annotations

import json
import re
from typing import Any

import fiftyone as fo

from fiftyone_refvos import types
from tests.conftest import REPOSITORY
from tests.mevis_folder import box_mask, rle, simple_mevis

PAGE = (REPOSITORY / "docs" / "exports.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_examples_run(tmp_path, capsys):
    dataset = fo.Dataset.from_dir(str(simple_mevis(tmp_path / "data")), dataset_type=types.MeViS, name="exports-page")
    for sample in dataset:
        sample.tags += ["valid_u", "valid"]
        sample.save()
    entry = {"prediction_masks": [rle(box_mask(t, 2, 8, 9)) for t in range(4)]}
    (tmp_path / "runs").mkdir()
    predictions = {name: dict.fromkeys("012", entry) for name in ("one", "two")}
    (tmp_path / "runs" / "results.json").write_text(json.dumps(predictions))
    names: dict[str, Any] = {"dataset": dataset}
    blocks = [block.replace("/out", f"{tmp_path}/out").replace("/runs", f"{tmp_path}/runs") for block in BLOCKS]
    *others, last = (block.replace('"mevis"', '"exports-page"') for block in blocks)
    exec(f"import fiftyone_refvos as rv\n{last.replace('theirs', 'glus')}", names)  # makes what the others export
    assert "6 masklets of 2 videos" in capsys.readouterr().out
    for block in others:
        exec(block, names)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["coco", "mevis", "submission"]
    assert (tmp_path / "out" / "submission" / "submission.zip").is_file()
    assert dataset.has_evaluation("glus_eval")
    dataset.delete()


def test_the_table_names_every_format():
    named = set(re.findall(r"^\| [^|]+ \| `(\w+)` \|", PAGE, flags=re.MULTILINE))
    assert named == {
        name for name, value in vars(types).items() if isinstance(value, type) and hasattr(value, "format")
    }
