"""How expressions, masklets and scores live in FiftyOne samples; nothing else in the package knows it.

Models count frames from 0, FiftyOne from 1, clips from their first frame: the numbers are converted here, and
only here. Functions take samples of datasets, views and clips views alike.
"""

from fiftyone_refvos.fields.answers import (
    captioned_labels,
    check_marker,
    declare_answers,
    declare_text,
    has_answer,
    is_in_use,
    mark_answers_outdated,
    mark_texts_outdated,
    read_regions,
    region_path,
    shown_labels,
    write_answer,
    write_region_texts,
    write_things,
)
from fiftyone_refvos.fields.crops import to_detection
from fiftyone_refvos.fields.expressions import add_expressions, read_expressions, write_expression_attributes
from fiftyone_refvos.fields.key_frames import (
    count_key_frames,
    declare_frame_list,
    declare_key_frames,
    frame_names,
    has_key_frames,
    mark_all_unselected,
    read_frame_list,
    read_key_frames,
    write_frame_list,
    write_key_frames,
)
from fiftyone_refvos.fields.masklets import labels_for, to_labels, write_masklets
from fiftyone_refvos.fields.media import canvas_size, frame_source
from fiftyone_refvos.fields.reading import read_masklets
from fiftyone_refvos.fields.samples import FieldError
from fiftyone_refvos.fields.schema import (
    EXPRESSIONS,
    check_label_field,
    declare_expressions,
    declare_masklet_schema,
    expressions_field,
    masklet_path,
)
from fiftyone_refvos.fields.state import (
    clear_field,
    clear_leftovers,
    finished_expressions,
    mark_all_unfinished,
    stale_expressions,
)

__all__ = [
    "EXPRESSIONS",
    "FieldError",
    "add_expressions",
    "canvas_size",
    "captioned_labels",
    "check_label_field",
    "check_marker",
    "clear_field",
    "clear_leftovers",
    "count_key_frames",
    "declare_answers",
    "declare_expressions",
    "declare_frame_list",
    "declare_key_frames",
    "declare_masklet_schema",
    "declare_text",
    "expressions_field",
    "finished_expressions",
    "frame_names",
    "frame_source",
    "has_answer",
    "has_key_frames",
    "is_in_use",
    "labels_for",
    "mark_all_unfinished",
    "mark_all_unselected",
    "mark_answers_outdated",
    "mark_texts_outdated",
    "masklet_path",
    "read_expressions",
    "read_frame_list",
    "read_key_frames",
    "read_masklets",
    "read_regions",
    "region_path",
    "shown_labels",
    "stale_expressions",
    "to_detection",
    "to_labels",
    "write_answer",
    "write_expression_attributes",
    "write_frame_list",
    "write_key_frames",
    "write_masklets",
    "write_region_texts",
    "write_things",
]
