"""The loop closed: `python -m umm_bench.focus` mines what a run lacked, trains the TIUE on, runs the rare cases again.

Takes a finished run of UMM, mines pairs of the classes that its rare subjects lack (`umm_bench.rare` lists them),
trains a TIUE from the one that the run used, draws the same cases from the same seeds with it, and prints the paired
gain of each score, whatever it is. Each part goes on where it was stopped.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import t

from umm_bench.bench.statistics import Interval
from umm_bench.bench.store import Store
from umm_bench.cli.arguments import Parser, whole
from umm_bench.cli.commands import quiet_libraries, run_command
from umm_bench.cli.outputs import check_folder
from umm_bench.errors import UserError

METRICS = ("identity", "concept", "dino", "clip_i", "clip_t", "look", "look_main", "background")


def gains(store: Store, before: str, after: str) -> list[dict[str, Any]]:
    """UMM's scores of the same subjects, prompts and seeds in two runs: rows of `focus_gains`."""
    query = """
        with paired as (
            select metric, case_id as subject, prompt_id, seed, a.value as before, b.value as after
            from (select * from run_results where run_id = ? and method = 'umm' and subject_count = 1) a
            join (select * from run_results where run_id = ? and method = 'umm' and subject_count = 1) b
            using (metric, case_id, prompt_id, seed, subject)
        )
        select metric, subject, avg(before) as before, avg(after) as after from paired
        where list_contains(?, metric) group by all order by all
    """
    rows = store.rows(query, [before, after, list(METRICS)])
    return [{"before_run_id": before, "method": "umm", **row} for row in rows]


def mean_gains(rows: Sequence[dict[str, Any]]) -> dict[str, Interval]:
    """By metric, the mean gain of a subject, with Student's interval over subjects: few resampled would be too sure.

    It has no control: subjects that were chosen for scoring low rise by themselves, and so does what trains longer.
    """
    metrics = dict.fromkeys(row["metric"] for row in rows)
    changes = {m: {r["subject"]: r["after"] - r["before"] for r in rows if r["metric"] == m} for m in metrics}
    return {metric: _student(list(of.values())) for metric, of in changes.items()}


def _student(values: Sequence[float]) -> Interval:
    number, mean = len(values), statistics.fmean(values)
    if number == 1:
        return Interval(mean, None, None, 1, 1)
    half = float(t.ppf(0.975, number - 1)) * statistics.stdev(values) / number**0.5
    return Interval(mean, mean - half, mean + half, number, number)


def newest(store: Store) -> str:
    """The id of the run that ran last, of those that are no answer to an earlier one; "latest" without any."""
    rows = store.rows(
        "select run_id from runs where run_id not in (select run_id from focus_gains) order by executed desc limit 1"
    )
    return rows[0]["run_id"] if rows else "latest"


def rare_cases(store: Store, run_id: str) -> list[str]:
    """The subjects of the classes that the run asks to mine."""
    rows = store.rows(
        "select subject from rarity join rarity_focus using (run_id) where run_id = ? and class_noun = concept"
        " order by subject",
        [run_id],
    )
    return [row["subject"] for row in rows]


def run_again(run: dict[str, Any], subjects: Sequence[str], tiue: Path, output: Path) -> list[str]:
    """The words of `umm_bench.run` that draw `subjects` as that run did, by UMM with another TIUE."""
    asked = json.loads(run["config_json"])
    words = ["--methods", "umm", "--metrics", ",".join(asked["metrics"]), "--suite", asked["suite"], "--pairs", "0"]
    words += ["--subjects", ",".join(subjects), "--prompts", asked["prompts"], "--base", asked["base"]]
    words += ["--images-per-prompt", str(asked["images_per_prompt"]), "--seed", str(asked["seed"])]
    generation = asked["generation"]
    words += ["--steps", str(generation["num_inference_steps"]), "--guidance-scale", str(generation["guidance_scale"])]
    for option in ("suite_path", "references", "degrade"):
        if asked[option] is not None:
            words += [f"--{option.replace('_', '-')}", str(asked[option])]
    kept = [(owner, key, value) for owner, key, value in asked["settings"] if (owner, key) != ("umm", "tiue")]
    known = {"umm", *asked["metrics"]}
    for owner, key, value in [*kept, ("umm", "tiue", str(tiue))]:
        if owner in known:
            words += ["--set", f"{owner}.{key}={value}"]
    return [*words, "--output", str(output)]


def _check(status: int, what: str) -> None:
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise UserError(f"{what} ended with exit code {status}; what it said is above")


def _mine(args: argparse.Namespace, focus: Path, output: Path) -> None:
    from curation import build

    words = ["--source", "laion", "--focus", str(focus), "--output", str(output), "--focus-quota", str(args.quota)]
    words += ["--input", str(args.input)] if args.input else ["--input", str(_varied(args.limit))]
    _check(build.main([*words, "--limit", str(args.limit)]), "mining")


