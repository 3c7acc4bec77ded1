"""What people say of pairs of pictures: whom they prefer, whether they agree, and which metrics say what they say.

A vote is on a pair of pictures of one case and prompt by two methods. Voters are told of methods by no name, side or
order; one who misses attention checks is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np

from umm_bench.bench.judging.ranks import strengths
from umm_bench.bench.statistics import Cluster, Interval, jackknife_interval, mean_interval

ANSWERS = ("left", "right", "tie")
WON = {"left": 1.0, "right": 0.0, "tie": 0.5}
"""Of the picture on the left."""
ATTENTIVE = 0.75
"""The share of checks that a voter must have right to be counted."""


@dataclass(frozen=True)
class Vote:
    """An answer of one voter to one pair of a ballot."""

    ballot: str
    pair: int
    voter: str
    answer: str


@dataclass(frozen=True)
class Shown:
    """A pair as voters see it: the methods on its sides, the subjects that it is of, and the scores of each side."""

    left: str
    right: str
    cluster: Cluster
    left_scores: Mapping[str, float]
    right_scores: Mapping[str, float]


@dataclass(frozen=True)
class Preference:
    """`strength` is Bradley and Terry's, its interval over subjects; those of all methods sum to 1."""

    method: str
    strength: Interval
    win_rate: float
    votes: int


def attentive(votes: Iterable[Vote], expected: Mapping[tuple[str, int], str]) -> tuple[set[str], set[str]]:
    """Voters to count, and those to leave out; `expected` are the right answers of checks by ballot and pair. One who
    has answered no check is counted.
    """
    told: dict[str, list[bool]] = {}
    for vote in votes:
        given = told.setdefault(vote.voter, [])
        if (vote.ballot, vote.pair) in expected:
            given.append(vote.answer == expected[vote.ballot, vote.pair])
    out = {voter for voter, right in told.items() if right and sum(right) / len(right) < ATTENTIVE}
    return told.keys() - out, out


def krippendorff(units: Iterable[Sequence[str]]) -> float | None:
    """Krippendorff's alpha for nominal answers: 1 where voters always agree, 0 where as often as by chance.

    A unit holds the answers of those who gave one; one of fewer than two says nothing. None where nothing is left, or
    all answers are the same, which says nothing of agreement. Krippendorff, Computing Krippendorff's Alpha-Reliability
    (2011), C.
    """
    paired = [Counter(unit) for unit in units if len(unit) > 1]
    values = Counter[str]()
    for unit in paired:
        values.update(unit)
    total = values.total()
    by_chance = total * total - sum(count * count for count in values.values())  # ordered pairs that differ
    if by_chance == 0:
        return None
    observed = sum(
        (unit.total() ** 2 - sum(count * count for count in unit.values())) / (unit.total() - 1) for unit in paired
    )
    return 1 - (total - 1) * observed / by_chance


def preferences(votes: Sequence[Vote], shown: Mapping[tuple[str, int], Shown]) -> list[Preference]:
    """The most preferred first; empty without a vote on a pair."""
    given = [(shown[vote.ballot, vote.pair], WON[vote.answer]) for vote in votes if (vote.ballot, vote.pair) in shown]
    methods = sorted({method for pair, _ in given for method in (pair.left, pair.right)})
    clusters = [pair.cluster for pair, _ in given]
    found = []
    for i, method in enumerate(methods):

        def odds(some: Sequence[tuple[Shown, float]], i: int = i) -> float:
            share = strengths(methods, _wins(methods, some))[i]
            return log(share / (1 - share))

        interval = jackknife_interval(given, clusters, odds)
        assert interval is not None  # of a vote at least
        own = [won if pair.left == method else 1 - won for pair, won in given if method in (pair.left, pair.right)]
        found.append(Preference(method, _shares(interval), float(np.mean(own)), len(own)))
    return sorted(found, key=lambda each: (-each.strength.mean, each.method))


def _wins(methods: Sequence[str], given: Sequence[tuple[Shown, float]]) -> np.ndarray:
    table = np.zeros((len(methods), len(methods)))
    for pair, won in given:
        i, j = methods.index(pair.left), methods.index(pair.right)
        table[i, j] += won
        table[j, i] += 1 - won
    return table


def _shares(odds: Interval) -> Interval:
    """Of an interval of log odds, that of the shares."""

    def share(value: float) -> float:
        return 1 / (1 + exp(-value))

    low, high = (None if bound is None else share(bound) for bound in (odds.low, odds.high))
    return Interval(share(odds.mean), low, high, odds.samples, odds.clusters)


def majority(votes: Iterable[Vote]) -> dict[tuple[str, int], float]:
    """By ballot and pair, how much more often the left was preferred than the right, -1 to 1; ties count for nobody."""
    given: dict[tuple[str, int], list[float]] = {}
    for vote in votes:
        given.setdefault((vote.ballot, vote.pair), []).append(2 * WON[vote.answer] - 1)
    return {key: float(np.mean(values)) for key, values in given.items()}


def agreement(
    one: Mapping[tuple[str, int], float],
    other: Mapping[tuple[str, int], float],
    shown: Mapping[tuple[str, int], Shown],
) -> Interval | None:
    """How often `one` prefers the side that `other` does, of pairs that the other decides; a tie of the one is half.

    Both say by pair how far the left leads. None where there is no such pair.
    """
    common = sorted(key for key in one.keys() & other.keys() & shown.keys() if other[key] != 0)
    if not common:
        return None
    right = [(1 + np.sign(one[key]) * np.sign(other[key])) / 2 for key in common]
    return mean_interval(right, [shown[key].cluster for key in common])


def leads(shown: Mapping[tuple[str, int], Shown], metric: str, lower: Collection[str]) -> dict[tuple[str, int], float]:
    """By pair that a metric has scored on both sides, how far the left leads by it."""
    sign = -1 if metric in lower else 1
    return {
        key: sign * (pair.left_scores[metric] - pair.right_scores[metric])
        for key, pair in shown.items()
        if metric in pair.left_scores and metric in pair.right_scores
    }
