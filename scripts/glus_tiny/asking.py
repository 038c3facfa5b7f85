"""The language model's last part: the questions of GLUS, and [SEG] as what SAM2 would be told by points.

A statement is over with its expression; a question goes on for twelve words before it is answered, so that its
meaning has to be carried on. And SAM2 has learned to make masks of points, see `points`: to ask for the embedding of
the points on what is meant costs a fraction of asking for masks, and says more of where it is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fiftyone_refvos.demo.rendered import RenderedVideos
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.prompt import IMAGE, OPEN_ANSWER, QUESTION, SEG_TOKEN
from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID, LlamaTokenizer
from scripts.glus_tiny.motion import MotionLearner, Motions, at_ends
from scripts.glus_tiny.points import embed_points
from scripts.glus_tiny.slots import UNITS
from scripts.glus_tiny.statements import NOTHING, ClipPrompt, Statement

_RATES = {"look": 1.0, "attribute": 1.5, "relation": 2.0, "motion": 4.0, "multi": 2.0, "no_target": 3.0}
_FIRST_WEIGHT = 4.0  # of the token that says whether there is such an object, the only one that GLUS reads
_POINT_WEIGHT = 10.0


class AskingLearner(MotionLearner):
    """A `Learner` of projector, language model, its head, and the projection of [SEG].

    Args:
        glus, tokenizer, videos, batch_size, statements, context_frames: as of a `MotionLearner`
    """

    _rates = _RATES

    def __init__(
        self,
        glus: GlusNetwork,
        tokenizer: LlamaTokenizer,
        videos: RenderedVideos,
        *,
        batch_size: int,
        statements: int,
        context_frames: int,
    ) -> None:
        super().__init__(
            glus,
            tokenizer,
            videos,
            batch_size=batch_size,
            statements=statements,
            context_frames=context_frames,
        )
        self._prompt = ClipPrompt(glus, tokenizer, context_frames, ending="")
        self._network["seg_projection"] = glus.seg_projection
        self._seg_id = tokenizer.token_id(SEG_TOKEN)

    def _encode(self, chosen: Sequence[Statement]) -> tuple[list[int], list[float], list[int]]:
        """The first question is the one of inference, word by word; later ones have no picture of their own."""
        ids: list[int] = []
        weights: list[float] = []
        ends: list[int] = []
        for number, statement in enumerate(chosen):
            asked = f"{QUESTION.format(statement.expression)} ASSISTANT: {OPEN_ANSWER}"
            question = self._after_picture(asked) if number == 0 else self._tokenizer.encode(f"USER: {asked}")[1:]
            answer = self._tokenizer.encode(f"{statement.answer}.")[1:]
            if statement.answer != NOTHING:
                answer = [self._seg_id, *answer]
            ends.append(len(ids) + len(question) - 1)
            ids += question + answer
            weights += [0.0] * len(question) + [_FIRST_WEIGHT] + [1.0] * (len(answer) - 1)
        return ids, weights, ends

    def _after_picture(self, text: str) -> list[int]:
        ids = self._tokenizer.encode(f"{IMAGE}\n{text}")
        return ids[ids.index(IMAGE_ID) + 2 :]  # the end of the picture belongs to what comes before

    def _word_losses(self, words: Tensor, things: Tensor, batch: Motions) -> dict[str, Tensor]:
        ends = at_ends(words, batch)
        losses = {"meant": self._match_loss(ends, things, batch)}
        meant = batch.meant == 1
        has_target = meant.any(-1)
        if has_target.any():
            places = batch.places[:, -1, None].expand(-1, meant.shape[1], -1, -1)  # (B, statements, objects, 3)
            there = meant & (places[..., 0] == 1)
            points = torch.cat([places[..., 1:] / UNITS, there[..., None]], dim=-1)[has_target]
            wanted = embed_points(self._glus.sam, points).detach()
            losses["points"] = _POINT_WEIGHT * F.mse_loss(self._glus.seg_projection(ends[has_target]), wanted)
        return losses
