"""The files of a Sa2VA case, and the comparisons that several of its stages share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from fiftyone_refvos.models.sa2va.asking import Answer, Asker
from fiftyone_refvos.models.sa2va.families import Family, Visual
from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter
from fiftyone_refvos.models.sa2va.language import Generation
from fiftyone_refvos.models.sa2va.loading import load_sa2va
from fiftyone_refvos.models.sam2_config import Sam2Sizes
from fiftyone_refvos.verify.report import CaseReport
from fiftyone_refvos.video import FolderFrames, Frame, open_frames_dir

LANGUAGE = 1e-5  # visual tokens, embeddings, hidden states
EMBEDDING = 1e-4  # prompt embeddings, and what SAM2 makes of equal pixels
# What SAM2 makes of equal prompts. Random weights amplify: with convolutions for another processor presence scores
# change by up to 2.1e-3, object pointers by 1.1e-3, maps conditioned on memories, rounded to bfloat16, by 1.5e-3.
SAM = 5e-3
IOUS = 2e-3  # predicted ones, which change by up to 8e-4 so
MASK_LOGITS = 5e-2
MASK_PIXELS = 5e-4  # share of pixels, of a stage at its tolerance
END_TO_END_PIXELS = 5e-3  # where masks of an earlier stage were thresholded, and for single images
_SUMS = 1e-2  # of 200,000 pixel values
_MEMORY = 2**-6  # relative: memories are rounded to bfloat16

Values = Mapping[str, tuple[Tensor, float]]


@dataclass(frozen=True)
class Case:
    """A Sa2VA case; golden tensors of one task begin with its prefix.

    Attributes:
        path: the case
        report: what is compared goes here
        golden: all stored tensors
        meta: texts of the tasks
        segmenter: with the network of the case
        compared: names of the tensors that were compared so far
    """

    path: Path
    report: CaseReport
    golden: dict[str, Tensor]
    meta: dict[str, Any]
    segmenter: Sa2vaSegmenter
    compared: set[str]

    @classmethod
    def open(cls, path: Path, report: CaseReport) -> Case:
        """Loads the network in fp32 on the CPU, as the case was made."""
        meta = json.loads((path / "inputs" / "meta.json").read_text(encoding="utf-8"))
        segmenter = load_sa2va(
            path / "checkpoint",
            sam2=read_sizes(path / "sam2_dims.json"),
            device="cpu",
            dtype="float32",
            settings={"key_frames": meta.get("sample_num_frames", 5)},
        )
        return cls(path, report, load_file(path / "outputs.safetensors"), meta, segmenter, set())

    @property
    def asker(self) -> Asker:
        """What answers the questions of the case."""
        return self.segmenter.asker

    @property
    def family(self) -> Family:
        """How the network of the case sees and is asked."""
        return self.asker.family

    @cached_property
    def frames(self) -> FolderFrames:
        """The video of the case."""
        names = sorted(file.name for file in (self.path / "inputs").glob("frame_*.png"))
        return open_frames_dir(self.path / "inputs", names)

    @cached_property
    def image(self) -> Frame:
        """The single image of the case."""
        with Image.open(self.path / "inputs" / "image.png") as image:
            return np.array(image.convert("RGB"))

    def has(self, prefix: str) -> bool:
        """Whether golden holds anything of a task."""
        return any(name.startswith(f"{prefix}.") for name in self.golden)

    def add(self, prefix: str, values: Values, *, note: str = "") -> None:
        """Compares those quantities of a task that golden has."""
        for name, (ours, tolerance) in values.items():
            golden = self.golden.get(f"{prefix}.{name}")
            if golden is not None:
                self.report.add_values(f"{prefix}.{name}{note}", ours, golden, tolerance)
                self.compared.add(f"{prefix}.{name}")

    def add_rows(self, name: str, ours: Tensor, rows: Tensor, tolerance: float) -> None:
        """Compares those rows `(T,) bool` of a quantity that mean the same on both sides."""
        golden = self.golden.get(name)
        if golden is not None and rows.any():
            note = "" if rows.all() else f", {int(rows.sum())} of {len(rows)} rows"
            self.report.add_values(f"{name}{note}", ours[rows], golden[rows], tolerance)
            self.compared.add(name)
        else:
            self.input_only(name, "no row means the same on both sides")

    def add_memory(self, name: str, ours: Tensor) -> None:
        """Compares a memory, relative to its size."""
        golden = self.golden.get(name)
        if golden is not None:
            difference = (ours.double() - golden) / golden.abs().clamp(min=1.0)
            self.report.add_values(name, difference, torch.zeros_like(difference), _MEMORY)
            self.compared.add(name)

    def add_equal(self, name: str, ours: list[Any]) -> None:
        """Compares ids or indices, none of which may differ."""
        golden = self.golden.get(name)
        if golden is not None:
            self.report.add_equal(name, ours, golden.tolist())
            self.compared.add(name)

    def add_indices(self, name: str, ours: list[int]) -> None:
        """Compares key frames; of a video with fewer frames than key frames, the published program repeats some."""
        golden = self.golden.get(name)
        if golden is not None:
            self.report.add_equal(name, ours, sorted({*golden.tolist()}))
            self.compared.add(name)

    def add_masks(self, name: str, ours: NDArray[np.bool_], *, tolerance: float, note: str = "") -> None:
        """Compares masks `(T, H, W)` with those stored as bits along the width."""
        golden = self.golden.get(name)
        if golden is not None:
            stored = self.unpack(name, ours.shape[2])
            self.report.add_masks(f"{name}{note}", ours, stored, frame=tolerance, video=tolerance)
            self.compared.add(name)

    def unpack(self, name: str, width: int) -> NDArray[np.bool_]:
        """Stored masks `(T, H, W) bool`."""
        return np.unpackbits(self.golden[name].numpy(), axis=-1)[..., :width].astype(bool)

    def input_only(self, name: str, reason: str) -> None:
        """Notes a stored tensor that is no result."""
        if name in self.golden:
            self.report.not_compared[name] = reason

    def note_left_out(self, tasks: Mapping[str, str]) -> None:
        """Notes the stored tensors that nothing was compared with, and tasks of the case without any.

        Args:
            tasks: those that were looked for, per golden prefix
        """
        for name in sorted(self.golden.keys() - self.compared - self.report.not_compared.keys()):
            self.report.not_compared[name] = "unknown name"
        done = {task for prefix, task in tasks.items() if self.has(prefix)}
        for task in sorted(self.meta["tasks"].keys() - done):
            self.report.not_compared[f"task {task}"] = "nothing of it is stored"

    def answers(self, tasks: Mapping[str, str], visual: Visual | None) -> dict[str, Answer]:
        """Answers to the tasks about the same images, greedily or along the stored ids, per golden prefix."""
        free = {prefix: key for prefix, key in tasks.items() if not self.forced(key)}
        questions = [self.meta["tasks"][key]["text"] for key in free.values()]
        found = dict(zip(free, self.asker.ask(questions, visual), strict=True)) if free else {}
        for prefix, key in tasks.items():
            if prefix not in free:
                found[prefix] = self._forced(prefix, self.meta["tasks"][key]["text"], visual)
        return found

    def forced(self, task: str) -> bool:
        """Whether the ids of an answer are given, not found."""
        return bool(self.meta["tasks"][task].get("forced"))

    def _forced(self, prefix: str, question: str, visual: Visual | None) -> Answer:
        """The states along stored ids, which a random network would not have answered."""
        prompt = self.family.encode(question, visual)
        ids = self.answer_ids(prefix, len(prompt))
        suffix = torch.cat([self.asker.suffix(prompt), self.family.inputs(ids[:-1], None).embeds])
        states = self.asker.language.read(self.asker.prefill(prompt, visual), suffix)
        return self.asker.conclude(prompt, Generation(ids, states[-len(ids) :]))

    def answer_ids(self, prefix: str, prompt_length: int) -> list[int]:
        """The stored ids of an answer; the Qwen families store them after those of the prompt."""
        ids: list[int] = self.golden[f"{prefix}.sequences"].tolist()
        return ids if self.family.network.config.family == "internvl" else ids[prompt_length:]

    def add_answer(self, prefix: str, task: str, answer: Answer, visual: Visual | None) -> None:
        """Compares a prompt, and what the language model makes of it."""
        self.add_equal(f"{prefix}.input_ids", answer.prompt)
        name = f"{prefix}.sequences"
        if self.forced(task):
            self.input_only(name, "an input: the answer is forced")
        elif name in self.golden:
            ids = self.answer_ids(prefix, len(answer.prompt))
            self.report.add_equal(name, answer.generation.ids, ids)
            self.compared.add(name)
        self.report.add_equal(f"{prefix}.text", [answer.text], [self.meta["tasks"][task]["prediction"]])
        inputs = self.family.inputs(answer.prompt, visual)
        positions = inputs.positions
        if len(self.golden.get(f"{prefix}.position_ids", positions)) == 4:
            positions = torch.cat([torch.arange(positions.shape[1])[None], positions])
        self.add(
            prefix,
            {
                "inputs_embeds_last64": (inputs.embeds[-64:], LANGUAGE),
                "prompt_embeds": (inputs.embeds, LANGUAGE),
                "position_ids": (positions, 0),
                "hidden_generated": (answer.generation.hidden, LANGUAGE),
                "seg_hidden": (answer.seg_states, LANGUAGE),
                "prompt_embed": (answer.prompt_embeddings, EMBEDDING),
            },
        )


def pixel_values(pixels: Tensor) -> Values:
    """Samples and sums of the vision pixels: tiles `(F, 3, S, S)`, or flattened patches `(patches, values)`."""
    over = (2, 3) if pixels.ndim == 4 else (0, 1)
    values = {
        "pixel_values_sum": (pixels.double().sum(over), _SUMS),
        "pixel_values_abssum": (pixels.double().abs().sum(over), _SUMS),
    }
    if pixels.ndim == 4:
        return values | {"pixel_values_s16": (pixels[..., ::16, ::16], LANGUAGE)}
    return values | {
        "pixel_values_first16": (pixels[:16], LANGUAGE),
        "pixel_values_rows_every256_cols_every7": (pixels[::256, ::7], LANGUAGE),
    }


def read_sizes(path: Path) -> Sam2Sizes | None:
    """The sizes of a tiny SAM2, of which published checkpoints say nothing."""
    if not path.is_file():
        return None
    dims = json.loads(path.read_text(encoding="utf-8"))
    trunk = dims["trunk"]
    return Sam2Sizes(
        embed_dim=trunk["embed_dim"],
        num_heads=trunk["num_heads"],
        stages=tuple(trunk["stages"]),
        global_att_blocks=tuple(trunk["global_att_blocks"]),
        d_model=dims["neck"]["d_model"],
        mem_dim=dims["mem_enc"]["out_dim"],
        memory_layers=dims["mem_attn"]["num_layers"],
        memory_ffn=dims["mem_attn_layer"]["dim_feedforward"],
    )
