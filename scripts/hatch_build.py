"""Build hook: what a wheel carries besides the package.

* FiftyOne globs `fiftyone/zoo/models/manifest-*.json`: with our manifest there, `foz.load_zoo_model("glus")`
  works right after `pip install`.
* The plugin's files, which `refvos install` links into FiftyOne's plugins directory.

An editable install carries neither, since copies would go stale: there `refvos install` points FiftyOne
at the checkout.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WHEEL_ONLY = {
    "model_zoo/manifest.json": "fiftyone/zoo/models/manifest-refvos.json",
    "fiftyone.yml": "fiftyone_refvos/_plugin/fiftyone.yml",
    "__init__.py": "fiftyone_refvos/_plugin/__init__.py",
    "operators": "fiftyone_refvos/_plugin/operators",
    "assets": "fiftyone_refvos/_plugin/assets",
    "model_zoo": "fiftyone_refvos/_plugin/model_zoo",
}


class PluginFiles(BuildHookInterface):
    """Adds `WHEEL_ONLY` to every wheel that is not an editable one."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"].update(WHEEL_ONLY)
