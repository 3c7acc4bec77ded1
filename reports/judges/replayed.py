"""Protocols replayed: the same pictures by the rules of others, and how the methods' ranks move."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from reports.charts import Chart, rank_lines
from reports.data import Reader, Report, in_order
from reports.words import title_of

ROWS = """
select metric, subject_count, rule, says, method, mean, rank, left_out, tau from replays where run_id = ?
order by subject_count, metric, place, method
"""


@dataclass
class Ruled:
    """What a rule says: the methods' means with their ranks, and how its order agrees with the bench's own."""

    says: str
    tau: float | None
    left_out: int
    means: dict[str, tuple[float, int]] = field(default_factory=dict)


@dataclass
class Replayed:
    """Of a metric and cases of `count` subjects: rule -> what it says, the bench's own first."""

    metric: str
    count: int
    rules: dict[str, Ruled] = field(default_factory=dict)

    @property
    def moved(self) -> bool:
        """Whether some rule orders the methods otherwise than the bench's own."""
        return any(rule.tau is not None and rule.tau < 1 for rule in self.rules.values())

    def chart(self, methods: tuple[str, ...]) -> Chart | None:
        """None where there is one method, or one rule."""
        values = [
            {"rule": name, "method": method, "rank": rank, "mean": mean}
            for name, rule in self.rules.items()
            for method, (mean, rank) in rule.means.items()
        ]
        if len({row["method"] for row in values}) < 2 or len(self.rules) < 2:
            return None
        return rank_lines(values, methods, list(self.rules), f"Ranks of the methods by {title_of(self.metric)}")


def read_replayed(reader: Reader) -> list[Replayed]:
    found: dict[tuple[str, int], Replayed] = {}
    for metric, count, rule, says, method, mean, rank, left_out, tau in reader.rows(ROWS):
        each = found.setdefault((metric, count), Replayed(metric, count))
        each.rules.setdefault(rule, Ruled(says, tau, left_out)).means[method] = (mean, rank)
    return list(found.values())


def replayed_page(reader: Reader, report: Report) -> dict[str, Any]:
    """What the page is made of."""
    replayed = read_replayed(reader)
    present = {method for each in replayed for rule in each.rules.values() for method in rule.means}
    methods = in_order(present, report.methods)
    charts = {(each.metric, each.count): each.chart(methods) for each in replayed}
    rules = {name: rule.says for each in replayed for name, rule in each.rules.items()}
    return {"replayed": replayed, "ruled": methods, "charts": charts, "rules": rules}
