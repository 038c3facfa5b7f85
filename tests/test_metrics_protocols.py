"""What each protocol counts, averages and refuses; the numbers themselves are those of the golden data."""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_refvos import metrics
from fiftyone_refvos.masklet import BoolArray, encode
from fiftyone_refvos.metrics import PROTOCOLS, Query, Summary, UnitScores, VideoMasks, db_statistics
from fiftyone_refvos.metrics.revos import ByKind

SIZE = (24, 40)


def box(left: int, width: int = 8, top: int = 6, height: int = 10) -> BoolArray:
    """A rectangle in a frame of SIZE."""
    mask = np.zeros(SIZE, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


A, B, NONE = box(2), box(25), np.zeros(SIZE, dtype=bool)


def video(
    objects: Mapping[str, Any],
    predictions: Mapping[str, Any],
    queries: Sequence[Query] = (),
    name: str = "dogs",
    **more: Any,
) -> VideoMasks:
    masks = [*objects.values(), *predictions.values()]
    frames = [f"{t:05d}" for t in range(len(masks[0]))]
    return VideoMasks(
        name=name, size=SIZE, frames=frames, objects=objects, predictions=predictions, queries=queries, **more
    )


def by_key(units: Sequence[UnitScores]) -> dict[str, UnitScores]:
    return {unit.key: unit for unit in units}


def test_all_protocols_are_named_and_described():
    for table in (PROTOCOLS, metrics.IMAGE_PROTOCOLS):
        for name, protocol in table.items():
            assert protocol.name == name
            assert len(protocol.description) > 60
            assert protocol.description.endswith(".")
    assert {"mevis", "revos", "ref-sav", "reasonvos", "sa-v", "davis17-unsupervised"} <= set(PROTOCOLS)


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_nothing_to_average_is_nan_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = PROTOCOLS[name].summarize([])
    assert math.isnan(summary.dataset["J"])
    assert math.isnan(summary.dataset["J&F"])


class TestMevis:
    def test_unions_all_frames_and_plain_means(self):
        masks = video(
            {"1": [A, A, A], "2": [B, None, B]},
            {"0": [A | B, A, NONE], "1": [A, A, A]},
            [Query("0", ("1", "2")), Query("1", ("1",))],
        )
        units = by_key(metrics.MEVIS.score(masks))
        assert units["dogs_0"].J.tolist() == [1.0, 1.0, 0.0]
        assert units["dogs_0"].frames == ("00000", "00001", "00002")
        assert units["dogs_0"].truth_area.tolist() == [160, 80, 160]
        summary = metrics.MEVIS.evaluate([masks])
        assert summary.units["dogs_0"] == pytest.approx({"J": 2 / 3, "F": 2 / 3, "J&F": 2 / 3})
        assert summary.dataset == pytest.approx({"J": 5 / 6, "F": 5 / 6, "J&F": 5 / 6})
        assert not summary.percent

    def test_a_video_without_predictions_is_zero_an_expression_without_one_an_error(self):
        queries = [Query("0", ("1",)), Query("1", ())]
        missing = video({"1": [A, A]}, {}, queries, name="cats")
        good = video({"1": [A, A]}, {"0": [A, A], "1": [None, None]}, queries)
        summary = metrics.MEVIS.evaluate([missing, good])
        assert summary.dataset["J"] == 0.5
        assert summary.groups["predicted videos only"]["J"] == 1.0
        assert [unit.predicted for unit in metrics.MEVIS.score(missing)] == [False, False]
        with pytest.raises(ValueError, match="dogs: no prediction for '1', there are .'0'."):
            metrics.MEVIS.score(replace(good, predictions={"0": [A, A]}))

    def test_masks_may_be_those_of_a_masklet_or_dense_arrays(self):
        rles = [tuple(encode(np.stack([A, B]))), tuple(encode(np.stack([A, NONE])))]
        dense = np.stack([np.stack([A, B]), np.stack([A, NONE])])
        masks = video({"1": rles}, {"0": dense}, [Query("0", ("1",))])
        assert metrics.MEVIS.evaluate([masks]).dataset["J&F"] == 1.0

    def test_void_is_background(self):
        void = [box(2, width=4)] * 2
        masks = video({"1": [A, A]}, {"0": [A, A]}, [Query("0", ("1",))], void=void)
        assert metrics.REF_DAVIS17_PER_EXPRESSION.score(masks)[0].truth_area.tolist() == [80, 80]


class TestBadInput:
    good = staticmethod(lambda **more: video({"1": [A, A]}, {"0": [A, A]}, [Query("0", ("1",))], **more))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"predictions": {"0": [A]}}, "dogs: prediction '0' has masks for 1 frames, 2 are annotated"),
            ({"objects": {"1": [A]}}, "dogs: object '1' has masks for 1 frames, 2 are annotated"),
            (
                {"predictions": {"0": [A, np.zeros((3, 3), bool)]}},
                "dogs, frame 00001, prediction '0': the mask is 3 x 3, the frame is 24 x 40",
            ),
            ({"predictions": {"0": [A, A * 0.5]}}, "dogs, frame 00001, prediction '0': .* float64: threshold"),
            ({"queries": [Query("0", ("7",))]}, "dogs: there is no object '7', known: .'1'."),
            ({"predictions": {"0": [A, A], "9": [A, A]}}, r"dogs: predictions for unknown expressions \['9'\]"),
            ({"queries": [Query("0", ("1",)), Query("0", ())]}, "dogs: expression ids must be unique"),
        ],
    )
    def test_names_the_video_the_frame_and_the_field(self, changes, message):
        for protocol in (metrics.MEVIS, metrics.REF_SAV):
            with pytest.raises((TypeError, ValueError), match=message):
                protocol.score(replace(self.good(), **changes))

    def test_revos_wants_foreground(self):
        with pytest.raises(ValueError, match="dogs: R needs the foreground masks"):
            metrics.REVOS.score(self.good())


