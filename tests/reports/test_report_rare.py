"""The page on rare subjects: points, fits, extremes and the list to mine, or one sentence why there are none."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from reports.data import Reader, open_store
from reports.findings.rare import place, read_rare
from reports.render import render_run
from tests.reports.test_render_run import Page

NASTY = "<svg onload=alert(1)>"
TABLES = """
create table if not exists rarity (run_id text, subject text, class_noun text, corpus text, count bigint,
    instance_distance double, stratum text);
create table if not exists rarity_fits (run_id text, method text, metric text, axis text, slope double, low double,
    high double, intercept double, subjects integer, half_at double, half_low double, half_high double,
    band_json json, note text);
create table if not exists rarity_focus (run_id text, concept text, count bigint, reason text, rank integer);
create table if not exists focus_gains (run_id text, before_run_id text, method text, metric text, subject text,
    before double, after double);
"""


def add_rarity(store: Path, run_id: str) -> None:
    with duckdb.connect(str(store)) as connection:
        connection.execute(TABLES)
        connection.execute(f"insert into rarity values ('{run_id}', 'fox', 'fox', 'corpus {NASTY}', 3, 0.4, null)")
        connection.execute(f"insert into rarity values ('{run_id}', 'owl', 'owl', 'corpus {NASTY}', 900, 0.1, null)")
        band = json.dumps([[0.5, 0.3, 0.5], [3.0, 0.6, 0.9]])
        fit = [run_id, "umm", "dino", "count", 0.12, 0.03, 0.2, 0.3, 2, 45.6, 12.0, 300.0, band, NASTY]
        connection.execute(f"insert into rarity_fits values ({', '.join('?' * 14)})", fit)
        for rank, concept in ((2, "hat"), (1, NASTY)):
            connection.execute("insert into rarity_focus values (?, ?, 3, 'low', ?)", [run_id, concept, rank])
        for subject, before, after in (("fox", 0.2, 0.5), ("owl", 0.4, 0.5)):
            row = [run_id, "run-before", "umm", "dino", subject, before, after]
            connection.execute("insert into focus_gains values (?, ?, ?, ?, ?, ?, ?)", row)


@pytest.fixture(scope="module")
def counted(finished, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("counted")
    shutil.copytree(finished.store.parent, folder, dirs_exist_ok=True)
    store = folder / finished.store.name
    add_rarity(store, finished.run_id)
    return replace(finished, store=store)


@pytest.fixture(scope="module")
def rare(counted):
    with open_store(counted.store) as connection:
        reader = Reader(connection, counted.store.parent, counted.run_id)
        return read_rare(reader, reader.report().samples)


@pytest.fixture(scope="module")
def page(counted, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(render_run(counted.store, counted.run_id, tmp_path_factory.mktemp("out")).with_name("rare.html"))


def test_a_subjects_mean_is_that_of_the_store(counted, rare) -> None:
    query = "select method, case_id, avg(value) from run_results where metric = 'dino' group by all"
    with duckdb.connect(str(counted.store)) as connection:
        rows = connection.execute(query).fetchall()
    assert len(rows) == 6
    for method, subject, mean in rows:
        assert rare.means("dino")[method][subject] == pytest.approx(mean)


def test_the_rarest_that_work_come_before_and_plain_sd_is_left_out(rare) -> None:
    extremes = rare.extremes("dino")
    assert extremes.keys() == {"umm", "dream<booth>"}
    for method, (work, fail) in extremes.items():
        means = rare.means("dino")[method]
        best, worst = sorted(means, key=lambda subject: -means[subject])
        assert [each.subject.subject for each in work] == [best]
        assert [each.subject.subject for each in fail] == [worst]
        own = [s.scores["dino"] for s in rare.samples if (s.method, s.subject) == (method, best)]
        assert work[0].sample.scores["dino"] == max(own) and work[0].mean == pytest.approx(means[best])


def test_identity_works_from_a_half_on(rare) -> None:
    for method, (work, fail) in rare.extremes("identity").items():
        means = rare.means("identity")[method]
        assert {each.subject.subject for each in work} == {name for name, mean in means.items() if mean >= 0.5}
        assert [each.subject.count for each in work] == sorted(each.subject.count for each in work)
        assert all(each.mean < 0.5 for each in fail)


def test_class_and_instance_rarity_are_crossed(rare) -> None:
    means = rare.means("dino")["umm"]
    assert rare.crossed(means) == [
        ("often seen", [(means["owl"], 1), (None, 0)]),
        ("seldom seen", [(None, 0), (means["fox"], 1)]),
    ]
    assert rare.crossed({}) == []


def test_the_fit_stands_in_the_table_and_in_the_chart(page: Page) -> None:
    assert "+0.120 +0.030 to +0.200 45.6 12 to 300 2" in page.text
    assert page.all("svg", **{"aria-label": "DINO of each subject over how rare it is, with a line a method"})


def test_the_list_to_mine_comes_with_its_command_in_its_order(counted, page: Page) -> None:
    assert f"python -m umm_bench.rare --run {counted.run_id} --focus focus.txt" in page.text
    assert "python -m curation.build --focus focus.txt" in page.text
    assert f"1 {NASTY} 3 low 2 hat 3 low" in page.text


def test_what_mining_changed_is_paired(page: Page) -> None:
    assert "run-before umm DINO 0.300 0.500 +0.200 – 2" in page.text


def test_nothing_of_strangers_is_markup(page: Page) -> None:
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count(NASTY) >= 3


def test_a_class_never_seen_has_a_place() -> None:
    assert place("count", 0) < place("count", 1) == 0 < place("count", 10) == 1
    assert place("instance", 0.3) == 0.3


def test_without_rarity_a_sentence_says_so(finished, tmp_path: Path) -> None:
    page = Page(render_run(finished.store, finished.run_id, tmp_path).with_name("rare.html"))
    assert "is not in the store" in page.text and f"run {finished.nasty}" in page.text and not page.all("table")


def test_without_counts_there_is_the_other_axis(counted, tmp_path: Path) -> None:
    shutil.copytree(counted.store.parent, tmp_path / "store")
    store = tmp_path / "store" / counted.store.name
    with duckdb.connect(str(store)) as connection:
        connection.execute("update rarity set count = null, corpus = null; delete from rarity_fits")
        connection.execute("delete from rarity_focus; delete from focus_gains")
    page = Page(render_run(store, counted.run_id, tmp_path).with_name("rare.html"))
    assert "Nobody knows how often" in page.text and "No line is fitted" in page.text
    assert "Nothing to mine" in page.text and page.all("figure", **{"class": "chart wide"})
