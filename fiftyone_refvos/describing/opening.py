"""A chat model by what a form or a command line says of it."""

from __future__ import annotations

from fiftyone_refvos.describing.chat import MAX_TOKENS, ChatModel
from fiftyone_refvos.describing.server import ServerChat


def open_chat(
    model: str,
    *,
    server: str | None = None,
    key_variable: str | None = None,
    device: str | None = None,
    max_tokens: int = MAX_TOKENS,
) -> ChatModel:
    """A model of a server, or one that runs here.

    Args:
        model: as the server calls it; without a server a folder, or a repository of the hub
        server: the URL of an OpenAI-compatible server, up to and with `/v1`
        key_variable: the environment variable with the key of the server
        device: where a model without a server runs
        max_tokens: of an answer

    Raises:
        ChatError: if a model that runs here cannot be loaded
        ValueError: for a URL that is none, and for what does not go together
    """
    if server is not None:
        if device is not None:
            raise ValueError(f"the model runs on the server {server}: leave out the device")
        return ServerChat(server, model, key_variable=key_variable, max_tokens=max_tokens)
    if key_variable is not None:
        raise ValueError("a key is for a server: pass its URL, too")
    from fiftyone_refvos.describing.local import TransformersChat  # torch takes seconds to import

    return TransformersChat(model, device=device, max_new_tokens=max_tokens)
