"""Pixel-wise voting, against the plain way: decode, add up, compare, pixel by pixel."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from fiftyone_refvos.ensemble import CHUNK_BYTES, vote
from fiftyone_refvos.masklet import RLE, BoolArray, Expression, Masklet, decode
from tests.fields_data import KINDS, SIZE, masklet, random_mask


def dense(member: Masklet) -> BoolArray:
    """The union of the objects in every frame, `(T, H, W)`."""
    return np.stack([member.union(frame) for frame in member.frames])


def members_of(*masks: BoolArray) -> dict[str, Masklet]:
    """Members a, b, … of one object each, from `(T, H, W)` masks."""
    return {name: masklet(each[:, None]) for name, each in zip("abcdefgh", masks, strict=False)}


def random_members(seed: int, num: int, *, num_frames: int = 7, size: tuple[int, int] = SIZE) -> dict[str, Masklet]:
    """Members with one to three objects of all kinds, full frames and empty ones, too."""
    rng = np.random.default_rng(seed)
    members = {}
    for n in range(num):
        masks = [
            [random_mask(rng, size, str(rng.choice(KINDS))) for _ in range(1 + (seed + n) % 3)]
            for _ in range(num_frames)
        ]
        members[f"m{n}"] = masklet(np.array(masks))
    return members


def row(text: str) -> BoolArray:
    """One frame of one row of pixels, e.g. "0110"."""
    return np.array([[[pixel == "1" for pixel in text]]])


def voted_row(*texts: str, **options) -> str:
    voted = vote(members_of(*(row(text) for text in texts)), **options)
    return "".join("01"[int(pixel)] for pixel in dense(voted.masklet)[0, 0])


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("seed", range(6))
def test_a_vote_is_that_of_the_pixels(seed, num):
    members = random_members(seed, num)
    stack = np.stack([dense(member) for member in members.values()])
    counts = stack.sum(axis=0)
    voted = vote(members)
    assert np.array_equal(dense(voted.masklet), counts > num / 2)
    assert np.array_equal(dense(vote(members, rule="report").masklet), counts > (num + 1) / 2)
    weights = {name: float(weight) for name, weight in zip(members, range(1, num + 1), strict=True)}
    weighted = np.tensordot([*weights.values()], stack.astype(float), axes=1)
    inside = weighted > sum(weights.values()) / 2
    assert np.array_equal(dense(vote(members, weights=weights).masklet), inside)
    shares = [
        weighted[t][inside[t]].mean() / sum(weights.values()) if inside[t].any() else 0.0 for t in range(len(inside))
    ]
    assert vote(members, weights=weights).masklet.scores[:, 0] == pytest.approx(shares)


@pytest.mark.parametrize("seed", range(4))
def test_agreement_is_the_iou_of_pairs_pooled_over_them(seed):
    members = random_members(seed, 4)
    stack = np.stack([dense(member) for member in members.values()])
    expected = []
    for t in range(stack.shape[1]):
        pairs = [*combinations(stack[:, t], 2)]
        both, one = (sum(int(op(a, b).sum()) for a, b in pairs) for op in (np.logical_and, np.logical_or))
        expected.append(both / one if one else 1.0)
    voted = vote(members)
    assert voted.agreement == pytest.approx(expected)
    seen = stack.any(axis=(0, 2, 3))
    assert voted.agreed == pytest.approx(np.mean(np.array(expected)[seen]))
    assert vote(members, weights=dict.fromkeys(members, 0.5) | {"m0": 3}).agreement == pytest.approx(expected)


def test_members_that_see_nothing_agree():
    nothing = np.zeros((3, *SIZE), dtype=bool)
    voted = vote(members_of(nothing, nothing, nothing))
    assert (voted.agreement.tolist(), voted.agreed) == ([1.0, 1.0, 1.0], 1.0)
    assert voted.masklet.no_target
    assert not voted.masklet.found.any()
    seen = nothing.copy()
    seen[1, 2, 3] = True
    voted = vote(members_of(nothing, seen, nothing))
    # Frames in which nobody sees anything say nothing of how much the members agree on the expression.
    assert (voted.agreement.tolist(), voted.agreed) == ([1.0, 0.0, 1.0], 0.0)
    assert vote(members_of(seen)).agreed == 1.0


def test_a_tie_is_background():
    assert voted_row("1100", "1010") == "1000"
    assert voted_row("1100", "1010", "1110", "1001") == "1000"  # 4, 2, 2 and 1 of 4
    assert voted_row("1110", "1101", "1011", "0000", "0000") == "1000"  # 3 of 5 and thrice 2


def test_the_rule_of_the_report_needs_one_vote_more_where_the_number_is_odd():
    assert voted_row("110", "101", "100", rule="report") == "100"  # 3, 1, 1 of 3
    assert voted_row("110", "110", "100", rule="report") == "100"  # 2 of 3 are not more than 2
    assert voted_row("110", "110", "100") == "110"
    assert voted_row("111", "111", "111", "110", "000", rule="report") == "110"  # 4 of 5 are, 3 are not
    assert voted_row("110", "110", "110", "100", rule="report") == "110"  # 3 of 4 are, as by majority
    assert voted_row("1", rule="report") == "0"  # one vote is never more than one


def test_sums_of_weights_that_rounding_touches_are_ties():
    weights = {"a": 0.1, "b": 0.2, "c": 0.3}  # 0.1 + 0.2 > 0.3 in floating point
    assert voted_row("11", "11", "10", weights=weights) == "10"
    assert voted_row("00", "00", "11", weights=weights) == "00"
    assert voted_row("01", "01", "10", weights=weights | {"c": 0.2999}) == "01"
    assert voted_row("10", "01", "01", weights={"a": 2, "b": 1, "c": 0}) == "10"


def test_runs_end_with_their_frame():
    full, corner = np.ones((2, *SIZE), dtype=bool), np.zeros((2, *SIZE), dtype=bool)
    corner[:, [0, -1], [0, -1]] = True
    voted = vote(members_of(full, full, corner))
    assert dense(voted.masklet).all()
    voted = vote(members_of(full, corner, corner))
    assert np.array_equal(dense(voted.masklet), corner)


def test_objects_of_a_member_are_united_before_they_vote():
    two = masklet(np.array([[[[True, True, False, False]], [[False, True, True, False]]]]))
    voted = vote({"a": two, **{k: v for k, v in members_of(row("0000"), row("0110")).items() if k == "b"}, "c": two})
    assert dense(voted.masklet)[0, 0].tolist() == [True, True, True, False]
    assert voted.masklet.num_objects == 1


def test_a_member_without_objects_votes_for_background():
    nothing = Masklet(
        Expression("0", "the dog"), (1, 4), (0,), ((),), np.zeros((1, 0), np.float32), np.zeros(1, dtype=bool)
    )
    one, other = members_of(row("1100"), row("0110")).values()
    voted = vote({"nothing": nothing, "one": one, "other": other})
    assert dense(voted.masklet)[0, 0].tolist() == [False, True, False, False]
    assert vote({"nothing": nothing, "again": nothing}).masklet.no_target


def test_masks_of_many_bytes_are_voted_on_in_chunks():
    rng = np.random.default_rng(3)
    masks = [rng.random((6, 300, 400)) < share for share in (0.4, 0.5, 0.6)]
    members = members_of(*masks)
    held = sum(len(rle["counts"]) for member in members.values() for rles in member.masks for rle in rles)
    assert held > 3 * CHUNK_BYTES
    voted = vote(members)
    assert np.array_equal(dense(voted.masklet), np.sum(masks, axis=0) >= 2)
    assert voted.masklet.frames == (0, 1, 2, 3, 4, 5)


def test_no_stack_of_masks_is_held():
    size, num_frames = (480, 854), 300
    disk = np.hypot(*np.ogrid[-240:240, -427:427]) < 150
    members = {}
    for name, member in members_of(*[np.roll(disk, n, axis=1)[None] for n in range(5)]).items():
        members[name] = Masklet(
            member.expression,
            size,
            tuple(range(num_frames)),
            member.masks * num_frames,
            np.ones((num_frames, 1), np.float32),
            np.ones(num_frames, dtype=bool),
        )
    tracemalloc.start()
    try:
        voted = vote(members)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert voted.masklet.union(299).sum() == disk.sum()
    assert peak < 20e6  # however many frames: the floats of all would be 2.5 GB


def test_the_masks_are_ordinary_rles():
    voted = vote(random_members(1, 3))
    for (rle,) in voted.masklet.masks:
        assert rle["size"] == list(SIZE)
        assert decode([rle], SIZE).shape == (1, *SIZE)
        assert isinstance(rle["counts"], bytes)


def test_members_must_be_of_one_expression_size_and_time():
    one, other = random_members(0, 2).values()
    with pytest.raises(ValueError, match="expression '0': 'a' is of 'the dog', 'b' is of 'the cat'"):
        vote({"a": one, "b": replace(other, expression=Expression("0", "the cat"))})
    with pytest.raises(ValueError, match="masks of 'a' are 20 x 30, those of 'b' 10 x 30"):
        vote({"a": one, "b": masklet(np.zeros((7, 1, 10, 30), dtype=bool))})
    with pytest.raises(ValueError, match=r"'a' covers 7 frames, 'b' 6; only one of them covers frame 6 \(from 0\)"):
        vote({"a": one, "b": masklet(np.zeros((6, 1, *SIZE), dtype=bool))})
    with pytest.raises(ValueError, match="nobody votes"):
        vote({})


@pytest.mark.parametrize(
    "broken",
    [
        {"size": [20, 30], "counts": b""},
        {"size": [30, 20], "counts": b"hb0"},
        {"size": [20, 30], "counts": b"5"},
        {"size": [20, 30], "counts": b"hb0O"},  # 600, -1
    ],
)
def test_a_broken_rle_is_named(broken: RLE):
    members = members_of(*np.zeros((2, 4, *SIZE), dtype=bool))
    masks = [*members["b"].masks]
    assert masks[2][0]["counts"] == b"hb0"
    masks[2] = (broken,)
    members["b"] = replace(members["b"], masks=tuple(masks))
    with pytest.raises(ValueError, match=r"expression '0': 'b' has a broken RLE in frame 2 \(from 0\)"):
        vote(members)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "mean"}, "no rule 'mean' of voting, only: majority, report"),
        ({"rule": "report", "weights": {"a": 1, "b": 2}}, "knows no weights"),
        ({"weights": {"a": 1}}, "one weight per member, of \\['a', 'b'\\], but they are of \\['a'\\]"),
        ({"weights": {"a": 1, "b": -1}}, "not below 0"),
        ({"weights": {"a": 0, "b": 0}}, "one of them above"),
        ({"weights": {"a": 1, "b": float("nan")}}, "finite"),
    ],
)
def test_rules_and_weights_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        vote(members_of(row("10"), row("01")), **options)
