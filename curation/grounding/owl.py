"""OWL-ViT and OWLv2 by transformers: every patch of the picture is scored against every phrase, each on its own.

Neither a phrase's boxes nor a row's depend on what else is asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from PIL import Image

from curation.config import BuildConfig
from curation.grounding.base import with_threshold
from curation.grounding.batches import MAX_DENSE_BOXES, BatchedGrounder, to_boxes
from curation.records import Box
from curation.vision.checkpoints import loading, pick_device

# One of the sentences around a name that OWL-ViT was trained with; a phrase has its article.
PROMPT = "a photo of {}"


@dataclass(frozen=True)
class Job:
    """An image with the phrases that fit into the text encoder; ``scale`` is width and height of the model's picture,
    in those of the image."""

    row: int
    indices: tuple[int, ...]
    tokens: tuple[tuple[int, ...], ...]
    pixels_CHW: torch.Tensor
    scale: tuple[float, float]


class OwlGrounder(BatchedGrounder):
    """See `curation.grounding.base.Grounder`."""

    def __init__(self, model: Any, processor: Any, config: BuildConfig) -> None:
        self._model = model.eval()
        self._processor = processor
        self._config = config
        self._batch_size = config.batch_size
        self._pads = model.config.model_type == "owlv2"  # to a square, at the right or below; OWL-ViT stretches
        self._most_tokens = model.config.text_config.max_position_embeddings

    @classmethod
    def load(cls, config: BuildConfig, detector: str) -> Self:
        """Raises `UserError` where ``detector`` is no checkpoint."""
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        with loading("--detector", detector):
            processor = AutoProcessor.from_pretrained(detector)
            dtype = getattr(torch, config.dtype)
            model: Any = AutoModelForZeroShotObjectDetection.from_pretrained(detector, dtype=dtype)
        return cls(model.to(pick_device(config.device)), processor, with_threshold(config, detector))

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[list[Box]]]:
        result: list[list[list[Box]]] = [[[] for _ in row] for row in phrases]
        known = self._tokens({phrase for row in phrases for phrase in row})
        # Rows with as many phrases go together: a padded one would cost as much as a real one.
        buckets: dict[int, list[Job]] = defaultdict(list)
        for row, (image, own) in enumerate(zip(images, phrases, strict=True)):
            indices = tuple(index for index, phrase in enumerate(own) if phrase in known)
            if indices:
                tokens = tuple(known[own[index]] for index in indices)
                buckets[len(indices)].append(Job(row, indices, tokens, self._pixels(image), self._scale(image)))
        for jobs in buckets.values():
            for job, boxes_per_phrase in self._in_batches(jobs, self._detect):
                for index, boxes in zip(job.indices, boxes_per_phrase, strict=True):
                    result[job.row][index] = boxes
        return result

    def _tokens(self, phrases: set[str]) -> dict[str, tuple[int, ...]]:
        """In the prompt, or bare where it would be too long; a phrase that is too long bare has none."""
        found = {}
        for phrase in sorted(phrases):
            name = " ".join(phrase.lower().split())
            for text in (PROMPT.format(name), name) if name else ():
                tokens = self._processor.tokenizer(text)["input_ids"]
                if len(tokens) <= self._most_tokens:
                    found[phrase] = tuple(tokens)
                    break
        return found

    def _pixels(self, image: Image.Image) -> torch.Tensor:
        (pixels_CHW,) = self._processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
        return pixels_CHW

    def _scale(self, image: Image.Image) -> tuple[float, float]:
        longest = max(image.size)
        return (longest / image.width, longest / image.height) if self._pads else (1.0, 1.0)

    @torch.inference_mode()
    def _detect(self, jobs: Sequence[Job]) -> list[list[list[Box]]]:
        """Boxes per phrase for jobs of as many phrases each."""
        device, dtype = self._model.device, self._model.dtype
        rows = [tokens for job in jobs for tokens in job.tokens]
        ids_NL = torch.zeros(len(rows), self._most_tokens, dtype=torch.long)
        mask_NL = torch.zeros_like(ids_NL)
        for index, tokens in enumerate(rows):
            ids_NL[index, : len(tokens)] = torch.tensor(tokens)
            mask_NL[index, : len(tokens)] = 1
        outputs = self._model(
            pixel_values=torch.stack([job.pixels_CHW for job in jobs]).to(device, dtype),
            input_ids=ids_NL.to(device),
            attention_mask=mask_NL.to(device),
        )
        scores_BQP = outputs.logits.float().sigmoid().cpu()
        boxes_BQ4 = outputs.pred_boxes.float().cpu()
        threshold = self._config.box_threshold or 0.0
        found = []
        for job, scores_QP, boxes_Q4 in zip(jobs, scores_BQP, boxes_BQ4, strict=True):
            scaled_Q4 = boxes_Q4 * torch.tensor(job.scale * 2)
            found.append([to_boxes(scores_Q, scaled_Q4, threshold, MAX_DENSE_BOXES) for scores_Q in scores_QP.T])
        return found
