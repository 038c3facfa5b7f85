"""Videos that are cut off, broken or none at all: what is read is right, errors say what to do."""

from __future__ import annotations

import pickle
import wave
from fractions import Fraction
from pathlib import Path

import av
import pytest

from fiftyone_refvos.video import VideoError, open_frames, open_video
from tests.numbered import PICTURES, VARIABLE_TIMES, encode, number_of, numbered, numbers


def test_size_changes_midway(tmp_path: Path) -> None:
    small = encode(tmp_path / "small.h264", PICTURES[:12]).read_bytes()
    large = encode(tmp_path / "large.h264", [numbered(number, 160, 96) for number in range(12)]).read_bytes()
    (tmp_path / "both.h264").write_bytes(small + large)
    with pytest.raises(VideoError, match=r"both.h264: frame 12 is 160x96, the first one is 80x48; re-encode it"):
        numbers(open_video(tmp_path / "both.h264"))


def test_cut_off_with_its_table_at_the_end(tmp_path: Path) -> None:
    data = encode(tmp_path / "whole.mp4", PICTURES).read_bytes()
    (tmp_path / "half.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match=r"half.mp4: is no readable video .*; copy or download it again, or convert"):
        open_video(tmp_path / "half.mp4")


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9, 0.98])
@pytest.mark.parametrize("times", [None, VARIABLE_TIMES], ids=["constant", "variable"])
def test_cut_off_with_its_table_at_the_front(tmp_path: Path, share: float, times: list[int] | None) -> None:
    count = len(times) if times else 60
    tick = Fraction(1, 1000) if times else None
    fast = {"movflags": "+faststart"}
    path = encode(tmp_path / "fast.mp4", PICTURES[:count], stamps=times, tick=tick, container_options=fast)
    expected = numbers(open_video(path))
    data = path.read_bytes()
    payload = data.index(b"mdat")
    path.write_bytes(data[: payload + int(share * (len(data) - payload))])
    source = open_video(path)
    assert len(source) == count
    read: list[int] = []
    with pytest.raises(VideoError) as caught:
        read.extend(number_of(frame) for frame in source.read(range(count)))
    stop = len(read)
    assert stop > 0
    assert read == expected[:stop]
    assert f"stopped at frame {stop} of {count} (frames 0 to {stop - 1} can be read)" in str(caught.value)
    assert numbers(source, range(stop - 1, -1, -1)) == expected[:stop][::-1]
    if not times:  # no more is given up than the few pictures that B-frames interleave
        with av.open(str(path)) as container:
            whole = sum(packet.size > 0 and not packet.is_corrupt for packet in container.demux(video=0))
        assert whole - 4 <= stop <= whole < count
    with pytest.raises(VideoError, match=f"stopped at frame {stop} of {count}"):
        numbers(source, [count - 1])


@pytest.mark.parametrize("position", [14, 18, 20, 36])  # in decoding order: B, P, B and the key picture 36
def test_broken_in_the_middle(tmp_path: Path, position: int) -> None:
    """What the decoder refuses is an error with the frame's number, never a picture of another frame."""
    path = encode(tmp_path / "broken.mp4", PICTURES)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        victim = packets[position]
        assert victim.pos is not None
        data = bytearray(path.read_bytes())
        data[victim.pos : victim.pos + victim.size] = b"\xff" * victim.size
    path.write_bytes(data)
    source = open_video(path)
    read: list[int] = []
    with pytest.raises(VideoError, match="stopped at frame") as caught:
        read.extend(number_of(frame) for frame in source.read(range(60)))
    assert read == list(range(len(read)))
    assert position - 4 <= len(read) <= position
    assert f"stopped at frame {len(read)} of 60" in str(caught.value)


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("This is not a video.\n" * 100)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    for name, problem in [
        ("empty.mp4", "the file is empty"),
        ("text.mp4", "is no readable video"),
        ("sound.wav", "has no video stream"),
        ("missing.mp4", "there is no such file"),
    ]:
        with pytest.raises(VideoError, match=rf"{name}: {problem}.*; \w+") as caught:
            open_frames(tmp_path / name)
        assert caught.value.path == tmp_path / name
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(VideoError, match="is a folder; open the images in it with open_frames_dir"):
        open_video(tmp_path)
