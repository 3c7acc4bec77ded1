"""From a caption to the phrases that name a subject."""

from curation.language.captions import clean_caption
from curation.language.concepts import count_concepts
from curation.language.phrases import PhraseExtractor

__all__ = ["PhraseExtractor", "clean_caption", "count_concepts"]
