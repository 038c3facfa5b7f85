"""Downloads, against a hub on the loopback interface."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import huggingface_hub
import pytest
from huggingface_hub import constants, scan_cache_dir, snapshot_download

from fiftyone_refvos.models.hub import HubError, HubSource, fetch
from fiftyone_refvos.models.hub_cache import HubCache
from tests.loopback_hub import LoopbackHub

WEIGHTS = random.Random(0).randbytes(2_000_000)
FILES = {
    "config.json": b'{"model_type": "llava"}\n',
    "model.safetensors": WEIGHTS,
    "tokenizer.model": WEIGHTS[:5000],
    "clip/config.json": b"{}",
    "modeling.py": b"raise SystemExit\n",
    "README.md": b"# a model\n",
}
SOURCE = HubSource(
    repo_id="someone/some-model",
    revision="main",
    licence="CC-BY 4.0",
    size_bytes=2_005_000,
    allow_patterns=("*.json", "*.safetensors", "*.model", "*.py"),
)
WANTED = {"config.json", "model.safetensors", "tokenizer.model", "clip/config.json"}
CHUNK = 1 << 16
ARRIVED = 1_000_000 // CHUNK * CHUNK  # of a transfer that is cut after a megabyte


@pytest.fixture(scope="module", autouse=True)
def no_proxy() -> Iterator[None]:
    """The library reads the proxies once, for all its requests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        huggingface_hub.close_session()
        yield
    huggingface_hub.close_session()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # the library writes in steps of 10 MB, which would need larger files here
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    with LoopbackHub(SOURCE.repo_id) as hub:
        hub.push(FILES)
        yield hub


def download(hub: LoopbackHub, cache: Path, source: HubSource = SOURCE, **options: str) -> Path:
    return fetch(source, cache_dir=cache, endpoint=hub.endpoint, **options)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def refused(hub: LoopbackHub, cache: Path, source: HubSource = SOURCE, **options: str) -> str:
    """The message of a download that must fail."""
    with pytest.raises(HubError) as caught:
        download(hub, cache, source, **options)
    return str(caught.value)


def test_all_files_arrive_and_no_code(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = fetch(SOURCE, endpoint=hub.endpoint)
    assert folder.is_relative_to(tmp_path)
    assert contents(folder) == {name: FILES[name] for name in WANTED}
    assert "modeling.py" not in {request.name for request in hub.requests}


def test_the_user_is_told_before_the_download(
    hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="fiftyone_refvos")
    commit = hub.push(FILES)
    download(hub, tmp_path)
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("Downloading"))
    for word in (SOURCE.repo_id, commit, "2.0 MB in 4 files", "licence: CC-BY 4.0", str(tmp_path)):
        assert word in line
    assert line in caplog.messages


