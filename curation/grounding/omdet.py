"""OmDet-Turbo by transformers: the phrases of a row are one task, so that each one's boxes depend on the others.

Rows with as many phrases go together, since the model chooses its queries by their likeness to any phrase, those that
fill up a batch included. Its own processor is not used: it needs torchvision, and suppresses boxes by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from PIL import Image

from curation.config import BuildConfig
from curation.errors import UserError
from curation.grounding.base import with_threshold
from curation.grounding.batches import MAX_DENSE_BOXES, BatchedGrounder, to_boxes
from curation.records import Box
from curation.vision.checkpoints import loading, pick_device


@dataclass(frozen=True)
class Job:
    """An image with phrases that fit into one task; ``indices`` are theirs in the row."""

    row: int
    indices: tuple[int, ...]
    names: tuple[str, ...]
    pixels_CHW: torch.Tensor


class OmDetGrounder(BatchedGrounder):
    """See `curation.grounding.base.Grounder`."""

    def __init__(self, model: Any, image_processor: Any, tokenizer: Any, config: BuildConfig) -> None:
        self._model = model.eval()
        self._image_processor = image_processor
        self._tokenizer = tokenizer
        self._config = config
        self._batch_size = config.batch_size
        self._most_tokens = model.config.text_config.max_position_embeddings

    @classmethod
    def load(cls, config: BuildConfig, detector: str) -> Self:
        """Raises `UserError` where ``detector`` is no checkpoint, or an older transformers asks for torchvision."""
        from transformers import AutoImageProcessor, AutoModelForZeroShotObjectDetection, AutoTokenizer

        try:
            with loading("--detector", detector):
                image_processor = AutoImageProcessor.from_pretrained(detector)
                tokenizer = AutoTokenizer.from_pretrained(detector)
                dtype = getattr(torch, config.dtype)
                model: Any = AutoModelForZeroShotObjectDetection.from_pretrained(detector, dtype=dtype)
        except ImportError:
            raise UserError(f"--detector {detector} needs torchvision, or a newer transformers") from None
        return cls(model.to(pick_device(config.device)), image_processor, tokenizer, with_threshold(config, detector))

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[list[Box]]]:
        result: list[list[list[Box]]] = [[[] for _ in row] for row in phrases]
        buckets: dict[tuple[int, ...], list[Job]] = defaultdict(list)
        for row, (image, own) in enumerate(zip(images, phrases, strict=True)):
            groups = self._groups([" ".join(phrase.replace(",", " ").lower().split()) for phrase in own])
            pixels_CHW = self._pixels(image) if groups else torch.empty(0)
            for group in groups:
                indices, names = zip(*group, strict=True)
                buckets[len(indices), *pixels_CHW.shape].append(Job(row, indices, names, pixels_CHW))
        for jobs in buckets.values():
            for job, boxes_per_phrase in self._in_batches(jobs, self._detect):
                for index, boxes in zip(job.indices, boxes_per_phrase, strict=True):
                    result[job.row][index] = boxes
        return result

    def _groups(self, names: Sequence[str]) -> list[list[tuple[int, str]]]:
        """(index, name) of the phrases that share a task; one that is too long alone is in none."""
        groups: list[list[tuple[int, str]]] = []
        for index, name in enumerate(names):
            if not name or not self._fits([name]):
                continue
            if groups and self._fits([*(other for _, other in groups[-1]), name]):
                groups[-1].append((index, name))
            else:
                groups.append([(index, name)])
        return groups

    def _fits(self, names: Sequence[str]) -> bool:
        return len(self._tokenizer(task(names))["input_ids"]) <= self._most_tokens

    def _pixels(self, image: Image.Image) -> torch.Tensor:
        (pixels,) = self._image_processor(images=[image], do_pad=False)["pixel_values"]
        return torch.as_tensor(pixels)

    @torch.inference_mode()
    def _detect(self, jobs: Sequence[Job]) -> list[list[list[Box]]]:
        """Boxes per phrase for jobs of as many phrases and pictures of one size."""
        device, dtype = self._model.device, self._model.dtype
        classes = self._encode([name for job in jobs for name in job.names])
        tasks = self._encode([task(job.names) for job in jobs])
        outputs = self._model(
            pixel_values=torch.stack([job.pixels_CHW for job in jobs]).to(device, dtype),
            classes_input_ids=classes["input_ids"],
            classes_attention_mask=classes["attention_mask"],
            tasks_input_ids=tasks["input_ids"],
            tasks_attention_mask=tasks["attention_mask"],
            classes_structure=torch.tensor([len(job.names) for job in jobs], device=device),
        )
        scores_BQP = outputs.decoder_class_logits.float().sigmoid().cpu()
        boxes_BQ4 = outputs.decoder_coord_logits.float().cpu()
        threshold = self._config.box_threshold or 0.0
        return [
            [to_boxes(scores_Q, boxes_Q4, threshold, MAX_DENSE_BOXES) for scores_Q in scores_QP.T]
            for scores_QP, boxes_Q4 in zip(scores_BQP, boxes_BQ4, strict=True)
        ]

    def _encode(self, texts: list[str]) -> Any:
        return self._tokenizer(texts, padding=True, return_tensors="pt").to(self._model.device)


def task(names: Sequence[str]) -> str:
    """What the model is told to do, in the words that it was trained with."""
    return f"Detect {', '.join(names)}."
