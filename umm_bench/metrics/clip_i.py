"""CLIP-I: how close is the image to the subject's references, to CLIP's eye?"""

from dataclasses import dataclass

from umm_bench.metrics.detection import detector
from umm_bench.metrics.embedding import clip_encoder
from umm_bench.metrics.fidelity import CROPS, CropsToReferences, ToInput, ToReferences
from umm_bench.suites.base import Suite


@dataclass(frozen=True)
class ClipIConfig:
    """`model`: "mini", a folder or a hub id of a CLIPModel or a VisionTextDualEncoderModel."""

    model: str = "mini"


@dataclass(frozen=True)
class ClipICropConfig(ClipIConfig):
    """`detector`: "mini", a folder or a hub id of a GroundingDINO in transformers format."""

    detector: str = "mini"


class ClipI(ToReferences):
    """Mean cosine to all references, by the CLIP of CLIP-T."""

    name = "clip_i"
    like = "clip_i"
    config_class = ClipIConfig

    def __init__(self, config: ClipIConfig, suite: Suite) -> None:
        encoder = clip_encoder(config.model)
        super().__init__(encoder, f"clip_i/1: mean cosine to all references, {encoder.label}")


class ClipIInput(ToInput):
    """Cosine to the one input image, as in the scripts of Kosmos-G and DreamBench++."""

    name = "clip_i_input"
    like = "clip_i"
    config_class = ClipIConfig

    def __init__(self, config: ClipIConfig, suite: Suite) -> None:
        encoder = clip_encoder(config.model)
        super().__init__(encoder, f"clip_i_input/1: cosine to the first reference, {encoder.label}")


class ClipICrop(CropsToReferences):
    """Mean cosine of crops to all references' crops, the best of three."""

    name = "clip_i_crop"
    config_class = ClipICropConfig

    def __init__(self, config: ClipICropConfig, suite: Suite) -> None:
        encoder, finder = clip_encoder(config.model), detector(config.detector)
        super().__init__(
            encoder,
            finder,
            f"clip_i_crop/1: mean cosine to all references' crops, the best of {CROPS} crops, 0 without one, "
            f"{encoder.label}, {finder.label}",
        )
