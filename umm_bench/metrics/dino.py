"""DINO: how close is the image to the subject's references, to a self-supervised encoder's eye?"""

from dataclasses import dataclass

from umm_bench.metrics.detection import detector
from umm_bench.metrics.embedding import vision_encoder
from umm_bench.metrics.fidelity import CROPS, CropsToReferences, ToInput, ToReferences
from umm_bench.suites.base import Suite


@dataclass(frozen=True)
class DinoConfig:
    """`model`: "mini", a folder or a hub id of an image encoder, e.g. facebook/dino-vits16.

    Images are prepared as the model's own `preprocessor_config.json` says.
    """

    model: str = "mini"


@dataclass(frozen=True)
class DinoCropConfig(DinoConfig):
    """`detector`: "mini", a folder or a hub id of a GroundingDINO in transformers format."""

    detector: str = "mini"


class Dino(ToReferences):
    """Mean cosine to all references, of CLS tokens or a convolutional network's pooled maps.

    Unlike CLIP, the encoder was not taught that all dogs are alike.
    """

    name = "dino"
    like = "dino"
    config_class = DinoConfig

    def __init__(self, config: DinoConfig, suite: Suite) -> None:
        encoder = vision_encoder(config.model)
        super().__init__(
            encoder, f"dino/1: mean cosine of CLS tokens or pooled maps to all references, {encoder.label}"
        )


class DinoInput(ToInput):
    """Cosine to the one input image, as in the scripts of Kosmos-G and DreamBench++."""

    name = "dino_input"
    like = "dino"
    config_class = DinoConfig

    def __init__(self, config: DinoConfig, suite: Suite) -> None:
        encoder = vision_encoder(config.model)
        super().__init__(
            encoder, f"dino_input/1: cosine of CLS tokens or pooled maps to the first reference, {encoder.label}"
        )


class DinoCrop(CropsToReferences):
    """Mean cosine of crops to all references' crops, the best of three, as in XVerse's script."""

    name = "dino_crop"
    config_class = DinoCropConfig

    def __init__(self, config: DinoCropConfig, suite: Suite) -> None:
        encoder, finder = vision_encoder(config.model), detector(config.detector)
        super().__init__(
            encoder,
            finder,
            f"dino_crop/1: mean cosine to all references' crops, the best of {CROPS} crops, 0 without one, "
            f"{encoder.label}, {finder.label}",
        )
