"""The demo world: the same everywhere, exact, varied, and nothing said about it that is not so."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import FrozenInstanceError, replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from fiftyone_refvos.demo import KINDS, SPLITS, DemoConfig, DemoVideo, generate, video_seed
from fiftyone_refvos.demo.facts import Facts
from fiftyone_refvos.demo.shapes import inside, reach, signed_distance
from fiftyone_refvos.demo.world import COLORS, MOTIONS, RGB, SHAPES, TEXTURES
from tests.demo_oracle import meant

SMALL = DemoConfig(height=48, width=86, max_per_kind=3)


@pytest.fixture(scope="module")
def videos() -> list[DemoVideo]:
    """200 small videos; frames are drawn only where a test asks for them."""
    return [generate(seed, SMALL) for seed in range(200)]


def fingerprint(video: DemoVideo) -> str:
    digest = hashlib.sha256(repr((video.world, video.expressions)).encode())
    for t in range(len(video)):
        digest.update(np.packbits(video.masks(t)).tobytes())
    return digest.hexdigest()


def misunderstood(videos: Iterable[DemoVideo]) -> list[tuple[int, str, tuple[str, ...], tuple[str, ...]]]:
    """Seed, text, what it is said to mean, and what it does mean."""
    return [
        (video.seed, expression.text, expression.object_ids, found)
        for video in videos
        for expression in video.expressions
        if (found := meant(video, expression.text)) != expression.object_ids
    ]


class TestSeeds:
    def test_the_same_seed_gives_the_same_video(self):
        first, second = generate(7, SMALL), generate(7, SMALL)
        assert first == second
        assert all(np.array_equal(a, b) for a, b in zip(first.frames(), second.frames(), strict=True))

    def test_another_seed_gives_another_video(self, videos):
        assert len(set(videos)) == len(videos)

    def test_another_process_gives_the_same_video(self):
        code = (
            "from fiftyone_refvos.demo import DemoConfig, generate; from tests.test_demo import fingerprint;"
            "generate(3); print(fingerprint(generate(7, DemoConfig(height=48, width=86, max_per_kind=3))))"
        )
        root = Path(__file__).resolve().parents[1]
        output = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
        assert output.stdout.strip() == fingerprint(generate(7, SMALL))

    def test_a_seed_gives_what_it_always_gave(self):
        """Raise `dataset.VERSION` when this changes: video files are known by it."""
        assert fingerprint(generate(7, SMALL))[:16] == "76bc29679cebbcbb"

    def test_the_resolution_changes_neither_the_world_nor_what_is_said(self):
        small, large = (
            generate(5, DemoConfig(height=60, width=108)),
            generate(5, DemoConfig(height=240, width=432)),
        )
        assert small.world.objects == large.world.objects
        assert small.expressions == large.expressions

    def test_splits_share_no_seed(self):
        seeds = [video_seed(split, index) for split, index in product(SPLITS, range(1000))]
        assert len(set(seeds)) == len(seeds)

    @pytest.mark.parametrize(("split", "index"), [("val", 0), ("test", -1)])
    def test_wrong_splits_and_indices_are_refused(self, split, index):
        with pytest.raises(ValueError, match=r"val|-1"):
            video_seed(split, index)


class TestConfig:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"height": 8}, "16 pixels"),
            ({"width": 1000}, "3 to 1"),
            ({"num_frames": 4}, "num_frames=4"),
            ({"frame_rate": 0}, "frame_rate"),
            ({"min_objects": 5, "max_objects": 4}, "5, 4"),
            ({"camera": 0.3}, "0.3"),
        ],
    )
    def test_settings_without_sense_are_refused(self, settings, message):
        with pytest.raises(ValueError, match=message):
            DemoConfig(**settings)

    def test_it_is_frozen(self):
        with pytest.raises(FrozenInstanceError):
            DemoConfig().height = 1  # type: ignore[misc]

    @pytest.mark.parametrize(
        "config",
        [
            DemoConfig(height=64, width=64, min_objects=6),
            DemoConfig(height=96, width=32, num_frames=8),
            DemoConfig(height=36, width=64, num_frames=60, camera=0.0),
        ],
        ids=["square", "narrow", "long"],
    )
    def test_any_size_and_length(self, config):
        for seed in range(6):
            video = generate(seed, config)
            assert config.min_objects <= len(video.objects) <= config.max_objects
            assert video.frame(len(video) - 1).shape == (config.height, config.width, 3)
            assert len({expression.kind for expression in video.expressions}) >= 4


class TestShapes:
    AXIS = np.linspace(-1.5, 1.5, 601)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_area_one_around_the_centre(self, shape):
        mask = inside(shape, 1.0, 0.0, self.AXIS[None, :], self.AXIS[:, None])
        assert mask.sum() * 0.005**2 == pytest.approx(1, abs=0.01)
        assert np.abs([self.AXIS[k].mean() for k in np.nonzero(mask)]).max() < 0.01

    @pytest.mark.parametrize("shape", SHAPES)
    def test_distance_is_negative_inside_and_reach_bounds_the_shape(self, shape):
        x, y = self.AXIS[None, :], self.AXIS[:, None]
        mask, distance = inside(shape, 0.8, 0.2, x, y), signed_distance(shape, 0.8, 0.2, x, y)
        clear = np.abs(distance) > 1e-9
        assert np.array_equal(mask[clear], (distance < 0)[clear])
        assert np.sqrt(x**2 + y**2)[mask].max() <= reach(shape, 0.8)


class TestFrames:
    def test_masks_are_exact(self, videos):
        """A pixel belongs to the front object whose shape holds at its centre; point by point here."""
        video = videos[3]
        unit = video.config.short_side
        for t in (0, 11, 23):
            masks = video.masks(t)
            for row, column in product(range(0, 48, 3), range(0, 86, 3)):
                owner = None
                for index, thing in enumerate(video.objects):
                    offset = np.array([column + 0.5, row + 0.5]) / unit + video.world.camera[t] - thing.path[t]
                    x, y = (np.array([value]) * unit for value in offset)
                    if inside(thing.shape, thing.side * unit, thing.angle, x, y)[0]:
                        owner = index
                assert np.flatnonzero(masks[:, row, column]).tolist() == ([] if owner is None else [owner])

    def test_masks_are_disjoint(self, videos):
        for video in videos[:20]:
            for t in range(0, len(video), 5):
                masks = video.masks(t)
                assert masks.dtype == bool
                assert masks.shape == (len(video.objects), *video.size)
                assert masks.sum(axis=0).max() <= 1

    def test_pictures_show_the_colours_where_the_masks_are(self, videos):
        """Within a shape's rim, one pixel from its edge, its colour is plain."""
        video = generate(4)
        for t in (0, 12):
            frame, masks = video.frame(t).astype(int), video.masks(t)
            for thing, mask in zip(video.objects, masks, strict=True):
                plain = np.abs(frame - np.array(RGB[thing.color])).max(axis=2) <= 1
                assert (plain & mask).sum() > 0.5 * mask.sum() or mask.mean() < 0.005

    def test_random_access_equals_reading_in_order(self):
        video = generate(11, SMALL)
        in_order = list(video.frames())
        assert len(in_order) == len(video) == SMALL.num_frames
        for t in (20, 3, 23, 0):
            fresh = generate(11, SMALL)
            assert np.array_equal(fresh.frame(t), in_order[t])
            assert np.array_equal(fresh.masks(t), video.masks(t))
        assert in_order[0].dtype == np.uint8

    @pytest.mark.parametrize("t", [-1, 24])
    def test_frames_that_do_not_exist_are_refused(self, videos, t):
        with pytest.raises(IndexError, match="frames 0 to 23"):
            videos[0].frame(t)

    def test_targets_are_the_masks_of_the_objects_meant(self, videos):
        video = videos[0]
        expression = next(e for e in video.expressions if e.kind == "multi")
        everything = video.masks(5)
        expected = [everything[int(object_id)] for object_id in expression.object_ids]
        assert np.array_equal(video.targets(expression, 5), expected)
        nothing = next(e for e in video.expressions if e.kind == "no_target")
        assert video.targets(nothing, 5).shape == (0, *video.size)

    def test_backgrounds_are_textured_and_move_with_the_camera(self):
        for seed in range(6):
            video = generate(seed)
            free = ~video.masks(0).any(axis=0)
            assert video.frame(0)[free].std(axis=0).mean() > 3
            assert len(set(video.world.camera)) == len(video)


