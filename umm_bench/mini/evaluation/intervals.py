"""Figures with their 95 % intervals, which go into the note."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from figures import Figure

RESAMPLES = 2000


def wilson(right: int, shown: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; unlike the bootstrap's it is no point when all or none are right."""
    z, share = 1.96, right / shown
    centre = (share + z * z / (2 * shown)) / (1 + z * z / shown)
    half = z / (1 + z * z / shown) * np.sqrt(share * (1 - share) / shown + z * z / (4 * shown * shown))
    return float(centre - half), float(centre + half)


def share(
    name: str, right: Sequence[bool] | np.ndarray, bar: float | None, note: str = "", higher: bool = True
) -> Figure:
    """The share of independent verdicts that are true."""
    total = int(np.sum(right))
    low, high = wilson(total, len(right))
    said = f"95% {low:.3f} to {high:.3f}, n = {len(right)}"
    return Figure(name, round(total / len(right), 4), "share", higher, bar, f"{said}; {note}" if note else said)


def bootstrap(statistic: Callable[[np.ndarray], float], clusters: int, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of `statistic(rows)` where `rows` [clusters] are clusters drawn with replacement.

    Draws for which the statistic is not finite are left out.
    """
    rng = np.random.default_rng(seed)
    values = np.array([statistic(rng.integers(clusters, size=clusters)) for _ in range(RESAMPLES)])
    low, high = np.quantile(values[np.isfinite(values)], [0.025, 0.975])
    return float(low), float(high)
