"""MLLMSeg cases: every stage from the pixels to the masks, in both ways of prompting, and no-target decisions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from fiftyone_refvos import metrics
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.checkpoint import CheckpointError, read_config
from fiftyone_refvos.models.llama_tokenizer import IMAGE_TOKEN
from fiftyone_refvos.models.mllmseg.config import ARCHITECTURE
from fiftyone_refvos.models.mllmseg.inference import (
    THRESHOLD,
    Answer,
    Look,
    MllmsegSegmenter,
    box_of,
    image_result,
    probabilities_at_size,
)
from fiftyone_refvos.models.mllmseg.loading import load_mllmseg
from fiftyone_refvos.models.mllmseg.prompt import ANSWER, QUESTION, Prompt, normalise
from fiftyone_refvos.verify.report import CaseReport, Stage

PIXEL_TOLERANCE = 1e-5  # of the network's input; sums of it are compared as means
TOLERANCE = 1e-4  # hidden states, logits
PROBABILITY_TOLERANCE = 2e-5
MASK_TOLERANCE = 2 / 75_000  # share of pixels that may differ
METRIC_TOLERANCE = 1e-6  # the program's sums are float32

_STRIDES = {"mask_logits_s4": 4, "pass1_mask_logits_s4": 4, "pixel_values_s8": 8}
_GENERATED_CONTEXT = "<IMG_CONTEXT>*256"


def is_case(path: Path, *, inputs: str) -> bool:
    """A folder with an MLLMSeg checkpoint, its outputs, and the named file of inputs."""
    files = ("outputs.safetensors", "checkpoint/config.json", f"inputs/{inputs}")
    if not path.is_dir() or not all((path / name).is_file() for name in files):
        return False
    try:
        return ARCHITECTURE in (read_config(path / "checkpoint").get("architectures") or [])
    except CheckpointError:
        return False


def is_inference_case(path: Path) -> bool:
    """A folder with an MLLMSeg checkpoint, expressions and what the published program makes of them."""
    return is_case(path, inputs="expressions.json")


@dataclass
class Golden:
    """The tensors of a case; what was compared is noted.

    Attributes:
        report: gets a stage per tensor
        tensors: by name
        compared: names of the tensors that were compared, or are inputs
    """

    report: CaseReport
    tensors: Mapping[str, Tensor]
    compared: set[str] = field(default_factory=set)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def take(self, name: str) -> Tensor:
        """A tensor that is used in a comparison."""
        self.compared.add(name)
        return self.tensors[name]

    def values(self, name: str, ours: Tensor, tolerance: float = TOLERANCE) -> None:
        """Compares values with a tensor, if golden has one of that name."""
        if name in self.tensors:
            step = _STRIDES.get(name.rpartition(".")[2], 1)
            sampled = ours[..., ::step, ::step] if step > 1 else ours
            self.report.add_values(name, sampled, self.take(name), tolerance)

    def integers(self, name: str, ours: Sequence[int]) -> None:
        """Compares whole numbers, of which none may differ, if golden has a tensor of that name."""
        if name in self.tensors:
            self.report.add_equal(name, list(ours), self.take(name).flatten().tolist())

    def masks(self, name: str, ours: NDArray[np.bool_]) -> None:
        """Compares masks by the share of differing pixels, if golden has a tensor of that name."""
        if name not in self.tensors:
            return
        golden = self.take(name).numpy().astype(bool)
        same_shape = ours.shape == golden.shape
        wrong = int((ours != golden).sum()) if same_shape else 0
        share = wrong / golden.size if same_shape else float("inf")
        self.report.stages.append(Stage(name, share, MASK_TOLERANCE, f"{wrong} of {golden.size} pixels"))

    def finish(self) -> None:
        """Notes the tensors that nothing was compared with."""
        for name in sorted(self.tensors.keys() - self.compared):
            self.report.not_compared[name] = "unknown name"


def load_case(path: Path, *, prompting: str) -> MllmsegSegmenter:
    """The segmenter of a case in fp32 on the CPU, as it was made."""
    return load_mllmseg(path / "checkpoint", device="cpu", dtype="float32", settings={"prompting": prompting})


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image of a case as RGB."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


@torch.inference_mode()
def check_inference(path: Path) -> CaseReport:
    """Runs a case and compares every stored tensor."""
    report = CaseReport(path, "MLLMSeg, inference")
    golden = Golden(report, load_file(path / "outputs.safetensors"))
    inputs = json.loads((path / "inputs" / "expressions.json").read_text(encoding="utf-8"))
    segmenter = load_case(path, prompting="joint")
    compare_words(report, inputs, segmenter)
    looks = []
    scores: list[metrics.ImageScore] = []
    for number, row in enumerate(inputs["images"]):
        name, image = f"img{number}", read_image(path / "inputs" / row["file"])
        compare_pixels(golden, name, segmenter, image)
        looks.append(segmenter.look(image))
        compare_image(golden, name, segmenter, image, looks[-1])
        scores += _compare_joint(golden, name, segmenter, image, looks[-1], row)
    single = load_case(path, prompting="single")
    for number, row in enumerate(inputs.get("single", [])):
        _compare_single(golden, f"single{number}", single, looks[row["image"]], row)
    if "reference_eval" in inputs:
        _compare_metrics(report, scores, inputs["reference_eval"])
    golden.finish()
    return report


def compare_words(report: CaseReport, inputs: Mapping[str, Any], segmenter: MllmsegSegmenter) -> None:
    """The tokenizer on its own."""
    tokenizer = segmenter.prompts.tokenizer
    ids = inputs["special_ids"]
    report.add_equal("special_ids", [tokenizer.token_id(token) for token in ids], list(ids.values()))
    if "tokenizer_probes" in inputs:
        rows = inputs["tokenizer_probes"]
        report.add_equal("tokenizer_probes", [tokenizer.encode(r["text"]) for r in rows], [r["ids"] for r in rows])
        report.add_equal("decoded", [tokenizer.decode(r["ids"]) for r in rows], [r["text"] for r in rows])


def compare_pixels(golden: Golden, name: str, segmenter: MllmsegSegmenter, image: NDArray[np.uint8]) -> None:
    """The input of the vision tower."""
    pixels = segmenter.network.pixels(image)
    golden.values(f"{name}.pixel_values_s8", pixels, PIXEL_TOLERANCE)
    golden.values(f"{name}.pixel_values_row200", pixels[0, :, 200], PIXEL_TOLERANCE)
    total = f"{name}.pixel_values_sum"
    if total in golden:
        count = pixels[0, 0].numel()
        expected = golden.take(total).double() / count
        golden.report.add_values(total, pixels[0].double().sum((1, 2)) / count, expected, PIXEL_TOLERANCE)


def compare_image(
    golden: Golden, name: str, segmenter: MllmsegSegmenter, image: NDArray[np.uint8], look: Look
) -> None:
    """What depends on the image alone: vision tower, language model, image side of the decoder."""
    network, decoder = segmenter.network, segmenter.network.mask_decoder
    tower = network.internvl.model.vision_tower
    states = embeddings = tower.embeddings(network.pixels(image))
    for number, layer in enumerate(tower.encoder.layer):
        states = layer(states)
        golden.values(f"{name}.vit_layer{number}", states[0])
    features = network.look(network.pixels(image))
    coarse = decoder.img_llm_down(look.prefix.rows)
    maps = coarse.T.unflatten(1, (network.grid[0] // 2, network.grid[1] // 2))
    values = {
        "vit_embeddings": embeddings[0],
        "vit_last": torch.cat([states[0, :1], features.detail]),
        "projected_tokens": features.tokens,
        "llm_hidden_image": look.prefix.rows,
        "dec.img_llm_down": coarse,
        "dec.dysample_offset_raw": decoder.upsample_adapter_l.offset(maps[None])[0],
        "dec.llm_up32": decoder.upsample(coarse[None], network.grid)[0],
        "dec.v2l": decoder.ca_layer_v2l(features.detail[None], coarse[None])[0],
        "dec.fused": look.decoded.fused,
    }
    for key, value in values.items():
        golden.values(f"{name}.{key}", value)


def _compare_joint(
    golden: Golden,
    name: str,
    segmenter: MllmsegSegmenter,
    image: NDArray[np.uint8],
    look: Look,
    row: Mapping[str, Any],
) -> list[metrics.ImageScore]:
    """All expressions of an image in one prompt, as the published evaluation asks."""
    texts = row["raw_expressions"]
    absent = [count == 0 for count in row.get("targets", [])]
    prompt = segmenter.prompts.write(texts, absent)
    _compare_prompt(golden, name, segmenter, prompt, row)
    _compare_whole(golden, name, segmenter, image, prompt)
    asked = [Expression(str(number), text) for number, text in enumerate(texts)]
    answers = list(segmenter.answers(look, asked))
    own = torch.stack([answer.state for answer in answers])
    golden.values(f"{name}.llm_hidden_seg", own)
    if absent:
        _compare_decisions(golden, name, segmenter, look, prompt, own)
    _compare_drawing(golden, name, segmenter, look, own)
    _compare_generated(golden, name, segmenter, look, prompt, row["generated_text"])
    return _compare_masks(golden, name, answers, look)


def _compare_whole(
    golden: Golden, name: str, segmenter: MllmsegSegmenter, image: NDArray[np.uint8], prompt: Prompt
) -> None:
    """The end of the conversation, run as a whole without anything shared."""
    network = segmenter.network
    embeds = network.embed(prompt.prefix + prompt.suffix, [network.look(network.pixels(image)).tokens])
    states = network.language_model(inputs_embeds=embeds[None], use_cache=False).last_hidden_state
    golden.values(f"{name}.llm_hidden_text_tail", states[0, -40:])


def _compare_prompt(
    golden: Golden, name: str, segmenter: MllmsegSegmenter, prompt: Prompt, row: Mapping[str, Any]
) -> None:
    """What is asked and answered, as text and as ids."""
    report, prompts = golden.report, segmenter.prompts
    names = [normalise(text) for text in row.get("raw_expressions", [row.get("expression", "")])]
    if "expressions" in row:
        report.add_equal(f"{name}.expressions", names, row["expressions"])
    report.add_equal(f"{name}.question", [IMAGE_TOKEN + QUESTION.format(", ".join(names))], [row["question"]])
    for key in ("answer", "answer_gt", "answer_all_seg", "answer_predicted"):
        if key in row:
            flags = {"answer_gt": [n == 0 for n in row.get("targets", [])]}
            flags["answer_predicted"] = [each == "REJ" for each in row.get("predicted", [])]
            tokens = ["[REJ]" if each else "[SEG]" for each in flags.get(key) or [False] * len(names)]
            items = ", ".join(f"{text}:{token}" for text, token in zip(names, tokens, strict=True))
            report.add_equal(f"{name}.{key}", [ANSWER.format(items)], [row[key]])
    before = prompts.expanded(prompt.prefix + prompt.question)
    if "prompt" in row:
        context = "<IMG_CONTEXT>" * segmenter.network.tokens_per_image
        text = prompts.tokenizer.decode(before).replace(context, _GENERATED_CONTEXT)
        report.add_equal(f"{name}.prompt", [text], [row["prompt"]])
    report.add_equal(f"{name}.prompt_length", [len(before)], [row["prompt_length"]])
    if "sequence_length" in row:
        report.add_equal(f"{name}.sequence_length", [len(before) + len(prompt.answer)], [row["sequence_length"]])
    golden.integers(f"{name}.input_ids", before + prompt.answer)
    golden.integers(f"{name}.labels", prompts.labels(prompt))


def _compare_decisions(
    golden: Golden, name: str, segmenter: MllmsegSegmenter, look: Look, truth: Prompt, own: Tensor
) -> None:
    """Both passes of the published evaluation: the first has the true answer, ours is the second one."""
    network, prompts = segmenter.network, segmenter.prompts
    ids = prompts.expanded(truth.prefix + truth.suffix)
    places = [n for n, token in enumerate(ids) if token in (prompts.seg_id, prompts.rej_id)]
    golden.integers(f"{name}.seg_or_rej_positions", places)
    first = segmenter.states(look, truth)
    for number, states in ((1, first), (2, own)):
        logits = network.logits(states)
        golden.values(f"{name}.hidden_before_token_pass{number}", states)
        golden.values(f"{name}.seg_rej_logits_pass{number}", logits[:, [prompts.seg_id, prompts.rej_id]])
        golden.integers(f"{name}.argmax_pass{number}", logits.argmax(-1).tolist())
    rejected = (network.logits(first).argmax(-1) == prompts.rej_id).tolist()
    for place, each in zip(places, rejected, strict=True):
        ids[place] = prompts.rej_id if each else prompts.seg_id
    golden.integers(f"{name}.output_ids_pass1", ids)
    given = [truth.suffix[place] == prompts.seg_id for place in truth.decisions]
    golden.integers(f"{name}.pass1_num_masks", [sum(given)])
    logits = network.mask_decoder.masks(look.decoded, first[torch.tensor(given)])
    golden.values(f"{name}.pass1_mask_logits_s4", logits)


def _compare_drawing(golden: Golden, name: str, segmenter: MllmsegSegmenter, look: Look, states: Tensor) -> None:
    """The text side of the mask decoder."""
    decoder, grid = segmenter.network.mask_decoder, segmenter.network.grid
    texts = decoder.text_down(states)
    golden.values(f"{name}.dec.text", texts)
    patches = decoder.join(look.decoded, texts[:1])
    golden.values(f"{name}.dec.vl_q0", patches[0])
    convolved = decoder.conv1[0](patches.transpose(1, 2).unflatten(2, grid))
    golden.values(f"{name}.dec.conv1_out_q0_s2", convolved[0, :, ::4, ::4])


def _compare_generated(
    golden: Golden, name: str, segmenter: MllmsegSegmenter, look: Look, prompt: Prompt, text: str
) -> None:
    """What greedy decoding gives: each generated token is the most likely one after all before it."""
    key = f"{name}.generated_ids"
    if key not in golden:
        return
    ids = golden.take(key).tolist()
    states = segmenter.run(look, prompt.question + ids)[len(prompt.question) - 1 : -1]
    golden.report.add_equal(key, segmenter.network.logits(states).argmax(-1).tolist(), ids)
    golden.report.add_equal(f"{name}.generated_text", [segmenter.prompts.tokenizer.decode(ids)], [text])


def _compare_masks(golden: Golden, name: str, answers: list[Answer], look: Look) -> list[metrics.ImageScore]:
    """Masks at both sizes, decisions, boxes, and their overlap with the truth."""
    logits = torch.stack([answer.mask_logits for answer in answers])
    golden.values(f"{name}.mask_logits_q0", logits[0])
    golden.values(f"{name}.mask_logits_s4", logits)
    probabilities = probabilities_at_size(logits, look.size)
    golden.values(f"{name}.prob_full", probabilities, PROBABILITY_TOLERANCE)
    results = [image_result(answer, look.size) for answer in answers]
    raw = np.stack([result.unrejected for result in results])
    golden.masks(f"{name}.mask_full", raw)
    golden.masks(f"{name}.mask_full_raw", raw)
    golden.masks(f"{name}.mask_full_final", np.stack([result.mask for result in results]))
    golden.integers(f"{name}.pred_no_target", [int(not result.found) for result in results])
    boxes = [box_of(each) or (0, 0, 0, 0) for each in probabilities]
    golden.integers(f"{name}.rec_box_xyxy", [edge for box in boxes for edge in box])
    truth = golden.take(f"{name}.gt_masks").numpy().astype(bool)
    scores = [
        metrics.score_image(true, result.unrejected, image=name, no_target=not result.found)
        for true, result in zip(truth, results, strict=True)
    ]
    golden.integers(f"{name}.eval_inter_union", [n for s in scores for n in (s.intersection, s.union)])
    return scores


def _compare_single(
    golden: Golden, name: str, segmenter: MllmsegSegmenter, look: Look, row: Mapping[str, Any]
) -> None:
    """One expression in a prompt of its own."""
    prompt = segmenter.prompts.write([row["expression"]])
    _compare_prompt(golden, name, segmenter, prompt, row)
    (answer,) = segmenter.answers(look, [Expression("0", row["expression"])])
    golden.values(f"{name}.llm_hidden_seg", answer.state[None])
    golden.values(f"{name}.mask_logits_s4", answer.mask_logits)
    golden.masks(f"{name}.mask_full", (probabilities_at_size(answer.mask_logits, look.size) >= THRESHOLD).numpy())
    _compare_generated(golden, name, segmenter, look, prompt, row["generated_text"])


def _compare_metrics(report: CaseReport, scores: Sequence[metrics.ImageScore], golden: Mapping[str, float]) -> None:
    """The published evaluation over the case."""
    ours: dict[str, float] = metrics.IMAGE_PROTOCOLS["mllmseg-gres"].summarize(scores)
    counts = {
        "NT_TP": sum(score.no_target for score in scores if not score.truth_area),
        "NT_FN": sum(not score.no_target for score in scores if not score.truth_area),
        "NT_TN": sum(not score.no_target for score in scores if score.truth_area),
        "NT_FP": sum(score.no_target for score in scores if score.truth_area),
    }
    ours |= counts | {"N_acc": ours["N-acc"], "T_acc": ours["T-acc"]}
    mine, theirs = (torch.tensor([row[name] for name in golden], dtype=torch.float64) for row in (ours, golden))
    report.add_values("reference_eval", mine, theirs, METRIC_TOLERANCE)
