"""See `scripts.mllmseg_tiny.recipe`."""

import argparse
from pathlib import Path

from scripts.mllmseg_tiny.recipe import train
from scripts.sa2va_tiny.recipe import NUM_VIDEOS

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=NUM_VIDEOS, help="of the train split")
    arguments = parser.parse_args()
    print(train(arguments.folder, num_videos=arguments.videos))
