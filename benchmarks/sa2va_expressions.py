"""How much several expressions of a video share in Sa2VA: 8 in one call against one, and against one by one.

A network with random weights, whose parts take about the shares of the work that they take in the published ones, on
one CPU thread; a scripted head says "Sure, [SEG]." after the true one was computed. What is measured does not depend
on the values of weights. CPU time, repetitions interleaved, so that other programs on the machine do not count.
Usage: python -m benchmarks.sa2va_expressions
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import processor
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.sa2va.config import Sa2vaConfig, Sa2vaInference
from fiftyone_refvos.models.sa2va.families import InternVl
from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter
from fiftyone_refvos.models.sa2va.network import Sa2vaNetwork
from fiftyone_refvos.models.sa2va.tokens import load_tokenizer
from fiftyone_refvos.models.sam2_config import Sam2Sizes
from fiftyone_refvos.models.sam2_tracking import TrackingSam2
from tests.shared import shared_root
from tests.small import noise_video

RESULTS = Path(__file__).parent / "results"
GOLDEN = shared_root() / "golden" / "sa2va" / "internvl_qwen2_a" / "checkpoint"
NUM_FRAMES, FRAME_SIZE = 25, (480, 854)  # 5 that the language model sees, and 20 that are tracked
REPEATS = 3
SAYS = "Sure, [SEG].<|im_end|>"
TEXTS = (
    "the red circle",
    "the large square on the left",
    "all people who sit at the table",
    "the one that moves",
    "the star",
    "a dog with a ball in its mouth",
    "it",
    "small plane on top",
)
EXPRESSIONS = [Expression(str(number), text) for number, text in enumerate(TEXTS)]
SAM2 = Sam2Sizes(
    image_size=512,
    embed_dim=48,
    num_heads=1,
    stages=(1, 3, 10, 2),
    global_att_blocks=(6, 9, 12),
    d_model=64,
    mem_dim=64,
    memory_layers=3,
    memory_ffn=512,
)
VISION = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "qkv_bias": True,
    "qk_normalization": False,
    "norm_type": "layer_norm",
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "image_size": 448,
    "patch_size": 14,
}
LANGUAGE = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
}
# Parts of the network by the classes of their modules, as the counter calls them.
ASKED = ("InternVLVisionModel", "InternVLMultiModalProjector", "Qwen2Model")
PARTS = {
    "vision tower": ASKED[:2],
    "language model": ASKED[2:],
    "SAM2 image encoder": ("ImageEncoder",),
    "SAM2 memory attention": ("MemoryAttention",),
    "SAM2 memory encoder and mask decoder": ("MemoryEncoder", "MaskDecoder"),
}


def random_segmenter() -> Sa2vaSegmenter:
    """The network, with the words of a golden one."""
    tokenizer = load_tokenizer(GOLDEN)
    script = tokenizer.encode(SAYS)
    words = json.loads((GOLDEN / "config.json").read_text())["llm_config"]["vocab_size"]
    values = {
        "model_type": "sa2va_chat",
        "template": "qwen_chat",
        "vision_config": VISION,
        "llm_config": LANGUAGE | {"vocab_size": words},
        "downsample_ratio": 0.5,
    }
    torch.manual_seed(0)
    config = Sa2vaConfig.from_dict(values, where=Path(__file__), sam2=SAM2)
    network = Sa2vaNetwork(config, tuned_decoder=False).requires_grad_(False).eval()
    steps = cycle(script)

    def say(_: nn.Module, __: object, logits: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor(next(steps)), logits.shape[-1]).expand_as(logits)

    network.mllm.lm_head.register_forward_hook(say)
    return Sa2vaSegmenter(InternVl(network, tokenizer), Sa2vaInference())


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of some work."""
    start = time.process_time()
    work()
    return time.process_time() - start


def segment(segmenter: Sa2vaSegmenter, groups: Sequence[Sequence[Expression]]) -> None:
    """One call per group of expressions, from frames in memory to masks."""
    for group in groups:
        for result in segmenter.segment(noise_video(NUM_FRAMES, FRAME_SIZE), group):
            assert result.found
            assert len(result.masks) == 1


@torch.inference_mode()
def ask(segmenter: Sa2vaSegmenter, group: Sequence[Expression]) -> None:
    """The language and vision part alone."""
    segmenter.ask(noise_video(NUM_FRAMES, FRAME_SIZE), group)


def flops(segmenter: Sa2vaSegmenter, group: Sequence[Expression]) -> Counter[str]:
    """Floating point operations of one call, in all and by part."""
    with FlopCounterMode(display=False) as counter:
        segment(segmenter, [group])
    counted = {name: sum(each.values()) for name, each in counter.get_flop_counts().items()}
    found = Counter({part: sum(counted[name] for name in names) for part, names in PARTS.items()})
    found["all"] = counter.get_total_flops()
    return found


def asked_flops(counted: Counter[str]) -> int:
    """Operations of the language and vision part."""
    return counted["vision tower"] + counted["language model"]


