"""Golden cases checked stage by stage: what a model computes here against what the published program computed."""

from fiftyone_refvos.verify.cases import verify
from fiftyone_refvos.verify.report import CaseReport, Stage

__all__ = ["CaseReport", "Stage", "verify"]
