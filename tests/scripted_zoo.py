"""A model of the zoo whose answers are known beforehand."""

from __future__ import annotations

from fiftyone_refvos.models.registry import ANSWERING
from fiftyone_refvos.models.sa2va.chat import Sa2vaChat
from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter
from fiftyone_refvos.zoo import RefVOSModel, RefVOSModelConfig
from tests.scripted_sa2va import scripted_sa2va


def saying(*answers: str, case: str = "internvl_qwen2_a", checkpoint: str = "/weights/scripted") -> RefVOSModel:
    """A model of the zoo that says this."""
    config = RefVOSModelConfig({"name": ANSWERING[0], "checkpoint": checkpoint, "device": "cpu"})
    return RefVOSModel(config, scripted_sa2va(*answers, case=case))


def chat(model: RefVOSModel) -> Sa2vaChat:
    """Asks such a model without FiftyOne."""
    assert isinstance(model.segmenter, Sa2vaSegmenter)
    return Sa2vaChat(model.segmenter)
