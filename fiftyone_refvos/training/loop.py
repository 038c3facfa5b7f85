"""The training loop: steps, checkpoints, validations, logs, and the ways in which a run ends.

A run has a folder of its own; a second call with the same folder goes on where the first one stopped. Networks that
are trained in stages go through `run` once per stage, each with its configuration and folder.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from accelerate.utils import broadcast_object_list, gather_object, send_to_device, set_seed

from fiftyone_refvos.training.config import TrainingConfig
from fiftyone_refvos.training.draws import Draws
from fiftyone_refvos.training.learner import Learner
from fiftyone_refvos.training.logs import METRICS, PLOT, Row, TrainingLog
from fiftyone_refvos.training.optimization import Optimization, Step
from fiftyone_refvos.training.state import (
    PARAMETERS,
    Best,
    Checkpoints,
    Progress,
    load_parameters,
    random_states,
    read_best,
    restore_random_states,
    save_best,
    trained_tensors,
)

logger = logging.getLogger(__name__)

StoppedBecause = Literal["finished", "patience", "should_stop", "interrupted"]
OnProgress = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class TrainingOutcome:
    """How a run ended; the network holds the parameters of its last step.

    Attributes:
        steps: that are done, those before a resume included
        losses: of the last step
        best: of the best validation, if there was one
        stopped_because: all steps are done, validations no longer got better, the caller asked to stop, or Ctrl-C
            or SIGTERM did; all but the first two can be resumed
        plot: the picture of the curves
    """

    steps: int
    losses: Mapping[str, float]
    best: Best | None
    stopped_because: StoppedBecause
    plot: Path


def run(
    learner: Learner[Any],
    config: TrainingConfig,
    folder: Path,
    *,
    resume: bool = True,
    validate: Callable[[], float] | None = None,
    on_progress: OnProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
    log: Callable[[str], None] = logger.info,
    workers: int = 0,
) -> TrainingOutcome:
    """Trains a network, or goes on training it.

    Under `accelerate launch` every process calls this alike; the callables are used in the main one. accelerate picks
    the device; ACCELERATE_USE_CPU=true keeps it off the GPU. The global random generators are left as they were.

    Args:
        learner: network, data and losses
        config: of the run
        folder: gets `checkpoints`, `best`, `metrics.jsonl`, `tensorboard` and `training.png`
        resume: go on from the newest checkpoint in the folder; False refuses a folder that holds a run
        validate: measures the network, more is better; called every `validate_every` steps, and after the last one
        on_progress: called after each step with its number, the number of steps, and its losses
        should_stop: asked before each step; True saves a checkpoint and ends the run
        log: gets a line of text where something happens
        workers: forked processes that draw batches, for data that they may share; 0 draws in a thread

    Raises:
        FileExistsError: if the folder holds a run and must not be resumed
        CheckpointError: if the folder holds another run, a checkpoint cannot be read, or one cannot be written
        NonFiniteError: if a loss or gradient is infinite or not a number
    """
    if not resume and ((folder / METRICS).exists() or (folder / "checkpoints").exists()):
        raise FileExistsError(f"{folder} holds a training run: resume it, or choose another folder")
    with _kept_random_states(), ExitStack() as stack:
        trainer = _Trainer(learner, config, folder, validate, log, workers)
        trainer.begin(stack)
        return trainer.train(on_progress, should_stop)


class _Trainer:
    """One call of `run`."""

    def __init__(
        self,
        learner: Learner[Any],
        config: TrainingConfig,
        folder: Path,
        validate: Callable[[], float] | None,
        log: Callable[[str], None],
        workers: int,
    ) -> None:
        self.learner, self.config, self.folder, self.validate = learner, config, folder, validate
        self.workers = workers
        self.optimization = Optimization(learner, config)
        self.tensors = trained_tensors(learner.network)
        self.accelerator = self.optimization.accelerator
        self.main = self.accelerator.is_main_process
        self.log = log if self.main else logger.debug
        self.checkpoints = Checkpoints(folder / "checkpoints", config, self.accelerator.num_processes)
        self.progress = Progress()
        self.saved_step = 0
        self.losses: Mapping[str, float] = {}
        self.logs: TrainingLog | None = None  # of the main process alone

    def begin(self, stack: ExitStack) -> None:
        """Seeds, or resumes, and opens what the stack closes again."""
        if self.main:
            self.checkpoints.prepare(self.tensors)
        self.accelerator.wait_for_everyone()
        set_seed(self.config.seed, device_specific=True)
        newest = self.checkpoints.newest()
        if newest is not None:
            self._resume(newest)
        if self.main:
            self.logs = stack.enter_context(TrainingLog(self.folder, self.progress.step))
            self.losses = self.logs.rows[-1].losses if self.logs.rows else {}
        each = self.config.accumulation
        passes = range(self.progress.step * each, self.config.steps * each)
        draws = Draws(self.learner.draw, self.config.seed, self.accelerator.process_index, passes, self.workers)
        self.draws = stack.enter_context(closing(draws))
        self.interrupted = stack.enter_context(_interrupts())

    def train(self, on_progress: OnProgress | None, should_stop: Callable[[], bool] | None) -> TrainingOutcome:
        while (because := self._stop(should_stop)) is None:
            done = self.optimization.step(self.progress.step, self.draws)
            self._finish(done)
            if self.main and on_progress is not None:
                on_progress(self.progress.step, self.config.steps, done.losses)
        if self.progress.step > self.saved_step:
            self._save()
        plot = self.logs.plot() if self.logs is not None else self.folder / PLOT
        self.log(f"Training stopped after step {self.progress.step} of {self.config.steps}: {because}")
        return TrainingOutcome(self.progress.step, self.losses, read_best(self.folder / "best"), because, plot)

    def _resume(self, path: Path) -> None:
        self.progress = self.checkpoints.read_progress(path)
        load_parameters(path / PARAMETERS, self.tensors)
        self.optimization.load_state(self.checkpoints.read_optimizer(path))
        process = self.checkpoints.read_process(path, self.accelerator.process_index)
        self.learner.load_state(process["learner"])
        restore_random_states(process["random"])
        self.saved_step = self.progress.step
        self.log(f"Resuming after step {self.progress.step} from {path}")

    def _stop(self, should_stop: Callable[[], bool] | None) -> StoppedBecause | None:
        """Why to stop now; the same in all processes, though a signal may reach but one."""
        because: StoppedBecause | None = None
        if self.progress.step >= self.config.steps:
            because = "finished"
        elif self.config.patience is not None and self.progress.stale >= self.config.patience:
            because = "patience"
        elif self.interrupted():
            because = "interrupted"
        elif self.main and should_stop is not None and should_stop():
            because = "should_stop"
        return next((each for each in gather_object([because]) if each is not None), None)

    def _finish(self, done: Step) -> None:
        """Validates, logs and saves after a step; in this order, for the validation to be part of the checkpoint."""
        step = self.progress.step + 1
        self.progress, self.losses = replace(self.progress, step=step), done.losses
        value, failure = None, None
        if self.validate is not None and (step % self.config.validate_every == 0 or step == self.config.steps):
            value, failure = self._validate(self.validate)
        if self.logs is not None:
            row = Row(step, done.losses, done.learning_rate, done.gradient_norm, done.seconds, time.time(), value)
            self.logs.add(row)
        if failure is not None or step % self.config.save_every == 0:
            self._save()
        if failure is not None:
            raise failure  # after saving: the steps are not lost for it

    def _validate(self, validate: Callable[[], float]) -> tuple[float | None, BaseException | None]:
        """Measures the network in the main process and keeps it if it is the best.

        Returns:
            the value, None if it is not a number; and why there is none, the same in all processes
        """
        value, failure = math.nan, None
        if self.main:
            self.learner.network.eval()
            try:
                with self.accelerator.autocast():
                    value = float(validate())
            except BaseException as error:
                failure = error
            self.learner.network.train()
        value, failed = broadcast_object_list([value, failure is not None])
        if failed:
            return None, failure or RuntimeError("the validation failed in the main process")
        step, best = self.progress.step, self.progress.best
        if math.isfinite(value) and (best is None or value > best):
            if self.main:
                save_best(self.folder / "best", self.tensors, step, value)
            self.progress = Progress(step, best=value, stale=0)
        else:
            self.progress = replace(self.progress, stale=self.progress.stale + 1)
        self.log(f"Validation after step {step}: {value:.4g}, best {self.progress.best}")
        return (value if math.isfinite(value) else None), None

    def _save(self) -> None:
        process = {"random": random_states(), "learner": send_to_device(dict(self.learner.state()), "cpu")}
        processes = gather_object([process])
        if self.logs is not None:
            path = self.checkpoints.save(self.progress, self.tensors, self.optimization.state(), processes)
            self.logs.plot()
            self.log(f"Saved {path}")
        self.saved_step = self.progress.step


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came, which then wait for the end of the step; a second one acts at once.

    Only the main thread may ask for signals; elsewhere, as in the App's server, `should_stop` is the way.
    """
    asked = False
    before: dict[signal.Signals, Any] = {}

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        for each, handler in before.items():
            signal.signal(each, handler)

    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGINT, signal.SIGTERM):
            before[each] = signal.signal(each, remember)
    try:
        yield lambda: asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _kept_random_states() -> Iterator[None]:
    before = random_states()
    try:
        yield
    finally:
        restore_random_states(before)
