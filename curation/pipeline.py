"""One shard, from rows to pairs: captions, phrases, scores, download, decode, duplicates, boxes, crops.

Cheap before dear: nothing is downloaded for a hopeless caption, nothing decoded for a bad score, no detector
runs on a duplicate. Every stage takes candidates and gives those that are left; the tally says where the rest went.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from itertools import islice

from PIL import Image

from curation.config import BuildConfig
from curation.errors import Rejected
from curation.filters import check_scores, choose_boxes
from curation.grounding import Grounder
from curation.grounding.crowds import look_around
from curation.language.captions import clean_caption
from curation.language.focus import Focus, Name, Quota
from curation.language.phrases import PhraseExtractor
from curation.output.tally import Picture, Tally
from curation.records import BadRow, Crowd, Failure, Pair, Phrase, Sample, pair_id
from curation.vision.crops import crop
from curation.vision.dedup import DuplicateIndex, content_hash, perceptual_hash
from curation.vision.images import decode, to_png
from curation.vision.models import Found, PairModels
from curation.web.fetch import FetchPolicy, outcome, shared_fetcher
from curation.web.prefetch import prefetch

# Rows that go through the stages together. Three chunks are in flight (in preparation, ready, at the detector), so
# memory does not grow with the shard.
CHUNK_ROWS = 128
CHUNKS_AHEAD = 1
# Of a URL list, chunks whose downloads are under way before the oldest of them is waited for: a slow host holds up
# only its own rows.
DOWNLOADS_AHEAD = 4
# Before a chunk is begun, the one so many before it has been through the detector, however fast either is.
CHUNKS_BEHIND = DOWNLOADS_AHEAD + CHUNKS_AHEAD + 2


@dataclass(frozen=True)
class Candidate:
    """A row on its way; later stages fill in the later fields."""

    sample: Sample
    caption: str = ""
    phrases: tuple[Phrase, ...] = ()
    sha256: str = ""
    phash: str = ""
    image: Image.Image | None = None
    embedding: tuple[float, ...] | None = None


@dataclass
class ShardMiner:
    """Mines one shard; make a new one for the next, as duplicates are told within it.

    ``failures`` are the rows whose download failed, for a later build to try again.
    """

    config: BuildConfig
    extractor: PhraseExtractor
    grounder: Grounder
    models: PairModels = field(default_factory=PairModels)
    tally: Tally = field(default_factory=Tally)
    failures: list[Failure] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chunk_tally = Tally()  # of the chunk in preparation
        self._given: Counter[str] = Counter()  # examples in all chunks' tallies
        self._seen = DuplicateIndex(self.config.near_duplicate_bits, self.config.semantic_duplicates)
        focus = Focus.of(self.config)
        self._quota = None if focus is None else Quota(focus)
        self._chunks = -1  # number of the one in preparation
        self.extractor.forget()

    def mine(self, rows: Iterable[Sample | BadRow], limit: int | None = None) -> Iterator[list[Pair]]:
        """Pairs of one chunk of rows after another, in the rows' order."""
        for candidates, tally in prefetch(self.prepare(rows, limit), CHUNKS_AHEAD):
            self.tally.add(tally)
            yield self.ground(candidates)

    def prepare(
        self, rows: Iterable[Sample | BadRow], limit: int | None = None
    ) -> Iterator[tuple[list[Candidate], Tally]]:
        """Chunk by chunk, the rows that the detector has to see, and what became of the others."""
        wanted = iter(rows) if limit is None else up_to(rows, limit)
        ahead: deque[tuple[list[Candidate], list[Future[bytes]], Tally]] = deque()
        while chunk := list(islice(wanted, CHUNK_ROWS)):
            ahead.append(self._begin(chunk))
            while ahead and (len(ahead) > DOWNLOADS_AHEAD or not ahead[0][1]):
                yield self._end(*ahead.popleft())
        while ahead:
            yield self._end(*ahead.popleft())

    def remember(
        self, digests: Iterable[str], phashes: Iterable[str], embeddings: Iterable[tuple[float, ...] | None]
    ) -> None:
        """Images that the shard has already."""
        for digest, phash, embedding in zip(digests, phashes, embeddings, strict=True):
            self._seen.add_bytes(digest)
            self._seen.add_near(phash)
            self._seen.add_similar(embedding)

    def remember_pairs(self, pairs: Sequence[Name]) -> None:
        """Pairs that the shard has already, for the quotas."""
        if self._quota:
            self._quota.choose(pairs)

    def tally_of_failed(self, failures: Sequence[Failure]) -> Tally:
        """What rows counted as when their downloads failed."""
        reasons = {failure.sample.key: failure.reason for failure in failures}
        for candidate in self._caption([failure.sample for failure in failures]):
            self._reject(candidate, Rejected(reasons[candidate.sample.key]))
        return self._chunk_tally

    def _begin(self, chunk: Sequence[Sample | BadRow]) -> tuple[list[Candidate], list[Future[bytes]], Tally]:
        """What the captions and scores leave of a chunk, and the downloads that were started for it."""
        self._chunks += 1
        candidates = self._caption(chunk)
        urls = [candidate.sample.url or "" for candidate in candidates if candidate.sample.image is None]
        downloads = shared_fetcher(fetch_policy(self.config)).start(urls) if urls else []
        return candidates, downloads, self._chunk_tally

    def _caption(self, chunk: Sequence[Sample | BadRow]) -> list[Candidate]:
        """The rows with phrases, in a new chunk's tally."""
        self._chunk_tally = Tally(given=self._given)
        candidates = []
        for row in chunk:
            if isinstance(row, BadRow):
                self._chunk_tally.rows_read += row.rows
                self._chunk_tally.reject_row(Rejected(row.reason, row.detail, rows=row.rows), row.key)
            else:
                self._chunk_tally.rows_read += 1
                candidates.append(Candidate(row, row.caption))
        return self._take_phrases(self._check_row(candidates))

    def _end(
        self, candidates: list[Candidate], downloads: list[Future[bytes]], tally: Tally
    ) -> tuple[list[Candidate], Tally]:
        self._chunk_tally = tally
        return self._check_similar(self._check_near(self._open(self._download(candidates, downloads)))), tally

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
        self._chunk_tally.reject_row(rejection, candidate.caption, self._picture(candidate))
        for phrase in candidate.phrases:
            self._chunk_tally.reject_phrase(Rejected("row_rejected"), phrase.text)

    def _picture(self, candidate: Candidate) -> Picture:
        """For the report: a row that its caption ruled out was never decoded."""

        def picture() -> Image.Image | None:
            try:
                return candidate.image or decode(candidate.sample.image or b"", self.config)
            except Rejected:
                return None

        return picture

    def _check_row(self, candidates: list[Candidate]) -> list[Candidate]:
        def step(candidate: Candidate) -> Candidate:
            check_scores(candidate.sample, self.config)
            return replace(candidate, caption=clean_caption(candidate.sample.caption, self.config))

        return self._each(candidates, step)

    def _take_phrases(self, candidates: list[Candidate]) -> list[Candidate]:
        extractions = self.extractor([candidate.caption for candidate in candidates])
        with_phrases = []
        for candidate, extraction in zip(candidates, extractions, strict=True):
            self._chunk_tally.phrases += len(extraction.phrases) + len(extraction.refused)
            for text, rejection in extraction.refused:
                self._chunk_tally.reject_phrase(rejection, text, self._picture(candidate))
            if extraction.phrases:
                with_phrases.append(replace(candidate, phrases=extraction.phrases))
            else:
                self._reject(candidate, Rejected("caption_without_phrase"))
        return self._check_focus(with_phrases)

    def _check_focus(self, candidates: list[Candidate]) -> list[Candidate]:
        """Nothing is downloaded for what has been full for CHUNKS_BEHIND: what is newer depends on the pace."""
        if (quota := self._quota) is None:
            return candidates

        def step(candidate: Candidate) -> Candidate:
            concepts = self._named(candidate)
            if not concepts:
                raise Rejected("not_in_focus")
            if all(quota.is_full(concept, self._chunks - CHUNKS_BEHIND + 1) for concept in concepts):
                raise Rejected("focus_quota_reached", ", ".join(concepts))
            return candidate

        return self._each(candidates, step)

    def _named(self, candidate: Candidate) -> list[str]:
        """The concepts in focus that the caption names."""
        assert self._quota is not None
        named = self._quota.focus.named
        found = (named(phrase.text, phrase.head, phrase.concept, phrase.noun) for phrase in candidate.phrases)
        return [concept for concept in found if concept is not None]

    def _download(self, candidates: list[Candidate], downloads: list[Future[bytes]]) -> list[Candidate]:
        fetched = iter(downloads)

        def step(candidate: Candidate) -> Candidate:
            if candidate.sample.image is not None:
                return candidate
            image = outcome(next(fetched))
            if isinstance(image, Rejected):
                self.failures.append(Failure(candidate.sample, image.reason, image.detail, image.transient))
                raise image
            return replace(candidate, sample=replace(candidate.sample, image=image))

        return self._each(candidates, step)

    def _open(self, candidates: list[Candidate]) -> list[Candidate]:
        def step(candidate: Candidate) -> Candidate:
            data = candidate.sample.image or b""
            digest = content_hash(data)
            if data and self._seen.has_bytes(digest):
                raise Rejected("duplicate_exact")
            if self.models.earlier is not None and self.models.earlier.has_bytes(digest):
                raise Rejected("duplicate_of_earlier_build")
            image = decode(data, self.config)
            self._seen.add_bytes(digest)
            return replace(candidate, image=image, sha256=digest, phash=perceptual_hash(image))

        return self._each(candidates, step)

    def _check_near(self, candidates: list[Candidate]) -> list[Candidate]:
        def step(candidate: Candidate) -> Candidate:
            if self._seen.has_near(candidate.phash):
                raise Rejected("duplicate_near")
            if self.models.earlier is not None and self.models.earlier.has_near(candidate.phash):
                raise Rejected("duplicate_of_earlier_build")
            self._seen.add_near(candidate.phash)
            return candidate

        return self._each(candidates, step)

    def _check_similar(self, candidates: list[Candidate]) -> list[Candidate]:
        if self.config.semantic_duplicates is None:
            return candidates
        embeddings = iter(self.models.embed([c.image for c in candidates if c.image is not None]))

        def step(candidate: Candidate) -> Candidate:
            embedding = next(embeddings)
            if self._seen.has_similar(embedding):
                raise Rejected("duplicate_semantic")
            if self.models.earlier is not None and self.models.earlier.has_similar(embedding):
                raise Rejected("duplicate_of_earlier_build")
            self._seen.add_similar(embedding)
            return replace(candidate, embedding=embedding)

        return self._each(candidates, step)

    def ground(self, candidates: list[Candidate]) -> list[Pair]:
        """Pairs of prepared rows. From one chunk to the next it keeps in mind how full the quotas are."""
        candidates = self._under_quota(candidates)
        images = [candidate.image for candidate in candidates if candidate.image is not None]
        texts = [[phrase.text for phrase in candidate.phrases] for candidate in candidates]
        boxes = [
            choose_boxes(found, image.width, image.height, self.config)
            for image, found in zip(images, self.grounder.ground(images, texts), strict=True)
        ]
        phrases = [candidate.phrases for candidate in candidates]
        crowds = look_around(self.grounder, images, phrases, boxes, self.config) if self.config.counts_crowds else None
        outcomes = self.models.judge(images, phrases, boxes)
        pairs: list[Pair] = []
        for i, (candidate, image, row) in enumerate(zip(candidates, images, outcomes, strict=True)):
            own = []
            for j, (phrase, found) in enumerate(zip(candidate.phrases, row, strict=True)):
                if isinstance(found, Rejected):
                    self.tally.reject_phrase(found, phrase.text, self._picture(candidate))
                else:
                    own.append(make_pair(candidate, image, phrase, found, crowds[i][j] if crowds else None))
            kept = self._choose(own)
            if kept:
                self.tally.rows_kept += 1
            else:
                reason = Rejected("focus_quota_reached" if own else "row_without_box")
                self.tally.reject_row(reason, candidate.caption, self._picture(candidate))
            pairs += kept
        self.tally.pairs += len(pairs)
        return pairs

    def _under_quota(self, candidates: list[Candidate]) -> list[Candidate]:
        """Those that the detector has to see: some concept that the caption names still wants pairs."""
        if self._quota is None:
            return candidates
        self._quota.chunk += 1
        left = []
        for candidate in candidates:
            concepts = self._named(candidate)
            if not all(map(self._quota.is_full, concepts)):
                left.append(candidate)
                continue
            reason = Rejected("focus_quota_reached", ", ".join(concepts))
            self.tally.reject_row(reason, candidate.caption, self._picture(candidate))
            for phrase in candidate.phrases:
                self.tally.reject_phrase(Rejected("row_rejected"), phrase.text)
        return left

    def _choose(self, pairs: list[Pair]) -> list[Pair]:
        """What the quotas leave of one row's pairs."""
        if self._quota is None:
            return pairs
        kept = []
        wanted = self._quota.choose([(pair.phrase, pair.head, pair.concept, pair.noun) for pair in pairs])
        for pair, is_wanted in zip(pairs, wanted, strict=True):
            if is_wanted:
                kept.append(pair)
            else:
                self.tally.reject_phrase(Rejected("phrase_over_quota"), pair.phrase)
        return kept


