"""The stages of the training; each starts from the network that the one before it left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fiftyone_refvos.demo.rendered import RenderedVideos
from fiftyone_refvos.models.internvl_tokenizer import load_tokenizer
from fiftyone_refvos.models.mllmseg.network import MllmsegNetwork
from fiftyone_refvos.training.config import SamplingConfig
from fiftyone_refvos.training.mllmseg.config import MllmsegTrainingConfig
from fiftyone_refvos.training.mllmseg.learner import MllmsegLearner
from scripts.mllmseg_tiny.frames import COUNTS, DemoFrames


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: of its folder
        config: of the run
        trains: how the names of the parameters that train begin; all do where it is empty
    """

    name: str
    config: MllmsegTrainingConfig
    trains: tuple[str, ...] = ()

    def make_learner(self, network: MllmsegNetwork, checkpoint: Path, videos: Path) -> MllmsegLearner:
        """What the stage trains.

        Args:
            network: trained in place
            checkpoint: that it was loaded from
            videos: rendered ones
        """
        tokenizer = load_tokenizer(checkpoint, network.config.family)
        frames = DemoFrames(RenderedVideos(videos))
        learner = MllmsegLearner(network, tokenizer, self.config, [frames], [1.0])
        for name, parameter in network.named_parameters():
            if not name.startswith(self.trains or ""):
                parameter.requires_grad_(False)
        return learner


def _config(steps: int, learning_rate: float, **others: Any) -> MllmsegTrainingConfig:
    return MllmsegTrainingConfig.of_length(
        steps,
        learning_rate=learning_rate,
        batch_size=8,
        accumulation=1,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        save_every=100,
        gradient_checkpointing=False,
        lora=None,
        sampling=SamplingConfig(expressions=max(COUNTS), wording="inference", no_target=True),
        dropout=0.0,
        jpeg_quality=None,
        all_absent=True,
        **others,
    )


STAGES = (
    Stage("draw", _config(800, 2e-3), ("mask_decoder.", "internvl.lm_head.")),
    Stage("together", _config(700, 3e-4, trainable="all")),
    Stage("longer", _config(1000, 3e-4, trainable="all")),
    Stage("sharper", _config(1000, 3e-4, trainable="all")),
)
"""First what is new learns to read what the rest says already, which random masks would make it forget; and then all
of it at a rate low enough to keep where things are."""
