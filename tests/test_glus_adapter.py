"""Adapters: what was trained is the same whether it is merged at loading, saved as a checkpoint, or still apart."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from fiftyone_refvos.models.adapters import AdapterError, list_adapters, read_adapter
from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.glus import saving
from fiftyone_refvos.models.glus.adapter import apply_adapter, save_adapter
from fiftyone_refvos.models.glus.inference import GlusSegmenter
from fiftyone_refvos.models.glus.saving import new_folder, save_checkpoint
from fiftyone_refvos.models.glus.weights import translate
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.models.sources import find_checkpoint, find_clip
from fiftyone_refvos.training.config import SamplingConfig, TrainingConfig
from fiftyone_refvos.training.lora import merged_state, prepare
from fiftyone_refvos.training.network import TrainingNetwork
from tests.shared import shared_path
from tests.small import DOG, noise_video


def golden() -> dict[str, Any]:
    folder = shared_path("golden", "glus", "train_step")
    return {
        "checkpoint": folder / "checkpoint",
        "clip_path": folder / "clip_vision_tower",
        "sam_config": folder / "sam2_config.yaml",
    }


def load(**options: Any) -> GlusSegmenter:
    """glus-tiny on the CPU in float32, its memory as in training."""
    settings = {"memory_gamma": "checkpoint"}
    segmenter = load_segmenter("glus-tiny", device="cpu", dtype="float32", settings=settings, **options)
    assert isinstance(segmenter, GlusSegmenter)
    return segmenter


def trained(config: TrainingConfig = TrainingConfig(), **options: Any) -> GlusSegmenter:  # noqa: B008 - frozen
    """A model of which everything that trains has changed."""
    segmenter = load(**options)
    torch.manual_seed(0)
    prepare(segmenter.network, config)
    for parameter in segmenter.network.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn(parameter.shape)
    segmenter.network.eval()
    return segmenter


def logits(segmenter: GlusSegmenter) -> list[torch.Tensor]:
    """What a model computes of a video: next tokens, [SEG] embeddings, and mask logits where it finds something."""
    with torch.inference_mode():
        steps = list(segmenter.steps(noise_video(6), [DOG]))
    low_res = [step.masks.low_res for step in steps if step.masks is not None]
    return [*(step.logits for step in steps), *(step.prompt_embedding for step in steps), *low_res]


def assert_same(ours: GlusSegmenter, theirs: GlusSegmenter) -> None:
    """Equal but for rounding, as W + 2BA is computed in one piece or in two; what was trained changes 1e-2."""
    pairs = list(zip(logits(ours), logits(theirs), strict=True))
    assert max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs) < 1e-5


def save_both(segmenter: GlusSegmenter, folder: Path, **options: Any) -> None:
    """Writes adapter and merged checkpoint of a trained model into a folder."""
    save_adapter(segmenter.network, folder / "adapter", base="glus-tiny", facts={"steps": 3})
    base = find_checkpoint("glus-tiny", options.get("checkpoint"))
    state = merged_state(segmenter.network)
    if options:  # published checkpoints have no CLIP
        state = {name: tensor for name, tensor in state.items() if not name.startswith("clip.")}
    clip, settings = find_clip(base, options.get("clip_path")), segmenter.network.config.recorded
    save_checkpoint(state, folder / "merged", base=base, clip=clip, run_settings=settings)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder with the adapter of glus-tiny and its merged checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    save_both(trained(), folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A copy of the adapter, to be damaged."""
    return Path(shutil.copytree(saved / "adapter", tmp_path / "adapter"))


# --- three ways to the same network ---


@pytest.mark.parametrize("published", [False, True])
def test_adapter_merged_checkpoint_and_lora_are_one_network(published, saved, tmp_path):
    options = golden() if published else {}
    folder = tmp_path if published else saved
    expected = trained(**options)
    if published:
        save_both(expected, folder, **options)
    assert_same(load(**options, adapter=folder / "adapter"), expected)
    assert_same(load(**{**options, "checkpoint": folder / "merged"}), expected)
    before = logits(load(**options))
    assert any(float((a - b).abs().max()) > 1e-2 for a, b in zip(logits(expected), before, strict=False))
    assert (folder / "merged" / "clip").is_dir() != published


