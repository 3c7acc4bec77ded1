"""Pictures with what is in them and names of what is not: of a corpus with a truth, or of COCO's and LVIS' json.

COCO labels every picture for every category, so that any category without a box is absent. LVIS does not: absent is
what a picture's ``neg_category_ids`` list.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from curation.config import BuildConfig
from curation.errors import Rejected, UserError
from curation.quality.truth import UNWANTED, read_truth
from curation.records import BadRow, Box
from curation.sources import open_source
from curation.vision.images import decode

# Names of absent things that a picture is asked for.
ABSENT = 2
LIMITS = BuildConfig(min_image_side=1, max_aspect_ratio=1e6, max_image_bytes=1 << 40)


@dataclass(frozen=True)
class Labelled:
    """``present`` has the boxes of each name; the picture is decoded when it is asked for."""

    key: str
    data: bytes | Path
    present: dict[str, tuple[Box, ...]]
    absent: tuple[str, ...]

    def image(self) -> Image.Image:
        """Raises `Rejected` where it cannot be decoded."""
        return decode(self.data.read_bytes() if isinstance(self.data, Path) else self.data, LIMITS)


def of_corpus(corpus: Path, config: BuildConfig) -> list[Labelled]:
    """Rows that a miner should keep, with the words that the truth has for each thing; absent are other rows' things.

    Raises:
        UserError: the corpus has no truth.
    """
    truth = read_truth(corpus)
    things = sorted({(thing.concept, thing.phrase) for row in truth.values() for thing in row.objects})
    found = []
    for shard in open_source(replace(config, input=str(corpus))).shards():
        for sample in shard.read():
            row = truth.get(sample.key)
            if isinstance(sample, BadRow) or sample.image is None or row is None or row.dirt in UNWANTED:
                continue
            boxes = defaultdict(list)
            for thing in row.objects:
                boxes[thing.phrase].append(thing.box)
            there = [thing.concept for thing in row.objects]
            others = [phrase for concept, phrase in things if not any(related(concept, other) for other in there)]
            absent = draw(others, sample.key)
            found.append(Labelled(sample.key, sample.image, {n: tuple(b) for n, b in boxes.items()}, absent))
    return found


def related(concept: str, other: str) -> bool:
    """Whether a box for one may be right for the other: "dog", "hot dog"."""
    a, b = set(re.findall(r"\w+", concept.lower())), set(re.findall(r"\w+", other.lower()))
    return a <= b or b <= a


def draw(names: Sequence[str], key: str) -> tuple[str, ...]:
    distinct = sorted(set(names))
    return tuple(random.Random(f"absent {key}").sample(distinct, min(ABSENT, len(distinct))))


def of_json(path: Path, folder: Path) -> tuple[list[Labelled], int]:
    """The pictures of COCO's or LVIS' annotations, and how many of them are not in ``folder``.

    Raises:
        UserError: no such file, it is neither's json, or none of its pictures is there.
    """
    try:
        whole = json.loads(path.read_bytes())
        names = {int(c["id"]): spoken(c) for c in whole["categories"]}
        annotations = defaultdict(list)
        for annotation in whole["annotations"]:
            annotations[int(annotation["image_id"])].append(annotation)
        labelled = [label(image, annotations[int(image["id"])], names, folder) for image in whole["images"]]
    except OSError as error:
        raise UserError(f"--labels {path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise UserError(
            f"--labels {path} is not COCO's or LVIS' json ({error!r:.80}); "
            "expected images, annotations (image_id, category_id, bbox) and categories (id, name)"
        ) from None
    there = [picture for picture in labelled if isinstance(picture.data, Path) and picture.data.is_file()]
    if not there:
        raise UserError(
            f"--labels {path}: none of its {len(labelled)} pictures is in {folder}; name theirs as --images"
        )
    return there, len(labelled) - len(there)


def spoken(category: dict[str, Any]) -> str:
    """A category as one says it: LVIS' first synonym, "bow_(weapon)" without the remark, "street sign"."""
    name = str((category.get("synonyms") or [category["name"]])[0])
    return " ".join(re.sub(r"\(.*?\)", " ", name).replace("_", " ").split())


def label(
    image: dict[str, Any], annotations: Sequence[dict[str, Any]], names: dict[int, str], folder: Path
) -> Labelled:
    width, height = float(image["width"]), float(image["height"])
    boxes = defaultdict(list)
    there = {names[int(annotation["category_id"])] for annotation in annotations}
    for annotation in annotations:
        if not annotation.get("iscrowd"):
            x, y, w, h = map(float, annotation["bbox"])
            box = Box(x / width, y / height, (x + w) / width, (y + h) / height, 1.0)
            boxes[names[int(annotation["category_id"])]].append(box)
    absent = image.get("neg_category_ids")
    others = names.values() if absent is None else [names[int(number)] for number in absent]
    key = str(image["id"])
    return Labelled(
        key,
        next((place for place in places(image, folder) if place.is_file()), folder / "absent"),
        {name: tuple(found) for name, found in boxes.items() if name},
        draw([name for name in others if name and not any(related(name, other) for other in there)], key),
    )


def places(image: dict[str, Any], folder: Path) -> Iterator[Path]:
    """Where the picture may be: COCO names the file, LVIS its address."""
    name = Path(str(image.get("file_name") or image["coco_url"]))
    yield from (folder / name.name, folder.joinpath(*name.parts[-2:]))


def readable(labelled: Sequence[Labelled]) -> Iterator[tuple[Labelled, Image.Image]]:
    """Those that can be decoded and have something to ask for."""
    for picture in labelled:
        try:
            if picture.present or picture.absent:
                yield picture, picture.image()
        except (Rejected, OSError):
            continue
