"""Image and text encoders behind the metrics: each is loaded once, each image embedded once a process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from umm_bench.base import model_fingerprint, pick_device, resolve_model
from umm_bench.errors import UserError
from umm_bench.images import open_image

if TYPE_CHECKING:
    from torch import Tensor

BATCH_SIZE = 32


class Encoder:
    """Unit-length float32 embeddings from a model in transformers format. Nothing loads before first use."""

    def __init__(self, name: str, part: str) -> None:
        """`name` is "mini", a folder or a hub id; `part` the member of the mini family that it stands for."""
        self.name, self.part = name, part

    @cached_property
    def location(self) -> str:
        return resolve_model(self.name, self.part)

    @cached_property
    def label(self) -> str:
        """Names the very weights, for protocols: "mini/encoder@1a2b3c4d" or a hub id."""
        if not Path(self.location).is_dir():
            return self.location
        family = "mini" if self.name == "mini" else Path(self.location).parent.name
        return f"{family}/{Path(self.location).name}@{model_fingerprint(self.location)[:8]}"

    @property
    def weights(self) -> list[Path]:
        """The local folder, if it is one."""
        return [Path(self.location)] if Path(self.location).is_dir() else []

    @cached_property
    def _images(self) -> dict[Path, np.ndarray]:
        return {}

    @cached_property
    def model(self) -> Any:
        raise NotImplementedError

    def pool(self, pixel_values_BCHW: Tensor) -> Tensor:
        """One feature vector an image, not yet normalised, [B, D]."""
        raise NotImplementedError

    @cached_property
    def processor(self) -> Any:
        # by its module: older transformers ask for torchvision where the name at the top is used
        from transformers.models.auto.image_processing_auto import AutoImageProcessor

        # The torchvision backend resizes differently and is not everywhere: scores would differ.
        return _load(AutoImageProcessor, self.location, backend="pil")

    def images(self, paths: Sequence[Path]) -> np.ndarray:
        """Embeddings [N, D] of image files, in order. `UserError` naming a file that cannot be read."""
        import torch

        missing = [path for path in dict.fromkeys(paths) if path not in self._images]
        for start in range(0, len(missing), BATCH_SIZE):
            batch = missing[start : start + BATCH_SIZE]
            pixels = self.processor([open_image(path) for path in batch], return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                features = self.pool(pixels.to(self.model.device))
            self._images.update(zip(batch, _unit(features), strict=True))
        return np.stack([self._images[path] for path in paths])


class ClipEncoder(Encoder):
    """A `CLIPModel` or another dual encoder of transformers: images and texts in one space."""

    @cached_property
    def model(self) -> Any:
        from transformers import AutoModel

        import umm_bench.mini.towers  # noqa: F401  # registers the mini CLIP's image tower

        model = _load_model(AutoModel, self.location)
        if not hasattr(model, "get_text_features"):
            raise UserError(f"cannot load metric model {self.location}: a {model.config.model_type} has no text tower")
        return model

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return _load(AutoTokenizer, self.location)

    def pool(self, pixel_values_BCHW: Tensor) -> Tensor:
        return self.model.get_image_features(pixel_values=pixel_values_BCHW).pooler_output

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings [N, D] of texts, in order; each is cut at the model's length, its end token kept."""
        import torch

        unique = list(dict.fromkeys(texts))
        found: dict[str, np.ndarray] = {}
        for start in range(0, len(unique), BATCH_SIZE):
            batch = unique[start : start + BATCH_SIZE]
            tokens = self.tokenizer(
                batch, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
            )
            with torch.inference_mode():
                features = self.model.get_text_features(
                    input_ids=tokens["input_ids"].to(self.model.device),
                    attention_mask=tokens["attention_mask"].to(self.model.device),
                ).pooler_output
            found.update(zip(batch, _unit(features), strict=True))
        return np.stack([found[text] for text in texts])

    @property
    def max_length(self) -> int:
        return self.model.config.text_config.max_position_embeddings

    def is_truncated(self, text: str) -> bool:
        return len(self.tokenizer(text)["input_ids"]) > self.max_length


class VisionEncoder(Encoder):
    """A vision transformer by its CLS token, as published scores do; a convolutional network by its pooled map."""

    @cached_property
    def model(self) -> Any:
        from transformers import AutoModel

        return _load_model(AutoModel, self.location)

    def pool(self, pixel_values_BCHW: Tensor) -> Tensor:
        return image_features(self.model(pixel_values=pixel_values_BCHW))


def image_features(output: Any) -> Tensor:
    """One vector an image [B, D]: position 0 of hidden states [B, L, D], the pooled map of a map [B, C, H, W]."""
    # flatten: a ResNet's pooled map keeps its two sides of one pixel
    return output.last_hidden_state[:, 0] if output.last_hidden_state.ndim == 3 else output.pooler_output.flatten(1)


@cache
def clip_encoder(name: str) -> ClipEncoder:
    """The process-wide CLIP of this name: CLIP-T and CLIP-I share it and its embeddings."""
    return ClipEncoder(name, "scoring_clip")


@cache
def vision_encoder(name: str) -> VisionEncoder:
    """The process-wide self-supervised encoder of this name."""
    return VisionEncoder(name, "encoder")


def _load_model(loader: Any, location: str) -> Any:
    import torch

    # Explicit: a checkpoint saved in half precision reloads so, which is slow and coarse on a CPU.
    return _load(loader, location, dtype=torch.float32).eval().to(pick_device())


def _load(loader: Any, location: str, **options: Any) -> Any:
    try:
        return loader.from_pretrained(location, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load metric model {location}: {str(error).splitlines()[0]}") from error


def _unit(features_BD: Tensor) -> np.ndarray:
    rows = features_BD.float().cpu().numpy()
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
