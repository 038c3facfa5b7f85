"""The procedure of the winning report of the 4th PVUW MeViS challenge, end to end: configurations, vote, archive.

Every configuration segments all expressions into a field of its own, the fields vote, each is measured where there
are true masks, and the outcome is written as the archive that the MeViS server takes, which is read back and
compared. This runs on demo videos and on a folder in the layout of MeViS, of whose splits `valid_u` is measured and
`valid` goes into the archive.

The configurations are data: a name of the zoo with its settings, or predictions of another program. By default they
are the shipped sa2va-tiny with its first frames and with 5, 10 and 20 frames spread over the video, as in the report,
and glus-tiny as the expert of another kind; the table shows the procedure, it does not reproduce the report's
numbers. A JSON file may hold others, see docs/voting.md.

    python -m benchmarks.pvuw_recipe --mevis ../shared/data/mevis [--videos 6] [--configurations mine.json]

writes benchmarks/results/pvuw_recipe.json and .md, and the archives into --folder. The database is the one that
FiftyOne is set up with; its two datasets are removed in the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.zoo as foz

import fiftyone_refvos as rv
from benchmarks.machine import processor
from fiftyone_refvos.exports.formats.submission import ARCHIVE
from fiftyone_refvos.fields import read_masklets

RESULTS = Path(__file__).parent / "results"
VOTES: Mapping[str, dict[str, Any]] = {
    "voted": {},
    "voted_report": {"rule": "report"},
    "voted_iou": {"weights": "predicted_iou"},
}
"""The votes by label field; the first one is what is handed in."""
ROWS = {"voted": "vote: majority", "voted_report": "vote: literal rule", "voted_iou": "vote: by predicted IoU"}


@dataclass(frozen=True)
class Configuration:
    """One member of the ensemble.

    Attributes:
        field: where its masklets go
        model: a name of the zoo
        settings: with which it is loaded
        predictions: instead of a model, a file of another program, see `rv.import_predictions`
    """

    field: str
    model: str | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    predictions: str | None = None

    def __post_init__(self) -> None:
        if (self.model is None) == (self.predictions is None):
            raise ValueError(
                f"configuration {self.field!r} needs a model of the zoo, or predictions of another program"
            )


CONFIGURATIONS = (
    Configuration("sa2va_first_5", "sa2va-tiny"),
    Configuration("sa2va_5", "sa2va-tiny", {"mode": "uniform", "key_frames": 5}),
    Configuration("sa2va_10", "sa2va-tiny", {"mode": "uniform", "key_frames": 10}),
    Configuration("sa2va_20", "sa2va-tiny", {"mode": "uniform", "key_frames": 20}),
    Configuration("glus", "glus-tiny"),
)


def read_configurations(text: str) -> tuple[Configuration, ...]:
    """Configurations from JSON: a list of objects with the names of the attributes.

    Raises:
        ValueError: for another structure, and fields that come twice
    """
    try:
        found = tuple(Configuration(**each) for each in json.loads(text))
    except TypeError as error:
        raise ValueError(f"configurations are a list of objects: {error}") from error
    if len({each.field for each in found}) < len(found):
        raise ValueError(f"every configuration needs a field of its own, got {[each.field for each in found]}")
    return found


def run(dataset: fo.Dataset, configurations: Sequence[Configuration]) -> None:
    """Segments by every configuration, and votes.

    Raises:
        RuntimeError: if a video fails
    """
    for each in configurations:
        print(f"  {each.field}", flush=True)
        if each.predictions is not None:
            failures = rv.import_predictions(dataset, each.predictions, each.field).failures
        else:
            failures = rv.segment(
                dataset, foz.load_zoo_model(each.model, **each.settings), label_field=each.field
            ).failures
        if failures:
            raise RuntimeError(f"{each.field}: {failures[0].filepath}: {failures[0].error}")
    for label_field, options in VOTES.items():
        report = rv.vote(dataset, [each.field for each in configurations], label_field=label_field, **options)
        if report.failures:
            raise RuntimeError(str(report))


def measure(
    samples: fo.Dataset | fo.DatasetView, configurations: Sequence[Configuration]
) -> dict[str, dict[str, float]]:
    """J, F and J&F, in percent, of every configuration and vote."""
    rows = {}
    for name in (*(each.field for each in configurations), *VOTES):
        metrics = rv.evaluate(samples, name, eval_key=f"{name}_eval").metrics()
        rows[name] = {measure: round(100 * metrics[measure], 2) for measure in ("J", "F", "J&F")}
    return rows


def hand_in(samples: fo.Dataset | fo.DatasetView, folder: Path) -> dict[str, Any]:
    """Writes the archive of the vote, and reads it back.

    Raises:
        RuntimeError: if what is in the archive is not what was voted
    """
    samples.export(str(folder), dataset_type=rv.types.MeViSSubmission, masklets_field="voted", overwrite=True)
    archive = folder / ARCHIVE
    report = rv.import_predictions(samples, archive, "handed_in", overwrite=True)
    for sample in samples:
        voted, read = ({m.expression.id: m for m in read_masklets(sample, name)} for name in ("voted", "handed_in"))
        for id_, masklet in voted.items():
            if any((masklet.union(t) != read[id_].union(t)).any() for t in masklet.frames):
                raise RuntimeError(f"{sample.filepath}: expression {id_} of the archive is not what was voted")
    return {"videos": report.num_videos, "expressions": report.num_expressions, "bytes": archive.stat().st_size}


def recipe(
    dataset: fo.Dataset, measured: str, handed_in: str, configurations: Sequence[Configuration], folder: Path
) -> dict[str, Any]:
    """All of it on one dataset, of which the samples with one tag are measured, those with another handed in."""
    run(dataset, configurations)
    agreement = dataset.mean("expressions.detections.voted_agreement")
    return {
        "videos": len(dataset.match_tags(measured)),
        "expressions": dataset.match_tags(measured).count("expressions.detections"),
        "rows": measure(dataset.match_tags(measured), configurations),
        "agreement": round(float(agreement), 4),
        "archive": hand_in(dataset.match_tags(handed_in), folder),
    }


def table(result: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    told = {each["field"]: each for each in result["configurations"]}
    lines = ["# Several configurations, and their vote", "", *_introduction(result), ""]
    for title, found in result["datasets"].items():
        best = max(row["J&F"] for row in found["rows"].values())
        archive = found["archive"]
        lines += [
            f"## {title}: {found['videos']} videos, {found['expressions']} expressions",
            "",
            "| | J | F | J&F |",
            "|---|---|---|---|",
        ]
        for name, row in found["rows"].items():
            shown = ROWS.get(name) or _describe(told[name])
            score = f"**{row['J&F']:.2f}**" if row["J&F"] == best else f"{row['J&F']:.2f}"
            lines.append(f"| {shown} | {row['J']:.2f} | {row['F']:.2f} | {score} |")
        lines += [
            "",
            f"Mean agreement of an expression {found['agreement']:.3f}. The archive of the majority holds "
            f"{archive['expressions']} expressions of {archive['videos']} videos, and reads back as what was voted.",
            "",
        ]
    return "\n".join(lines)


def _introduction(result: Mapping[str, Any]) -> list[str]:
    return [
        f"`{result['command']}`, {result['processor']}. The table shows the procedure of the challenge report, not "
        "its numbers.",
        "The shipped models are no match for the MeViS miniature, whose drawings and sentences they were not "
        "trained on.",
    ]


def _command(options: argparse.Namespace) -> str:
    """The call as it was made, but for the folder, on which no figure depends."""
    given = {name: value for name, value in vars(options).items() if name != "folder" and value is not None}
    arguments = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    return shlex.join(["python", "-m", "benchmarks.pvuw_recipe", *arguments])


def _describe(configuration: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in configuration["settings"].items())
    name = configuration["model"] or configuration["predictions"]
    return f"{name}, {settings or 'as it is'}"


def main() -> None:
    """Runs the recipe on both datasets, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mevis", type=Path, required=True, help="a folder in the layout of MeViS")
    parser.add_argument(
        "--videos", type=int, default=6, help="number of demo videos, of the test split (default: %(default)s)"
    )
    parser.add_argument("--configurations", type=Path, help="a JSON file instead of the shipped models")
    parser.add_argument("--folder", type=Path, help="for videos and archives (default: a temporary one)")
    options = parser.parse_args()
    given = options.configurations
    configurations = read_configurations(given.read_text()) if given else CONFIGURATIONS
    folder = options.folder or Path(tempfile.mkdtemp(prefix="refvos-pvuw-"))
    cache = str(folder / "cache")
    demo = rv.demo.load(options.videos, folder=folder / "demo", name="pvuw-recipe-demo", overwrite=True)
    mevis = fo.Dataset.from_dir(
        dataset_dir=str(options.mevis),
        dataset_type=rv.types.MeViS,
        split=["valid_u", "valid"],
        cache_dir=cache,
        name="pvuw-recipe-mevis",
        overwrite=True,
    )
    try:
        found = {}
        for title, dataset, measured, handed_in in (
            ("Demo world", demo, "test", "test"),
            ("MeViS miniature", mevis, "valid_u", "valid"),
        ):
            print(title, flush=True)
            found[title] = recipe(dataset, measured, handed_in, configurations, folder / f"{dataset.name}-archive")
    finally:
        demo.delete()
        mevis.delete()
    result = {
        "command": _command(options),
        "processor": processor(),
        "configurations": [vars(each) for each in configurations],
        "datasets": found,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "pvuw_recipe.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "pvuw_recipe.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
