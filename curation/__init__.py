"""Mines (image, caption) corpora into grounded subject-caption pairs."""

from curation.config import BuildConfig
from curation.errors import UserError
from curation.runner import BuildResult, build_pairs, make_plan, run

__all__ = ["BuildConfig", "BuildResult", "UserError", "build_pairs", "make_plan", "run"]
