"""Key frame selector cases: clustering alone, and every stage from the pixels to the key frames."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.selector.clustering import cluster, merge, num_clusters
from fiftyone_refvos.models.selector.inference import Answer, LanguageFrameSelector
from fiftyone_refvos.models.selector.loading import load_selector
from fiftyone_refvos.models.selector.prompt import conversation, normalise
from fiftyone_refvos.models.selector.protocol import best_frame
from fiftyone_refvos.verify.report import CaseReport
from fiftyone_refvos.video import FolderFrames, open_frames_dir

TOLERANCE = 1e-5

_CLUSTERING_FILES = ("cases.json", "inputs.safetensors", "outputs.safetensors")
_INFERENCE_FILES = ("outputs.json", "outputs.safetensors", "checkpoint", "vision_tower", "inputs/queries.json")
_FRAMES = Path("inputs") / "frames"


def is_clustering_case(path: Path) -> bool:
    """A folder with clustering settings, their inputs and their outputs."""
    if not path.is_dir() or not all((path / name).is_file() for name in _CLUSTERING_FILES):
        return False
    try:
        rows = json.loads((path / "cases.json").read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        return False
    return isinstance(rows, list) and all(isinstance(row, dict) and "sample_ratio" in row for row in rows)


def check_clustering(path: Path) -> CaseReport:
    """Clusters each recorded set of tokens with its recorded noise."""
    report = CaseReport(path, "key frame selector, clustering")
    inputs, golden = load_file(path / "inputs.safetensors"), load_file(path / "outputs.safetensors")
    compared: set[str] = set()
    for row in json.loads((path / "cases.json").read_text(encoding="utf-8")):
        name = row["name"]
        with report.stage(name):
            tokens = inputs[f"{name}/x"]
            clusters = num_clusters(row["sample_ratio"], tokens.shape[1])
            report.add_equal(f"{name}/clusters", [clusters], [row["effective_cluster_num"]])
            labels = cluster(tokens, clusters, row["configured_k"], inputs.get(f"{name}/noise"))
            compared |= _add_labels(report, {f"{name}/cluster_index": labels}, golden)
            compared |= _add_values(report, {f"{name}/merged": merge(tokens, labels, clusters)}, golden)
    _note_unknown(report, golden, compared)
    return report


def is_inference_case(path: Path) -> bool:
    """A folder with a selector checkpoint, its queries and its outputs."""
    present = path.is_dir() and all((path / name).exists() for name in _INFERENCE_FILES)
    return present and (path / _FRAMES).is_dir()


@dataclass(frozen=True)
class _Video:
    """One video of a case; its tensors begin with its name."""

    name: str
    frame_names: list[str]
    frames: FolderFrames
    expressions: list[Expression]
    queries: dict[tuple[str, int], dict[str, Any]]


@torch.inference_mode()
def check_inference(path: Path) -> CaseReport:
    """Runs a case in fp32 on the CPU, as it was made, and compares every stored tensor."""
    report = CaseReport(path, "key frame selector, inference")
    selector = load_selector(path / "checkpoint", clip_path=path / "vision_tower", device="cpu", dtype="float32")
    golden = load_file(path / "outputs.safetensors")
    outputs = _read_json(path / "outputs.json")
    _compare_tokenization(report, path, selector)
    compared: set[str] = set()
    keys: dict[str, int] = {}
    starts: dict[str, int] = {}
    for video in _read_videos(path):
        compared |= _compare_frames(report, video, selector, golden)
        answers = list(selector.open(video.frames).answers(video.expressions, every_layer=True))
        answers.sort(key=lambda answer: answer.frame)
        for expression in video.expressions:
            own = [answer for answer in answers if answer.expression == expression]
            _compare_prompts(report, video, selector, own)
            compared |= _compare_answers(report, video, selector, own, golden)
            _compare_stored_scores(report, video, own, outputs)
            key, scores = f"{video.name}_{expression.id}", np.array([answer.score for answer in own])
            starts[key] = best_frame(scores, expression, video=video.name)
            keys[key] = int(video.frame_names[starts[key]])
    report.add_equal("key_frames", sorted(keys.items()), sorted(outputs["key_frames"].items()))
    report.add_equal("glus_start_index", sorted(starts.items()), sorted(outputs["glus_start_index"].items()))
    if (path / "key_frames.json").is_file():
        stored = _read_json(path / "key_frames.json")
        report.add_equal("key_frames.json", sorted(keys.items()), sorted(stored.items()))
    _note_unknown(report, golden, compared)
    return report


def _read_videos(path: Path) -> list[_Video]:
    queries = _read_json(path / "inputs" / "queries.json")
    videos = []
    for name, row in _read_json(path / "inputs" / "meta_expressions.json")["videos"].items():
        folder = path / _FRAMES / name
        files = {file.stem: file.name for file in folder.iterdir()}
        videos.append(
            _Video(
                name=name,
                frame_names=row["frames"],
                frames=open_frames_dir(folder, [files[frame] for frame in row["frames"]]),
                expressions=[Expression(key, value["exp"]) for key, value in row["expressions"].items()],
                queries={(q["exp_id"], q["target_index"]): q for q in queries if q["video"] == name},
            )
        )
    return videos


def _compare_tokenization(report: CaseReport, path: Path, selector: LanguageFrameSelector) -> None:
    table = path / "inputs" / "tokenization.json"
    if table.is_file():
        rows = _read_json(table)
        ours = [selector.prompts.tokenizer.encode(row["text"]) for row in rows]
        report.add_equal("tokenization", ours, [row["input_ids"] for row in rows])


def _compare_frames(
    report: CaseReport, video: _Video, selector: LanguageFrameSelector, golden: Mapping[str, Tensor]
) -> set[str]:
    """What depends on the frames alone, and the first input of the language model."""
    network, name = selector.network, video.name
    pixels = network.clip_pixels(list(video.frames.read(range(len(video.frames)))))
    features = network.clip_features(pixels)
    merged = network.merge(features)
    projected = network.project(merged.tokens)
    values = {
        f"{name}/pixel_values_frame0": pixels[0],
        f"{name}/vision_features": features,
        f"{name}/merged_tokens": merged.tokens,
        f"{name}/projected_tokens": projected,
    }
    for expression in video.expressions:
        query = video.queries[expression.id, 0]
        images = [projected[index] for index in [*query["context_indices"], 0]]
        ids = selector.prompts.write(expression.text, len(query["context_indices"])).ids
        values[f"{name}/{expression.id}/inputs_embeds_frame0"] = network.embed(ids, images)
    labels = {f"{name}/cluster_index_{level}": each for level, each in enumerate(merged.labels)}
    return _add_labels(report, labels, golden) | _add_values(report, values, golden)


def _compare_prompts(
    report: CaseReport, video: _Video, selector: LanguageFrameSelector, answers: list[Answer]
) -> None:
    """What is asked about each frame for one expression."""
    expression, prompts = answers[0].expression, selector.prompts
    queries = [video.queries[expression.id, answer.frame] for answer in answers]
    ours: dict[str, list[Any]] = {
        "target_frame": [video.frame_names[a.frame] for a in answers],
        "context_indices": [a.context for a in answers],
        "sentence": [normalise(expression.text) for _ in answers],
        "prompt": [conversation(expression.text, len(a.context)) for a in answers],
        "input_ids": [a.prompt.ids for a in answers],
        "num_images": [a.prompt.num_images for a in answers],
        "score_token_index": [a.prompt.score_index for a in answers],
        "hidden_index": [prompts.read_position(a.prompt) for a in answers],
        "sequence_length": [prompts.length(a.prompt) for a in answers],
    }
    for key, values in ours.items():
        report.add_equal(f"{video.name}/{expression.id}/{key}", values, [query[key] for query in queries])


def _compare_answers(
    report: CaseReport,
    video: _Video,
    selector: LanguageFrameSelector,
    answers: list[Answer],
    golden: Mapping[str, Tensor],
) -> set[str]:
    """What the language model and the score head say of each frame for one expression."""
    name = f"{video.name}/{answers[0].expression.id}"
    hidden = torch.stack([answer.hidden for answer in answers])
    state = hidden[:, -1]
    values = {f"{name}/hidden_states_at_score": hidden, f"{name}/logits_at_score": selector.network.lm_head(state)}
    for number, layer in enumerate(selector.network.score_head):
        state = layer(state)
        if number % 2 == 0:
            values[f"{name}/mlp_linear{number}"] = state
    values[f"{name}/scores"] = torch.tensor([answer.score for answer in answers])
    return _add_values(report, values, golden)


def _compare_stored_scores(report: CaseReport, video: _Video, answers: list[Answer], outputs: dict[str, Any]) -> None:
    """The same scores as the published program writes them: in one table, and in a file per frame."""
    identity = answers[0].expression.id
    ours = torch.tensor([answer.score for answer in answers])
    rows = outputs["scores"][video.name][identity]
    files = outputs.get("score_files", {})
    texts = [files.get(f"{video.name}/{identity}/{frame}.json", '{"iou": NaN}') for frame in video.frame_names]
    stored = {
        "scores": [rows[frame] for frame in video.frame_names],
        "score_files": [json.loads(text)["iou"] for text in texts],
    }
    for name, values in stored.items():
        report.add_values(f"{name} {video.name}/{identity}", ours, torch.tensor(values), TOLERANCE)


def _add_values(report: CaseReport, values: Mapping[str, Tensor], golden: Mapping[str, Tensor]) -> set[str]:
    """Compares the tensors that golden has, and says which."""
    names = values.keys() & golden.keys()
    for name in sorted(names):
        report.add_values(name, values[name], golden[name], TOLERANCE)
    return names


def _add_labels(report: CaseReport, labels: Mapping[str, Tensor], golden: Mapping[str, Tensor]) -> set[str]:
    """Compares the clusters of tokens, of which none may differ, and says which golden has."""
    names = labels.keys() & golden.keys()
    for name in sorted(names):
        report.add_equal(name, labels[name].flatten().tolist(), golden[name].flatten().tolist())
    return names


def _note_unknown(report: CaseReport, golden: Mapping[str, Tensor], compared: set[str]) -> None:
    for name in sorted(golden.keys() - compared):
        report.not_compared[name] = "unknown name"


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
