"""One repository in the Hugging Face hub's cache folder: where its files lie, and which are verified.

Beside the hub's own files (`blobs/`: files named by checksum; `snapshots/`: links to them per commit) lie:

    models--Swindl--GLUS-A/
        refvos/pins/main               the commit at which the branch `main` stood when first asked for
        refvos/verified/COMMIT.json    the files of that commit whose checksums were found right
        refvos/SHA256.partial          what an interrupted download left; the next one goes on from there
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import constants

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFile:
    """What the hub says of a file.

    Attributes:
        size: in bytes
        checksum: sha256 (64 digits) of a large file (LFS), git's sha1 (40 digits) of a small one; the hub's
            cache names the file's content by it
    """

    size: int
    checksum: str

    @property
    def large(self) -> bool:
        return len(self.checksum) == 64

    def damage(self, path: Path) -> str | None:
        """What is wrong with a downloaded file, or None."""
        if not path.is_file():
            return "is missing"
        size = path.stat().st_size
        if size != self.size:
            return f"has {size} bytes, but the hub says {self.size}"
        with path.open("rb") as stream:
            if self.large:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            else:
                content = b"blob %d\0" % size + stream.read()
                found = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        return None if found == self.checksum else f"has checksum {found}, but the hub says {self.checksum}"


class HubCache:
    """One revision of a repository on disk.

    Args:
        repo_id: e.g. "Swindl/GLUS-A"
        revision: a commit (40 digits), or a branch or tag
        cache_dir: instead of the hub's own cache folder
    """

    def __init__(self, repo_id: str, revision: str, cache_dir: Path | None = None) -> None:
        self.root = Path(cache_dir or constants.HF_HUB_CACHE).expanduser().resolve()
        self.storage = self.root / f"models--{repo_id.replace('/', '--')}"
        self.own = self.storage / "refvos"
        self.pin_file = self.own / "pins" / quote(revision, safe="")
        self._revision = revision

    def commit(self) -> str | None:
        """The commit, if it is known without asking the hub."""
        if COMMIT.fullmatch(self._revision):
            return self._revision
        pinned = self.pin_file.read_text().strip() if self.pin_file.is_file() else ""
        return pinned if COMMIT.fullmatch(pinned) else None

    def pin(self, commit: str) -> None:
        """Records the commit, before the download, so that an interrupted one goes on with the same."""
        if self.commit() != commit:
            _write(self.pin_file, commit)

    def path(self, commit: str, name: str) -> Path:
        return self.storage / "snapshots" / commit / name

    def blob(self, file: HubFile) -> Path:
        return self.storage / "blobs" / file.checksum

    def partial(self, file: HubFile) -> Path:
        return self.own / f"{file.checksum}.partial"

    def partial_bytes(self) -> int:
        """How much of large files arrived before their download was interrupted."""
        return sum(path.stat().st_size for path in self.own.glob("*.partial"))

    def complete(self, select: Callable[[Iterable[str]], list[str]]) -> Path | None:
        """The snapshot's folder, if all files that `select` takes are in it and verified."""
        commit = self.commit()
        if commit is None:
            return None
        wanted = select(self._note(commit)["repository"])
        if not wanted or not self.verified(commit).issuperset(wanted):
            return None
        return self.path(commit, "")

    def verified(self, commit: str) -> set[str]:
        """The names of the commit's files that were once verified, and still have their size."""
        sizes = self._note(commit)["verified"]
        paths = {name: self.path(commit, name) for name in sizes}
        return {name for name, path in paths.items() if path.is_file() and path.stat().st_size == sizes[name]}

    def note(self, commit: str, names: Iterable[str], files: Mapping[str, HubFile]) -> None:
        """Records the names of all files of the commit, and those files that are verified."""
        sizes = self._note(commit)["verified"] | {name: file.size for name, file in files.items()}
        note = {"repository": sorted(names), "verified": sizes}
        _write(self._note_file(commit), json.dumps(note, indent=1, sort_keys=True))

    def _note_file(self, commit: str) -> Path:
        return self.own / "verified" / f"{commit}.json"

    def _note(self, commit: str) -> dict[str, Any]:
        try:
            note = json.loads(self._note_file(commit).read_text())
            return {"repository": list(note["repository"]), "verified": dict(note["verified"])}
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or damaged: nothing is known
            return {"repository": [], "verified": {}}

    def missing_bytes(self, commit: str, files: Mapping[str, HubFile]) -> int:
        """What is still to be downloaded."""
        missing = 0
        for name, file in files.items():
            if not (self.path(commit, name).exists() or self.blob(file).exists()):
                partial = self.partial(file)
                missing += file.size - (min(partial.stat().st_size, file.size) if partial.exists() else 0)
        return missing

    def discard(self, commit: str, name: str, file: HubFile) -> None:
        """Deletes a damaged file: the link, and the content if no other repository shares it."""
        path = self.path(commit, name)
        content = path.resolve()
        path.unlink(missing_ok=True)
        self.blob(file).unlink(missing_ok=True)
        if content.is_relative_to(self.storage):
            content.unlink(missing_ok=True)

    def unverified(self) -> Path | None:
        """The folder of a copy that another program downloaded, or that is not finished."""
        ref = self.storage / "refs" / self._revision
        commit = self.commit() or (ref.read_text().strip() if ref.is_file() else "")
        folder = self.path(commit, "")
        return folder if commit and folder.is_dir() and any(folder.iterdir()) else None

    @contextmanager
    def lock(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """One process at a time; `on_wait` is called if that means to wait."""
        from filelock import Timeout
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # not in its __all__

        # among the hub's locks: it may turn out to have no such repository, and then no folder for it appears
        path = self.root / ".locks" / self.storage.name / "refvos.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(WeakFileLock(path, timeout=1))
            except Timeout:
                on_wait()
                stack.enter_context(WeakFileLock(path))
            yield


def _write(path: Path, text: str) -> None:
    """Writes a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)
