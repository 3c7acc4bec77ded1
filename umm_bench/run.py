"""Run methods on a suite, score the images and report: `python -m umm_bench.run --methods umm,dreambooth`.

A second run of the same command makes only what is missing. Settings of one method or metric are given as
`--set NAME.KEY=VALUE`, e.g. `--set dreambooth.steps=100 --set clip_t.model=openai/clip-vit-base-patch32`. A method that
is trained has a curve: `--set dreambooth.curve=50,100,200` scores it after each of these steps of one training.
"""

import errno
import importlib
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import duckdb
from rich.console import Console

from umm_bench.base import load_base
from umm_bench.bench import runner, scoring
from umm_bench.bench.conclusions import conclude
from umm_bench.bench.keeping.provenance import provenance
from umm_bench.bench.leaderboard import show_leaderboard
from umm_bench.bench.making.executors import executor
from umm_bench.bench.options import Doing, make_parser, read_doing, read_request
from umm_bench.bench.plan import Plan, inputs_digest, make_plan, metric_config
from umm_bench.bench.planning.costs import largest_part, measured, works_of
from umm_bench.bench.planning.detectable import detectable_in
from umm_bench.bench.planning.show import show_plan, tell_detectable
from umm_bench.bench.selection import Request, Selection, select
from umm_bench.bench.store import Answers, OpenAnswers, Store
from umm_bench.cli.commands import quiet_libraries, run_command
from umm_bench.cli.outputs import check_folder
from umm_bench.cli.progress import Tracker
from umm_bench.configs import describe
from umm_bench.metrics.base import METRICS, is_for
from umm_bench.suites.base import omitted

