"""Where in an image a phrase's object is: ``(images, phrases) -> boxes with scores per phrase``."""

from curation.grounding.base import Grounder, read_operating_point, with_threshold
from curation.grounding.load import load_grounder

__all__ = ["Grounder", "load_grounder", "read_operating_point", "with_threshold"]
