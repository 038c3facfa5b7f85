"""Tensor names and shapes of the published selector: merged, in training, before training, and its vision tower."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from fiftyone_refvos.models.checkpoint import CheckpointError, check_tensors
from fiftyone_refvos.models.clip_tower import VISION_PREFIX, vision_name
from fiftyone_refvos.models.selector.config import ARCHITECTURE, SelectorConfig
from fiftyone_refvos.models.selector.network import SelectorNetwork
from fiftyone_refvos.models.selector.weights import TRAINING_PREFIX, empty_network, translated
from fiftyone_refvos.verify.report import CaseReport
from fiftyone_refvos.verify.tables import llava_entries, names_stage, read_json

Shapes = Mapping[str, tuple[int, ...]]

_BASE = {"model.embed_tokens.weight", "model.mm_projector.weight", "lm_head.weight"}
_HEAD = "model.text_hidden_fcs.0."
_MERGED = {*_BASE, f"{_HEAD}0.weight", f"{_HEAD}2.weight", f"{_HEAD}4.weight"}
_TOWER = "model.vision_tower.vision_tower.vision_model."
_PATCHES = "embeddings.patch_embedding.weight"
_LORA = re.compile(r"\.lora_[AB]\.default\.weight$")
_ADAPTED = ("q_proj", "v_proj")
# no shape tells them; they are those of the published configuration, and no tensor depends on them
_CLUSTERING = {
    "use_cluster": True,
    "spatial_cluster_rate0": 64,
    "spatial_cluster_rate1": 32,
    "spatial_cluster_rate2": 16,
}


def is_key_table(path: Path) -> bool:
    """A JSON object of tensor names and shapes with the parts of one of the four."""
    table = read_json(path)
    return isinstance(table, dict) and _kind(set(table)) is not None


def check_keys(path: Path) -> CaseReport:
    """Builds the network that the shapes describe, without weights, and accounts for every tensor."""
    shapes = {name: tuple(shape) for name, shape in read_json(path).items()}
    kind = _kind(set(shapes))
    report = CaseReport(path, f"key frame selector, tensor names, {kind}")
    check = {
        "merged": _check_merged,
        "in training": _check_training,
        "before training": _check_base,
        "vision tower": _check_tower,
    }
    with names_stage(report, len(shapes)):
        check[str(kind)](shapes, str(path))
    return report


def _kind(names: set[str]) -> str | None:
    if names >= {TRAINING_PREFIX + name for name in _MERGED}:
        return "in training"
    if any(name.startswith("model.visual_model.") for name in names):
        return None  # VISA and GLUS, which segment
    if names >= _MERGED:
        return "merged"
    if names >= _BASE and not any(name.startswith(_HEAD) for name in names):
        return "before training"
    if f"{VISION_PREFIX}{_PATCHES}" in names:
        return "vision tower"
    return None


def _check_merged(shapes: Shapes, where: str) -> None:
    network = _network(shapes)
    check_tensors(_shapes(network, without="clip."), dict(translated(shapes.items())), where=where)


def _check_base(shapes: Shapes, where: str) -> None:
    """Without the score head; a vision tower may be there, and is not used."""
    expected = _shapes(_network(shapes), without="clip.")
    expected = {name: shape for name, shape in expected.items() if not name.startswith("score_head.")}
    own = {name: shape for name, shape in translated(shapes.items()) if not name.startswith("clip.")}
    check_tensors(expected, own, where=where)


def _check_training(shapes: Shapes, where: str) -> None:
    """With the vision tower, and a pair of LoRA matrices beside each adapted weight."""
    strangers = [name for name in shapes if not name.startswith(TRAINING_PREFIX)]
    if strangers:
        raise CheckpointError(f"{len(strangers)} tensors of {where} are not below {TRAINING_PREFIX}: {strangers[:8]}")
    own = {name.removeprefix(TRAINING_PREFIX): shape for name, shape in shapes.items()}
    expected = _shapes(_network(own))
    rank = next((shape[0] for name, shape in own.items() if name.endswith(".lora_A.default.weight")), 0)
    for name in [name for name in expected if name.startswith("llama.") and name.split(".")[-2] in _ADAPTED]:
        rows, columns = expected[name]
        stem = name.removesuffix(".weight")
        expected[f"{stem}.lora_A.default.weight"] = (rank, columns)
        expected[f"{stem}.lora_B.default.weight"] = (rows, rank)
    check_tensors(expected, dict(translated(own.items())), where=where)


def _check_tower(shapes: Shapes, where: str) -> None:
    """The vision side of CLIP; its text side is not used."""
    own = {ours: shape for name, shape in shapes.items() if (ours := vision_name(name)) is not None}
    with torch.device("meta"):
        clip = CLIPVisionModel(_clip_config(own))
    check_tensors({name: tuple(t.shape) for name, t in clip.state_dict().items()}, own, where=where)


def _network(shapes: Shapes) -> SelectorNetwork:
    plain = {name: shape for name, shape in shapes.items() if not _LORA.search(name)}
    # before training there is no head, and any width will do
    own = {
        "architectures": [ARCHITECTURE],
        "config": _CLUSTERING,
        "out_dim": plain.get(f"{_HEAD}2.weight", (256,))[0],
    }
    config = SelectorConfig.from_dict({**llava_entries(plain), **own}, where=Path("config.json"))
    tower = {name.removeprefix(_TOWER): shape for name, shape in plain.items() if name.startswith(_TOWER)}
    if tower:
        clip = _clip_config(tower)
    else:  # CLIP has a folder of its own
        clip = CLIPVisionConfig(hidden_size=config.clip_width, num_attention_heads=1, image_size=224, patch_size=14)
    return empty_network(config, clip)


def _clip_config(shapes: Shapes) -> CLIPVisionConfig:
    width, _, patch, _ = shapes[_PATCHES]
    positions = shapes["embeddings.position_embedding.weight"][0]
    layers = {name.split(".")[2] for name in shapes if name.startswith("encoder.layers.")}
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=shapes["encoder.layers.0.mlp.fc1.weight"][0],
        num_hidden_layers=len(layers),
        num_attention_heads=1,  # which no shape tells
        image_size=round((positions - 1) ** 0.5) * patch,
        patch_size=patch,
    )


def _shapes(network: SelectorNetwork, *, without: str | None = None) -> dict[str, tuple[int, ...]]:
    state = network.state_dict()
    return {name: tuple(t.shape) for name, t in state.items() if without is None or not name.startswith(without)}
