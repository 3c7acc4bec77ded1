"""One shard, from rows to pairs: captions, phrases, scores, download, decode, duplicates, boxes, crops.

Cheap before dear: nothing is downloaded for a hopeless caption, nothing decoded for a bad score, no detector
runs on a duplicate. Every stage takes candidates and gives those that are left; the tally says where the rest went.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from PIL import Image

from curation.captions import clean_caption
from curation.config import BuildConfig
from curation.dedup import DuplicateIndex, content_hash, perceptual_hash
from curation.errors import Rejected
from curation.fetch import FetchPolicy, fetch_all
from curation.filters import check_scores, choose_boxes
from curation.grounding import Grounder
from curation.images import decode, to_png
from curation.phrases import PhraseExtractor
from curation.records import BadRow, Box, Pair, Phrase, Sample, pair_id
from curation.tally import Tally

# Rows in flight. They are written and forgotten together, so memory does not grow with the shard.
CHUNK_ROWS = 128


@dataclass(frozen=True)
class Candidate:
    """A row on its way; later stages fill in the later fields."""

    sample: Sample
    caption: str = ""
    phrases: tuple[Phrase, ...] = ()
    sha256: str = ""
    phash: str = ""
    image: Image.Image | None = None


@dataclass
class ShardMiner:
    """Mines one shard; make a new one for the next, as duplicates are told within it."""

    config: BuildConfig
    extractor: PhraseExtractor
    grounder: Grounder
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self._seen = DuplicateIndex(self.config.near_duplicate_bits)
        self.extractor.forget()

    def mine(self, rows: Iterable[Sample | BadRow], limit: int | None = None) -> Iterator[list[Pair]]:
        """Pairs of one chunk of rows after another, in the rows' order."""
        wanted = islice(rows, limit)
        while chunk := list(islice(wanted, CHUNK_ROWS)):
            self.tally.rows_read += len(chunk)
            yield self._mine_chunk(chunk)

    def _mine_chunk(self, chunk: Iterable[Sample | BadRow]) -> list[Pair]:
        candidates = []
        for row in chunk:
            if isinstance(row, BadRow):
                self.tally.reject_row(Rejected(row.reason, row.detail), row.key)
            else:
                candidates.append(Candidate(row, row.caption))
        for stage in (self._check_row, self._take_phrases, self._download, self._open, self._check_near):
            candidates = stage(candidates)
        return self._ground(candidates)

    def _each(self, candidates: Iterable[Candidate], step: Callable[[Candidate], Candidate]) -> list[Candidate]:
        """Those that ``step`` lets through; the others are counted, with their phrases."""
        left = []
        for candidate in candidates:
            try:
                left.append(step(candidate))
            except Rejected as rejection:
                self._reject(candidate, rejection)
        return left

    def _reject(self, candidate: Candidate, rejection: Rejected) -> None:
        self.tally.reject_row(rejection, candidate.caption)
        for phrase in candidate.phrases:
            self.tally.reject_phrase(Rejected("row_rejected"), phrase.text)

    def _check_row(self, candidates: list[Candidate]) -> list[Candidate]:
        def step(candidate: Candidate) -> Candidate:
            check_scores(candidate.sample, self.config)
            return replace(candidate, caption=clean_caption(candidate.sample.caption, self.config))

        return self._each(candidates, step)

    def _take_phrases(self, candidates: list[Candidate]) -> list[Candidate]:
        extractions = self.extractor([candidate.caption for candidate in candidates])
        with_phrases = []
        for candidate, extraction in zip(candidates, extractions, strict=True):
            self.tally.phrases += len(extraction.phrases) + len(extraction.refused)
            for text, rejection in extraction.refused:
                self.tally.reject_phrase(rejection, text)
            if extraction.phrases:
                with_phrases.append(replace(candidate, phrases=extraction.phrases))
            else:
                self._reject(candidate, Rejected("caption_without_phrase"))
        return with_phrases

    def _download(self, candidates: list[Candidate]) -> list[Candidate]:
        policy = FetchPolicy(
            max_bytes=self.config.max_image_bytes,
            timeout=self.config.fetch_timeout,
            contact=self.config.user_agent_contact,
        )
        urls = [c.sample.url or "" for c in candidates if c.sample.image is None]
        fetched = iter(fetch_all(urls, policy, self.config.fetch_workers))

        def step(candidate: Candidate) -> Candidate:
            if candidate.sample.image is not None:
                return candidate
            image = next(fetched)
            if isinstance(image, Rejected):
                raise image
            return replace(candidate, sample=replace(candidate.sample, image=image))

        return self._each(candidates, step)

    def _open(self, candidates: list[Candidate]) -> list[Candidate]:
        def step(candidate: Candidate) -> Candidate:
            data = candidate.sample.image or b""
            digest = content_hash(data)
            if data and self._seen.has_bytes(digest):
                raise Rejected("duplicate_exact")
            image = decode(data, self.config)
            self._seen.add_bytes(digest)
            return replace(candidate, image=image, sha256=digest, phash=perceptual_hash(image))

        return self._each(candidates, step)

    def _check_near(self, candidates: list[Candidate]) -> list[Candidate]:
        def step(candidate: Candidate) -> Candidate:
            if self._seen.has_near(candidate.phash):
                raise Rejected("duplicate_near")
            self._seen.add_near(candidate.phash)
            return candidate

        return self._each(candidates, step)

    def _ground(self, candidates: list[Candidate]) -> list[Pair]:
        images = [candidate.image for candidate in candidates if candidate.image is not None]
        phrases = [[phrase.text for phrase in candidate.phrases] for candidate in candidates]
        pairs: list[Pair] = []
        for candidate, image, boxes in zip(candidates, images, self.grounder.ground(images, phrases), strict=True):
            outcome = choose_boxes(boxes, image.width, image.height, self.config)
            own = []
            for phrase, box in zip(candidate.phrases, outcome, strict=True):
                if isinstance(box, Rejected):
                    self.tally.reject_phrase(box, phrase.text)
                else:
                    own.append(make_pair(candidate, image, phrase, box))
            if own:
                self.tally.rows_kept += 1
            else:
                self.tally.reject_row(Rejected("row_without_box"), candidate.caption)
            pairs += own
        self.tally.pairs += len(pairs)
        return pairs


def make_pair(candidate: Candidate, image: Image.Image, phrase: Phrase, box: Box) -> Pair:
    sample = candidate.sample
    assert sample.image is not None  # `_open` decoded it
    edges = (
        math.floor(box.x0 * image.width),
        math.floor(box.y0 * image.height),
        math.ceil(box.x1 * image.width),
        math.ceil(box.y1 * image.height),
    )
    return Pair(
        id=pair_id(candidate.sha256, candidate.caption, phrase),
        key=sample.key,
        url=sample.url,
        image=sample.image,
        caption=candidate.caption,
        phrase=phrase.text,
        phrase_start=phrase.start,
        phrase_end=phrase.end,
        head=phrase.head,
        concept=phrase.concept,
        box=(box.x0, box.y0, box.x1, box.y1),
        score=box.score,
        crop=to_png(image.crop(edges)),
        width=image.width,
        height=image.height,
        punsafe=sample.punsafe,
        pwatermark=sample.pwatermark,
        similarity=sample.similarity,
        phash=candidate.phash,
        sha256=candidate.sha256,
    )
