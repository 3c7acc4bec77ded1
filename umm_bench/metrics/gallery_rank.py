"""Gallery rank: among look-alikes, is the subject the one that the image shows?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from umm_bench.methods import Subject
from umm_bench.metrics.base import Score, ScoredSample, all_pictures
from umm_bench.metrics.embedding import vision_encoder
from umm_bench.seeding import digest, path_digest
from umm_bench.suites.base import Suite


@dataclass(frozen=True)
class GalleryRankConfig:
    """`model`: "mini", a folder or a hub id of an image encoder. `look_alikes`: how many the subject is among."""

    model: str = "mini"
    look_alikes: int = 9

    def __post_init__(self) -> None:
        if self.look_alikes < 1:
            raise ValueError(f"look_alikes must be at least 1, not {self.look_alikes}")


class GalleryRank:
    """The subject's place in a gallery of the suite's subjects, by mean cosine to all pictures of each; 1 is best.

    The look-alikes are other subjects of its class, then of its kind, then any, each in the suite's order. Equals are
    counted before it. `gallery_reciprocal_rank` is 1 over the rank, whose mean is less moved by a few hopeless images.
    """

    name = "gallery_rank"
    like = "dino"
    config_class = GalleryRankConfig
    lower_is_better = ("gallery_rank",)

    def __init__(self, config: GalleryRankConfig, suite: Suite) -> None:
        self.config, self.suite = config, suite
        self.encoder = vision_encoder(config.model)

    @cached_property
    def _subjects(self) -> list[Subject]:
        return self.suite.subjects()

    @cached_property
    def protocol(self) -> str:
        known = [(s.id, s.class_noun, s.kind, [path_digest(p) for p in all_pictures(s)]) for s in self._subjects]
        gallery = f"{self.config.look_alikes} look-alikes of {self.suite.name}@{digest(known, length=8)}"
        return f"gallery_rank/1: by mean cosine to all pictures, {gallery}, {self.encoder.label}"

    @property
    def weights(self) -> Sequence[Path]:
        return [*self.encoder.weights, *sorted({p.parent for s in self._subjects for p in all_pictures(s)})]

    def why_not(self, sample: ScoredSample) -> str | None:
        return None if self.gallery(sample, sample.case.subjects[0]) else "the suite has no other subject"

    def gallery(self, sample: ScoredSample, subject: Subject) -> list[Subject]:
        """Whom the subject is held against; never one that the same image is to show."""
        shown = {other.id for other in sample.case.subjects}
        others = [other for other in self._subjects if other.id not in shown]
        others.sort(key=lambda other: (other.class_noun != subject.class_noun, other.kind != subject.kind))
        return others[: self.config.look_alikes]

    def score(self, batch: Sequence[ScoredSample]) -> list[Score]:
        return [row for sample in batch for subject in sample.case.subjects for row in self._rows(sample, subject)]

    def _rows(self, sample: ScoredSample, subject: Subject) -> list[Score]:
        (image,) = self.encoder.images([sample.path])
        own, *others = (
            float(np.mean(self.encoder.images(all_pictures(one)) @ image))
            for one in (subject, *self.gallery(sample, subject))
        )
        rank = 1 + sum(other >= own for other in others)
        ranked = sorted(zip(others, self.gallery(sample, subject), strict=True), key=lambda pair: -pair[0])
        evidence = {"own": round(own, 4), "others": {one.id: round(value, 4) for value, one in ranked}}
        nearest, likeness = ranked[0][1].id, ranked[0][0]
        says = f"number {rank} of {len(others) + 1}: {own:.3f}, the nearest other is {nearest} with {likeness:.3f}"
        return [
            Score(sample.key, name, self.protocol, value, says, evidence, subject.id)
            for name, value in (("gallery_rank", float(rank)), ("gallery_reciprocal_rank", 1 / rank))
        ]
