"""Chat models for tests: one that answers by rule, and a server on the loopback interface that misbehaves."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fiftyone_refvos.describing.chat import ChatError
from fiftyone_refvos.video import Frame

# How the package's own questions begin, by step.
_BEGINNINGS = {
    "The picture shows": "crop",
    "Look at what": "full",
    "Two people": "check",
    "One object": "scene",
    "These": "video",
}


def step_of(text: str) -> str:
    """The step that a question of the package's own prompts belongs to."""
    return next(step for beginning, step in _BEGINNINGS.items() if text.startswith(beginning))


@dataclass
class RuleChat:
    """Answers by step; keeps what it was asked.

    Attributes:
        answers: by step, or made of the pictures; "" is an answer of no use, an error is raised
        name: its identity
    """

    answers: dict[str, str | Exception | Callable[[Sequence[Frame]], str]]
    name: str = "rules"
    asked: list[tuple[str, Sequence[Frame], str]] = field(default_factory=list)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"chat": self.name}

    @property
    def steps(self) -> list[str]:
        return [step for step, _, _ in self.asked]

    def ask(self, images: Sequence[Frame], text: str) -> str:
        step = step_of(text)
        self.asked.append((step, images, text))
        answer = self.answers[step]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, str) else answer(images)


def agreeing(**answers: str | Exception | Callable[[Sequence[Frame]], str]) -> RuleChat:
    """A chat model whose descriptions are consistent."""
    steps: dict[str, str | Exception | Callable[[Sequence[Frame]], str]] = {
        "crop": "a red disc",
        "full": "A red disc lies on grass.",
        "check": "CONSISTENT, both are red discs.",
        "scene": "the red disc left of the tree",
        "video": "the red disc that rolls to the tree",
    }
    return RuleChat({**steps, **answers})


UNREACHABLE = ChatError("nobody is there")


@dataclass
class ChatServer:
    """What the server does with each request in turn; the last entry is for all that follow.

    Attributes:
        script: a status with a body, or seconds to wait before an answer
        requests: path, headers and body of all requests
        address: as `ServerChat` wants it
    """

    script: list[tuple[int, str] | float]
    address: str = ""
    requests: list[tuple[str, Mapping[str, str], Any]] = field(default_factory=list)

    def next(self) -> tuple[int, str] | float:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


def said(text: Any) -> tuple[int, str]:
    """A proper answer."""
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})


@contextmanager
def chat_server(*script: tuple[int, str] | float) -> Iterator[ChatServer]:
    """Serves answers on the loopback interface."""
    state = ChatServer(list(script))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    server.daemon_threads = True
    state.address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: ChatServer

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.state.requests.append((self.path, dict(self.headers), json.loads(body)))
        action = self.state.next()
        if isinstance(action, float):
            time.sleep(action)
            action = said("too late")
        status, text = action
        try:
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", text)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())
        except OSError:  # the client has gone
            pass
