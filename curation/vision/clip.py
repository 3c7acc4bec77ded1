"""CLIP as a judge of crops, and as the embedding by which pictures of the same thing are told (any checkpoint)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from curation.vision.checkpoints import loading, pick_device

BATCH_SIZE = 64


class ClipScorer:
    """Cosines between crops and phrases; unit embeddings of images."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model.eval()
        self._processor = processor

    @classmethod
    def load(cls, checkpoint: str, device: str = "auto") -> Self:
        """Raises `UserError` where ``checkpoint``, a folder or a hub name, is no CLIP.

        What the entry points ``curation.architectures`` name is imported first: modules that register with
        transformers a model type of their own.
        """
        from transformers import AutoModel, AutoTokenizer, CLIPImageProcessorPil, CLIPProcessor

        for architecture in entry_points(group="curation.architectures"):
            architecture.load()
        with loading("--clip", checkpoint):
            model: Any = AutoModel.from_pretrained(checkpoint)
            if not hasattr(model, "get_text_features"):
                raise ValueError(f"a {model.config.model_type} has no text tower")
            images = CLIPImageProcessorPil.from_pretrained(checkpoint)
            processor = CLIPProcessor(images, AutoTokenizer.from_pretrained(checkpoint))
        return cls(model.to(pick_device(device)), processor)

    def score(self, crops: Sequence[Image.Image], phrases: Sequence[str]) -> list[float]:
        """Cosine of each crop with its own phrase, -1 to 1."""
        distinct = list(dict.fromkeys(phrases))
        known = dict(zip(distinct, self._embed_texts(distinct), strict=True))
        return [float(image_D @ known[phrase]) for image_D, phrase in zip(self.embed(crops), phrases, strict=True)]

    def embed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Unit vectors, float32 [N, D]."""
        batches = [images[i : i + BATCH_SIZE] for i in range(0, len(images), BATCH_SIZE)]
        return self._stack(
            self._model.get_image_features(
                **self._processor.image_processor(list(batch), return_tensors="pt").to(self._model.device)
            )
            for batch in batches
        )

    def _embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        batches = [texts[i : i + BATCH_SIZE] for i in range(0, len(texts), BATCH_SIZE)]
        return self._stack(
            self._model.get_text_features(
                **self._processor.tokenizer(
                    list(batch),
                    padding=True,
                    truncation=True,
                    max_length=self._model.config.text_config.max_position_embeddings,
                    return_tensors="pt",
                ).to(self._model.device)
            )
            for batch in batches
        )

    @torch.inference_mode()
    def _stack(self, batches: Any) -> np.ndarray:
        # transformers 5 gives the projected features as an output's pooler_output, earlier ones as a tensor.
        found = [getattr(features, "pooler_output", features).float() for features in batches]
        if not found:
            return np.zeros((0, self._model.config.projection_dim), np.float32)
        return torch.nn.functional.normalize(torch.cat(found), dim=-1).cpu().numpy()
