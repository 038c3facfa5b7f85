"""The models in FiftyOne's zoo: found without a call, loaded by name, with options, and clear when offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import fiftyone.zoo as foz
import pytest

from fiftyone_refvos.models import sources
from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.devices import DeviceError
from fiftyone_refvos.models.hub import HubError, HubSource
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.models.mllmseg.per_frame import PerFrameSegmenter
from fiftyone_refvos.models.registry import CLIP, MODELS, SELECTORS, SHIPPED, shipped_size
from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter
from fiftyone_refvos.verify.sa2va_case import read_sizes
from fiftyone_refvos.zoo import SelectorModel
from model_zoo import download_model, load_model
from scripts.make_manifest import text
from tests.conftest import REPOSITORY
from tests.shared import shared_path

SELECTOR_NAMES = ["glus-kfs", "kfs-tiny"]
NAMES = ["glus", "glus-a", "glus-s", "glus-s-partial", "glus-tiny"]
SA2VA_NAMES = [
    "sa2va-tiny",
    *("sa2va-1b", "sa2va-4b", "sa2va-8b", "sa2va-26b"),
    *("sa2va-internvl3-2b", "sa2va-internvl3-8b", "sa2va-internvl3-14b"),
    *("sa2va-qwen2_5-vl-3b", "sa2va-qwen2_5-vl-7b", "sa2va-qwen3-vl-4b"),
    *("sa2va-i-1b", "sa2va-i-4b", "sa2va-i-8b", "sa2va-i-26b"),
]
MLLMSEG_NAMES = ["mllmseg-tiny", "mllmseg-8b-res", "mllmseg-8b-gres", "mllmseg-1b-res"]


def published_layout() -> dict[str, str]:
    """Options that load a tiny checkpoint of the published layout."""
    golden = shared_path("golden", "glus", "plain")
    return {
        "checkpoint": str(golden / "checkpoint"),
        "clip_path": str(golden / "clip_vision_tower"),
        "sam_config": str(golden / "sam2_config.yaml"),
    }


def test_committed_manifest_is_that_of_the_registry() -> None:
    assert (REPOSITORY / "model_zoo" / "manifest.json").read_text(encoding="utf-8") == text()
    assert list(MODELS) == [*NAMES, *SA2VA_NAMES, *MLLMSEG_NAMES]
    assert list(SELECTORS) == SELECTOR_NAMES


def test_importing_the_package_makes_the_names_known_in_a_fresh_process(tmp_path: Path) -> None:
    """Beside a manifest of the user's own and that of another clone, which would name all of them twice."""
    clone = tmp_path / "clone"
    (clone / "fiftyone_refvos").mkdir(parents=True)
    shutil.copytree(REPOSITORY / "model_zoo", clone / "model_zoo")
    (tmp_path / "mine.json").write_text(json.dumps({"models": []}))
    named = [str(clone / "model_zoo" / "manifest.json"), str(tmp_path / "mine.json")]
    (tmp_path / ".fiftyone").mkdir()
    (tmp_path / ".fiftyone" / "config.json").write_text(json.dumps({"model_zoo_manifest_paths": named}))
    code = (
        "import fiftyone_refvos as rv, fiftyone as fo, fiftyone.zoo as foz\n"
        "names = [name for name in foz.list_zoo_models() if name.startswith(('glus', 'kfs'))]\n"
        "model = foz.load_zoo_model('glus-tiny', device='cpu')\n"
        "print('RESULT', names, type(model).__name__, model.media_type)\n"
        "print('MANIFESTS', fo.config.model_zoo_manifest_paths)\n"
    )
    environment = {name: v for name, v in os.environ.items() if name != "FIFTYONE_MODEL_ZOO_MANIFEST_PATHS"}
    environment["HOME"] = str(tmp_path)
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert f"RESULT {sorted(NAMES + SELECTOR_NAMES)} RefVOSModel video" in process.stdout
    assert f"MANIFESTS {[named[1], str(REPOSITORY / 'model_zoo' / 'manifest.json')]}" in process.stdout
    for warning in ("already contains", "Failed to load manifest"):
        assert warning not in process.stdout + process.stderr


