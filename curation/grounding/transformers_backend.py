"""GroundingDINO by transformers: any checkpoint of `GroundingDinoForObjectDetection`.

The library's post-processing joins tokens of neighbouring phrases into labels that nobody asked for; here each
phrase is scored on its own tokens.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from curation.config import BuildConfig
from curation.errors import UserError
from curation.grounding.base import with_threshold
from curation.grounding.prompts import Prompt, make_prompts
from curation.records import Box
from curation.vision.checkpoints import loading, pick_device

log = logging.getLogger(__name__)

# Images are padded to multiples of this many pixels, never to the largest of a batch: padding changes outputs.
PAD_MULTIPLE = 64
MAX_BOXES = 32


@dataclass(frozen=True)
class Job:
    """One detector pass: an image with one prompt. ``pixels_CHW`` is resized and normalised, not padded."""

    row: int
    prompt: Prompt
    pixels_CHW: torch.Tensor

    @property
    def padded_size(self) -> tuple[int, int]:
        height, width = self.pixels_CHW.shape[-2:]
        return -(-height // PAD_MULTIPLE) * PAD_MULTIPLE, -(-width // PAD_MULTIPLE) * PAD_MULTIPLE


class TransformersGrounder:
    """See `curation.grounding.base.Grounder`."""

    def __init__(self, model: Any, processor: Any, config: BuildConfig) -> None:
        self._model = model.eval()
        self._image_processor = processor.image_processor
        self._tokenizer = processor.tokenizer
        self._config = config
        self._batch_size = config.batch_size

    @classmethod
    def load(cls, config: BuildConfig, detector: str) -> Self:
        """Raises `UserError` where ``detector`` is no GroundingDINO checkpoint."""
        from transformers import AutoProcessor, GroundingDinoForObjectDetection

        looks_local = detector.startswith((".", "/", "~")) or Path(detector).exists()
        if looks_local and not (Path(detector) / "config.json").is_file():
            raise UserError(f"--detector {detector}: no config.json there; name a folder in transformers format")
        with loading("--detector", detector):
            processor = AutoProcessor.from_pretrained(detector)
            model: Any = GroundingDinoForObjectDetection.from_pretrained(detector, dtype=getattr(torch, config.dtype))
        return cls(model.to(pick_device(config.device)), processor, with_threshold(config, detector))

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[list[Box]]]:
        result: list[list[list[Box]]] = [[[] for _ in row] for row in phrases]
        buckets: dict[tuple[int, int], list[Job]] = defaultdict(list)
        prompts = make_prompts(phrases, self._tokenizer, self._model.config.max_text_len)
        asked = [row for row, own in enumerate(prompts) if own]
        for row, pixels_CHW in zip(asked, self._pixels([images[row] for row in asked]), strict=True):
            for prompt in prompts[row]:
                job = Job(row, prompt, pixels_CHW)
                buckets[job.padded_size].append(job)
        for jobs in buckets.values():
            jobs.sort(key=lambda job: len(job.prompt.tokens))  # little text is padded then
            start = 0
            while start < len(jobs):
                batch = jobs[start : start + self._batch_size]
                try:
                    found = self._detect(batch)
                except RuntimeError as error:  # on a GPU torch.OutOfMemoryError, which is one
                    if not is_out_of_memory(error) or len(batch) == 1:
                        raise
                    self._batch_size = len(batch) // 2
                    torch.cuda.empty_cache()
                    log.warning("out of memory: going on with batches of %d", self._batch_size)
                    continue
                for job, boxes_per_phrase in zip(batch, found, strict=True):
                    for index, boxes in zip(job.prompt.indices, boxes_per_phrase, strict=True):
                        result[job.row][index] = boxes
                start += len(batch)
        return result

    def _pixels(self, images: Sequence[Image.Image]) -> list[torch.Tensor]:
        """Each image resized and normalised, [3, H, W] of its own size."""
        if not images:
            return []
        return [torch.as_tensor(p) for p in self._image_processor(images=list(images), do_pad=False)["pixel_values"]]

    @torch.inference_mode()
    def _detect(self, jobs: Sequence[Job]) -> list[list[list[Box]]]:
        """Boxes per phrase for jobs of one padded size."""
        device, dtype = self._model.device, self._model.dtype
        height, width = jobs[0].padded_size
        pixels_BCHW = torch.zeros(len(jobs), 3, height, width)
        mask_BHW = torch.zeros(len(jobs), height, width, dtype=torch.long)
        for index, job in enumerate(jobs):
            _, h, w = job.pixels_CHW.shape
            pixels_BCHW[index, :, :h, :w] = job.pixels_CHW
            mask_BHW[index, :h, :w] = 1
        tokens = [torch.tensor(job.prompt.tokens) for job in jobs]
        ids_BL = pad_sequence(tokens, batch_first=True, padding_value=self._tokenizer.pad_token_id)
        attention_BL = pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True)
        outputs = self._model(
            pixel_values=pixels_BCHW.to(device, dtype),
            pixel_mask=mask_BHW.to(device),
            input_ids=ids_BL.to(device),
            attention_mask=attention_BL.to(device),
        )
        scores_BQL = outputs.logits.float().sigmoid().cpu()
        boxes_BQ4 = outputs.pred_boxes.float().cpu()  # centre, size; relative to the unpadded image
        return [
            [self._boxes(scores_QL[:, list(span)], boxes_Q4) for span in job.prompt.spans]
            for job, scores_QL, boxes_Q4 in zip(jobs, scores_BQL, boxes_BQ4, strict=True)
        ]

    def _boxes(self, scores_QS: torch.Tensor, boxes_Q4: torch.Tensor) -> list[Box]:
        """Boxes of one phrase, best first, from the scores of its S tokens."""
        if scores_QS.shape[1] == 0:
            return []
        scores_Q = scores_QS.amax(dim=1) if self._config.phrase_score == "max" else scores_QS.mean(dim=1)
        order = scores_Q.argsort(descending=True, stable=True)[:MAX_BOXES]
        order = order[scores_Q[order] >= (self._config.box_threshold or 0.0)]
        boxes = []
        for score, (x, y, w, h) in zip(scores_Q[order].tolist(), boxes_Q4[order].tolist(), strict=True):
            x0, y0, x1, y1 = (min(max(v, 0.0), 1.0) for v in (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
            boxes.append(Box(x0, y0, x1, y1, score))
        return boxes


def is_out_of_memory(error: RuntimeError) -> bool:
    """Also the allocator of the CPU, whose error has no class of its own."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text
