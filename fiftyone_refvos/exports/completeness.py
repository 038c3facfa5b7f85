"""What evaluation servers and programs ask for: every expression of a video, in every frame."""

from __future__ import annotations

from fiftyone_refvos.datasets.records import ExpressionRecord
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.records import Exported

_LISTED = 5  # expressions in a message


def complete_expressions(exported: Exported) -> list[ExpressionRecord]:
    """The expressions of a dataset, which leaves out prompts that somebody typed.

    Raises:
        ExportError: if one of them was not looked for in some frame, with what is missing
    """
    wanted = [each for each in exported.record.expressions if each.kind != "prompt"]
    frames = frozenset(range(len(exported.stems)))
    lacking = [(each, missing) for each in wanted if (missing := frames - exported.covered(each))]
    if not lacking:
        return wanted
    listed = "; ".join(
        f"{each.id!r} ({each.text!r}) in {len(missing)} of {len(frames)} frames, the first is "
        f"{exported.stems[min(missing)]!r}"
        for each, missing in lacking[:_LISTED]
    )
    more = f"; and {len(lacking) - _LISTED} more expressions" if len(lacking) > _LISTED else ""
    raise ExportError(
        f"{exported.name!r} is not complete, there are no masks, not even empty ones, of expression {listed}{more}: "
        "segment what is missing first, or export a view of what is complete"
    )
