"""FiftyOne dataset types: `fo.Dataset.from_dir(folder, dataset_type=rv.types.MeViS)` and `dataset.export(…)`."""

from __future__ import annotations

from typing import ClassVar

import fiftyone.types as fot

from fiftyone_refvos.datasets.importer import ReferringDatasetImporter, importer_for
from fiftyone_refvos.datasets.registry import LAYOUTS
from fiftyone_refvos.exports.exporter import MaskletExporter, exporter_for
from fiftyone_refvos.exports.registry import FORMATS


class ReferringDataset(fot.Dataset):
    """A published dataset that is imported from its official layout."""

    layout: ClassVar[str]
    """Its name in the registry of layouts."""

    def get_dataset_importer_cls(self) -> type[ReferringDatasetImporter]:
        """The importer of the layout."""
        return importer_for(LAYOUTS[self.layout])


class MaskletFormat(fot.Dataset):
    """A format that masklets are exported to: `dataset.export("out", dataset_type=…, masklets_field="glus")`."""

    format: ClassVar[str]
    """Its name in the registry of formats."""

    def get_dataset_exporter_cls(self) -> type[MaskletExporter]:
        """The exporter of the format."""
        return exporter_for(FORMATS[self.format])


class MeViS(ReferringDataset, MaskletFormat):
    """MeViS, v1 and v2.

    Splits `train`, `valid_u`, `valid` and `test`, the last two without ground truth. Expressions mean any number of
    objects; in v2 `no_target` ones mean none. Samples have `vid_id`.
    """

    layout = "mevis"
    format = "mevis"


class ReferYouTubeVOS(ReferringDataset, MaskletFormat):
    """Refer-YouTube-VOS.

    Splits `train`, `valid` (the videos to evaluate on, which are those of its list that `test` does not have) and
    `test`, the last two without ground truth. Masks have the `category` of their object.
    """

    layout = "refer-youtube-vos"
    format = "refer-youtube-vos"


class RefDAVIS17(ReferringDataset):
    """Ref-DAVIS17.

    Splits `train` and `valid`. Expressions have `annotator`: 0 and 1 are annotator 1, who saw the first frame and the
    full video, 2 and 3 annotator 2. Pixels that count for nothing are in `frames.void`. Masks have the `category` of
    their object.
    """

    layout = "ref-davis17"


class ReVOS(ReferringDataset, MaskletFormat):
    """ReVOS.

    Splits `train` and `valid`. Expressions have `type_id` and `kind`: 0 "referring", 1 "reasoning" and 2
    "hallucination", which have `no_target`. `frames.foreground` is the union of all objects. Samples have `vid_id`.
    """

    layout = "revos"
    format = "revos"


class ReasonVOS(ReferringDataset):
    """ReasonVOS, which is for evaluation alone.

    Split `test`. Samples have `source`. Expressions have `exp_id`, the dataset's own id, which objects of a video may
    share, where `expression_id` is unique; and `is_sent` and `kind`: 1 "sentence" and 0 "phrase". Objects of a video
    may be annotated in different frames; `ground_truth_frames` of the expressions says in which.
    """

    layout = "reasonvos"


class LVVIS(ReferringDataset):
    """LV-VIS, in its original form or converted for RefVOS.

    Split `train`. Expressions are the names of the categories in a video, with blanks; `category`, also of masks, has
    the name as the dataset writes it. Samples have `vid_id`.
    """

    layout = "lv-vis"


class RefSAV(ReferringDataset, MaskletFormat):
    """Ref-SAV.

    Splits `train`, whose samples are the mp4 files of SA-V, annotated in every 4th frame, and `eval`, where
    expressions have `type_id` and `kind`: 0 "long caption" and 1 "short caption".
    """

    layout = "ref-sav"
    format = "ref-sav"


class A2DSentences(ReferringDataset):
    """A2D-Sentences; needs `pip install 'fiftyone-refvos[datasets]'`."""

    layout = "a2d-sentences"


class JHMDBSentences(ReferringDataset):
    """JHMDB-Sentences."""

    layout = "jhmdb-sentences"


class RefCOCO(ReferringDataset):
    """RefCOCO."""

    layout = "refcoco"


class RefCOCOPlus(ReferringDataset):
    """RefCOCO+."""

    layout = "refcoco+"


class RefCOCOg(ReferringDataset):
    """RefCOCOg."""

    layout = "refcocog"


class GRefCOCO(ReferringDataset):
    """gRefCOCO."""

    layout = "grefcoco"


class Sa2VAImages(MaskletFormat):
    """Images and single frames with polygons, for finetuning Sa2VA."""

    format = "sa2va-images"


class Sa2VAResults(MaskletFormat):
    """The `results.json` of Sa2VA's evaluation programs."""

    format = "sa2va-results"


class MeViSSubmission(MaskletFormat):
    """A zip for the evaluation server of MeViS."""

    format = "mevis-submission"


class ReferYouTubeVOSSubmission(MaskletFormat):
    """A zip for the evaluation server of Refer-YouTube-VOS."""

    format = "refer-youtube-vos-submission"


class GlusKeyFrames(MaskletFormat):
    """The key frames of expressions, as GLUS reads them."""

    format = "glus-key-frames"


class YouTubeVIS(MaskletFormat):
    """YouTube-VIS: videos with categories, which are the texts, for AP over videos."""

    format = "youtube-vis"


class COCOFrames(MaskletFormat):
    """COCO with RLEs: every annotated frame, or image, by itself."""

    format = "coco-frames"


class DAVIS(MaskletFormat):
    """DAVIS 2017: palette images with the objects of a frame."""

    format = "davis"


class ObjectPNG(MaskletFormat):
    """One binary PNG per object and frame, as the validation set of SA-V has them."""

    format = "object-png"


class SAV(MaskletFormat):
    """SA-V's JSON files, for training SAM 2."""

    format = "sa-v"


class ReasonSeg(MaskletFormat):
    """ReasonSeg, for training LISA: an image with polygons for every expression and frame."""

    format = "reason-seg"
