"""The families of detectors, by the ``model_type`` of their configuration, and the threshold that each publishes."""

from __future__ import annotations

import json
from pathlib import Path

GROUNDING_DINO = ("grounding-dino", "mm-grounding-dino")  # LLMDet is of the second
OWL = ("owlvit", "owlv2")
OMDET = ("omdet-turbo",)
SAM3 = ("sam3", "sam3_video")  # the published checkpoint is of the second, with the image model in it

# GroundingDINO's is Subject-Diffusion's too (data_process.py); OWL's and OmDet's are those of their post-processing in
# transformers, SAM 3's is its own processor's.
PUBLISHED_BOX_THRESHOLD = {
    **dict.fromkeys(GROUNDING_DINO, 0.25),
    **dict.fromkeys(OWL, 0.1),
    **dict.fromkeys(OMDET, 0.3),
    **dict.fromkeys(SAM3, 0.5),
}
DEFAULT_BOX_THRESHOLD = 0.25


def published_threshold(detector: str) -> float:
    """What the detector's family works at. A name that cannot be looked up is an error later, when it is loaded."""
    file = config_file(detector)
    try:
        kind = json.loads(file.read_text()).get("model_type") if file else None
    except (OSError, ValueError, AttributeError):
        kind = None
    return PUBLISHED_BOX_THRESHOLD.get(str(kind), DEFAULT_BOX_THRESHOLD)


def config_file(detector: str) -> Path | None:
    """The checkpoint's config.json: in its folder, or of the hub; None where there is none."""
    file = Path(detector) / "config.json"
    if Path(detector).exists() or detector.startswith((".", "/", "~")):
        return file if file.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(detector, "config.json"))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError):
        return None
