"""FiftyOne dataset types: `fo.Dataset.from_dir(folder, dataset_type=rv.types.MeViS)` and `dataset.export(…)`."""

from __future__ import annotations

from typing import ClassVar

import fiftyone.types as fot

from fiftyone_refvos.datasets.importer import ReferringDatasetImporter, importer_for
from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.layouts.lvvis import LvVis as LVVISLayout
from fiftyone_refvos.datasets.layouts.mevis import MeViS as MeViSLayout
from fiftyone_refvos.datasets.layouts.reason_vos import ReasonVOS as ReasonVOSLayout
from fiftyone_refvos.datasets.layouts.ref_davis17 import RefDAVIS17 as RefDAVIS17Layout
from fiftyone_refvos.datasets.layouts.ref_sav import RefSAV as RefSAVLayout
from fiftyone_refvos.datasets.layouts.refer_youtube_vos import ReferYouTubeVOS as ReferYouTubeVOSLayout
from fiftyone_refvos.datasets.layouts.revos import ReVOS as ReVOSLayout
from fiftyone_refvos.exports.exporter import MaskletExporter, exporter_for
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.formats.coco_frames import COCOFrames as COCOFramesFormat
from fiftyone_refvos.exports.formats.davis import Davis as DAVISFormat
from fiftyone_refvos.exports.formats.glus_key_frames import GlusKeyFrames as GlusKeyFramesFormat
from fiftyone_refvos.exports.formats.mevis import MeViS as MeViSFormat
from fiftyone_refvos.exports.formats.object_png import ObjectPNG as ObjectPNGFormat
from fiftyone_refvos.exports.formats.reason_seg import ReasonSeg as ReasonSegFormat
from fiftyone_refvos.exports.formats.ref_sav import RefSAV as RefSAVFormat
from fiftyone_refvos.exports.formats.refer_youtube_vos import ReferYouTubeVOS as ReferYouTubeVOSFormat
from fiftyone_refvos.exports.formats.revos import ReVOS as ReVOSFormat
from fiftyone_refvos.exports.formats.sa2va_images import Sa2VAImages as Sa2VAImagesFormat
from fiftyone_refvos.exports.formats.sa2va_results import Sa2VAResults as Sa2VAResultsFormat
from fiftyone_refvos.exports.formats.sa_v import SaV as SAVFormat
from fiftyone_refvos.exports.formats.submission import MeViSSubmission as MeViSSubmissionFormat
from fiftyone_refvos.exports.formats.submission import ReferYouTubeVOSSubmission as ReferYouTubeVOSSubmissionFormat
from fiftyone_refvos.exports.formats.youtube_vis import YouTubeVIS as YouTubeVISFormat


class ReferringDataset(fot.Dataset):
    """A published dataset that is imported from its official layout."""

    layout_cls: ClassVar[type[Layout]]

    def get_dataset_importer_cls(self) -> type[ReferringDatasetImporter]:
        """The importer of the layout."""
        return importer_for(self.layout_cls)


class MaskletFormat(fot.Dataset):
    """A format that masklets are exported to: `dataset.export("out", dataset_type=…, masklets_field="glus")`."""

    format_cls: ClassVar[type[Format]]

    def get_dataset_exporter_cls(self) -> type[MaskletExporter]:
        """The exporter of the format."""
        return exporter_for(self.format_cls)


class MeViS(ReferringDataset, MaskletFormat):
    """MeViS, v1 and v2.

    Splits `train`, `valid_u`, `valid` and `test`, the last two without ground truth. Expressions mean any number of
    objects; in v2 `no_target` ones mean none. Samples have `vid_id`.
    """

    layout_cls = MeViSLayout
    format_cls = MeViSFormat


