"""Pixel-wise voting: one masklet out of those that the members of an ensemble give for one expression.

Run lengths go in and come out. The frames of a chunk are laid end to end as one row of pixels, in which a mask is
where its runs begin and end. Sorted together, these edges cut the row into stretches that no mask begins or ends in,
and each stretch is voted on once: no mask is decoded, and memory holds the edges of one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from fiftyone_refvos.masklet import RLE, BoolArray, Masklet, rle_numbers, undo_differences

Rule = Literal["majority", "report"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CHUNK_BYTES = 1 << 18  # of encoded masks that are voted on at once, for which some 17 MB are needed
_UNITS = 1 << 40  # the largest weight as a whole number, so that sums are exact and ties are ties


@dataclass(frozen=True, eq=False)
class Voted:
    """The outcome of a vote.

    Attributes:
        masklet: one object, whose score in a frame is the mean share of the votes that its pixels got
        agreement: `(T,)` of each frame, in [0, 1], see `vote`
        agreed: of the expression
    """

    masklet: Masklet
    agreement: Floats
    agreed: float


def vote(
    members: Mapping[str, Masklet], *, rule: Rule = "majority", weights: Mapping[str, float] | None = None
) -> Voted:
    """Lets the members of an ensemble vote on every pixel of the masklet of one expression.

    Several objects of a member are one mask: their union. A pixel is inside by "majority" if more than half of the
    votes are for it, so that a tie is outside; by "report", the rule of the winning report of the 2025 MeViS
    challenge taken literally, if more than (N + 1) / 2 of the N votes are.

    The agreement of a frame is the IoU of two members, pooled over all pairs: the pixels that both mark, by the
    pixels that one of them marks; 1 where nobody marks any. That of the expression is the mean over the frames in
    which somebody marks some; 1 if there is none. Weights do not matter for it.

    Args:
        members: the masklets by name, which errors tell
        rule: see above
        weights: what the vote of each member counts, by name; differences below 1e-12 of the largest count as ties

    Raises:
        ValueError: if members differ in expression, size or frames, or have a broken RLE; for an unknown rule;
            weights below 0, all 0, of other members, or with the rule of the report, which has none
    """
    first = _check_members(members)
    units = _whole_weights([*members], rule, weights)
    masks: list[RLE] = []
    scores, agreement, marked = [], [], []
    for start, stop in _chunks([*members.values()]):
        edges = [_edges(name, member, start, stop) for name, member in members.items()]
        stretches = _Stretches.between(edges, units, first.size, stop - start)
        inside = stretches.count * 2 > len(members) + 1 if rule == "report" else stretches.majority(units)
        masks += stretches.encode(inside)
        scores.append(stretches.shares(inside, sum(units)))
        both, one = stretches.pairs(len(members))
        agreement.append(np.divide(both, one, out=np.ones(len(one)), where=one > 0))
        marked.append(one > 0)
    frames, seen = np.concatenate(agreement), np.concatenate(marked)
    score = np.concatenate(scores)
    masklet = Masklet(
        expression=first.expression,
        size=first.size,
        frames=first.frames,
        masks=tuple((rle,) for rle in masks),
        scores=score.astype(np.float32)[:, None],
        found=score > 0,
    )
    return Voted(masklet, frames, float(frames[seen].mean()) if seen.any() else 1.0)


def check_rule(rule: str, weights: object = None) -> None:
    """Refuses a rule that does not exist, or that knows no weights.

    Raises:
        ValueError: says what there is
    """
    if rule not in get_args(Rule):
        raise ValueError(f"there is no rule {rule!r} of voting, only: {', '.join(get_args(Rule))}")
    if rule == "report" and weights is not None:
        raise ValueError(
            "the rule of the report counts votes, it knows no weights: leave them out, or use 'majority'"
        )


def check_weights(names: Sequence[str], weights: Mapping[str, float]) -> None:
    """Refuses weights that are not those of the members, or cannot be any.

    Raises:
        ValueError: says what is wrong with them
    """
    if set(weights) != set(names):
        raise ValueError(
            f"there must be one weight per member, of {sorted(names)}, but they are of {sorted(weights)}"
        )
    if not all(0 <= value < float("inf") for value in weights.values()) or not any(weights.values()):
        raise ValueError(f"weights must be finite and not below 0, and one of them above: {dict(weights)}")


def _check_members(members: Mapping[str, Masklet]) -> Masklet:
    """The first member, with which all others must agree."""
    if not members:
        raise ValueError("nobody votes: name at least one member")
    name, first = next(iter(members.items()))
    of = f"expression {first.expression.id!r}: "
    for other, member in members.items():
        if member.expression != first.expression:
            texts = [f"{each.expression.text!r}" for each in (first, member)]
            raise ValueError(f"{of}{name!r} is of {texts[0]}, {other!r} is of {texts[1]}")
        if tuple(member.size) != tuple(first.size):
            raise ValueError(
                f"{of}the masks of {name!r} are {_shape(first.size)}, those of {other!r} {_shape(member.size)} "
                "(height x width): a vote needs masks of one size"
            )
        if member.frames != first.frames:
            alone = sorted({*first.frames} ^ {*member.frames})
            raise ValueError(
                f"{of}{name!r} covers {len(first.frames)} frames, {other!r} {len(member.frames)}; only one of them "
                f"covers frame {alone[0]} (from 0)"
            )
    return first


def _whole_weights(names: Sequence[str], rule: str, weights: Mapping[str, float] | None) -> list[int]:
    """The weights as whole numbers, 1 where all are equal."""
    check_rule(rule, weights)
    if weights is None:
        return [1] * len(names)
    check_weights(names, weights)
    values = [float(weights[name]) for name in names]
    return [round(value / max(values) * _UNITS) for value in values]


def _chunks(members: Sequence[Masklet]) -> Iterator[tuple[int, int]]:
    """Cuts the frames into chunks `[start, stop)` of few enough bytes."""
    start = held = 0
    for t, of_frame in enumerate(zip(*(member.masks for member in members), strict=True)):
        size = sum(len(rle["counts"]) for rles in of_frame for rle in rles)
        if held and held + size > CHUNK_BYTES:
            yield start, t
            start, held = t, 0
        held += size
    yield start, len(members[0].frames)


def _edges(name: str, member: Masklet, start: int, stop: int) -> Integers:
    """Where the runs of a member begin and end, in turn, in its frames `[start, stop)` laid end to end."""
    objects = [
        _edges_of([rles[n] for rles in member.masks[start:stop]], member, name, member.frames[start:stop])
        for n in range(member.num_objects)
    ]
    if len(objects) == 1:
        return objects[0]
    stretches = _Stretches.between(objects, [1] * len(objects), member.size, stop - start)
    return stretches.edges(stretches.count > 0)


def _edges_of(rles: Sequence[RLE], member: Masklet, name: str, frames: Sequence[int]) -> Integers:
    """As `_edges`, of one object."""
    for rle, frame in zip(rles, frames, strict=True):
        if tuple(rle["size"]) != tuple(member.size) or not rle["counts"]:
            raise _broken(name, member, frame)
    lengths, last_bytes = rle_numbers(b"".join([rle["counts"] for rle in rles]))
    stops = np.searchsorted(last_bytes, np.cumsum([len(rle["counts"]) for rle in rles]))
    for start, stop in pairwise([0, *stops.tolist()]):
        undo_differences(lengths[start:stop])
    edges = np.cumsum(lengths)
    filled = edges[stops - 1] == member.size[0] * member.size[1] * np.arange(1, len(rles) + 1)
    if not filled.all():
        raise _broken(name, member, frames[int(filled.argmin())])
    if (lengths < 0).any():
        raise _broken(name, member, frames[int(np.searchsorted(stops, int((lengths < 0).argmax()), side="right"))])
    # The end of a frame ends a run of ones where the number of runs is even; else it is no edge.
    edge = np.ones(len(edges), dtype=bool)
    edge[stops - 1] = np.diff(stops, prepend=0) % 2 == 0
    return edges[edge]


def _broken(name: str, member: Masklet, frame: int) -> ValueError:
    return ValueError(
        f"expression {member.expression.id!r}: {name!r} has a broken RLE in frame {frame} (from 0), whose runs do "
        f"not fill {_shape(member.size)} (height x width)"
    )


@dataclass(frozen=True, eq=False)
class _Stretches:
    """The stretches of pixels, none of them empty, in which nothing begins or ends; frames end some, too.

    Attributes:
        size: (H, W) of the frames
        num_frames: that are laid end to end
        position: where each stretch begins
        length: its number of pixels
        first: the number of the first stretch of every frame
        count: how many masks cover it
        weight: their weight
    """

    size: tuple[int, int]
    num_frames: int
    position: Integers
    length: Integers
    first: Integers
    count: Integers
    weight: Integers

    @classmethod
    def between(
        cls, edges: Sequence[Integers], units: Sequence[int], size: tuple[int, int], num_frames: int
    ) -> _Stretches:
        """Cuts the row at all edges.

        Args:
            edges: of each mask, where its runs begin and end in turn
            units: the weight of each mask
            size: (H, W) of the frames
            num_frames: that are laid end to end
        """
        pixels, num = size[0] * size[1], len(edges)
        # Each edge is one number, of its position and of what begins (2 n) or ends (2 n + 1) there, or of neither
        # (2 N, at the borders of frames), so that sorting needs no indices.
        bits = (2 * num).bit_length()
        fits = (num_frames * pixels + 1) << bits <= np.iinfo(np.int32).max  # half the memory to go through
        kind = np.dtype(np.int32 if fits else np.int64)
        borders = np.arange(num_frames + 1) * pixels
        cuts = [(borders << bits | 2 * num).astype(kind)]
        for n, of_mask in enumerate(edges):
            cut = of_mask.astype(kind) << bits
            cut[0::2] |= 2 * n
            cut[1::2] |= 2 * n + 1
            cuts.append(cut)
        row = np.concatenate(cuts)
        row.sort()
        position, what = row >> bits, row & ((1 << bits) - 1)
        length = position[1:] - position[:-1]
        kept = np.flatnonzero(length != 0)
        changes = np.array([sign for _ in edges for sign in (1, -1)] + [0], dtype=kind)
        count = changes.take(what).cumsum(dtype=kind)[kept].astype(np.int64)
        if set(units) == {1}:
            weight = count
        else:
            weights = np.array([sign * unit for unit in units for sign in (1, -1)] + [0])
            weight = weights[what].cumsum()[kept]
        position = position[kept]
        first = np.searchsorted(position, borders[:-1])
        return cls(size, num_frames, position, length[kept].astype(np.int64), first, count, weight)

    def majority(self, units: Sequence[int]) -> BoolArray:
        """Which stretches have more than half of the weight of all; what rounding can cost is a tie."""
        rounding = 0 if set(units) == {1} else len(units)
        return np.asarray(self.weight * 2 > sum(units) + rounding)

    def edges(self, inside: BoolArray) -> Integers:
        """Where the runs of the chosen stretches begin and end, in turn."""
        end = self.num_frames * self.size[0] * self.size[1]
        changes = np.diff(inside, prepend=False, append=False)
        return np.append(self.position, end)[changes]

    def encode(self, inside: BoolArray) -> list[RLE]:
        """The RLE of the chosen stretches in every frame."""
        height, width = self.size
        begins = np.empty(len(inside), dtype=bool)  # a run
        np.not_equal(inside[1:], inside[:-1], out=begins[1:])
        begins[self.first] = True
        (runs,) = begins.nonzero()
        lengths = np.diff(self.position[runs], append=self.num_frames * height * width)
        of_frames = np.searchsorted(runs, self.first)
        rles = []
        for start, stop in pairwise([*of_frames.tolist(), len(runs)]):
            counts = lengths[start:stop]
            if inside[runs[start]]:  # RLEs begin with zeros
                counts = np.concatenate(([0], counts))
            rles.append(coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width))
        return rles

    def sums(self, values: NDArray[Any]) -> NDArray[Any]:
        """The sum over the pixels of every frame."""
        return np.add.reduceat(values * self.length, self.first)

    def shares(self, inside: BoolArray, total: int) -> Floats:
        """The mean share of the votes of the chosen pixels of every frame; 0 where there are none."""
        area = self.sums(inside)
        votes = self.sums(np.where(inside, self.weight / total, 0))
        return np.divide(votes, area, out=np.zeros_like(votes), where=area > 0)

    def pairs(self, num: int) -> tuple[Integers, Integers]:
        """Per frame the pixels that both of two masks mark, and those that one of them does, over all pairs."""
        marking = np.arange(num + 1)
        both = marking * (marking - 1) // 2
        one = both[-1] - both[::-1]  # all pairs but those of which neither marks it
        return self.sums(both.take(self.count)), self.sums(one.take(self.count))


def _shape(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
