"""Weights from the Hugging Face hub: one pinned commit, every file verified, afterwards no network at all.

`fetch` works in the hub's own cache (`~/.cache/huggingface/hub`, moved by `HF_HOME` or `HF_HUB_CACHE`), which
other programs share; `hub_cache.py` shows the layout. A branch is resolved once: later loads from the same
cache use the same commit, also when the branch moves. To take a newer commit pass another `revision`, or
delete the branch's file in `models--OWNER--NAME/refvos/pins`. Only what a complete and verified download has
noted counts as present, and only while every file still has its size.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from huggingface_hub import constants

from fiftyone_refvos.models.hub_cache import COMMIT, HubCache, HubFile

# The rest of huggingface_hub is imported where it is used: it takes most of a second, and neither listing the
# models nor loading one that ships with the package should wait for it.

logger = logging.getLogger(__name__)

_CODE = (".py", ".pyc", ".pyd", ".pyw", ".so")  # weights and settings only, nothing that could run
_CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class HubError(RuntimeError):
    """Weights cannot be had; the message says which, why, and what to do."""


@dataclass(frozen=True)
class HubSource:
    """Files of one repository of the hub.

    Attributes:
        repo_id: e.g. "Swindl/GLUS-A"
        revision: a commit (40 digits), or a branch or tag, which the first download pins to its commit
        licence: as shown to the user before a download
        size_bytes: roughly, for messages where the hub cannot be asked
        allow_patterns: which files, as shell patterns; Python files are left out whatever the patterns say
    """

    repo_id: str
    revision: str
    licence: str
    size_bytes: int
    allow_patterns: tuple[str, ...]

    def select(self, names: Iterable[str]) -> list[str]:
        """Those of the repository's file names that are downloaded."""
        return [
            name
            for name in names
            if not name.lower().endswith(_CODE) and any(fnmatchcase(name, pattern) for pattern in self.allow_patterns)
        ]


def fetch(
    source: HubSource,
    *,
    cache_dir: Path | None = None,
    endpoint: str | None = None,
    option: str = "checkpoint",
) -> Path:
    """The folder with the source's files, downloaded if they are not there yet.

    Files that are there and verified are found without any network access. Otherwise the commit, the size and
    the licence are announced, the missing files are downloaded (an interrupted download goes on where it
    stopped), and every file's checksum is compared with the hub's. Several processes may call this at once:
    one downloads, the others wait.

    Args:
        source: what to fetch
        cache_dir: instead of the hub's own cache folder
        endpoint: a mirror of https://huggingface.co, also set by `HF_ENDPOINT`
        option: the argument by which the caller's user passes a folder instead, for messages

    Raises:
        HubError: if the files cannot be downloaded (no network, no access, no such revision, too little disk
            space), or arrive damaged
    """
    cache = HubCache(source.repo_id, source.revision, cache_dir)
    if (folder := cache.complete(source.select)) is not None:
        return folder
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's or httpx2's, by version

    try:
        with cache.lock(lambda: _say(f"Waiting for another process that downloads {source.repo_id}")):
            return cache.complete(source.select) or _download(source, cache, endpoint)
    except (HTTPError, OSError, ValueError) as error:
        raise HubError(_unavailable(source, cache, endpoint, option, error)) from error


def _download(source: HubSource, cache: HubCache, endpoint: str | None) -> Path:
    from huggingface_hub import snapshot_download

    commit, names, files = _listing(source, cache, endpoint)
    cache.pin(commit)
    for name, file in files.items():
        path = cache.path(commit, name)
        if path.is_file() and path.stat().st_size != file.size:
            cache.discard(commit, name, file)
    _announce(source, cache, commit, files)
    (cache.storage / "snapshots").mkdir(parents=True, exist_ok=True)  # `hf cache` calls its absence damage
    for name, file in files.items():
        if file.large and not cache.blob(file).exists():
            _download_large(source, cache, commit, name, file, endpoint)
    # the small files, and the links to all in the snapshot's folder
    snapshot_download(
        source.repo_id,
        revision=commit,
        cache_dir=cache.root,
        endpoint=endpoint,
        allow_patterns=[glob.escape(name) for name in files],
    )
    _verify(source, cache, commit, files)
    cache.note(commit, names, files)
    return cache.path(commit, "")


