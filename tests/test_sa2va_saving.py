"""Sa2VA checkpoints that are written here load like published ones, tensor for tensor."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from fiftyone_refvos.models.checkpoint import tensor_names
from fiftyone_refvos.models.sa2va.loading import load_sa2va
from fiftyone_refvos.models.sa2va.saving import save_checkpoint
from fiftyone_refvos.verify.sa2va_case import read_sizes
from tests.shared import shared_path


@pytest.mark.parametrize("case", ["internvl_qwen2_a", "sa2va_i_a"])
def test_a_written_checkpoint_has_the_published_names_and_the_same_tensors(case: str, tmp_path: Path) -> None:
    golden = shared_path("golden", "sa2va", case)
    base = tmp_path / "base"
    shutil.copytree(golden / "checkpoint", base)
    sizes = read_sizes(golden / "sam2_dims.json")
    assert sizes is not None
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"sam2": asdict(sizes)}))
    network = load_sa2va(base, device="cpu").network
    save_checkpoint(network.state_dict(), tmp_path / "written", base=base)
    again = load_sa2va(tmp_path / "written", device="cpu").network.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in network.state_dict().items())
    assert set(tensor_names(tmp_path / "written")) <= set(tensor_names(base))