class TestRevos:
    def test_kinds_and_rounding(self):
        third = box(2, width=9)  # J = 80 / 90
        masks = video(
            {"1": [A] * 3},
            {"0": [A, A, third], "1": [A, A, NONE], "2": [NONE] * 3},
            [Query("0", ("1",), type_id=0), Query("1", ("1",), type_id=1), Query("2", ("1",), type_id=2)],
            foreground=[A] * 3,
        )
        summary = metrics.REVOS.evaluate([masks])
        assert summary.percent
        assert summary.units["dogs_0"]["J"] == 96.3  # 96.2962…
        assert summary.groups["referring"]["J"] == 96.3
        assert summary.groups["reason"]["J"] == 66.67
        assert summary.groups["overall"] == summary.dataset
        assert summary.dataset["J"] == pytest.approx((96.3 + 66.67) / 2, abs=1e-12)
        assert summary.units["dogs_0"]["R"] == 95.83  # 10 pixels too many, of 80, in one frame of three
        exact = metrics.REVOS_UNROUNDED.evaluate([masks])
        assert exact.units["dogs_0"]["J"] == pytest.approx(100 * (2 + 80 / 90) / 3, abs=1e-12)

    def test_a_missing_expression_is_zero_in_revos_and_an_error_in_ref_sav(self):
        queries = [Query("0", ("1",), type_id=0), Query("1", ("1",), type_id=1)]
        masks = video({"1": [A]}, {"0": [A]}, queries, foreground=[A])
        assert metrics.REVOS.evaluate([masks]).groups["reason"] == dict.fromkeys(("J", "F", "J&F", "A", "R"), 0.0)
        assert set(metrics.REF_SAV.summarize([]).groups) == {"long", "short", "overall"}
        with pytest.raises(ValueError, match="no prediction for '1'"):
            metrics.REF_SAV.score(masks)

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(0, 4))
    def test_accuracy_and_robustness_are_those_of_uint8_arithmetic(self, seed, num_objects):
        rng = np.random.default_rng(seed)
        objects = {str(n): [rng.random(SIZE) < 0.4] for n in range(num_objects)}
        prediction, foreground = rng.random(SIZE) < 0.02, rng.random(SIZE) < 0.9
        masks = video(objects, {"0": [prediction]}, [Query("0", tuple(objects))], foreground=[foreground])
        summed = sum((each[0].astype(np.uint8) for each in objects.values()), np.zeros(SIZE, np.uint8))
        for protocol, truth, value in (
            (metrics.REVOS, (summed > 0).astype(np.uint8), 1),
            (metrics.REVOS_RLE_PROGRAM, summed, 1),
            (metrics.REVOS_PNG_PROGRAM, summed, 255),
        ):
            predicted = prediction.astype(np.uint8) * np.uint8(value)
            outside = int(((1 - truth) * predicted).sum())
            unit = protocol.score(masks)[0]
            assert unit.A is not None
            assert unit.R is not None
            assert unit.A[0] == np.mean(truth == predicted)
            assert unit.R[0] == max(1 - outside / (int(foreground.sum()) + 1e-6), 0.0)
            assert isinstance(protocol, ByKind)