def _listing(source: HubSource, cache: HubCache, endpoint: str | None) -> tuple[str, list[str], dict[str, HubFile]]:
    """Asks the hub for the commit, the names of all its files, and the size and checksum of the source's."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint)
    revision = cache.commit() or source.revision
    timeout = constants.HF_HUB_ETAG_TIMEOUT  # without one, a network that drops packets holds us forever
    info = api.model_info(source.repo_id, revision=revision, files_metadata=True, timeout=timeout)
    commit = info.sha or ""
    if not COMMIT.fullmatch(commit) or (COMMIT.fullmatch(revision) and commit != revision):
        raise HubError(f"{api.endpoint} answers {commit!r} when asked for {source.repo_id} at {revision}")
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    files: dict[str, HubFile] = {}
    for name in source.select(siblings):
        lfs = siblings[name].lfs
        size = lfs.size if lfs else siblings[name].size
        checksum = (lfs.sha256 if lfs else siblings[name].blob_id) or ""
        if size is None or not _CHECKSUM.fullmatch(checksum) or ".." in PurePosixPath(name).parts:
            raise HubError(f"{api.endpoint} gives no usable size and checksum for {name} of {source.repo_id}")
        files[name] = HubFile(size, checksum)
    if not files:
        there, wanted = ", ".join(sorted(siblings)) or "nothing", ", ".join(source.allow_patterns)
        raise HubError(f"{source.repo_id} at commit {commit} holds none of {wanted}; it holds {there}")
    return commit, list(siblings), files


def _announce(source: HubSource, cache: HubCache, commit: str, files: Mapping[str, HubFile]) -> None:
    """Says what will be downloaded, unless it would not fit on the disk."""
    total, missing = sum(file.size for file in files.values()), cache.missing_bytes(commit, files)
    folder = next(path for path in (cache.storage, *cache.storage.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise HubError(
            f"{source.repo_id} needs {_readable(missing)} more on the disk of {cache.root}, which has "
            f"{_readable(free)} free; make room, or set HF_HOME to a folder on another disk"
        )
    if missing:
        here = f", {_readable(total - missing)} of it already here" if missing < total else ""
        _say(
            f"Downloading {source.repo_id} at commit {commit}: {_readable(total)} in {len(files)} files"
            f"{here}, to {cache.storage}; licence: {source.licence}"
        )


def _download_large(
    source: HubSource, cache: HubCache, commit: str, name: str, file: HubFile, endpoint: str | None
) -> None:
    """Downloads a large file, or what is missing of it, to where the hub's library looks for it.

    The library's own function for whole files starts anew after an interruption (huggingface_hub issue 4196),
    and the files here have up to 10 GB.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = hf_hub_url(source.repo_id, name, revision=commit, endpoint=endpoint)
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}  # a part of a compressed file is no use
    partial = cache.partial(file)
    partial.parent.mkdir(parents=True, exist_ok=True)
    if partial.exists() and partial.stat().st_size > file.size:
        partial.unlink()
    while True:  # http_get goes on by itself after some kinds of broken connections, but not after all
        with partial.open("ab") as stream:
            start = stream.tell()
            try:
                http_get(
                    url,
                    stream,
                    resume_size=start,
                    headers=headers,
                    expected_size=file.size,
                    displayed_filename=name,
                )
                break
            except HTTPError as error:
                if isinstance(error, HfHubHTTPError) or stream.tell() <= start:
                    raise
    cache.blob(file).parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, cache.blob(file))


def _verify(source: HubSource, cache: HubCache, commit: str, files: Mapping[str, HubFile]) -> None:
    """Compares every file that was not verified before with its checksum, and deletes the damaged ones."""
    logger.info("Verifying the checksums of %s", cache.path(commit, ""))
    unknown = sorted(files.keys() - cache.verified(commit))
    damages = {name: files[name].damage(cache.path(commit, name)) for name in unknown}
    damaged = [f"{name} {damage}" for name, damage in damages.items() if damage is not None]
    for name, damage in damages.items():
        if damage is not None:
            cache.discard(commit, name, files[name])
    if damaged:
        raise HubError(
            f"{source.repo_id} at commit {commit} arrived damaged and is not used: {'; '.join(damaged)}."
            f" What is damaged was deleted from {cache.storage}: try again, and only that is downloaded. "
            "If this does not help, a proxy, a mirror (HF_ENDPOINT) or the disk changes the data"
        )


def _unavailable(source: HubSource, cache: HubCache, endpoint: str | None, option: str, error: Exception) -> str:
    """The whole message for a download that failed: what, why, and the ways out."""
    reason = _reason(source, cache, (endpoint or constants.ENDPOINT).rstrip("/"), error)
    kept = cache.partial_bytes()
    name = f"{source.repo_id} (revision {source.revision}, about {_readable(source.size_bytes)})"
    lines = [
        f"{name} is not complete in {cache.root}, and cannot be downloaded: {reason}.",
        "Either run this once with a connection to the hub; afterwards no network is needed."
        + (f" The {_readable(kept)} that already arrived are kept." if kept else ""),
        f"Or pass {option}=FOLDER, a folder with a copy of its files: {', '.join(source.allow_patterns)}.",
    ]
    if (folder := cache.unverified()) is not None:
        lines.append(f"A copy that was never verified, and may lack files, is in {folder}.")
    return "\n".join(lines)


def _reason(source: HubSource, cache: HubCache, hub: str, error: BaseException) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # the library's "not in the cache", around what really happened
    login = "log in with `hf auth login`, or set HF_TOKEN"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    match error:
        case errors.OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids it"
        case errors.GatedRepoError():
            return f"its authors want their terms accepted: do so at {hub}/{source.repo_id}, then {login}"
        case errors.RevisionNotFoundError() if cache.pin_file.is_file():
            return f"the commit {cache.commit()} that {cache.pin_file} names is gone; delete that file"
        case errors.RevisionNotFoundError():
            return f"it has no revision {source.revision}"
        case errors.RepositoryNotFoundError():
            return f"{hub} has no such repository, or a private one: check the name, or {login}"
        case _ if status in (401, 403):
            return f"{hub} refuses access (HTTP {status}): {login}"
        case _ if status is not None:
            return f"{hub} answers HTTP {status}"
        case errors.HTTPError():  # type: ignore[attr-defined]
            return f"{hub} cannot be reached, or the connection broke ({error})"
        case _:
            return f"{type(error).__name__}: {error}"


def _say(message: str) -> None:
    """Tells the user also where logging is not set up, as in a notebook."""
    logger.info(message)
    print(message, file=sys.stderr, flush=True)


def _readable(size: int) -> str:
    for unit, digits in (("GB", 9), ("MB", 6)):
        if size >= 10**digits:
            return f"{size / 10**digits:.1f} {unit}"
    return f"{size / 1000:.1f} kB"