@pytest.mark.parametrize("name", NAMES)
def test_every_name_loads_a_local_checkpoint_of_the_published_layout(name: str) -> None:
    model = foz.load_zoo_model(name, device="cpu", dtype="float32", memory_gamma="checkpoint", **published_layout())
    assert model.config.name == name
    assert model.segmenter.settings.memory_gamma == "checkpoint"
    assert model.segmenter.network.config.llama.hidden_size == 64
    identity = model.identity
    assert identity["name"] == name
    assert identity["checkpoint"].endswith("checkpoint")
    assert identity["memory_gamma"] == "checkpoint"
    assert identity["dtype"] == "float32"


def test_published_weights_and_their_clip_model_are_downloaded(monkeypatch) -> None:
    asked: list[tuple[str, str, str]] = []
    local = published_layout()

    def fetch(source: HubSource, *, option: str = "checkpoint") -> Path:
        asked.append((source.repo_id, source.revision, option))
        return Path(local["clip_path"] if source.repo_id == CLIP.repo_id else local["checkpoint"])

    monkeypatch.setattr(sources, "fetch", fetch)
    load_segmenter("glus-s", sam_config=local["sam_config"], revision="v2")
    assert asked == [("Swindl/GLUS-S", "v2", "checkpoint"), (CLIP.repo_id, CLIP.revision, "clip_path")]
    assert len(CLIP.revision) == 40


def test_offline_error_says_how_large_and_what_to_do(monkeypatch, tmp_path) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(HubError) as error:
        load_segmenter("glus")
    for part in ("Swindl/GLUS-A", "14.5 GB", "checkpoint="):
        assert part in str(error.value)


def test_options_may_be_paths_and_resources_are_no_identity() -> None:
    paths = {name: Path(value) for name, value in published_layout().items()}
    model = foz.load_zoo_model("glus", device="cpu", feature_cache_bytes=0, expression_batch=1, **paths)
    plain = foz.load_zoo_model("glus", device="cpu", **published_layout())
    assert model.identity == plain.identity
    assert model.identity["memory_gamma"] == "published"


@pytest.mark.parametrize(("name", "case"), [("sa2va-1b", "internvl_qwen2_a"), ("sa2va-i-1b", "sa2va_i_a")])
def test_names_of_sa2va_load_a_local_checkpoint_and_are_run_as_asked(name: str, case: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    golden = shared_path("golden", "sa2va", case)
    shutil.copytree(golden / "checkpoint", folder)
    config = json.loads((folder / "config.json").read_text())
    sizes = read_sizes(golden / "sam2_dims.json")
    assert sizes is not None
    (folder / "config.json").write_text(json.dumps(config | {"sam2": asdict(sizes)}))
    model = foz.load_zoo_model(name, device="cpu", checkpoint=folder, mode="uniform", key_frames=7)
    assert isinstance(model.segmenter, Sa2vaSegmenter)
    assert model.identity["name"] == name
    assert (model.identity["mode"], model.identity["key_frames"]) == ("uniform", 7)
    published = foz.load_zoo_model(name, device="cpu", checkpoint=folder)
    assert published.identity["mode"] == ("sa2va_i" if "-i-" in name else "first")


@pytest.mark.parametrize("name", MLLMSEG_NAMES)
def test_names_of_mllmseg_load_a_local_checkpoint_for_images_and_videos(name: str, monkeypatch) -> None:
    folder = shared_path("golden", "mllmseg", "res_qwen2", "checkpoint")
    model = foz.load_zoo_model(name, device="cpu", checkpoint=folder, prompting="joint")
    assert [type(each).__name__ for each in (model, model.for_videos())] == ["RefVOSImageModel", "RefVOSModel"]
    assert [each.media_type for each in (model, model.for_videos())] == ["image", "video"]
    assert isinstance(model.for_videos().segmenter, PerFrameSegmenter)
    identity = {"name": name, "prompting": "joint"}
    assert model.identity.items() >= identity.items()
    assert model.for_videos().identity.items() >= (identity | {"over_time": "per_frame"}).items()
    asked: list[tuple[str, str]] = []

    def fetch(source: HubSource, *, option: str = "checkpoint") -> Path:
        asked.append((source.repo_id, option))
        return folder

    monkeypatch.setattr(sources, "fetch", fetch)
    with pytest.raises(CheckpointError, match=r"sam2_hiera_large\.pt is no file"):
        load_segmenter(name, checkpoint=folder, device="cpu", settings={"over_time": "memory"})
    assert asked == [("facebook/sam2-hiera-large", "tracker")]


def test_files_that_a_system_has_no_use_for_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match="'sa2va-1b' is a model of Sa2VA, which takes no clip_path"):
        foz.load_zoo_model("sa2va-1b", device="cpu", clip_path="/clip")
    with pytest.raises(ValueError, match="of GLUS, which takes no tracker; it takes clip_path, sam_config, adapter"):
        foz.load_zoo_model("glus", device="cpu", tracker="/sam2.pt")
    with pytest.raises(ValueError, match="of MLLMSeg, which takes no adapter; it takes tracker, sam_config"):
        foz.load_zoo_model("mllmseg-8b-res", device="cpu", adapter="/adapter")
    with pytest.raises(ValueError, match="tracker is for SAM2, which runs with over_time='memory' alone"):
        foz.load_zoo_model("mllmseg-8b-res", device="cpu", tracker="/sam2.pt")


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="unknown settings treshold"):
        foz.load_zoo_model("glus-tiny", device="cpu", treshold=0.5)
    with pytest.raises(ValueError, match="mode is 'last'"):
        foz.load_zoo_model("sa2va-1b", device="cpu", mode="last")
    with pytest.raises(ValueError, match="unknown settings mode; MLLMSeg has prompting, expression_batch, rejected"):
        foz.load_zoo_model("mllmseg-8b-res", device="cpu", mode="first")
    with pytest.raises(CheckpointError, match="has no config.json"):
        foz.load_zoo_model("glus", checkpoint=str(REPOSITORY / "docs"))
    with pytest.raises(DeviceError, match="'cuda:99' was asked for"):
        foz.load_zoo_model("glus-tiny", device="cuda:99")