OMITTED_SHOWN = 3
SOME_FAILED = 1
"""The exit code of a run that is complete but for what could not be drawn or scored."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0; 1 where some images or scores failed, each a row with its reason; 2 after one line on an
    error of the user's; 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(lambda: _command(words), interrupted="stopped; the same command goes on from here")


def _command(words: list[str]) -> int:
    options = make_parser(__doc__ or "").parse_args(words)
    check_folder(options.output, "--output")
    return _run(read_request(options), read_doing(options), shlex.join(words))


def _run(request: Request, doing: Doing, command: str) -> int:
    console, output = Console(), doing.output
    selection = select(request)
    _warn_of_sprite_encoders(request, selection)
    _tell_omitted(selection)
    if doing.dry_run:
        with OpenAnswers(output, perhaps=True) as answers:
            _show_plan(request, selection, answers, console, doing)
        return 0
    with Store(output) as store:
        if request.budget is not None:
            selection = _within_budget(request, selection, store, console, doing)
        if _is_finished(request, selection, store, doing.retry_failed):
            runner.record_references(request.run_id, selection, store)
            store.mark_latest(request.run_id, _now())
        else:
            _execute(request, selection, store, console, doing, command)
        show_leaderboard(console, store, request.run_id, request.method_names)
        failed = _failed(request.run_id, store)
    # The report opens the database for itself.
    page = _render(store.path, request.run_id, output)
    console.print(f"report    {page}", soft_wrap=True, highlight=False)
    console.print(f"all runs  {page.parent.with_name('index.html')}", soft_wrap=True, highlight=False)
    console.print(f"database  {store.path}", soft_wrap=True, highlight=False)
    if failed:
        line = f"failed    {failed}; --retry-failed tries again (exit code {SOME_FAILED})"
        console.print(line, highlight=False, soft_wrap=True)
    return SOME_FAILED if failed else 0


def _failed(run_id: str, store: Store) -> str:
    """How many images and scores of the run failed, in words; "" where none did."""
    told = []
    for table, noun in (("undrawn", "images"), ("unscored", "scores")):
        (row,) = store.rows(
            f"select count(*) as number from {table} join run_samples using (sample_key)"
            " where run_id = ? and status = 'failed'",
            [run_id],
        )
        told += [f"{row['number']} {noun if row['number'] > 1 else noun[:-1]}"] if row["number"] else []
    return " and ".join(told)


def _show_plan(request: Request, selection: Selection, store: Answers, console: Console, doing: Doing) -> None:
    quiet_libraries()
    if request.budget is not None:
        selection = _within_budget(request, selection, store, console, doing)
    plan = make_plan(request, selection, doing.device, doing.offload)
    works = works_of(plan, store, runner.missing_samples(plan, store))
    show_plan(console, plan, works, measured(plan, store), detectable_in(plan, store), max(doing.workers, 1))


def _within_budget(request: Request, selection: Selection, store: Answers, console: Console, doing: Doing) -> Selection:
    """The largest balanced part that fits; the one that was chosen before, where the command was given before."""
    row = store.run(request.run_id)
    chosen = json.loads(row["config_json"]).get("part") if row else None
    if chosen is None:
        plan = make_plan(request, selection, doing.device, doing.offload)
        costs = measured(plan, store)
        if unknown := costs.unknown(plan):
            if not isinstance(store, Store):
                names = ", ".join(unknown)
                console.print(
                    f"budget    nothing is known of what {names} takes: a run measures it first", highlight=False
                )
                return selection
            _probe(plan, store, console, doing, unknown)
            costs = measured(plan, store)
        workers = max(doing.workers, 1)
        chosen = largest_part(plan, costs, (request.budget or 0.0) * workers)
    part = selection.part(*chosen)
    told = f"{chosen[0]} subjects, {chosen[1]} pairs, {chosen[2]} prompts of each"
    console.print(f"budget    {request.budget:.0f} s: {told}", highlight=False)
    return part


def _probe(plan: Plan, store: Store, console: Console, doing: Doing, methods: Sequence[str]) -> None:
    """The first image of the first case of each method that was never measured; each is a part of any part."""
    quiet_libraries()
    smallest = make_plan(plan.request, plan.selection.part(1, 0, 1), doing.device, doing.offload)
    smallest = replace(smallest, methods=tuple(method for method in smallest.methods if method.name in methods))
    images = sum(map(len, runner.missing_samples(smallest, store).values()))
    _track(console, "measuring", images, runner.generate(smallest, store, 1))


def _warn_of_sprite_encoders(request: Request, selection: Selection) -> None:
    used = [name for name in request.metrics if any(is_for(METRICS.load(name), case) for case in selection.cases)]
    configs = {name: metric_config(request, name) for name in used}
    mini = [
        f"{n}.{part}"
        for n, c in configs.items()
        for part in ("model", "detector", "vae")
        if getattr(c, part, "") == "mini"
    ]
    if mini and request.suite != "mini":
        print(
            f"warning: {', '.join(mini)}: the mini models know sprites of 64 px, not suite '{request.suite}'; "
            f"choose others, --set {mini[0]}=FOLDER_OR_HUB_ID",
            file=sys.stderr,
        )


def _tell_omitted(selection: Selection) -> None:
    lines = omitted(selection.suite)
    for line in lines[:OMITTED_SHOWN]:
        print(f"left out  {line}", file=sys.stderr)
    if len(lines) > OMITTED_SHOWN:
        print(
            f"left out  {len(lines) - OMITTED_SHOWN} more of suite '{selection.suite.name}': "
            "`python -m umm_bench.suites show` lists them",
            file=sys.stderr,
        )


def _is_finished(request: Request, selection: Selection, store: Store, retry_failed: bool) -> bool:
    """Asked before any method is imported: torch alone takes seconds to import."""
    row = store.run(request.run_id)
    if row is None or row["finished_inputs"] is None:
        return False
    watched = [Path(path) for path in json.loads(row["watched_json"])]
    if inputs_digest(request, selection, load_base(request.base, request.dtype), watched) != row["finished_inputs"]:
        return False
    keys = [
        found["sample_key"]
        for found in store.rows("select sample_key from run_samples where run_id = ?", [request.run_id])
    ]
    undrawn = store.undrawn(keys)
    if retry_failed and (store.unscored(keys) or any(row["status"] == "failed" for row in undrawn.values())):
        return False
    return len(store.finished_samples(keys) | undrawn.keys()) == len(keys)


def _execute(
    request: Request,
    selection: Selection,
    store: Store,
    console: Console,
    doing: Doing,
    command: str,
) -> None:
    quiet_libraries()
    # Read before the work: code or weights that change while it runs must not count as what it ran with.
    plan = make_plan(request, selection, doing.device, doing.offload)
    draw = executor(doing.executor, doing.workers, plan.base)
    inputs = inputs_digest(request, selection, plan.base, plan.watched)
    for method in plan.methods:
        if source := getattr(method.config, "source", None):
            print(f"settings  {method.name}: {describe(method.config)} (defaults: {source})", file=sys.stderr)
    left_out = [line for method in plan.methods for line in method.left_out]
    for line in left_out:
        print(f"left out  {line}", file=sys.stderr)
    tell_detectable(console, detectable_in(plan, store))
    now = _now()
    store.begin_run(
        request.run_id,
        now,
        command=f"python -m umm_bench.run {command}",
        config_json={
            **asdict(request),
            "methods": request.method_names,
            "asked": request.methods,
            "left_out": left_out,
            "part": _part(selection) if request.budget is not None else None,
        },
        code_version=version("umm-bench"),
        suite=request.suite,
        suite_hash=selection.fingerprint,
        base=request.base,
        watched_json=[str(path) for path in plan.watched],
    )
    options = {"batch_size": doing.batch_size, "workers": doing.workers, "executor": doing.executor}
    options |= {"device": plan.base.device, "offload": doing.offload}
    store.begin_execution(request.run_id, now, command=command, options_json=options, **provenance())
    try:
        _make(plan, store, console, doing, draw)
        store.finish_run(request.run_id, inputs)
        store.end_execution("done")
    except KeyboardInterrupt:
        store.end_execution("stopped")
        raise
    except duckdb.Error as error:
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, "no room for rows", str(store.path)) from error
        raise
    except Exception as error:
        store.end_execution(f"failed: {runner.reason_of(error)}")
        raise


def _make(plan: Plan, store: Store, console: Console, doing: Doing, draw: runner.Execute) -> None:
    if doing.retry_failed:
        runner.forget_failed(plan, store)
    runner.record(plan, store)
    missing = [sample.key for samples in runner.missing_samples(plan, store).values() for sample in samples]
    _track(console, "images", len(missing), runner.generate(plan, store, doing.batch_size, draw))
    began = time.monotonic()
    scores = sum(len(samples) for samples in scoring.unscored(plan, store).values())
    _track(console, "scores", scores, scoring.score(plan, store))
    store.note_work(len(store.finished_samples(missing)), scores, time.monotonic() - began)
    scoring.score_wholes(plan, store)
    conclude(plan, store)


def _part(selection: Selection) -> list[int]:
    alone = sum(len(case.subjects) == 1 for case in selection.cases)
    return [alone, len(selection.cases) - alone, max(map(len, selection.prompts.values()))]


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _track(console: Console, title: str, total: int, events: Iterator[runner.Event]) -> None:
    if total == 0:
        return
    with Tracker(console, title, total) as tracker:
        for event in events:
            tracker.update(event.done, event.label)


def _render(database: Path, run_id: str, output: Path) -> Path:
    # By name: reports depend on the store, never the other way round.
    return importlib.import_module("reports.render").render_run(database, run_id, output)


if __name__ == "__main__":
    sys.exit(main())
