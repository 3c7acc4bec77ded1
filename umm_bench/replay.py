"""Score the pictures of a run by the rules of others: `python -m umm_bench.replay [--run latest] [--json]`.

Takes a run from the store and scores its pictures as the scripts of Kosmos-G, DreamBench++, UNO and PSRBench would,
with the same models for all, and shows how the ranks of the methods move by the rules alone. What it finds stays in the
store, for the report.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from figures import Figure
from umm_bench.bench.judging.protocols import METRICS, RULES, Models, Picture, Rule
from umm_bench.bench.keeping.frames import find_run
from umm_bench.bench.keeping.judges import keep_replay
from umm_bench.bench.leaderboard import COUNTS
from umm_bench.bench.scoring import FEATURES
from umm_bench.bench.store import Answers, OpenAnswers, Store
from umm_bench.cli.arguments import Parser
from umm_bench.cli.commands import quiet_libraries, run_command
from umm_bench.errors import UserError
from umm_bench.metrics.base import Unusable
from umm_bench.metrics.detection import detector
from umm_bench.metrics.embedding import clip_encoder, vision_encoder
from umm_bench.metrics.features import kept_in

ROWS = """
select samples.method, subject_count, image_index, prompt, samples.path,
       list(class_noun order by place) as nouns, list(references_json order by place) as pictures
from run_samples join samples using (sample_key) join sample_subjects using (sample_key)
where run_id = ? group by all order by method, samples.path
"""


@dataclass(frozen=True)
class Replayed:
    """What a rule gives the methods by a metric, with cases of `count` subjects. `left_out` are its samples without a
    score, which its means do not count.
    """

    rule: Rule
    metric: str
    count: int
    means: Mapping[str, float]
    left_out: int = 0

    @property
    def ranks(self) -> dict[str, int]:
        """1 is the best; equal means share the better rank."""
        return {method: 1 + sum(other > mean for other in self.means.values()) for method, mean in self.means.items()}


def pictures(answers: Answers, run_id: str) -> dict[tuple[str, int], list[tuple[int, Picture]]]:
    """By method and number of subjects, each with its index among the images of its prompt."""
    found: dict[tuple[str, int], list[tuple[int, Picture]]] = {}
    for row in answers.rows(ROWS, [run_id]):
        references = tuple(tuple(map(Path, json.loads(paths))) for paths in row["pictures"])
        picture = Picture(answers.folder / row["path"], tuple(row["nouns"]), references, row["prompt"])
        found.setdefault((row["method"], row["subject_count"]), []).append((row["image_index"], picture))
    return found


def replay(found: Mapping[tuple[str, int], Sequence[tuple[int, Picture]]], models: Models) -> Iterator[Replayed]:
    """All rules on all methods' pictures. UserError for a picture that cannot be read, but where the rule drops it."""
    for count in sorted({count for _, count in found}):
        for rule in RULES:
            if rule.single and count > 1:
                continue
            scores: dict[str, dict[str, list[float]]] = {metric: {} for metric in METRICS}
            left_out = 0
            for (method, of), members in found.items():
                for index, picture in members if of == count else ():
                    if rule.name == "dreambench_plus" and index > 0:
                        continue
                    try:
                        values = rule.score(picture, models)
                    except Unusable:
                        raise
                    except UserError:
                        if not rule.drops:
                            raise
                        left_out += 1
                        continue
                    for metric, value in values.items():
                        scores[metric].setdefault(method, []).append(value)
            for metric, by_method in scores.items():
                if by_method:
                    means = {method: float(np.mean(values)) for method, values in by_method.items()}
                    yield Replayed(rule, metric, count, means, left_out)


def agreement(one: Replayed, other: Replayed) -> float | None:
    """Kendall's tau of two orders of the methods that both have; None with fewer than two, or where all are equal."""
    from scipy.stats import kendalltau

    methods = sorted(one.means.keys() & other.means.keys())
    tau = kendalltau([one.means[m] for m in methods], [other.means[m] for m in methods]).statistic
    return None if len(methods) < 2 or not np.isfinite(tau) else float(tau)


