"""Failures of every kind, planted in small masks, are found by their name, place and cost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_refvos.failures import FailureConfig, FailureKind, classify
from fiftyone_refvos.masklet import Expression, FrameResult, Masklet

SIZE = (40, 64)
T = 10


def box(left: int, top: int, width: int = 8, height: int = 8) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


NOTHING = np.zeros(SIZE, dtype=bool)
TARGET, OTHER, SECOND, ASTRAY = box(4, 4), box(30, 4), box(50, 25), box(4, 28)
HALF_OFF = box(8, 4)  # J with TARGET 1 / 3, neither covering nor inside
LARGE = box(0, 0, 20, 20)  # covers TARGET, J 0.16
PIECE = box(4, 4, 3, 8)  # inside TARGET, J 3 / 8


def masklet(*frames, id="0", step: int = 1) -> Masklet:
    """Of one array `(H, W)` or a list of them per frame."""
    results = []
    for t, masks in enumerate(frames):
        masks = np.stack(masks if isinstance(masks, list) else [masks])
        results.append(FrameResult(t * step, id, masks, np.ones(len(masks), np.float32), bool(masks.any())))
    return Masklet.collect(results, [Expression(id, f"thing {id}")])[0]


def still(mask) -> Masklet:
    return masklet(*[mask] * T)


OTHERS = [still(SECOND), still(OTHER)]
TRUTH = still(TARGET)
LEAVES = masklet(*[TARGET] * 6, *[NOTHING] * 4)
COMES = masklet(*[NOTHING] * 4, *[TARGET] * 6)

# name: truth, predicted masks, kind, runs, severity
CASES = {
    "equal": (TRUTH, [TARGET] * T, "none", (), 0),
    "a little off": (TRUTH, [box(5, 4)] * T, "none", (), 0),
    "rightly gone": (LEAVES, [TARGET] * 6 + [NOTHING] * 4, "none", (), 0),
    "rightly nothing": (still(NOTHING), [NOTHING] * T, "none", (), 0),
    "never there": (still(NOTHING), [NOTHING] * 3 + [ASTRAY] * 2 + [NOTHING] * 5, "false positive", ((3, 4),), 0.2),
    "never there, but another": (still(NOTHING), [OTHER] * T, "false positive", ((0, 9),), 1),
    "goes on without it": (LEAVES, [TARGET] * 6 + [ASTRAY] * 4, "false positive", ((6, 9),), 0.4),
    "nothing found": (TRUTH, [NOTHING] * T, "missed object", ((0, 9),), 1),
    "background found": (TRUTH, [ASTRAY] * T, "missed object", ((0, 9),), 1),
    "now and then another": (TRUTH, [ASTRAY] * 7 + [OTHER] * 3, "missed object", ((0, 9),), 1),
    "missed while it is there": (COMES, [NOTHING] * T, "missed object", ((4, 9),), 0.6),
    "another all the time": (TRUTH, [OTHER] * T, "wrong object", ((0, 9),), 1),
    "another, if anything": (TRUTH, [OTHER] * 4 + [NOTHING] * 6, "wrong object", ((0, 9),), 1),
    "switches": (TRUTH, [TARGET] * 7 + [OTHER] * 3, "identity switch", ((7, 9),), 0.3),
    "switches back": (TRUTH, [OTHER] * 3 + [TARGET] * 7, "identity switch", ((0, 2),), 0.3),
    "switches twice": (TRUTH, [TARGET] * 2 + [OTHER] * 3 + [TARGET] * 5, "identity switch", ((2, 4),), 0.3),
    "switches when it leaves": (LEAVES, [TARGET] * 6 + [OTHER] * 4, "identity switch", ((6, 9),), 0.4),
    "starts late": (TRUTH, [NOTHING] * 2 + [TARGET] * 8, "late start", ((0, 1),), 0.2),
    "ends early": (TRUTH, [TARGET] * 6 + [NOTHING] * 4, "late loss", ((6, 9),), 0.4),
    "drifts off": (TRUTH, [TARGET] * 6 + [HALF_OFF] + [ASTRAY] * 3, "drift", ((6, 9),), (3 + 2 / 3) / T),
    "loses it for a while": (TRUTH, [TARGET] * 4 + [NOTHING] * 3 + [TARGET] * 3, "temporary loss", ((4, 6),), 0.3),
    "the longer of two": (TRUTH, [NOTHING] + [TARGET] * 6 + [NOTHING] * 3, "late loss", ((7, 9),), 0.3),
    "the first of two": (TRUTH, [NOTHING] * 2 + [TARGET] * 6 + [NOTHING] * 2, "late start", ((0, 1),), 0.2),
    "one of two": (masklet(*[[TARGET, SECOND]] * T), [TARGET] * T, "missed part", ((0, 9),), 0.5),
    "one of two, and more": (masklet(*[[TARGET, SECOND]] * T), [TARGET | OTHER] * T, "missed part", ((0, 9),), 2 / 3),
    "the small one of two": (
        masklet(*[[box(4, 4, 20, 20), SECOND]] * T), [box(4, 4, 20, 20)] * T, "missed part", ((0, 9),), 64 / 464
    ),
    "both of two": (masklet(*[[TARGET, SECOND]] * T), [TARGET | SECOND] * T, "none", (), 0),
    "one is not there": (masklet(*[[TARGET, NOTHING]] * T), [TARGET] * T, "none", (), 0),
    "too much": (TRUTH, [TARGET] * 5 + [LARGE] * 5, "over-segmentation", ((5, 9),), 0.5 * (1 - 64 / 400)),
    "with its neighbours": (TRUTH, [TARGET | OTHER | SECOND] * T, "over-segmentation", ((0, 9),), 2 / 3),
    "too little": (TRUTH, [TARGET] * 5 + [PIECE] * 5, "under-segmentation", ((5, 9),), 0.5 * 5 / 8),
    "beside": (TRUTH, [HALF_OFF] * T, "low overlap", ((0, 9),), 2 / 3),
}  # fmt: skip


@pytest.mark.parametrize(("truth", "masks", "kind", "runs", "severity"), CASES.values(), ids=CASES.keys())
def test_planted_failures_are_found(truth, masks, kind, runs, severity):
    failure = classify(masklet(*masks), truth, OTHERS)
    assert (failure.kind, failure.runs) == (kind, runs)
    assert failure.severity == pytest.approx(severity)
    assert isinstance(failure.kind, FailureKind)


def test_rough_boundaries_are_found_where_nothing_else_is_wrong():
    big = np.zeros((200, 300), dtype=bool)
    big[40:160, 40:200] = True
    rough = np.zeros_like(big)
    rough[34:166, 34:206] = True  # J 0.85, and no boundary within the radius of 3
    failure = classify(masklet(*[big] * 8, *[rough] * 2), masklet(*[big] * T))
    assert (failure.kind, failure.runs, failure.severity) == ("boundary only", ((8, 9),), pytest.approx(0.2))
    lost = classify(masklet(*[big] * 7, *[rough] * 2, ~big & False), masklet(*[big] * T))
    assert lost.kind == "late loss"


@pytest.mark.parametrize(
    ("masks", "frame"),
    [
        ([TARGET] * 7 + [OTHER] * 3, 7),
        ([OTHER] * 3 + [TARGET] * 7, 3),
        ([TARGET] * 5 + [NOTHING] * 2 + [OTHER] * 3, 7),
    ],
)
def test_an_identity_switch_knows_its_frame_and_the_other_object(masks, frame):
    failure = classify(masklet(*masks), TRUTH, OTHERS)
    assert (failure.kind, failure.switch_frame, failure.other) == ("identity switch", frame, 1)
    wrong = classify(still(SECOND), TRUTH, OTHERS)
    assert (wrong.switch_frame, wrong.other) == (None, 0)


def test_a_flicker_is_no_failure_in_a_long_video():
    truth = masklet(*[TARGET] * 40)
    assert classify(masklet(*[TARGET] * 39, NOTHING), truth).kind == "none"
    assert classify(masklet(*[TARGET] * 38, *[NOTHING] * 2), truth).kind == "late loss"
    strict = FailureConfig(min_share=0.01)
    assert classify(masklet(*[TARGET] * 39, NOTHING), truth, config=strict).kind == "late loss"


def test_frames_are_those_of_the_ground_truth():
    truth = masklet(*[TARGET] * 5, step=5)
    failure = classify(masklet(*[TARGET] * 12, *[NOTHING] * 12), truth)
    assert (failure.kind, failure.runs, failure.severity) == ("late loss", ((15, 20),), pytest.approx(0.4))


def test_other_objects_may_miss_frames():
    assert classify(still(OTHER), TRUTH, [masklet(*[OTHER] * 5, step=2)]).kind == "wrong object"
    assert classify(still(OTHER), TRUTH, [masklet(OTHER)]).kind == "missed object"


def test_a_larger_object_around_the_target_is_not_another_one():
    whole = still(LARGE)
    assert classify(whole, TRUTH, [whole]).kind == "over-segmentation"
    assert classify(TRUTH, whole, [TRUTH]).kind == "wrong object"  # only the head, which is an object itself


def test_a_missing_frame_and_another_size_are_named():
    with pytest.raises(ValueError, match="'0': 1 of 10 annotated frames have no prediction, the first is frame 9"):
        classify(masklet(*[TARGET] * 9), TRUTH)
    with pytest.raises(ValueError, match=r"the masks of 'thing 0' are \(40, 64\) .*'thing 0' are \(4, 4\)"):
        classify(masklet(*[np.ones((4, 4), dtype=bool)] * T), TRUTH)


def test_masklets_without_objects_are_empty_masks():
    def none(size):
        masks = np.zeros((0, *size), dtype=bool)
        results = [FrameResult(t, "0", masks, np.zeros(0, np.float32), False) for t in range(T)]
        return Masklet.collect(results, [Expression("0", "nobody")])[0]

    assert classify(none(SIZE), TRUTH).kind == classify(none((1, 1)), TRUTH).kind == "missed object"
    assert classify(TRUTH, none((1, 1))).kind == "false positive"
    assert classify(none(SIZE), none(SIZE)).kind == "none"


@pytest.mark.parametrize("options", [{"hit_iou": 0}, {"min_share": 1.5}, {"miss_iou": 0.6}, {"part_missed": 0.6}])
def test_thresholds_must_make_sense(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        FailureConfig(**options)


@st.composite
def videos(draw):
    """Truth, prediction and other objects: boxes and noise, some empty."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size, frames = (draw(st.integers(1, 12)), draw(st.integers(1, 70))), draw(st.integers(1, 6))

    def thing(num_objects):
        density = rng.choice([0, 0.1, 0.9, 1], (frames, num_objects, 1, 1))
        return masklet(*[list(masks) for masks in rng.random((frames, num_objects, *size)) < density])

    return [thing(draw(st.integers(1, 3))) for _ in range(draw(st.integers(2, 4)))]


@settings(max_examples=150, deadline=None)
@given(videos())
def test_any_masks_have_a_kind_and_the_truth_is_good(masklets):
    prediction, truth, *others = masklets
    failure = classify(prediction, truth, others)
    assert 0 <= failure.severity <= 1
    assert bool(failure.runs) == (failure.kind != FailureKind.NONE)
    assert all(first <= last for first, last in failure.runs)
    assert (failure.switch_frame is not None) == (failure.kind == FailureKind.IDENTITY_SWITCH)
    assert classify(truth, truth, others).kind == FailureKind.NONE


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 25), st.integers(-1, 1)), min_size=1, max_size=8))
def test_boxes_a_pixel_off_are_good(places):
    truth = masklet(*[box(left + 1, top, 16, 12) for left, top, _ in places])
    prediction = masklet(*[box(left + 1 + shift, top, 16, 12) for left, top, shift in places])
    assert classify(prediction, truth, OTHERS[:1]).kind == FailureKind.NONE
