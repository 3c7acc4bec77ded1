"""Masks of boxes by SAM (any checkpoint of transformers' `SamModel`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from PIL import Image

from curation.records import Box
from curation.vision.checkpoints import loading, pick_device
from curation.vision.crops import pixel_edges


class SamSegmenter:
    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model.eval()
        self._processor = processor

    @classmethod
    def load(cls, checkpoint: str, device: str = "auto") -> Self:
        """Raises `UserError` where ``checkpoint``, a folder or a hub name, is no SAM."""
        from transformers import SamModel, SamProcessor
        from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

        with loading("--segmenter", checkpoint):
            model: Any = SamModel.from_pretrained(checkpoint)
            processor = SamProcessor(SamImageProcessorPil.from_pretrained(checkpoint))
        return cls(model.to(pick_device(device)), processor)

    @torch.inference_mode()
    def segment(self, image: Image.Image, boxes: Sequence[Box]) -> list[Image.Image]:
        """For each box a mask of its crop's size: mode "L", 255 on the thing in the box, 0 off it."""
        if not boxes:
            return []
        edges = [pixel_edges(box, image.width, image.height) for box in boxes]
        prompts = [[[float(edge) for edge in box] for box in edges]]
        inputs = self._processor(image, input_boxes=prompts, return_tensors="pt")
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        outputs = self._model(
            pixel_values=inputs["pixel_values"].to(self._model.device, self._model.dtype),
            input_boxes=inputs["input_boxes"].to(self._model.device, self._model.dtype),
            multimask_output=False,
        )
        (masks_N1HW,) = self._processor.image_processor.post_process_masks(outputs.pred_masks.float().cpu(), *sizes)
        return [
            Image.fromarray(mask_1HW[0].numpy().astype("uint8") * 255).crop(box)
            for mask_1HW, box in zip(masks_N1HW, edges, strict=True)
        ]
