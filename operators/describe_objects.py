"""The operator that writes expressions for objects: form, one call of `fiftyone_refvos.describe_objects`, report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import fiftyone as fo
from fiftyone.operators import types

from fiftyone_refvos.describe import Objects, describe_objects
from fiftyone_refvos.describing.chat import MAX_TOKENS
from fiftyone_refvos.describing.opening import open_chat
from fiftyone_refvos.describing.server import ServerChat
from fiftyone_refvos.describing.stages import STAGES, Stage
from fiftyone_refvos.fields import EXPRESSIONS
from fiftyone_refvos.fields.schema import masklet_fields

from . import forms, reports
from .base import LibraryOperator, Samples
from .masklet_fields import GROUND_TRUTH
from .progress import Tell

ALL = "all"
RESULTS = {
    "video": "over the video: what it does, and how it moves",
    "scene": "in its scene, in one frame: where it is, and what is around it",
    "object": "alone: what it looks like",
    ALL: "all three, an expression each",
}
WHICH = {"unnamed": "that no expression names", "all": "all, also those that have expressions"}


@dataclass(frozen=True)
class Choice:
    """What the form, or a caller from Python, has chosen.

    Attributes:
        field: the frame field with the masks; None if there is none
        model: as the server calls it, a folder, or a repository of the hub
        server: the URL, None for a model that runs here
        result: the stage whose description becomes an expression, or ALL
        max_tokens: of an answer
        prompts: an absolute path, None for the package's own
    """

    field: str | None
    model: str
    server: str | None
    key_variable: str | None
    max_tokens: int
    result: str
    objects: Objects
    prompts: str | None
    overwrite: bool

    @classmethod
    def of(cls, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        """Reads the parameters of the operator."""
        known = masklet_fields(dataset)
        field = GROUND_TRUTH if GROUND_TRUTH in known else next(iter(known), None)
        return cls(
            field=params.get("field") or field,
            model=(params.get("model") or "").strip(),
            server=(params.get("server") or "").strip() or None,
            key_variable=(params.get("key_variable") or "").strip() or None,
            max_tokens=int(params.get("max_tokens") or MAX_TOKENS),
            result=params.get("result") or STAGES[-1],
            objects=cast(Objects, params.get("objects") or "unnamed"),
            prompts=forms.folder(params.get("prompts")),
            overwrite=bool(params.get("overwrite")),
        )


class DescribeObjects(LibraryOperator[Choice]):
    """Lets a chat model write expressions for objects that have masks but no text.

    From Python, after `import fiftyone.operators as foo`:

        describe = foo.get_operator("@fiftyone-refvos/refvos/describe_objects")
        describe(dataset, "Qwen/Qwen2.5-VL-72B-Instruct", server="http://127.0.0.1:8000/v1", delegate=True)
    """

    NAME = "describe_objects"
    LABEL = "Describe objects"
    DESCRIPTION = "Let a chat model write expressions for objects that have masks but no text"
    NOTHING_DONE = "The objects were not described"

    def __call__(
        self,
        sample_collection: Samples,
        model: str,
        *,
        server: str | None = None,
        key_variable: str | None = None,
        max_tokens: int = MAX_TOKENS,
        field: str | None = None,
        result: str = STAGES[-1],
        objects: Objects = "unnamed",
        prompts: str | None = None,
        overwrite: bool = False,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `fiftyone_refvos.describe_objects`.

        Args:
            sample_collection: a video dataset or a view
            model: as the server calls it; without a server a folder, or a repository of the hub
            server: the URL of an OpenAI-compatible server, to which pictures are sent
            key_variable: the environment variable with its key, where the run takes place
            max_tokens: of an answer; one that would be longer is an error
            field: the frame field with the masks, without `frames.`
            result: the stage whose description becomes an expression: "object", "scene", "video", or "all"
            objects: "unnamed" or "all"
            prompts: a file of prompts to use instead of the package's own
            overwrite: describe anew what is described already
            delegate: whether to schedule the run for `fiftyone delegated launch` instead of running it now

        Returns:
            as `LibraryOperator.launch`
        """
        params = {
            "model": model,
            "server": server,
            "key_variable": key_variable,
            "max_tokens": max_tokens,
            "field": field,
            "result": result,
            "objects": objects,
            "prompts": prompts,
            "overwrite": overwrite,
        }
        return self.launch(sample_collection, params, delegate=delegate)

    def read(self, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        return Choice.of(params, dataset)

    def build_form(self, inputs: types.Object, samples: Samples, choice: Choice) -> None:
        if not forms.are_videos(inputs, samples, "searched for objects"):
            return
        known = masklet_fields(samples._root_dataset)
        if not known:
            forms.error(inputs, "field", "The target has no masks: import or segment it, or draw some")
            return
        _add_chat(inputs, choice)
        forms.dropdown(inputs, "field", {name: name for name in known}, default=choice.field, label="Masks", space=6)
        forms.dropdown(inputs, "objects", WHICH, default="unnamed", label="Objects", space=6)
        forms.dropdown(inputs, "result", RESULTS, default=STAGES[-1], label="Expressions that describe the object")
        inputs.str(
            "prompts",
            label="File of prompts on the server of the App",
            view=types.TextFieldView(placeholder="optional"),
        )
        inputs.int(
            "max_tokens", label="Longest answer, in tokens", default=MAX_TOKENS, min=1, view=types.FieldView(space=6)
        )
        inputs.bool("overwrite", label="Describe anew what is described already", default=False)
        forms.add_schedule_notice(inputs)

    def run_name(self, choice: Choice) -> str:
        return f"{choice.field} by {choice.model}"

    def first_step(self, choice: Choice) -> str:
        return f"Asking {choice.server}" if choice.server else f"Loading {choice.model}"

    def work(self, samples: Samples, choice: Choice, tell: Tell) -> dict[str, Any]:
        report = describe_objects(
            samples,
            open_chat(
                choice.model,
                server=choice.server,
                key_variable=choice.key_variable,
                max_tokens=choice.max_tokens,
            ),
            field=choice.field or GROUND_TRUTH,
            stages=STAGES if choice.result == ALL else [cast(Stage, choice.result)],
            objects=choice.objects,
            prompts=choice.prompts,
            expressions_field=EXPRESSIONS,
            overwrite=choice.overwrite,
            progress=tell,
        )
        named = ((each, "" if each.object_id is None else f", object {each.object_id}") for each in report.failures)
        return {
            "field": report.field,
            "num_expressions": report.num_expressions,
            "num_objects": report.num_objects,
            "num_rejected": report.num_rejected,
            "num_skipped": report.num_skipped,
            "num_repeated": report.num_repeated,
            "num_failed": len(report.failures),
            "failures": reports.failure_rows((f"{each.filepath}{which}", each.error) for each, which in named),
        }

    def build_report(self, outputs: types.Object, result: Mapping[str, Any]) -> None:
        done = f"{result['num_expressions']} expressions written of {result['num_objects']} objects"
        kind = types.Warning if result["failures"] else types.Success
        outputs.view("title", kind(label=done))
        labels = {
            "num_rejected": "Objects without one, because two descriptions contradict each other",
            "num_skipped": "Objects that were done before",
            "num_repeated": "Expressions that say the same as another one of their video",
            "num_failed": "Failed; another run goes on with these",
        }
        reports.add_counts(outputs, labels)
        reports.add_failures(outputs, result)


def _add_chat(inputs: types.Object, choice: Choice) -> None:
    """Adds who is asked, and says where pictures go."""
    problem = _server_problem(choice)
    inputs.str(
        "server",
        label="URL of an OpenAI-compatible server",
        view=types.TextFieldView(placeholder="http://127.0.0.1:8000/v1; empty for a model that runs here"),
        invalid=problem is not None,
        error_message=problem or "",
    )
    inputs.str(
        "model",
        label="Model",
        description="As the server calls it; without a server a folder, or a repository of the Hugging Face hub",
        required=True,
    )
    if choice.server is None:
        return
    inputs.str(
        "key_variable",
        label="Environment variable with the key",
        description="Its name, not the key, which is neither asked for nor kept",
        view=types.TextFieldView(placeholder="only where the server wants a key"),
    )
    inputs.view("privacy", types.Warning(label=f"Frames of these videos will be sent to {choice.server}"))


def _server_problem(choice: Choice) -> str | None:
    if choice.server is None:
        return None
    try:
        ServerChat(choice.server, choice.model)
    except ValueError as error:
        return str(error)
    return None
