"""Segments every mp4 of a folder by one sentence, and opens the App.

Usage: python examples/segment_my_videos.py FOLDER "the dog that is chased" [MODEL]
"""

import sys

import fiftyone as fo
import fiftyone.zoo as foz

import fiftyone_refvos as rv


def main(folder: str, expression: str, model_name: str = "glus-tiny") -> None:
    """Makes a dataset, writes masklets into `frames.masklets`, and prints what failed."""
    dataset = fo.Dataset.from_dir(folder, dataset_type=fo.types.VideoDirectory)
    report = rv.segment(dataset, foz.load_zoo_model(model_name), label_field="masklets", prompts=[expression])
    print(report)
    fo.launch_app(dataset).wait(-1)


if __name__ == "__main__":
    main(*sys.argv[1:])
