"""What is asked of a system when one of its models is loaded by name; every system says what it takes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class LoadRequest:
    """A model by name, with everything but its own weights.

    Attributes:
        name: of the registry
        device: where to run
        dtype: precision of the parameters
        settings: how to run it, by field name of the system's settings
        sources: further files by option name (`clip_path`, `sam_config`, `tracker`, `adapter`), those that were given
    """

    name: str
    device: torch.device
    dtype: torch.dtype
    settings: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Path] = field(default_factory=dict)

    def take(self, *options: str, system: str) -> list[Path | None]:
        """The files of these options, None where one was not given.

        Raises:
            ValueError: for files that the system has no use for
        """
        if foreign := sorted(self.sources.keys() - set(options)):
            wanted = f"; it takes {', '.join(options)}" if options else ""
            raise ValueError(f"{self.name!r} is a model of {system}, which takes no {', '.join(foreign)}{wanted}")
        return [self.sources.get(option) for option in options]


def read_settings(kind: type[Settings], settings: Mapping[str, Any], *, system: str) -> Settings:
    """Settings of a system from their names and values.

    Raises:
        ValueError: for unknown names and wrong values
    """
    known = [each.name for each in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if unknown := sorted(settings.keys() - set(known)):
        raise ValueError(f"unknown settings {', '.join(unknown)}; {system} has {', '.join(known)}")
    return kind(**settings)
