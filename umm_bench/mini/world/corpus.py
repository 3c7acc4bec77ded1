"""mini-LAION: the composer's scenes in LAION's own layout, with LAION's dirt, and the truth kept apart.

img2dataset shards (`00000.tar`, `.parquet`, `_stats.json`), a URL list (`urls.parquet`) and `truth/truth.parquet`,
which says what is really in each picture; the miner never reads it. `python -m umm_bench.mini.world.corpus --size N`,
with `--varied` for the pairs that a TIUE learns from.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import html
import io
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from atomic import whole_folder
from umm_bench.cli.arguments import Parser, whole
from umm_bench.cli.commands import run_command
from umm_bench.cli.outputs import check_folder
from umm_bench.mini.world import looks, scenes
from umm_bench.mini.world.looks import Look

# What is wrong with a row, and how often; the shares are of the order that LAION's users report.
DIRT: dict[str, float] = {
    "wrong_caption": 0.06,
    "wrong_look": 0.03,  # the right thing, in colours that it does not have
    "extra_phrase": 0.04,
    "html": 0.04,
    "seo": 0.03,
    "duplicate": 0.04,
    "near_duplicate": 0.03,
    "truncated": 0.015,
    "corrupt": 0.01,
    "empty_image": 0.005,
    "nsfw": 0.03,
    "watermark": 0.03,
    "foreign": 0.02,
    "bad_encoding": 0.01,
    "empty_caption": 0.01,
}
# Scenes for the pairs of a TIUE: they stand as those of its generator's training do, and most are in looks. Training
# cuts captions to the noun, so that the picture alone tells; what they say can still teach (`--distill`).
VARIED = functools.partial(scenes.compose, posed=0.9, as_usual=0.6, recolored=0.0, looked=0.9, said=0.9)
PLAIN = functools.partial(scenes.compose, looked=0.3, said=0.8)
WORLD = 4  # goes up when the same row comes to be another picture or caption
DEFAULT_SIZE = 480
SHARD = 120
PIXELS = 96
_FOREIGN = (
    "ein Bild von einem Hund auf der Wiese",
    "une photo d'un chat sur la plage",
    "фото собаки на снегу",
    "海滩上的一只猫的照片",
)


@dataclass(frozen=True)
class Row:
    """One corpus row: the bytes as a crawler would find them, and the truth."""

    key: str
    image: bytes
    caption: bytes
    meta: dict[str, Any]
    dirt: str | None
    scene: scenes.Scene
    named: bool  # whether the caption tells the truth about this scene's objects


def _dirt(rng: np.random.Generator) -> str | None:
    roll, edge = rng.random(), 0.0
    for kind, share in DIRT.items():
        edge += share
        if roll < edge:
            return kind
    return None


def _jpeg(image: np.ndarray, quality: int = 92, watermark: bool = False) -> bytes:
    picture = Image.fromarray(image)
    if watermark:
        pen = ImageDraw.Draw(picture, "RGBA")
        for y in range(0, picture.height, 24):
            pen.text((4 + y % 48 // 4, y), "STOCK  PHOTO", fill=(255, 255, 255, 130))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _misdescribed(scene: scenes.Scene, rng: np.random.Generator) -> str:
    """The caption of a scene of one sprite, with another look of it in place of its own."""
    thing = scene.objects[0]
    look = Look.parse(thing.look) if thing.look else Look()
    other = looks.draw(rng, thing.concept, has_second=True, held=False)
    while {other.main, other.second, other.mark} & {look.main, look.second, look.mark} - {None}:
        other = looks.draw(rng, thing.concept, has_second=True, held=False)
    return scene.caption.replace(thing.phrase, scenes.article(other.describe(thing.concept)))


def row(index: int, seed: int = 0, varied: bool = False) -> Row:
    """The row of an index; a function of the arguments only. Its scene is a VARIED one where `varied`."""
    rng = scenes.rng_for("mini-laion", seed, index)
    dirt = _dirt(rng)
    # A duplicate repeats a nearby earlier picture, as crawls do.
    source = max(0, index - int(rng.integers(1, 60))) if dirt in ("duplicate", "near_duplicate") else index
    draw = VARIED if varied else PLAIN
    if dirt == "wrong_look":
        draw = functools.partial(draw, subjects=1, looked=1.0)
    scene = draw(f"laion-{seed}-{source}", size=PIXELS)
    image = _jpeg(scene.image, 80 if dirt == "near_duplicate" else 92, watermark=dirt == "watermark")
    caption: bytes = scene.caption.encode()
    named = True
    if dirt == "wrong_caption":
        caption, named = scenes.compose(f"laion-{seed}-other-{index}").caption.encode(), False
    elif dirt == "wrong_look" and scene.objects:
        caption, named = _misdescribed(scene, rng).encode(), False
    elif dirt == "extra_phrase":
        other = scenes.compose(f"laion-{seed}-extra-{index}", subjects=1).objects
        caption += f" and {other[0].phrase if other else 'a dragon'}".encode()
    elif dirt == "html":
        caption = f"<p>{html.escape(scene.caption)}&nbsp;<br/></p>".encode()
    elif dirt == "seo":
        caption = f"{scene.caption} | Buy online - FREE shipping $12.99 | best deals IMG_{index:04d}.jpg".encode()
    elif dirt == "foreign":
        caption, named = str(rng.choice(_FOREIGN)).encode(), False
    elif dirt == "bad_encoding":
        caption = scene.caption.encode() + b" \xff\xfe\x00caf\xe9"
    elif dirt == "empty_caption":
        caption, named = b"", False
    elif dirt == "truncated":
        image = image[: len(image) // 3]
    elif dirt == "corrupt":
        image = image[:2] + bytes(rng.integers(0, 256, 400, dtype=np.uint8))
    elif dirt == "empty_image":
        image = b""
    key = f"{index // SHARD:05d}{index % SHARD:04d}"
    meta = {
        "url": f"https://images.example/{seed}/{source}.jpg",
        "caption": caption.decode("utf-8", "replace"),
        "key": key,
        "status": "success",
        "error_message": None,
        "width": PIXELS,
        "height": PIXELS,
        "original_width": PIXELS,
        "original_height": PIXELS,
        "exif": "{}",
        "sha256": hashlib.sha256(image).hexdigest(),
        "punsafe": float(rng.uniform(0.6, 1.0) if dirt == "nsfw" else rng.beta(1, 30)),
        "pwatermark": float(rng.uniform(0.82, 1.0) if dirt == "watermark" else rng.beta(1, 12)),
        "similarity": float(rng.uniform(0.28, 0.42) if named else rng.uniform(0.2, 0.32)),
    }
    return Row(key, image, caption, meta, dirt, scene, named)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _write_shard(folder: Path, number: int, rows: list[Row]) -> None:
    with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
        for r in rows:
            _add(tar, f"{r.key}.jpg", r.image)
            _add(tar, f"{r.key}.txt", r.caption)
            _add(tar, f"{r.key}.json", json.dumps(r.meta).encode())
    pq.write_table(pa.Table.from_pylist([r.meta for r in rows]), folder / f"{number:05d}.parquet")
    stats = {"count": len(rows), "successes": len(rows), "failed_to_download": 0, "failed_to_resize": 0}
    (folder / f"{number:05d}_stats.json").write_text(json.dumps(stats))


def _truth(r: Row) -> dict[str, Any]:
    # An object counts as named when the caption, whatever its dirt, speaks of this very scene.
    objects = [{**asdict(o), "box": list(o.box), "named": r.named} for o in r.scene.objects]
    return {"key": r.key, "dirt": r.dirt or "", "background": r.scene.background.name, "objects": objects}


def build(folder: Path, size: int, seed: int = 0, varied: bool = False) -> Path:
    """Write a corpus of `size` rows to `folder`, whole or not at all; nothing is done when it is there and whole."""
    asked = {"world": WORLD, "size": size, "seed": seed, "varied": varied}
    if not is_whole(folder, asked):
        with whole_folder(folder, lambda there: is_whole(there, asked)) as unfinished:
            _write(unfinished, asked)
    return folder


def is_whole(folder: Path, asked: dict[str, Any]) -> bool:
    """Whether the folder holds the corpus of these arguments, with every file that was written, at its length."""
    try:
        made = json.loads((folder / "corpus.json").read_text())
        same = {name: made[name] for name in asked} == asked
        return same and all((folder / name).stat().st_size == length for name, length in made["files"].items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # not there, damaged, or without its list
        return False


def _write(folder: Path, asked: dict[str, Any]) -> None:
    size, seed, varied = asked["size"], asked["seed"], asked["varied"]
    (folder / "truth").mkdir()
    truth, urls, counts = [], [], Counter[str]()
    for number, first in enumerate(range(0, size, SHARD)):
        rows = [row(index, seed, varied) for index in range(first, min(first + SHARD, size))]
        _write_shard(folder, number, rows)
        truth += [_truth(r) for r in rows]
        for r in rows:
            counts.update(o.concept for o in r.scene.objects)
            safe = "NSFW" if r.meta["punsafe"] > 0.5 else "UNLIKELY"
            urls.append(
                {
                    "URL": r.meta["url"],
                    "TEXT": r.meta["caption"],
                    "NSFW": safe,
                    "similarity": r.meta["similarity"],
                    "LICENSE": "?",
                }
            )
    pq.write_table(pa.Table.from_pylist(truth), folder / "truth" / "truth.parquet")
    pq.write_table(pa.Table.from_pylist(urls), folder / "urls.parquet")
    files = {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}
    (folder / "corpus.json").write_text(json.dumps({**asked, "concepts": counts, "files": files}, indent=1))


def default_corpus(size: int | None = None, seed: int = 0, varied: bool = False) -> Path:
    """mini-LAION under ./data, made on first use; each seed is a corpus of its own, and so is a varied one."""
    size = size or DEFAULT_SIZE
    name = f"mini-laion-{size}" + (f"-seed{seed}" if seed else "") + ("-varied" if varied else "")
    return build(Path("data") / name, size, seed, varied)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=whole(1, 10**8), default=DEFAULT_SIZE, help="rows")
    parser.add_argument(
        "--varied", action="store_true", help="upright, large, in any design and many colours: for a TIUE"
    )
    return run_command(lambda: _make(parser.parse_args(argv)))


def _make(args: argparse.Namespace) -> None:
    check_folder(Path("data"), "the folder of corpora")
    print(default_corpus(args.size, varied=args.varied))


if __name__ == "__main__":
    sys.exit(main())
