"""The verbs that bring data in and out: import, export, import-predictions."""

from __future__ import annotations

import argparse
from pathlib import Path

from fiftyone_refvos.cli.options import add_samples, named_samples
from fiftyone_refvos.cli.progress import ProgressLine
from fiftyone_refvos.datasets.registry import LAYOUTS, recognise
from fiftyone_refvos.exports.registry import FORMATS


def add_import(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos import`."""
    importing = verbs.add_parser("import", help="import a published dataset from its official layout")
    importing.add_argument("folder", type=Path, help="the folder of the dataset")
    importing.add_argument("--name", help="name of the FiftyOne dataset (default: that of the folder)")
    importing.add_argument("--type", choices=list(LAYOUTS), help="(default: what the folder looks like)")
    importing.add_argument("--split", action="append", help="may be repeated (default: all that are there)")
    importing.add_argument("--max-samples", type=int, help="import so many at most")
    importing.add_argument("--cache-dir", help="for the videos of the App (default: .refvos_cache in the folder)")
    importing.add_argument("--workers", type=int, help="videos that are prepared at a time (default: one per core)")
    importing.add_argument("--skip-failures", action="store_true", help="leave out videos that have errors")
    importing.set_defaults(run=_import)


def add_export(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos export`."""
    exporting = verbs.add_parser("export", help="write masklets for other programs, or as a submission")
    add_samples(exporting)
    exporting.add_argument("folder", help="where to write")
    exporting.add_argument("--format", required=True, choices=list(FORMATS))
    exporting.add_argument("--masklets-field", required=True, help="field with the masks of a model, or ground_truth")
    exporting.add_argument("--split", help="of all samples (default: that of their tags)")
    media = exporting.add_mutually_exclusive_group()
    media.add_argument("--symlink", action="store_true", help="link to images and videos instead of copying them")
    media.add_argument("--labels-only", action="store_true", help="write no images and videos")
    exporting.add_argument("--overwrite", action="store_true", help="replace what is in the folder")
    exporting.set_defaults(run=_export)


def add_import_predictions(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `refvos import-predictions`."""
    importing = verbs.add_parser("import-predictions", help="read masks that another program has made into a field")
    add_samples(importing)
    importing.add_argument("path", help="a submission (folder or zip), results.json of Sa2VA, or YouTube-VIS results")
    importing.add_argument("--label-field", required=True, help="frame field for the masklets")
    importing.add_argument("--annotations", help="for YouTube-VIS results: the file with their videos and categories")
    importing.add_argument("--overwrite", action="store_true", help="replace what the label field holds")
    importing.add_argument("--skip-failures", action="store_true", help="leave out videos that have errors")
    importing.set_defaults(run=_import_predictions)


def _import(args: argparse.Namespace) -> int:
    found = [LAYOUTS[args.type]] if args.type else recognise(args.folder)
    if len(found) != 1:
        names = ", ".join(layout.name for layout in found)
        problem = (
            f"{args.folder} has several datasets: {names}" if found else f"{args.folder} is no dataset known here"
        )
        raise ValueError(f"{problem}; pass --type, one of: {names or ', '.join(LAYOUTS)}")
    import fiftyone as fo

    from fiftyone_refvos.datasets.importer import importer_for

    importer = importer_for(found[0])(
        args.folder,
        split=args.split,
        cache_dir=args.cache_dir,
        num_workers=args.workers,
        skip_failures=args.skip_failures,
        max_samples=args.max_samples,
    )
    importer.preview()  # what is wrong with the folder is said before there is a dataset
    name = args.name or args.folder.resolve().name
    dataset = fo.load_dataset(name) if fo.dataset_exists(name) else fo.Dataset(name, persistent=True)
    ids = dataset.add_importer(importer)
    print(f"{len(ids)} {found[0].media_type}s of {found[0].title} imported into dataset {name!r}")
    for failure in importer.failures:
        print(f"  failed: {failure.split}/{failure.name}: {failure.error}")
    return 1 if importer.failures else 0


def _export(args: argparse.Namespace) -> int:
    from fiftyone_refvos.exports.exporter import exporter_for

    exporter = exporter_for(FORMATS[args.format])(
        export_dir=args.folder,
        masklets_field=args.masklets_field,
        split=args.split,
        export_media="symlink" if args.symlink else not args.labels_only,
    )
    exporter.overwrite = args.overwrite
    samples = named_samples(args)
    _, target = exporter.check(samples)
    samples.export(dataset_exporter=exporter, overwrite=args.overwrite)
    print(f"{len(samples)} samples written to {target}")
    return 0


def _import_predictions(args: argparse.Namespace) -> int:
    from fiftyone_refvos.import_predictions import import_predictions

    with ProgressLine() as progress:
        report = import_predictions(
            named_samples(args),
            args.path,
            args.label_field,
            annotations=args.annotations,
            overwrite=args.overwrite,
            skip_failures=args.skip_failures,
            progress=progress,
        )
    print(report)
    return 1 if report.failures else 0
