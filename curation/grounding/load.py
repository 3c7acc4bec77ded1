"""From a detector's name to its backend."""

from __future__ import annotations

from curation.config import BuildConfig
from curation.grounding.base import Grounder, with_threshold


def load_grounder(config: BuildConfig, detector: str) -> Grounder:
    """Raises `UserError` where ``detector`` is no checkpoint."""
    config = with_threshold(config, detector)
    # Only here: a backend brings torch, which takes seconds, and a wrong argument is to be answered at once.
    if config.backend == "groundingdino-py":
        from curation.grounding import groundingdino_py

        return groundingdino_py.load(config, detector)
    from curation.grounding.transformers_backend import TransformersGrounder

    return TransformersGrounder.load(config, detector)
