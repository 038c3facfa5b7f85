"""vos-benchmark and SA-V: an object counts from the frame on in which truth or prediction first shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fiftyone_refvos.metrics.bitmask import empty
from fiftyone_refvos.metrics.protocol import Protocol, inner_frames, mean
from fiftyone_refvos.metrics.video import Summary, UnitScores, VideoMasks, score_masks, with_mean


@dataclass(frozen=True, kw_only=True)
class FirstSeen(Protocol):
    """Object by object, in percent: mean over the frames from its first appearance on, then over all objects.

    Attributes:
        drop_ends: whether the first and the last frame are left out, as the programs do by default
        strict: as SA-V's evaluator: an object without a prediction, or without a true pixel in the counted frames,
            is an error; else it is empty, or is not reported
    """

    drop_ends: bool = True
    strict: bool

    def score(self, video: VideoMasks) -> list[UnitScores]:
        frames = inner_frames(video) if self.drop_ends else slice(None)
        names = video.frames[frames]
        units = []
        for id in video.objects:
            truth = video.truth((id,))[frames]
            if not any(mask.area for mask in truth):
                if self.strict:
                    raise ValueError(f"{video.name}: object {id!r} is in none of the counted frames")
                continue
            prediction = [empty(video.size, by_columns=True)] * len(names)
            if self.strict or id in video.predictions:
                prediction = video.prediction(id)[frames]
            shown = [bool(pair[0].area or pair[1].area) for pair in zip(truth, prediction, strict=True)]
            first = shown.index(True)
            units.append(
                UnitScores.of(
                    score_masks(truth[first:], prediction[first:]),
                    video=video.name,
                    id=id,
                    key=f"{video.name}/{id}",
                    frames=names[first:],
                )
            )
        return units

    def summarize(self, scores: Sequence[UnitScores]) -> Summary:
        units = {each.key: {"J": mean(each.J) * 100, "F": mean(each.F) * 100} for each in scores}
        return Summary(
            protocol=self.name,
            percent=True,
            dataset=with_mean({name: mean(values[name] for values in units.values()) for name in ("J", "F")}),
            units={key: with_mean(values) for key, values in units.items()},
        )


_VOS_BENCHMARK = "vos-benchmark on label maps: only the objects of the truth are reported; "
_SAV = "SA-V, as sav_evaluator.py of SAM 2, on one mask per object and annotated frame; "
VOS_BENCHMARK = FirstSeen(
    name="vos-benchmark", description=_VOS_BENCHMARK + "first and last frame dropped.", strict=False
)
VOS_BENCHMARK_ALL_FRAMES = FirstSeen(
    name="vos-benchmark-all-frames",
    description=_VOS_BENCHMARK + "all frames.",
    strict=False,
    drop_ends=False,
)
SAV = FirstSeen(name="sa-v", description=_SAV + "first and last annotated frame dropped.", strict=True)
SAV_ALL_FRAMES = FirstSeen(
    name="sa-v-all-frames", description=_SAV + "all annotated frames.", strict=True, drop_ends=False
)
