"""A GLUS training case as data: its videos, its configuration, the network before the step, and the drawn clips."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from sam2.modeling.sam.transformer import Attention
from torch import Tensor

from fiftyone_refvos.datasets.masks import parse_rle
from fiftyone_refvos.masklet import decode
from fiftyone_refvos.models.glus.config import GlusConfig
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.prompt import normalise
from fiftyone_refvos.models.glus.weights import load_network
from fiftyone_refvos.models.llama_tokenizer import IMAGE_TOKEN, LlamaTokenizer
from fiftyone_refvos.training.batch import Clip
from fiftyone_refvos.training.config import LoraConfig, LossConfig, SamplingConfig, TrainingConfig
from fiftyone_refvos.training.contrastive import BankEntry
from fiftyone_refvos.training.conversation import QUESTIONS, ConversationWriter, Round
from fiftyone_refvos.training.lora import published_parameter
from fiftyone_refvos.training.network import TrainingNetwork
from fiftyone_refvos.training.sampling import make_clip
from fiftyone_refvos.training.sources import TrainingExpression
from fiftyone_refvos.video import FolderFrames, Frame, open_frames_dir

_SOURCE = "mevis"


@dataclass(frozen=True)
class _Video:
    """A video of a case, as a `TrainingVideo`."""

    name: str
    frames: FolderFrames
    expressions: tuple[TrainingExpression, ...]
    anno_ids: dict[str, tuple[str, ...]]
    masks: dict[str, list[Any]]
    names: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.frames.size

    def __len__(self) -> int:
        return len(self.frames)

    def frame_name(self, index: int) -> str:
        return self.names[index]

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        return self.frames.read(indices)

    def targets(self, expressions: Sequence[TrainingExpression], index: int) -> NDArray[np.uint8]:
        sums = np.zeros((len(expressions), *self.size), dtype=np.uint8)
        for total, expression in zip(sums, expressions, strict=True):
            for anno in self.anno_ids[expression.id]:
                # a mask that is missing counts as empty, as in the published loader
                for mask in self.masks.get(anno, [])[index : index + 1]:
                    rle = parse_rle(mask, self.size, f"mask {anno} of frame {index}")
                    if rle is not None:
                        total += decode([rle], self.size)[0]
        return sums


@dataclass(frozen=True)
class _Source:
    """The videos of a case, as a `TrainingSource`."""

    videos: dict[str, _Video]
    name: str = _SOURCE
    contrastive: bool = True

    def __len__(self) -> int:
        return len(self.videos)

    def video(self, index: int) -> _Video:
        return list(self.videos.values())[index]


@dataclass
class StepCase:
    """A case as it is stored.

    Attributes:
        path: its folder
        expected: of expected.json
        golden: of outputs.safetensors
        source: its videos
        drawn_are_related: set by `draw`
    """

    path: Path
    expected: dict[str, Any]
    golden: dict[str, Tensor]
    source: _Source
    drawn_are_related: bool = False

    @property
    def config(self) -> TrainingConfig:
        """The published training without dropout, with the sizes of the case."""
        weights = self.expected["weights"]
        first = self.expected["batch"][0]
        adapter = load_file(self.path / "inputs" / "lora_adapter.safetensors")
        rank = next(len(tensor) for name, tensor in adapter.items() if "lora_A" in name)
        return TrainingConfig(
            lora=LoraConfig(rank=rank, alpha=2 * rank, dropout=0.0),
            losses=LossConfig(**{name: weights[name] for name in ("ce", "bce", "dice", "contrastive")}),
            sampling=SamplingConfig(
                query_frames=len(first["question_indices"]), context_frames=len(first["context_indices"])
            ),
        )

    def draw(self, positives: Tensor, negatives: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """What the published program drew; also notes whether it is a positive or negative here."""
        rows = [row for row in self.expected["contrastive"] if row["loss"] is not None]
        positive = torch.tensor([row["positive_bank_index"] for row in rows])
        negative = torch.tensor([row["negative_bank_indices"] for row in rows])
        self.drawn_are_related = bool(
            positives.gather(1, positive[:, None]).all() and negatives.gather(1, negative).all()
        )
        return positive, negative


def read_case(path: Path) -> StepCase:
    """Reads a case folder."""

    def read(name: str) -> Any:
        return json.loads((path / name).read_text(encoding="utf-8"))

    meta, masks = read("inputs/meta_expressions.json")["videos"], read("inputs/mask_dict.json")
    videos = {
        name: _read_video(name, video, masks, path / "inputs" / "frames" / name) for name, video in meta.items()
    }
    return StepCase(path, read("expected.json"), load_file(path / "outputs.safetensors"), _Source(videos))


def _read_video(name: str, video: dict[str, Any], masks: dict[str, list[Any]], folder: Path) -> _Video:
    rows = video["expressions"].items()
    return _Video(
        name=name,
        frames=open_frames_dir(folder),
        expressions=tuple(TrainingExpression(n, row["exp"], tuple(map(str, row["obj_id"]))) for n, row in rows),
        anno_ids={n: tuple(map(str, row["anno_id"])) for n, row in rows},
        masks=masks,
        names=tuple(video["frames"]),
    )


def network_before(case: StepCase) -> TrainingNetwork:
    """The network of a case with its adapter, its token bank as before the step, and no dropout."""
    folder = case.path / "checkpoint"
    glus = load_network(
        folder,
        case.path / "clip_vision_tower",
        GlusConfig.read(folder, sam2_config=case.path / "sam2_config.yaml"),
        memory_gamma="checkpoint",
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    network = TrainingNetwork(glus, case.config, draw=case.draw)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, Attention):
            module.dropout_p = 0.0
    adapter = load_file(case.path / "inputs" / "lora_adapter.safetensors")
    parameters = {published_parameter(name): parameter for name, parameter in glus.named_parameters()}
    with torch.no_grad():
        for name, tensor in adapter.items():
            parameters[name].copy_(tensor)
    tokens = load_file(case.path / "inputs" / "bank.safetensors")["bank_tokens"]
    network.bank.append([_bank_entry(case, *row) for row in case.expected["bank_prefill"]], tokens)
    return network


def _bank_entry(case: StepCase, identity: str, frame: str) -> BankEntry:
    video, _, expression = identity.removeprefix(f"{_SOURCE}_").rpartition("_")
    known = case.source.videos.get(video)
    rows = [row for row in known.expressions if row.id == expression] if known is not None else []
    objects = tuple(sorted(rows[0].object_ids)) if rows else ()
    return BankEntry(f"{_SOURCE}/{video}", expression, frame, objects)


def drawn_clips(case: StepCase, glus: GlusNetwork) -> list[Clip]:
    """The clips that the published program drew."""
    writer = ConversationWriter(
        LlamaTokenizer(case.path / "checkpoint"),
        case.config.sampling,
        tokens_per_image=glus.tokens_per_image,
        max_length=glus.config.llama.max_position_embeddings,
    )
    clips = []
    conversations = iter(case.expected["conversations"])
    for sample in case.expected["batch"]:
        video = case.source.videos[sample["video"]]
        by_id = {expression.id: expression for expression in video.expressions}
        expressions = [by_id[identity] for identity in sample["expression_ids"]]
        rounds = [
            _rounds(expression.text, questions, next(conversations))
            for expression, questions in zip(expressions, sample["questions"], strict=True)
        ]
        clips.append(
            make_clip(
                case.source,
                video,
                expressions,
                query=sample["question_indices"],
                context=sample["context_indices"],
                rounds=rounds,
                writer=writer,
            )
        )
    return clips


def _rounds(text: str, questions: Sequence[str], conversation: str) -> list[Round]:
    """The questions and answers that were drawn, back as templates."""
    expression = normalise(text).strip()
    templates = {question.format(expression): question for question in QUESTIONS}
    answers = [turn.rpartition(" ASSISTANT: ")[2] for turn in conversation.split("</s>")[:-1]]
    asked = [question.removeprefix(f"{IMAGE_TOKEN}\n") for question in questions]
    return [Round(templates[question], answer) for question, answer in zip(asked, answers, strict=True)]
