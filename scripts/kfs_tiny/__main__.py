"""See `scripts.kfs_tiny.recipe`."""

import argparse
from pathlib import Path

from scripts.kfs_tiny.recipe import NUM_FRESH, NUM_VIDEOS, SEEDS, train

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=NUM_VIDEOS, help="of the train split, whose masks are enough")
    parser.add_argument("--fresh", type=int, default=NUM_FRESH, help="of the train split, which glus-tiny segments")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of the trainings, one each")
    arguments = parser.parse_args()
    print(train(arguments.folder, num_videos=arguments.videos, num_fresh=arguments.fresh, seeds=arguments.seeds))
