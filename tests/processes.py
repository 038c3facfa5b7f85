"""Processes that tests start: on a port of their own, and gone when the tests are."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def die_with_parent() -> None:
    """In the child: asks Linux to end it when this test process dies, even by SIGKILL."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def run_twice(command: Sequence[str]) -> None:
    """Runs a command as two processes that train together, as `accelerate launch` starts them."""
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    group |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            command,
            env={**os.environ, **group, "RANK": process, "LOCAL_RANK": process},
            preexec_fn=die_with_parent,
        )
        for process in ("0", "1")
    ]
    assert [process.wait(timeout=240) for process in started] == [0, 0]
