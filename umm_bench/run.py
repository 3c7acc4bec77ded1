"""Run methods on a suite, score the images and report: `python -m umm_bench.run --methods umm,dreambooth`.

A second run of the same command makes only what is missing. Settings of one method or metric are given as
`--set NAME.KEY=VALUE`, e.g. `--set dreambooth.steps=100 --set clip_t.model=openai/clip-vit-base-patch32`. A method that
is trained has a curve: `--set dreambooth.curve=50,100,200` scores it after each of these steps of one training.
"""

import argparse
import importlib
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from umm_bench.base import load_base
from umm_bench.bench import runner, scoring
from umm_bench.bench.conclusions import conclude
from umm_bench.bench.leaderboard import show_leaderboard
from umm_bench.bench.plan import inputs_digest, make_plan, metric_config
from umm_bench.bench.selection import DEFAULT_METRICS, DEGRADED_METRICS, Request, Selection, select
from umm_bench.bench.store import Store
from umm_bench.cli.arguments import GUIDANCE, SEED, STEPS, Parser, whole
from umm_bench.cli.commands import quiet_libraries, run_command
from umm_bench.cli.outputs import check_folder
from umm_bench.cli.progress import Tracker
from umm_bench.configs import describe
from umm_bench.errors import UserError
from umm_bench.methods import METHODS, Generation
from umm_bench.metrics.base import METRICS, is_for
from umm_bench.suites import degrade
from umm_bench.suites.base import SUITES, omitted

OMITTED_SHOWN = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 2 after one line on an error of the user's, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(lambda: _command(words), interrupted="stopped; the same command goes on from here")


def _command(words: list[str]) -> None:
    options = _parser().parse_args(words)
    check_folder(options.output, "--output")
    _run(_request(options), options.output, options.batch_size, options.retry_failed, shlex.join(words))


def _run(request: Request, output: Path, batch_size: int, retry_failed: bool, command: str) -> None:
    console = Console()
    selection = select(request)
    _warn_of_sprite_encoders(request, selection)
    _tell_omitted(selection)
    with Store(output) as store:
        if _is_finished(request, selection, store, retry_failed):
            runner.record_references(request.run_id, selection, store)
            store.mark_latest(request.run_id, _now())
        else:
            _execute(request, selection, store, console, batch_size, retry_failed, command)
        show_leaderboard(console, store, request.run_id, request.method_names)
    # The report opens the database for itself.
    page = _render(store.path, request.run_id, output)
    console.print(f"report    {page}", soft_wrap=True, highlight=False)
    console.print(f"all runs  {page.parent.with_name('index.html')}", soft_wrap=True, highlight=False)
    console.print(f"database  {store.path}", soft_wrap=True, highlight=False)


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
    if inputs_digest(request, selection, load_base(request.base), watched) != row["finished_inputs"]:
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
    batch_size: int,
    retry_failed: bool,
    command: str,
) -> None:
    quiet_libraries()
    # Read before the work: code or weights that change while it runs must not count as what it ran with.
    plan = make_plan(request, selection)
    inputs = inputs_digest(request, selection, plan.base, plan.watched)
    for method in plan.methods:
        if source := getattr(method.config, "source", None):
            print(f"settings  {method.name}: {describe(method.config)} (defaults: {source})", file=sys.stderr)
    left_out = [line for method in plan.methods for line in method.left_out]
    for line in left_out:
        print(f"left out  {line}", file=sys.stderr)
    store.begin_run(
        request.run_id,
        _now(),
        command=f"python -m umm_bench.run {command}",
        config_json={
            **asdict(request),
            "methods": request.method_names,
            "asked": request.methods,
            "left_out": left_out,
        },
        code_version=version("umm-bench"),
        suite=request.suite,
        suite_hash=selection.fingerprint,
        base=request.base,
        watched_json=[str(path) for path in plan.watched],
    )
    if retry_failed:
        runner.forget_failed(plan, store)
    runner.record(plan, store)
    images = sum(len(samples) for samples in runner.missing_samples(plan, store).values())
    _track(console, "images", images, runner.generate(plan, store, batch_size))
    scores = sum(len(samples) for samples in scoring.unscored(plan, store).values())
    _track(console, "scores", scores, scoring.score(plan, store))
    scoring.score_wholes(plan, store)
    conclude(plan, store)
    store.finish_run(request.run_id, inputs)


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


