"""A chat server: what is sent, what is retried, and what is an error at once."""

from __future__ import annotations

import base64
import io
import json
import time
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest
from PIL import Image

from fiftyone_refvos.describing import ChatError, ServerChat
from tests.chats import chat_server, said

RED = np.full((24, 32, 3), (200, 30, 30), dtype=np.uint8)


def asking(address: str, **options) -> ServerChat:
    return ServerChat(address, "some-model", **{"timeout": 0.3, "backoff": 0.01, **options})


def test_pictures_and_text_arrive_and_the_answer_comes_back() -> None:
    with chat_server(said("a red thing")) as server:
        assert asking(server.address).ask([RED, RED[:10]], "What is it?") == "a red thing"
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("some-model", 512, 0.0)
    (message,) = body["messages"]
    first, second, text = message["content"]
    assert text == {"type": "text", "text": "What is it?"}
    assert first["type"] == second["type"] == "image_url"
    kind, data = first["image_url"]["url"].split(",")
    assert kind == "data:image/jpeg;base64"
    arrived = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert arrived.shape == RED.shape
    assert np.abs(arrived.astype(int) - RED).max() <= 3


def test_two_errors_of_the_server_and_then_an_answer() -> None:
    with chat_server((500, "oops"), (503, "busy"), said("a dog")) as server:
        assert asking(server.address).ask([], "?") == "a dog"
    assert len(server.requests) == 3


@pytest.mark.parametrize("junk", ["<html>hello</html>", "[]", "{}", '{"choices": []}', said("  ")[1], said(None)[1]])
def test_junk_is_asked_again(junk) -> None:
    with chat_server((200, junk), said("a dog")) as server:
        assert asking(server.address).ask([], "?") == "a dog"
    assert len(server.requests) == 2


def test_an_answer_that_was_cut_off_is_an_error_that_names_the_limit() -> None:
    body = json.dumps({"choices": [{"message": {"content": "a red"}, "finish_reason": "length"}]})
    with chat_server((200, body)) as server:
        with pytest.raises(ChatError, match="raise max_tokens of ServerChat, which is 7"):
            asking(server.address, max_tokens=7).ask([], "?")
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500])
def test_an_error_whose_body_breaks_off_is_tried_again(monkeypatch, status) -> None:
    monkeypatch.setattr(BaseHTTPRequestHandler, "send_header", _announce_more)
    with chat_server((status, "oops")) as server:
        with pytest.raises(ChatError, match=f"2 attempts.*HTTP {status}: 'the reason did not arrive"):
            asking(server.address, attempts=2).ask([], "?")
        assert len(server.requests) == 2


_send_header = BaseHTTPRequestHandler.send_header


def _announce_more(self: BaseHTTPRequestHandler, name: str, value: str) -> None:
    _send_header(self, "Transfer-Encoding" if name == "Content-Length" else name, "chunked")


def test_attempts_are_bounded_and_the_last_problem_is_told() -> None:
    with chat_server((200, "<html>hello</html>")) as server:
        with pytest.raises(ChatError, match="gave no answer in 3 attempts; the last one: junk.*<html>hello</html>"):
            asking(server.address, attempts=3).ask([], "?")
        assert len(server.requests) == 3


def test_a_server_that_does_not_answer_in_time() -> None:
    with chat_server(2.0, said("a cat")) as server:
        start = time.monotonic()
        assert asking(server.address).ask([], "?") == "a cat"
        assert time.monotonic() - start < 2
    with chat_server(2.0) as server, pytest.raises(ChatError, match="2 attempts.*no answer within 0.3 s"):
        asking(server.address, attempts=2).ask([], "?")


def test_waits_double(monkeypatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with chat_server((500, "")) as server, pytest.raises(ChatError):
        asking(server.address, backoff=0.5, attempts=4).ask([], "?")
    assert waits == [0.5, 1.0, 2.0]


def test_nobody_listens() -> None:
    with chat_server(said("")) as server:
        pass
    with pytest.raises(ChatError, match="2 attempts.*ConnectionRefusedError"):
        asking(server.address, attempts=2).ask([], "?")


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refusal_is_an_error_at_once(status) -> None:
    with chat_server((status, "no such model")) as server:
        with pytest.raises(ChatError, match=f"refuses the question: HTTP {status}: 'no such model'"):
            asking(server.address).ask([], "?")
        assert len(server.requests) == 1


def test_too_many_requests_are_tried_again() -> None:
    with chat_server((429, "slow down"), said("a dog")) as server:
        assert asking(server.address).ask([], "?") == "a dog"


def test_pictures_follow_no_redirect_and_no_proxy(monkeypatch) -> None:
    with chat_server(said("stolen")) as elsewhere:
        with chat_server((307, f"{elsewhere.address}/chat/completions")) as server:
            with pytest.raises(ChatError, match="redirects to .* which is not followed"):
                asking(server.address).ask([RED], "?")
            monkeypatch.setenv("http_proxy", elsewhere.address)
            monkeypatch.delenv("no_proxy", raising=False)
            with pytest.raises(ChatError, match="redirects"):
                asking(server.address).ask([RED], "?")
        assert not elsewhere.requests


def test_the_key_is_sent_and_kept_nowhere(monkeypatch) -> None:
    monkeypatch.setenv("SOME_KEY", "s3cret")
    with chat_server(said("a dog"), (403, "no")) as server:
        chat = asking(server.address, key_variable="SOME_KEY")
        chat.ask([], "?")
        with pytest.raises(ChatError) as refused:
            chat.ask([], "?")
    assert server.requests[0][1]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in f"{chat!r} {dict(chat.identity)} {refused.value}"
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(ChatError, match="SOME_KEY, which is to hold the key, is not set"):
        chat.ask([], "?")


def test_white_space_around_the_key_is_not_sent(monkeypatch) -> None:
    monkeypatch.setenv("SOME_KEY", " s3cret\n")
    with chat_server(said("a dog")) as server:
        assert asking(server.address, key_variable="SOME_KEY").ask([], "?") == "a dog"
    assert server.requests[0][1]["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("key", ["s3cret\nmore", "s3cret\x7f", "s3crét"])
def test_a_key_that_no_header_can_hold_is_refused_without_telling_it(monkeypatch, key) -> None:
    monkeypatch.setenv("SOME_KEY", key)
    with chat_server(said("a dog")) as server:
        with pytest.raises(ChatError, match="SOME_KEY holds characters that no key has") as refused:
            asking(server.address, key_variable="SOME_KEY").ask([], "?")
        assert not server.requests
    assert "s3cr" not in str(refused.value)


@pytest.mark.parametrize("status", [200, 302, 401, 500])
def test_a_key_that_the_server_repeats_is_not_told(monkeypatch, status) -> None:
    monkeypatch.setenv("SOME_KEY", "s3cret")
    with chat_server((status, "http://wrong/" + "s3cret" * 40)) as server, pytest.raises(ChatError) as refused:
        asking(server.address, key_variable="SOME_KEY", attempts=2).ask([], "?")
    assert "http://wrong/******" in str(refused.value)
    assert "s3cr" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", "no URL of a server"),
        ("ftp://host/v1", "no URL of a server"),
        ("https://me:s3cret@host/v1", "pass its name as key_variable"),
        ("https://host/v1?key=s3cret", "pass its name as key_variable"),
    ],
)
def test_urls_that_are_none_or_hold_secrets(url, message) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        ServerChat(url, "m")
    assert "s3cret" not in str(refused.value)


def test_numbers_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="attempts, timeout and max_tokens must be positive"):
        ServerChat("http://host/v1", "m", attempts=0)