class TestContent:
    def test_every_object_is_large_enough_once(self, videos):
        for video in videos:
            largest = np.max([video.masks(t).mean(axis=(1, 2)) for t in range(0, len(video), 2)], axis=0)
            assert largest.min() >= 0.015

    def test_large_objects_are_much_larger_than_small_ones(self, videos):
        sides = {size: [o.side for v in videos for o in v.objects if o.size == size] for size in ("small", "large")}
        assert min(sides["large"]) > 1.5 * max(sides["small"])

    def test_colours_are_far_apart(self):
        for first, second in combinations(COLORS, 2):
            assert np.abs(np.subtract(RGB[first], RGB[second])).max() >= 85

    def test_everything_occurs(self, videos):
        objects = [thing for video in videos for thing in video.objects]
        for name, values in (("shape", SHAPES), ("color", COLORS), ("motion", MOTIONS)):
            assert min(Counter(getattr(thing, name) for thing in objects)[value] for value in values) >= 20
        assert {video.world.background.texture for video in videos} == set(TEXTURES)

    def test_objects_occlude_each_other_leave_and_return(self, videos):
        hidden = sum(_is_occluded(video) for video in videos[:40])
        assert hidden >= 20
        assert sum(thing.motion == "returns" for video in videos for thing in video.objects) >= 20


