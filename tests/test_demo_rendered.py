import json

import numpy as np
import pytest

from fiftyone_refvos.demo import DemoConfig, generate, rendered, video_seed
from fiftyone_refvos.demo.rendered import LOOK, MAX_PER_KIND, SIZES, RenderedVideos, mirrored_text, render


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    render(folder, 2, side=32, first=1)
    return folder


def original(number):
    height, width = SIZES[number]
    return generate(
        video_seed("train", 1 + number), DemoConfig(height=height, width=width, max_per_kind=MAX_PER_KIND)
    )


def test_rendered_videos_say_and_mean_what_the_generated_ones_do(folder):
    video = RenderedVideos(folder).video(2)
    source = original(1)
    assert video.name == str(source.seed)
    assert [(e.id, e.text, e.object_ids, e.kind) for e in video.expressions] == [
        (e.id, e.text, e.object_ids, e.kind) for e in source.expressions
    ]
    assert (len(video), video.size, video.frame_name(7)) == (24, (32, 32), "00007")

    expression = next(e for e in source.expressions if e.kind == "multi")
    target = video.targets([expression], 5)[0]
    height, width = source.size
    rows, columns = (
        ((np.arange(32) + 0.5) * height / 32).astype(int),
        ((np.arange(32) + 0.5) * width / 32).astype(int),
    )
    exact = source.targets(expression, 5).any(axis=0)[rows][:, columns]
    assert target.dtype == np.uint8
    assert (target == exact).all()
    assert target.any()


def test_frames_are_the_generated_ones_squashed(folder):
    frame = next(RenderedVideos(folder).video(0).read([3]))
    large = original(0).frame(3).astype(float)
    height, width = large.shape[:2]
    means = np.stack(
        [
            [
                large[r * height // 32 : (r + 1) * height // 32, c * width // 32 : (c + 1) * width // 32].mean((0, 1))
                for c in range(32)
            ]
            for r in range(32)
        ]
    )
    assert np.abs(frame - means).mean() < 4


def test_an_expression_without_target_means_no_pixel(folder):
    video = RenderedVideos(folder).video(0)
    nothing = [e for e in video.expressions if e.kind == "no_target"]
    assert nothing
    assert not video.targets(nothing, 0).any()


def test_in_the_mirror_left_is_right(folder):
    videos = RenderedVideos(folder)
    video, mirrored = videos.video(0), videos.video(1)
    assert (next(mirrored.read([4])) == next(video.read([4]))[:, ::-1]).all()
    assert (mirrored.targets(mirrored.expressions, 4) == video.targets(video.expressions, 4)[..., ::-1]).all()
    assert mirrored.name != video.name
    assert (
        mirrored_text("the star left of the cross that moves right") == "the star right of the cross that moves left"
    )


def test_static_videos_leave_out_what_one_frame_cannot_tell(folder):
    texts = RenderedVideos(folder, keep=lambda expression: expression.static).video(0).expressions
    everything = RenderedVideos(folder).video(0).expressions
    assert 0 < len(texts) < len(everything)
    assert {e.topic for e in texts} <= {LOOK, "left of", "right of", "above", "below"}
    assert {e.kind for e in everything} - {e.kind for e in texts} == {"motion"}


def test_rendering_goes_on_where_it_was_stopped(folder, tmp_path):
    render(tmp_path, 2, side=32, first=1)
    described = json.loads((tmp_path / "videos.json").read_text())
    pixels = np.load(tmp_path / "pixels.npy", mmap_mode="r+")
    pixels[0] = 7  # shows that the first video is not rendered again
    pixels[1] = 0
    pixels.flush()
    (tmp_path / "videos.json").write_text(json.dumps(described | {"videos": described["videos"][:1]}))
    render(tmp_path, 2, side=32, first=1)
    again = RenderedVideos(tmp_path)
    assert (again.video(0).pixels == 7).all()
    assert (again.video(2).pixels == RenderedVideos(folder).video(2).pixels).all()


def test_processes_render_the_same_videos(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(rendered, "_FEW", 0)
    render(tmp_path, 2, side=32, first=1)
    for name in ("pixels.npy", "labels.npy"):
        assert (np.load(tmp_path / name) == np.load(folder / name)).all()
    assert (tmp_path / "videos.json").read_text() == (folder / "videos.json").read_text()


def test_other_videos_are_never_rendered_into_a_folder(folder):
    with pytest.raises(ValueError, match="holds other videos"):
        render(folder, 3, side=32, first=1)
