"""Every format that masklets can be exported to, by name; light to import."""

from __future__ import annotations

from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.formats.coco_frames import COCOFrames
from fiftyone_refvos.exports.formats.davis import Davis
from fiftyone_refvos.exports.formats.glus_key_frames import GlusKeyFrames
from fiftyone_refvos.exports.formats.mevis import MeViS
from fiftyone_refvos.exports.formats.object_png import ObjectPNG
from fiftyone_refvos.exports.formats.reason_seg import ReasonSeg
from fiftyone_refvos.exports.formats.ref_sav import RefSAV
from fiftyone_refvos.exports.formats.refer_youtube_vos import ReferYouTubeVOS
from fiftyone_refvos.exports.formats.revos import ReVOS
from fiftyone_refvos.exports.formats.sa2va_images import Sa2VAImages
from fiftyone_refvos.exports.formats.sa2va_results import Sa2VAResults
from fiftyone_refvos.exports.formats.sa_v import SaV
from fiftyone_refvos.exports.formats.submission import MeViSSubmission, ReferYouTubeVOSSubmission
from fiftyone_refvos.exports.formats.youtube_vis import YouTubeVIS

_FORMATS: tuple[type[Format], ...] = (
    MeViS,
    ReferYouTubeVOS,
    ReVOS,
    RefSAV,
    YouTubeVIS,
    COCOFrames,
    Davis,
    ObjectPNG,
    SaV,
    Sa2VAImages,
    ReasonSeg,
    GlusKeyFrames,
    Sa2VAResults,
    MeViSSubmission,
    ReferYouTubeVOSSubmission,
)

FORMATS: dict[str, type[Format]] = {each.name: each for each in _FORMATS}
