"""How much several expressions of an image share: 8 in one call against one, and against one by one.

Networks: the golden ones, whose geometry is the published one and whose widths are tiny, on one CPU thread; or,
with --sizes, a network of published sizes with random weights, on a GPU if there is one. What is measured does not
depend on the values of weights. Usage: python -m benchmarks.mllmseg_expressions [--sizes 1B] [--device cuda]
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import processor
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.devices import resolve_device, resolve_dtype
from fiftyone_refvos.models.internvl_tokenizer import load_tokenizer
from fiftyone_refvos.models.mllmseg.config import ARCHITECTURE, MllmsegConfig, MllmsegInference
from fiftyone_refvos.models.mllmseg.inference import MllmsegSegmenter
from fiftyone_refvos.models.mllmseg.loading import load_mllmseg
from fiftyone_refvos.models.mllmseg.weights import empty_network
from tests.shared import shared_root
from tests.small_mllmseg import noise_image

RESULTS = Path(__file__).parent / "results"
GOLDEN = shared_root() / "golden" / "mllmseg"
TABLES = {"1B": "1B", "2B": "2B", "4B": "4B", "8B": "8B_RES"}
TOKENIZERS = {"internlm2": "res_internlm2", "qwen2": "res_qwen2"}
IMAGE_SIZE = (480, 640)
REPEATS = 3
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


def golden_segmenter(case: str, prompting: str) -> MllmsegSegmenter:
    """A golden network in float32 on the CPU."""
    return load_mllmseg(GOLDEN / case / "checkpoint", device="cpu", settings={"prompting": prompting})


def random_segmenter(sizes: str, device: torch.device, prompting: str) -> MllmsegSegmenter:
    """A network of published sizes with random weights and the words of a golden one."""
    path = GOLDEN / f"MLLMSeg_InternVL2_5_{TABLES[sizes]}.published_keys.json.gz"
    own = {"architectures": [ARCHITECTURE], "downsample_ratio": 0.5}
    config = MllmsegConfig.from_dict(
        json.loads(gzip.decompress(path.read_bytes()))["_assumed_config"] | own, where=path
    )
    network = empty_network(config)
    rotary = network.language_model.rotary_emb
    network.language_model.rotary_emb = torch.nn.Identity()  # its constants are there already
    network.to(resolve_dtype(None, device)).to_empty(device=device)
    network.language_model.rotary_emb = rotary.to(device)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.fill_(1.0) if "norm" in name or name.endswith("running_var") else tensor.normal_(0, 0.02)
    tokenizer = load_tokenizer(GOLDEN / TOKENIZERS[config.family] / "checkpoint", config.family)
    settings = MllmsegInference(prompting="joint" if prompting == "joint" else "single")
    return MllmsegSegmenter(network.eval(), tokenizer, settings)


def cost(segmenter: MllmsegSegmenter, groups: Sequence[Sequence[Expression]]) -> float:
    """Seconds for one call per group of expressions, masks included: CPU time, or on a GPU until all is done."""
    image = noise_image(*IMAGE_SIZE)
    on_gpu = segmenter.network.device.type == "cuda"
    clock: Callable[[], float] = time.perf_counter if on_gpu else time.process_time
    best = float("inf")
    for _ in range(REPEATS):
        start = clock()
        for group in groups:
            for _ in segmenter.segment_image(image, group):
                pass
        if on_gpu:
            torch.cuda.synchronize()
        best = min(best, clock() - start)
    return best


def measure(name: str, single: MllmsegSegmenter, joint: MllmsegSegmenter) -> dict[str, Any]:
    """The figures of one network."""
    cost(single, [EXPRESSIONS])  # the first call loads kernels
    one = cost(single, [EXPRESSIONS[:1]])
    together = cost(single, [EXPRESSIONS])
    alone = cost(single, [[expression] for expression in EXPRESSIONS])
    return {
        "network": name,
        "device": torch.cuda.get_device_name() if single.network.device.type == "cuda" else processor(),
        "dtype": str(single.network.dtype).removeprefix("torch."),
        "one_s": one,
        "together_s": together,
        "one_by_one_s": alone,
        "joint_s": cost(joint, [EXPRESSIONS]),
        "together_per_one": together / one,
        "speed_up": alone / together,
    }


def main() -> None:
    """Measures, prints, and writes the table, in which rows of other networks and devices stay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", choices=TABLES)
    parser.add_argument("--device")
    options = parser.parse_args()
    device = resolve_device(options.device if options.sizes else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    if options.sizes:
        single = random_segmenter(options.sizes, device, "single")
        joint = MllmsegSegmenter(single.network, single.prompts.tokenizer, MllmsegInference(prompting="joint"))
        measured = [measure(f"{options.sizes}, random weights", single, joint)]
    else:
        measured = [
            measure(f"golden {case}, tiny widths", *(golden_segmenter(case, each) for each in ("single", "joint")))
            for case in TOKENIZERS.values()
        ]
    path = RESULTS / "mllmseg_expressions.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    replaced = {(row["network"], row["device"]) for row in measured}
    rows = [row for row in rows if (row["network"], row["device"]) not in replaced] + measured
    print(json.dumps(measured, indent=2))
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    (RESULTS / "mllmseg_expressions.md").write_text(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    height, width = IMAGE_SIZE
    lines = [
        "# 8 expressions of one image, together against one, and against one by one",
        "",
        f"`python -m benchmarks.mllmseg_expressions`; one image of {height}x{width}, masks at its size included; on "
        f"a CPU the time of one thread, the best of {REPEATS}.",
        "",
        "| network | device | precision | 1 expression, ms | 8 together, ms | 8 one by one, ms | 8 in one prompt, ms "
        "| 8 together / 1 | one by one / together |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['network']} | {r['device']} | {r['dtype']} | {1000 * r['one_s']:.0f} | {1000 * r['together_s']:.0f} "
        f"| {1000 * r['one_by_one_s']:.0f} | {1000 * r['joint_s']:.0f} | {r['together_per_one']:.2f} "
        f"| {r['speed_up']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
