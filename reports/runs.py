"""All runs of a store, newest first, in a few words each."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from reports.data import FIRST_METRICS, in_order, open_store
from reports.page import write_page
from reports.pictures import copy_of
from reports.words import file_name

ROWS = """
with drawn as (
    select run_id, count(*) as images, count(distinct case_id) as cases, sum(samples.seconds) as seconds,
           list(distinct samples.method) as methods
    from run_samples join samples using (sample_key) group by run_id
), shown as (
    select run_id, list(sample_key order by method = 'sd', subject_count, value desc, sample_key)[:8] as keys
    from run_results where metric in ('identity', 'dino') group by run_id
)
select runs.run_id, created, executed, suite, base, config_json, finished_inputs is not null,
       coalesce(images, 0), coalesce(cases, 0), coalesce(seconds, 0), coalesce(methods, []), coalesce(shown.keys, [])
from runs left join drawn using (run_id) left join shown using (run_id)
order by executed desc, run_id
"""
MEANS = """
select run_id, metric, method, mean from summaries
qualify subject_count = min(subject_count) over (partition by run_id)
"""


@dataclass(frozen=True)
class Headline:
    """The metric that says most of a run, with each method's mean, the highest first."""

    metric: str
    means: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Card:
    """A run on the index. `page`, `gallery` and `picture` are relative to it, None where not rendered."""

    run_id: str
    created: datetime
    executed: datetime
    suite: str
    base: str
    finished: bool
    images: int
    cases: int
    seconds: float
    methods: tuple[str, ...]
    headline: Headline | None
    page: str | None
    gallery: str | None
    picture: str | None

    @property
    def took(self) -> str:
        """The time that drawing its images took."""
        if self.seconds < 120:
            return f"{self.seconds:.0f} s"
        return f"{self.seconds / 60:.0f} min" if self.seconds < 7200 else f"{self.seconds / 3600:.1f} h"


def write_index(store_path: Path, output: Path) -> Path:
    """`output/index.html`: each run, with a link where `output` has its pages. UserError as `read_report`."""
    return write_page("index.html.j2", output / "index.html", run=None, cards=read_cards(store_path, output))


def read_cards(store_path: Path, output: Path) -> list[Card]:
    with open_store(store_path) as connection:
        rows, means = connection.execute(ROWS).fetchall(), connection.execute(MEANS).fetchall()
    scores: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for run_id, metric, method, mean in means:
        scores.setdefault(run_id, {}).setdefault(metric, []).append((method, mean))
    return [_card(*row, scores=scores.get(row[0], {}), output=output) for row in rows]


def _card(
    run_id: str,
    created: datetime,
    executed: datetime | None,
    suite: str,
    base: str,
    config: str,
    finished: bool,
    images: int,
    cases: int,
    seconds: float,
    methods: list[str],
    shown: list[str],
    *,
    scores: dict[str, list[tuple[str, float]]],
    output: Path,
) -> Card:
    folder = file_name(run_id)
    pictures = (copy_of(output / folder, key) for key in shown)
    wanted: Any = json.loads(config or "{}").get("methods", ())
    page, gallery = (
        f"{folder}/{name}" if (output / folder / name).is_file() else None for name in ("index.html", "gallery.html")
    )
    return Card(
        run_id,
        created,
        executed or created,
        suite,
        base,
        finished,
        images,
        cases,
        seconds,
        in_order(set(methods), wanted),
        _headline(scores),
        page,
        gallery,
        next((picture.relative_to(output).as_posix() for picture in pictures if picture), None),
    )


def _headline(scores: dict[str, list[tuple[str, float]]]) -> Headline | None:
    """Of the first metric in the usual order that tells methods apart, else of the first."""
    metrics = in_order(set(scores), FIRST_METRICS)
    telling = [name for name in metrics if len({mean for _, mean in scores[name]}) > 1]
    if not metrics:
        return None
    metric = (telling or list(metrics))[0]
    return Headline(metric, tuple(sorted(scores[metric], key=lambda row: (-row[1], row[0]))))