def test_the_update_of_the_golden_step_merges_as_it_says(tmp_path):
    """W + 2 B A, for the low-rank matrices of the published program."""
    segmenter = load(**golden())
    base = {name: tensor.clone() for name, tensor in segmenter.network.state_dict().items()}
    prepare(segmenter.network, TrainingConfig())
    given = load_file(shared_path("golden", "glus", "train_step", "inputs", "lora_adapter.safetensors"))
    ours = dict(segmenter.network.named_parameters())
    for name, tensor in given.items():
        ours[translate(name.removeprefix("base_model.model.")) or ""].data.copy_(tensor)
    save_adapter(segmenter.network, tmp_path / "adapter", base="glus-tiny", facts={})
    merged = load(**golden(), adapter=tmp_path / "adapter").network.state_dict()
    assert merged.keys() == base.keys()
    changed = 0
    for name, tensor in merged.items():
        a, b = (next((t for n, t in given.items() if matches(n, name, part)), None) for part in "AB")
        update = 0 if a is None or b is None else 2 * b @ a
        changed += a is not None
        torch.testing.assert_close(tensor, base[name] + update, rtol=1e-6, atol=1e-6)
    assert changed == len(given) / 2 > 0


def matches(lora: str, name: str, part: str) -> bool:
    """Whether a published name of a low-rank matrix belongs to a weight of ours."""
    weight = lora.replace(f".lora_{part}.default.weight", ".weight").replace(f".lora_{part}.weight", ".weight")
    return weight != lora and translate(weight.removeprefix("base_model.model.")) == name


def test_all_parameters_without_lora(tmp_path):
    expected = trained(TrainingConfig(trainable="all"))
    save_both(expected, tmp_path)
    adapter = read_adapter(tmp_path / "adapter")
    assert not adapter.has_lora
    assert any(name.startswith("clip.") for name in adapter.parts)
    assert_same(load(adapter=tmp_path / "adapter"), expected)
    assert_same(load(checkpoint=tmp_path / "merged"), expected)


def test_identity_tells_trainings_apart(saved, tmp_path):
    merged = load(adapter=saved / "adapter")
    assert "adapter_digest" not in load().identity
    assert merged.identity["adapter_digest"] == read_adapter(saved / "adapter").digest
    again = save_adapter(trained().network, tmp_path / "again", base="glus-tiny", facts={})
    assert again.digest == merged.identity["adapter_digest"]
    other = save_adapter(load().network, tmp_path / "other", base="glus-tiny", facts={})
    assert other.digest != again.digest


def test_files_are_those_of_peft(saved):
    config = json.loads((saved / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], sorted(config["target_modules"])) == (8, 16, ["q_proj", "v_proj"])
    names = load_file(saved / "adapter" / "adapter_model.safetensors")
    assert "base_model.model.layers.0.self_attn.q_proj.lora_A.weight" in names
    parts = load_file(saved / "adapter" / "trained_parts.safetensors")
    assert {"lm_head.weight", "model.embed_tokens.weight", "model.mm_projector.weight"} < parts.keys()
    merged = peft.PeftModel.from_pretrained(load().network.llama, str(saved / "adapter")).merge_and_unload()
    ours = load(adapter=saved / "adapter").network.llama.layers[0].self_attn.q_proj.weight
    torch.testing.assert_close(merged.layers[0].self_attn.q_proj.weight, ours, rtol=0, atol=0)


# --- what is refused ---


def test_another_base_is_refused_by_name_before_it_is_loaded(saved):
    with pytest.raises(AdapterError, match="was trained on 'glus-tiny', and cannot change 'glus-s'"):
        load_segmenter("glus-s", adapter=saved / "adapter")


def test_another_base_is_refused_by_its_shapes(saved):
    with pytest.raises(CheckpointError, match="trained on a 'glus-tiny' of other sizes than the one"):
        load(**golden(), adapter=saved / "adapter")


def test_another_base_is_refused_by_its_weights(saved):
    with pytest.raises(CheckpointError, match="trained on a 'glus-tiny' with other weights than the one"):
        load(checkpoint=saved / "merged", adapter=saved / "adapter")