class ReferYouTubeVOS(ReferringDataset, MaskletFormat):
    """Refer-YouTube-VOS.

    Splits `train`, `valid` (the videos to evaluate on, which are those of its list that `test` does not have) and
    `test`, the last two without ground truth. Masks have the `category` of their object.
    """

    layout_cls = ReferYouTubeVOSLayout
    format_cls = ReferYouTubeVOSFormat


class RefDAVIS17(ReferringDataset):
    """Ref-DAVIS17.

    Splits `train` and `valid`. Expressions have `annotator`: 0 and 1 are annotator 1, who saw the first frame and the
    full video, 2 and 3 annotator 2. Pixels that count for nothing are in `frames.void`. Masks have the `category` of
    their object.
    """

    layout_cls = RefDAVIS17Layout


class ReVOS(ReferringDataset, MaskletFormat):
    """ReVOS.

    Splits `train` and `valid`. Expressions have `type_id` and `kind`: 0 "referring", 1 "reasoning" and 2
    "hallucination", which have `no_target`. `frames.foreground` is the union of all objects. Samples have `vid_id`.
    """

    layout_cls = ReVOSLayout
    format_cls = ReVOSFormat


class ReasonVOS(ReferringDataset):
    """ReasonVOS, which is for evaluation alone.

    Split `test`. Samples have `source`. Expressions have `exp_id`, the dataset's own id, which objects of a video may
    share, where `expression_id` is unique; and `is_sent` and `kind`: 1 "sentence" and 0 "phrase". Objects of a video
    may be annotated in different frames; `ground_truth_frames` of the expressions says in which.
    """

    layout_cls = ReasonVOSLayout


class LVVIS(ReferringDataset):
    """LV-VIS, in its original form or converted for RefVOS.

    Split `train`. Expressions are the names of the categories in a video, with blanks; `category`, also of masks, has
    the name as the dataset writes it. Samples have `vid_id`.
    """

    layout_cls = LVVISLayout


class RefSAV(ReferringDataset, MaskletFormat):
    """Ref-SAV.

    Splits `train`, whose samples are the mp4 files of SA-V, annotated in every 4th frame, and `eval`, where
    expressions have `type_id` and `kind`: 0 "long caption" and 1 "short caption".
    """

    layout_cls = RefSAVLayout
    format_cls = RefSAVFormat


class Sa2VAImages(MaskletFormat):
    """Images and single frames with polygons, for finetuning Sa2VA."""

    format_cls = Sa2VAImagesFormat


class Sa2VAResults(MaskletFormat):
    """The `results.json` of Sa2VA's evaluation programs."""

    format_cls = Sa2VAResultsFormat


class MeViSSubmission(MaskletFormat):
    """A zip for the evaluation server of MeViS."""

    format_cls = MeViSSubmissionFormat


class ReferYouTubeVOSSubmission(MaskletFormat):
    """A zip for the evaluation server of Refer-YouTube-VOS."""

    format_cls = ReferYouTubeVOSSubmissionFormat


class GlusKeyFrames(MaskletFormat):
    """The key frames of expressions, as GLUS reads them."""

    format_cls = GlusKeyFramesFormat


class YouTubeVIS(MaskletFormat):
    """YouTube-VIS: videos with categories, which are the texts, for AP over videos."""

    format_cls = YouTubeVISFormat


class COCOFrames(MaskletFormat):
    """COCO with RLEs: every annotated frame, or image, by itself."""

    format_cls = COCOFramesFormat


class DAVIS(MaskletFormat):
    """DAVIS 2017: palette images with the objects of a frame."""

    format_cls = DAVISFormat


class ObjectPNG(MaskletFormat):
    """One binary PNG per object and frame, as the validation set of SA-V has them."""

    format_cls = ObjectPNGFormat


class SAV(MaskletFormat):
    """SA-V's JSON files, for training SAM 2."""

    format_cls = SAVFormat


class ReasonSeg(MaskletFormat):
    """ReasonSeg, for training LISA: an image with polygons for every expression and frame."""

    format_cls = ReasonSegFormat
