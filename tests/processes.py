"""Servers that tests start: on a port of their own, and gone when the tests are."""

from __future__ import annotations

import ctypes
import signal
import socket
import sys


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
