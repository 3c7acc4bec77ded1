"""The order of rooms, and its picture: `python docs/architecture.py` draws docs/architecture.svg from the imports.

`LAYERS` is the only place where the order is written; tests/test_house.py holds every import against it.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from html import escape
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "architecture.svg"
ROOTS = ("atomic", "design", "figures", "curation", "umm_bench", "baselines", "reports", "benchmarks")

LAYERS: tuple[dict[str, str], ...] = (
    # From the ground up: a room and its modules, a package standing for all that is in it (those in HOUSES: for their
    # __init__ only). A room imports itself and rooms of lower layers.
    {
        "figures, atomic, design": "figures atomic design",
        "curation: ground": "curation.errors curation.config curation.records curation.defaults curation.arguments",
        "umm_bench: ground": "umm_bench.errors umm_bench.images umm_bench.seeding umm_bench.weights "
        "umm_bench.registry umm_bench.configs",
    },
    {
        "curation.web": "curation.web",
        "curation.language": "curation.language curation.safety",
        "curation.vision": "curation.vision",
        "umm_bench.umm": "umm_bench.umm",
        "umm_bench.cli": "umm_bench.cli",
    },
    {
        "curation.sources": "curation.sources",
        "curation.output": "curation.output",
        "curation.grounding": "curation.grounding",
        "mini.world": "umm_bench.mini.world",
        "mini: family": "umm_bench.mini umm_bench.mini.family umm_bench.mini.towers umm_bench.mini.measured",
    },
    {
        "curation: mining": "curation.filters curation.pipeline curation.retry curation.worker",
        "curation.quality": "curation.quality",
        "mini.checking": "umm_bench.mini.checking",
        "mini.recipes": "umm_bench.mini.recipes",
        "umm_bench: base": "umm_bench.base",
    },
    {"curation.executors": "curation.executors", "umm_bench: methods": "umm_bench.methods"},
    {
        "curation: runner": "curation curation.runner",
        "umm_bench.suites": "umm_bench.suites",
        "UMM as a method": "umm_bench.umm_method",
        "baselines": "baselines",
    },
    {
        "curation: commands": "curation.build curation.evaluate curation.judge",
        "umm_bench.metrics": "umm_bench.metrics",
    },
    {"umm_bench.bench": "umm_bench.bench"},
    {"mini.evaluation": "umm_bench.mini.evaluation", "reports": "reports"},
    {
        "umm_bench: commands": "umm_bench umm_bench.run umm_bench.train umm_bench.sample umm_bench.rare "
        "umm_bench.focus umm_bench.validate_metrics umm_bench.export umm_bench.replay umm_bench.demo umm_bench.vote "
        "umm_bench.playground",
        "mini: commands": "umm_bench.mini.pretrain umm_bench.mini.evaluate umm_bench.mini.cards",
    },
    {"benchmarks": "benchmarks"},
)

HOUSES = ("umm_bench", "umm_bench.mini", "curation")
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
ROOM = {module: room for rooms in LAYERS for room, modules in rooms.items() for module in modules.split()}


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name; a package's is that of its `__init__`."""
    files = [*sorted(ROOT.glob("*.py")), *(file for root in ROOTS for file in sorted((ROOT / root).rglob("*.py")))]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imports(file: Path) -> Iterator[tuple[str, int]]:
    """What a file imports, as (dotted name, line): at the top, in functions, for type checkers, and by literal name."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{file}:{node.lineno}: relative import; write the whole name")
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from ((str(arg.value), node.lineno) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def room(name: str, known: dict[str, Path]) -> str | None:
    """The room of a module or of a name in one; None outside the project. KeyError for a module without a room."""
    if name.split(".")[0] not in ROOTS:
        return None
    while name not in known:  # what is imported is a class or function
        name = name.rpartition(".")[0]
    if name in ROOM:
        return ROOM[name]
    inner = name
    while inner := inner.rpartition(".")[0]:
        if inner in ROOM and inner not in HOUSES:
            return ROOM[inner]
    raise KeyError(f"{name} has no room; give it one in LAYERS of docs/architecture.py")


def edges(known: dict[str, Path]) -> dict[tuple[str, str], list[str]]:
    """Which room imports which, with the places "module:line name" where it does."""
    found = defaultdict(list)
    for module, file in known.items():
        source = room(module, known)
        for name, line in imports(file):
            target = room(name, known)
            if source and target and source != target:
                found[source, target].append(f"{module}:{line} {name}")
    return dict(found)


def upward(found: dict[tuple[str, str], list[str]]) -> list[str]:
    """The places that break the order."""
    return [place for (a, b), places in found.items() if LEVEL[a] <= LEVEL[b] for place in places]


def _reduced(found: dict[tuple[str, str], list[str]]) -> list[tuple[str, str]]:
    """Without the arrows that longer ways imply."""
    below = defaultdict(set)
    for a, b in found:
        below[a].add(b)

    def reach(start: str) -> set[str]:
        return {start}.union(*(reach(b) for b in below[start]))

    return sorted((a, b) for a, b in found if not any(b in reach(c) for c in below[a] - {b}))


WIDTH, ROW, BOX, HIGH, LANE = 1000, 92, 138, 34, 18
FILL = {"curation": "#dcebdc", "umm_bench": "#dbe5f3", "mini": "#f4ead3"}


def _rows(arrows: list[tuple[str, str]]) -> tuple[list[list[str]], list[tuple[str, str]]]:
    """Rooms and lanes ("a>b@level", where an arrow passes a layer) in rows, ordered so that few lines cross."""
    rows = [list(rooms) for rooms in LAYERS]
    parts: list[tuple[str, str]] = []
    for a, b in arrows:
        way = [a, *(f"{a}>{b}@{level}" for level in range(LEVEL[a] - 1, LEVEL[b], -1)), b]
        for lane in way[1:-1]:
            rows[int(lane.rpartition("@")[2])].append(lane)
        parts += pairwise(way)
    near = defaultdict(list)
    for a, b in parts:
        near[a].append(b)
        near[b].append(a)
    for sweep in range(40):
        order = range(len(rows)) if sweep % 2 else range(len(rows) - 1, -1, -1)
        at = {name: (i + 0.5) / len(row) for row in rows for i, name in enumerate(row)}
        for level in order:
            row = rows[level]
            row.sort(key=lambda name: (sum(at[n] for n in near[name]) / len(near[name]) if near[name] else 0.5, name))
            at |= {name: (i + 0.5) / len(row) for i, name in enumerate(row)}
    return rows, parts


def svg(found: dict[tuple[str, str], list[str]]) -> str:
    """The picture: what is above imports what is below."""
    rows, parts = _rows(_reduced(found))
    x, y = {}, {}
    for level, row in enumerate(rows):
        widths = [LANE if "@" in name else BOX for name in row]
        gap = min(40.0, (WIDTH - sum(widths)) / (len(row) + 1))
        left = (WIDTH - sum(widths) - gap * (len(row) - 1)) / 2
        for name, width in zip(row, widths, strict=True):
            x[name], y[name] = left + width / 2, ROW * (len(rows) - 1 - level) + HIGH
            left += width + gap
    height = ROW * (len(rows) - 1) + 2 * HIGH
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        "<title>The rooms of UMM-Bench: what is above imports what is below</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for a, b in parts:
        top = y[a] if "@" in a else y[a] + HIGH / 2
        end = y[b] if "@" in b else y[b] - HIGH / 2
        bend = (end - top) / 2
        out.append(
            f'<path d="M{x[a]:.0f} {top:.0f}C{x[a]:.0f} {top + bend:.0f} {x[b]:.0f} {end - bend:.0f} '
            f'{x[b]:.0f} {end:.0f}" fill="none" stroke="#8a8f98" stroke-width="1.2"/>'
        )
    for name in LEVEL:
        fill = FILL.get(name.split(".")[0].split(":")[0], "#ececec")
        left, top = x[name] - BOX / 2, y[name] - HIGH / 2
        out.append(
            f'<rect x="{left:.0f}" y="{top:.0f}" width="{BOX}" height="{HIGH}" rx="5" fill="{fill}" stroke="#555b66"/>'
        )
        out.append(
            f'<text x="{x[name]:.0f}" y="{y[name] + 4.5:.1f}" font-size="13" text-anchor="middle">{escape(name)}</text>'
        )
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    found = edges(modules())
    if wrong := upward(found):
        sys.exit("\n".join(["these imports run upwards:", *wrong]))
    PICTURE.write_text(svg(found), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
