"""The committed figures of glus-tiny: they are of the weights that ship, and what is required of these is reached."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest

from benchmarks.demo_quality import BASE as NORMAL
from benchmarks.demo_quality import KEPT, REQUIRED, RESULTS, command, parse
from fiftyone_refvos.demo.quality_card import weights_digest
from fiftyone_refvos.models.registry import SHIPPED, shipped_size

GLUS_TINY = SHIPPED / "glus-tiny"
BASE, OTHERS = (
    json.loads((RESULTS / name).read_text(encoding="utf-8"))
    for name in ("demo_quality.json", "demo_quality_settings.json")
)


def figures(row: dict[str, Any]) -> dict[str, float]:
    """J&F per kind of expression, N-acc and T-acc, in [0, 1]."""
    kinds = {kind: measures["JF"]["mean"] for kind, measures in row["kinds"].items() if kind != "no_target"}
    return kinds | {name: row[name]["mean"] for name in ("N-acc", "T-acc")}


def test_it_is_small_and_the_figures_are_of_its_weights() -> None:
    assert shipped_size("glus-tiny") <= 15e6
    assert BASE["weights"] == OTHERS["weights"] == weights_digest(GLUS_TINY)


def rows(results: dict[str, Any], clip_view: str | None) -> dict[str, dict[str, float]]:
    """The figures of a view by kind of video."""
    return {each["frames"]: figures(each) for each in results["rows"] if each["clip_view"] == clip_view}


@pytest.mark.parametrize("name", REQUIRED["glus-tiny"])
def test_what_is_required_is_reached_on_a_hundred_videos_and_stated_in_the_card(name: str) -> None:
    assert len({each["video"] for each in BASE["expressions"]}) == 100
    (found,) = rows(BASE, None).values()
    assert found[name] >= REQUIRED["glus-tiny"][name]
    assert f" {100 * found[name]:.1f} ± " in (GLUS_TINY / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", REQUIRED["glus-tiny"])
def test_other_resolutions_and_longer_videos_keep_it(name: str) -> None:
    found = rows(OTHERS, "squash")
    base = found.pop(NORMAL)
    assert len(found) == 3
    assert all(each[name] >= KEPT * base[name] for each in found.values())


@pytest.mark.parametrize("name", ["demo_quality", "demo_quality_settings", "sa2va_quality"])
def test_tables_name_the_command_that_measured_them(name: str) -> None:
    said = re.findall(r"`(python -m .*?)`", (RESULTS / f"{name}.md").read_text(encoding="utf-8"))[0]
    options = parse(shlex.split(said)[3:])
    assert command(options) == said
    results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert options.name == name
    assert options.videos == len({each["video"] for each in results["expressions"]})
    assert options.settings == list(dict.fromkeys(row["frames"] for row in results["rows"]))
    views = [*(options.clip_views or [None]), "perfect masks"]
    assert views == list(dict.fromkeys(row["clip_view"] for row in results["rows"]))
