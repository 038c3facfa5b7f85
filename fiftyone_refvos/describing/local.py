"""A chat model of `transformers` on this machine: stock classes, no code of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fiftyone_refvos.describing.chat import MAX_TOKENS, ChatError, excerpt
from fiftyone_refvos.models.devices import resolve_device, resolve_dtype
from fiftyone_refvos.models.hub import HubSource, fetch
from fiftyone_refvos.video import Frame

_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


class TransformersChat:
    """An image-text-to-text model of a folder, or of the hub.

    Args:
        checkpoint: a folder with weights, processor and chat template, or the name of such a repository of the hub
        revision: of the repository; a branch is pinned to the commit of the first download
        device: where it runs; by default the GPU where there is one
        dtype: its precision; by default bfloat16 on a GPU, else float32
        max_new_tokens: of an answer, which is the most likely one, not a sampled one; one that would be longer is an
            error

    Raises:
        ValueError: if no token may be answered
        ChatError: if the folder holds no such model, one that needs code of its own, or not all of its weights
        HubError: if the repository cannot be downloaded
    """

    def __init__(
        self,
        checkpoint: Path | str,
        *,
        revision: str = "main",
        device: str | None = None,
        dtype: str | None = None,
        max_new_tokens: int = MAX_TOKENS,
    ) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens}; it must be positive")
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.device = resolve_device(device)
        folder, self._source = _find(str(checkpoint), revision)
        self.max_new_tokens = max_new_tokens
        stock = {"trust_remote_code": False, "local_files_only": True}
        try:
            self.processor = AutoProcessor.from_pretrained(folder, **stock)
            model, loading = AutoModelForImageTextToText.from_pretrained(
                folder,
                dtype=resolve_dtype(dtype, self.device),
                use_safetensors=True,
                output_loading_info=True,
                **stock,
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ChatError(
                f"{folder} cannot be loaded as an image-text-to-text model by transformers' own classes: {error}"
            ) from error
        if lacking := sorted(loading["missing_keys"]) or sorted(map(str, loading["mismatched_keys"])):
            raise ChatError(f"{folder} lacks weights of its model, such as {lacking[0]}: the copy is not complete")
        if getattr(self.processor, "chat_template", None) is None:
            raise ChatError(f"{folder} has no chat template: add its chat_template.jinja")
        self.model = model.eval().to(self.device)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells it from others; no answer depends on `max_new_tokens`."""
        return {"chat": "transformers", **self._source}

    @torch.inference_mode()
    def ask(self, images: Sequence[Frame], text: str) -> str:
        """The most likely answer to a question.

        Raises:
            ChatError: if it does not end within `max_new_tokens`
        """
        content: list[dict[str, Any]] = [{"type": "image", "image": Image.fromarray(each)} for each in images]
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": [*content, {"type": "text", "text": text}]}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.device)
        for name, value in inputs.items():
            if torch.is_floating_point(value):
                inputs[name] = value.to(self.model.dtype)
        found = self.model.generate(**inputs, do_sample=False, max_new_tokens=self.max_new_tokens)
        new = found[0, inputs["input_ids"].shape[1] :]
        answer: str = self.processor.decode(new, skip_special_tokens=True)
        if len(new) >= self.max_new_tokens and int(new[-1]) not in self._ends:
            raise ChatError(
                f"the answer of {self._source['model']} does not end within {self.max_new_tokens} tokens: raise "
                f"max_new_tokens of TransformersChat; it begins {excerpt(answer)}"
            )
        return answer

    @property
    def _ends(self) -> set[int]:
        """The tokens that end an answer."""
        ends = self.model.generation_config.eos_token_id
        return {*ends} if isinstance(ends, list) else {ends}


def _find(checkpoint: str, revision: str) -> tuple[Path, dict[str, str]]:
    """The folder with a model, and what run records call it."""
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        return folder, {"model": str(folder.resolve())}
    if checkpoint.count("/") != 1 or checkpoint.startswith((".", "/", "~")):
        raise ChatError(f"{checkpoint!r} is neither a folder nor a repository of the hub, OWNER/NAME")
    source = HubSource(checkpoint, revision, "see its page on the hub", 0, _FILES)
    folder = fetch(source)
    return folder, {"model": checkpoint, "revision": folder.name}  # snapshots are named by their commit
