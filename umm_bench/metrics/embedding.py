"""Image and text encoders behind the metrics: each is loaded once, each image embedded once.

Pictures and texts go through a model one at a time: a batch would change the last digits of its members by what
stands beside them, and a score would depend on the order in which it was asked for. What it costs is little: most of
the time is the picture's decoding and resizing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from umm_bench.base import model_fingerprint, pick_device, resolve_model
from umm_bench.images import open_image
from umm_bench.metrics.base import Unusable
from umm_bench.metrics.features import Memory
from umm_bench.seeding import digest

if TYPE_CHECKING:
    from torch import Tensor

FEATURES_VERSION = 1
"""Raise it when a change alters features: those on disk are of another encoder then."""


class Encoder:
    """Unit-length float32 embeddings from a model in transformers format. Nothing loads before first use."""

    def __init__(self, name: str, part: str) -> None:
        """`name` is "mini", a folder or a hub id; `part` the member of the mini family that it stands for."""
        self.name, self.part = name, part
        self._memories: dict[str, Memory] = {}

    @cached_property
    def location(self) -> str:
        return resolve_model(self.name, self.part)

    @cached_property
    def fingerprint(self) -> str:
        return model_fingerprint(self.location)

    @cached_property
    def label(self) -> str:
        """Names the very weights, for protocols: "mini/encoder@1a2b3c4d" or a hub id."""
        if not Path(self.location).is_dir():
            return self.location
        family = "mini" if self.name == "mini" else Path(self.location).parent.name
        return f"{family}/{Path(self.location).name}@{self.fingerprint[:8]}"

    @property
    def weights(self) -> list[Path]:
        """The local folder, if it is one."""
        return [Path(self.location)] if Path(self.location).is_dir() else []

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
        return load_part(AutoImageProcessor, self.location, backend="pil")

    def memory(self, what: str) -> Memory:
        """Where features of this model are remembered; `what` says which ones."""
        if what not in self._memories:
            key = digest(FEATURES_VERSION, type(self).__name__, self.fingerprint, what)
            self._memories[what] = Memory(key)
        return self._memories[what]

    def images(self, paths: Sequence[Path]) -> np.ndarray:
        """Embeddings [N, D] of image files, in order. `UserError` naming a file that cannot be read."""
        return np.stack([self._image(path) for path in paths])

    def _image(self, path: Path) -> np.ndarray:
        return self.memory("picture").of(path, lambda: self.embed(open_image(path)))

    def crop(self, path: Path, edges: tuple[int, int, int, int]) -> np.ndarray:
        """Embedding [D] of a part of an image file: left, top, right, bottom in pixels."""
        return self.memory("crop").of(path, lambda: self.embed(open_image(path).crop(edges)), str(edges))

    def embed(self, image: Image.Image) -> np.ndarray:
        """Embedding [D] of an RGB image, remembered nowhere."""
        import torch

        pixels = self.processor([image], return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            return unit(self.pool(pixels.to(self.model.device)))[0]


class ClipEncoder(Encoder):
    """A `CLIPModel` or another dual encoder of transformers: images and texts in one space."""

    @cached_property
    def model(self) -> Any:
        from transformers import AutoModel

        import umm_bench.mini.towers  # noqa: F401  # registers the mini CLIP's image tower

        return with_texts(load_model(AutoModel, self.location), self.location)

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return load_part(AutoTokenizer, self.location)

    def pool(self, pixel_values_BCHW: Tensor) -> Tensor:
        return self.model.get_image_features(pixel_values=pixel_values_BCHW).pooler_output

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings [N, D] of texts, in order; each is cut at the model's length, its end token kept."""
        return np.stack([self._text(text) for text in texts])

    @cached_property
    def _text(self) -> Any:
        return lru_cache(maxsize=4096)(self._embed_text)

    def _embed_text(self, text: str) -> np.ndarray:
        import torch

        model = with_texts(self.model, self.location)
        # SigLIP's text tower was trained on padding, without a mask
        padded = model.config.model_type.startswith("siglip")
        padding = "max_length" if padded else False
        tokens = self.tokenizer(
            [text], padding=padding, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        names = ("input_ids",) if padded else ("input_ids", "attention_mask")
        with torch.inference_mode():
            inputs = {name: tokens[name].to(model.device) for name in names}
            return unit(model.get_text_features(**inputs).pooler_output)[0]

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

        return load_model(AutoModel, self.location)

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


def load_model(loader: Any, location: str) -> Any:
    """In float32, on the device. Unusable, in one line, where it does not load."""
    import torch

    # Explicit: a checkpoint saved in half precision reloads so, which is slow and coarse on a CPU.
    return load_part(loader, location, dtype=torch.float32).eval().to(pick_device())


def with_texts(model: Any, location: str) -> Any:
    """The model, Unusable where it has no text tower."""
    if not hasattr(model, "get_text_features"):
        raise Unusable(f"cannot load metric model {location}: a {model.config.model_type} has no text tower")
    return model


def load_part(loader: Any, location: str, **options: Any) -> Any:
    try:
        return loader.from_pretrained(location, **options)
    except (OSError, ValueError) as error:
        raise Unusable(f"cannot load metric model {location}: {str(error).splitlines()[0]}") from error


def unit(features_BD: Tensor) -> np.ndarray:
    rows = features_BD.float().cpu().numpy()
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
