"""Sa2VA's own part: answers with [SEG], and the masks that SAM2 makes of their states (paper, section 3.2).

All turns about a clip share the visual tokens, as in inference: they lie in one row, and do not see each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fiftyone_refvos.demo.rendered import RenderedVideo, RenderedVideos
from fiftyone_refvos.models.sa2va.network import Sa2vaNetwork
from fiftyone_refvos.models.sa2va.pixels import internvl_frames
from fiftyone_refvos.models.sa2va.tokens import SEG_TOKEN, load_tokenizer
from fiftyone_refvos.models.sam2_tracking import TrackBank
from fiftyone_refvos.training.learner import Forgetful
from scripts.sa2va_tiny.chat import END, MOST_FRAMES, Chat, draw_frames
from scripts.sa2va_tiny.talk import Turn, caption, look_around, refer, region
from scripts.sa2va_tiny.track import tracked_losses

_CE = 0.5
_IGNORED = -100
_TURNS = 5
_CLIPS = {0: 12, 1: 8, 2: 5, 4: 3}
"""How many clips a batch has, by the number of prompted frames of each; 0 for pictures, which nothing follows."""
_RATES = (0.3, 0.3, 0.2, 0.2)
_REGION_RATE = 0.25


@dataclass(frozen=True)
class TalkBatch:
    """V clips of N frames in a row of L positions each; R rows of masks in Q frames.

    Attributes:
        tiles: `(V * N, 3, S, S)` of the vision tower
        ids: `(V, L)` of the shared beginning and of all turns
        positions: `(V, L)` rotary ones: every turn goes on where the beginning ends
        turns: `(V, L)` 0 for the beginning, then the number of the turn, -1 for padding
        labels: `(V, L)` the token that is learned at each position
        visual: `(places,)` which of all visual tokens stands at each place of one
        segs: `(R, 2)` clip and position of each [SEG]
        frames: `(V, Q, S, S, 3) uint8` prompted frames, and in videos a last one that is followed into
        targets: `(R, Q, S, S) uint8`
    """

    tiles: Tensor
    ids: Tensor
    positions: Tensor
    turns: Tensor
    labels: Tensor
    visual: Tensor
    segs: Tensor
    frames: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> TalkBatch:
        """The same on a device."""
        return replace(self, **{each.name: getattr(self, each.name).to(device) for each in fields(self)})


class TalkLearner(Forgetful):
    """A `Learner` of all of Sa2VA but SAM2's image encoder.

    Args:
        network: trained in place
        checkpoint: with its tokenizer
        videos: to draw clips of
    """

    def __init__(self, network: Sa2vaNetwork, checkpoint: Path, videos: RenderedVideos) -> None:
        self._network, self._videos = network, videos
        self._tokenizer = load_tokenizer(checkpoint)
        self._chat = Chat(network, self._tokenizer)
        self._seg_id = self._tokenizer.token_id(SEG_TOKEN)

    @property
    def network(self) -> nn.Module:
        for parameter in self._network.sam.sam2.image_encoder.parameters():
            parameter.requires_grad_(False)
        return self._network

    def draw(self, rng: np.random.Generator) -> TalkBatch:
        prompted = int(rng.choice(list(_CLIPS), p=_RATES))
        clips = [self._clip(prompted, number, rng) for number in range(_CLIPS[prompted])]
        return self.batch(clips)

    def batch(self, clips: Sequence[_Clip]) -> TalkBatch:
        """Pads clips to a batch."""
        per_clip = self._chat.tokens_per_frame * clips[0].num_frames
        rows = [
            [torch.tensor(each) for each in (clip.ids, clip.positions, clip.turns, clip.labels)] for clip in clips
        ]
        ids, positions, turns, labels = (
            pad_sequence(list(each), batch_first=True, padding_value=value)
            for each, value in zip(zip(*rows, strict=True), (0, 0, -1, _IGNORED), strict=True)
        )
        return TalkBatch(
            tiles=internvl_frames([frame for clip in clips for frame in clip.seen], self._network.config.tiling.side),
            ids=ids,
            positions=positions,
            turns=turns,
            labels=labels,
            visual=torch.cat([torch.tensor(clip.visual) + number * per_clip for number, clip in enumerate(clips)]),
            segs=torch.tensor([(n, place) for n, clip in enumerate(clips) for place in clip.segs]).view(-1, 2),
            frames=torch.from_numpy(np.stack([clip.frames for clip in clips])),
            targets=torch.from_numpy(np.concatenate([clip.targets for clip in clips])),
        )

    def _clip(self, prompted: int, number: int, rng: np.random.Generator) -> _Clip:
        video = self._videos.video(int(rng.integers(len(self._videos))))
        count = MOST_FRAMES if prompted else 1
        seen = draw_frames(len(video), count, rng)
        marked: NDArray[np.int64] | None = None
        if prompted:
            turns = refer(video.expressions, _TURNS, rng)
            turns += [look_around(video, seen)] if number == 0 else []
            keys = sorted(int(seen[each]) for each in rng.permutation(count)[:prompted])
            shown = [*keys, int(rng.integers(len(video)))]
        elif rng.random() < _REGION_RATE:
            turn, marked = region(video, seen[0], self._chat.grid, rng)
            turns, shown = [turn], seen
        else:
            static = [each for each in video.expressions if each.static]
            turns = [*refer(static, _TURNS, rng), caption(video, seen[0]), look_around(video, seen)]
            shown = seen
        return self.write(video, seen, turns, shown, marked)

    def write(
        self,
        video: RenderedVideo,
        seen: Sequence[int],
        turns: Sequence[Turn],
        shown: Sequence[int],
        marked: NDArray[np.int64] | None,
    ) -> _Clip:
        """One row of a batch.

        Args:
            video: of the clip
            seen: frames that the language model sees
            turns: what is asked about them
            shown: frames whose masks are learned, the last of which is followed into if there are several
            marked: visual tokens of the region that is marked in the only frame
        """
        regions = ""
        visual = list(range(self._chat.tokens_per_frame * len(seen)))
        if marked is not None:
            regions = self._chat.region_text(len(marked))
            visual += marked.tolist()
        clip = _Clip(len(seen), list(video.read(seen)), np.stack(list(video.read(shown))), visual)
        wanted: list[tuple[int, ...]] = []
        for number, turn in enumerate(turns, start=1):
            prompt = self._chat.ids(turn.question, len(seen), regions)
            cut = self._chat.cut(prompt)
            if number == 1:
                clip.begin(prompt[:cut])
            answer = self._tokenizer.encode(f"{turn.answer}{END}")
            clip.add(number, prompt[cut:], answer, self._seg_id)
            wanted += turn.objects
        masks = [[np.isin(video.labels[frame], [n + 1 for n in numbers]) for frame in shown] for numbers in wanted]
        side = video.size
        clip.targets = np.array(masks, np.uint8).reshape(len(wanted), len(shown), *side)
        return clip

    def losses(self, batch: TalkBatch, rng: np.random.Generator) -> Mapping[str, Tensor]:
        network = self._network
        states = self.states(batch)
        learned = batch.labels[:, 1:] != _IGNORED
        logits = network.mllm.lm_head(states[:, :-1][learned])
        losses = {"ce": _CE * F.cross_entropy(logits, batch.labels[:, 1:][learned])}
        if len(batch.segs):
            clips, places = batch.segs.unbind(1)
            prompts = network.seg_projection(states[clips, places])
            losses |= self._mask_losses(batch, clips, prompts)
        return losses | {"total": torch.stack(list(losses.values())).sum()}

    def states(self, batch: TalkBatch) -> Tensor:
        """Final-norm states `(V, L, D)`."""
        mllm = self._network.mllm
        tokens = mllm.model.get_image_features(batch.tiles, return_dict=True).pooler_output.flatten(0, 1)
        embeds = self._network.embed_words(batch.ids)
        places = batch.ids == self._chat.image_id
        embeds = embeds.masked_scatter(places[..., None], tokens[batch.visual].to(embeds))
        later, earlier = batch.turns[:, :, None], batch.turns[:, None]
        order = torch.arange(batch.ids.shape[1], device=embeds.device)
        mask = ((earlier == 0) | (earlier == later)) & (order[:, None] >= order)
        return mllm.model.language_model(
            inputs_embeds=embeds, attention_mask=mask[:, None], position_ids=batch.positions, use_cache=False
        ).last_hidden_state

    def _mask_losses(self, batch: TalkBatch, clips: Tensor, prompts: Tensor) -> dict[str, Tensor]:
        sam, count = self._network.sam, batch.frames.shape[1]
        with torch.no_grad():
            levels = sam.sam2.image_encoder(sam.preprocess(batch.frames.flatten(0, 1)))["backbone_fpn"]
        bank, found = TrackBank(count), []
        prompted = max(1, count - 1)
        for frame in range(count):
            rows = clips * count + frame
            maps = sam.levels_for([level[rows] for level in levels], sam.language_decoder)
            if frame < prompted:
                masks = sam.decode_alone(sam.language_decoder, maps, prompts)
            else:
                masks = sam.decode_recalled(sam.original_decoder, sam.recall(maps, frame, bank), maps)
            if prompted < count:
                sam.memorise(bank, frame, maps, masks, prompted=frame < prompted)
            found.append(tracked_losses(masks, batch.targets[:, frame].float()))
        return {name: torch.stack([each[name] for each in found]).mean() for name in found[0]}

    def sample_ids(self, batch: TalkBatch) -> Sequence[str]:
        return [f"{len(batch.ids)} demo clips"]


class _Clip:
    """One row of a batch while it is written."""

    def __init__(
        self, num_frames: int, seen: list[NDArray[np.uint8]], frames: NDArray[np.uint8], visual: list[int]
    ) -> None:
        self.num_frames, self.seen, self.frames, self.visual = num_frames, seen, frames, visual
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.turns: list[int] = []
        self.labels: list[int] = []
        self.segs: list[int] = []
        self.targets: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._shared = 0

    def begin(self, ids: Sequence[int]) -> None:
        """Writes what all turns share."""
        self._shared = len(ids)
        self._extend(0, ids, [_IGNORED] * len(ids), 0)

    def add(self, number: int, asked: Sequence[int], answered: Sequence[int], seg_id: int) -> None:
        """Writes one turn."""
        first = len(self.ids) + len(asked)
        self.segs += [first + place for place, each in enumerate(answered) if each == seg_id]
        self._extend(number, [*asked, *answered], [_IGNORED] * len(asked) + list(answered), self._shared)

    def _extend(self, number: int, ids: Sequence[int], labels: Sequence[int], position: int) -> None:
        self.ids += ids
        self.labels += labels
        self.turns += [number] * len(ids)
        self.positions += range(position, position + len(ids))
