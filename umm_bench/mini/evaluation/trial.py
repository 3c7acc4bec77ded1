"""Pictures of one subject whose truth is known, and metrics held against it.

Each subject, a held-out drawing mostly in a held-out look, is shown as a perfect generator would draw it for a prompt
of the suite, and in each way that a metric must not be taken in by. What a metric says of them is compared with what
is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from figures import Figure
from umm_bench.methods import Case, Prompt, Subject
from umm_bench.metrics.base import ScoredSample
from umm_bench.mini.evaluation.intervals import bootstrap, wilson
from umm_bench.mini.evaluation.truth import PROMPTS, near_miss, posed, sprite_of, validation_designs, validation_look
from umm_bench.mini.world import backgrounds, scenes, sprites, suite

KEY = "metrics-trial"
GIVEN = 3
"""Reference pictures that a method sees; the others are held out."""
GRADES = {"right": 3, "near miss": 2, "other design": 2, "other concept": 1, "lost": 0}
"""How much of the subject is there, of pictures with its prompt's background: what ranks are held against."""
WRONG = ("near miss", "other design", "other concept", "lost")
SHORTEST = 1e-9


@dataclass(frozen=True)
class Shown:
    """A picture of a subject, what it shows, and whether it has the background that its prompt asks for."""

    subject: str
    kind: str
    background: bool
    sample: ScoredSample


class Trial:
    """What a metric asks of a suite, of subjects whose pictures are written into `folder`."""

    name, version = "metrics-trial", 1

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.shown: list[Shown] = []
        self._subjects: list[Subject] = []
        for index, design in enumerate(validation_designs(number)):
            self._compose(index, design)

    def subjects(self) -> list[Subject]:
        return self._subjects

    def pairs(self) -> list[Case]:
        return []

    def _compose(self, index: int, design: Any) -> None:
        asked = PROMPTS[index % len(PROMPTS)]
        look = validation_look(design, index, KEY)
        sprite, key = sprite_of(design.id, look), f"{KEY}-{index}"
        miss = sprite_of(design.id, near_miss(design, look, KEY))
        rng, world = scenes.rng_for(key, "others"), sprites.load()
        of_concept = [d.id for d in world.members(design.concept) if d.identity != design.identity]
        elsewhere = [d.id for d in world.designs.values() if d.concept != design.concept]
        other = sprite_of(str(rng.choice(of_concept)), look)
        paths = [self._save(f"{index}-{n}", suite.reference(sprite, n)) for n in range(suite.REFERENCES)]
        subject = Subject(f"subject-{index}", design.concept, tuple(paths[:GIVEN]), held_out=tuple(paths[GIVEN:]))
        self._subjects.append(subject)
        wrong_place = str(rng.choice([n for n in backgrounds.every_name() if n != asked["background"]]))
        kinds = {
            "right": posed(sprite, asked, key),
            "near miss": posed(miss, asked, key),
            "other design": posed(other, asked, key),
            "other concept": posed(sprite_of(str(rng.choice(elsewhere)), look), asked, key),
            "lost": posed(None, asked, key),
            "elsewhere": posed(sprite, {**asked, "background": wrong_place}, key),
            "impostor on its background": on_its_background(sprite, miss, 0),
            "copy": np.asarray(Image.open(paths[0]).convert("RGB")),
        }
        prompt = Prompt(asked["id"], asked["template"], asked["kind"])
        for kind, image in kinds.items():
            path = self._save(f"{index}-{kind}", image)
            sample = ScoredSample(path.stem, path, Case((subject,)), prompt, 0)
            self.shown.append(Shown(subject.id, kind, kind in GRADES, sample))

    def _save(self, name: str, image: np.ndarray) -> Path:
        path = self.folder / f"{name}.png"
        Image.fromarray(image).save(path)
        return path


def on_its_background(sprite: str, impostor: str, index: int) -> np.ndarray:
    """The index-th reference picture of a sprite with another in its very place, uint8 [96, 96, 3]."""
    rng = scenes.rng_for("suite-reference", sprite, index)
    canvas = backgrounds.draw(backgrounds.choose(rng).name, rng, suite.PIXELS)
    at = scenes.random_placement(rng, 0.5, 0.5, float(rng.uniform(0.65, 0.92)), jitter=0.04)
    scenes.paste(canvas, impostor, at)
    return np.clip(canvas, 0, 255).astype(np.uint8)