def test_what_is_there_is_found_without_a_request(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = download(hub, tmp_path)
    hub.requests.clear()
    assert download(hub, tmp_path) == folder
    assert hub.requests == []


def test_what_is_there_is_found_offline_by_a_fresh_process(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = download(hub, tmp_path)
    hub.stop()
    code = (
        "import sys; from pathlib import Path; from fiftyone_refvos.models.hub import HubSource, fetch\n"
        f"print(fetch({SOURCE!r}, cache_dir=Path({str(tmp_path)!r})))\n"
        "assert not {'fiftyone', 'torch', 'huggingface_hub.hf_api'} & set(sys.modules), 'slow imports'\n"
    )
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=offline)
    assert output.stdout.strip() == str(folder), output.stderr


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_broken_connection_is_resumed(hub: LoopbackHub, tmp_path: Path, reset: bool) -> None:
    hub.faults.cut, hub.faults.reset = [1_000_000], reset
    folder = download(hub, tmp_path)
    assert contents(folder) == {name: FILES[name] for name in WANTED}
    ranges = [request.range for request in hub.requested("cdn") if request.name == "model.safetensors"]
    assert ranges == [None, f"bytes={ARRIVED}-"]


def interrupt(hub: LoopbackHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks after a megabyte, and again and again until nobody tries any more."""
    hub.faults.cut = [1_000_000] + 99 * [0]
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", Mock())
        assert "the connection broke" in refused(hub, cache)
    hub.faults.cut.clear()
    hub.requests.clear()


def test_an_interrupted_download_goes_on_where_it_stopped(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(hub, tmp_path, monkeypatch)
    assert HubCache(SOURCE.repo_id, "main", tmp_path).complete(SOURCE.select) is None
    commit = hub.push(FILES)
    hub.push({**FILES, "config.json": b"{}"})  # the branch moves meanwhile
    folder = download(hub, tmp_path)
    assert folder.name == commit
    assert contents(folder) == {name: FILES[name] for name in WANTED}
    weights = next(request for request in hub.requested("cdn") if request.name == "model.safetensors")
    assert weights.range == f"bytes={ARRIVED}-"
    assert "983.0 kB of it already here" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.partial"))


def test_an_interrupted_download_is_not_taken_for_complete_offline(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(hub, tmp_path, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = refused(hub, tmp_path)
    assert "HF_HUB_OFFLINE" in message
    assert "The 983.0 kB that already arrived are kept" in message
    assert hub.requests == []


@pytest.mark.parametrize("leftover", [WEIGHTS[::-1], WEIGHTS + b"more"], ids=["other bytes", "too long"])
def test_a_spoilt_leftover_does_not_get_into_the_weights(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leftover: bytes
) -> None:
    interrupt(hub, tmp_path, monkeypatch)
    (partial,) = tmp_path.rglob("*.partial")
    partial.write_bytes(leftover)
    if len(leftover) == len(WEIGHTS):
        assert "model.safetensors has checksum" in refused(hub, tmp_path)
    folder = download(hub, tmp_path)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_file_is_refused_and_deleted(hub: LoopbackHub, tmp_path: Path, name: str) -> None:
    hub.faults.alter = {name}
    message = refused(hub, tmp_path)
    assert f"{name} has checksum" in message
    assert "try again" in message
    wrong = bytes([FILES[name][0] ^ 1]) + FILES[name][1:]
    assert all(path.read_bytes() != wrong for path in tmp_path.rglob("*") if path.is_file())
    hub.faults.alter = set()
    hub.requests.clear()
    folder = download(hub, tmp_path)
    assert contents(folder) == {name: FILES[name] for name in WANTED}
    assert {request.name for request in [*hub.requested("cdn"), *hub.requested("file")]} == {name}


def test_a_file_that_lost_bytes_or_vanished_is_fetched_again(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = download(hub, tmp_path)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    (folder / "config.json").resolve().unlink()
    download(hub, tmp_path)
    assert contents(folder) == {name: FILES[name] for name in WANTED}


def test_a_branch_stays_at_its_first_commit(hub: LoopbackHub, tmp_path: Path) -> None:
    first = download(hub, tmp_path)
    newer = hub.push({**FILES, "config.json": b'{"newer": true}'})
    assert download(hub, tmp_path) == first
    assert download(hub, tmp_path, replace(SOURCE, allow_patterns=("*",))) == first
    assert download(hub, tmp_path, replace(SOURCE, revision=newer)).name == newer
    (tmp_path / "models--someone--some-model" / "refvos" / "pins" / "main").unlink()
    assert download(hub, tmp_path).name == newer


def test_further_patterns_download_only_what_is_new(hub: LoopbackHub, tmp_path: Path) -> None:
    few = replace(SOURCE, allow_patterns=("config.json",))
    folder = download(hub, tmp_path, few)
    assert set(contents(folder)) == {"config.json"}
    hub.requests.clear()
    download(hub, tmp_path)
    assert set(contents(folder)) == WANTED
    assert "config.json" not in {request.name for request in hub.requests}
    hub.requests.clear()
    download(hub, tmp_path, few)
    assert hub.requests == []


def test_files_that_another_program_downloaded_are_only_verified(hub: LoopbackHub, tmp_path: Path) -> None:
    snapshot_download(SOURCE.repo_id, cache_dir=tmp_path, endpoint=hub.endpoint)
    hub.requests.clear()
    download(hub, tmp_path)
    assert {request.place for request in hub.requests} == {"info"}


def test_offline_an_unverified_copy_is_named_not_used(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = snapshot_download(SOURCE.repo_id, cache_dir=tmp_path, endpoint=hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert f"A copy that was never verified, and may lack files, is in {folder}" in refused(hub, tmp_path)


@pytest.mark.parametrize(
    ("place", "status", "code", "told"),
    [
        ("info", 404, "RepoNotFound", "has no such repository, or a private one"),
        ("info", 401, "RepoNotFound", "has no such repository, or a private one"),
        ("info", 401, None, "refuses access (HTTP 401): log in with `hf auth login`"),
        ("info", 404, "RevisionNotFound", "it has no revision main"),
        ("info", 403, "GatedRepo", "its authors want their terms accepted: do so at http"),
        ("file", 403, "GatedRepo", "its authors want their terms accepted: do so at http"),
        ("file", 403, None, "refuses access (HTTP 403)"),
        ("info", 503, None, "answers HTTP 503"),
    ],
)
def test_a_refusal_says_what_is_missing_and_the_ways_out(
    hub: LoopbackHub, tmp_path: Path, place: str, status: int, code: str | None, told: str
) -> None:
    hub.faults.refuse, hub.faults.status, hub.faults.code = {place}, status, code
    message = refused(hub, tmp_path, option="clip_path")
    assert told in message
    assert "someone/some-model (revision main, about 2.0 MB)" in message
    assert "run this once with a connection" in message
    assert "pass clip_path=FOLDER, a folder with a copy of its files: *.json, *.safetensors" in message
    if place == "info":
        assert not (tmp_path / "models--someone--some-model").exists()


def test_without_a_network_the_message_is_the_same(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.stop()
    message = refused(hub, tmp_path)
    assert f"{hub.endpoint} cannot be reached" in message
    assert "pass checkpoint=FOLDER" in message


def test_an_unknown_host(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = socket.gaierror(-3, "Temporary failure in name resolution")
    monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=failure))
    with pytest.raises(HubError, match=r"https://huggingface\.co cannot be reached.*name resolution"):
        fetch(SOURCE, cache_dir=tmp_path, endpoint="https://huggingface.co")


def test_a_network_that_answers_nothing_ends_in_time(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(HubError, match="cannot be reached"):
            fetch(SOURCE, cache_dir=tmp_path, endpoint=endpoint)


@pytest.mark.parametrize(
    ("fault", "value", "told"),
    [
        ("answer", "<html>Welcome to the hotel</html>", "cannot be downloaded: JSONDecodeError"),
        ("commit", "../../etc", "answers '../../etc' when asked"),
    ],
)
def test_a_server_that_is_no_hub(hub: LoopbackHub, tmp_path: Path, fault: str, value: str, told: str) -> None:
    setattr(hub.faults, fault, value)
    assert told in refused(hub, tmp_path)


def test_a_file_name_that_leads_out_of_the_folder(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.push({"../../../evil.json": b"{}"})
    assert "../../../evil.json" in refused(hub, tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_commit_is_taken_at_its_word(hub: LoopbackHub, tmp_path: Path) -> None:
    commit = hub.push(FILES)
    hub.faults.commit = "0" * 40
    assert f"answers '{'0' * 40}'" in refused(hub, tmp_path, replace(SOURCE, revision=commit))


def test_a_pinned_commit_that_is_gone(hub: LoopbackHub, tmp_path: Path) -> None:
    cache = HubCache(SOURCE.repo_id, "main", tmp_path)
    cache.pin("1" * 40)
    message = refused(hub, tmp_path)
    assert f"{'1' * 40} that {cache.pin_file} names is gone; delete that file" in message


def test_patterns_that_match_nothing(hub: LoopbackHub, tmp_path: Path) -> None:
    message = refused(hub, tmp_path, replace(SOURCE, allow_patterns=("*.gguf", "*.py")))
    assert "holds none of *.gguf, *.py; it holds README.md, clip/config.json" in message


def test_a_disk_too_small(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_500_000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        message = refused(hub, tmp_path)
        assert "needs 2.0 MB more on the disk" in message
        assert "1.5 MB free" in message
        assert hub.requested("cdn") == []
    download(hub, tmp_path)


def test_a_cache_that_cannot_be_written(hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "NotADirectoryError" in refused(hub, tmp_path / "file")


def test_who_gets_the_token(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download(hub, tmp_path)
    sent = {place: {request.authorization for request in hub.requested(place)} for place in ("info", "cdn")}
    assert sent == {"info": {"Bearer hf_secret"}, "cdn": {None}}
    assert {request.authorization for request in hub.requested("file")} == {"Bearer hf_secret"}


def test_two_at_once_download_once(hub: LoopbackHub, tmp_path: Path) -> None:
    download(hub, tmp_path / "alone")
    alone = len(hub.requests)
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: download(hub, tmp_path / "together"), range(2)))
    assert len(set(folders)) == 1
    assert len(hub.requests) == 2 * alone


def test_one_that_waits_says_so(hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = HubCache(SOURCE.repo_id, "main", tmp_path)
    with ThreadPoolExecutor(1) as pool, cache.lock(lambda: None):
        pool.submit(download, hub, tmp_path)
        time.sleep(1.2)
        assert "Waiting for another process that downloads someone/some-model" in capsys.readouterr().err
    assert cache.complete(SOURCE.select) is not None


def test_the_hubs_own_tools_still_read_the_cache(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(hub, tmp_path, monkeypatch)
    assert scan_cache_dir(tmp_path).warnings == []
    folder = download(hub, tmp_path)
    scan = scan_cache_dir(tmp_path)
    assert scan.warnings == []
    assert [repo.size_on_disk for repo in scan.repos] == [sum(len(FILES[name]) for name in WANTED)]
    scan.delete_revisions(folder.name).execute()
    assert not folder.exists()
    hub.requests.clear()
    assert download(hub, tmp_path) == folder
    assert hub.requests


def test_a_damaged_note_is_no_proof(hub: LoopbackHub, tmp_path: Path) -> None:
    download(hub, tmp_path)
    (note,) = tmp_path.glob("models--someone--some-model/refvos/verified/*")
    assert json.loads(note.read_text())["verified"]["model.safetensors"] == len(WEIGHTS)
    for text in ("", "[]", '{"repository": 1}'):
        note.write_text(text)
        hub.requests.clear()
        download(hub, tmp_path)
        assert {request.place for request in hub.requests} == {"info"}
