"""The trade-off on held-out subjects: `python -m umm_bench.mini.evaluation.comparison [--json] [--write]`.

Plain SD, Textual Inversion, DreamBooth and UMM draw the same prompts from the same seeds. It prints each method's
identity accuracy with its seconds a subject, and makes one picture: a row a subject, its reference first, then a column
a method. Fine-tunes, images and verdicts are kept in `--output`, so the same command goes on where it stopped. On two
CPU cores the two fine-tuning methods take about a minute a subject each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from figures import Figure, emit
from umm_bench.bench import runner, scoring
from umm_bench.bench.plan import Plan, make_plan
from umm_bench.bench.selection import Request, select
from umm_bench.bench.statistics import PairKey, mean_interval, paired_effect
from umm_bench.bench.store import Store
from umm_bench.cli.arguments import Parser, file_name, whole
from umm_bench.cli.commands import quiet_libraries, run_command
from umm_bench.cli.outputs import check_folder, check_image_file
from umm_bench.cli.progress import Tracker
from umm_bench.mini.measured import FIGURES, write_figures
from umm_bench.mini.world import suite

PICTURE = Path("docs/mini/subjects.webp")
TITLES = {"sd": "plain SD", "textual_inversion": "Textual Inversion", "dreambooth": "DreamBooth", "umm": "UMM"}
PROMPTS = ("blue", "beach", "big")
CELL, GAP, HEADER = 96, 6, 22


def request(subjects: int = 6, images_per_prompt: int = 2) -> Request:
    """The bench's request for the first held-out looks of frequent concepts."""
    chosen = [s["id"] for s in suite.subjects() if (s["stratum"], s["frequency"]) == ("look", "frequent")][:subjects]
    return Request(
        methods=tuple(TITLES),
        metrics=("identity",),
        subjects=",".join(chosen),
        prompts=",".join(PROMPTS),
        images_per_prompt=images_per_prompt,
    )


def run(plan: Plan, store: Store, console: Console) -> None:
    """Make and score what is missing."""
    images = sum(map(len, runner.missing_samples(plan, store).values()))
    for title, total, events in (
        ("images", images, runner.generate(plan, store)),
        ("scores", len(plan.sample_keys), scoring.score(plan, store)),
    ):
        with Tracker(console, title, total) as tracker:
            for event in events:
                tracker.update(event.done, event.label)


def trade_off(plan: Plan, store: Store) -> Iterator[Figure]:
    """Identity accuracy and seconds a subject of each method, and DreamBooth's lead over UMM, paired."""
    scores = store.rows(
        "select sample_key, value from scores where metric = 'identity' and protocol = ?", [plan.metrics[0].protocol]
    )
    value = {row["sample_key"]: row["value"] for row in scores}
    pairs: dict[str, dict[PairKey, float]] = {
        method.name: {(s.case.id, s.prompt.id, s.seed): value[s.key] for s in method.samples} for method in plan.methods
    }
    for method in plan.methods:
        interval = mean_interval(list(pairs[method.name].values()), [key[0] for key in pairs[method.name]])
        note = f"95% {interval.low:.3f} to {interval.high:.3f}, " if interval.low is not None else ""
        note += f"{interval.samples} images of {interval.clusters} subjects"
        yield Figure(f"tradeoff.identity_{method.name}", round(interval.mean, 4), "share", True, None, note)
        setup, image = _seconds(
            store, [key for s in method.samples for key in s.setup_keys], [s.key for s in method.samples]
        )
        note = f"and {image:.2f} s an image"
        yield Figure(f"tradeoff.seconds_{method.name}", round(setup, 2), "s a subject", False, None, note)
    lead = paired_effect(pairs["dreambooth"], pairs["umm"])
    if lead is not None:
        bounds = "one subject" if lead.low is None else f"95% {lead.low:.3f} to {lead.high:.3f}"
        yield Figure("tradeoff.dreambooth_over_umm", round(lead.mean, 4), "share", True, None, f"paired, {bounds}")


def _seconds(store: Store, setups: Sequence[str], samples: Sequence[str]) -> tuple[float, float]:
    """Mean seconds of a setup and of an image."""
    means = [
        store.rows(f"select coalesce(avg(seconds), 0) as mean from {table} where list_contains(?, {key})", [list(keys)])
        for table, key, keys in (("setups", "setup_key", setups), ("samples", "sample_key", samples))
    ]
    return float(means[0][0]["mean"]), float(means[1][0]["mean"])


def draw_picture(plan: Plan, folder: Path, path: Path) -> Path:
    """A row a subject: its reference, then each method's first image of the first prompt."""
    subjects = plan.selection.subjects
    width, height = (len(plan.methods) + 1) * (CELL + GAP) + GAP, HEADER + len(subjects) * (CELL + GAP) + GAP
    sheet, font = Image.new("RGB", (width, height), "white"), ImageFont.load_default(11)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(["reference", *(TITLES[m.name] for m in plan.methods)]):
        draw.text((GAP + column * (CELL + GAP), 5), title, "black", font)
    for row, subject in enumerate(subjects):
        first = [next(s for s in method.samples if s.case.id == subject.id) for method in plan.methods]
        paths = [subject.references[0], *(folder / "samples" / f"{sample.key}.png" for sample in first)]
        for column, source in enumerate(paths):
            with Image.open(source) as opened:
                image = opened.convert("RGB").resize((CELL, CELL), Image.Resampling.LANCZOS)
            sheet.paste(image, (GAP + column * (CELL + GAP), HEADER + row * (CELL + GAP)))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=90)
    return path


def main(argv: list[str] | None = None) -> int:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = Parser(description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=whole(), default=6)
    parser.add_argument("--images-per-prompt", type=whole(1, 1000), default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/mini/comparison"), help="folder of the store")
    parser.add_argument("--picture", type=file_name, default=PICTURE, help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--write", action="store_true", help=f"keep the figures for the model cards ({FIGURES.name})")
    return run_command(
        lambda: _compare(parser.parse_args(argv)), interrupted="stopped; the same command goes on from here"
    )


def _compare(args: argparse.Namespace) -> None:
    check_folder(args.output, "--output")
    check_image_file(args.picture, "--picture")
    quiet_libraries()
    asked = request(args.subjects, args.images_per_prompt)
    plan = make_plan(asked, select(asked))
    with Store(args.output) as store:
        run(plan, store, Console(stderr=True))
        figures = list(trade_off(plan, store))
    picture = draw_picture(plan, args.output, args.picture)
    if args.write:
        write_figures(figures)
    emit(figures, args.json)
    print(f"wrote {picture}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
