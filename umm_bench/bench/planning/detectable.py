"""How small a difference the subjects of a run can show, from how much differences scattered in earlier runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from umm_bench.bench.plan import Plan
from umm_bench.bench.selection import FLOOR
from umm_bench.bench.statistics import detectable
from umm_bench.bench.store import Answers

SHOWN = ("dino", "clip_i", "clip_t", "identity", "several")
FEWEST = 3
"""Cases of a run whose scatter counts."""


@dataclass(frozen=True)
class Detectable:
    """The smallest paired difference that is found 8 times in 10 at the 5 % level. `value` is in the metric's own unit
    where earlier runs of the suite say how the differences of cases scatter (`sd`), else None; `in_sds` always.
    """

    metric: str
    cases: int
    in_sds: float | None
    sd: float | None

    @property
    def value(self) -> float | None:
        return None if self.sd is None or self.in_sds is None else self.sd * self.in_sds

    def __str__(self) -> str:
        if self.in_sds is None:
            return f"{self.metric}: nothing, with one case"
        if self.value is None:
            return f"{self.metric}: {self.in_sds:.2f} standard deviations of the cases' differences"
        return f"{self.metric}: {self.value:.3f} (the cases' differences scatter by {self.sd:.3f})"


def detectable_in(plan: Plan, store: Answers) -> list[Detectable]:
    """Of cases of one subject, where there are any; empty for one method."""
    counts = [len(case.subjects) for case in plan.selection.cases]
    if not counts or len(plan.methods) < 2:
        return []
    count = min(counts)
    cases, wanted = counts.count(count), [metric.name for metric in plan.metrics]
    in_sds = detectable(cases)
    names = [name for name in SHOWN if name in wanted and (count > 1 or name != "several")]
    return [Detectable(name, cases, in_sds, scatter(store, plan.request.suite, name, count)) for name in names]


def scatter(store: Answers, suite: str, metric: str, subject_count: int) -> float | None:
    """Standard deviation over cases of the mean paired difference to plain SD, else to the first method: the median of
    the suite's runs. None where there was none of FEWEST cases.
    """
    rows = store.rows(
        """
        with mine as (
            select run_id, method, case_id, prompt_id, seed, subject, value from run_results join runs using (run_id)
            where runs.suite = ? and metric = ? and subject_count = ?
        ), reference as (
            select run_id, coalesce(min(method) filter (method = ?), min(method)) as method from mine group by run_id
        ), differences as (
            select ours.run_id, ours.method, ours.case_id, avg(ours.value - theirs.value) as difference
            from mine ours join reference using (run_id) join mine theirs
                 on theirs.run_id = ours.run_id and theirs.method = reference.method
                 and (theirs.case_id, theirs.prompt_id, theirs.seed, theirs.subject)
                     = (ours.case_id, ours.prompt_id, ours.seed, ours.subject)
            where ours.method <> reference.method group by all
        )
        select stddev_samp(difference) as sd from differences group by run_id, method having count(*) >= ?
        """,
        [suite, metric, subject_count, FLOOR, FEWEST],
    )
    known: Sequence[float] = [row["sd"] for row in rows if row["sd"]]
    return median(known) if known else None
