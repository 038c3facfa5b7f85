"""A contact sheet: frames of the expressions that a model segments best and worst, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fiftyone_refvos.demo.quality import DemoQuality, ExpressionQuality, segment_video
from fiftyone_refvos.demo.video import DemoVideo, generate
from fiftyone_refvos.demo.world import DemoConfig
from fiftyone_refvos.masklet import Masklet
from fiftyone_refvos.models.segmenter import Segmenter
from fiftyone_refvos.overlay import draw_masks, expression_colors

EACH = 5  # expressions at either end
FRAMES = 5  # of each
LINE = 22  # pixels of the text below them
FONT = 15
WHITE = (255, 255, 255)


def write_sheet(path: Path, segmenter: Segmenter, quality: DemoQuality, config: DemoConfig) -> None:
    """Writes a PNG with the worst expressions above and the best below; their videos are segmented again.

    Predictions are filled, the truth is outlined in white.
    """
    strips: list[Image.Image] = []
    segmented: dict[int, tuple[DemoVideo, dict[str, Masklet]]] = {}
    for row in ends(quality.rows):
        if row.seed not in segmented:
            video = generate(row.seed, config)
            masklets = {masklet.expression.id: masklet for masklet in segment_video(segmenter, video)}
            segmented[row.seed] = video, masklets
        video, masklets = segmented[row.seed]
        strips.append(strip(video, row, masklets[row.id]))
    sheet = Image.new("RGB", (strips[0].width, sum(each.height for each in strips)))
    top = 0
    for each in strips:
        sheet.paste(each, (0, top))
        top += each.height
    sheet.save(path)


def ends(rows: Sequence[ExpressionQuality]) -> list[ExpressionQuality]:
    """The worst and the best rows, in turn of their kinds, so that none fills the sheet."""
    ordered = sorted(rows, key=lambda row: row.JF)
    return _in_turn(ordered) + _in_turn([row for row in reversed(ordered) if row.has_target])[::-1]


def _in_turn(ordered: Sequence[ExpressionQuality]) -> list[ExpressionQuality]:
    """The first EACH rows by their rank within their kind, then by their order."""
    seen: dict[str, int] = {}
    ranked = []
    for place, row in enumerate(ordered):
        seen[row.kind] = seen.get(row.kind, 0) + 1
        ranked.append((seen[row.kind], place, row))
    return [row for _, _, row in sorted(ranked, key=lambda entry: entry[:2])][:EACH]


def strip(video: DemoVideo, row: ExpressionQuality, masklet: Masklet) -> Image.Image:
    """A few frames of a video side by side, and below them what was asked, and how well it was found."""
    expression = next(each for each in video.expressions if each.id == row.id)
    frames = [int(t) for t in np.linspace(0, len(video) - 1, FRAMES)]
    pictures = []
    for t in frames:
        drawn = draw_masks(video.frame(t), masklet.union(t)[None], expression_colors(1))
        pictures.append(
            draw_masks(drawn, video.targets(expression, t), [WHITE] * len(expression.object_ids), alpha=0)
        )
    joined = np.concatenate(pictures, axis=1)
    image = Image.new("RGB", (joined.shape[1], joined.shape[0] + LINE))
    image.paste(Image.fromarray(joined), (0, 0))
    text = f"{row.text}   [{row.kind}]   J&F {100 * row.JF:.1f}   test video {row.video}, frames {frames}"
    font = ImageFont.load_default(size=FONT)
    ImageDraw.Draw(image).text((4, joined.shape[0] + 1), text, fill=WHITE, font=font)
    return image
