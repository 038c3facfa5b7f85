"""Every format that masklets can be exported to, by name; light to import."""

from __future__ import annotations

from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.formats.glus_key_frames import GlusKeyFrames
from fiftyone_refvos.exports.formats.mevis import MeViS
from fiftyone_refvos.exports.formats.ref_sav import RefSAV
from fiftyone_refvos.exports.formats.refer_youtube_vos import ReferYouTubeVOS
from fiftyone_refvos.exports.formats.revos import ReVOS
from fiftyone_refvos.exports.formats.sa2va_images import Sa2VAImages
from fiftyone_refvos.exports.formats.sa2va_results import Sa2VAResults
from fiftyone_refvos.exports.formats.submission import MeViSSubmission, ReferYouTubeVOSSubmission

_FORMATS: tuple[type[Format], ...] = (
    MeViS,
    ReferYouTubeVOS,
    ReVOS,
    RefSAV,
    Sa2VAImages,
    Sa2VAResults,
    MeViSSubmission,
    ReferYouTubeVOSSubmission,
    GlusKeyFrames,
)

FORMATS: dict[str, type[Format]] = {each.name: each for each in _FORMATS}
