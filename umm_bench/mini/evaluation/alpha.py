"""What alpha trades: the subject kept against the prompt followed, in ten steps from text alone to the image's most.

Followed is a prompt whose concept and background are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from figures import Figure
from umm_bench.mini.evaluation import generator, looks
from umm_bench.mini.evaluation.intervals import bootstrap

ALPHAS = tuple(round(0.1 * step, 1) for step in range(11))
SUBJECTS = 24
SEEDS = (210,)


@dataclass(frozen=True)
class Curve(Figure):
    """`points` are (alpha, share with the right look, share with concept and background as the prompt has them)."""

    points: tuple[tuple[float, float, float], ...] = ()

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "ok": self.ok}


def figures() -> Iterator[Figure]:
    """One curve: its value is what the look gains from alpha 0 to the alpha of the other figures."""
    names = generator.frequent()
    shown = looks.dressed(names, "alpha")[:SUBJECTS]
    kept, followed = {}, {}
    for alpha in ALPHAS:
        seen = looks.verdicts(looks.draw_subjects(shown, alpha, SEEDS), shown, names)
        kept[alpha], followed[alpha] = seen.look, np.minimum(seen.concept, seen.background)
    gained = kept[looks.ALPHA] - kept[0.0]
    low, high = bootstrap(lambda rows: float(gained[rows].mean()), len(gained))
    points = tuple((a, round(float(kept[a].mean()), 4), round(float(followed[a].mean()), 4)) for a in ALPHAS)
    note = f"95% {low:z.3f} to {high:.3f}, {len(shown)} subjects; " + ", ".join(
        f"{alpha:g}: {look:.2f}/{prompt:.2f}" for alpha, look, prompt in points
    )
    yield Curve("tiue.alpha_gain", round(float(gained.mean()), 4), "share", True, None, note, points)
