"""The FiftyOne model around any of our segmenters, as `foz.load_zoo_model` gives it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import fiftyone as fo
import fiftyone.core.config as foc
import fiftyone.core.models as fom
import fiftyone.zoo.models as fozm

from fiftyone_refvos import fields
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.devices import resolve_device, resolve_dtype
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.segment import segment_frames

_FILES = ("clip_path", "sam_config", "tracker", "adapter")
_SOURCES = ("checkpoint", "revision", *_FILES)
_LOADING = ("name", *_SOURCES, "device", "dtype")
_FROM_FIFTYONE = ("model_name", "model_path", "type")


class RefVOSModelConfig(foc.Config, fozm.HasZooModel):
    """What `foz.load_zoo_model(name, **kwargs)` takes.

    Args:
        d: a dict with `name`, and optionally `checkpoint` (a folder instead of the published weights),
            `clip_path` (a CLIP folder), `sam_config` (a SAM2 yaml), `tracker` (a weight file of SAM2), `revision`
            (of the published weights), `adapter` (a folder that a training has written), `device`, `dtype`, and the
            settings of the system by name, such as `memory_gamma` of GLUS
    """

    def __init__(self, d: dict[str, Any]) -> None:
        d = self.init({k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in d.items()})
        self.name = self.parse_string(d, "name")
        self.checkpoint = self.parse_path(d, "checkpoint", default=None)
        self.clip_path = self.parse_path(d, "clip_path", default=None)
        self.sam_config = self.parse_path(d, "sam_config", default=None)
        self.tracker = self.parse_path(d, "tracker", default=None)
        self.revision = self.parse_string(d, "revision", default=None)
        self.adapter = self.parse_path(d, "adapter", default=None)
        self.device = self.parse_raw(d, "device", default=None)
        self.dtype = self.parse_raw(d, "dtype", default=None)
        self.settings = {k: v for k, v in d.items() if k not in _LOADING + _FROM_FIFTYONE}

    @property
    def loaded_from(self) -> dict[str, str]:
        """Name, precision and sources of the weights, as plain values."""
        dtype = str(resolve_dtype(self.dtype, resolve_device(self.device))).removeprefix("torch.")
        named = {name: str(getattr(self, name)) for name in _SOURCES if getattr(self, name)}
        return {"name": self.name, "dtype": dtype, **named}


class RefVOSModel(fom.Model, fom.SamplesMixin):
    """A video model whose prompts are the expressions of each sample.

    `fiftyone_refvos.segment` is the richer way to run it: resumable, and it writes what the model says of an
    expression, too. `dataset.apply_model(model, label_field=…, prompt_field=…)` gives the same masks.

    Args:
        config: of the zoo

    Raises:
        CheckpointError: if the checkpoint does not fit
        HubError: if the weights cannot be downloaded
        DeviceError: if the device is not there
    """

    def __init__(self, config: RefVOSModelConfig) -> None:
        fom.SamplesMixin.__init__(self)
        self.config = config
        self.segmenter = load_segmenter(
            config.name,
            checkpoint=config.checkpoint,
            revision=config.revision,
            device=config.device,
            dtype=config.dtype,
            settings=config.settings,
            **{name: getattr(config, name) for name in _FILES},
        )

    @property
    def media_type(self) -> str:
        """Videos, whole or in clips."""
        return "video"

    @property
    def identity(self) -> Mapping[str, Any]:
        """What distinguishes the masks of this model from those of another one; plain values."""
        return {**self.config.loaded_from, **self.segmenter.identity}

    def predict(self, arg: Any, sample: fo.Sample | None = None) -> dict[int, fo.Detections]:
        """Segments one video for `apply_model`.

        Args:
            arg: FiftyOne's reader, which is not used: the exact frames of folder datasets are not in it
            sample: of the video, or of a clip of one

        Returns:
            the labels per frame number, an empty one where nothing is found

        Raises:
            ValueError: without a sample
            FieldError: if the sample holds no expressions
        """
        if sample is None:
            raise ValueError("the expressions are read from the sample, so predict() needs one")
        expressions = self._expressions(sample)
        masklets = segment_frames(self.segmenter, fields.frame_source(sample), expressions)
        return fields.labels_for(sample, masklets)

    def _expressions(self, sample: fo.Sample) -> list[Expression]:
        prompt_field = self.needs_fields.get("prompt_field", fields.EXPRESSIONS)
        expressions = fields.read_expressions(sample, prompt_field)
        if not expressions:
            raise fields.FieldError(f"{sample.filepath} has no expressions in {prompt_field!r}; add some")
        return expressions


class SelectorModelConfig(RefVOSModelConfig):
    """What `foz.load_zoo_model` takes for a key frame selector: as of any model, with the settings of a selector.

    FiftyOne finds it by its name.
    """


class SelectorModel(fom.Model):
    """A key frame selector of the zoo; `fiftyone_refvos.select_key_frames` runs it.

    Args:
        config: of the zoo

    Raises:
        CheckpointError: if the checkpoint does not fit, or none was given where no weights were published
        HubError: if CLIP cannot be downloaded
        DeviceError: if the device is not there
    """

    def __init__(self, config: SelectorModelConfig) -> None:
        # imported here: transformers takes seconds
        from fiftyone_refvos.models.selector.loading import load_named_selector

        self.config = config
        options = {name: getattr(config, name) for name in ("checkpoint", "clip_path", "device", "dtype")}
        self.selector = load_named_selector(config.name, settings=config.settings, **options)

    @property
    def media_type(self) -> str:
        """Videos, whole or in clips."""
        return "video"

    @property
    def identity(self) -> Mapping[str, Any]:
        """What distinguishes the scores of this selector from those of another one; plain values."""
        return {**self.config.loaded_from, **self.selector.identity}

    def predict(self, arg: Any) -> None:
        """Is of no use: scores are numbers of expressions, and no labels.

        Raises:
            TypeError: always, with the way out
        """
        raise TypeError(
            f"{self.config.name} scores frames and gives no labels: call "
            f"fiftyone_refvos.select_key_frames(dataset, model, field=…) instead of apply_model"
        )
