"""What a build is made from: one frozen dataclass, from which the command line is derived as well."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from curation.errors import UserError

# Raised whenever the same arguments would give other rows: an old half-built folder is then not resumed.
FORMAT_VERSION = 3


MANY = 2**63 - 1  # the greatest that every library counts to


def option(
    default: Any,
    group: str,
    text: str,
    *,
    kind: type = str,
    least: float = 1,
    most: float = MANY,
    in_fingerprint: bool = True,
    choices: tuple = (),
) -> Any:
    """A dataclass field that also describes its command-line argument; a number is from ``least`` to ``most``."""
    about = {"group": group, "help": text, "kind": kind, "in_fingerprint": in_fingerprint, "choices": choices}
    return field(default=default, metadata=about | {"range": (least, most)})


# Arguments that name a folder or checkpoint; what is in it counts, not where it is.
BY_CONTENT = frozenset({"input", "detector", "clip", "segmenter", "dedup_against"})

# Younger than the format: a build without them is what it was before, and, but for the first two, so is its manifest.
WHERE_GIVEN = frozenset({"focus", "focus_quota", "crowds", "alone", "max_foreign_share"})
UNSAID = WHERE_GIVEN - {"focus", "focus_quota"}


@dataclass(frozen=True)
class BuildConfig:
    """Every argument of a build. Thresholds default to what the sources named in ``help`` publish.

    Raises:
        UserError: a number is out of its range, or is none.
    """

    source: str = option("laion", "source", "kind of corpus: a name in the entry-point group curation.sources")
    input: str | None = option(
        None, "source", "folder, file, glob, URL or hub name of the corpus; left out, laion mines the default corpus"
    )
    output: str = option("data/pairs", "source", "folder for the mined pairs", in_fingerprint=False)
    image_column: str | None = option(None, "source", "column that holds the images; found by itself if clear")
    caption_column: str | None = option(None, "source", "column that holds the captions; found by itself if clear")
    split: str | None = option(None, "source", "split of a dataset; left out, train or the only one")
    subset: str | None = option(None, "source", "subset (configuration) of a dataset that has several")
    export: str | None = option(
        None, "source", "also write the pairs in this layout", choices=("webdataset",), in_fingerprint=False
    )
    sets: bool = option(
        False,
        "source",
        "also write rows of two to four subjects of one caption, with what it says between them",
        kind=bool,
        in_fingerprint=False,
    )
    publish: str | None = option(
        None, "source", "push the finished build to the hub as this dataset, OWNER/NAME", in_fingerprint=False
    )
    limit: int | None = option(None, "source", "read at most this many rows of the corpus", kind=int)
    rows_per_shard: int = option(10_000, "source", "rows of a URL list that make one shard", kind=int)
    seed: int = option(0, "source", "chooses the pairs shown in the report", kind=int, least=0, most=MANY)

    executor: str = option(
        "local",
        "execution",
        "local: this machine; ray: Ray Data, on the cluster in RAY_ADDRESS or a local one",
        in_fingerprint=False,
        choices=("local", "ray"),
    )
    workers: int = option(
        1,
        "execution",
        "shards mined at a time, each by a process of its own",
        kind=int,
        most=1024,
        in_fingerprint=False,
    )

    detector: str | None = option(
        None,
        "grounding",
        "zero-shot detector, a folder or a hub name: GroundingDINO, MM-GroundingDINO, LLMDet, OmDet-Turbo, OWL, SAM 3",
    )
    backend: str = option(
        "transformers", "grounding", "library that runs the detector", choices=("transformers", "groundingdino-py")
    )
    groundingdino_env: str | None = option(
        None, "grounding", "environment of groundingdino-py; left out, ./groundingdino-env", in_fingerprint=False
    )
    device: str = option("auto", "grounding", "auto, cpu, cuda, cuda:1, ...", in_fingerprint=False)
    batch_size: int = option(16, "grounding", "images a detector pass", kind=int, most=1_000_000, in_fingerprint=False)
    dtype: str = option("float32", "grounding", "detector precision", choices=("float32", "float16"))
    box_threshold: float | None = option(
        None,
        "grounding",
        "least score of a box; left out, that of --operating-point, the checkpoint's curation.json, or its family",
        kind=float,
        least=0,
        most=1,
    )
    operating_point: str | None = option(
        None, "grounding", "file of a threshold that `curation.evaluate --tune --save` wrote", in_fingerprint=False
    )
    phrase_score: str = option(
        "max", "grounding", "a phrase's score over its tokens: max or mean", choices=("max", "mean")
    )
    nms_iou: float = option(
        0.5, "grounding", "boxes overlapping more than this are one object", kind=float, least=0, most=1
    )
    max_instances: int = option(4, "grounding", "a phrase with more boxes than this is too ambiguous to pair", kind=int)

    max_caption_chars: int = option(600, "captions", "longer captions are dropped", kind=int)
    min_caption_words: int = option(2, "captions", "shorter captions are dropped", kind=int, least=0)
    max_phrases: int = option(16, "captions", "phrases taken from one caption", kind=int)
    max_phrase_words: int = option(10, "captions", "longer phrases are dropped", kind=int)

    focus: str | None = option(
        None, "captions", "file of concepts, one a line: only rows whose captions name one of them are mined"
    )
    focus_quota: int | None = option(
        None, "captions", "at most so many pairs of each concept of --focus without a quota of its own", kind=int
    )

    max_punsafe: float = option(0.5, "scores", "drop rows above this NSFW probability", kind=float, least=0, most=1)
    max_pwatermark: float = option(
        0.8, "scores", "drop rows above this watermark probability", kind=float, least=0, most=1
    )
    min_similarity: float = option(0.0, "scores", "drop rows below this CLIP similarity", kind=float, least=-1, most=1)
    min_aesthetic: float = option(0.0, "scores", "drop rows below this aesthetic score", kind=float, least=-MANY)

    min_image_side: int = option(32, "images", "drop images with a shorter side, in pixels", kind=int)
    max_image_pixels: int = option(50_000_000, "images", "drop images with more pixels, undecoded", kind=int)
    max_image_bytes: int = option(20_000_000, "images", "drop images with more bytes, unread", kind=int)
    max_aspect_ratio: float = option(4.0, "images", "drop images longer than this times their width", kind=float)
    near_duplicate_bits: int = option(
        4,
        "images",
        "images whose 64-bit pHash differs in at most so many bits are one; -1 turns it off",
        kind=int,
        least=-1,
        most=64,
    )

    semantic_duplicates: float | None = option(
        None,
        "images",
        "images whose embeddings (of --clip) have this cosine or more are one",
        kind=float,
        least=-1,
        most=1,
    )
    dedup_against: str | None = option(None, "images", "folder of an earlier build whose images are not wanted again")

    min_box_area: float = option(0.01, "pairs", "drop boxes below this share of the image", kind=float, least=0, most=1)
    max_box_area: float = option(0.95, "pairs", "drop boxes above this share of the image", kind=float, least=0, most=1)
    max_box_aspect: float = option(8.0, "pairs", "drop boxes longer than this times their width", kind=float)
    min_crop_side: int = option(12, "pairs", "drop crops with a shorter side, in pixels", kind=int)
    clip: str | None = option(
        None, "pairs", "CLIP checkpoint that scores crops against their phrases: mini, a folder or a hub name"
    )
    min_clip_score: float = option(
        0.1, "pairs", "drop pairs whose crop and phrase have a lower cosine (with --clip)", kind=float, least=-1, most=1
    )
    segmenter: str | None = option(
        None, "pairs", "SAM checkpoint that adds a mask to each crop: a folder or a hub name"
    )

    crowds: bool = option(
        False,
        "pairs",
        "also record how many others of its kind are in a pair's picture and crop, and what share of the crop other "
        "things cover; asks the detector twice",
        kind=bool,
    )
    alone: bool = option(
        False, "pairs", "keep subjects that stand alone, with no other of their kind in the picture", kind=bool
    )
    max_foreign_share: float | None = option(
        None,
        "pairs",
        "with --alone, drop crops of which other things cover a greater share; left out, 0.25",
        kind=float,
        least=0,
        most=1,
    )

    fetch_timeout: float = option(
        10.0, "fetch", "seconds for one download, redirects included", kind=float, least=0.001
    )
    fetch_workers: int = option(32, "fetch", "downloads at a time", kind=int, most=10_000, in_fingerprint=False)
    fetch_retries: int = option(
        1,
        "fetch",
        "further attempts at a download that failed for a passing reason",
        kind=int,
        least=0,
        most=1000,
        in_fingerprint=False,
    )
    fetch_host_delay: float = option(
        0.25, "fetch", "least seconds between two requests to one host", kind=float, least=0, in_fingerprint=False
    )
    fetch_private: str = option(
        "refuse",
        "fetch",
        "addresses that are not public (a mirror in one's own network): refuse or allow",
        choices=("refuse", "allow"),
        in_fingerprint=False,
    )
    user_agent_contact: str = option(
        "", "fetch", "who runs this (a URL or address), sent in the user agent", in_fingerprint=False
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            value, (least, most) = getattr(self, f.name), f.metadata["range"]
            if f.metadata["kind"] in (str, bool) or value is None:
                continue
            wanted = f"at least {least}" if value < least else f"at most {most}" if value > most else "a number"
            if not least <= value <= most or not math.isfinite(value):
                raise UserError(f"--{f.name.replace('_', '-')} must be {wanted}, not {value}")
        if self.max_foreign_share is not None and not self.alone:
            raise UserError("--max-foreign-share says what --alone drops; give both")

    @property
    def counts_crowds(self) -> bool:
        """Whether pairs have the columns of `curation.records.Crowd`."""
        return self.crowds or self.alone

    def output_path(self) -> Path:
        return Path(self.output)

    def fingerprint(self, *, shards: list[tuple[str, int]], detector_id: str) -> str:
        """Digest of all that decides the output: arguments, the corpus' shard names and sizes, the weights.

        What is read from a folder enters by content, so that a moved corpus or checkpoint can still be resumed;
        ``detector_id`` is the identity of all models and of the build to dedup against.
        """
        values = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.metadata["in_fingerprint"]
            and f.name not in BY_CONTENT
            and (f.name not in WHERE_GIVEN or getattr(self, f.name) not in (None, False))
        }
        whole = {"format": FORMAT_VERSION, "config": values, "shards": shards, "detector": detector_id}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """What a manifest keeps: all that decides the rows, and nothing of where and how they were made."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.metadata["in_fingerprint"] and (f.name not in UNSAID or getattr(self, f.name) not in (None, False))
        }
