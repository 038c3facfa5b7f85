"""A Hugging Face hub on the loopback interface, which serves what a test pushes and misbehaves on demand.

It speaks the part of the protocol that downloads use: the listing of a revision, the tree of a commit, and
files by commit and name. As on the real hub, large files (LFS) come with a sha256 and through a redirect to
another host, which honours `Range`; small ones come directly, with git's checksum.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".model")


@dataclass(frozen=True)
class Request:
    """One request as it arrived: `place` is "info", "tree", "file" or "cdn"."""

    method: str
    place: str
    name: str
    range: str | None
    authorization: str | None


@dataclass
class Faults:
    """How the server misbehaves; all of it can be changed while it runs.

    Attributes:
        cut: bytes of large files after which the connection is closed, one entry per broken transfer
        reset: a cut connection is not closed, but reset, as by a router that forgot it
        alter: names of files whose content arrives changed, at the same size
        refuse: the places ("info", "file") that are refused
        status: the HTTP status of a refusal
        code: its `X-Error-Code`, by which the real hub tells its kinds of refusals apart
        answer: text that every request for a listing gets instead, as from the login page of a hotel
        commit: the commit that listings claim to be
    """

    cut: list[int] = field(default_factory=list)
    reset: bool = False
    alter: set[str] = field(default_factory=set)
    refuse: set[str] = field(default_factory=set)
    status: int = 404
    code: str | None = None
    answer: str | None = None
    commit: str | None = None


class LoopbackHub:
    """The server, as a context manager; one repository, `repo_id`."""

    def __init__(self, repo_id: str = "someone/some-model") -> None:
        self.repo_id = repo_id
        self.faults = Faults()
        self.requests: list[Request] = []
        self._commits: dict[str, dict[str, bytes]] = {}
        self._branches: dict[str, str] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def push(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Makes a commit of these files, lets the branch point to it, and returns it."""
        tree = sorted((name, git_checksum(content)) for name, content in files.items())
        commit = hashlib.sha1(repr(tree).encode()).hexdigest()
        self._commits[commit] = dict(files)
        self._branches[branch] = commit
        return commit

    def requested(self, place: str, method: str = "GET") -> list[Request]:
        return [request for request in self.requests if (request.place, request.method) == (place, method)]

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self._commits else self._branches.get(revision)

    def files(self, commit: str) -> dict[str, bytes]:
        return self._commits[commit]

    def large(self, checksum: str) -> tuple[str, bytes] | None:
        """The name and content of the large file with this sha256."""
        for files in self._commits.values():
            for name, content in files.items():
                if name.endswith(LARGE) and hashlib.sha256(content).hexdigest() == checksum:
                    return name, content
        return None


def git_checksum(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _handler(hub: LoopbackHub) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"hub": hub})


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        api = f"/api/models/{self.hub.repo_id}"
        if path.startswith("/cdn/"):
            self._cdn(path.removeprefix("/cdn/"))
        elif path.startswith(f"{api}/revision/"):
            self._info(path.removeprefix(f"{api}/revision/"))
        elif path.startswith(f"{api}/tree/"):
            self._tree(path.removeprefix(f"{api}/tree/"))
        elif path.startswith(f"/{self.hub.repo_id}/resolve/"):
            revision, name = path.removeprefix(f"/{self.hub.repo_id}/resolve/").split("/", 1)
            self._file(revision, name)
        else:
            self._record("info", path)
            self._refuse(404, "RepoNotFound")

    def _record(self, place: str, name: str) -> bool:
        """Notes the request, and says whether it has been refused."""
        headers = self.headers
        request = Request(self.command, place, name, headers.get("Range"), headers.get("Authorization"))
        self.hub.requests.append(request)
        if place in self.hub.faults.refuse:
            self._refuse(self.hub.faults.status, self.hub.faults.code)
        return place in self.hub.faults.refuse

    def _refuse(self, status: int, code: str | None) -> None:
        self._send(status, b"{}", {"X-Error-Code": code} if code else {})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _info(self, revision: str) -> None:
        if self._record("info", revision):
            return
        commit = self.hub.resolve(revision)
        if self.hub.faults.answer is not None:
            self._send(200, self.hub.faults.answer.encode(), {})
        elif commit is None:
            self._refuse(404, "RevisionNotFound")
        else:
            files = self.hub.files(commit)
            siblings = [_sibling(name, content) for name, content in files.items()]
            info = {"id": self.hub.repo_id, "sha": self.hub.faults.commit or commit, "siblings": siblings}
            self._send(200, json.dumps(info).encode(), {})

    def _tree(self, commit: str) -> None:
        if self._record("tree", commit):
            return
        entries = []
        for name, content in self.hub.files(commit).items():
            entry = {"type": "file", "path": name, "size": len(content), "oid": git_checksum(content)}
            if name.endswith(LARGE):
                checksum = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": checksum, "size": len(content), "pointerSize": 130}
            entries.append(entry)
        self._send(200, json.dumps(entries).encode(), {})

    def _file(self, revision: str, name: str) -> None:
        if self._record("file", name):
            return
        commit = self.hub.resolve(revision)
        content = self.hub.files(commit).get(name) if commit else None
        if commit is None or content is None:
            self._refuse(404, "EntryNotFound" if commit else "RevisionNotFound")
            return
        headers = {"X-Repo-Commit": commit}
        if not name.endswith(LARGE):
            headers["ETag"] = f'"{git_checksum(content)}"'
            self._send(200, self._altered(name, content), headers)
            return
        checksum = hashlib.sha256(content).hexdigest()
        headers |= {"X-Linked-Etag": f'"{checksum}"', "X-Linked-Size": str(len(content))}
        # another host name for the same address, so that a client takes it for another host
        self._send(302, b"", {**headers, "Location": f"http://localhost:{self.hub.port}/cdn/{checksum}"})

    def _cdn(self, checksum: str) -> None:
        found = self.hub.large(checksum)
        if self._record("cdn", found[0] if found else checksum) or found is None:
            return
        name, content = found
        content = self._altered(name, content)
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{checksum}"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.hub.faults.cut:
            self.wfile.write(content[start : start + self.hub.faults.cut.pop(0)])
            self._break()
        else:
            self.wfile.write(content[start:])

    def _break(self) -> None:
        self.close_connection = True
        if self.hub.faults.reset:
            time.sleep(0.1)  # what was written has to arrive first
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())  # at once: the server would shut it down politely before

    def _altered(self, name: str, content: bytes) -> bytes:
        return bytes([content[0] ^ 1]) + content[1:] if name in self.hub.faults.alter else content


def _sibling(name: str, content: bytes) -> dict[str, object]:
    sibling: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": git_checksum(content)}
    if name.endswith(LARGE):
        checksum = hashlib.sha256(content).hexdigest()
        sibling["lfs"] = {"sha256": checksum, "size": len(content), "pointerSize": 130}
    return sibling
