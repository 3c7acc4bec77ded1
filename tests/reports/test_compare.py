"""Two runs held against each other: paired, by one protocol, and only what both drew."""

import shutil
from pathlib import Path

import duckdb
import pytest

from reports.against.compare import compare
from reports.data import read_report
from reports.render import main, render_run
from tests.reports.test_render_run import Page
from umm_bench.bench.statistics import paired_effect
from umm_bench.errors import UserError

LATER = "run-later"
GAIN = {"fox": 0.1, "owl": 0.3}


@pytest.fixture(scope="module")
def store(finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run, and a later one with UMM drawn anew: DINO is higher by GAIN, `odd` is by another protocol."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(finished.store.parent, folder, dirs_exist_ok=True)
    anew = "case when method = 'umm' then sample_key || '-anew' else sample_key end"
    gain = (
        f"case when metric = 'dino' then case case_id when 'fox' then {GAIN['fox']} else {GAIN['owl']} end else 0 end"
    )
    umm = "from {0} join (select sample_key, case_id from samples where method = 'umm') using (sample_key)"
    with duckdb.connect(str(folder / finished.store.name)) as connection:
        for statement in (
            f"insert into runs by name select * replace ('{LATER}' as run_id, '1' as code_version) from runs",
            f"insert into run_samples by name select '{LATER}' as run_id, {anew} as sample_key from run_samples"
            " join samples using (sample_key)",
            f"insert into run_protocols by name select * replace ('{LATER}' as run_id,"
            " if(metric = 'odd', 'odd/2', protocol) as protocol) from run_protocols",
            f"insert into summaries by name select * replace ('{LATER}' as run_id) from summaries",
            "insert into scores by name select scores.* replace (sample_key || '-anew' as sample_key,"
            f" value + {gain} as value) {umm.format('scores')}",
            "insert into sample_subjects by name"
            " select sample_subjects.* replace (sample_key || '-anew' as sample_key) " + umm.format("sample_subjects"),
            f"insert into samples by name select * replace ({anew} as sample_key) from samples where method = 'umm'",
        ):
            connection.execute(statement)
    return folder / finished.store.name


def test_differences_are_paired_and_of_one_protocol(finished, store: Path) -> None:
    found = compare(read_report(store, finished.run_id), read_report(store, LATER))
    assert found.other_protocol == ("odd",)
    assert (found.shared, found.same) == (12, 8)
    changes = {(change.method, change.metric): change for change in found.changes}
    assert len(changes) == len(finished.methods) * 3
    dino = changes["umm", "dino"]
    assert dino.effect.mean == pytest.approx(sum(GAIN.values()) / 2)
    wanted = {(subject, n): gain for subject, gain in GAIN.items() for n in range(2)}
    zero = dict.fromkeys(wanted, 0.0)
    effect = paired_effect(wanted, zero)
    assert (dino.effect.low, dino.effect.high) == pytest.approx((effect.low, effect.high))
    assert dino.verdict == "too few subjects"
    assert changes["umm", "clip_t"].verdict == changes["sd", "dino"].verdict == "the same"


def test_the_largest_changes_come_first_and_what_is_the_same_is_not_shown(finished, store: Path) -> None:
    found = compare(read_report(store, finished.run_id), read_report(store, LATER))
    metric, pairs = found.pairs["umm"]
    assert metric == "dino"
    assert [pair.after.subject for pair in pairs] == ["owl", "owl", "fox", "fox"]
    assert all(pair.before.prompt == pair.after.prompt and pair.before.key != pair.after.key for pair in pairs)
    assert found.pairs["sd"][1] == []


def test_the_page_says_it_and_goes_when_it_is_not_asked_for(finished, store: Path, tmp_path: Path) -> None:
    index = render_run(store, LATER, tmp_path, against=finished.run_id)
    page = Page(index.with_name("compare.html"))
    (cell,) = page.all("td", **{"data-change": "umm dino"})
    assert float(cell["data-value"]) == pytest.approx(sum(GAIN.values()) / 2)
    assert "code version 0.1 1" in page.text and "Left out, as the runs have other protocols: odd." in page.text
    assert Page(index).all("a", href="compare.html")
    render_run(store, LATER, tmp_path)
    assert not index.with_name("compare.html").exists() and not Page(index).all("a", href="compare.html")


def test_runs_with_nothing_in_common_are_one_line(finished, store: Path, tmp_path: Path, capsys) -> None:
    alone = shutil.copy(store, tmp_path / "alone.duckdb")
    with duckdb.connect(str(alone)) as connection:
        connection.execute("delete from run_samples where run_id = 'run-later'")
    with pytest.raises(UserError, match="no same case"):
        compare(read_report(alone, finished.run_id), read_report(alone, LATER))
    command = ["--store", str(store), "--run", LATER, "--output", str(tmp_path), "--compare", "run-9"]
    assert main(command) == 2
    assert "no run 'run-9'" in capsys.readouterr().err
