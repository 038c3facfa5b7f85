"""The server of the FiftyOne App as a process, as `fo.launch_app` starts it, but with more patience."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from tests.processes import die_with_parent, free_port

START_SECONDS = 120


class AppServer:
    """A context manager around the server; it inherits the environment, and with it database and plugins.

    Attributes:
        url: where the App is
        pid: of the server
    """

    def __init__(self, log: Path) -> None:
        """
        Args:
            log: the file that gets what the server prints
        """
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> AppServer:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            sys.executable,
            "-m",
            "fiftyone.server.main",
            "--address",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},  # the browser needs the same few cores
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the server and the processes that it started."""
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(timeout=10)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self._process = None

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/fiftyone", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise RuntimeError(f"the App did not start within {START_SECONDS} s:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The end of what the server printed."""
        return self._log.read_text(errors="replace")[-3000:]
