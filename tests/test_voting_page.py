"""docs/voting.md and the recipe: what they name exists, and the table of the rule is that of the code."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from benchmarks.pvuw_recipe import CONFIGURATIONS, RESULTS, VOTES, Configuration, read_configurations, table
from fiftyone_refvos.ensemble import Rule, vote
from fiftyone_refvos.models.glus.config import GlusInference
from fiftyone_refvos.models.registry import MODELS
from fiftyone_refvos.models.sa2va.config import Sa2vaInference
from tests.conftest import REPOSITORY
from tests.fields_data import masklet

PAGE = (REPOSITORY / "docs" / "voting.md").read_text(encoding="utf-8")


def test_the_example_of_configurations_can_be_read_and_loaded():
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)
    *models, imported = read_configurations(example)
    assert imported.predictions == "/results/uninext_cutie.zip"
    for each in models:
        assert each.model in MODELS
        assert Sa2vaInference(**each.settings).mode == "uniform"
    inference: dict[str | None, type] = {"sa2va-tiny": Sa2vaInference, "glus-tiny": GlusInference}
    for each in CONFIGURATIONS:
        assert each.model in inference
        inference[each.model](**each.settings)


def test_the_committed_table_is_of_the_configurations():
    result = json.loads((RESULTS / "pvuw_recipe.json").read_text(encoding="utf-8"))
    assert tuple(Configuration(**each) for each in result["configurations"]) == CONFIGURATIONS
    for found in result["datasets"].values():
        assert [*found["rows"]] == [*(each.field for each in CONFIGURATIONS), *VOTES]
    assert f"--videos {result['datasets']['Demo world']['videos']}" in result["command"]
    assert (RESULTS / "pvuw_recipe.md").read_text(encoding="utf-8") == table(result)


def test_configurations_are_checked():
    with pytest.raises(ValueError, match="'a' needs a model of the zoo, or predictions"):
        Configuration("a")
    with pytest.raises(ValueError, match="a field of its own"):
        read_configurations(json.dumps([{"field": "a", "model": "glus-tiny"}] * 2))
    with pytest.raises(ValueError, match="unexpected keyword argument 'frames'"):
        read_configurations(json.dumps([{"field": "a", "frames": 5}]))


def needed(num: int, rule: Rule) -> int:
    """How many of so many members it takes."""
    pixels = np.arange(1, num + 1)  # the k-th pixel has k votes
    members = {str(n): masklet((pixels > n)[None, None, None]) for n in range(num)}
    inside = vote(members, rule=rule).masklet.union(0)[0]
    return int(pixels[inside][0])


def test_the_table_of_the_rule_is_true():
    rows = re.findall(r"^\| (\d) \| (\d) \| (\d) \|$", PAGE, flags=re.MULTILINE)
    assert [int(row[0]) for row in rows] == [2, 3, 4, 5]
    for num, majority, report in (map(int, row) for row in rows):
        assert (needed(num, "majority"), needed(num, "report")) == (majority, report)