Values = Mapping[tuple[str, str], float]
"""A metric's, the better the larger, by (subject, kind)."""


def values_of(metric: Any, shown: Sequence[Shown]) -> dict[str, dict[tuple[str, str], float]]:
    """By name of the rows, of every picture; the mean where a picture has several."""
    keys = {each.sample.key: (each.subject, each.kind) for each in shown}
    lower = getattr(metric, "lower_is_better", ())
    found: dict[str, dict[tuple[str, str], list[float]]] = {}
    for row in metric.score([each.sample for each in shown]):
        value = -row.value if row.metric in lower else row.value
        found.setdefault(row.metric, {}).setdefault(keys[row.sample_key], []).append(value)
    return {name: {key: float(np.mean(of)) for key, of in rows.items()} for name, rows in found.items()}


def auc(right: Sequence[float] | np.ndarray, wrong: Sequence[float] | np.ndarray) -> float:
    """The chance that a right one is above a wrong one; of equals one in two."""
    lead = np.subtract.outer(np.asarray(right, float), np.asarray(wrong, float))
    return float(((lead > SHORTEST) + 0.5 * (np.abs(lead) <= SHORTEST)).mean())


def agreement(name: str, values: Values, right: Sequence[str], wrong: Sequence[str]) -> Iterator[Figure]:
    """AUC of right kinds against wrong ones and, of all WRONG, the rank correlation; intervals over subjects."""
    from scipy.stats import spearmanr

    subjects = _complete(values, [*right, *wrong])
    yes, no = (np.array([[values[s, kind] for kind in kinds] for s in subjects]) for kinds in (right, wrong))
    low, high = bootstrap(lambda drawn: auc(yes[drawn].ravel(), no[drawn].ravel()), len(subjects))
    note = f"95% {low:.3f} to {high:.3f}, {' and '.join(right)} against {', '.join(wrong)}, {len(subjects)} subjects"
    yield Figure(f"validate.AUC.{name}", round(auc(yes.ravel(), no.ravel()), 4), "chance", True, None, note)
    if tuple(wrong) == WRONG:
        graded = np.array([[values[s, kind] for kind in GRADES] for s in subjects])
        truth = np.tile(list(GRADES.values()), (len(subjects), 1))

        def rho(drawn: np.ndarray) -> float:
            return float(spearmanr(graded[drawn].ravel(), truth[drawn].ravel()).statistic)

        whole = rho(np.arange(len(subjects)))
        low, high = bootstrap(rho, len(subjects)) if np.isfinite(whole) else (0.0, 0.0)
        note = f"95% {low:.3f} to {high:.3f}, Spearman's with how much of the subject is there"
        yield Figure(f"validate.rank.{name}", round(whole if np.isfinite(whole) else 0.0, 4), "rho", True, None, note)


def _complete(values: Values, kinds: Sequence[str]) -> list[str]:
    """The subjects of which each kind has a score: not every metric is for every picture."""
    return [name for name in sorted({name for name, _ in values}) if all((name, kind) in values for kind in kinds)]


def self_test(test: str, name: str, better: Sequence[float], worse: Sequence[float], says: str) -> Figure:
    """How often the better of two pictures of one subject has the better score; equals count as not told."""
    told = int(sum(a - b > SHORTEST for a, b in zip(better, worse, strict=True)))
    low, high = wilson(told, len(better))
    note = f"95% {low:.3f} to {high:.3f}, {says}, {len(better)} subjects"
    return Figure(f"validate.self.{test}.{name}", round(told / len(better), 4), "share", True, None, note)


SELF_TESTS = {
    "impostor": (
        "elsewhere",
        "impostor on its background",
        "itself elsewhere above an impostor on the reference's own",
    ),
    "copied": ("right", "copy", "itself in the scene asked for above a copy of the reference"),
    "lost": ("right", "lost", "itself above its scene without it"),
}
"""Name -> the kind that is better, the one that is worse, in words."""


def self_tests(name: str, values: Values) -> Iterator[Figure]:
    subjects = _complete(values, ["elsewhere", "copy", *GRADES])
    for test, (better, worse, says) in SELF_TESTS.items():
        yield self_test(test, name, [values[s, better] for s in subjects], [values[s, worse] for s in subjects], says)
