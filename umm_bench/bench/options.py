"""The words of `umm_bench.run` as a request, and as what the command does beside it."""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from umm_bench.base import DTYPES, usual
from umm_bench.bench.selection import DEFAULT_METRICS, DEGRADED_METRICS, Request
from umm_bench.cli.arguments import GUIDANCE, GUIDANCE_HELP, SEED, STEPS, Parser, whole
from umm_bench.errors import UserError
from umm_bench.methods import METHODS, Generation
from umm_bench.metrics.base import METRICS
from umm_bench.suites import degrade
from umm_bench.suites.base import SUITES

ALL = "1000000"
"""What "all" is as a number of subjects, pairs or prompts."""
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Doing:
    """What changes no picture and no row: how it is done. `workers` processes; 0 is this one."""

    output: Path
    batch_size: int
    retry_failed: bool
    dry_run: bool
    device: str
    offload: bool
    workers: int
    executor: str


def read_request(options: argparse.Namespace) -> Request:
    """UserError for words that do not fit together."""
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
    guidance = usual(options.base).guidance_scale if options.guidance_scale is None else options.guidance_scale
    return Request(
        methods=_names(options.methods, "--methods"),
        metrics=metrics,
        suite=options.suite,
        suite_path=options.suite_path,
        subjects=_number(options.subjects),
        pairs=_number(options.pairs),
        prompts=_number(options.prompts),
        images_per_prompt=options.images_per_prompt,
        seed=options.seed,
        base=options.base,
        generation=Generation(options.steps, guidance),
        settings=tuple(settings),
        references=options.references,
        degrade=options.degrade,
        floor=options.floor,
        dtype=options.dtype,
        training_seeds=options.training_seeds,
        budget=options.budget,
    )


def read_doing(options: argparse.Namespace) -> Doing:
    workers = options.workers if options.workers is not None else 2 if options.executor == "ray" else 0
    return Doing(
        options.output,
        options.batch_size,
        options.retry_failed,
        options.dry_run,
        options.device,
        options.offload,
        workers,
        options.executor,
    )


def _number(text: str) -> str:
    return ALL if text.strip() == "all" else text


def seconds(text: str) -> float:
    """ "90s", "10m", "1.5h", or seconds alone."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    value = float(found[1]) * UNITS[found[2] or "s"] if found else 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"must be a time like 90s, 10m or 2h, not {text[:60]!r}")
    return value


def _names(text: str, option: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise UserError(f"{option} names nothing")
    return names


def make_parser(description: str) -> Parser:
    """Of the command whose docstring is `description`."""
    summary, _, rest = description.partition("\n")
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
    number = "a number, ids separated by commas, or all (default: %(default)s)"
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
    parser.add_argument("--guidance-scale", type=GUIDANCE, help=GUIDANCE_HELP)
    parser.add_argument(
        "--base", default=defaults.base, help="mini, a diffusers folder or a hub id (default: %(default)s)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME.KEY=VALUE", help="may be repeated")
    parser.add_argument(
        "--dtype", choices=DTYPES, default=defaults.dtype, help="of the base; changes the images (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 (default: a GPU where there is one)")
    parser.add_argument("--offload", action="store_true", help="for small cards: parts are on the GPU when needed")
    parser.add_argument(
        "--batch-size",
        type=whole(1, 65536),
        default=4,
        help="images at a time; changes no image, and is halved where the memory does not suffice (default: 4)",
    )
    parser.add_argument("--workers", type=whole(1, 1024), help="processes that draw (default: this one; with ray 2)")
    parser.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="who runs the workers; ray: the cluster of RAY_ADDRESS, else one here (default: %(default)s)",
    )
    parser.add_argument(
        "--training-seeds",
        type=whole(1, 100),
        default=defaults.training_seeds,
        metavar="N",
        help="train each method that has a seed of training N times, and keep what that changes apart",
    )
    parser.add_argument(
        "--budget", type=seconds, metavar="TIME", help="90s, 10m, 2h: draw the largest balanced subset that fits"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan, and make nothing")
    parser.add_argument("--output", type=Path, default=Path("reports"), help="folder (default: %(default)s)")
    return parser
