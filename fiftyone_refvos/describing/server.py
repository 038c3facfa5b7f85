"""A chat model behind a server that speaks OpenAI's protocol, such as vLLM, SGLang, llama.cpp or a paid service.

Pictures go to the URL that is given and nowhere else: redirects are refused, and proxies of the environment unused.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from fiftyone_refvos.describing.chat import MAX_TOKENS, ChatError, excerpt
from fiftyone_refvos.video import Frame

_PIECE = 1 << 16
_TOO_MANY = 429  # the one refusal that is worth another attempt


class _RetryError(Exception):
    """An attempt failed in a way that another one may not."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error: it could lead the pictures, and the key, to somebody else."""

    def redirect_request(self, *args: Any) -> None:
        return None


@dataclass(frozen=True)
class ServerChat:
    """Asks an OpenAI-compatible server.

    Attributes:
        url: up to and with `/v1`, e.g. "http://127.0.0.1:8000/v1"; `/chat/completions` is added
        model: as the server calls it
        key_variable: the environment variable that holds the key, if the server wants one; the key itself is read at
            every question, and kept nowhere: what a server says of it in an error is told as ***
        timeout: seconds that one attempt may take
        attempts: how often a question is sent that gets no answer in time, a broken connection, an error of the
            server (5xx, and 429: too many requests), or junk; any other refusal ends it at once
        backoff: seconds before the second attempt; twice as many before every further one
        max_tokens: of an answer; one that would be longer is an error
        temperature: of the sampling; 0 for the most likely answer

    Raises:
        ValueError: for a URL that is none or holds a secret, and numbers that make no sense
    """

    url: str
    model: str
    key_variable: str | None = None
    timeout: float = 120.0
    attempts: int = 4
    backoff: float = 1.0
    max_tokens: int = MAX_TOKENS
    temperature: float = 0.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{self.url!r} is no URL of a server: it looks like 'http://127.0.0.1:8000/v1'")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                f"the URL of {parts.hostname} holds more than an address, and would be kept in run records: put the "
                "key into an environment variable, and pass its name as key_variable"
            )
        if self.attempts < 1 or self.timeout <= 0 or self.backoff < 0 or self.max_tokens < 1:
            raise ValueError("attempts, timeout and max_tokens must be positive, and backoff not negative")

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells it from others; how patient it is changes no answer, and the key is nobody's business.

        Nor does `max_tokens`: an answer that would be longer is an error.
        """
        return {
            "chat": "server",
            "url": self.url.rstrip("/"),
            "model": self.model,
            "temperature": self.temperature,
        }

    def ask(self, images: Sequence[Frame], text: str) -> str:
        """Sends a question, as often as need be.

        Raises:
            ChatError: if the server refuses it, or no attempt gets an answer
        """
        key = self._key()
        request = self._request(images, text, key)
        problem = ""
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(self.backoff * 2 ** (attempt - 1))
            try:
                return self._content(self._send(request, key), key)
            except _RetryError as error:
                problem = str(error)
        raise ChatError(f"{self._address} gave no answer in {self.attempts} attempts; the last one: {problem}")

    @property
    def _address(self) -> str:
        return f"{self.url.rstrip('/')}/chat/completions"

    def _key(self) -> str | None:
        """The key, in a form that a header can hold; other libraries would tell it in their complaint."""
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()  # what is read from a file ends in a newline
        if not key:
            raise ChatError(f"the environment variable {self.key_variable}, which is to hold the key, is not set")
        if not (key.isascii() and key.isprintable()):
            raise ChatError(
                f"the environment variable {self.key_variable} holds characters that no key has, such as line breaks "
                "or letters outside of ASCII: set it to the key alone"
            )
        return key

    def _request(self, images: Sequence[Frame], text: str, key: str | None) -> urllib.request.Request:
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": _data_url(each)}} for each in images
        ]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": [*content, {"type": "text", "text": text}]}],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return urllib.request.Request(self._address, json.dumps(body).encode(), headers, method="POST")

    def _send(self, request: urllib.request.Request, key: str | None) -> bytes:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
        deadline = time.monotonic() + self.timeout
        try:
            with opener.open(request, timeout=self.timeout) as response:
                pieces = []
                while piece := response.read1(_PIECE):
                    pieces.append(piece)
                    if time.monotonic() > deadline:
                        raise TimeoutError
                return b"".join(pieces)
        except urllib.error.HTTPError as error:  # is no cause of what is raised: its text is the server's
            said = excerpt(_hidden(_complaint(error), key))
            if error.code >= 500 or error.code == _TOO_MANY:
                raise _RetryError(f"HTTP {error.code}: {said}") from None
            if error.code < 400:
                where = _hidden(str(error.headers.get("Location")), key)
                raise ChatError(
                    f"{self._address} redirects to {where}, which is not followed: pass that URL"
                ) from None
            raise ChatError(f"{self._address} refuses the question: HTTP {error.code}: {said}") from None
        except (OSError, http.client.HTTPException) as error:  # TimeoutError and URLError are OSErrors
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise _RetryError(f"no answer within {self.timeout:g} s") from error
            raise _RetryError(_hidden(f"{type(reason).__name__}: {reason}", key)) from error

    def _content(self, body: bytes, key: str | None) -> str:
        """The text in an answer of the server."""
        try:
            choice = json.loads(body)["choices"][0]
            content, reason = choice["message"]["content"], choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            said = excerpt(_hidden(body.decode(errors="replace"), key))
            raise _RetryError(f"junk instead of an answer: {said}") from error
        if reason == "length":
            raise ChatError(
                f"{self._address} cut its answer off: raise max_tokens of ServerChat, which is {self.max_tokens}, or "
                "the server's own limit of the context"
            )
        if not isinstance(content, str) or not content.strip():
            raise _RetryError(f"an empty answer: {excerpt(_hidden(str(content), key))}")
        return content


def _complaint(error: urllib.error.HTTPError) -> str:
    """What a server says to its refusal, as far as it arrives."""
    with error:
        try:
            return error.read(_PIECE).decode(errors="replace")
        except (OSError, http.client.HTTPException) as broken:
            return f"the reason did not arrive ({type(broken).__name__})"


def _hidden(text: str, key: str | None) -> str:
    """What a server has said, without the key."""
    return text if key is None else text.replace(key, "***")


def _data_url(image: Frame) -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=95)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
