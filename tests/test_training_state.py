"""Checkpoints of training runs: what they hold, what they refuse, and what stays when the disk is full."""

from __future__ import annotations

import json
import random
import resource
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.training.config import LossConfig
from fiftyone_refvos.training.loop import run
from fiftyone_refvos.training.state import (
    Checkpoints,
    Progress,
    load_parameters,
    random_states,
    read_best,
    restore_random_states,
    save_best,
    trained_parameters,
)
from tests.processes import die_with_parent
from tests.toy_learner import CONFIG, ToyLearner
from tests.toy_runs import program

_NAMESPACE = ["unshare", "--map-root-user", "--mount", "--kill-child"]


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The folder of a run that was stopped after step 4."""
    learner = ToyLearner()
    answers = iter([False] * 4 + [True])
    run(learner, CONFIG, tmp_path / "run", should_stop=lambda: next(answers))
    return tmp_path / "run"


def test_a_checkpoint_holds_what_is_trained_and_the_newest_two_are_kept(tmp_path: Path):
    learner = ToyLearner()
    run(learner, replace(CONFIG, save_every=2), tmp_path)
    assert names(tmp_path / "checkpoints") == ["step-000006", "step-000008"]
    newest = tmp_path / "checkpoints" / "step-000008"
    saved = load_file(newest / "parameters.safetensors")
    expected = {name: each for name, each in learner.parameters().items() if not name.startswith("frozen")}
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], each) for name, each in expected.items())
    state = json.loads((newest / "state.json").read_text())
    assert (state["step"], state["config"]["learning_rate"], state["config"]["processes"]) == (8, 1e-2, 1)


def test_another_configuration_is_refused_with_what_differs(trained: Path):
    config = replace(CONFIG, steps=9, losses=LossConfig(dice=0.25))
    with pytest.raises(CheckpointError, match=r"step-000004 .*steps was 8 and is 9, losses.dice was 0.5 and is 0.25"):
        run(ToyLearner(), config, trained)
    run(ToyLearner(), CONFIG, trained)  # nothing was lost


def test_gradients_may_be_checkpointed_in_one_part_of_a_run_and_not_in_another(trained: Path):
    outcome = run(ToyLearner(), replace(CONFIG, gradient_checkpointing=False), trained)
    assert outcome.steps == CONFIG.steps


def test_another_number_of_processes_is_refused(trained: Path):
    with pytest.raises(CheckpointError, match="processes was 1 and is 2"):
        Checkpoints(trained / "checkpoints", CONFIG, 2).read_progress(trained / "checkpoints" / "step-000004")


def test_parameters_of_other_shapes_are_refused_by_name(trained: Path):
    wider = ToyLearner(width=9)
    before = wider.parameters()
    with pytest.raises(CheckpointError, match=r"hidden.weight is \(8, 8\) there and \(9, 9\) here"):
        run(wider, CONFIG, trained)
    assert all(torch.equal(each, before[name]) for name, each in wider.parameters().items())


def test_another_choice_of_what_is_trained_is_refused_by_name(trained: Path):
    learner = ToyLearner()
    learner.network["out"].requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"2 differ: out.bias is \(1,\) there and missing here"):
        run(learner, CONFIG, trained)


def test_a_network_that_trains_nothing_is_refused(tmp_path: Path):
    learner = ToyLearner()
    learner.network.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        run(learner, CONFIG, tmp_path)


def test_a_damaged_checkpoint_is_named_and_an_earlier_one_takes_over(trained: Path):
    damaged = trained / "checkpoints" / "step-000004"
    (damaged / "optimizer.pt").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"step-000004 cannot be read .*: remove it"):
        run(ToyLearner(), CONFIG, trained)
    shutil.rmtree(damaged)
    messages: list[str] = []
    run(ToyLearner(), CONFIG, trained, log=messages.append)
    assert messages[0].startswith("Resuming after step 3 ")


def test_what_a_killed_run_was_writing_is_removed(trained: Path):
    part = trained / "checkpoints" / ".step-000005.part"
    part.mkdir()
    (part / "parameters.safetensors").write_bytes(b"half")
    run(ToyLearner(), CONFIG, trained)
    assert names(trained / "checkpoints") == ["step-000006", "step-000008"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def forbid(step: int, steps: int, losses: Mapping[str, float]) -> None:
        if step == 5:  # no file may be larger now: the parameters fit, AdamW's moments do not
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))

    try:
        with pytest.raises(CheckpointError, match=r"step-000006 could not be written \(.*File too large.*0.05 MB"):
            run(ToyLearner(width=64), CONFIG, tmp_path, on_progress=forbid)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path / "checkpoints") == ["step-000003"]
    assert run(ToyLearner(width=64), CONFIG, tmp_path).steps == CONFIG.steps


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*_NAMESPACE, "true"], check=False).returncode != 0,
    reason="a small file system can be mounted only where user namespaces are allowed",
)
def test_a_full_disk_leaves_the_last_checkpoint_and_one_too_small_is_seen_at_the_start(tmp_path: Path):
    mount = f"mount -t tmpfs -o size=1m tmpfs {shlex.quote(str(tmp_path))}"
    command = [*_NAMESPACE, "sh", "-c", f"{mount} && exec {shlex.join(program('full_disk', tmp_path))}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=die_with_parent).stdout
    (full, larger), left = json.loads(output)
    assert "step-000006 could not be written ([Errno 28] No space left on device): it needs about 0.05 MB" in full
    assert f"on the disk of {tmp_path}/run/checkpoints, which has 0.0" in full
    assert left == ["step-000003"]
    assert "larger/checkpoints could not be written ([Errno 28] No space left" in larger
    assert "it needs about 12.02 MB" in larger


def test_the_best_parameters_are_replaced_as_one(tmp_path: Path):
    learner = ToyLearner(width=64)
    parameters = trained_parameters(learner.network)
    save_best(tmp_path, parameters, 2, 0.1 + 0.2)
    with torch.no_grad():
        learner.network.get_parameter("out.weight").fill_(7)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(CheckpointError, match="parameters.safetensors could not be written"):
            save_best(tmp_path, parameters, 4, 0.9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    best = read_best(tmp_path)
    assert best is not None
    assert (best.step, best.value) == (2, 0.1 + 0.2)
    assert names(tmp_path) == ["parameters.safetensors"]
    load_parameters(best.path, parameters)
    assert torch.equal(learner.parameters()["out.weight"], ToyLearner(width=64).parameters()["out.weight"])


def test_progress_and_all_random_generators_come_back(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, CONFIG, 1)
    parameters = trained_parameters(ToyLearner().network)
    np.random.normal()  # keeps a second one for the next call, which is part of the state
    process = {"random": random_states(), "learner": {}}
    expected = random.random(), np.random.normal(), np.random.random(), torch.rand(3).tolist()
    path = checkpoints.save(Progress(12, best=0.1 + 0.2, stale=1), parameters, {"adamw": {}}, [process])
    assert checkpoints.newest() == path
    assert checkpoints.read_progress(path) == Progress(12, best=0.1 + 0.2, stale=1)
    restore_random_states(checkpoints.read_process(path, 0)["random"])
    assert (random.random(), np.random.normal(), np.random.random(), torch.rand(3).tolist()) == expected
