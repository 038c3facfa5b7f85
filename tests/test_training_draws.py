"""Batches that are drawn ahead are the same, whoever draws them."""

import os

import numpy as np
import pytest
import torch

from fiftyone_refvos.training.draws import Draws


def draw(rng):
    return {"pixels": torch.from_numpy(rng.random((2, 3))), "process": os.getpid()}


def taken(workers, passes=range(2, 7)):
    draws = Draws(draw, seed=5, process=1, passes=passes, workers=workers)
    try:
        batches = [draws.next() for _ in passes]
        with pytest.raises(StopIteration):
            draws.next()
    finally:
        draws.close()
    return batches


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_draw_the_batches_of_the_thread_in_their_order(workers):
    for (here, left_here), (there, left_there) in zip(taken(0), taken(workers), strict=True):
        assert torch.equal(here["pixels"], there["pixels"])
        assert left_here.integers(10**9) == left_there.integers(10**9)  # what the losses go on with
        assert here["process"] == os.getpid() != there["process"]


def test_every_pass_draws_something_else_and_a_resumed_run_the_same():
    whole, resumed = taken(0), taken(0, range(4, 7))
    numbers = [batch["pixels"].sum().item() for batch, _ in whole]
    assert len(set(numbers)) == len(numbers)
    assert [batch["pixels"].sum().item() for batch, _ in resumed] == numbers[2:]


@pytest.mark.parametrize("workers", [0, 2])
def test_drawing_leaves_the_global_generators_alone(workers):
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(3), np.random.random(3)
    torch.manual_seed(3)
    np.random.seed(3)
    taken(workers)
    assert torch.equal(torch.rand(3), expected[0])
    assert (np.random.random(3) == expected[1]).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_cannot_be_drawn_says_why(workers):
    def broken(rng):
        raise ValueError("video 'cats' is broken")

    draws = Draws(broken, seed=5, process=0, passes=range(3), workers=workers)
    with pytest.raises(ValueError, match="video 'cats' is broken"):
        draws.next()
    draws.close()
