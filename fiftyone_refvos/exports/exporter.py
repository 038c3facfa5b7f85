"""What `dataset.export` calls: samples -> records -> a format -> one rename, so that nothing half-written shows."""

from __future__ import annotations

import inspect
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import fiftyone as fo
import fiftyone.core.utils as fou
import fiftyone.utils.data as foud

from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.media import MediaMode
from fiftyone_refvos.exports.reading import Shown, read_sample
from fiftyone_refvos.exports.records import Exported
from fiftyone_refvos.fields.schema import masklet_fields
from fiftyone_refvos.fields.scores import check_expressions_field, name_of
from fiftyone_refvos.fields.state import stale_expressions

logger = logging.getLogger(__name__)


class MaskletExporter(foud.BatchDatasetExporter):
    """Exports masklets: `dataset.export("out", dataset_type=rv.types.YouTubeVIS, masklets_field="glus")`.

    All is written beside its place first, and renamed when it is complete: whatever happens, there is either the
    whole export or what was there before. An existing folder is an error unless `overwrite=True` is passed. A process
    that is killed leaves a hidden folder `.<name>.*.part` behind, which can be removed; while one is
    replaced what was there is in `.<name>.*.old`.

    Args:
        export_dir: the folder to write; for formats of one file this file, or a folder for it. `dataset.export`
            packs what is written into an archive if it ends so, as in .zip; zips of submissions need a folder
            therefore
        masklets_field: the field with the masks, without `frames.`: of a model, or `ground_truth`. It is called so
            because FiftyOne drops `label_field` on its way to exporters of this kind
        expressions_field: the field with the expressions
        split: for all samples; by default the first tag that is the name of a split, else `train`
        export_media: True copies images and videos, "symlink" links to those that can be used as they are, False
            writes labels alone

    Raises:
        ExportError: when it exports, if the field is not given, something is in the way, or the format cannot hold a
            video
    """

    format_cls: ClassVar[type[Format]]

    _manages_existing_export_dir = True  # FiftyOne then sets `overwrite`, and deletes nothing beforehand

    def __init__(
        self,
        export_dir: str | None = None,
        masklets_field: str | None = None,
        expressions_field: str = "expressions",
        split: str | None = None,
        export_media: bool | str | None = None,
    ) -> None:
        super().__init__(export_dir=export_dir)
        self.masklets_field = masklets_field
        self.expressions_field = expressions_field
        self.split = split
        self.export_media = export_media
        self.overwrite = False

    def export_samples(self, sample_collection: fo.Dataset | fo.DatasetView, progress: Any = None) -> None:
        """Writes all samples of a dataset or view."""
        field, target = self.check(sample_collection)
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        try:
            self._write(sample_collection, field, staging, progress)
            self._publish(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def check(self, samples: fo.Dataset | fo.DatasetView) -> tuple[str, Path]:
        """Checks what can be known before any sample is read.

        Returns:
            the field that is exported, and the folder, or file, that is written

        Raises:
            ExportError: if the field is not given, samples are not of the right kind, or something is in the way
        """
        return self._checked_field(samples), self._target(samples)

    def _write(self, samples: fo.Dataset | fo.DatasetView, field: str, staging: Path, progress: Any) -> None:
        writer = self.format_cls(staging, MediaMode.of(self.export_media))
        names: dict[tuple[str | None, str], str] = {}
        unknown = stale = 0
        splits: set[str] = set()
        with writer.open_files, fou.ProgressBar(total=len(samples), progress=progress) as bar:
            for sample in bar(samples.iter_samples()):
                shown = _shown(samples, sample, field)
                exported = read_sample(sample, field, self.expressions_field, self.split, shown)
                split = exported.record.split if self.format_cls.splits_apart else None
                _check(exported, sample, names, split)
                unknown += len(exported.unknown)
                stale += len(stale_expressions(sample, field, expressions_field=self.expressions_field))
                splits.add(exported.record.split)
                writer.add(exported)
            writer.finish()
        if unknown:
            logger.warning("%d expressions were left out, as %r has no masklets of them", unknown, field)
        if stale:
            logger.warning("%d expressions were edited after their masklets in %r were made", stale, field)
        known = self.format_cls.readable_splits
        if known is not None and (strange := sorted(splits - {*known})):
            logger.warning(
                "readers of %s look for the splits %s, not %s: pass split=", self.format_cls.title, known, strange
            )

    def _checked_field(self, samples: fo.Dataset | fo.DatasetView) -> str:
        title, kinds = self.format_cls.title, self.format_cls.media_types
        if samples.media_type not in kinds or samples._is_generated:
            held = "clips, frames or patches" if samples._is_generated else f"{samples.media_type or 'no'} samples"
            raise ExportError(
                f"{title} is a format for {' and '.join(kinds)} samples, but {samples.name or 'the view'!r} holds "
                f"{held}: export a {' or '.join(kinds)} dataset, or a view of its samples"
            )
        known = masklet_fields(samples)
        field = (self.masklets_field or "").removeprefix("frames.")
        if field not in known:
            given = f"there are no masklets in {field!r}" if field else "which masklets to export is not said"
            raise ExportError(f"{given}: pass masklets_field=, one of: {', '.join(known) or '(no field has masks)'}")
        check_expressions_field(samples, self.expressions_field)
        return field

    def _target(self, samples: fo.Dataset | fo.DatasetView) -> Path:
        if self.export_dir is None:
            raise ExportError("the folder to export into is not said: pass export_dir=")
        target, archive = Path(self.export_dir), self.format_cls.archive
        packed = _packed_into()
        if packed is not None and archive is not None:
            raise ExportError(
                f"dataset.export would pack {archive} into the archive {packed}: pass a folder as export_dir, "
                f"for {target / archive}"
            )
        for place in (packed, target) if packed else ():
            if place.exists() and not self.overwrite:  # FiftyOne replaces the one and removes the other
                raise ExportError(f"{place} exists: pass overwrite=True to replace it, or choose another export_dir")
        if archive is not None and target.suffix != Path(archive).suffix:
            target /= archive
        occupied = target.is_file() or (target.is_dir() and any(target.iterdir()))
        if occupied and not self.overwrite:
            raise ExportError(f"{target} exists: pass overwrite=True to replace it, or choose another export_dir")
        if occupied and target.is_dir():
            _check_media_outside(samples, target)
        if Path.cwd().is_relative_to(target):
            raise ExportError(f"{target} is, or holds, the current folder: export into a folder in it")
        return target

    def _publish(self, staging: Path, target: Path) -> None:
        source = staging / self.format_cls.archive if self.format_cls.archive else staging
        os.chmod(source, 0o666 & ~_umask() if source.is_file() else 0o777 & ~_umask())  # mkdtemp's are private
        if source.is_file():
            os.replace(source, target)
            return
        replace_folder(source, target)


def exporter_for(format_cls: type[Format]) -> type[MaskletExporter]:
    """The exporter of a format, as `get_dataset_exporter_cls` of a FiftyOne dataset type returns it."""
    return type(f"{format_cls.__name__}Exporter", (MaskletExporter,), {"format_cls": format_cls})


def replace_folder(source: Path, target: Path) -> None:
    """Renames a folder to a name that may be taken; what has it stays if that fails."""
    if not target.exists():
        os.replace(source, target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    old = aside / target.name
    try:
        os.replace(target, old)
        os.replace(source, target)
    except BaseException:
        if not target.exists():
            os.replace(old, target)
        if not old.exists():
            aside.rmdir()
        raise
    shutil.rmtree(aside)


def _check(
    exported: Exported, sample: fo.Sample, names: dict[tuple[str | None, str], str], split: str | None
) -> None:
    key = (split, exported.name)
    if key in names:
        raise ExportError(
            f"{name_of(sample)} is called {exported.name!r}, and so is {names[key]}: set another video_name or "
            "image_name in one of them, or export them one by one"
        )
    names[key] = name_of(sample)
    if not exported.annotations.annotated:
        raise ExportError(
            f"{name_of(sample)} has no masks, not even empty ones, in any frame: export a view of the samples that "
            "have, such as dataset.exists(…), or segment it first"
        )


def _check_media_outside(samples: fo.Dataset | fo.DatasetView, target: Path) -> None:
    """The folder that is to be replaced must not hold the pictures of the samples."""
    for field in ("filepath", "frames_dir"):
        if not samples.has_field(field):
            continue
        for path in samples.values(field):
            if path is not None and Path(path).resolve().is_relative_to(target.resolve()):
                raise ExportError(f"{target} holds {path}, which the samples need: choose another export_dir")


def _shown(samples: fo.Dataset | fo.DatasetView, sample: fo.Sample, field: str) -> Shown | None:
    if isinstance(samples, fo.Dataset):
        return None
    one = samples.select(sample.id)
    if samples.media_type != "video":
        return Shown({1}, set(one.values(f"{field}.detections.id", unwind=True)))
    ids = one.values(f"frames.{field}.detections.id", unwind=True)
    return Shown(set(one.values("frames.frame_number", unwind=True)), set(ids))


def _packed_into() -> Path | None:
    """The archive that `dataset.export` will make of the folder, and of which it does not tell exporters."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not fo.Dataset.export.__code__:
        frame = frame.f_back
    path = frame.f_locals.get("archive_path") if frame else None
    return None if path is None else Path(path).expanduser().absolute()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