class TestDavis:
    def test_semi_supervised_drops_both_ends_and_pads_with_nothing(self):
        masks = video({"1": [A, A, A, NONE], "2": [B, B, B, B]}, {"1": [NONE, A, A, NONE]}, void=[B] * 4)
        units = by_key(metrics.DAVIS17_SEMI_SUPERVISED.score(masks))
        assert units["dogs_1"].frames == ("00001", "00002")
        assert units["dogs_1"].J.tolist() == [1.0, 1.0]
        assert units["dogs_2"].J.tolist() == [0.0, 0.0]  # void is not looked at

    def test_objects_are_those_of_the_first_frame(self):
        masks = video({"1": [NONE, A, A], "3": [B, B, B], "4": [NONE, A, A]}, {})
        units = metrics.DAVIS17_UNSUPERVISED.score(masks)
        assert [unit.key for unit in units] == ["dogs_1", "dogs_2", "dogs_3"]

    def test_too_large_a_number_is_an_error(self):
        masks = video({"1": [A, A, A]}, {"2": [None, B, None]})
        with pytest.raises(ValueError, match="dogs: a predicted object has the number 2, .* allows 1 here"):
            metrics.DAVIS17_SEMI_SUPERVISED.score(masks)
        metrics.DAVIS17_SEMI_SUPERVISED.score(replace(masks, predictions={"2": [B, None, B]}))  # only at the ends
        with pytest.raises(ValueError, match="number 21, the unsupervised task allows 20"):
            metrics.DAVIS17_UNSUPERVISED.score(replace(masks, predictions={"21": [A, A, A]}))
        for id in ("dog", "0", "-1"):
            with pytest.raises(ValueError, match="numbers its objects 1, 2"):
                metrics.DAVIS17_UNSUPERVISED.score(replace(masks, predictions={id: [A, A, A]}))

    def test_unsupervised_forgives_exchanged_identities_and_ignores_void(self):
        masks = video({"1": [A, A], "2": [B, B]}, {"1": [B, B], "3": [A | box(15, 4), A]}, void=[box(15, 4)] * 2)
        summary = metrics.DAVIS17_UNSUPERVISED.evaluate([masks])
        assert summary.dataset["J&F"] == 1.0
        assert list(summary.units) == ["dogs_1", "dogs_2"]

    def test_three_frames_at_least(self):
        masks = video({"1": [A, A]}, {})
        for protocol in (metrics.DAVIS17_SEMI_SUPERVISED, metrics.SAV):
            with pytest.raises(ValueError, match="first and last frame are not counted, none of 2 remains"):
                protocol.score(masks)

    @pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 50, 256])
    def test_statistics_as_the_reference_makes_them(self, length):
        values = np.random.default_rng(length).random(length)
        indices = (np.round(np.linspace(1, length, 5) + 1e-10) - 1).astype(np.uint8).astype(int)
        quarters = [values[indices[k] : indices[k + 1] + 1] for k in range(4)]
        statistics = db_statistics(values)
        assert statistics.mean == np.nanmean(values)
        assert statistics.recall == np.mean(values > 0.5)
        assert statistics.decay == statistics.decay_64bit == np.nanmean(quarters[0]) - np.nanmean(quarters[3])

    def test_decay_above_256_frames_is_nan_as_in_the_reference(self):
        values = np.linspace(1, 0, 300)
        statistics = db_statistics(values)
        assert math.isnan(statistics.decay)
        assert statistics.decay_64bit == pytest.approx(0.75, abs=0.01)
        units = [UnitScores.of([], video="v", id="1", key=key, frames=()) for key in ("v_1", "v_2")]
        units = [replace(unit, J=values[:n], F=values[:n]) for unit, n in zip(units, (300, 100), strict=True)]
        dataset = metrics.DAVIS17_UNSUPERVISED.summarize(units).dataset
        assert math.isnan(dataset["J-Decay"])
        assert not math.isnan(dataset["J-Decay-64bit"])


