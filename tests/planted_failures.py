"""Videos with the masklets of a model that makes one mistake of every kind, and what was found in them."""

import fiftyone as fo
import numpy as np

from fiftyone_refvos.fields import read_expressions, to_detection, write_masklets
from fiftyone_refvos.masklet import encode
from tests.fields_data import masklet, video_sample

SIZE, T = (100, 160), 10
NOTHING = np.zeros((1, *SIZE), dtype=bool)


def box(left, top, side=16):
    mask = NOTHING.copy()
    mask[0, top : top + side, left : left + side] = True
    return mask


DOG, CAT, BIRD, ASTRAY, UNNAMED = (box(left, 10) for left in (4, 30, 56, 82, 108))
ROUGH, SMOOTH = box(0, 30, 60), box(0, 30, 54)  # boundaries further apart than the 2 pixels allowed

# text: true masks, predicted masks, kind, supports of the stretches
PLANTED = {
    "good": ([DOG] * T, [DOG] * T, "none", []),
    "no such thing": ([NOTHING] * T, [NOTHING] * 5 + [ASTRAY] * 5, "false positive", [[6, 10]]),
    "missed": ([DOG] * T, [NOTHING] * T, "missed object", [[1, 10]]),
    "wrong": ([DOG] * T, [CAT] * T, "wrong object", [[1, 10]]),
    "switch": ([DOG] * T, [DOG] * 7 + [CAT] * 3, "identity switch", [[8, 10]]),
    "bad switch": ([CAT] * T, [CAT] * 2 + [DOG] * 3 + [CAT] + [DOG] * 4, "identity switch", [[3, 5], [7, 10]]),
    "to the unnamed": ([CAT] * T, [CAT] * 8 + [UNNAMED] * 2, "identity switch", [[9, 10]]),
    "late": ([DOG] * T, [NOTHING] * 3 + [DOG] * 7, "late start", [[1, 3]]),
    "lost": ([DOG] * T, [DOG] * 6 + [NOTHING] * 4, "late loss", [[7, 10]]),
    "drifting": ([DOG] * T, [DOG] * 6 + [ASTRAY] * 4, "drift", [[7, 10]]),
    "interrupted": ([DOG] * T, [DOG] * 6 + [NOTHING] * 2 + [DOG] * 2, "temporary loss", [[7, 8]]),
    "both": ([np.concatenate([DOG, BIRD])] * T, [BIRD] * T, "missed part", [[1, 10]]),
    "too much": ([DOG] * T, [DOG | CAT | BIRD] * T, "over-segmentation", [[1, 10]]),
    "too little": ([DOG] * T, [box(8, 14, 8)] * T, "under-segmentation", [[1, 10]]),
    "beside": ([DOG] * T, [box(12, 10)] * T, "low overlap", [[1, 10]]),
    "rough": ([SMOOTH] * T, [ROUGH] * T, "boundary only", [[1, 10]]),
}


def sized_video(dataset, path, texts):
    """A video whose metadata tell the size, which no mask does where all are empty."""
    sample = video_sample(dataset, path, num_frames=T, texts=texts)
    metadata = fo.VideoMetadata(total_frame_count=T, frame_height=SIZE[0], frame_width=SIZE[1])
    dataset.set_values("metadata", {sample.id: metadata}, key_field="id")
    return dataset[sample.id]


def plant(dataset, path="/videos/a.mp4", planted=PLANTED, truth="ground_truth"):
    """A video with all failures, and with an object that no expression names."""
    sample = sized_video(dataset, path, list(planted))
    expressions = read_expressions(sample)
    for field, position in ((truth, 0), ("model", 1)):
        found = [masklet(planted[each.text][position], expression=each) for each in expressions]
        write_masklets(sample, field, found)
    sample = dataset[sample.id]
    for number in sample.frames:
        detection = to_detection(encode(UNNAMED)[0], SIZE, label="pole", object_id="77", index=77)
        sample.frames[number][truth].detections.append(detection)
    sample.save()
    return sample


def kinds_of(sample, key="model"):
    return {each.label: getattr(each, f"{key}_failure", None) for each in sample.expressions.detections}


def stretches(sample, key="model"):
    """Kind, expression and support of all that is written, sorted."""
    detections = sample[f"{key}_failures"].detections
    return sorted((each.label, each.expression, each.support) for each in detections)