def test_a_base_is_the_same_in_whatever_precision_it_is_stored_or_loaded(saved, tmp_path):
    base = find_checkpoint("glus-tiny")
    half = Path(shutil.copytree(base, tmp_path / "half"))
    tensors = load_file(base / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, half / "model.safetensors")
    load_segmenter("glus-tiny", device="cpu", dtype="bfloat16", checkpoint=half, adapter=saved / "adapter")


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "trained_parts.safetensors"])
def test_tensors_have_to_fit_and_nothing_is_merged_by_halves(copied, file):
    network = load().network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    tensors = load_file(copied / file)
    name = sorted(tensors)[0]
    for change, message in (
        ({name: tensors[name][..., :-1].contiguous()}, "of another shape: "),
        ({"model.norm.weight2": torch.zeros(1)}, "unexpected: model.norm.weight2|unexpected: .*norm.weight2"),
    ):
        save_file(tensors | change, copied / file)
        with pytest.raises(CheckpointError, match=message):
            apply_adapter(network, read_adapter(copied))
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, copied / file)
    with pytest.raises(CheckpointError, match="1 missing: "):
        apply_adapter(network, read_adapter(copied))
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("adapter.json", "{}", r"adapter\.json is damaged"),
        ("adapter.json", "[", r"adapter\.json is damaged"),
        ("adapter_config.json", "[", r"adapter_config\.json is damaged"),
        ("trained_parts.safetensors", "cut off", r"trained_parts\.safetensors is missing or damaged"),
        ("adapter_model.safetensors", "", r"adapter_model\.safetensors is missing or damaged"),
    ],
)
def test_damaged_files_are_named(copied, file, text, message):
    (copied / file).write_text(text)
    with pytest.raises((AdapterError, CheckpointError), match=message):
        load(adapter=copied)


def test_a_folder_without_adapter(tmp_path):
    with pytest.raises(AdapterError, match=r"is no adapter: it has no adapter\.json"):
        load(adapter=tmp_path)
    with pytest.raises(AdapterError, match=r"is no adapter: it is no folder"):
        load(adapter=tmp_path / "gone")


def test_the_folder_of_a_training_names_the_adapter_in_it(saved):
    with pytest.raises(AdapterError, match=re.escape(f"has no adapter.json; pass {saved / 'adapter'}")):
        load(adapter=saved)


def test_without_peft_the_command_is_named(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fiftyone-refvos\[training\]'"):
        load(adapter=saved / "adapter")


# --- folders ---


def test_adapters_in_a_folder(saved, copied, tmp_path):
    trainings = tmp_path / "trainings"
    for name in ("b", "a"):
        shutil.copytree(saved / "adapter", trainings / name / "adapter")
    shutil.copytree(saved / "adapter", trainings / "c")
    shutil.copytree(saved / "adapter", trainings / ".d.part")
    (trainings / "c" / "adapter.json").write_text("{}")  # damaged: left out
    found = list_adapters(trainings)
    assert [adapter.folder for adapter in found] == [trainings / "a" / "adapter", trainings / "b" / "adapter"]
    assert {(adapter.base, adapter.facts["steps"]) for adapter in found} == {("glus-tiny", 3)}
    assert [adapter.folder for adapter in list_adapters(copied)] == [copied]
    assert list_adapters(tmp_path / "gone") == []


def test_a_failed_write_leaves_what_was_there(tmp_path):
    target = tmp_path / "adapter"
    with new_folder(target) as part:
        (part / "file").write_text("old")

    def fail() -> None:
        with new_folder(target) as part:
            (part / "file").write_text("new")
            raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match=r"adapter could not be written .*No space left on device.* MB free"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert (target / "file").read_text() == "old"
    with new_folder(target) as part:
        (part / "file").write_text("new")
    assert (target / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_large_checkpoints_are_written_in_parts(monkeypatch, saved, tmp_path):
    monkeypatch.setattr(saving, "PART_SIZE", "300KB")
    save_both(trained(), tmp_path)
    assert len(list((tmp_path / "merged").glob("model-*-of-*.safetensors"))) > 2
    assert_same(load(checkpoint=tmp_path / "merged"), load(checkpoint=saved / "merged"))


def test_adapter_and_merged_checkpoint_are_run_as_they_were_trained(tmp_path: Path) -> None:
    segmenter = load_segmenter("glus-tiny", device="cpu")
    assert isinstance(segmenter, GlusSegmenter)
    config = TrainingConfig(memory=False, sampling=SamplingConfig(query_frames=2, context_frames=0))
    trained = TrainingNetwork(segmenter.network, config)
    trained.eval()
    save_both(segmenter, tmp_path)
    loads: tuple[dict[str, Any], ...] = ({"adapter": tmp_path / "adapter"}, {"checkpoint": tmp_path / "merged"})
    for options in loads:
        identity = load_segmenter("glus-tiny", device="cpu", **options).identity
        assert config.run_settings.items() <= identity.items(), options
        assert identity["memory_gamma"] == segmenter.identity["memory_gamma"]
