"""Pack open-licence drawings into two parquets: `python -m umm_bench.mini.world.pack_sprites NODE_MODULES`.

Run once by maintainers (extra `sprites`), after
`npm install --ignore-scripts @iconify-json/{noto,twemoji,fluent-emoji-flat,fluent-emoji,fxemoji,emojione}
@lobehub/fluent-emoji-3d emojibase-data` and, for the drawings that only the judges learn from,
`@iconify-json/{noto-v1,streamline-emojis,icon-park,emojione-monotone,fluent-emoji-high-contrast,game-icons,mdi,ph}`.
Users get the packed files, `assets/sprites.parquet` and `assets/further.parquet`; `--only` packs one of them.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from umm_bench.mini.world.colors import dominant_colors

SIZE = 96
GROUPS = ("animals-nature", "food-drink", "travel-places", "activities", "objects")
ICONIFY = {
    "noto": "noto",
    "twemoji": "twemoji",
    "fluent-flat": "fluent-emoji-flat",
    "fluent": "fluent-emoji",
    "fx": "fxemoji",
    "emojione": "emojione",
}
# Sets for `umm_bench.mini.world.further`: those that name their drawings by the emoji, then those that have names only.
FURTHER_EMOJI = {"noto-v1": "noto-v1", "emojione-monotone": "emojione-monotone"}
FURTHER_NAMED = {
    "fluent-high-contrast": "fluent-emoji-high-contrast",
    "streamline": "streamline-emojis",
    "icon-park": "icon-park",
    "game-icons": "game-icons",
    "mdi": "mdi",
    "phosphor": "ph",
}
_VARIANT = r"(-\d+|-fill|-filled|-duotone|-outline)?"
ASSETS = Path(__file__).parents[1] / "assets"


def concept_name(label: str) -> str:
    """A label as people would say it: ASCII, lower case, no punctuation ("T-Rex" -> "t rex")."""
    ascii_label = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode()
    return " ".join(re.sub(r"[^a-z0-9 ]", " ", ascii_label.lower().replace("'", "")).split())


def _slug(text: str) -> str:
    return concept_name(text).replace(" ", "-")


class _IconSet:
    """One @iconify-json package: an SVG for a character, or None."""

    def __init__(self, folder: Path, names: dict[str, list[str]]) -> None:
        data = json.loads((folder / "icons.json").read_text())
        self.icons, self.aliases = data["icons"], data.get("aliases", {})
        self.width, self.height = data.get("width") or 16, data.get("height") or data.get("width") or 16
        chars = folder / "chars.json"
        self.chars: dict[str, str] = json.loads(chars.read_text()) if chars.exists() else {}
        self.names = names

    def svg(self, hexcode: str, color: str = "black") -> str | None:
        bare = hexcode.lower().replace("-fe0f", "")
        own = [self.chars[key] for key in (hexcode.lower(), bare) if key in self.chars]
        for name in own or self.names[hexcode]:
            alias = self.aliases.get(name)
            if alias is not None and not {"hFlip", "vFlip", "rotate"} & set(alias):
                name = alias["parent"]
            if name in self.icons:
                return self.named(name, color)
        return None

    def named(self, name: str, color: str = "black") -> str:
        """The SVG of an icon's name; `color` is what a monochrome set leaves to its user."""
        icon = self.icons[name]
        width, height = icon.get("width", self.width), icon.get("height", self.height)
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{box}" color="{color}">{icon["body"]}</svg>'
        )


def _trim(image: Image.Image) -> Image.Image | None:
    """Crop to what is opaque, then fit into SIZE x SIZE; None when nothing is left."""
    box = image.getchannel("A").point(lambda a: 255 if a > 24 else 0).getbbox()
    if box is None or min(box[2] - box[0], box[3] - box[1]) < 6:
        return None
    image = image.crop(box)
    scale = SIZE / max(image.size)
    image = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
    )
    canvas = Image.new("RGBA", (SIZE, SIZE))
    canvas.paste(image, ((SIZE - image.width) // 2, (SIZE - image.height) // 2))
    return canvas


def _render(svg: str) -> Image.Image:
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE * 2, height=SIZE * 2))
    return Image.open(io.BytesIO(png)).convert("RGBA")


def _webp(sprite: Image.Image) -> bytes:
    buffer = io.BytesIO()
    sprite.save(buffer, "WEBP", quality=76, method=6, alpha_quality=90)
    return buffer.getvalue()


