"""Remote zoo source: what FiftyOne runs after `foz.register_zoo_model_source(<url of this repository>)`.

FiftyOne copies this folder alone, so all it does is to hand over to the pip package.
"""

import importlib.util
from pathlib import Path
from typing import Any

PIP_COMMAND = "pip install fiftyone-refvos"


def download_model(model_name: str, model_path: str) -> None:
    """Leaves a small file that tells FiftyOne "downloaded"; weights are fetched when a model is loaded."""
    _require_package()
    Path(model_path).write_text(f"{model_name}: its weights are kept by the package fiftyone-refvos\n")


def load_model(model_name: str, model_path: str, **kwargs: Any) -> Any:
    """Loads a model by its name; `kwargs` are those of `fiftyone_refvos.zoo.RefVOSModelConfig`."""
    _require_package()
    from fiftyone_refvos import zoo
    from fiftyone_refvos.models.registry import zoo_class

    kind = zoo_class(model_name)
    config = getattr(zoo, f"{kind}Config")({"name": model_name, **kwargs})
    return getattr(zoo, kind)(config)


def resolve_input(model_name: str, ctx: Any) -> Any:
    """The form of a model's own settings; there are none without which it would not run."""
    return None


def _require_package() -> None:
    if importlib.util.find_spec("fiftyone_refvos") is None:
        raise ModuleNotFoundError(
            f"these models need the Python package fiftyone-refvos: run `{PIP_COMMAND}` and try again"
        )
