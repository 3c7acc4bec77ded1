"""Who wins how often on the same case, prompt and seed, and what order of the methods that makes.

Strengths are Bradley and Terry's, by evalica. Between any two methods stands one tie more than there were, so that one
that always wins has a strength, and few comparisons say little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from umm_bench.bench.statistics import PairKey

PRIOR_TIES = 1.0


@dataclass(frozen=True)
class Rank:
    """`rank` 1 is the best; `best` and `worst` are ranks with each subject left out in turn."""

    method: str
    rank: int
    strength: float
    win_rate: float
    pairs: int
    best: int
    worst: int


def rank_methods(scores: Mapping[str, Mapping[PairKey, float]], lower_is_better: bool = False) -> list[Rank]:
    """The best first; empty with fewer than two methods that have something in common.

    `scores` are by method. Of two methods the one with the better value of a key wins; a tie is half a win for each.
    """
    methods = list(scores)
    by_subject = _wins(scores, methods, lower_is_better)
    if not by_subject:
        return []
    wins = np.sum(list(by_subject.values()), axis=0)
    played = (wins + wins.T).sum(axis=1)
    found = strengths(methods, wins)
    ranks = _ranks(found)
    without = [_ranks(strengths(methods, wins - without)) for without in _leaving_out(by_subject)]
    rows = [
        Rank(
            method,
            int(ranks[i]),
            float(found[i]),
            float(wins[i].sum() / played[i]),
            int(played[i]),
            int(min(each[i] for each in [ranks, *without])),
            int(max(each[i] for each in [ranks, *without])),
        )
        for i, method in enumerate(methods)
        if played[i]
    ]
    return sorted(rows, key=lambda row: (row.rank, row.method))


def _wins(
    scores: Mapping[str, Mapping[PairKey, float]], methods: Sequence[str], lower_is_better: bool
) -> dict[tuple[str, ...], np.ndarray]:
    """By cluster, how often the method of a row beats that of a column, [M, M]; a tie is half of one for each."""
    found: dict[tuple[str, ...], np.ndarray] = {}
    for (i, one), (j, other) in combinations(enumerate(methods), 2):
        for key in scores[one].keys() & scores[other].keys():
            cluster = (key[0],) if isinstance(key[0], str) else tuple(key[0])
            table = found.setdefault(cluster, np.zeros((len(methods), len(methods))))
            lead = (scores[one][key] - scores[other][key]) * (-1 if lower_is_better else 1)
            table[i, j] += (np.sign(lead) + 1) / 2
            table[j, i] += (1 - np.sign(lead)) / 2
    return found


def _leaving_out(by_cluster: Mapping[tuple[str, ...], np.ndarray]) -> list[np.ndarray]:
    """The wins of the cases that each subject is in; a single subject is not left out."""
    subjects = sorted({name for cluster in by_cluster for name in cluster})
    tables = [sum(wins for cluster, wins in by_cluster.items() if name in cluster) for name in subjects]
    return [np.asarray(table) for table in tables] if len(subjects) > 1 else []


def strengths(methods: Sequence[str], wins: np.ndarray) -> np.ndarray:
    """Of the methods, where `wins` [M, M] is how often that of a row beats that of a column; they sum to 1."""
    import evalica

    pairs = list(combinations(range(len(methods)), 2))
    rows = [(i, j, evalica.Winner.X, wins[i, j]) for i, j in pairs]
    rows += [(i, j, evalica.Winner.Y, wins[j, i]) for i, j in pairs]
    rows += [(i, j, evalica.Winner.Draw, PRIOR_TIES) for i, j in pairs]
    firsts, seconds, winners, weights = zip(*rows, strict=True)
    found = evalica.bradley_terry(
        firsts, seconds, winners, weights=[float(each) for each in weights], tolerance=1e-9, limit=100_000
    )
    scores = np.array([found.scores[i] for i in range(len(methods))])
    return scores / scores.sum()


def _ranks(strengths: np.ndarray) -> np.ndarray:
    """1 for the strongest; equal ones share the better rank."""
    rounded = np.round(strengths, 6)
    return 1 + (rounded[None, :] > rounded[:, None]).sum(axis=1)
