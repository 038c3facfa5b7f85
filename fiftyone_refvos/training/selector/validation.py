"""How well a selector that is in training ranks the frames of held-out videos."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.metrics.correlation import spearman
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.selector.config import SelectorInference
from fiftyone_refvos.models.selector.inference import LanguageFrameSelector
from fiftyone_refvos.models.selector.network import SelectorNetwork
from fiftyone_refvos.training.selector.sources import LabelSource


class RankValidation:
    """The mean rank correlation of scores and pseudo-labels over expressions, in [-1, 1].

    Expressions whose labels are all alike have no order to find, and do not count.

    Args:
        network: that is trained, with LoRA in it
        tokenizer: of the same network
        source: videos that are not trained on

    Raises:
        ValueError: if no expression has labels that differ
    """

    def __init__(self, network: SelectorNetwork, tokenizer: LlamaTokenizer, source: LabelSource) -> None:
        self._selector = LanguageFrameSelector(network, tokenizer, SelectorInference())
        self._source = source
        videos = [source.video(index) for index in range(len(source))]
        usable = [each for video in videos for each in video.expressions if len(set(each.labels) - {None}) > 1]
        if not usable:
            raise ValueError(f"there is nothing to validate on in {source.name!r}: no labels of an expression differ")
        for expression in usable:  # what is wrong is said now, not at the first validation
            self._selector.check(Expression(expression.id, expression.text))

    def __call__(self) -> float:
        """The mean over expressions; 0 for one whose scores are all alike."""
        found = []
        for index in range(len(self._source)):
            video = self._source.video(index)
            asked = [each for each in video.expressions if len(set(each.labels) - {None}) > 1]
            if not asked:
                continue
            scores = self._selector.scores(video, [Expression(each.id, each.text) for each in asked])
            for each in asked:
                known = sorted(each.known)
                value = spearman(scores[each.id][known], np.array([each.labels[t] for t in known], dtype=float))
                found.append(0.0 if math.isnan(value) else value)
        return fmean(found)