def test_remote_source_loads_through_the_package(tmp_path: Path) -> None:
    stamp = tmp_path / "glus-tiny.txt"
    download_model("glus-tiny", str(stamp))
    assert stamp.is_file()
    model = load_model("glus-tiny", str(stamp), device="cpu")
    assert model.config.name == "glus-tiny"
    folder = shared_path("golden", "mllmseg", "res_qwen2", "checkpoint")
    assert load_model("mllmseg-1b-res", "unused", device="cpu", checkpoint=str(folder)).media_type == "image"


def test_remote_source_without_the_package_says_which_command_is_missing(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "model_zoo", tmp_path / "source")
    code = "import source; source.download_model('glus', 'x')"
    process = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path, env={"PATH": ""}
    )
    assert "run `pip install fiftyone-refvos`" in process.stderr
    manifest = json.loads((tmp_path / "source" / "manifest.json").read_text())
    assert manifest["name"] != "fiftyone_refvos"


def test_the_selector_loads_by_name_from_a_local_checkpoint() -> None:
    case = shared_path("golden", "kfs", "infer_a")
    options = {
        "checkpoint": case / "checkpoint",
        "clip_path": case / "vision_tower",
        "device": "cpu",
        "max_images": 6,
    }
    model = foz.load_zoo_model("glus-kfs", **options)
    assert isinstance(model, SelectorModel)
    assert model.identity["max_images"] == 6
    assert model.identity["name"] == "glus-kfs"
    remote = load_model("glus-kfs", "unused", **options)
    assert remote.identity == model.identity
    with pytest.raises(TypeError, match=r"scores frames and gives no labels: call .*select_key_frames"):
        model.predict(None)


def test_a_selector_without_published_weights_says_so() -> None:
    with pytest.raises(CheckpointError, match="weights of 'glus-kfs' were never published: pass checkpoint="):
        foz.load_zoo_model("glus-kfs", device="cpu")


def test_the_sa2va_that_ships_is_small() -> None:
    config = json.loads((SHIPPED / "sa2va-tiny" / "config.json").read_text())
    assert config["llm_config"]["vocab_size"] <= 2_000
    assert shipped_size("sa2va-tiny") <= 15e6
