"""What a build may ask besides the detector: a CLIP about its crops, a SAM for masks, an earlier build's images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from PIL import Image

from curation.config import BuildConfig
from curation.defaults import default
from curation.errors import Rejected, UserError
from curation.records import Box, Phrase
from curation.vision.checkpoints import checkpoint_id
from curation.vision.crops import crop
from curation.vision.dedup import DuplicateIndex
from curation.vision.images import to_png

if TYPE_CHECKING:
    from curation.vision.clip import ClipScorer
    from curation.vision.masks import SamSegmenter


@dataclass(frozen=True)
class Found:
    """A phrase's box, with what the models said about it; ``mask`` is a PNG of the crop's size."""

    box: Box
    clip_score: float | None = None
    mask: bytes | None = None


@dataclass
class PairModels:
    """All three are optional; without any, boxes pass as they are, with the masks that the detector made."""

    clip: ClipScorer | None = None
    segmenter: SamSegmenter | None = None
    earlier: DuplicateIndex | None = None
    min_clip_score: float = 0.0

    @classmethod
    def load(cls, config: BuildConfig) -> Self:
        """Raises `UserError` where something that was named is not there."""
        models = cls(min_clip_score=config.min_clip_score)
        if config.clip:
            from curation.vision.clip import ClipScorer

            models.clip = ClipScorer.load(clip_checkpoint(config.clip), config.device)
        if config.segmenter:
            from curation.vision.masks import SamSegmenter

            models.segmenter = SamSegmenter.load(config.segmenter, config.device)
        if config.dedup_against:
            folder = Path(config.dedup_against)
            models.earlier = DuplicateIndex.of_build(folder, config.near_duplicate_bits, config.semantic_duplicates)
        return models

    def embed(self, images: Sequence[Image.Image]) -> list[tuple[float, ...]]:
        """Unit embeddings, for semantic duplicates."""
        if self.clip is None:
            raise UserError("--semantic-duplicates needs embeddings; name a checkpoint with --clip")
        return [tuple(embedding) for embedding in self.clip.embed(images).tolist()]

    def judge(
        self,
        images: Sequence[Image.Image],
        phrases: Sequence[Sequence[Phrase]],
        outcomes: Sequence[Sequence[Box | Rejected]],
    ) -> list[list[Found | Rejected]]:
        """What is left of each phrase's box: ``result[image][phrase]``."""
        result: list[list[Found | Rejected]] = [
            [Found(outcome, mask=outcome.mask) if isinstance(outcome, Box) else outcome for outcome in row]
            for row in outcomes
        ]
        if self.clip is not None:
            places = [(i, j) for i, row in enumerate(outcomes) for j, box in enumerate(row) if isinstance(box, Box)]
            crops = [crop(images[i], outcomes[i][j]) for i, j in places]  # type: ignore[arg-type]  # boxes, as above
            scores = self.clip.score(crops, [phrases[i][j].text.lower() for i, j in places])
            for (i, j), score in zip(places, scores, strict=True):
                result[i][j] = self._scored(outcomes[i][j], score)
        if self.segmenter is not None:
            for i, row in enumerate(result):
                kept = [(j, found) for j, found in enumerate(row) if isinstance(found, Found)]
                masks = self.segmenter.segment(images[i], [found.box for _, found in kept])
                for (j, found), mask in zip(kept, masks, strict=True):
                    row[j] = Found(found.box, found.clip_score, to_png(mask))
        return result

    def _scored(self, box: Box | Rejected, score: float) -> Found | Rejected:
        assert isinstance(box, Box)  # only boxes are scored
        return (
            Found(box, score, box.mask) if score >= self.min_clip_score else Rejected("low_clip_score", f"{score:.2f}")
        )


def clip_checkpoint(name: str) -> str:
    return default("scoring_clip") if name == "mini" else name


def model_ids(config: BuildConfig) -> list[str]:
    """Identities of what `PairModels.load` reads, for a build's fingerprint.

    Raises:
        UserError: an earlier build that is not there.
    """
    ids = []
    if config.clip:
        ids.append(f"clip {checkpoint_id(clip_checkpoint(config.clip))}")
    if config.segmenter:
        ids.append(f"segmenter {checkpoint_id(config.segmenter)}")
    if config.dedup_against:
        manifest = Path(config.dedup_against) / "manifest.json"
        if not manifest.is_file():
            raise UserError(f"--dedup-against {config.dedup_against}: no build there")
        ids.append(f"without {hashlib.sha256(manifest.read_bytes()).hexdigest()[:16]}")
    return ids
