"""What is done with pixels: decoding, crops, masks, CLIP scores, duplicates."""

from curation.vision.crops import crop
from curation.vision.dedup import DuplicateIndex
from curation.vision.images import decode

__all__ = ["DuplicateIndex", "crop", "decode"]
