"""Checkpoint folders: every tensor accounted for, no code run, and errors that say what to mend."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fiftyone_refvos.models.checkpoint import CheckpointError, iterate_tensors, read_config, weight_files
from fiftyone_refvos.models.glus.config import GlusConfig
from fiftyone_refvos.models.glus.inference import GlusSegmenter
from fiftyone_refvos.models.glus.weights import published_name, translate
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.models.registry import SHIPPED
from fiftyone_refvos.models.sam2_config import Sam2Sizes, build_sam2, read_yaml
from tests.shared import shared_path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the shipped checkpoint, to be broken."""
    return Path(shutil.copytree(SHIPPED / "glus-tiny", tmp_path / "glus"))


def change_weights(folder: Path, change) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def test_missing_unexpected_and_misshaped_tensors_are_all_named(checkpoint: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        del state["model.norm.weight"]
        state["model.vision_tower.extra"] = torch.zeros(1)
        state["lm_head.weight"] = torch.zeros(3, 4)

    change_weights(checkpoint, change)
    with pytest.raises(CheckpointError) as error:
        load_segmenter("glus-tiny", checkpoint=checkpoint)
    assert "1 missing: llama.norm.weight" in str(error.value)
    assert "1 unexpected: llama.vision_tower.extra" in str(error.value)
    assert "1 of another shape: lm_head.weight is [3, 4], expected [644, 128]" in str(error.value)
    assert str(checkpoint) in str(error.value)


def test_bin_and_sharded_checkpoints_load_like_safetensors(checkpoint: Path, tmp_path: Path) -> None:
    state = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    names = sorted(state)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, own in shards.items():
        torch.save({name: state[name] for name in own}, checkpoint / file)
    weight_map = {name: file for file, own in shards.items() for name in own}
    (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    loaded = dict(iterate_tensors(checkpoint))
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    load_segmenter("glus-tiny", checkpoint=checkpoint)


class Bomb:
    """Unpickling this would touch a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_pickle_that_wants_to_run_code_is_refused(checkpoint: Path, tmp_path: Path, save) -> None:
    (checkpoint / "model.safetensors").unlink()
    save({"model.norm.weight": Bomb(tmp_path / "ran")}, checkpoint / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="refused because loading it would run its code"):
        load_segmenter("glus-tiny", checkpoint=checkpoint)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_weight_file_is_named(checkpoint: Path, name: str) -> None:
    state = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    if name.endswith(".bin"):
        torch.save(state, checkpoint / name)
    else:
        save_file(state, checkpoint / name)
    content = (checkpoint / name).read_bytes()
    for kept in (len(content) // 2, 0):
        (checkpoint / name).write_bytes(content[:kept])
        with pytest.raises(CheckpointError, match=f"{name} .*download it again"):
            load_segmenter("glus-tiny", checkpoint=checkpoint)


def test_folder_without_a_checkpoint_says_what_is_missing(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="is no folder"):
        read_config(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="has no config.json"):
        load_segmenter("glus", checkpoint=tmp_path)
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_segmenter("glus", checkpoint=checkpoint)
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json is no JSON"):
        load_segmenter("glus", checkpoint=checkpoint)


def test_index_must_name_files_of_the_folder_that_are_there(checkpoint: Path) -> None:
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(CheckpointError, match="lacks model-1.safetensors"):
        weight_files(checkpoint)
    index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(CheckpointError, match="outside of the checkpoint folder"):
        weight_files(checkpoint)


def test_checkpoint_of_another_system_is_named(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"architectures": ["LISAForCausalLM"]}))
    with pytest.raises(CheckpointError, match="no GLUS checkpoint: its config.json names LISAForCausalLM"):
        load_segmenter("glus", checkpoint=checkpoint)


def test_clip_folder_must_be_a_clip_model_of_the_right_width(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="no CLIP model .*pass clip_path="):
        load_segmenter("glus", checkpoint=checkpoint, clip_path=checkpoint)
    config = json.loads((checkpoint / "clip" / "config.json").read_text())
    (checkpoint / "clip" / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    with pytest.raises(CheckpointError, match="is 32 wide, the checkpoint needs 128"):
        load_segmenter("glus", checkpoint=checkpoint)


@pytest.mark.parametrize("name", ["tokenizer.model", "added_tokens.json"])
def test_missing_or_damaged_tokenizer_file_is_named(checkpoint: Path, name: str) -> None:
    (checkpoint / name).write_bytes(b"\x00not it")
    with pytest.raises(CheckpointError, match=name):
        load_segmenter("glus", checkpoint=checkpoint)
    (checkpoint / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        load_segmenter("glus", checkpoint=checkpoint)


def test_sam2_configuration_of_foreign_classes_is_refused() -> None:
    config = Sam2Sizes().to_yaml()
    config["model"]["image_encoder"]["_target_"] = "os.system"
    with pytest.raises(CheckpointError, match="foreign classes: os.system"):
        build_sam2(config)


def test_default_sizes_are_the_official_hiera_l() -> None:
    from importlib.resources import as_file, files

    with as_file(files("sam2").joinpath("configs/sam2/sam2_hiera_l.yaml")) as path:
        official = read_yaml(path)
    ours = Sam2Sizes().to_yaml()
    # written out where the official file leaves the class's default, which is the same
    assert ours["model"]["memory_encoder"]["mask_downsampler"].pop("embed_dim") == 256
    assert ours["model"]["memory_encoder"].pop("in_dim") == 256
    # written out where the published systems override the official file
    assert ours["model"].pop("sam_mask_decoder_extra_args") == {"dynamic_multimask_via_stability": True}
    assert ours == official


def test_published_names_translate_there_and_back() -> None:
    for name in load_file(SHIPPED / "glus-tiny" / "model.safetensors"):
        ours = translate(name)
        assert ours is not None
        assert published_name(ours) == name
    assert translate("model.layers.0.self_attn.rotary_emb.inv_freq") is None
    assert translate("something.else") == "something.else"


def test_memory_gamma_is_what_config_or_user_says(checkpoint: Path) -> None:
    golden = shared_path("golden", "glus", "plain")
    paths = {"checkpoint": golden / "checkpoint", "clip_path": golden / "clip_vision_tower"}
    paths["sam_config"] = golden / "sam2_config.yaml"

    def gamma(**options) -> torch.Tensor:
        segmenter = load_segmenter("glus", device="cpu", **options)
        assert isinstance(segmenter, GlusSegmenter)
        return segmenter.network.sam.sam2.memory_encoder.fuser.layers[0].gamma

    assert torch.all(gamma(**paths) == 1e-6)  # published checkpoints record nothing
    assert not torch.any(gamma(**paths, settings={"memory_gamma": "checkpoint"}) == 1e-6)
    assert torch.all(gamma(checkpoint=checkpoint).float() > 0.05)  # ours records "checkpoint"
    assert torch.all(gamma(checkpoint=checkpoint, settings={"memory_gamma": "published"}) == 1e-6)


def test_config_lacking_an_entry_is_named(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    del config["out_dim"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="config.json lacks the entry 'out_dim'"):
        GlusConfig.read(checkpoint)
