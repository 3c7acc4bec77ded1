"""The plan of a run, in lines and a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from umm_bench.bench.plan import Plan
from umm_bench.bench.planning.costs import Costs, Work
from umm_bench.bench.planning.detectable import Detectable
from umm_bench.methods import Prompt


def show_plan(
    console: Console, plan: Plan, works: Sequence[Work], costs: Costs, found: Sequence[Detectable], workers: int = 1
) -> None:
    """Cases, images, seconds, disk, and the smallest difference that can be found."""
    suite, cases = plan.selection.suite, plan.selection.cases
    subjects, pairs = plan.selection.subjects, [case for case in cases if len(case.subjects) > 1]
    prompts = {prompt.id: prompt for of in plan.selection.prompts.values() for prompt in of}
    per_case = sorted({len(of) for of in plan.selection.prompts.values()})
    each = f"{per_case[0]}" if len(per_case) == 1 else f"{per_case[0]} to {per_case[-1]}"

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    say(f"run       {plan.request.run_id}, suite {suite.name}, base {plan.base.name}, {plan.base.dtype}")
    say(f"subjects  {len(subjects)}: {', '.join(subject.id for subject in subjects)}")
    if pairs:
        say(f"pairs     {len(pairs)}: {', '.join(case.id for case in pairs)}")
    say(f"prompts   {each} a case, {len(prompts)} in all, images of each: {plan.request.images_per_prompt}")
    for prompt in prompts.values():
        say(f"          {_line(prompt)}")
    table = Table("method", "images", "to make", "setups", "time", "disk", box=None, padding=(0, 2, 0, 0))
    for work in works:
        known = work.images == 0 or work.method in costs.image
        time = duration(costs.seconds(work.method, work.images, work.setups) / workers) if known else "not measured"
        table.add_row(
            work.method, str(work.asked), str(work.images), str(work.setups), time, size(disk_of(work, costs))
        )
    total = sum(costs.seconds(work.method, work.images, work.setups) for work in works) / workers
    bytes_ = [disk_of(work, costs) for work in works]
    unknown = [work.method for work in works if work.images and work.method not in costs.image]
    more = f" and what {', '.join(unknown)} takes" if unknown else ""
    table.add_row(
        "in all",
        str(sum(work.asked for work in works)),
        str(sum(work.images for work in works)),
        str(sum(work.setups for work in works)),
        duration(total) + more,
        size(None if None in bytes_ else sum(each or 0 for each in bytes_)),
    )
    console.print(table)
    tell_detectable(console, found)


def tell_detectable(console: Console, found: Sequence[Detectable]) -> None:
    """One line: what the run can find with a chance of 8 in 10."""
    if not found:
        return
    unknown = [each for each in found if each.value is None]
    told = [str(each) for each in found if each.value is not None] or [str(unknown[0])]
    line = f"detects   with {found[0].cases} cases, 8 times in 10, a difference of {'; '.join(told)}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def disk_of(work: Work, costs: Costs) -> float | None:
    if work.images and costs.image_bytes is None:
        return None
    return work.images * (costs.image_bytes or 0.0) + work.setups * costs.setup_bytes.get(work.method, 0.0)


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(number: float | None) -> str:
    if number is None:
        return "not measured"
    return f"{number / 2**20:.1f} MB" if number < 2**30 else f"{number / 2**30:.1f} GB"


def _line(prompt: Prompt) -> str:
    return f"{prompt.id}: {prompt.template}"