def figures(rows: Sequence[Replayed]) -> Iterator[Figure]:
    """Each mean, and the agreement of each rule's order with the bench's own."""
    for row in rows:
        name = f"replay.{row.rule.name}.{row.metric}.{row.count}"
        for method, mean in row.means.items():
            note = f"rank {row.ranks[method]} of {len(row.means)}; {row.rule.says}"
            yield Figure(f"{name}.{method}", round(mean, 4), "score", True, None, note)
        own = next(each for each in rows if (each.metric, each.count) == (row.metric, row.count))
        tau = agreement(own, row)
        if row is not own and tau is not None:
            yield Figure(f"{name}.tau", round(tau, 4), "Kendall", True, None, f"with {own.rule.name}: {own.rule.says}")


def kept(rows: Sequence[Replayed]) -> Iterator[dict[str, Any]]:
    """Rows of the table `replays`."""
    places = {rule.name: place for place, rule in enumerate(RULES, start=1)}
    for row in rows:
        own = next(each for each in rows if (each.metric, each.count) == (row.metric, row.count))
        about = {"rule": row.rule.name, "says": row.rule.says, "place": places[row.rule.name], "metric": row.metric}
        about |= {"subject_count": row.count, "left_out": row.left_out, "tau": agreement(own, row)}
        for method, mean in row.means.items():
            yield {**about, "method": method, "mean": mean, "rank": row.ranks[method]}


def show(rows: Sequence[Replayed], console: Console) -> None:
    for metric, count in dict.fromkeys((row.metric, row.count) for row in rows):
        some = [row for row in rows if (row.metric, row.count) == (metric, count)]
        methods = sorted(some[0].means, key=lambda method: some[0].ranks[method])
        table = Table("rule", *methods, "tau", "left out", box=None)
        for row in some:
            tau = agreement(some[0], row)
            cells = [f"{row.means[m]:.3f} ({row.ranks[m]})" if m in row.means else "-" for m in methods]
            table.add_row(row.rule.name, *cells, "" if tau is None else f"{tau:.2f}", str(row.left_out or ""))
        console.print(
            f"\n[bold]{COUNTS.get(count, f'{count} subjects')}: {metric}, mean (rank)[/bold]", highlight=False
        )
        console.print(table)
    for rule in dict.fromkeys(row.rule for row in rows):
        console.print(f"[dim]{rule.name}: {rule.says}[/dim]", highlight=False)
    console.print("[dim]tau: Kendall's, with the first rule's order of the methods[/dim]", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 2 after one line on an error of the user's."""
    return run_command(lambda: _command(list(sys.argv[1:] if arguments is None else arguments)))


def _command(words: list[str]) -> None:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = Parser(prog="python -m umm_bench.replay", description=summary, epilog=rest.strip())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--store", type=Path, default=Path("reports"), help="folder of the store (default: reports)")
    parser.add_argument("--run", default="latest", help='run id, as umm_bench.run prints it, or "%(default)s"')
    given = "mini, a folder or a hub id (default: %(default)s)"
    parser.add_argument("--dino", default="mini", help=f"image encoder: {given}")
    parser.add_argument("--clip", default="mini", help=f"CLIP: {given}")
    parser.add_argument("--detector", default="mini", help=f"GroundingDINO: {given}")
    parser.add_argument("--json", action="store_true", help="one object a line")
    options = parser.parse_args(words)
    with OpenAnswers(options.store) as answers:
        run_id = find_run(answers, options.run)
        found = pictures(answers, run_id)
    if not found:
        raise UserError(f"run {run_id} has drawn nothing yet")
    quiet_libraries()
    models = Models(vision_encoder(options.dino), clip_encoder(options.clip), detector(options.detector))
    with kept_in(options.store / FEATURES):
        rows = list(replay(found, models))
    if options.json:
        for figure in figures(rows):
            print(json.dumps(figure.as_dict()), flush=True)
    else:
        show(rows, Console())
    with Store(options.store) as store:
        keep_replay(store, run_id, list(kept(rows)))


if __name__ == "__main__":
    sys.exit(main())