def up_to(rows: Iterable[Sample | BadRow], limit: int) -> Iterator[Sample | BadRow]:
    """The first ``limit`` rows, of which one item may stand for several."""
    for row in rows:
        if isinstance(row, BadRow):
            row = replace(row, rows=min(row.rows, limit))
        yield row
        limit -= row.rows if isinstance(row, BadRow) else 1
        if limit <= 0:
            return


def fetch_policy(config: BuildConfig) -> FetchPolicy:
    return FetchPolicy(
        max_bytes=config.max_image_bytes,
        timeout=config.fetch_timeout,
        workers=max(1, config.fetch_workers // config.workers),
        share=config.workers,
        retries=config.fetch_retries,
        host_delay=config.fetch_host_delay,
        contact=config.user_agent_contact,
        allow_private=config.fetch_private == "allow",
    )


def make_pair(
    candidate: Candidate, image: Image.Image, phrase: Phrase, found: Found, crowd: Crowd | None = None
) -> Pair:
    sample, box = candidate.sample, found.box
    assert sample.image is not None  # `_open` decoded it
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
        noun=phrase.noun,
        box=(box.x0, box.y0, box.x1, box.y1),
        score=box.score,
        crop=to_png(crop(image, box)),
        width=image.width,
        height=image.height,
        punsafe=sample.punsafe,
        pwatermark=sample.pwatermark,
        similarity=sample.similarity,
        phash=candidate.phash,
        sha256=candidate.sha256,
        aesthetic=sample.aesthetic,
        clip_score=found.clip_score,
        mask=found.mask,
        embedding=candidate.embedding,
        **({} if crowd is None else asdict(crowd)),
    )
