"""GLUS on a GPU: how far it is from the golden data and from the CPU, and what a network of the published size costs.

- parity: the golden inference cases on the CPU, in float32 without TF32, in float32 with PyTorch's defaults (which
  let convolutions round to TF32), and in bfloat16: the largest error of each stage, and the final masks.
- tiny: the masks of glus-tiny on demo videos, against those of the CPU.
- published: LLaMA-7B, CLIP ViT-L/14 and SAM2 Hiera-L with random weights in bfloat16, written to a folder (15 GB) and
  loaded from it. Their language model would never answer [SEG], so each of its answers counts as [SEG], and every
  frame costs as much as a frame can. Frames are in memory; reading videos and storing masks are not measured.

Usage: python -m benchmarks.glus_gpu [--golden FOLDER] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig

from benchmarks.glus_expressions import EXPRESSIONS
from benchmarks.machine import processor
from fiftyone_refvos.demo import DemoConfig, generate, video_seed
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.glus.config import ARCHITECTURE, GlusConfig
from fiftyone_refvos.models.glus.inference import GlusSegmenter, Step
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.weights import empty_network, load_network, published_name
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.models.registry import CLIP, SHIPPED
from fiftyone_refvos.models.sam2 import DecodedMasks, ImageFeatures
from fiftyone_refvos.verify import glus as golden
from fiftyone_refvos.verify.report import CaseReport
from fiftyone_refvos.video import Frame
from tests.shared import shared_root

RESULTS = Path(__file__).parent / "results"
VIDEO = DemoConfig(height=480, width=854, num_frames=60)
TINY_VIDEOS = 8
REPEATS = 3
# What is not named here has the defaults of transformers, which are LLaMA-7B's, and those of the project for SAM2.
LLAVA = {"architectures": [ARCHITECTURE], "mm_hidden_size": 1024, "out_dim": 256, "mm_vision_tower": CLIP.repo_id}
PUBLISHED = LlamaConfig(vocab_size=32004).to_dict() | LLAVA
VIT_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
VIT_L14 = CLIPVisionConfig(**VIT_L, image_size=224, patch_size=14)
RUNS = {"1 expression": [EXPRESSIONS[:1]], "8 together": [EXPRESSIONS], "8 one by one": [[e] for e in EXPRESSIONS]}
# Cut from the name of a golden stage: the expression, direction, variant or step that it is of.
_OF_WHICH = re.compile(r"^(expr\d+\.(fwd\.|bwd\.)?|variant\.\w+\.)|_step\d+$|_sub\d+$|_packed")
_METHODS = {  # of the network, and then of its SAM2, with the stage that each belongs to
    "clip_pixels": "CLIP preprocessing on the CPU",
    "clip_features": "CLIP",
    "prefill": "LLaMA",
    "answer": "LLaMA",
    "encode_image": "SAM2 image encoder",
    "condition": "SAM2 memory attention",
    "decode": "SAM2 mask decoder",
    "remember": "SAM2 memory encoder",
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Mode:
    """Where and in which precision a network runs."""

    name: str
    device: str
    dtype: torch.dtype
    tf32: bool = True  # as PyTorch has it for convolutions

    def context(self) -> AbstractContextManager[Any]:
        """The context to run in."""
        return torch.backends.cudnn.flags(enabled=True, allow_tf32=self.tf32)


CPU = Mode("CPU float32", "cpu", torch.float32)
FULL = Mode("GPU float32, no TF32", "cuda", torch.float32, tf32=False)
GPU = (FULL, Mode("GPU float32, defaults", "cuda", torch.float32), Mode("GPU bfloat16", "cuda", torch.bfloat16))


@dataclass
class Overlap:
    """How much two sets of masks agree, over all that are added."""

    pixels: int = 0
    differ: int = 0
    both: int = 0
    either: int = 0

    def add(self, ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> None:
        """Counts masks of one shape."""
        self.pixels += ours.size
        self.differ += int((ours != theirs).sum())
        self.both += int((ours & theirs).sum())
        self.either += int((ours | theirs).sum())

    def row(self) -> Row:
        """The share of differing pixels, and the IoU of all masks together."""
        return {"differing pixels": self.differ / self.pixels, "IoU": self.both / max(self.either, 1)}


@dataclass
class HostReport(CaseReport):
    """Compares on the CPU, whatever device a tensor is on, and adds up the final masks."""

    final: Overlap = field(default_factory=Overlap)

    def add_values(self, name: str, ours: Tensor, golden: Tensor, tolerance: float) -> None:
        super().add_values(name, to_host(ours), golden, tolerance)

    def add_masks(self, name: str, ours: NDArray[np.bool_], golden: NDArray[np.bool_]) -> None:
        super().add_masks(name, ours, golden)
        if "final_masks" in name:
            self.final.add(ours, golden)


class HostSegmenter(GlusSegmenter):
    """Gives every step on the CPU in float32, where golden data are compared."""

    def steps(self, *args: Any, **options: Any) -> Iterator[Step]:
        return map(to_host, super().steps(*args, **options))


class AnsweringSegmenter(GlusSegmenter):
    """Takes every answer for [SEG]."""

    def _ask(self, *args: Any) -> list[Step]:
        return [replace(step, found=True) for step in super()._ask(*args)]


@dataclass(frozen=True)
class Frames:
    """A video in memory."""

    frames: list[Frame]
    size: tuple[int, int] = (VIDEO.height, VIDEO.width)
    name: str = "demo"

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        return (self.frames[index] for index in indices)


class Stopwatch:
    """Seconds per stage between CUDA events: the GPU's work, and its waiting for the CPU within the stage."""

    def __init__(self, network: GlusNetwork) -> None:
        self.events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = defaultdict(list)
        for method in _METHODS:
            part = network if hasattr(network, method) else network.sam
            setattr(part, method, self._timed(_METHODS[method], getattr(part, method)))

    def _timed(self, stage: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            result = original(*args)
            end.record()
            self.events[stage].append((start, end))
            return result

        return timed

    def take(self) -> dict[str, float]:
        """The seconds since the last time."""
        torch.cuda.synchronize()
        taken = {stage: sum(a.elapsed_time(b) for a, b in pairs) / 1000 for stage, pairs in self.events.items()}
        self.events.clear()
        return {stage: taken.get(stage, 0.0) for stage in _METHODS.values()}


def to_host(value: Any) -> Any:
    """Tensors, and the dataclasses of a step, on the CPU in float32; everything else as it is."""
    if isinstance(value, Tensor):
        return value.to("cpu", torch.float32)
    if isinstance(value, Step | ImageFeatures | DecodedMasks):
        return replace(value, **{f.name: to_host(getattr(value, f.name)) for f in fields(value)})
    return value


def parity(folder: Path) -> tuple[list[Row], list[Row]]:
    """The largest error of each kind of stage per mode, and the final masks per case and mode."""
    stages: dict[str, Row] = {}
    masks = []
    for case in sorted(filter(golden.is_inference_case, folder.iterdir())):
        for mode in (CPU, *GPU):
            report = check(case, mode)
            masks.append({"case": case.name, "mode": mode.name} | report.final.row())
            for stage in report.stages:
                kind = _OF_WHICH.sub("", stage.name)
                row = stages.setdefault(kind, {"stage": kind, "tolerance": stage.tolerance})
                row[mode.name] = max(row.get(mode.name, 0.0), float(stage.error))
                if mode.device == "cpu" or mode is FULL:
                    print("" if stage.passed else f"{case.name}, {mode.name}: FAIL {stage}\n", end="", flush=True)
    return list(stages.values()), masks


def check(case: Path, mode: Mode) -> HostReport:
    """Runs a golden case, which is checked on the CPU elsewhere, in a mode."""

    def load(*args: Any, **options: Any) -> GlusNetwork:
        return load_network(*args, **{**options, "device": torch.device(mode.device), "dtype": mode.dtype})

    names: Row = {"load_network": load, "GlusSegmenter": HostSegmenter, "CaseReport": HostReport}
    with patch.multiple(golden, **names), mode.context():
        return cast(HostReport, golden.check_inference(case))


def tiny() -> list[Row]:
    """How much the masks of glus-tiny agree with those of the CPU, per mode."""
    expected = tiny_masks(CPU)
    rows = []
    for mode in GPU:
        overlap = Overlap()
        for key, ours in tiny_masks(mode).items():
            overlap.add(ours, expected[key])
        rows.append({"mode": mode.name, "masks": len(expected)} | overlap.row())
    return rows


def tiny_masks(mode: Mode) -> dict[tuple[int, str, int], NDArray[np.bool_]]:
    """All masks of glus-tiny, by video, expression and frame."""
    masks = {}
    with mode.context():
        segmenter = load_segmenter("glus-tiny", device=mode.device, dtype=mode.dtype)
        for index in range(TINY_VIDEOS):
            video = generate(video_seed("test", index), DemoConfig())
            for result in segmenter.segment(video, [Expression(e.id, e.text) for e in video.expressions]):
                masks[index, result.expression_id, result.frame] = result.masks
    return masks


def published(folder: Path) -> tuple[Row, list[Row], list[Row]]:
    """What loading costs, what each of `RUNS` does, and where its time goes."""
    start = time.perf_counter()
    write_checkpoint(folder)
    written = time.perf_counter()
    loaded = cast(GlusSegmenter, load_segmenter("glus", checkpoint=folder, clip_path=folder / "clip"))
    torch.cuda.synchronize()
    network = loaded.network
    loading = {"writing, s": written - start, "loading, s": time.perf_counter() - written}
    loading |= {"parameters": sum(p.numel() for p in network.parameters())}
    loading |= {"weights, GB": torch.cuda.memory_allocated() / 1e9}
    segmenter = AnsweringSegmenter(network, LlamaTokenizer(folder), loaded.settings)
    stopwatch = Stopwatch(network)
    frames = list(generate(video_seed("test", 0), VIDEO).frames())
    costs, times = [], []
    for name, groups in RUNS.items():
        timed_run(segmenter, frames[:12], groups[:1], stopwatch)  # kernels are chosen, memory is taken
        runs = [timed_run(segmenter, frames, groups, stopwatch) for _ in range(REPEATS)]
        cost, stages = sorted(runs, key=lambda run: run[0]["seconds"])[REPEATS // 2]
        spread = {"fastest": min(r[0]["seconds"] for r in runs), "slowest": max(r[0]["seconds"] for r in runs)}
        costs.append({"run": name} | cost | spread | {"frames per second": len(frames) / cost["seconds"]})
        times.append({"run": name} | {stage: 1000 * s / len(frames) for stage, s in stages.items()})
    return loading, costs, times


def timed_run(
    segmenter: GlusSegmenter, frames: list[Frame], groups: list[list[Expression]], stopwatch: Stopwatch
) -> tuple[Row, dict[str, float]]:
    """One pass per group of expressions: wall time, masks and memory, and the seconds of each stage."""
    stopwatch.take()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    masks = sum(result.found for group in groups for result in segmenter.segment(Frames(frames), group))
    seconds = time.perf_counter() - start
    stages = stopwatch.take()
    stages["rest (masks at frame size, Python)"] = seconds - sum(stages.values())
    return {"seconds": seconds, "masks": masks, "peak, GB": torch.cuda.max_memory_allocated() / 1e9}, stages


def write_checkpoint(folder: Path) -> None:
    """A checkpoint with random bfloat16 weights under the published names; the tokenizer is that of glus-tiny."""
    (folder / "clip").mkdir(parents=True)
    for name in ("tokenizer.model", "added_tokens.json"):
        shutil.copy(SHIPPED / "glus-tiny" / name, folder)
    (folder / "config.json").write_text(json.dumps(PUBLISHED))
    VIT_L14.save_pretrained(folder / "clip")
    torch.manual_seed(0)
    own, clip = {}, {}
    for name, tensor in empty_network(GlusConfig.read(folder), VIT_L14).state_dict().items():
        value = torch.randn(tensor.shape, dtype=torch.bfloat16, device="cuda").mul_(0.02).cpu()
        if tensor.ndim == 1 and name.endswith("weight"):  # of a norm
            value.add_(1)
        if name.startswith("clip."):
            clip[f"vision_model.{name.removeprefix('clip.')}"] = value
        else:
            own[published_name(name)] = value
    save_file(clip, folder / "clip" / "model.safetensors")
    torch.save(own, folder / "pytorch_model.bin")


def main() -> None:
    """Measures, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, default=shared_root() / "golden" / "glus", help="golden GLUS cases")
    parser.add_argument("--folder", type=Path, help="where 15 GB may be written for a while; else the system's place")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark measures a GPU, and PyTorch sees none; nothing was run")
    tables: dict[str, list[Row]] = {}
    if arguments.golden.is_dir():
        tables["Largest error against the golden data"], tables["Final masks, golden"] = parity(arguments.golden)
    else:
        print(f"no golden data in {arguments.golden}: parity is not measured; pass --golden FOLDER")
    tables["Masks of glus-tiny against those of the CPU"] = tiny()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        loading, costs, times = published(Path(temporary, "glus"))
    tables |= {"Published size, loading": [loading], "Published size, 60 frames": costs}
    tables["Published size, milliseconds per frame of the video"] = times
    machine = {"gpu": torch.cuda.get_device_name(), "cpu": processor(), "torch": torch.__version__}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "glus_gpu.json").write_text(json.dumps(machine | tables, indent=2) + "\n")
    (RESULTS / "glus_gpu.md").write_text(report(machine, tables))


def report(machine: dict[str, str], tables: dict[str, list[Row]]) -> str:
    """All tables as Markdown."""
    names = f"{machine['gpu']}, {machine['cpu']}, PyTorch {machine['torch']}"
    lines = [f"`python -m benchmarks.glus_gpu`; {names}. The module says what is measured, and how."]
    lines += [f"Errors above the tolerance of float32 are bold. Times are the median of {REPEATS} runs."]
    return "\n".join(
        ["# GLUS on a GPU\n", *lines, "", *(f"## {title}\n\n{markdown(tables[title])}" for title in tables)]
    )


def markdown(rows: list[Row]) -> str:
    """Rows of equal keys as a table; an error above its tolerance is bold."""

    def cell(value: Any, limit: float) -> str:
        text = f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        return f"**{text}**" if isinstance(value, float) and value > limit else text

    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    for row in rows:
        limit = row.get("tolerance", float("inf"))
        lines.append("| " + " | ".join(cell(value, limit) for value in row.values()) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
