"""The questions, read from a file that a user can replace."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Literal

import yaml

OWN = Path(__file__).with_name("prompts.yaml")

Verdict = Literal["consistent", "conflict"]
CONSISTENT: Verdict = "consistent"
CONFLICT: Verdict = "conflict"

# What a question must use, else the steps would not build on each other, and what it may use besides.
_NEEDED: dict[str, set[str]] = {
    "crop": set(),
    "full": set(),
    "check": {"crop", "full"},
    "scene": {"object"},
    "video": {"scene"},
}
_ALLOWED: dict[str, set[str]] = {"full": {"place"}, "scene": {"place"}, "video": {"count"}}
STEPS = tuple(_NEEDED)
CHECK = "check"


class PromptError(ValueError):
    """A file of prompts cannot be used; the message names it, and what is wrong in it."""


@dataclass(frozen=True)
class Prompts:
    """The questions of all steps.

    Attributes:
        name: what answers keep of it
        digest: of the content of the file, for run records
        steps: a template by the name of the step
        words: with what an answer to the check begins, by verdict
    """

    name: str
    digest: str
    steps: Mapping[str, Template]
    words: Mapping[Verdict, str]

    @property
    def identity(self) -> dict[str, str]:
        """What tells these prompts from others, as plain values."""
        return {"prompts": self.name, "prompts_sha256": self.digest}

    def name_of(self, step: str) -> str:
        """What an answer keeps of the question that it answers."""
        return f"{self.name}/{step}"

    def fill(self, step: str, values: Mapping[str, str]) -> str:
        """The question of a step, with everything filled in."""
        return self.steps[step].substitute(values).strip()

    def verdict(self, text: str) -> Verdict | None:
        """What an answer to the check says; None if it begins with neither word."""
        for verdict, word in self.words.items():
            if re.match(rf"\W*{re.escape(word)}(?!\w)", text, flags=re.IGNORECASE):
                return verdict
        return None


def load_prompts(path: Path | str | None = None) -> Prompts:
    """Reads a file of prompts; without one, those of the package.

    Raises:
        PromptError: if there is no such file, or it does not hold a question for every step
    """
    path = OWN if path is None else Path(path).expanduser()
    try:
        content = path.read_bytes()
        read = yaml.safe_load(content)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PromptError(f"{path}: cannot be read as prompts: {error}") from error
    entries = _mapping(path, "the file", read, {"name", "steps", "verdicts"})
    steps = _mapping(path, "'steps'", entries["steps"], set(STEPS))
    words = _mapping(path, "'verdicts'", entries["verdicts"], {CONSISTENT, CONFLICT})
    return Prompts(
        name=_text(path, "'name'", entries["name"]),
        digest=hashlib.sha256(content).hexdigest(),
        steps={step: _template(path, step, steps[step]) for step in STEPS},
        words={
            verdict: _text(path, f"the verdict {verdict!r}", words[verdict]) for verdict in (CONSISTENT, CONFLICT)
        },
    )


def _template(path: Path, step: str, value: object) -> Template:
    template = Template(_text(path, f"the step {step!r}", value))
    if not template.is_valid():
        raise PromptError(f"{path}: the step {step!r} has a $ that begins no name: write $$ for a dollar sign")
    used, needed = set(template.get_identifiers()), _NEEDED[step]
    if missing := sorted(needed - used):
        raise PromptError(f"{path}: the step {step!r} does not use ${missing[0]}, on which it has to build")
    if unknown := sorted(used - needed - _ALLOWED.get(step, set())):
        known = ", ".join(f"${name}" for name in sorted(needed | _ALLOWED.get(step, set()))) or "nothing"
        raise PromptError(f"{path}: the step {step!r} uses ${unknown[0]}, but can be given {known}")
    return template


def _mapping(path: Path, what: str, value: Any, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != keys:
        found = ", ".join(map(str, value)) if isinstance(value, dict) else repr(value)
        raise PromptError(f"{path}: {what} has to hold {', '.join(sorted(keys))}, but holds {found}")
    return value


def _text(path: Path, what: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise PromptError(f"{path}: {what} has to be text, but is {value!r}")
    return value
