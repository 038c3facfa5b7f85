"""Which picture of a video is which frame, in every order of reading and for every kind of file."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from eta.core.video import VideoStreamInfo
from PIL import Image

from fiftyone_refvos import decoding
from fiftyone_refvos.video import VideoFrames, open_video
from tests.numbered import (
    PICTURES,
    VARIABLE_SHOWN,
    X264,
    encode,
    ffmpeg,
    number_of,
    numbered,
    numbers,
    variable,
)
from tests.shared import shared_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def video(folder: Path) -> VideoFrames:
    """60 numbered pictures at 25 per second, key pictures at every 12th, B-frames."""
    return open_video(encode(folder / "constant.mp4", PICTURES))


def test_constant_rate(video: VideoFrames) -> None:
    assert len(video) == 60
    assert video.size == (48, 80)
    assert video.frame_rate == 25
    assert video.start_time == 0
    assert numbers(video) == list(range(60))
    with av.open(video.name) as container:
        types = {PictureType(picture.pict_type).name for picture in container.decode(video=0)}
    assert types == {"I", "P", "B"}


def test_frames_are_what_pyav_decodes(video: VideoFrames) -> None:
    with av.open(video.name) as container:
        expected = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
    for frame, reference in zip(video.read(range(60)), expected, strict=True):
        assert frame.dtype == np.uint8
        assert frame.flags.c_contiguous
        np.testing.assert_array_equal(frame, reference)


def test_any_order(video: VideoFrames) -> None:
    shuffled = np.random.default_rng(0).permutation(60).tolist()
    for order in (range(59, -1, -1), shuffled, range(0, 60, 7), [5, 5, 4, 59, 0, 0, 58], []):
        assert numbers(video, order) == list(order)


def test_two_readers_at_once(video: VideoFrames) -> None:
    pairs = zip(video.read(range(60)), video.read(range(59, -1, -1)), strict=True)
    assert [(number_of(a), number_of(b)) for a, b in pairs] == [(k, 59 - k) for k in range(60)]


def test_pickle(video: VideoFrames) -> None:
    copy = pickle.loads(pickle.dumps(video))
    assert copy == video
    assert numbers(copy, [40, 3]) == [40, 3]


@pytest.mark.parametrize("index", [-1, 60])
def test_index_outside(video: VideoFrames, index: int) -> None:
    frames = video.read([0, index])
    next(frames)
    with pytest.raises(IndexError, match=rf"no frame {index}: its frames are 0 to 59"):
        next(frames)


def test_the_file_is_closed(video: VideoFrames, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    close = decoding.Cursor.close

    def closing(self: decoding.Cursor) -> None:
        closed.append(self)
        close(self)

    monkeypatch.setattr(decoding.Cursor, "close", closing)
    frames = video.read(range(60))
    next(frames)
    frames.close()  # type: ignore[attr-defined]  # every generator has it
    with pytest.raises(IndexError):
        numbers(video, [99])
    assert len(closed) == 2


@pytest.mark.parametrize(
    ("order", "group", "decoded"),
    [
        (range(60), "12", (60, 60)),
        (range(0, 60, 5), "12", (56, 56)),  # small gaps are decoded through
        ([0, 50], "12", (4, 4)),  # 0, then from the key picture 48 on
        (range(59, -1, -1), "12", (60, 60)),  # each group once
        (range(59, -1, -1), "60", (60 + 28, 60 + 28)),  # 60, of which 32 are kept, then the first 28 again
    ],
)
def test_work_is_bounded(folder, monkeypatch, order, group, decoded) -> None:
    source = open_video(encode(folder / "work.mp4", PICTURES, options=X264 | {"g": group}))
    count = 0
    decode = decoding.Cursor._decode

    def counting(self, start):
        nonlocal count
        for item in decode(self, start):
            count += 1
            yield item
            assert len(self._recent) <= 32

    monkeypatch.setattr(decoding.Cursor, "_decode", counting)
    assert numbers(source, order) == list(order)
    assert decoded[0] <= count <= decoded[1]


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(10), Fraction(24000, 1001)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])  # mkv rounds times to milliseconds
def test_frame_rates(folder: Path, rate: Fraction, suffix: str) -> None:
    source = open_video(encode(folder / f"rate{suffix}", PICTURES, rate=rate))
    assert source.frame_rate == rate
    assert numbers(source) == list(range(60))


def test_variable_rate_is_what_the_app_shows(folder: Path) -> None:
    source = open_video(variable(folder / "variable.mp4"))
    assert source.frame_rate == Fraction(3750, 157)
    assert numbers(source) == VARIABLE_SHOWN
    assert numbers(source, range(29, -1, -1)) == VARIABLE_SHOWN[::-1]
    assert numbers(source, [17, 3, 16]) == [VARIABLE_SHOWN[17], VARIABLE_SHOWN[3], VARIABLE_SHOWN[16]]


@pytest.mark.parametrize(("jitter", "shown"), [(9, [0, 1, 2, 3]), (30, [0, 0, 2, 3])])
def test_the_app_looks_a_hundredth_of_a_frame_late(folder: Path, jitter: int, shown: list[int]) -> None:
    stamps = [0, 1000 + jitter, 2000, 3000 + jitter]  # frames of about 1000 ticks
    path = encode(folder / "jitter.mp4", PICTURES[:4], stamps=stamps, tick=Fraction(1, 10000), rate=10)
    source = open_video(path)
    assert 10000 / source.frame_rate == Fraction(4000 + jitter, 4)
    assert numbers(source) == shown


def test_a_pause_repeats_the_picture(folder: Path) -> None:
    stamps = [*range(10), *range(30, 40)]  # one second of rest after picture 9: 20 pictures in 40 ticks
    source = open_video(encode(folder / "pause.mp4", PICTURES[:20], stamps=stamps))
    assert source.frame_rate == Fraction(25, 2)
    assert numbers(source) == [0, 2, 4, 6, 8, *[9] * 10, 10, 12, 14, 16, 18]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("write", [variable, lambda path: encode(path, PICTURES)], ids=["variable", "constant"])
def test_counts_and_rates_are_those_of_fiftyone(folder: Path, suffix: str, write) -> None:
    source = open_video(write(folder / f"counts{suffix}"))
    info = VideoStreamInfo.build_for(source.name)
    assert float(source.frame_rate) == pytest.approx(info.frame_rate, rel=1e-9)
    assert len(source) == info.total_frame_count


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_start_offset(folder: Path, suffix: str) -> None:
    source = open_video(encode(folder / f"late{suffix}", PICTURES, stamps=range(20, 80)))
    assert numbers(source) == list(range(60))
    assert numbers(source, [59, 31, 30, 0]) == [59, 31, 30, 0]
    assert source.start_time >= 0.8  # MPEG-TS adds a delay of its own


def test_no_edit_list(folder: Path) -> None:
    path = encode(folder / "delayed.mp4", PICTURES, container_options={"use_editlist": "0"})
    source = open_video(path)
    assert source.start_time == pytest.approx(0.08)  # the encoder's delay for B-frames
    assert numbers(source) == list(range(60))


def test_edit_list_hides_pictures(folder: Path, video: VideoFrames) -> None:
    ffmpeg("-ss", "0.6", "-i", video.path, "-c", "copy", folder / "trimmed.mp4")  # 15, in the midst of a group
    source = open_video(folder / "trimmed.mp4")
    assert numbers(source) == list(range(15, 60))
    assert numbers(source, [44, 0, 20]) == [59, 15, 35]


def test_fragmented(folder: Path) -> None:
    options = {"movflags": "frag_keyframe+empty_moov"}
    source = open_video(encode(folder / "fragmented.mp4", PICTURES, container_options=options))
    assert numbers(source) == list(range(60))
    assert numbers(source, [40, 13, 12, 11]) == [40, 13, 12, 11]


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_open_groups(folder: Path, codec: str) -> None:
    parameters = "open-gop=1:keyint=8:min-keyint=8:bframes=3:b-adapt=0:scenecut=0"
    options = {codec.replace("lib", "") + "-params": parameters + ":log-level=none"}
    source = open_video(encode(folder / "open.mp4", PICTURES, codec=codec, options=options))
    assert numbers(source) == list(range(60))
    shuffled = np.random.default_rng(1).permutation(60).tolist()
    assert numbers(source, shuffled) == shuffled


def test_a_cut_stream_starts_with_what_can_be_decoded(folder: Path) -> None:
    """Leading pictures of an open group whose references were cut away: the first whole picture stands in."""
    parameters = {"x265-params": "keyint=8:min-keyint=8:bframes=3:b-adapt=0:scenecut=0:open-gop=1:log-level=none"}
    whole = encode(folder / "whole.mp4", PICTURES, codec="libx265", options=parameters)
    with av.open(str(whole)) as source, av.open(str(folder / "cut.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(source.streams.video[0]) if packet.size]
        keys = [position for position, packet in enumerate(packets) if packet.is_keyframe]
        for packet in packets[keys[1] :]:
            packet.stream = stream
            target.mux(packet)
    shown = numbers(open_video(folder / "cut.mkv"))
    key = packets[keys[1]]
    assert key.pts is not None
    leading = 60 - round(key.pts * key.time_base * 25)
    assert shown[-leading:] == list(range(60 - leading, 60))
    assert set(shown[:-leading]) <= {60 - leading}
    assert len(shown) > leading


def test_missing_time_stamps(folder: Path) -> None:
    source = open_video(encode(folder / "raw.h264", PICTURES))
    with av.open(source.name) as container:
        assert {packet.pts for packet in container.demux(video=0)} == {None}
    assert numbers(source) == list(range(60))
    assert numbers(source, [50, 3, 2, 40]) == [50, 3, 2, 40]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_that_of_ffmpeg(folder: Path, rotation: int) -> None:
    path = encode(folder / f"turned{rotation}.mp4", PICTURES[:3], rotation=rotation)
    ffmpeg("-i", path, "-frames:v", "1", folder / "turned.png")
    expected = np.array(Image.open(folder / "turned.png").convert("RGB")).astype(int)
    source = open_video(path)
    assert source.size == expected.shape[:2] == ((48, 80) if rotation == 180 else (80, 48))
    frame = next(source.read([0]))
    assert np.abs(frame - expected).mean() < 4  # two versions of FFmpeg round colours differently
    assert np.abs(frame[::-1] - expected).mean() > 40
    assert np.abs(frame[:, ::-1] - expected).mean() > 40


def test_one_frame(folder: Path) -> None:
    source = open_video(encode(folder / "one.mp4", [numbered(5)]))
    assert numbers(source) == [5]


def test_odd_size(folder: Path) -> None:
    frames = [numbered(number, 81, 49) for number in range(5)]
    source = open_video(encode(folder / "odd.mp4", frames, pix_fmt="yuv444p"))
    assert source.size == (49, 81)
    assert numbers(source) == list(range(5))


@pytest.mark.parametrize(
    ("name", "count", "rate"),
    [
        ("dog.mp4", 289, Fraction(30000, 1001)),
        ("bedroom.mp4", 200, Fraction(30)),
        ("juggle.mp4", 247, Fraction(24)),
    ],
)
def test_real_clips(name: str, count: int, rate: Fraction) -> None:
    source = open_video(shared_path("video", name))
    assert (len(source), source.frame_rate) == (count, rate)
    wanted = [60, 59, 58, 31, 30, 29, 1, 0]
    sequential = {index: frame for index, frame in enumerate(source.read(range(61))) if index in wanted}
    for index, frame in zip(wanted, source.read(wanted), strict=True):
        np.testing.assert_array_equal(frame, sequential[index])
    assert next(source.read([count - 1])).shape == (*source.size, 3)