def _is_occluded(video: DemoVideo) -> bool:
    """Whether some object is at some time a fifth smaller than the same object alone."""
    for t in range(0, len(video), 4):
        masks = video.masks(t)
        for index, thing in enumerate(video.objects):
            whole = DemoVideo(0, replace(video.world, objects=(thing,)), ()).masks(t).sum()
            if whole and masks[index].sum() < 0.8 * whole:
                return True
    return False


class TestExpressions:
    def test_every_expression_is_true_and_complete(self, videos):
        """An independent reading of the text finds exactly the objects that are meant."""
        assert not misunderstood(videos)

    @pytest.mark.parametrize(
        "config",
        [DemoConfig(height=64, width=64), DemoConfig(height=86, width=48, num_frames=8)],
        ids=["square", "short portrait"],
    )
    def test_so_it_is_at_other_sizes_and_lengths(self, config):
        assert not misunderstood(generate(seed, config) for seed in range(1000, 1030))

    def test_the_recorded_meaning_holds_for_exactly_the_objects_meant(self, videos):
        for video in videos[:50]:
            facts = Facts.of(video.world)
            for expression in video.expressions:
                holds = expression.meaning.holds(video.world, facts)
                assert None not in holds
                assert (
                    tuple(o.id for o, true in zip(video.objects, holds, strict=True) if true) == expression.object_ids
                )

    def test_kinds_say_how_many_objects_are_meant(self, videos):
        counts = {"no_target": range(0, 1), "multi": range(2, 7)}
        for video in videos:
            for expression in video.expressions:
                assert len(expression.object_ids) in counts.get(expression.kind, range(1, 2))

    def test_ids_count_and_texts_differ(self, videos):
        for video in videos:
            assert [e.id for e in video.expressions] == [str(k) for k in range(len(video.expressions))]
            texts = [e.text for e in video.expressions]
            assert len(set(texts)) == len(texts)

    def test_all_kinds_are_frequent(self, videos):
        having = Counter(kind for video in videos for kind in {e.kind for e in video.expressions})
        assert set(having) == set(KINDS)
        assert min(having.values()) >= 0.6 * len(videos)

    def test_no_kind_is_used_too_often(self, videos):
        for video in videos:
            assert max(Counter(e.kind for e in video.expressions).values()) <= SMALL.max_per_kind

    def test_words_do_not_give_a_missing_target_away(self, videos):
        """What is said of nothing in one video is said of something in another, and the other way round."""

        def clauses(missing: bool) -> set[str]:
            return {
                e.meaning.clause.name
                for video in videos
                for e in video.expressions
                if e.meaning.clause and (e.kind == "no_target") == missing
            }

        assert clauses(True) == clauses(False)


def test_importing_the_demo_world_does_not_import_fiftyone():
    code = "import sys, fiftyone_refvos.demo; sys.exit('fiftyone' in sys.modules)"
    root = Path(__file__).resolve().parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
