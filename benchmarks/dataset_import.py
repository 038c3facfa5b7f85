"""What limits the import of a dataset: encoding the videos for the App, and nothing that grows with their number.

Generated videos of 480x854 in the layout of MeViS. In one process, in turn:

- encoding alone: the mp4 files, in as many threads as the import uses;
- the first import, which encodes; with one video at a time, and with one per core;
- the import of the same folder again, when all mp4 files are there;
- the peak of Python's memory while half of the videos, and while all of them are imported.

    python -m benchmarks.dataset_import [--videos 8] [--frames 40]

prints a table and writes it to benchmarks/results/. MongoDB is the one that FiftyOne is set up with.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fiftyone as fo
from PIL import Image

from benchmarks.machine import processor
from fiftyone_refvos import types
from fiftyone_refvos.datasets.layouts.mevis import MeViS
from fiftyone_refvos.datasets.playback import playback_path, write_playback
from fiftyone_refvos.datasets.records import FolderMedia, MediaRecord
from fiftyone_refvos.demo import DemoConfig, generate, video_seed
from fiftyone_refvos.masklet import encode

HEIGHT, WIDTH = 480, 854
RESULTS = Path(__file__).parent / "results"


def write_dataset(root: Path, num_videos: int, num_frames: int) -> None:
    """Demo videos as MeViS has them."""
    folder = root / "train"
    videos: dict[str, Any] = {}
    masks: dict[str, Any] = {}
    for n in range(num_videos):
        video = generate(video_seed("train", n), DemoConfig(height=HEIGHT, width=WIDTH, num_frames=num_frames))
        images = folder / "JPEGImages" / f"{n:04d}"
        images.mkdir(parents=True)
        anno_ids = {thing.id: len(masks) + k for k, thing in enumerate(video.objects)}
        masks |= {str(anno_id): [] for anno_id in anno_ids.values()}
        for t, frame in enumerate(video.frames()):
            Image.fromarray(frame).save(images / f"{t:05d}.jpg", quality=90)
            for anno_id, rle in zip(anno_ids.values(), encode(video.masks(t)), strict=True):
                masks[str(anno_id)].append({"size": rle["size"], "counts": rle["counts"].decode()})
        videos[images.name] = {
            "expressions": {
                str(k): {
                    "exp": each.text,
                    "obj_id": list(range(len(each.object_ids))),
                    "anno_id": [anno_ids[id_] for id_ in each.object_ids],
                }
                for k, each in enumerate(video.expressions)
            },
            "vid_id": n,
            "frames": [f"{t:05d}" for t in range(num_frames)],
        }
    (folder / "meta_expressions.json").write_text(json.dumps({"videos": videos}))
    (folder / "mask_dict.json").write_text(json.dumps(masks))


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def encode_alone(root: Path, cache: Path, workers: int) -> None:
    """The mp4 files, as the import makes them."""

    def one(record: MediaRecord) -> None:
        assert isinstance(record.media, FolderMedia)
        write_playback(playback_path(cache, record.split, record.name, record.media), record.media)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, MeViS(root).records("train")))


def import_dataset(root: Path, cache: Path, workers: int, max_samples: int | None = None) -> None:
    """One import into a dataset that is deleted again."""
    dataset = fo.Dataset()
    dataset.add_dir(
        str(root),
        dataset_type=types.MeViS,
        cache_dir=str(cache),
        num_workers=workers,
        max_samples=max_samples,
        progress=False,
    )
    dataset.delete()


def peak_mib(root: Path, cache: Path, workers: int, max_samples: int) -> float:
    """The peak of what Python and NumPy allocate during an import that encodes."""
    tracemalloc.start()
    import_dataset(root, cache, workers, max_samples)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 2**20


def main() -> None:
    """Measures, prints and stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--frames", type=int, default=40)
    args = parser.parse_args()
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        root, caches = Path(folder) / "data", Path(folder)
        write_dataset(root, args.videos, args.frames)
        import_dataset(root, caches / "warm", cores, 1)  # connections and schema caches
        result = {
            "videos": args.videos,
            "frames": args.frames,
            "workers": cores,
            "processor": processor(),
            "encode": seconds(lambda: encode_alone(root, caches / "alone", cores)),
            "import_one": seconds(lambda: import_dataset(root, caches / "one", 1)),
            "import": seconds(lambda: import_dataset(root, caches / "first", cores)),
            "import_again": seconds(lambda: import_dataset(root, caches / "first", cores)),
            "peak_half": peak_mib(root, caches / "half", cores, args.videos // 2),
            "peak_all": peak_mib(root, caches / "all", cores, args.videos),
        }
    report(result)


def report(result: dict[str, Any]) -> None:
    """Prints the table, and writes it beside the raw figures."""
    frames = result["videos"] * result["frames"]
    rows = {
        "encoding alone": "encode",
        "first import": "import",
        "first import, one video at a time": "import_one",
        "import again, all mp4 files are there": "import_again",
    }
    lines = [
        "# Importing a dataset",
        "",
        f"`python -m benchmarks.dataset_import`; {result['videos']} videos of {result['frames']} frames of "
        f"{HEIGHT}x{WIDTH}, {result['workers']} workers, {result['processor']}.",
        "",
        "| what | seconds | frames per second | of encoding alone |",
        "|---|---|---|---|",
    ]
    for name, key in rows.items():
        value = result[key]
        lines.append(f"| {name} | {value:.2f} | {frames / value:.0f} | {value / result['encode']:.2f} |")
    lines += [
        "",
        f"Peak of Python's memory: {result['peak_half']:.0f} MiB for half of the videos, "
        f"{result['peak_all']:.0f} MiB for all of them.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "dataset_import.md").write_text(text)
    (RESULTS / "dataset_import.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
