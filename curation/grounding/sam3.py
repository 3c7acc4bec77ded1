"""SAM 3 by transformers: one phrase a pass, boxes with masks, and a score for whether the thing is there at all.

A box's score is its own times the presence of the phrase, which is what the model offers against confident boxes for
absent things. A picture goes through the image encoder once, however many phrases are asked of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from PIL import Image

from curation.config import BuildConfig
from curation.errors import UserError
from curation.grounding.base import with_threshold
from curation.grounding.batches import MAX_BOXES, BatchedGrounder, best, clipped
from curation.records import Box
from curation.vision.checkpoints import loading, pick_device
from curation.vision.crops import pixel_edges
from curation.vision.images import to_png

MASK_THRESHOLD = 0.5


@dataclass(frozen=True)
class Job:
    """A phrase of a picture; ``size`` is the picture's width and height, ``seen`` what the image encoder made of it."""

    index: int
    tokens: tuple[int, ...]
    size: tuple[int, int]
    seen: Any


class Sam3Grounder(BatchedGrounder):
    """See `curation.grounding.base.Grounder`. Boxes have masks."""

    def __init__(self, model: Any, image_processor: Any, tokenizer: Any, config: BuildConfig) -> None:
        self._model = model.eval()
        self._image_processor = image_processor
        self._tokenizer = tokenizer
        self._config = config
        self._batch_size = config.batch_size
        self._most_tokens = model.config.text_config.max_position_embeddings

    @classmethod
    def load(cls, config: BuildConfig, detector: str) -> Self:
        """Raises `UserError` where ``detector`` is no checkpoint, or transformers has no SAM 3."""
        try:
            from transformers import AutoTokenizer
            from transformers.models.sam3.modeling_sam3 import Sam3Model
        except ImportError as error:
            raise UserError(f"--detector {detector} needs a transformers with SAM 3: {error}") from None
        with loading("--detector", detector):
            tokenizer = AutoTokenizer.from_pretrained(detector)
            model: Any = Sam3Model.from_pretrained(detector, dtype=getattr(torch, config.dtype))
        processor = image_processor(model.config.vision_config.image_size)
        return cls(model.to(pick_device(config.device)), processor, tokenizer, with_threshold(config, detector))

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[list[Box]]]:
        result: list[list[list[Box]]] = [[[] for _ in row] for row in phrases]
        for row, (image, own) in enumerate(zip(images, phrases, strict=True)):
            tokens = [tuple(self._tokenizer(" ".join(phrase.lower().split()))["input_ids"]) for phrase in own]
            asked = [i for i, phrase in enumerate(own) if phrase.strip() and len(tokens[i]) <= self._most_tokens]
            if asked:
                seen = self._see(image)
                jobs = [Job(i, tokens[i], image.size, seen) for i in asked]
                for job, boxes in self._in_batches(jobs, self._detect):
                    result[row][job.index] = boxes
        return result

    @torch.inference_mode()
    def _see(self, image: Image.Image) -> Any:
        pixels_BCHW = self._image_processor(images=[image], return_tensors="pt")["pixel_values"]
        return self._model.get_vision_features(pixels_BCHW.to(self._model.device, self._model.dtype))

    @torch.inference_mode()
    def _detect(self, jobs: Sequence[Job]) -> list[list[Box]]:
        """Boxes of each phrase of one picture."""
        device = self._model.device
        ids_BL = torch.full((len(jobs), self._most_tokens), self._tokenizer.pad_token_id or 0)
        mask_BL = torch.zeros_like(ids_BL)
        for index, job in enumerate(jobs):
            ids_BL[index, : len(job.tokens)] = torch.tensor(job.tokens)
            mask_BL[index, : len(job.tokens)] = 1
        outputs = self._model(
            vision_embeds=repeated(jobs[0].seen, len(jobs)),
            input_ids=ids_BL.to(device),
            attention_mask=mask_BL.to(device),
        )
        presence_B1 = outputs.presence_logits.float().sigmoid()
        scores_BQ = (outputs.pred_logits.float().sigmoid() * presence_B1).cpu()
        boxes_BQ4 = outputs.pred_boxes.float().cpu()
        masks_BQHW = outputs.pred_masks
        found = []
        for job, scores_Q, boxes_Q4, masks_QHW in zip(jobs, scores_BQ, boxes_BQ4, masks_BQHW, strict=True):
            order = best(scores_Q, self._config.box_threshold or 0.0, MAX_BOXES)
            masks_KHW = masks_QHW[order.to(masks_QHW.device)].float().sigmoid().cpu()
            found.append(
                [
                    with_mask(to_box(boxes_Q4[q], float(scores_Q[q])), mask_HW, job.size)
                    for q, mask_HW in zip(order.tolist(), masks_KHW, strict=True)
                ]
            )
        return found


def image_processor(side: int | Sequence[int]) -> Any:
    """The published one's work (a square, RGB from -1 to 1), without the torchvision that it asks for."""
    from transformers import ViTImageProcessorPil

    height, width = (side, side) if isinstance(side, int) else side
    half = [0.5] * 3
    return ViTImageProcessorPil(size={"height": height, "width": width}, image_mean=half, image_std=half)


def repeated(seen: Any, times: int) -> Any:
    """One picture's features for so many phrases, without a copy."""
    levels = {
        name: tuple(level.expand(times, *level.shape[1:]) for level in seen[name])
        for name in ("fpn_hidden_states", "fpn_position_encoding")
    }
    return type(seen)(**levels)


def to_box(xyxy_4: torch.Tensor, score: float) -> Box:
    x0, y0, x1, y1 = xyxy_4.tolist()
    return clipped(x0, y0, x1, y1, score)


def with_mask(box: Box, mask_HW: torch.Tensor, size: tuple[int, int]) -> Box:
    """``mask_HW`` is the whole picture's, in 0..1; the box gets the part of its crop, 255 on the thing."""
    whole = Image.fromarray((mask_HW.numpy() * 255).round().astype("uint8")).resize(size, Image.Resampling.BILINEAR)
    edges = pixel_edges(box, *size)
    if edges[2] <= edges[0] or edges[3] <= edges[1]:
        return box
    part = whole.crop(edges).point(lambda value: 255 if value > 255 * MASK_THRESHOLD else 0)
    return replace(box, mask=to_png(part))
