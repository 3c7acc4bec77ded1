"""GroundingDINO by transformers: any checkpoint of it or of MM-GroundingDINO, of which LLMDet is one.

The library's post-processing joins tokens of neighbouring phrases into labels that nobody asked for; here each
phrase is scored on its own tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from curation.config import BuildConfig
from curation.grounding.base import with_threshold
from curation.grounding.batches import MAX_BOXES, BatchedGrounder, to_boxes
from curation.grounding.prompts import Prompt, make_prompts
from curation.records import Box
from curation.vision.checkpoints import loading, pick_device

# Images are padded to multiples of this many pixels, never to the largest of a batch: padding changes outputs.
PAD_MULTIPLE = 64


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


class TransformersGrounder(BatchedGrounder):
    """See `curation.grounding.base.Grounder`."""

    def __init__(self, model: Any, processor: Any, config: BuildConfig) -> None:
        self._model = model.eval()
        self._image_processor = processor.image_processor
        self._tokenizer = processor.tokenizer
        self._config = config
        self._batch_size = config.batch_size

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
        buckets: dict[tuple[int, int], list[Job]] = defaultdict(list)
        prompts = make_prompts(phrases, self._tokenizer, self._model.config.max_text_len)
        asked = [row for row, own in enumerate(prompts) if own]
        for row, pixels_CHW in zip(asked, self._pixels([images[row] for row in asked]), strict=True):
            for prompt in prompts[row]:
                job = Job(row, prompt, pixels_CHW)
                buckets[job.padded_size].append(job)
        for jobs in buckets.values():
            jobs.sort(key=lambda job: len(job.prompt.tokens))  # little text is padded then
            for job, boxes_per_phrase in self._in_batches(jobs, self._detect):
                for index, boxes in zip(job.prompt.indices, boxes_per_phrase, strict=True):
                    result[job.row][index] = boxes
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
        return to_boxes(scores_Q, boxes_Q4, self._config.box_threshold or 0.0, MAX_BOXES)