def further(node_modules: Path) -> Iterator[dict[str, object]]:
    """Yield one row a drawing by another hand of a packed concept: id, concept, style, colors, webp.

    Monochrome ones are white and have no colours. A set's drawing belongs to a concept by its emoji, or by its name
    with at most a number or a finish after it.
    """
    rows = json.loads((node_modules / "emojibase-data/en/data.json").read_text())
    first: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: row.get("order", 0)):
        first.setdefault(concept_name(row["label"]), row["hexcode"])
    concepts = sorted(set(pq.read_table(ASSETS / "sprites.parquet", columns=["concept"])["concept"].to_pylist()))
    names = {first[c]: [_slug(c)] for c in concepts}
    for style, package in (FURTHER_EMOJI | FURTHER_NAMED).items():
        icons = _IconSet(node_modules / "@iconify-json" / package, names)
        for concept in concepts:
            if style in FURTHER_EMOJI:
                found = {_slug(concept): icons.svg(first[concept], "white")}
            else:
                variant = re.compile(re.escape(_slug(concept)) + _VARIANT)
                found = {name: icons.named(name, "white") for name in icons.icons if variant.fullmatch(name)}
            for name, svg in found.items():
                sprite = _trim(_render(svg)) if svg else None
                if sprite is None:
                    continue
                pixels = np.asarray(sprite)
                solid = pixels[pixels[..., 3] > 24][:, :3]
                monochrome = bool((solid > 240).all())
                yield {
                    "id": f"{name}/{style}",
                    "concept": concept,
                    "style": style,
                    "colors": [] if monochrome else dominant_colors(pixels),
                    "webp": _webp(sprite),
                }


def designs(node_modules: Path) -> Iterator[dict[str, object]]:
    """Yield one row a design: id, concept, group, subgroup, style, colors, webp."""
    meta = json.loads((node_modules / "emojibase-data/meta/groups.json").read_text())
    rows = json.loads((node_modules / "emojibase-data/en/data.json").read_text())
    noto_chars = json.loads((node_modules / "@iconify-json/noto/chars.json").read_text())
    flat_chars = json.loads((node_modules / "@iconify-json/fluent-emoji-flat/chars.json").read_text())
    names = {}
    for row in rows:
        key = row["hexcode"]
        bare = key.lower().replace("-fe0f", "")
        unicode_name = unicodedata.name(row["emoji"][0], "") if len(bare) <= 5 else ""
        candidates = [
            _slug(row["label"]),
            noto_chars.get(bare),
            flat_chars.get(bare),
            re.sub(r"[^a-z0-9]", "", unicode_name.lower()),
        ]
        names[key] = [name for name in candidates if name]
    sets = {style: _IconSet(node_modules / "@iconify-json" / folder, names) for style, folder in ICONIFY.items()}
    seen: set[str] = set()
    for row in sorted(rows, key=lambda row: row.get("order", 0)):
        group = meta["groups"].get(str(row.get("group")))
        concept = concept_name(row["label"])
        if group not in GROUPS or concept in seen:
            continue
        seen.add(concept)
        found: dict[str, Image.Image] = {}
        for style, icons in sets.items():
            svg = icons.svg(row["hexcode"])
            if svg is not None:
                found[style] = _render(svg)
        for stem in (
            row["hexcode"].lower(),
            row["hexcode"].lower().replace("-fe0f", ""),
            row["hexcode"].lower() + "-fe0f",
        ):
            path = node_modules / f"@lobehub/fluent-emoji-3d/assets/{stem}.webp"
            if path.exists():
                found["fluent-3d"] = Image.open(path).convert("RGBA")
                break
        for style, image in found.items():
            sprite = _trim(image)
            if sprite is None:
                continue
            yield {
                "id": f"{_slug(row['label'])}/{style}",
                "concept": concept,
                "group": group,
                "subgroup": meta["subgroups"][str(row["subgroup"])],
                "style": style,
                "colors": dominant_colors(np.asarray(sprite)),
                "webp": _webp(sprite),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("node_modules", type=Path)
    parser.add_argument("--only", choices=("sprites", "further"))
    args = parser.parse_args()
    ASSETS.mkdir(exist_ok=True)
    for name, rows in (("sprites", designs), ("further", further)):
        if args.only in (None, name):
            table = pa.Table.from_pylist(list(rows(args.node_modules)))
            pq.write_table(table, ASSETS / f"{name}.parquet", compression="none")
            print(f"{name}: {table.num_rows} drawings of {len(set(table['concept'].to_pylist()))} concepts")


if __name__ == "__main__":
    main()
