"""Makes FiftyOne find this package: its plugin (operators in the App) and its models (the zoo).

From a wheel, only the plugin needs a link: the zoo manifest is installed where FiftyOne looks for it.
From a checkout (`pip install -e`), the checkout itself is linked, and FiftyOne's config names the manifest.

FiftyOne's own settings are read here without importing it, which would take ten seconds.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

PACKAGE = Path(__file__).resolve().parent
WHEEL_PLUGIN = PACKAGE / "_plugin"  # only wheels have it, see scripts/hatch_build.py
MANIFEST = Path("model_zoo", "manifest.json")
MANIFESTS_VARIABLE = "FIFTYONE_MODEL_ZOO_MANIFEST_PATHS"
SEPARATOR = ":"  # what FiftyOne splits that variable at, on every system
_AS_THE_USER_SET_IT = os.environ.get(MANIFESTS_VARIABLE)  # before `announce_models` adds to it


def install(plugins_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """Links the plugin into FiftyOne's plugins directory and, from a checkout, registers the zoo manifest.

    Calling it again changes nothing. After a change between wheel and checkout, or of the checkout, it undoes
    what the former one registered.

    Args:
        plugins_dir (None): FiftyOne's plugins directory; by default the one FiftyOne is configured to use

    Returns:
        what was done, or found in place, one sentence each

    Raises:
        FileNotFoundError: the plugin's files are missing
        FileExistsError: something that is not ours is where the link belongs
        ValueError: FiftyOne's config file cannot be understood
    """
    source = _plugin_source()
    config = _Config()
    directory = Path(plugins_dir).expanduser().absolute() if plugins_dir else config.plugins_dir
    link = directory / _plugin_name(source)

    former = _linked_before(link)
    report = [_link(link, source, former)]

    manifest = None if source == WHEEL_PLUGIN else str(source / MANIFEST)
    report += _register_manifest(config, manifest, former=str(former / MANIFEST) if former else None)
    return report


def announce_models() -> None:
    """Names the zoo manifest of this checkout to FiftyOne in this process, whatever its config file says.

    A wheel has its manifest where FiftyOne looks for it. In a process that has not imported FiftyOne yet, the
    environment tells it, together with what the environment or the config file names already. Manifests of
    other checkouts are left out: FiftyOne would warn of each of their models, and the code that runs is this one.
    """
    manifest = str(PACKAGE.parent / MANIFEST)
    if not Path(manifest).is_file():
        return
    fiftyone = sys.modules.get("fiftyone")
    if fiftyone is not None and hasattr(fiftyone, "config"):
        fiftyone.config.model_zoo_manifest_paths = _with(manifest, fiftyone.config.model_zoo_manifest_paths or [])
        return
    variable = os.environ.get(MANIFESTS_VARIABLE)
    try:
        named = _split(variable) if variable else _Config().manifest_paths
    except ValueError:
        return  # FiftyOne itself will complain about its config file, and say more
    wanted = _with(manifest, named)
    if wanted != named:
        os.environ[MANIFESTS_VARIABLE] = SEPARATOR.join(wanted)


def _split(variable: str) -> list[str]:
    return [path for path in variable.split(SEPARATOR) if path]


def _with(manifest: str, named: list[str]) -> list[str]:
    """The named manifests and ours, but none of another checkout of this package."""
    known = [(path, Path(path).expanduser().absolute()) for path in named]
    wanted = [path for path, place in known if place == Path(manifest) or not _of_a_checkout(place)]
    return wanted if any(place == Path(manifest) for _, place in known) else [*wanted, manifest]


def _of_a_checkout(manifest: Path) -> bool:
    return manifest.parts[-2:] == MANIFEST.parts and (manifest.parents[1] / PACKAGE.name).is_dir()


def _plugin_source() -> Path:
    """The folder with fiftyone.yml: inside the package (wheel) or above it (checkout)."""
    for folder in (WHEEL_PLUGIN, PACKAGE.parent):
        if (folder / "fiftyone.yml").is_file():
            return folder
    raise FileNotFoundError(
        f"The plugin's fiftyone.yml is neither in {WHEEL_PLUGIN} nor in {PACKAGE.parent}: this installation "
        "is incomplete. Run `pip install --force-reinstall --no-deps fiftyone-refvos`, or `pip install -e .` "
        "in a checkout."
    )


def _plugin_name(folder: Path) -> str:
    return str(yaml.safe_load((folder / "fiftyone.yml").read_text())["name"])


def _linked_before(link: Path) -> Path | None:
    """The folder that an earlier `install` linked here, None where there is nothing yet."""
    if link.is_symlink():
        former = link.parent / os.readlink(link)
        # a link to nowhere is left over from a checkout or an environment that was moved or deleted
        if not former.exists() or ((former / "fiftyone.yml").is_file() and _plugin_name(former) == _name_of(link)):
            return former
        raise FileExistsError(
            f"{link} links to {former}, which is not this plugin. Remove the link (`rm {link}`) and try again."
        )
    if link.exists():
        raise FileExistsError(
            f"{link} exists and was not made by `refvos install`; perhaps by `fiftyone plugins download`. "
            f"Remove it (`rm -r {link}`) and try again."
        )
    return None


def _name_of(link: Path) -> str:
    return f"{link.parent.name}/{link.name}"  # "@org/name"


def _link(link: Path, source: Path, former: Path | None) -> str:
    if former == source:
        return f"Plugin in place: {link} -> {source}"
    link.parent.mkdir(parents=True, exist_ok=True)
    # made beside, then moved over: a running App never misses the plugin, and skips names with a dot
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.symlink_to(source, target_is_directory=True)
    fresh.replace(link)
    return f"Plugin linked: {link} -> {source}" + (f" (before: {former})" if former else "")


def _register_manifest(config: "_Config", manifest: str | None, *, former: str | None) -> list[str]:
    """Names the manifest in FiftyOne's config, and no longer the former one; None stands for a wheel's."""
    listed = config.manifest_paths
    wanted = [path for path in listed if path != former or path == manifest]
    if manifest and manifest not in wanted:
        wanted.append(manifest)
    if wanted != listed:
        config.write_manifest_paths(wanted)
    if manifest is None:
        return ["Models in place: the zoo manifest came with the package."]

    report = [f"Models {'in place' if wanted == listed else 'registered'}: {config.path} names {manifest}"]
    if _AS_THE_USER_SET_IT and manifest not in _split(_AS_THE_USER_SET_IT):
        report.append(f"But ${MANIFESTS_VARIABLE} overrides that file: add {manifest} to it, or unset it.")
    return report


class _Config:
    """The few settings of FiftyOne needed here: environment first, then config file, then default."""

    def __init__(self) -> None:
        self.path = Path(os.environ.get("FIFTYONE_CONFIG_PATH", Path.home() / ".fiftyone" / "config.json"))
        self._settings: dict[str, Any] = {}
        if self.path.is_file():
            try:
                self._settings = dict(json.loads(self.path.read_text()))
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"FiftyOne's config file {self.path} is not a JSON object ({error}). "
                    "Repair it or move it away, then try again."
                ) from error

    @property
    def plugins_dir(self) -> Path:
        default = self._path("default_dataset_dir", Path.home() / "fiftyone") / "__plugins__"
        return self._path("plugins_dir", default)

    @property
    def manifest_paths(self) -> list[str]:
        return self._settings.get("model_zoo_manifest_paths") or []

    def write_manifest_paths(self, paths: list[str]) -> None:
        self._settings["model_zoo_manifest_paths"] = paths
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(self._settings, indent=4) + "\n")
        fresh.replace(self.path)

    def _path(self, setting: str, default: Path) -> Path:
        value = os.environ.get(f"FIFTYONE_{setting.upper()}") or self._settings.get(setting) or default
        return Path(value).expanduser().absolute()