class TestRefDavis:
    queries = tuple(
        Query(str(4 * obj + annotator), (str(obj + 1),), annotator=annotator)
        for obj in range(2)
        for annotator in (0, 1)
    )

    def test_the_lowest_object_wins_and_annotators_are_averaged(self):
        overlapping = box(4)
        merged = metrics.merge_labels(video({}, {"0": [A]}), {"2": [overlapping], "1": [A]})
        assert [*merged] == ["1", "2"]
        assert (merged["1"][0].to_array() == A).all()  # type: ignore[union-attr]
        assert (merged["2"][0].to_array() == overlapping & ~A).all()  # type: ignore[union-attr]

        predictions = {"0": [A, A], "4": [B, B], "1": [NONE, NONE], "5": [NONE, NONE]}
        masks = video({"1": [A, A], "2": [B, B]}, predictions, self.queries)
        summary = metrics.REF_DAVIS17_PER_ANNOTATOR.evaluate([masks])
        assert summary.groups["0"]["J&F"] == 1.0
        assert summary.groups["1"]["J&F"] == 0.0
        assert summary.dataset["J&F"] == 0.5
        assert set(summary.units) == {"0/dogs_1", "0/dogs_2", "1/dogs_1", "1/dogs_2"}

    def test_the_two_protocols_differ_in_identities(self):
        exchanged = {"0": [B, B], "4": [A, A], "1": [B, B], "5": [A, A]}
        masks = video({"1": [A, A], "2": [B, B]}, exchanged, self.queries)
        assert metrics.REF_DAVIS17_PER_ANNOTATOR.evaluate([masks]).dataset["J"] == 1.0
        assert metrics.REF_DAVIS17_PER_EXPRESSION.evaluate([masks]).dataset["J"] == 0.0

    @pytest.mark.parametrize("query", [Query("0", ("1",)), Query("0", ("1", "2"), annotator=0)])
    def test_expressions_need_one_object_and_an_annotator(self, query):
        masks = video({"1": [A], "2": [B]}, {"0": [A]}, [query])
        with pytest.raises(ValueError, match="expression '0' needs one object and an annotator"):
            metrics.REF_DAVIS17_PER_ANNOTATOR.score(masks)


def test_reasonvos_leaves_out_what_is_missing_and_says_so():
    queries = [Query("0", ("1",)), Query("0", ("2",)), Query("1", ("1",)), Query("2", ("9",))]
    predictions = {"0": [A, A], "2": [A, A]}
    masks = video({"1": [A, A], "2": [B, B]}, predictions, queries, name="MOSE_dogs")
    summary = metrics.REASONVOS.evaluate([masks])
    assert summary.units == {
        "MOSE_dogs_1_0": {"J": 1.0, "F": 1.0, "J&F": 1.0},
        "MOSE_dogs_2_0": {"J": 0.0, "F": 0.0, "J&F": 0.0},
    }
    assert summary.left_out == ("MOSE_dogs_1_1", "MOSE_dogs_9_2")
    assert summary.dataset["J"] == 0.5


class TestFirstSeen:
    def test_frames_before_the_first_appearance_do_not_count(self):
        masks = video(
            {"1": [A, NONE, NONE, A, A], "2": [NONE, NONE, NONE, NONE, B]},
            {"1": [A, NONE, A, A, A], "7": [B] * 5},
        )
        for protocol in (metrics.VOS_BENCHMARK, metrics.VOS_BENCHMARK_ALL_FRAMES):
            first, *others = protocol.score(masks)
            dropped = protocol is metrics.VOS_BENCHMARK
            assert first.key == "dogs/1"
            assert first.frames == (("00002", "00003") if dropped else tuple(masks.frames))
            assert [unit.id for unit in others] == ([] if dropped else ["2"])  # 7 is no object of the truth
        assert metrics.VOS_BENCHMARK.evaluate([masks]).dataset["J"] == 50.0

    def test_sav_refuses_what_its_evaluator_asserts(self):
        late = video({"000": [NONE, NONE, NONE, A]}, {"000": [A] * 4})
        with pytest.raises(ValueError, match="dogs: object '000' is in none of the counted frames"):
            metrics.SAV.score(late)
        with pytest.raises(ValueError, match="no prediction for '000'"):
            metrics.SAV_ALL_FRAMES.score(replace(late, predictions={}))
        summary: Summary = metrics.SAV_ALL_FRAMES.evaluate([late])
        assert summary.percent
        assert summary.units["dogs/000"]["J"] == 25.0


def test_no_target_accuracy():
    queries = [Query("0", ("1",)), Query("1", ()), Query("2", ()), Query("3", ("1",))]
    predictions = {"0": [None, A], "1": [None, None], "2": [None, B], "3": [None, None]}
    units = metrics.MEVIS.score(video({"1": [A, A]}, predictions, queries))
    assert metrics.no_target_accuracy(units) == {"N-acc": 0.5, "T-acc": 0.5}
    unpredicted = metrics.MEVIS.score(video({"1": [A, A]}, {}, queries, name="cats"))
    assert metrics.no_target_accuracy(unpredicted) == {"N-acc": 0.0, "T-acc": 0.0}
    assert all(math.isnan(value) for value in metrics.no_target_accuracy([]).values())


def test_videos_protocols_and_scores_can_be_sent_to_other_processes():
    masks = video({"1": [A, A]}, {"0": [A, B]}, [Query("0", ("1",))])
    for protocol in (metrics.MEVIS, metrics.REF_SAV):
        here = protocol.score(masks)
        there = pickle.loads(pickle.dumps(protocol)).score(pickle.loads(pickle.dumps(masks)))
        assert pickle.loads(pickle.dumps(there))[0].J.tolist() == here[0].J.tolist() == [1.0, 0.0]
