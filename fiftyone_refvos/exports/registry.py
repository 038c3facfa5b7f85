"""Every format that masklets can be exported to, by name; light to import."""

from __future__ import annotations

from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.formats.mevis import MeViS

_FORMATS: tuple[type[Format], ...] = (MeViS,)

FORMATS: dict[str, type[Format]] = {each.name: each for each in _FORMATS}
