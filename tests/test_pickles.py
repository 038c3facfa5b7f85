"""Pickles are read as plain data; whatever else a pickle asks for is refused and not done."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.pickles import read_pickle

PLAIN = [
    {"ref_id": 1, "ids": [1, 2**40, -3, 2**70], "sent": "naïve Ünïcode 象", "none": None, "yes": True},
    {"tuple": ("a", 1.5, ()), 5: {"nested": [[], {}]}, "long": "x" * 300, "shared": ["y"] * 2},
]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read_from_every_protocol(tmp_path, protocol):
    content = [*PLAIN, {"counts": b"\x00PPo0\xff", "size": [3, 4]}]
    assert read_pickle(write(tmp_path / "a.p", pickle.dumps(content, protocol)), list) == content


def test_pickles_of_python_2_are_read_with_their_bytes_as_latin_1(tmp_path):
    binary = b"\x80\x02]q\x01}q\x02(U\x04sentq\x03U\x04caf\xe9q\x04U\x06ref_idq\x05\x8a\x01\x07ua."
    text = b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xe9'\np3\nsS'ref_id'\np4\nL7L\nsa."
    for content in (binary, text):
        assert read_pickle(write(tmp_path / "a.p", content), list) == [{"sent": "café", "ref_id": 7}]


class Runs:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, r"(posix|nt)\.system"), (eval, r"(__builtin__|builtins)\.eval"), (exec, "exec"), (open, r"\.open")],
)
def test_calls_are_refused_by_name_and_not_done(tmp_path, protocol, function, name):
    victim = tmp_path / "victim"
    argument = {
        os.system: f"touch {victim}",
        open: str(victim),
    }.get(function, f"open({str(victim)!r}, 'w')")
    arguments = (argument, "w") if function is open else (argument,)
    path = write(tmp_path / "refs(unc).p", pickle.dumps([{"a": Runs(function, *arguments)}], protocol))
    with pytest.raises(DatasetError, match=name) as caught:
        read_pickle(path, list)
    assert str(path) in str(caught.value)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"(S'touch victim'\nios\nsystem\n.", r"os\.system"),
        (b"(cos\nsystem\nS'touch victim'\no.", r"os\.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch victim\x85R.", r"os\.system"),
        (b"c_codecs\nencode\n(S'rot13'\nS'bz2'\ntR.", "call"),
        (b"]N\x85R.", "call a list"),
        (b"\x80\x02}}b.", "operation BUILD"),
        (b"\x80\x02\x82\x01.", "operation EXT1"),
        (b"Pmodule\n.", "operation PERSID"),
        (b"\x80\x02]N\x81.", "operation NEWOBJ"),
        (b"\x80\x05\x96" + b"\xff" * 5 + b"\0\0\0.", "operation BYTEARRAY8"),
        (b"\x80\x05\x97.", "operation NEXT_BUFFER"),
    ],
)
def test_hand_written_operations_are_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match=message):
        read_pickle(write(tmp_path / "a.p", content))
    assert [each.name for each in tmp_path.iterdir()] == ["a.p"]


def test_objects_of_other_packages_are_refused_by_name(tmp_path):
    with pytest.raises(DatasetError, match=r"numpy.*scalar"):
        read_pickle(write(tmp_path / "a.p", pickle.dumps([np.int64(3)])), list)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        b"\x80\x02",
        b"\x80\x63.",
        b".",
        b"\x80\x02Nr\xff\xff",  # cut off in an argument
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f]",  # a frame longer than any memory
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes longer than any memory
        b"\x80\x02\x8b\xff\xff\xff\x7f1",  # a number of 2 GB
        b"a.",
        b"(.",
        b"h\x07.",
        b"\x80\x02]]K\x01s.",  # a list as a key
        b"\x80\x02X\x02\x00\x00\x00\xff\xff.",  # not UTF-8
        b"S'open\n.",
        b"I" + b"9" * 5000 + b"\n.",
    ],
)
def test_damaged_pickles_give_an_error_that_names_the_file(tmp_path, content):
    with pytest.raises(DatasetError, match=r"refs\.p (is no complete pickle|holds)"):
        read_pickle(write(tmp_path / "refs.p", content))


def test_what_a_pickle_claims_is_not_allocated(tmp_path):
    # A memo index of 4 billion, for which the unpickler in C makes a table of 64 GB.
    assert read_pickle(write(tmp_path / "a.p", b"\x80\x02]r\xff\xff\xff\xff."), list) == []


def test_deep_nesting_is_no_way_to_the_end_of_the_stack(tmp_path):
    depth = 300_000
    lists = read_pickle(write(tmp_path / "a.p", b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."), list)
    assert len(lists) == 1
    tuples = b"\x80\x02})" + b"\x85" * depth + b"Ns."
    with pytest.raises(DatasetError, match="tuple as a key"):
        read_pickle(write(tmp_path / "b.p", tuples))


def test_another_kind_of_content_is_told(tmp_path):
    with pytest.raises(DatasetError, match="holds a dict, but should hold a list"):
        read_pickle(write(tmp_path / "a.p", pickle.dumps({})), list)
    with pytest.raises(DatasetError, match=r"none\.p is missing"):
        read_pickle(tmp_path / "none.p")
