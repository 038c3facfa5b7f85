"""The training loop on a toy network: its arithmetic, and every way in which a run ends or goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fiftyone_refvos.training.config import TrainingConfig
from fiftyone_refvos.training.logs import Row, read_rows
from fiftyone_refvos.training.loop import TrainingOutcome, run
from fiftyone_refvos.training.optimization import NonFiniteError, learning_rate
from fiftyone_refvos.training.state import load_parameters
from tests.processes import die_with_parent, run_twice
from tests.toy_learner import CONFIG, ToyBatch, ToyLearner
from tests.toy_runs import plain_training, program


def rows_of(folder: Path) -> list[Row]:
    """What was logged, without the time it took."""
    return [replace(row, seconds=0, time=0) for row in read_rows(folder / "metrics.jsonl")]


def train(folder: Path, config: TrainingConfig = CONFIG, **options: Any) -> tuple[ToyLearner, TrainingOutcome]:
    learner = ToyLearner()
    return learner, run(learner, config, folder, validate=learner.validation, **options)


def after(steps: int) -> Callable[[], bool]:
    """A `should_stop` that lets so many steps happen."""
    answers = iter([False] * steps + [True])
    return lambda: next(answers)


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_the_rate_rises_from_0_over_the_warm_up_and_falls_to_0_at_the_end():
    config = TrainingConfig(steps=3000, warmup_steps=100, learning_rate=3e-4)
    rates = {step: learning_rate(config, step) for step in (0, 50, 99, 100, 1550, 2999, 3000)}
    expected = {0: 0, 50: 1.5e-4, 99: 2.97e-4, 100: 3e-4, 1550: 1.5e-4, 2999: 3e-4 / 2900, 3000: 0}
    assert rates == pytest.approx(expected)


def test_the_rate_begins_in_full_without_a_warm_up():
    config = TrainingConfig(steps=4, warmup_steps=0, learning_rate=1.0)
    assert [learning_rate(config, step) for step in range(4)] == [1, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_run_is_adamw_on_the_clipped_mean_gradient_of_its_forward_passes(tmp_path: Path, accumulation: int):
    config = replace(CONFIG, accumulation=accumulation, weight_decay=0.1)
    learner = ToyLearner(dropout=0, remembers=False)
    run(learner, config, tmp_path)
    expected = plain_training(ToyLearner(dropout=0, remembers=False), config)
    for name, value in learner.parameters().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)
    moved = (learner.parameters()["hidden.weight"] - ToyLearner().parameters()["hidden.weight"]).abs().max()
    assert moved > 1e-2
    assert max(row.gradient_norm or 0 for row in rows_of(tmp_path)) > config.clip_norm


def test_what_is_frozen_stays_as_it_was(tmp_path: Path):
    learner, _ = train(tmp_path)
    assert torch.equal(learner.parameters()["frozen.weight"], ToyLearner().parameters()["frozen.weight"])


@pytest.mark.parametrize(("accumulation", "steps"), [(1, 4), (3, 1), (3, 6)])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path, accumulation: int, steps: int):
    config = replace(CONFIG, accumulation=accumulation)
    whole, _ = train(tmp_path / "whole", config)
    _, stopped = train(tmp_path / "parts", config, should_stop=after(steps))
    resumed, outcome = train(tmp_path / "parts", config)
    assert (stopped.stopped_because, stopped.steps) == ("should_stop", steps)
    assert (outcome.stopped_because, outcome.steps) == ("finished", config.steps)
    assert_same(resumed.parameters(), whole.parameters())
    assert rows_of(tmp_path / "parts") == rows_of(tmp_path / "whole")
    assert [row.step for row in rows_of(tmp_path / "parts")] == list(range(1, config.steps + 1))


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path):
    whole, _ = train(tmp_path / "whole")
    process = subprocess.run(program("killed", tmp_path / "killed"), check=False, preexec_fn=die_with_parent)
    assert process.returncode == -signal.SIGKILL
    assert [row.step for row in rows_of(tmp_path / "killed")] == [1, 2, 3, 4, 5]
    messages: list[str] = []
    resumed, _ = train(tmp_path / "killed", log=messages.append)
    assert messages[0].startswith("Resuming after step 3 ")
    assert_same(resumed.parameters(), whole.parameters())
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_finishes_its_step_and_saves(tmp_path: Path, number: signal.Signals):
    def interrupt(step: int, steps: int, losses: Mapping[str, float]) -> None:
        if step == 4:
            os.kill(os.getpid(), number)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    _, outcome = train(tmp_path, on_progress=interrupt)
    assert (outcome.stopped_because, outcome.steps) == ("interrupted", 4)
    assert (tmp_path / "checkpoints" / "step-000004").is_dir()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_a_second_interrupt_acts_at_once(tmp_path: Path, request: pytest.FixtureRequest):
    def interrupt(step: int, steps: int, losses: Mapping[str, float]) -> None:
        for _ in range(2 if step == 4 else 0):
            signal.raise_signal(signal.SIGINT)

    # processes that run a part of the tests ignore the signal, unlike those of users
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, former))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, on_progress=interrupt)
    assert [each.name for each in (tmp_path / "checkpoints").iterdir()] == ["step-000003"]


def test_a_loss_that_is_not_finite_stops_with_the_samples_named(tmp_path: Path):
    learner = ToyLearner(broken_from=4 * CONFIG.accumulation)
    with pytest.raises(
        NonFiniteError, match=r"step 5: a loss .*\bfit nan, .*total nan.* samples video\d+, video\d+;"
    ):
        run(learner, CONFIG, tmp_path)
    assert [each.name for each in (tmp_path / "checkpoints").iterdir()] == ["step-000003"]
    assert all(bool(torch.isfinite(each).all()) for each in learner.parameters().values())


def test_a_gradient_that_is_not_finite_stops_before_it_spoils_the_network(tmp_path: Path):
    class Steep(ToyLearner):
        def losses(self, batch: ToyBatch, rng: np.random.Generator) -> Mapping[str, Tensor]:
            losses = dict(super().losses(batch, rng))
            if self.batches > 3 * CONFIG.accumulation:
                losses["total"] = losses["total"] + (0 * self.network.get_parameter("out.weight")).sqrt().sum()
            return losses

    learner = Steep()
    with pytest.raises(NonFiniteError, match=r"the norm of the gradient \(nan\).*samples (video\d+, ){3}video\d+;"):
        run(learner, CONFIG, tmp_path)
    assert all(bool(torch.isfinite(each).all()) for each in learner.parameters().values())


def test_the_best_validation_is_kept_and_a_run_without_a_better_one_ends(tmp_path: Path):
    learner = ToyLearner()
    values, seen = iter([0.3, float("nan"), 0.5, 0.2, 0.4]), []

    def validate() -> float:
        seen.append(learner.parameters())
        return next(values)

    config = replace(CONFIG, validate_every=1, patience=2)
    outcome = run(learner, config, tmp_path, validate=validate)
    assert (outcome.stopped_because, outcome.steps) == ("patience", 5)
    assert outcome.best is not None
    assert (outcome.best.step, outcome.best.value) == (3, 0.5)
    assert [row.validation for row in rows_of(tmp_path)] == [0.3, None, 0.5, 0.2, 0.4]
    assert learner.network.training
    load_parameters(
        outcome.best.path, {name: each for name, each in learner.network.named_parameters() if each.requires_grad}
    )
    assert_same(learner.parameters(), seen[2])


def test_the_last_step_is_validated_too(tmp_path: Path):
    _, outcome = train(tmp_path, replace(CONFIG, steps=3, validate_every=500))
    assert outcome.best is not None
    assert outcome.best.step == 3
    assert [row.validation is not None for row in rows_of(tmp_path)] == [False, False, True]


def test_validations_run_in_the_precision_of_the_training(tmp_path: Path):
    learner, seen = ToyLearner(), []

    def validate() -> float:
        seen.append(learner.network["frozen"](torch.ones(1, 4)).dtype)
        return 0.0

    for precision in ("no", "bf16"):
        run(learner, replace(CONFIG, steps=1, precision=precision), tmp_path / precision, validate=validate)
    assert seen == [torch.float32, torch.bfloat16]


def test_patience_goes_on_counting_in_a_resumed_run(tmp_path: Path):
    config = replace(CONFIG, validate_every=1, patience=3)
    values = iter([0.5, 0.4, 0.3, 0.2])
    for expected in (("should_stop", 2), ("patience", 4), ("patience", 4)):
        outcome = run(ToyLearner(), config, tmp_path, validate=lambda: next(values), should_stop=after(2))
        assert (outcome.stopped_because, outcome.steps) == expected


def test_steps_are_not_lost_for_a_validation_that_fails(tmp_path: Path):
    def fail() -> float:
        raise OSError("no such video")

    with pytest.raises(OSError, match="no such video"):
        run(ToyLearner(), CONFIG, tmp_path, validate=fail)
    outcome = run(ToyLearner(), CONFIG, tmp_path)
    assert outcome.steps == CONFIG.steps
    assert [row.step for row in rows_of(tmp_path)] == list(range(1, CONFIG.steps + 1))
    assert outcome.best is None


def test_each_step_reports_its_progress(tmp_path: Path):
    seen: list[tuple[int, int, float]] = []
    _, outcome = train(tmp_path, on_progress=lambda step, steps, losses: seen.append((step, steps, losses["total"])))
    assert [each[:2] for each in seen] == [(step, CONFIG.steps) for step in range(1, CONFIG.steps + 1)]
    assert seen[-1][2] == outcome.losses["total"]


def test_a_finished_run_is_not_trained_again(tmp_path: Path):
    first, before = train(tmp_path)
    second, outcome = train(tmp_path)
    assert second.batches == 0
    assert outcome == before
    assert_same(second.parameters(), first.parameters())


def test_a_folder_with_a_run_is_refused_if_it_is_not_to_be_resumed(tmp_path: Path):
    train(tmp_path, should_stop=after(1))
    with pytest.raises(FileExistsError, match="holds a training run"):
        train(tmp_path, resume=False)
    assert [row.step for row in rows_of(tmp_path)] == [1]


def test_stages_train_one_network_after_another_in_precisions_of_their_own(tmp_path: Path):
    learner = ToyLearner()
    run(learner, replace(CONFIG, steps=3), tmp_path / "first")
    between = learner.parameters()
    run(learner, replace(CONFIG, precision="bf16", seed=1), tmp_path / "second")
    exact = ToyLearner()
    load_parameters(
        tmp_path / "first" / "checkpoints" / "step-000003" / "parameters.safetensors",
        {name: each for name, each in exact.network.named_parameters() if each.requires_grad},
    )
    assert_same(exact.parameters(), between)
    exact.load_state(torch.load(tmp_path / "first/checkpoints/step-000003/processes.pt")[0]["learner"])
    run(exact, replace(CONFIG, seed=1), tmp_path / "exact")
    rounded, full = rows_of(tmp_path / "second")[0].losses["fit"], rows_of(tmp_path / "exact")[0].losses["fit"]
    assert rounded != full
    assert rounded == pytest.approx(full, rel=2e-2)
    assert {each.dtype for each in learner.parameters().values()} == {torch.float32}


def test_the_callers_random_numbers_are_left_alone(tmp_path: Path):
    def numbers() -> tuple[float, ...]:
        return random.random(), np.random.random(), float(torch.rand(()))

    learner = ToyLearner()  # seeds torch
    random.seed(1)
    np.random.seed(1)
    expected = numbers()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(0)
    ToyLearner()
    run(learner, CONFIG, tmp_path)
    assert numbers() == expected


def test_two_processes_train_on_the_mean_of_their_gradients_and_resume(tmp_path: Path):
    run_twice(program("processes", tmp_path))
    first, second = (json.loads((tmp_path / f"{number}.json").read_text()) for number in (0, 1))
    assert first == second
    assert first["off"] < 1e-6
    assert first["stopped"] == ["should_stop", 4]
    assert first["resumed"] == first["parameters"]
    assert rows_of(tmp_path / "parts") == rows_of(tmp_path / "whole")


def test_two_processes_train_glus_on_the_mean_of_their_gradients(tmp_path: Path):
    """Also where a batch has no mask to learn: the mask decoder of that process gets no gradient."""
    run_twice([sys.executable, str(Path(__file__).with_name("glus_processes.py")), str(tmp_path)])
    first, second = (json.loads((tmp_path / f"{number}.json").read_text()) for number in (0, 1))
    assert first == second
    # a softmax does not see the bias of its keys: its gradient is rounding, of which AdamW makes steps like any
    # other; so it does of the smallest gradients of lora_A, which lora_B's zeros hold back at first
    off = {name: value for name, value in first["off"].items() if not name.endswith("k_proj.bias")}
    assert max(value for name, value in off.items() if "lora_A" not in name) < 1e-4
    assert max(off.values()) < 1e-3
    assert sorted(first["off"]) == sorted(first["moved"])
    for part in ("lora_A", "lora_B", "lm_head.", "projector.", "seg_projection.", "sam_mask_decoder.transformer."):
        assert any(part in name for name in first["moved"]), part
