"""The pages of those who judge: metrics on trial, protocols replayed, people's votes; with their rows and without."""

import re
import shutil
from pathlib import Path

import duckdb
import pytest

from reports.data import Reader, open_store, read_report
from reports.judges.people import read_people
from reports.judges.replayed import read_replayed
from reports.judges.trial import read_trial
from reports.render import render_run
from tests.reports.judged import HOSTILE, RULES, TRIAL, VOTERS
from tests.reports.test_render_run import Page


def row_of(path: Path, attribute: str) -> list[str]:
    """The cells, as text, of the row with this attribute."""
    found = re.search(rf"<tr[^>]*{re.escape(attribute)}[^>]*>(.*?)</tr>", path.read_text(), re.S)
    assert found, attribute
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", found[1], re.S)
    return [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in cells]


def test_the_trial_has_a_row_for_each_metric_and_says_when_and_how(made_up):
    page = Page(made_up.with_name("trial.html"))
    assert row_of(made_up.with_name("trial.html"), 'data-metric="dino"') == [
        *("DINO in this run", "0.81 95% 0.780 to 0.840", "0.62 95% 0.600 to 0.640"),
        *("–", "0.10 95% 0.020 to 0.300", "–", "–"),
    ]
    assert row_of(made_up.with_name("trial.html"), 'data-metric="masc"')[:2] == ["masc", "0.90 95% 0.880 to 0.920"]
    assert "2026-01-03 00:00 UTC by python -m umm_bench.validate_metrics --store reports" in page.text
    assert "85 %, reached" in page.text and HOSTILE in page.text
    assert not any("onerror" in attributes for _, attributes in page.tags)


def test_the_matrix_of_labels_is_the_stores(made_up):
    with open_store(made_up.parents[1] / "umm_bench.duckdb") as connection:
        trial = read_trial(connection)
    assert trial.confusion == {("swap", "swap"): 4, ("swap", "drift"): 6}
    assert {name: figure.value for name, figure in trial.labels.items()} == {"accuracy": 0.875, "swap": 0.4}
    assert sum(len(tests) for tests in trial.metrics.values()) == len(TRIAL) - 4


def test_replayed_rules_have_ranks_tau_and_a_chart(made_up):
    path = made_up.with_name("replayed.html")
    page = Page(path)
    assert row_of(path, 'data-rule="bench"') == ["bench", "0.100 (4)", "0.200 (3)", "0.300 (2)", "0.400 (1)", "–", "–"]
    assert row_of(path, 'data-rule="uno"')[1:] == ["0.400 (1)", "0.200 (3)", "0.300 (2)", "0.100 (4)", "-0.67", "1"]
    assert "ranks move by the rules alone" in page.text and HOSTILE in page.text
    assert len(page.all("figure", **{"class": "chart"})) == 1
    with open_store(made_up.parents[1] / "umm_bench.duckdb") as connection:
        (dino,) = read_replayed(Reader(connection, made_up.parents[1], "run-made-up"))
    assert list(dino.rules) == list(RULES) and dino.moved


@pytest.fixture(scope="module")
def people(made_up):
    store = made_up.parents[1] / "umm_bench.duckdb"
    report = read_report(store, "run-made-up")
    with open_store(store) as connection:
        return read_people(Reader(connection, store.parent, "run-made-up"), report)


def test_the_preferred_method_is_the_one_that_voters_prefer(made_up, people):
    assert [each.method for each in people.preferences] == ["umm", "dreambooth@200", "dreambooth@100", "sd"]
    assert sum(each.strength.mean for each in people.preferences) == pytest.approx(1)
    assert all(each.strength.low < each.strength.mean < each.strength.high for each in people.preferences)
    assert people.votes == 36 * (len(VOTERS) - 1) and people.pairs == 36 and people.ties == 0
    page = Page(made_up.with_name("people.html"))
    assert "3 voters on 36 pairs of pictures: umm is preferred most" in page.text
    preferred = [row["data-preferred"] for row in page.all("tr") if "data-preferred" in row]
    assert preferred == [each.method for each in people.preferences]


def test_who_missed_the_checks_is_left_out_and_said_so(made_up, people):
    assert (people.voters, people.left_out) == (3, 1)
    assert "1 voter left out, having missed more than a quarter" in Page(made_up.with_name("people.html")).text.replace(
        " ,", ","
    )
    assert 0.4 < people.alpha < 0.9  # three who err one time in eight


def test_metrics_stand_beside_people_and_the_truth(made_up, people):
    judged = {each.metric: each for each in people.metrics}
    assert judged["dino"].people.mean > 0.7 > judged["clip_t"].people.mean  # as the made-up scores are
    assert judged["identity"].truth is None and judged["dino"].truth.mean > 0.6
    assert people.truth.samples == judged["dino"].truth.samples < 36
    cells = row_of(made_up.with_name("people.html"), 'data-metric="identity"')
    assert cells[0] == "Identity" and cells[3] == "is it"
    assert row_of(made_up.with_name("people.html"), 'data-metric="people"')[1] == "–"


@pytest.fixture(scope="module")
def empty(finished, tmp_path_factory) -> Path:
    return render_run(finished.store, finished.run_id, tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("trial", "python -m umm_bench.validate_metrics --store"),
        ("replayed", "python -m umm_bench.replay --run run-0123 --store"),
        ("people", "python -m umm_bench.vote --run run-0123 --store"),
    ],
)
def test_a_page_without_its_rows_says_how_to_make_them(finished, empty, name, command):
    page = Page(empty.with_name(f"{name}.html"))
    assert f"{command} {finished.store.parent}" in page.text
    assert f"python -m reports.render --run run-0123 --store {finished.store}" in page.text
    assert not page.all("table")


def test_a_ballot_that_nobody_has_answered_asks_for_the_files(made_up, tmp_path):
    shutil.copyfile(made_up.parents[1] / "umm_bench.duckdb", tmp_path / "umm_bench.duckdb")
    with duckdb.connect(str(tmp_path / "umm_bench.duckdb")) as connection:
        connection.execute("delete from votes")
    page = Page(render_run(tmp_path / "umm_bench.duckdb", "run-made-up", tmp_path).with_name("people.html"))
    assert "nobody's answers have been read yet" in page.text and "--read votes-*.json" in page.text
    assert "--out vote.html" not in page.text