def published_sam2() -> dict[str, float]:
    """Operations of the published SAM2, Hiera-L at 1024 pixels: of a frame, and of tracking an object in it."""
    sam2 = TrackingSam2(Sam2Sizes().to_yaml()).requires_grad_(False).eval().to("meta").sam2
    tokens, memories = 64 * 64, 5 + 6  # those of the key frames, and of the six frames before
    pointers = 4 * (5 + 15)

    def zeros(length: int, channels: int) -> Tensor:
        return torch.zeros(length, 1, channels, device="meta")

    with FlopCounterMode(display=False) as encoding, torch.inference_mode():
        sam2.image_encoder(torch.zeros(1, 3, 1024, 1024, device="meta"))
    with FlopCounterMode(display=False) as attending, torch.inference_mode():
        past = tokens * memories + pointers
        sam2.memory_attention(
            curr=zeros(tokens, 256),
            curr_pos=zeros(tokens, 256),
            memory=zeros(past, 64),
            memory_pos=zeros(past, 64),
            num_obj_ptr_tokens=pointers,
        )
    return {"encode": encoding.get_total_flops(), "attend": attending.get_total_flops()}


def allowed(one: float, eight: float) -> float:
    """The speed-up of 8 together that operations alone allow, where what does not depend on expressions is shared."""
    return 8 * one / eight


def measure(segmenter: Sa2vaSegmenter) -> dict[str, Any]:
    """All figures."""
    one, count = EXPRESSIONS[:1], len(EXPRESSIONS)
    work: dict[str, Callable[[], object]] = {
        "ask_one_s": lambda: ask(segmenter, one),
        "ask_together_s": lambda: ask(segmenter, EXPRESSIONS),
        "one_s": lambda: segment(segmenter, [one]),
        "together_s": lambda: segment(segmenter, [EXPRESSIONS]),
        "one_by_one_s": lambda: segment(segmenter, [[each] for each in EXPRESSIONS]),
    }
    work["one_s"]()  # the first call loads kernels
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(REPEATS):
        for name, do in work.items():
            times[name].append(seconds(do))
        print({name: round(each[-1], 2) for name, each in times.items()}, flush=True)
    alone, together = flops(segmenter, one), flops(segmenter, EXPRESSIONS)
    published = published_sam2()
    shared = NUM_FRAMES * published["encode"]
    tracked = (NUM_FRAMES - 5) * published["attend"]
    pairs = list(zip(times["one_by_one_s"], times["together_s"], strict=True))
    asked = list(zip(times["ask_together_s"], times["ask_one_s"], strict=True))
    return {
        "cpu": processor(),
        **{name: statistics.median(each) for name, each in times.items()},
        "speed_up": statistics.median(a / b for a, b in pairs),
        "speed_ups": [a / b for a, b in pairs],
        "ask_ratio": statistics.median(a / b for a, b in asked),
        "ask_ratios": [a / b for a, b in asked],
        "flops_one": dict(alone),
        "flops_together": dict(together),
        "flops_allow": allowed(alone["all"], together["all"]),
        "flops_allow_ask": asked_flops(together) / asked_flops(alone),
        "published_flops": published,
        "published_allows": allowed(shared + tracked, shared + count * tracked),
    }


def main() -> None:
    """Measures, prints, and writes the table."""
    torch.set_num_threads(1)
    result = measure(random_segmenter())
    print(json.dumps(result, indent=2))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "sa2va_expressions.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "sa2va_expressions.md").write_text(table(result))


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    height, width = FRAME_SIZE
    one, together = result["flops_one"], result["flops_together"]
    speed_ups = ", ".join(f"{each:.2f}" for each in result["speed_ups"])
    asked = ", ".join(f"{each:.2f}" for each in result["ask_ratios"])
    published = result["published_flops"]
    lines = [
        "# 8 expressions of one video with Sa2VA, together against one by one",
        "",
        f"`python -m benchmarks.sa2va_expressions`; {NUM_FRAMES} frames of {height}x{width}, of which 5 go to the "
        f"language model and 20 are tracked; fp32, CPU time of one thread of {result['cpu']}, medians of {REPEATS} "
        f"interleaved repetitions. Random weights in narrow layers: SAM2 of {SAM2.d_model} channels at "
        f"{SAM2.image_size} pixels, a language model of {LANGUAGE['num_hidden_layers']} layers of "
        f"{LANGUAGE['hidden_size']}, chosen so that the parts have about the shares of the work that they have in "
        "the published networks. The largest of those are not measured here.",
        "",
        "| | 1 expression, s | 8 together, s | 8 one by one, s | ratio | of each repetition | by operations alone |",
        "|---|---|---|---|---|---|---|",
        f"| from frames to masks | {result['one_s']:.2f} | {result['together_s']:.2f} | {result['one_by_one_s']:.2f} "
        f"| one by one / together: {result['speed_up']:.2f} | {speed_ups} | {result['flops_allow']:.2f} |",
        f"| language and vision part | {result['ask_one_s']:.2f} | {result['ask_together_s']:.2f} | "
        f"| together / 1: {result['ask_ratio']:.2f} | {asked} | {result['flops_allow_ask']:.2f} |",
        "",
        "The last column is what the executed operations allow: the ratio of floating point operations, in which "
        "everything that does not depend on an expression counts once for 8 together, and 8 times for one by one. "
        "Operations, in 10⁹:",
        "",
        "| part | 1 expression | 8 together |",
        "|---|---|---|",
        *(f"| {part} | {one[part] / 1e9:.1f} | {together[part] / 1e9:.1f} |" for part in [*PARTS, "all"]),
        "",
        f"Of the published SAM2 (Hiera-L, 1024 pixels) a frame takes {published['encode'] / 1e9:.0f}·10⁹ operations "
        f"to encode, and {published['attend'] / 1e9:.0f}·10⁹ per object to attend to 11 memories. These two alone, "
        f"25 frames encoded and 20 tracked, allow a speed-up of {result['published_allows']:.2f}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
