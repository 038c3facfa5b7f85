"""How well GLUS finds what is said in unseen videos while it trains: a few short clips of each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fiftyone_refvos.demo.expressions import KINDS
from fiftyone_refvos.demo.rendered import RenderedExpression, RenderedVideos
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.sam2 import masks_at_size
from fiftyone_refvos.training.batch import Batch
from fiftyone_refvos.training.config import TrainingConfig
from fiftyone_refvos.training.glus_learner import GlusLearner
from fiftyone_refvos.training.network import TrainingOutput

_BATCHES = 2


class Progress:
    """Measures the network of a training on clips of unseen videos.

    Args:
        glus, tokenizer, config: of the training
        videos: folder of the unseen ones, of `render`
        say: gets a line per measurement
    """

    def __init__(
        self,
        glus: GlusNetwork,
        tokenizer: LlamaTokenizer,
        config: TrainingConfig,
        videos: Path,
        say: Callable[[str], None],
    ) -> None:
        self._glus, self._say = glus, say
        still = replace(config, losses=replace(config.losses, contrastive=0.0))
        self._clips: dict[str, tuple[GlusLearner, list[Batch]]] = {}
        for kind in KINDS:
            source = RenderedVideos(videos, keep=partial(_is, kind))
            learner, rng = GlusLearner(glus, tokenizer, still, [source], [1.0]), np.random.default_rng(0)
            self._clips[kind] = learner, [learner.draw(rng) for _ in range(_BATCHES)]

    def __call__(self) -> float:
        """Mean IoU over the kinds of expressions that have a target; the line also says who is told apart."""
        glus, found = self._glus, {}
        for kind, (learner, batches) in self._clips.items():
            values: list[float] = []
            for batch in (each.to(glus.device) for each in batches):
                with torch.no_grad():
                    output = learner.network(batch)
                    values += _right(glus, batch, output) if kind == "no_target" else _ious(batch, output)
            found[kind] = float(np.mean(values))
        self._say("unseen: " + ", ".join(f"{kind} {value:.3f}" for kind, value in found.items()))
        return float(np.mean([value for kind, value in found.items() if kind != "no_target"]))


def _is(kind: str, expression: RenderedExpression) -> bool:
    return expression.kind == kind


def _ious(batch: Batch, output: TrainingOutput) -> list[float]:
    """IoU of each mask with its target; 1 where both are empty."""
    assert output.low_res is not None
    (group,) = batch.targets
    logits = output.low_res[:, group.rows].transpose(0, 1).flatten(0, 1)
    targets = group.masks.flatten(0, 1) > 0
    masks = masks_at_size(logits[:, None], (targets.shape[1], targets.shape[2])) > 0
    both, either = (masks & targets).sum((-2, -1)), (masks | targets).sum((-2, -1))
    ious: list[float] = torch.where(either > 0, both / either.clamp(min=1), 1.0).tolist()
    return ious


def _right(glus: GlusNetwork, batch: Batch, output: TrainingOutput) -> list[float]:
    """Whether the token that stands in the place of each [SEG] is the right one."""
    said = glus.lm_head(output.seg_hidden).argmax(-1)
    right: list[float] = (said == batch.labels.gather(1, batch.seg_positions)).float().flatten().tolist()
    return right
