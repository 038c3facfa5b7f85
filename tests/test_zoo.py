"""The models in FiftyOne's zoo: found without a call, loaded by name, with options, and clear when offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fiftyone.zoo as foz
import pytest

from fiftyone_refvos.models import loading
from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.hub import HubError, HubSource
from fiftyone_refvos.models.loading import DeviceError, load_segmenter
from fiftyone_refvos.models.registry import CLIP, MODELS, SELECTORS
from fiftyone_refvos.zoo import SelectorModel
from model_zoo import download_model, load_model
from scripts.make_manifest import text
from tests.conftest import REPOSITORY
from tests.shared import shared_path

SELECTOR_NAMES = ["glus-kfs"]
NAMES = ["glus", "glus-a", "glus-s", "glus-s-partial", "glus-tiny"]


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
    assert list(MODELS) == NAMES
    assert list(SELECTORS) == SELECTOR_NAMES


def test_importing_the_package_makes_the_names_known_in_a_fresh_process(tmp_path: Path) -> None:
    code = (
        "import fiftyone_refvos as rv, fiftyone.zoo as foz\n"
        "names = [name for name in foz.list_zoo_models() if name.startswith('glus')]\n"
        "model = foz.load_zoo_model('glus-tiny', device='cpu')\n"
        "print('RESULT', names, type(model).__name__, model.media_type)\n"
    )
    environment = {name: v for name, v in os.environ.items() if name != "FIFTYONE_MODEL_ZOO_MANIFEST_PATHS"}
    environment["HOME"] = str(tmp_path)  # no config file that names the manifest
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert f"RESULT {sorted(NAMES + SELECTOR_NAMES)} RefVOSModel video" in process.stdout


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

    monkeypatch.setattr(loading, "fetch", fetch)
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


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="unknown settings treshold"):
        foz.load_zoo_model("glus-tiny", device="cpu", treshold=0.5)
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
