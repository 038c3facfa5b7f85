"""Every model by name, and where its weights come from; imports no networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fiftyone_refvos.models.hub import HubSource

System = Literal["glus", "sa2va", "mllmseg", "selector"]
"""A folder of `models/`, whose `loading.py` loads all models of that system."""

SHIPPED = Path(__file__).parents[1] / "checkpoints"

_UNSTATED = "not established, see the model card"
_GLUS_FILES = (
    "config.json",
    *("pytorch_model*.bin", "pytorch_model.bin.index.json"),  # all that GLUS publishes
    *("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
_MLLM_FILES = (
    "config.json",
    *("*.safetensors", "model.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json"),
    *("tokenizer.model", "tokenizer.json", "vocab.json", "merges.txt"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("preprocessor_config.json", "chat_template.jinja", "chat_template.json"),
)

CLIP = HubSource(
    repo_id="openai/clip-vit-large-patch14",
    revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
    licence="MIT for OpenAI's CLIP code, see the model card",
    size_bytes=1_711_000_000,
    allow_patterns=("config.json", "model.safetensors"),
)
SAM2_FILE = "sam2_hiera_large.pt"
SAM2 = HubSource(
    repo_id="facebook/sam2-hiera-large",
    revision="main",
    licence="Apache-2.0",
    size_bytes=898_000_000,
    allow_patterns=(SAM2_FILE,),
)


@dataclass(frozen=True)
class ModelSpec:
    """One name of the zoo.

    Attributes:
        name: what users call it
        system: which code runs it
        source: where its weights come from; None for those that ship with the package
        description: one line
        author: of the weights
    """

    name: str
    system: System
    source: HubSource | None
    description: str
    author: str = "fiftyone-refvos"


def _published(
    name: str,
    system: System,
    repository: str,
    description: str,
    *,
    size: int,
    files: tuple[str, ...] = _MLLM_FILES,
    author: str,
    licence: str = _UNSTATED,
) -> ModelSpec:
    # the commit of "main" is pinned by the first download; no full hashes could be established
    return ModelSpec(name, system, HubSource(repository, "main", licence, size, files), description, author)


def _glus(name: str, repository: str, description: str, licence: str = _UNSTATED) -> ModelSpec:
    return _published(
        name,
        "glus",
        f"Swindl/{repository}",
        description,
        size=14_460_000_000,
        files=_GLUS_FILES,
        author="Lang Lin et al.",
        licence=licence,
    )


def _sa2va(suffix: str, base: str, billions: float) -> ModelSpec:
    """Sizes are those of the built networks in bfloat16; what is published may hold some tensors in float32."""
    name = f"sa2va-{suffix.lower()}"
    author, about = "Haobo Yuan et al.", f"Sa2VA on {base}"
    return _published(name, "sa2va", f"ByteDance/Sa2VA-{suffix}", about, size=round(billions * 2e9), author=author)


def _sa2va_i(suffix: str, base: str, billions: float) -> ModelSpec:
    name = f"sa2va-i-{suffix.lower()}"
    author, about = "Alexey Nekrasov et al.", f"Sa2VA-i on {base}: consistent memory, original SAM2 for propagation"
    return _published(name, "sa2va", f"kumuji/Sa2VA-i-{suffix}", about, size=round(billions * 2e9), author=author)


def _mllmseg(size: str, task: Literal["RES", "GRES"], billions: float) -> ModelSpec:
    about = {
        "RES": "MLLMSeg for images: each expression names one object",
        "GRES": "MLLMSeg for images: an expression names no object, one or several",
    }[task]
    return _published(
        f"mllmseg-{size.lower()}-{task.lower()}",
        "mllmseg",
        f"jcwang0602/MLLMSeg_InternVL2_5_{size}_{task}",
        f"{about}; over videos per frame, or with SAM2's memory",
        size=round(billions * 2e9),
        author="Jingchao Wang et al.",
    )


MODELS: Mapping[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        _glus("glus", "GLUS-A", "GLUS-A: trained on five datasets, the default of the paper's script"),
        _glus("glus-a", "GLUS-A", "GLUS trained on MeViS, Refer-YouTube-VOS, DAVIS17, ReVOS and LV-VIS"),
        _glus(
            "glus-s",
            "GLUS-S",
            "GLUS trained on MeViS and Refer-YouTube-VOS, with contrastive loss",
            licence="Apache-2.0",
        ),
        _glus("glus-s-partial", "GLUS-S-partial", "GLUS-S without contrastive loss"),
        ModelSpec(
            "glus-tiny",
            "glus",
            None,
            "GLUS in miniature for the CPU, trained on the shapes of the demo videos alone",
        ),
        ModelSpec(
            "sa2va-tiny",
            "sa2va",
            None,
            "Sa2VA in miniature for the CPU, trained on the shapes of the demo videos alone; answers questions, too",
        ),
        _sa2va("1B", "InternVL2.5-1B", 1.164),
        _sa2va("4B", "InternVL2.5-4B", 3.942),
        _sa2va("8B", "InternVL2.5-8B", 8.318),
        _sa2va("26B", "InternVL2.5-26B", 25.778),
        _sa2va("InternVL3-2B", "InternVL3-2B", 2.316),
        _sa2va("InternVL3-8B", "InternVL3-8B", 8.183),
        _sa2va("InternVL3-14B", "InternVL3-14B", 15.369),
        _sa2va("Qwen2_5-VL-3B", "Qwen2.5-VL-3B-Instruct", 4.294),
        _sa2va("Qwen2_5-VL-7B", "Qwen2.5-VL-7B-Instruct", 8.528),
        _sa2va("Qwen3-VL-4B", "Qwen3-VL-4B-Instruct", 5.057),
        _sa2va_i("1B", "InternVL2.5-1B", 1.168),
        _sa2va_i("4B", "InternVL2.5-4B", 3.946),
        _sa2va_i("8B", "InternVL2.5-8B", 8.322),
        _sa2va_i("26B", "InternVL2.5-26B", 25.782),
        ModelSpec(
            "mllmseg-tiny",
            "mllmseg",
            None,
            "MLLMSeg in miniature for the CPU, trained on frames of the demo videos alone; says what is not there",
        ),
        _mllmseg("8B", "RES", 8.110),
        _mllmseg("8B", "GRES", 8.110),
        _mllmseg("1B", "RES", 0.966),
    )
}


SELECTORS: Mapping[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            "glus-kfs",
            "selector",
            None,
            "GLUS' key frame selector; its weights were never published: train one",
        ),
        ModelSpec(
            "kfs-tiny",
            "selector",
            None,
            "GLUS' key frame selector in miniature for the CPU, trained on the masks of glus-tiny in demo videos",
        ),
    )
}
"""Key frame selectors, which score frames and give no masks."""

DEFAULT_MODEL = "glus-tiny"

TRAINABLE = tuple(name for name, spec in MODELS.items() if spec.system == "glus")
"""Names that `fiftyone_refvos.train` fine-tunes."""

ANSWERING = tuple(name for name, spec in MODELS.items() if spec.system == "sa2va")
"""Names that `fiftyone_refvos.ask` asks."""

IMAGE_MODELS = tuple(name for name, spec in MODELS.items() if spec.system in ("mllmseg", "sa2va"))
"""Names whose models segment images, too; all others are for videos alone."""

DEFAULT_IMAGE_MODEL = "mllmseg-tiny"


def check_takes_images(name: str) -> None:
    """Refuses a model of videos alone, for images.

    Raises:
        ValueError: with the names of those that segment images
    """
    if name not in IMAGE_MODELS:
        raise ValueError(f"{name!r} segments videos, and no single images: take one of {', '.join(IMAGE_MODELS)}")


def zoo_class(name: str) -> str:
    """The class of `fiftyone_refvos.zoo` that is made of a model; that of its config is called `<class>Config`."""
    if name in SELECTORS:
        return "SelectorModel"
    return "RefVOSImageModel" if MODELS[name].system == "mllmseg" else "RefVOSModel"


def shipped_size(name: str) -> int:
    """Bytes of a checkpoint that ships with the package."""
    return sum(path.stat().st_size for path in (SHIPPED / name).rglob("*") if path.is_file())
