"""Dense features of a picture, one vector a patch, and which of the patches are the subject's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from umm_bench.errors import UserError
from umm_bench.images import open_image
from umm_bench.metrics.base import Unusable
from umm_bench.metrics.detection import Detector
from umm_bench.metrics.embedding import ClipEncoder, load_model, unit

if TYPE_CHECKING:
    from torch import Tensor

    from curation.records import Box

HALF = 0.5
"""A patch belongs to what covers so much of it."""
LEAST_LEFT = 0.05
"""Of an image: with less of it there is no background to speak of."""


@dataclass(frozen=True)
class Patches:
    """`features_ND` by rows of the grid (height, width); N = height * width."""

    features_ND: np.ndarray
    grid: tuple[int, int]

    @property
    def unit(self) -> np.ndarray:
        features = self.features_ND.astype(np.float32)
        return features / np.linalg.norm(features, axis=-1, keepdims=True)


class PatchEncoder(ClipEncoder):
    """The patches that an image tower ends with: SigLIP's, SigLIP 2's of either kind, a CLIP's or another vision
    transformer's, or the cells of a convolutional network's map.

    They are kept in half precision, and are rounded to it before they are used: kept or not, they are the same.
    """

    def __init__(self, name: str, part: str, stage: int = -1) -> None:
        """`stage`: which of a convolutional network's maps, from behind."""
        super().__init__(name, part)
        self.stage = stage

    @property
    def model(self) -> Any:
        return _tower(self.location)

    def patches(self, path: Path) -> Patches:
        """UserError for a picture that cannot be read."""
        map_HWD = self.memory(f"patches {self.stage}").of(path, lambda: self._map(open_image(path)))
        height, width, depth = map_HWD.shape
        return Patches(map_HWD.reshape(height * width, depth), (height, width))

    def _map(self, image: Image.Image) -> np.ndarray:
        import torch

        inputs = self.processor([image], return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            return _map(self.model, inputs, self.stage).float().cpu().numpy().astype(np.float16)

    def coverage(self, path: Path, boxes: Sequence[Box], grid: tuple[int, int]) -> np.ndarray:
        """Of each patch [N] the share that the boxes cover, in what the model sees of the picture."""
        left, top, right, bottom = self._seen(open_image(path).size)
        fine, (height, width) = 8, grid
        columns = left + (np.arange(width * fine) + 0.5) / (width * fine) * (right - left)
        lines = top + (np.arange(height * fine) + 0.5) / (height * fine) * (bottom - top)
        inside = np.zeros((height * fine, width * fine), bool)
        for box in boxes:
            inside |= np.outer((lines >= box.y0) & (lines < box.y1), (columns >= box.x0) & (columns < box.x1))
        return inside.reshape(height, fine, width, fine).mean(axis=(1, 3)).ravel()

    def _seen(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of what is left after a centre crop, of a picture of 1 x 1."""
        crop, shortest = getattr(self.processor, "crop_size", None), self._shortest_edge
        if not getattr(self.processor, "do_center_crop", False) or not crop or not shortest:
            return 0.0, 0.0, 1.0, 1.0
        scale = shortest / min(size)
        across, down = (min(1.0, crop[side] / (n * scale)) for side, n in zip(("width", "height"), size, strict=True))
        return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2

    @property
    def _shortest_edge(self) -> int | None:
        size = self.processor.size
        return size.get("shortest_edge") if hasattr(size, "get") else getattr(size, "shortest_edge", None)

    def pooled(self, patches: Patches, share_N: np.ndarray) -> np.ndarray:
        """Embedding [D] in the space of texts, as the model pools its own patches, but only of the given shares.

        A head that attends looks at the patches of which more than half is given, a mean over a network's map weighs
        its cells. UserError where (next to) nothing is given; Unusable for a model that does not pool patches.
        """
        import torch

        features = torch.from_numpy(patches.features_ND.astype(np.float32)).to(self.model.device)
        with torch.inference_mode():
            if head := getattr(getattr(self.model, "vision_model", None), "head", None):
                _check_left(float((share_N > HALF).mean()))
                # attention over the patches that are left is attention with the others masked
                return unit(head(features[torch.from_numpy(share_N > HALF)][None]))[0]
            if _is_convolutional(self.model) and hasattr(self.model, "visual_projection"):
                _check_left(float(share_N.mean()))
                weights = torch.from_numpy(share_N / share_N.sum()).to(features)
                return unit(self.model.visual_projection(weights @ features)[None])[0]
        raise Unusable(f"metric model {self.location}: a {self.model.config.model_type} does not pool patches")


def foreground(encoder: PatchEncoder, detector: Detector, path: Path, nouns: Sequence[str]) -> np.ndarray | None:
    """Of each patch [N] the share that things of these nouns cover, the surest of each; None where none is found."""
    boxes = [box for noun in dict.fromkeys(nouns) for box in detector.boxes(path, noun)[: nouns.count(noun)]]
    if not boxes:
        return None
    return encoder.coverage(path, boxes, encoder.patches(path).grid)


@cache
def _tower(location: str) -> Any:
    from transformers import AutoModel

    import umm_bench.mini.towers  # noqa: F401  # registers the mini CLIP's image tower

    return load_model(AutoModel, location)


def _check_left(share: float) -> None:
    if share < LEAST_LEFT:
        raise UserError(f"the subject fills the image: {share:.0%} of it is left")


def _is_convolutional(model: Any) -> bool:
    return hasattr(getattr(model.config, "vision_config", model.config), "hidden_sizes")


def _map(model: Any, inputs: Any, stage: int) -> Tensor:
    """[H, W, D] of one prepared picture."""
    vision = getattr(model, "vision_model", model)
    pixels = inputs["pixel_values"]
    if _is_convolutional(model):
        states = vision(pixel_values=pixels, output_hidden_states=True).hidden_states
        return states[stage][0].permute(1, 2, 0)
    if "spatial_shapes" in inputs:  # patches are cut already, and padded
        height, width = inputs["spatial_shapes"][0].tolist()
        hidden = getattr(model, "get_image_features", model)(**inputs).last_hidden_state
        return hidden[0, : height * width].reshape(height, width, -1)
    patch = getattr(model.config, "vision_config", model.config).patch_size
    height, width = pixels.shape[-2] // patch, pixels.shape[-1] // patch
    hidden = vision(pixel_values=pixels).last_hidden_state
    # before them stand a CLS token and perhaps registers
    return hidden[0, -height * width :].reshape(height, width, -1)
