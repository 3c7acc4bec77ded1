"""The rows of a run as a table: a pandas frame, or the tables that leave the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from umm_bench.bench.store import Answers, OpenAnswers
from umm_bench.errors import UserError

if TYPE_CHECKING:
    import pandas

RESULTS = """
    select run_results.* exclude (metadata_json, path), class_noun, kind as subject_kind, seconds, peak_mb,
           ? || '/' || run_results.path as path, metadata_json
    from run_results
         left join (select sample_key, subject, class_noun, kind from sample_subjects) using (sample_key, subject)
         left join (select sample_key, seconds, peak_mb from samples) using (sample_key)
    where run_id = ? order by metric, method, case_id, prompt_id, image_index, subject
"""
"""One row a score, with all that is known of its picture. Of the folder and the run."""

TABLES = {
    "samples": "select samples.*, floor from samples join run_samples using (sample_key) where run_id = ?",
    "sample_subjects": "select sample_subjects.* from sample_subjects join run_samples using (sample_key)"
    " where run_id = ?",
    "setups": "select distinct setups.* from setups join sample_subjects using (setup_key)"
    " join run_samples using (sample_key) where run_id = ?",
    "undrawn": "select undrawn.* from undrawn join run_samples using (sample_key) where run_id = ?",
    "unscored": "select unscored.* from unscored join run_samples using (sample_key) where run_id = ?",
    **{
        name: f"select * from {name} where run_id = ?"
        for name in (
            *("runs", "executions", "summaries", "comparisons", "ranks", "training_seeds", "set_scores", "failures"),
            *("rarity", "rarity_fits", "replays"),
        )
    },
}
"""What else is known of a run, by table."""


def results(folder: str | Path = "reports", run: str = "latest") -> pandas.DataFrame:
    """A row for each score of a run, also of one that is still drawing: method, case, subject, prompt, seed, metric,
    value, explanation, path of the picture, ...

        umm_bench.results().query("metric == 'dino'").groupby("method").value.mean()

    `run` is an id or "latest". UserError where there is no such run, or no database in `folder`.
    """
    place = Path(folder)
    with OpenAnswers(place) as answers:
        run_id = find_run(answers, run)
        return answers.connection.execute(RESULTS, [str(place.resolve()), run_id]).df()


def find_run(answers: Answers, run: str) -> str:
    """The id of a run that is there; of the one that ran last for "latest". UserError where it is not."""
    known = [row["run_id"] for row in answers.rows("select run_id from runs order by executed desc, created desc")]
    if run == "latest" and known:
        return known[0]
    if run not in known:
        there = f"; there are {', '.join(known[:8])}" if known else ": the store has none"
        raise UserError(f"there is no run '{run}'{there}")
    return run
