"""The file with key frames from which GLUS starts to propagate masks."""

from __future__ import annotations

import logging
from pathlib import Path

from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.json_files import JsonEntries
from fiftyone_refvos.exports.media import MediaMode
from fiftyone_refvos.exports.records import Exported

logger = logging.getLogger(__name__)

KEY_FRAMES = "key_frames.json"


class GlusKeyFrames(Format):
    """`{"<video>_<expression id>": <frame number>}`, for the `--score_json` of GLUS.

    The number is the one in the name of the frame, which GLUS looks for among the names: 15 for `00015.jpg`, even if
    it is the 4th frame of the video. The frames of a video file are counted from 0, as in exports of its pictures. An
    expression without key frame is left out, with a warning at the end: GLUS starts with the first frame then. If
    none has one that is an error.
    """

    name = "glus-key-frames"
    title = "GLUS key frames"
    description = "key frames of expressions for GLUS, no masks; needs a field of a model that chooses key frames"
    archive = KEY_FRAMES
    splits_apart = False

    def __init__(self, root: Path, media: MediaMode) -> None:
        super().__init__(root, media)
        self._entries = self.open_files.enter_context(JsonEntries(root / KEY_FRAMES))
        self._written: dict[str, str] = {}
        self._missing = 0

    def add(self, exported: Exported) -> None:
        """Writes the key frames of one video."""
        for expression in exported.record.expressions:
            where = f"expression {expression.id!r} of {exported.name!r}"
            if expression.key_frame is None:
                self._missing += 1
                continue
            key = f"{exported.name}_{expression.id}"
            if key in self._written:
                raise ExportError(
                    f"{where} and {self._written[key]} would both be {key!r}: set another video_name in one of them, "
                    "or export them one by one"
                )
            self._written[key] = where
            self._entries.set(key, _number(exported.stems, expression.key_frame, where))

    def finish(self) -> None:
        """Closes the file, and says what it does not hold."""
        if not self._written:
            raise ExportError(
                "no expression has a key frame in this field: pass the masklets_field of a model that chooses them"
            )
        super().finish()
        if self._missing:
            logger.warning("%d expressions have no key frame and were left out", self._missing)


def _number(stems: tuple[str, ...], key_frame: int, where: str) -> int:
    if not 0 <= key_frame < len(stems):
        raise ExportError(f"{where} has key frame number {key_frame + 1}, but the video has {len(stems)} frames")
    stem = stems[key_frame]
    if not (stem.isascii() and stem.isdecimal()):
        raise ExportError(f"{where}: its key frame is called {stem!r}, but for GLUS frames have numbers as names")
    return int(stem)