def _request(options: argparse.Namespace) -> Request:
    settings: list[tuple[str, str, str]] = []
    for word in options.set:
        name, equals, value = word.partition("=")
        owner, dot, key = name.partition(".")
        if not (equals and dot and owner and key):
            raise UserError(f"--set {word}: expected NAME.KEY=VALUE, e.g. dreambooth.steps=100")
        if (owner, key) in [given[:2] for given in settings]:
            raise UserError(f"--set {word}: {name} is given twice")
        settings.append((owner, key, value))
    if not options.prompts.strip(" ,0"):
        raise UserError("--prompts asks for none")
    metrics = DEFAULT_METRICS if options.metrics is None else _names(options.metrics, "--metrics")
    if options.metrics is None and options.degrade:
        metrics += DEGRADED_METRICS
    return Request(
        methods=_names(options.methods, "--methods"),
        metrics=metrics,
        suite=options.suite,
        suite_path=options.suite_path,
        subjects=options.subjects,
        pairs=options.pairs,
        prompts=options.prompts,
        images_per_prompt=options.images_per_prompt,
        seed=options.seed,
        base=options.base,
        generation=Generation(options.steps, options.guidance_scale),
        settings=tuple(settings),
        references=options.references,
        degrade=options.degrade,
        floor=options.floor,
    )


def _names(text: str, option: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise UserError(f"{option} names nothing")
    return names


def _parser() -> Parser:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = Parser(
        prog="python -m umm_bench.run",
        description=summary,
        epilog=rest.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = Request(methods=())
    known = f"separated by commas, of: {', '.join(METHODS.names())}; FILE.py:CLASS; images:NAME=FOLDER"
    parser.add_argument("--methods", required=True, help=known)
    parser.add_argument(
        "--metrics",
        help=f"of: {', '.join(METRICS.names())} (default: {','.join(DEFAULT_METRICS)}; "
        f"with --degrade also {','.join(DEGRADED_METRICS)})",
    )
    parser.add_argument("--suite", default=defaults.suite, help=f"{', '.join(SUITES.names())} (default: %(default)s)")
    parser.add_argument("--suite-path", help="folder of the suite's data, where the suite needs one")
    number = "a number, or ids separated by commas (default: %(default)s)"
    parser.add_argument("--subjects", default=defaults.subjects, help=number)
    parser.add_argument("--pairs", default=defaults.pairs, help="of two subjects, each named FIRST+SECOND; likewise")
    parser.add_argument("--prompts", default=defaults.prompts, help=number)
    parser.add_argument("--references", type=whole(1), help="pictures of a subject that methods see (default: all)")
    parser.add_argument("--degrade", choices=degrade.KINDS, help="worsens what methods see, not what is scored against")
    parser.add_argument(
        "--floor",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="plain SD draws all cases too, as the floor",
    )
    parser.add_argument("--retry-failed", action="store_true", help="try again what failed before")
    parser.add_argument("--images-per-prompt", type=whole(1, 100_000), default=defaults.images_per_prompt)
    parser.add_argument("--seed", type=SEED, default=defaults.seed)
    parser.add_argument("--steps", type=STEPS, default=defaults.generation.num_inference_steps, help="denoising steps")
    parser.add_argument("--guidance-scale", type=GUIDANCE, default=defaults.generation.guidance_scale)
    parser.add_argument(
        "--base", default=defaults.base, help="mini, a diffusers folder or a hub id (default: %(default)s)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME.KEY=VALUE", help="may be repeated")
    parser.add_argument("--batch-size", type=whole(1, 65536), default=4, help="images at a time; changes no image")
    parser.add_argument("--output", type=Path, default=Path("reports"), help="folder (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
