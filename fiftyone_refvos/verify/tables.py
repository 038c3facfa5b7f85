"""Golden tables: tokenizer cases, sampling schedules, and the tensor names of published checkpoints."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig

from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.glus.config import ARCHITECTURE, GlusConfig
from fiftyone_refvos.models.glus.weights import check_published_keys, empty_network
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.sampling import ContextMode, context_frames, memory_positions
from fiftyone_refvos.verify.report import CaseReport, Stage

_SCHEDULES = {"context_script", "context_demo", "memory"}
# The key frame selector has a projection of that name, too, but no SAM2.
_GLUS_PARTS = {
    "model.text_hidden_fcs.0.0.weight",
    "model.text_hidden_fcs.0.2.weight",
    "model.mm_projector.weight",
    "model.visual_model.no_mem_embed",
    "lm_head.weight",
}


def is_tokenizer_table(path: Path) -> bool:
    """A JSON list of texts and ids, with a LLaMA tokenizer beside it, or in a folder beside it."""
    table = read_json(path)
    return (
        isinstance(table, list)
        and bool(table)
        and all(isinstance(row, dict) and {"text", "input_ids"} <= row.keys() for row in table)
        and _tokenizer_folder(path) is not None
    )


def check_tokenizer(path: Path) -> CaseReport:
    """Compares ids; they must be identical."""
    report = CaseReport(path, "LLaMA tokenizer cases")
    folder = _tokenizer_folder(path)
    assert folder is not None  # is_tokenizer_table looked
    tokenizer = LlamaTokenizer(folder)
    table = read_json(path)
    report.add_equal("ids", [tokenizer.encode(row["text"]) for row in table], [row["input_ids"] for row in table])
    return report


def _tokenizer_folder(path: Path) -> Path | None:
    folders = [path.parent, *sorted(child for child in path.parent.iterdir() if child.is_dir())]
    return next((folder for folder in folders if (folder / "tokenizer.model").is_file()), None)


def is_schedule_table(path: Path) -> bool:
    """A JSON object with context frames per video length, or memory positions per stride."""
    table = read_json(path)
    return isinstance(table, dict) and bool(_SCHEDULES & table.keys())


def check_schedules(path: Path) -> CaseReport:
    """Compares frame indices and pass positions; they must be identical."""
    report = CaseReport(path, "GLUS schedules")
    table = read_json(path)
    modes: dict[str, ContextMode] = {"context_script": "center", "context_demo": "linspace"}
    for key, mode in modes.items():
        if key in table:
            lengths = [int(length) for length in table[key]]
            # -1 stands for the last frame, as in Python
            golden = [[index % int(length) for index in row] for length, row in table[key].items()]
            report.add_equal(f"context frames, {mode}", [context_frames(n, mode) for n in lengths], golden)
    for stride, rows in table.get("memory", {}).items():
        ours = [memory_positions(int(position), int(stride)) for position in rows]
        report.add_equal(f"memory positions, stride {stride}", ours, list(rows.values()))
    for key in sorted(table.keys() - _SCHEDULES):
        report.not_compared[key] = "unknown schedule"
    return report


def is_glus_key_table(path: Path) -> bool:
    """A JSON object of tensor names and shapes that holds all of GLUS's own parts."""
    table = read_json(path)
    return isinstance(table, dict) and set(table) >= _GLUS_PARTS


def check_glus_keys(path: Path) -> CaseReport:
    """Builds the network that the shapes describe, without weights, and accounts for every tensor."""
    report = CaseReport(path, "GLUS tensor names")
    shapes = {name: tuple(shape) for name, shape in read_json(path).items()}
    own = {"architectures": [ARCHITECTURE], "out_dim": shapes["model.text_hidden_fcs.0.2.weight"][0]}
    config = GlusConfig.from_dict({**llava_entries(shapes), **own}, where=path)  # SAM2 is Hiera-L
    # CLIP is a folder of its own, of which these tables hold nothing
    clip = CLIPVisionConfig(hidden_size=config.clip_width, num_attention_heads=1)
    network = empty_network(config, clip)
    with names_stage(report, len(shapes)):
        check_published_keys(shapes, network, where=str(path))
    return report


@contextmanager
def names_stage(report: CaseReport, count: int) -> Iterator[None]:
    """The one stage of a key table, which fails with the differences that were found."""
    try:
        yield
    except CheckpointError as error:
        report.stages.append(Stage("names and shapes", float("inf"), 0, str(error)))
    else:
        report.stages.append(Stage("names and shapes", 0, 0, f"{count} accounted for"))


def llava_entries(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The config.json entries that the shapes of a LLaVA-like checkpoint of 7B imply."""
    vocab_size, hidden_size = shapes["model.embed_tokens.weight"]
    layers = {name.split(".")[2] for name in shapes if name.startswith("model.layers.")}
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": shapes["model.layers.0.mlp.gate_proj.weight"][0],
        "num_hidden_layers": len(layers),
        # no shape of multi-head attention tells the number of heads, so one head is as good as 32
        "num_attention_heads": 1,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "mm_hidden_size": shapes["model.mm_projector.weight"][1],
        "mm_vision_tower": "openai/clip-vit-large-patch14",
    }


def read_json(path: Path) -> Any:
    """The content of a `.json` or `.json.gz` file; None for what is no such file."""
    if not path.is_file() or not path.name.endswith((".json", ".json.gz")):
        return None
    try:
        if path.suffix == ".gz":
            return json.loads(gzip.decompress(path.read_bytes()))
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError):
        return None
