"""What people say of a run's pictures: preference, agreement of voters, and which metrics say what people say."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from reports.data import Reader, Report, in_order
from umm_bench.bench.judging.votes import (
    Preference,
    Shown,
    Vote,
    agreement,
    attentive,
    krippendorff,
    leads,
    majority,
    preferences,
)
from umm_bench.bench.statistics import Interval

TRUTH = "identity"
"""The suite's own check of who is in the picture."""
BALLOTS = """
select ballot, pair, a.method, b.method, left_key, right_key, expected,
       (select list(subject order by place) from sample_subjects where sample_key = left_key)
from ballots left join samples a on a.sample_key = left_key left join samples b on b.sample_key = right_key
where run_id = ? order by ballot, pair
"""
VOTES = """
select ballot, pair, voter, answer from votes join ballots using (ballot, pair) where run_id = ?
order by ballot, pair, voter
"""
SCORES = """
select sample_key, json_group_object(metric, value)
from (select sample_key, metric, avg(value) as value from run_results where run_id = ? group by all)
group by sample_key
"""


@dataclass(frozen=True)
class Judged:
    """A metric against people, and both against the truth, where the suite knows it."""

    metric: str
    people: Interval | None
    truth: Interval | None


@dataclass(frozen=True)
class People:
    """`left_out` voters have missed attention checks; `alpha` is Krippendorff's, None where it cannot be said."""

    voters: int
    left_out: int
    votes: int
    pairs: int
    ties: int
    alpha: float | None
    preferences: list[Preference]
    metrics: list[Judged]
    truth: Interval | None


def read_people(reader: Reader, report: Report) -> People | None:
    """None where nobody has voted."""
    told = [Vote(*row) for row in reader.rows(VOTES)]
    if not told:
        return None
    scores = {key: json.loads(values) for key, values in reader.rows(SCORES)}
    shown, expected = {}, {}
    for ballot, pair, left, right, left_key, right_key, wanted, subjects in reader.rows(BALLOTS):
        if wanted is not None:
            expected[ballot, pair] = wanted
        elif left is not None and right is not None:
            sides = (scores.get(left_key, {}), scores.get(right_key, {}))
            shown[ballot, pair] = Shown(left, right, tuple(subjects), *sides)
    if len({len(each.cluster) for each in shown.values()}) > 1:  # intervals need as many subjects in each case
        shown = {key: replace(each, cluster="+".join(each.cluster)) for key, each in shown.items()}
    counted, out = attentive(told, expected)
    votes = [vote for vote in told if vote.voter in counted and (vote.ballot, vote.pair) in shown]
    units: dict[tuple[str, int], list[str]] = {}
    for vote in votes:
        units.setdefault((vote.ballot, vote.pair), []).append(vote.answer)
    people, truth = majority(votes), leads(shown, TRUTH, report.lower_is_better)
    judged = []
    for metric in in_order({name for each in scores.values() for name in each}, report.metrics):
        by_metric = leads(shown, metric, report.lower_is_better)
        against = None if metric == TRUTH else agreement(by_metric, truth, shown)
        judged.append(Judged(metric, agreement(by_metric, people, shown), against))
    return People(
        len(counted), len(out), len(votes), len(units), sum(vote.answer == "tie" for vote in votes),
        krippendorff(units.values()), preferences(votes, shown), [each for each in judged if each.people],
        agreement(people, truth, shown),
    )  # fmt: skip


def people_page(reader: Reader, report: Report) -> dict[str, Any]:
    """What the page is made of."""
    asked = reader.rows("select count(distinct ballot) from ballots where run_id = ?")[0][0]
    return {"people": read_people(reader, report), "asked": asked, "truth": TRUTH}
