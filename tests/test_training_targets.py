"""The losses of a training step: which are computed, from which targets, and that they can be learned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fiftyone_refvos.training.batch import Collator
from fiftyone_refvos.training.config import LossConfig
from tests.training_data import BOTH, NOTHING, PUBLISHED, VIDEOS, MemoryVideo, Setup, from_nothing
from tests.training_data import DOG as THE_DOG

NO_TARGET = (THE_DOG, NOTHING, BOTH)


def test_losses_without_weight_are_not_computed() -> None:
    setup = from_nothing(LossConfig(bce=0.0, dice=0.0, contrastive=0.0))
    network, batch = setup.network(), setup.batch(VIDEOS)
    output = network(batch)
    assert output.losses.keys() == {"ce", "total"}
    assert output.low_res is None
    setup = from_nothing(LossConfig(ce=0.0, bce=0.0, contrastive=0.0))
    output = setup.network()(batch)
    assert output.losses.keys() == {"dice", "total"}
    assert output.losses["dice"] == output.losses["total"] > 0


def test_expression_without_target_is_supervised_in_its_words_alone() -> None:
    setup = from_nothing(LossConfig(negatives=1), query_frames=2, no_target=True)
    network = setup.network()
    batch = setup.batch([MemoryVideo("a", expressions=NO_TARGET)], count=1)
    order = [row.expression for row in batch.rows]
    output = network(batch)
    assert output.low_res is not None
    assert output.low_res.shape[:2] == (2, 2)
    assert batch.target_rows.tolist() == [n for n, identity in enumerate(order) if identity != NOTHING.id]
    assert {entry.expression for entry in network.bank.entries} == {THE_DOG.id, BOTH.id}
    logits = network.glus.lm_head(output.seg_hidden)
    labels = torch.full((3, 2), setup.writer().seg_id)
    labels[order.index(NOTHING.id)] = setup.writer().no_target_id
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert output.losses["ce"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_batch_in_which_nothing_has_a_target_has_no_mask_loss() -> None:
    setup = from_nothing(LossConfig(ce=0.0), no_target=True)
    network = setup.network()
    output = network(setup.batch([MemoryVideo("a", expressions=(NOTHING,))], count=1))
    assert output.losses.keys() == {"total"}
    output.losses["total"].backward()
    assert output.losses["total"] == 0


def test_contrastive_loss_needs_a_source_that_has_it() -> None:
    setup = Setup(replace(PUBLISHED.config, losses=LossConfig(negatives=1)))
    network = setup.network()
    clips = setup.clips(VIDEOS[:1])
    output = network(Collator(112, "center_crop")(clips))
    assert output.contrastive is not None
    assert output.losses["contrastive"] > 0  # two expressions of the dog, and one of more
    other = setup.network()
    output = other(Collator(112, "center_crop")([replace(clip, contrastive=False) for clip in clips]))
    assert "contrastive" not in output.losses
    assert other.bank.entries == []


def test_targets_may_have_any_size() -> None:
    setup = from_nothing()
    network = setup.network()
    for size in ((32, 32), (96, 128)):
        batch = setup.batch([MemoryVideo("a", target_size=size)])
        assert batch.targets[0].masks.shape[-2:] == size
        assert network(batch).losses["bce"].isfinite()


def test_network_learns_a_batch_by_heart() -> None:
    setup = from_nothing(LossConfig(clip_targets=True))
    network, batch = setup.network(), setup.batch(VIDEOS)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.0)
    totals = []
    for _ in range(25):
        total = network(batch).losses["total"]
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.5 * totals[0]
