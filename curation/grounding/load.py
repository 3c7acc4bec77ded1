"""From a detector's name to its backend."""

from __future__ import annotations

from pathlib import Path

from curation.config import BuildConfig
from curation.errors import UserError
from curation.grounding.base import Grounder, with_threshold
from curation.grounding.families import GROUNDING_DINO, OMDET, OWL, PUBLISHED_BOX_THRESHOLD, SAM3
from curation.vision.checkpoints import loading


def load_grounder(config: BuildConfig, detector: str) -> Grounder:
    """Raises `UserError` where ``detector`` is no checkpoint, or of no family that is known here."""
    config = with_threshold(config, detector)
    # Only here: a backend brings torch, which takes seconds, and a wrong argument is to be answered at once.
    if config.backend == "groundingdino-py":
        from curation.grounding import groundingdino_py

        return groundingdino_py.load(config, detector)
    kind = model_type(detector)
    if kind in GROUNDING_DINO:
        from curation.grounding.transformers_backend import TransformersGrounder

        return TransformersGrounder.load(config, detector)
    if kind in OWL:
        from curation.grounding.owl import OwlGrounder

        return OwlGrounder.load(config, detector)
    if kind in OMDET:
        from curation.grounding.omdet import OmDetGrounder

        return OmDetGrounder.load(config, detector)
    if kind in SAM3:
        from curation.grounding.sam3 import Sam3Grounder

        return Sam3Grounder.load(config, detector)
    known = ", ".join(PUBLISHED_BOX_THRESHOLD)
    raise UserError(f"--detector {detector} is of the type {kind}, which grounds no phrases here; known: {known}")


def model_type(detector: str) -> str:
    """Raises `UserError` where there is no configuration that transformers knows."""
    from transformers import AutoConfig

    looks_local = detector.startswith((".", "/", "~")) or Path(detector).exists()
    if looks_local and not (Path(detector) / "config.json").is_file():
        raise UserError(f"--detector {detector}: no config.json there; name a folder in transformers format")
    with loading("--detector", detector):
        return str(AutoConfig.from_pretrained(detector).model_type)
