"""Pictures of two subjects whose truth is known, because the world composes them: what labels are measured on.

Each pair of subjects, drawings of frequent concepts in looks that no training saw, is drawn as asked and in each way
that it can go wrong. Pairs for choosing and pairs for reporting share no concept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from umm_bench.methods import Case, Prompt, Subject
from umm_bench.metrics.base import ScoredSample
from umm_bench.metrics.several import Several, SeveralConfig
from umm_bench.mini.evaluation.truth import VISIBLE, sprite_difference
from umm_bench.mini.world import backgrounds, looks, scenes, sprites, suite
from umm_bench.mini.world.looks import Look
from umm_bench.mini.world.sprites import Design

TUNE, TRIAL = "several-tune", "several-trial"  # pairs for choosing, and for reporting
PIXELS = 64
PROMPT = Prompt("pair", "a {subject_1} and a {subject_2}", "two_references")


@dataclass(frozen=True)
class Pair:
    """Two drawings in their looks. `stranger` is a third look, without a part of either."""

    key: str
    designs: tuple[Design, Design]
    looks: tuple[Look, Look]
    stranger: Look

    @property
    def one_class(self) -> bool:
        return self.designs[0].concept == self.designs[1].concept

    @property
    def sprites(self) -> tuple[str, str]:
        return self.wearing(*self.looks)

    def wearing(self, one: Look, two: Look) -> tuple[str, str]:
        return looks.looked(self.designs[0].id, one), looks.looked(self.designs[1].id, two)


@dataclass(frozen=True)
class Shown:
    """What a picture of a pair has in it, in what way it was to go wrong, and the truth about each subject."""

    kind: str
    sprites: tuple[str, ...]
    truth: tuple[str, str]


def pairs(number: int, key: str) -> list[Pair]:
    """Pairs of `key`, TUNE or TRIAL, every other one of one class: there one drawing in two looks."""
    drawings = [
        scenes.usual(concept.name) for concept in sprites.load().concepts if suite.frequency(concept) == "frequent"
    ]
    drawings = [design for design in drawings if suite.shows_looks(design)][(TUNE, TRIAL).index(key) :: 2]
    return [_pair(f"{key}-{index}", drawings, index % 2 == 1) for index in range(number)]


def _pair(key: str, drawings: list[Design], one_class: bool) -> Pair:
    for attempt in count():
        rng = scenes.rng_for(key, attempt)
        one, two = (drawings[int(i)] for i in rng.choice(len(drawings), 2, replace=False))
        two = one if one_class else two
        first, second = suite.held_out_look(one, key, attempt, 1), suite.held_out_look(two, key, attempt, 2)
        worn = {first.main, first.second, first.mark}
        free = [color for color in looks.COLORS if color not in worn | {second.main, second.second, second.mark}]
        marked = [pattern for pattern in looks.PATTERNS if pattern not in (first.pattern, second.pattern)]
        if second.main not in worn and len(free) > 2 and first.pattern != second.pattern:
            main, other, mark = (str(color) for color in rng.choice(free, 3, replace=False))
            pattern = str(rng.choice(marked)) if rng.random() < 0.5 else None
            return Pair(key, (one, two), (first, second), Look(main, other, pattern, mark if pattern else None))
    raise AssertionError("there is always another attempt")


def ways(pair: Pair) -> list[Shown]:
    """As asked, and what can become of it; which of the two suffers is drawn from the pair's key.

    One drawing in two looks that have changed places is no other picture, so that one class has no swap.
    """
    rng = scenes.rng_for(pair.key, "ways")
    made = [Shown("right", pair.sprites, ("right", "right"))]
    if not pair.one_class:
        made.append(Shown("swap", pair.wearing(*pair.looks[::-1]), ("swap", "swap")))
    dressed: dict[str, Callable[[Look, Look], Look]] = {
        "dominance": lambda own, other: other,
        "blending": lambda own, other: blended(pair, own, other, rng),
        "drift": lambda own, other: pair.stranger,
    }
    for kind, dress in dressed.items():
        suffers = int(rng.integers(2))
        worn = [*pair.looks]
        worn[suffers] = dress(pair.looks[suffers], pair.looks[1 - suffers])
        made.append(Shown(kind, pair.wearing(worn[0], worn[1]), _only(suffers, kind)))
    gone = int(rng.integers(2))
    made.append(Shown("missing", (pair.sprites[1 - gone],), _only(gone, "missing")))
    return made


def _only(which: int, label: str) -> tuple[str, str]:
    return (label, "right") if which == 0 else ("right", label)


def blended(pair: Pair, own: Look, other: Look, rng: np.random.Generator) -> Look:
    """A look with one part of another that is seen to be changed."""
    design = pair.designs[pair.looks.index(own)]
    mixed = [replace(own, main=other.main), replace(own, pattern=other.pattern, mark=other.mark)]
    mixed += [replace(own, second=other.second)] if other.second else []
    before = looks.looked(design.id, own)
    seen = [look for look in mixed if sprite_difference(before, looks.looked(design.id, look)) > VISIBLE]
    return seen[int(rng.integers(len(seen)))]


def compose(shown: Shown, key: str) -> np.ndarray:
    """The picture, uint8 [64, 64, 3]: place, size, turn, light and background from the key."""
    rng = scenes.rng_for(key, shown.kind, *shown.sprites)
    canvas = backgrounds.draw(backgrounds.choose(rng).name, rng, PIXELS)
    spots, _ = scenes.arrange(rng, 2)
    for sprite, spot in zip(shown.sprites, spots, strict=False):
        scenes.paste(canvas, sprite, scenes.random_placement(rng, *spot, jitter=0.03))
    return np.clip(canvas, 0, 255).astype(np.uint8)


def case_of(pair: Pair, folder: Path) -> Case:
    """The pair as a suite has it, its pictures written into `folder`."""
    subjects = []
    for place, (design, sprite) in enumerate(zip(pair.designs, pair.sprites, strict=True), start=1):
        home = folder / f"{pair.key}-{place}"
        home.mkdir(parents=True, exist_ok=True)
        paths = tuple(home / f"{index:02d}.png" for index in range(suite.REFERENCES))
        for index, path in enumerate(paths):
            Image.fromarray(suite.reference(sprite, index)).save(path)
        subjects.append(Subject(home.name, design.concept, paths))
    return Case(tuple(subjects))


class ComposedSuite:
    """What a metric asks of a suite, of pairs whose pictures are written into `folder`."""

    name, version = "composed", 1

    def __init__(self, folder: Path, composed: Sequence[Pair], draw: Callable[[np.ndarray], np.ndarray]) -> None:
        self.folder, self.draw = folder, draw
        self.cases = {pair: case_of(pair, folder) for pair in composed}

    def pairs(self) -> list[Case]:
        return [*self.cases.values()]

    def samples(self) -> Iterator[tuple[Pair, Shown, ScoredSample]]:
        """Every picture of each pair, as a metric is given it."""
        for pair, case in self.cases.items():
            for shown in ways(pair):
                path = self.folder / f"{pair.key}-{shown.kind}.png"
                Image.fromarray(self.draw(compose(shown, pair.key))).save(path)
                yield pair, shown, ScoredSample(path.stem, path, case, PROMPT, 0)


@dataclass(frozen=True)
class Labelled:
    """A subject of a picture: its true label and the one that the metric gives, with its evidence."""

    pair: Pair
    kind: str
    truth: str
    label: str
    evidence: dict[str, Any]


def labelled(
    number: int, key: str, config: SeveralConfig, draw: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> Iterator[Labelled]:
    """Both subjects of every picture of `number` pairs, once `draw` has been at it."""
    with TemporaryDirectory() as folder:
        composed: Any = ComposedSuite(Path(folder), pairs(number, key), draw)
        metric = Several(config, composed)
        for pair, shown, sample in composed.samples():
            for truth, score in zip(shown.truth, metric.score([sample]), strict=True):
                yield Labelled(pair, shown.kind, truth, score.metadata["label"], score.metadata)
