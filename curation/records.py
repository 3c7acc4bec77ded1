"""The rows: what a source gives, what a caption gives, what a build writes, and the Arrow schema of the last."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Sample:
    """One (image, caption) of a corpus, as found. Exactly one of ``image`` and ``url`` may be missing.

    ``nsfw`` is what the corpus says of its safety besides ``punsafe``, see `curation.safety`; scores are None where the
    corpus has none.
    """

    key: str
    caption: str
    image: bytes | None = None
    url: str | None = None
    nsfw: str | None = None
    punsafe: float | None = None
    pwatermark: float | None = None
    similarity: float | None = None
    aesthetic: float | None = None


@dataclass(frozen=True)
class BadRow:
    """A row that the source could not read, or ``rows`` of them that the same damage took.

    Its texts are made fit for UTF-8, as nobody can say what is in them.
    """

    key: str
    reason: str
    detail: str = ""
    rows: int = 1

    def __post_init__(self) -> None:
        for name in ("key", "detail"):
            object.__setattr__(self, name, getattr(self, name).encode("utf-8", "backslashreplace").decode())


@dataclass(frozen=True)
class Failure:
    """A row whose download failed. ``transient`` says that a later build tries it again."""

    sample: Sample
    reason: str
    detail: str
    transient: bool


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: ``caption[start:end] == text``. ``head`` is the head noun as written, ``concept`` its
    lemma in lower case, ``noun`` the head with what makes one name with it: "ice cream", "map of japan"."""

    text: str
    start: int
    end: int
    head: str
    concept: str
    noun: str


@dataclass(frozen=True)
class Box:
    """xyxy, normalised to [0, 1], with its phrase's score; ``mask`` is a PNG of the crop's size, of a detector that
    makes masks."""

    x0: float
    y0: float
    x1: float
    y1: float
    score: float
    mask: bytes | None = field(default=None, kw_only=True)

    @property
    def area(self) -> float:
        return max(0.0, self.x1 - self.x0) * max(0.0, self.y1 - self.y0)

    def iou(self, other: Box) -> float:
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        if width <= 0 or height <= 0:
            return 0.0
        overlap = width * height
        return overlap / (self.area + other.area - overlap)


@dataclass(frozen=True)
class Crowd:
    """What else is around a subject (`curation.grounding.crowds`); ``foreign_share`` is of its crop, in 0..1."""

    others_in_image: int
    others_in_crop: int
    foreign_share: float


@dataclass(frozen=True)
class Pair:
    """One output row. Field order is column order; ``image`` is the bytes as found, ``crop`` a PNG.

    The columns of `Crowd` are written where a build counts crowds.
    """

    id: str
    key: str
    url: str | None
    image: bytes
    caption: str
    phrase: str
    phrase_start: int
    phrase_end: int
    head: str
    concept: str
    noun: str
    box: tuple[float, float, float, float]
    score: float
    crop: bytes
    width: int
    height: int
    punsafe: float | None
    pwatermark: float | None
    similarity: float | None
    phash: str
    sha256: str
    aesthetic: float | None = None
    clip_score: float | None = None
    mask: bytes | None = None  # PNG of the crop's size
    embedding: tuple[float, ...] | None = None  # of the image, where semantic duplicates are looked for
    others_in_image: int | None = None
    others_in_crop: int | None = None
    foreign_share: float | None = None


def pair_id(image_sha256: str, caption: str, phrase: Phrase) -> str:
    """The same pair has the same id in every build: nothing but content goes in."""
    content = f"{image_sha256}\n{phrase.start}:{phrase.end}\n{caption}"
    return hashlib.sha256(content.encode()).hexdigest()[:20]


def arrow_schema(crowds: bool = False) -> pa.Schema:
    """Schema with the metadata by which `datasets` decodes ``image`` and ``crop`` to PIL images.

    Args:
        crowds: with the columns of `Crowd`.
    """
    from datasets import Features, Image, List, Value

    string, number, pixels = Value("string"), Value("float32"), Value("int32")
    kinds = {
        "image": Image(),
        "crop": Image(),
        "mask": Image(),
        "embedding": List(number),
        "clip_score": number,
        "aesthetic": number,
        "box": List(number, length=4),
        "phrase_start": pixels,
        "phrase_end": pixels,
        "width": pixels,
        "height": pixels,
        "score": number,
        "punsafe": number,
        "pwatermark": number,
        "similarity": number,
        "others_in_image": pixels,
        "others_in_crop": pixels,
        "foreign_share": number,
    }
    names = [name for name in Pair.__dataclass_fields__ if crowds or name not in Crowd.__dataclass_fields__]
    return Features({name: kinds.get(name, string) for name in names}).arrow_schema


def to_arrow(pairs: Iterable[Pair], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    for pair in pairs:
        row = asdict(pair)
        row["image"] = {"bytes": pair.image, "path": None}
        row["crop"] = {"bytes": pair.crop, "path": None}
        row["mask"] = {"bytes": pair.mask, "path": None} if pair.mask is not None else None
        row["box"] = list(pair.box)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=schema)
