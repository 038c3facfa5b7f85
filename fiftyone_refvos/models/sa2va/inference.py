"""Sa2VA over a video: the key frames are asked about once per expression, and what is found is carried on.

key frames -> visual tokens, once per video -> per expression a question, its answer, a state at each [SEG];
each frame -> SAM2 features, once per video -> key frames prompted with those states -> memory -> all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from fiftyone_refvos.masklet import Expression, FrameResult
from fiftyone_refvos.models.conversation import check_length, check_text
from fiftyone_refvos.models.sa2va.asking import Answer, Asker
from fiftyone_refvos.models.sa2va.config import RESOURCES, Mode, Sa2vaInference
from fiftyone_refvos.models.sa2va.families import IMAGE, Family, Visual
from fiftyone_refvos.models.sa2va.images import Sa2vaImageSegmenter
from fiftyone_refvos.models.sa2va.tracking import VideoStep, track_video
from fiftyone_refvos.models.sam2_tracking import masks_through_image
from fiftyone_refvos.models.segmenter import check_request
from fiftyone_refvos.sampling import uniform_frames
from fiftyone_refvos.video import Frame, FrameSource


@dataclass(frozen=True)
class VideoAnswers:
    """What the language model says of a video.

    Attributes:
        key_frames: the RGB frames that it saw, by index from 0
        answers: one per question
    """

    key_frames: dict[int, Frame]
    answers: list[Answer]


class Sa2vaSegmenter:
    """Referring video object segmentation with Sa2VA.

    Args:
        family: with its network
        settings: how to run it

    Raises:
        ValueError: for a mode that the checkpoint has no weights for
    """

    def __init__(self, family: Family, settings: Sa2vaInference) -> None:
        self.family = family
        self.network = family.network
        self.settings = settings
        tuned = self.network.sam.tuned_decoder is not None
        self.mode: Mode = settings.mode or ("sa2va_i" if tuned else "first")
        if self.mode == "sa2va_i" and not tuned:
            raise ValueError("mode 'sa2va_i' needs the original SAM2 decoder, which only Sa2VA-i checkpoints hold")
        self.asker = Asker(family, max_new_tokens=settings.max_new_tokens, batch=settings.expression_batch)

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that the masks depend on, as plain values; batch sizes are none of them."""
        settings = asdict(self.settings) | {"mode": self.mode}
        return {name: value for name, value in settings.items() if name not in RESOURCES}

    def for_images(self) -> Sa2vaImageSegmenter:
        """The same networks as a segmenter of images."""
        return Sa2vaImageSegmenter(self.asker, self.settings)

    def check(self, expression: Expression) -> None:
        """Raises a ValueError for an expression that is empty or holds a reserved token."""
        check_text(expression.text, self.family.tokenizer, what=f"expression {expression.id!r}")

    def key_frames(self, num_frames: int) -> list[int]:
        """Indices of the frames that the language model sees and SAM2 is prompted in."""
        if self.mode == "first":
            return list(range(min(self.settings.key_frames, num_frames)))
        return uniform_frames(num_frames, self.settings.key_frames)

    def segment(
        self,
        frames: FrameSource,
        expressions: Sequence[Expression],
        *,
        key_frames: Mapping[str, int] | None = None,
    ) -> Iterator[FrameResult]:
        """Streams the masks of all expressions: first those of the key frames, then the others in order.

        An answer has one mask per [SEG]. Without any the expression names nothing in the video: every frame gets
        a zero mask and `found=False`, and is not even read if that holds for all expressions.

        Raises:
            ValueError: for a video without frames, expressions that cannot be asked, ids given twice, or key
                frames, which are a matter of the mode
        """
        check_request(frames, expressions)
        if key_frames:
            raise ValueError("Sa2VA takes no key frames: its mode says which frames it looks at")
        for expression in expressions:
            self.check(expression)
        return self._segment(frames, expressions)

    @torch.inference_mode()
    def _segment(self, frames: FrameSource, expressions: Sequence[Expression]) -> Iterator[FrameResult]:
        seen = self.ask(frames, expressions)
        counts = [len(answer.prompt_embeddings) for answer in seen.answers]
        absent = [expression for expression, count in zip(expressions, counts, strict=True) if count == 0]
        for expression in absent:
            for frame in range(len(frames)):
                nothing = np.zeros((1, *frames.size), dtype=bool)
                yield FrameResult(frame, expression.id, nothing, np.zeros(1, dtype=np.float32), False)
        if sum(counts) > 0:
            for step in self.track(frames, seen):
                yield from self.results(step, expressions, counts, frames.size)

    def ask(self, frames: FrameSource, expressions: Sequence[Expression]) -> VideoAnswers:
        """Asks the language model for each expression.

        Raises:
            ValueError: for a prompt that is longer than the model knows
        """
        questions = [segmentation_question(expression.text, self.mode) for expression in expressions]
        keys, visual = self.look(frames)
        most = self.network.config.text.max_position_embeddings
        for expression, question in zip(expressions, questions, strict=True):
            check_length(expression, len(self.family.encode(question, visual)), max_length=most)
        return VideoAnswers(keys, list(self.asker.ask(questions, visual)))

    def look(self, frames: FrameSource) -> tuple[dict[int, Frame], Visual]:
        """The frames that the language model sees, RGB by index from 0, and their visual tokens."""
        indices = self.key_frames(len(frames))
        keys = dict(zip(indices, frames.read(indices), strict=True))
        return keys, self.family.see_video(list(keys.values()))

    def track(self, frames: FrameSource, seen: VideoAnswers) -> Iterator[VideoStep]:
        """Carries the objects of all answers through the video."""
        return track_video(
            self.network.sam,
            frames,
            seen.key_frames,
            torch.cat([answer.prompt_embeddings for answer in seen.answers]),
            certain=self.mode == "sa2va_i",
            batch=self.settings.expression_batch,
        )

    def results(
        self, step: VideoStep, expressions: Sequence[Expression], counts: Sequence[int], size: tuple[int, int]
    ) -> Iterator[FrameResult]:
        """What a frame shows of expressions, each with a number of objects; those without any are left out."""
        masks = masks_through_image(step.low_res, self.network.sam.image_size, size).cpu().numpy()
        scores = step.scores.float().cpu().numpy()
        start = 0
        for expression, count in zip(expressions, counts, strict=True):
            own = slice(start, start + count)
            if count:
                yield FrameResult(step.frame, expression.id, masks[own], scores[own], True)
            start += count


def segmentation_question(text: str, mode: Mode) -> str:
    """The question about one expression; Sa2VA-i puts questions as it puts names."""
    if "?" in text and mode != "sa2va_i":
        return f"{IMAGE}\n {text} Please respond with a segmentation mask."
    return f"{IMAGE}\nPlease segment {text}."
