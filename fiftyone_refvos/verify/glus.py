"""GLUS inference cases: every intermediate of every step, the final masks, and the published variants."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.glus.config import GlusConfig, GlusInference, MemoryGamma
from fiftyone_refvos.models.glus.inference import GlusSegmenter, Step
from fiftyone_refvos.models.glus.weights import load_network
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.sam2 import DecodedMasks, ImageFeatures, LanguageSam2, masks_at_size
from fiftyone_refvos.sampling import context_frames
from fiftyone_refvos.verify.report import CaseReport
from fiftyone_refvos.video import FolderFrames, open_frames_dir

TOLERANCE = 1e-4  # pixels, features, embeddings, hidden states
LOGIT_TOLERANCE = 1e-3  # next-token logits, and mask logits, whose values reach 50
_STABILITY_TOLERANCE = 1e-2  # a ratio of pixel counts: one pixel of a thin band counts a lot

_FILES = ("steps.json", "outputs.safetensors", "sam2_config.yaml", "checkpoint", "clip_vision_tower")
_VARIANTS: dict[str, dict[str, Any]] = {
    "published_10": {},
    "checkpoint_gamma": {"memory_gamma": "checkpoint"},
    "demo_context": {"memory_gamma": "checkpoint", "context_mode": "linspace"},
    "mem_stride1": {"memory_stride": 1},
}

# Quantities of one step that golden stores for every step of a pass, as rows of one tensor.
_ROWS: dict[str, tuple[Callable[[Step], Tensor], float]] = {
    "next_token_logits": (lambda s: s.logits, LOGIT_TOLERANCE),
    "seg_hidden": (lambda s: s.hidden[-1], TOLERANCE),
    "seg_embed": (lambda s: s.prompt_embedding, TOLERANCE),
    "stability": (lambda s: _masks(s).stability[0], _STABILITY_TOLERANCE),
    "iou_pred_all": (lambda s: _masks(s).iou_all[0], TOLERANCE),
    "object_score": (lambda s: _masks(s).object_score[0], LOGIT_TOLERANCE),
    "low_res_sub4": (lambda s: _masks(s).low_res[0, 0, ::4, ::4], LOGIT_TOLERANCE),
}
# Quantities that golden stores for the picked steps of a pass.
_PICKED: dict[str, tuple[Callable[[Step], Tensor], float]] = {
    "fpn_top_sub4": (lambda s: _features(s).top[0, :, ::4, ::4], TOLERANCE),
    "fpn_s1_sub8": (lambda s: _features(s).stride8[0, :, ::8, ::8], TOLERANCE),
    "fpn_s0_sub16": (lambda s: _features(s).stride4[0, :, ::16, ::16], TOLERANCE),
    "image_embed_sub4": (lambda s: _present(s.conditioned)[0, :, ::4, ::4], TOLERANCE),
    # a memory is made from 20 * sigmoid(mask logits), so it has the tolerance of those logits
    "maskmem_sub4": (lambda s: _present(s.memory)[0, :, ::4, ::4], LOGIT_TOLERANCE),
}
# Quantities that are the same in every step of a pass.
_CONSTANTS: dict[str, Callable[[LanguageSam2, list[Step]], Tensor]] = {
    "maskmem_pos_sub8": lambda sam, steps: sam.memory_position(_any_memory(steps))[0, :, ::8, ::8],
    "dense_embed": lambda sam, _: sam.no_mask_embedding[0, :, 0, 0],
}
# Rows that exist only where [SEG] was found; NaN in golden otherwise.
_FOUND_ONLY = {"seg_embed", "stability", "iou_pred_all", "object_score", "low_res_sub4"}
_PASS_NAME = re.compile(r"^expr(\d+)\.(fwd|bwd)\.(.+)$")
_STEP_NAME = re.compile(r"^(inputs_embeds|last_hidden_tail|low_res_full)_step(\d+)$")


@dataclass(frozen=True)
class _Case:
    path: Path
    steps: dict[str, Any]
    golden: dict[str, Tensor]
    frames: FolderFrames
    expressions: list[Expression]
    key_frames: dict[str, int]

    def segmenter(self, memory_gamma: MemoryGamma, settings: GlusInference) -> GlusSegmenter:
        folder = self.path / "checkpoint"
        config = GlusConfig.read(folder, sam2_config=self.path / "sam2_config.yaml")
        network = load_network(
            folder,
            self.path / "clip_vision_tower",
            config,
            memory_gamma=memory_gamma,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        return GlusSegmenter(network, LlamaTokenizer(folder), settings)


def is_inference_case(path: Path) -> bool:
    """A folder with a GLUS checkpoint, its steps and its outputs."""
    return path.is_dir() and all((path / name).exists() for name in _FILES) and (path / "inputs" / "frames").is_dir()


def check_inference(path: Path) -> CaseReport:
    """Runs a case in fp32 on the CPU, as it was made, and compares every stored tensor."""
    report = CaseReport(path, "GLUS inference")
    case = _read_case(path)
    settings = GlusInference(memory_stride=case.steps["mem_stride"])
    segmenter = case.segmenter("published", settings)
    compared = _compare_video(report, case, segmenter)
    steps = list(segmenter.steps(case.frames, case.expressions, key_frames=case.key_frames))
    compared |= _compare_encoded_frames(report, case, steps)
    compared |= _compare_passes(report, case, segmenter.network.sam, steps)
    compared |= _compare_final_masks(report, case, steps)
    compared |= _compare_variants(report, case, settings)
    for name in sorted(case.golden.keys() - compared - report.not_compared.keys()):
        report.not_compared[name] = "unknown name"
    return report


def _read_case(path: Path) -> _Case:
    expressions = json.loads((path / "inputs" / "expressions.json").read_text(encoding="utf-8"))
    return _Case(
        path=path,
        steps=json.loads((path / "steps.json").read_text(encoding="utf-8")),
        golden=load_file(path / "outputs.safetensors"),
        frames=open_frames_dir(path / "inputs" / "frames"),
        expressions=[Expression(str(n), row["text"]) for n, row in enumerate(expressions)],
        key_frames={str(n): row["key_frame"] for n, row in enumerate(expressions)},
    )


@torch.inference_mode()
def _compare_video(report: CaseReport, case: _Case, segmenter: GlusSegmenter) -> set[str]:
    """What depends on the video alone."""
    network, golden, view = segmenter.network, case.golden, segmenter.run_settings.clip_view
    frames = list(case.frames.read(case.steps["clip_feature_frames"]))
    pixels = network.clip_pixels(frames, view)
    features = network.clip_features(pixels)
    ours = {
        "clip_pixels_sub4": pixels[..., ::4, ::4],
        "sam_pixels_sub16": torch.cat([network.sam_pixels(frame) for frame in frames])[..., ::16, ::16],
        "clip_features": features,
        "clip_pooled": network.pool(features),
    }
    if "frames_with_tokens" in golden:
        indices = golden["frames_with_tokens"].tolist()
        ours["visual_tokens"] = torch.cat([network.visual_tokens([f], view) for f in case.frames.read(indices)])
    present = {name: tensor for name, tensor in ours.items() if name in golden}
    for name, tensor in present.items():
        report.add_values(name, tensor, golden[name], TOLERANCE)
    return set(present)


def _compare_encoded_frames(report: CaseReport, case: _Case, steps: list[Step]) -> set[str]:
    """The frames whose visual tokens are stored: the context frames, and those of the first pass."""
    name = "frames_with_tokens"
    if name not in case.golden:
        return set()
    context = context_frames(len(case.frames), "center")
    report.add_equal("context_frames", context, case.steps["context_frames"])
    first = case.expressions[0].id
    frames = {s.frame for s in steps if s.expression.id == first and s.direction == "fwd"}
    report.add_equal(name, sorted(frames | set(context)), case.golden[name].tolist())
    return {name}


def _by_pass(steps: list[Step]) -> dict[str, list[Step]]:
    """Steps per "exprE.fwd" and "exprE.bwd", in pass order; the key frame opens both directions."""
    passes: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        passes[f"expr{step.expression.id}.{step.direction}"].append(step)
    for name in [name for name in passes if name.endswith(".bwd")]:
        passes[name].insert(0, passes[name.replace(".bwd", ".fwd")][0])  # computed once, for both directions
    return passes


def _compare_passes(report: CaseReport, case: _Case, sam: LanguageSam2, steps: list[Step]) -> set[str]:
    passes = _by_pass(steps)
    for number, expression in enumerate(case.steps["expressions"]):
        for direction, rows in expression["passes"].items():
            _compare_decisions(report, f"expr{number}.{direction}", passes[f"expr{number}.{direction}"], rows)
    compared = set()
    for name, golden in case.golden.items():
        match = _PASS_NAME.match(name)
        if match is None:
            continue
        pass_name, quantity = f"expr{match[1]}.{match[2]}", match[3]
        if quantity == "picked_steps":
            report.not_compared[name] = "no result: says which steps other tensors are of"
            continue
        picked = case.golden.get(f"{pass_name}.picked_steps")
        with report.stage(name):
            if quantity in _CONSTANTS:
                report.add_values(name, _CONSTANTS[quantity](sam, passes[pass_name]), golden, TOLERANCE)
                known = True
            else:
                known = _compare_pass_tensor(
                    report, name, quantity, golden, passes[pass_name], picked, case.frames.size
                )
            if not known:
                continue
        compared.add(name)
    return compared


def _compare_decisions(report: CaseReport, name: str, steps: list[Step], rows: list[dict[str, Any]]) -> None:
    def stable(step: Step) -> bool | None:
        return None if step.masks is None else bool(step.masks.stability[0] >= 0.98)

    report.add_equal(f"{name}.frames", [s.frame for s in steps], [r["frame"] for r in rows])
    report.add_equal(f"{name}.input_ids", [s.prompt.ids for s in steps], [r["input_ids"] for r in rows])
    report.add_equal(f"{name}.next_token", [s.next_token for s in steps], [r["predicted_token"] for r in rows])
    report.add_equal(f"{name}.found", [s.found for s in steps], [r["seg_found"] for r in rows])
    report.add_equal(
        f"{name}.memory_positions",
        [(s.memory_positions, s.missing_positions) for s in steps],
        [(r["memory_positions"], r["memory_positions_missing"]) for r in rows],
    )
    report.add_equal(f"{name}.stable", [stable(s) for s in steps], [r["stability_ok"] for r in rows])


def _compare_pass_tensor(
    report: CaseReport,
    name: str,
    quantity: str,
    golden: Tensor,
    steps: list[Step],
    picked: Tensor | None,
    size: tuple[int, int],
) -> bool:
    """Compares one tensor of a pass; False for a name that is not known."""
    step_name = _STEP_NAME.match(quantity)
    if quantity in _ROWS:
        value, tolerance = _ROWS[quantity]
        rows = [
            torch.full_like(golden[n], float("nan")) if quantity in _FOUND_ONLY and not step.found else value(step)
            for n, step in enumerate(steps)
        ]
        report.add_values(name, torch.stack(rows), golden, tolerance)
    elif quantity in _PICKED and picked is not None:
        value, tolerance = _PICKED[quantity]
        chosen = [
            value(steps[position]) if steps[position].found else torch.full_like(golden[n], float("nan"))
            for n, position in enumerate(picked.tolist())
        ]
        report.add_values(name, torch.stack(chosen), golden, tolerance)
    elif quantity == "masks_packed":
        report.add_masks(name, np.stack([_mask(step, size) for step in steps]), _unpack(golden, size))
    elif quantity == "min_abs_logit_quantiles":
        report.add_values(name, torch.stack([_quantiles(step, size) for step in steps]), golden, LOGIT_TOLERANCE)
    elif step_name is not None:
        _compare_one_step(report, name, step_name[1], golden, steps[int(step_name[2])])
    else:
        return False
    return True


def _compare_one_step(report: CaseReport, name: str, quantity: str, golden: Tensor, step: Step) -> None:
    if quantity == "inputs_embeds":
        stride = 1 if len(golden) == len(step.embeds) else 4
        report.add_values(name, step.embeds[::stride], golden, TOLERANCE)
    elif quantity == "last_hidden_tail":
        report.add_values(name, step.hidden[-len(golden) :], golden, TOLERANCE)
    else:
        report.add_values(name, _masks(step).low_res[0, 0], golden, LOGIT_TOLERANCE)


def _compare_final_masks(report: CaseReport, case: _Case, steps: list[Step]) -> set[str]:
    compared = set()
    for expression in case.expressions:
        name = f"expr{expression.id}.final_masks_packed"
        if name in case.golden:
            own = sorted((s for s in steps if s.expression.id == expression.id), key=lambda s: s.frame)
            masks = np.stack([_mask(step, case.frames.size) for step in own])
            report.add_masks(name, masks, _unpack(case.golden[name], case.frames.size))
            compared.add(name)
    return compared


def _compare_variants(report: CaseReport, case: _Case, settings: GlusInference) -> set[str]:
    """The first frames of the first expression, forward from frame 0, with other settings."""
    compared = set()
    for name, variant in case.steps.get("variants", {}).items():
        if name not in _VARIANTS:
            continue
        changed = replace(settings, **_VARIANTS[name])
        segmenter = case.segmenter(changed.memory_gamma or "published", changed)
        stream = segmenter.steps(case.frames, case.expressions[:1])
        steps = list(islice(stream, len(variant["order"])))
        prefix = f"variant.{name}"
        report.add_equal(f"{prefix}.found", [s.found for s in steps], variant["seg_found"])
        report.add_equal(
            f"{prefix}.memory_positions", [s.memory_positions for s in steps], variant["memory_positions"]
        )
        compared |= _compare_variant_tensors(report, case, prefix, steps)
    return compared


def _compare_variant_tensors(report: CaseReport, case: _Case, prefix: str, steps: list[Step]) -> set[str]:
    low_res, masks = f"{prefix}.low_res_sub8", f"{prefix}.masks_packed"
    if low_res in case.golden:
        golden = case.golden[low_res]
        rows = [
            step.masks.low_res[0, 0, ::8, ::8] if step.masks else torch.full_like(golden[n], float("nan"))
            for n, step in enumerate(steps)
        ]
        report.add_values(low_res, torch.stack(rows), golden, LOGIT_TOLERANCE)
    if masks in case.golden:
        ours = np.stack([_mask(step, case.frames.size) for step in steps])
        report.add_masks(masks, ours, _unpack(case.golden[masks], case.frames.size))
    return {low_res, masks} & case.golden.keys()


def _mask(step: Step, size: tuple[int, int]) -> NDArray[np.bool_]:
    if step.masks is None:
        return np.zeros(size, dtype=bool)
    return (masks_at_size(step.masks.low_res, size)[0] > 0).numpy()


def _quantiles(step: Step, size: tuple[int, int]) -> Tensor:
    if step.masks is None:
        return torch.full((3,), float("nan"))
    logits = masks_at_size(step.masks.low_res, size).abs().flatten()
    return torch.quantile(logits, torch.tensor([0.0, 0.001, 0.01]))


def _unpack(packed: Tensor, size: tuple[int, int]) -> NDArray[np.bool_]:
    """`(T, ceil(H*W/8)) uint8` bits to `(T, H, W) bool`."""
    pixels = size[0] * size[1]
    return np.unpackbits(packed.numpy(), axis=1)[:, :pixels].astype(bool).reshape(-1, *size)


def _any_memory(steps: list[Step]) -> Tensor:
    return _present(next((step.memory for step in steps if step.memory is not None), None))


def _masks(step: Step) -> DecodedMasks:
    return _present(step.masks)


def _features(step: Step) -> ImageFeatures:
    return _present(step.features)


def _present(value: Any) -> Any:
    if value is None:
        raise ValueError("golden has values for a step in which [SEG] was not found here")
    return value