def _varied(size: int) -> Path:
    from umm_bench.mini.world import corpus

    return corpus.default_corpus(size, varied=True)


def _train(run: dict[str, Any], args: argparse.Namespace, pairs: Path, output: Path) -> None:
    """From the TIUE that the run used; kept settings of its architecture are the file's own."""
    from umm_bench import train
    from umm_bench.base import load_base
    from umm_bench.umm import load_tiue
    from umm_bench.umm.checkpoint import STATE_FILE
    from umm_bench.umm_method import tiue_location

    asked = json.loads(run["config_json"])
    given = {key: value for owner, key, value in asked["settings"] if owner == "umm"}
    first = tiue_location(load_base(asked["base"]), given.get("tiue", ""))
    config = load_tiue(first).config
    words = ["--data", str(pairs), "--output", str(output), "--base", asked["base"], "--init-from", first]
    words += ["--steps", str(args.steps), "--batch-size", "16", "--lr", "2e-4", "--min-snr-gamma", "0"]
    words += ["--num-pseudo-words", str(config.num_pseudo_words), "--hidden-dim", str(config.hidden_dim)]
    words += ["--depth", str(config.depth), "--views", "2", "--head-rate", "1"]
    words += ["--placement", config.placement]
    words += ["--image-encoder", given["image_encoder"]] if given.get("image_encoder") else []
    words += ["--resume"] if (output / STATE_FILE).is_file() else []
    _check(train.main(words), "training")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 2 after one line on an error of the user's."""
    return run_command(lambda: _command(list(sys.argv[1:] if arguments is None else arguments)))


def _command(words: list[str]) -> None:
    from umm_bench import run as bench
    from umm_bench.rare import latest, write_focus
    from umm_bench.umm.pairs import count_pairs

    summary, _, rest = (__doc__ or "").partition("\n")
    parser = Parser(prog="python -m umm_bench.focus", description=summary, epilog=rest.strip())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--run", default="latest", help="id of a run of UMM (default: the last that was no rerun)")
    parser.add_argument("--output", type=Path, default=Path("reports"), help="folder of the store (default: reports)")
    parser.add_argument("--folder", type=Path, default=Path("runs/focus"), help="for pairs and TIUE (%(default)s)")
    parser.add_argument("--input", type=Path, help="corpus to mine (default: mini-LAION, made on the spot)")
    parser.add_argument("--limit", type=whole(), default=6000, help="rows of it that are read (%(default)s)")
    parser.add_argument("--quota", type=whole(), default=200, help="pairs of a class (%(default)s)")
    parser.add_argument("--steps", type=whole(), default=300, help="training steps (%(default)s)")
    options = parser.parse_args(words)
    quiet_libraries()
    check_folder(options.folder, "--folder")
    if not (options.output / "umm_bench.duckdb").is_file():
        raise UserError(f"no run is in {options.output}; `python -m umm_bench.run` makes one")
    with Store(options.output) as store:
        run = latest(store, newest(store) if options.run == "latest" else options.run)
        if "umm" not in json.loads(run["config_json"])["methods"]:
            raise UserError(f"run {run['run_id']} is without UMM; name one that has it with --run")
        subjects, place = rare_cases(store, run["run_id"]), options.folder / run["run_id"]
        place.mkdir(parents=True, exist_ok=True)
        if not subjects:
            raise UserError(f"run {run['run_id']} lacks nothing of rare classes: nothing to mine")
        write_focus(store, run["run_id"], place / "focus.txt")
    _mine(options, place / "focus.txt", place / "pairs")
    if not count_pairs(place / "pairs"):
        lacking = _some(place / "focus.txt")
        raise UserError(f"the corpus has no pair of {lacking}; name another with --input, or read more with --limit")
    _train(run, options, place / "pairs", place / "tiue")
    status = bench.main(run_again(run, subjects, place / "tiue", options.output))
    _check(0 if status == bench.SOME_FAILED else status, "the second run")
    with Store(options.output) as store:
        after = latest(store, "latest")
        rows = gains(store, run["run_id"], after["run_id"])
        store.replace_of_run("focus_gains", after["run_id"], rows)
    show(rows, Console())


def _some(focus: Path) -> str:
    concepts = [line for line in focus.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return ", ".join(concepts[:3]) + (f" and {len(concepts) - 3} more" if len(concepts) > 3 else "")


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table("score", "before", "after", "gain [95%]", "subjects", box=None)
    for metric, interval in mean_gains(rows).items():
        own = [row for row in rows if row["metric"] == metric]
        before, after = (sum(row[when] for row in own) / len(own) for when in ("before", "after"))
        table.add_row(metric, f"{before:.3f}", f"{after:.3f}", str(interval), str(interval.clusters))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
