"""The index of all runs, and what the leaderboard says of a mean's floor, ceiling, failures and cost."""

import shutil
from pathlib import Path

import duckdb
import pytest

from reports.page import PAGES
from reports.render import main, render_run
from reports.runs import read_cards
from tests.reports.test_render_run import Page


@pytest.fixture
def store(finished, tmp_path: Path) -> Path:
    shutil.copytree(finished.store.parent, tmp_path / "store")
    return tmp_path / "store" / finished.store.name


def change(store: Path, *statements: str) -> None:
    with duckdb.connect(str(store)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_the_newest_run_comes_first_and_only_pages_are_linked(finished, store: Path, tmp_path: Path) -> None:
    change(
        store,
        "update runs set executed = '2024-03-04'",
        "insert into runs by name"
        " select * replace ('run <b>' as run_id, '2024-03-09'::timestamp as executed) from runs",
    )
    page = Page(render_run(store, finished.run_id, tmp_path).parents[1] / "index.html")
    cards = read_cards(store, tmp_path)
    assert [card.run_id for card in cards] == ["run <b>", finished.run_id]
    assert [card.page for card in cards] == [None, f"{finished.run_id}/index.html"]
    own = [f"{finished.run_id}/{name}.html" for name in ("gallery", "index")]
    assert [link["href"] for link in page.all("a")] == ["published.html", *own]
    assert (tmp_path / cards[1].picture).is_file() and cards[0].picture is None
    assert "run <b>" in page.text and not page.all("b")
    assert page.text.index("run <b>") < page.text.index(finished.run_id)


def test_the_headline_is_the_first_metric_that_tells_methods_apart(finished, store: Path, tmp_path: Path) -> None:
    (card,) = read_cards(store, tmp_path)
    with duckdb.connect(str(store)) as connection:
        means = dict(connection.execute("select method, mean from summaries where metric = 'dino'").fetchall())
        alike = connection.execute("select count(distinct mean) from summaries where metric = 'identity'").fetchone()
    assert alike == (1,) and card.headline.metric == "dino"
    assert dict(card.headline.means) == means and card.headline.means[0][1] == max(means.values())
    assert (card.images, card.cases, card.methods) == (12, 2, finished.methods)


def test_every_page_of_a_run_leads_back_to_the_index(finished, store: Path, tmp_path: Path) -> None:
    index = render_run(store, finished.run_id, tmp_path)
    pages = sorted(index.parent.glob("*.html"))
    assert [path.name for path in pages] == sorted(name for name, _ in PAGES)
    assert len(pages) == 8
    for path in pages:
        assert Page(path).all("a", href="../index.html")
        for link in Page(path).all("a"):
            if link["href"].startswith("data:text/csv"):
                continue
            target, _, part = str(link["href"]).partition("#")
            found = (path.parent / target).resolve() if target else path
            assert found.is_file(), f"{path.name}: {link['href']}"
            if part.startswith("open="):
                assert target == "gallery.html"
                continue
            assert not part or any(attributes.get("id") == part for _, attributes in Page(found).tags)


def test_a_policy_lets_nothing_but_our_script_run(finished, store: Path, tmp_path: Path) -> None:
    index = render_run(store, finished.run_id, tmp_path)
    for path in (*index.parent.glob("*.html"), tmp_path / "index.html"):
        (meta,) = Page(path).all("meta", **{"http-equiv": "Content-Security-Policy"})
        policy = dict(part.strip().split(" ", 1) for part in meta["content"].split(";"))
        assert policy["default-src"] == "'none'" and policy["script-src"].startswith("'sha256-")
        own, beside = (
            [script for script in Page(path).all("script") if ("src" in script) == there] for there in (False, True)
        )
        gallery = path.name == "gallery.html"
        assert len(own) == policy["script-src"].count("'sha256-") == 1 + gallery
        assert bool(beside) == ("'self'" in policy["script-src"]) == gallery
        assert "unsafe" not in policy["script-src"]


def test_floor_ceiling_and_failures_stand_beside_the_means(finished, store: Path, tmp_path: Path) -> None:
    lost = "'lost', 'umm', 'fox', 1, 'p0', 'style', 'a fox', 0, 1, 'failed', 'generate', 'out of memory'"
    key = "(select min(sample_key) from samples where method = 'sd')"
    change(
        store,
        "update summaries set floor = 0.123, ceiling = 0.91 where metric = 'dino'",
        f"insert into undrawn values ({lost})",
        f"insert into run_samples (run_id, sample_key) values ('{finished.run_id}', 'lost')",
        f"insert into unscored values ({key}, 'odd', 'odd/1: made up', 'failed', 'broken')",
    )
    page = Page(render_run(store, finished.run_id, tmp_path))
    assert len(page.all("u", **{"class": "floor"})) == len(page.all("u", **{"class": "ceiling"})) == 3
    assert page.all("td", **{"data-ceiling": "dino"}) and "real images – 0.910" in page.text
    failed = [int(mark["data-failed"]) for mark in page.all("span") if "data-failed" in mark]
    by_method = dict(zip(finished.methods, zip(*[iter(failed)] * 4, strict=True), strict=True))
    assert by_method == {"sd": (0, 0, 0, 1), "umm": (1, 1, 1, 1), "dream<booth>": (0, 0, 0, 0)}


def test_without_floor_and_ceiling_none_is_drawn(finished, store: Path, tmp_path: Path) -> None:
    page = Page(render_run(store, finished.run_id, tmp_path))
    assert not page.all("u") and not page.all("tfoot")


def test_where_less_is_better_the_lowest_is_best(finished, store: Path, tmp_path: Path) -> None:
    change(store, "update run_protocols set lower_is_better = true where metric = 'odd'")
    text = render_run(store, finished.run_id, tmp_path).read_text()
    with duckdb.connect(str(store)) as connection:
        query = "select min(mean), max(mean) from summaries where metric = ?"
        odd, dino = (connection.execute(query, [metric]).fetchone() for metric in ("odd", "dino"))
    assert f'class="best">{odd[0]:.3f}' in text and f'class="best">{odd[1]:.3f}' not in text
    assert f'class="best">{dino[1]:.3f}' in text


def test_quality_is_drawn_over_both_costs(finished, store: Path, tmp_path: Path) -> None:
    page = Page(render_run(store, finished.run_id, tmp_path))
    assert page.all("svg", **{"aria-label": "DINO over seconds an image and over seconds of setup, one point a method"})
    assert page.words.count("dream<booth>") >= 3  # in the table and in both panels


def test_the_command_takes_latest_and_a_folder(finished, store: Path, tmp_path: Path, capsys) -> None:
    assert main(["--store", str(store), "--run", "latest", "--out", str(tmp_path / "site")]) == 0
    assert Path(capsys.readouterr().out.strip()) == tmp_path / "site" / finished.run_id / "index.html"
    assert (tmp_path / "site" / "index.html").is_file()
