import os
import shutil
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import pytest

from reports.data import read_report
from reports.render import main, render_run
from umm_bench.errors import UserError


class Page(HTMLParser):
    """Every tag with its attributes, and the text outside scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] and self.tags[-1][0] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        wanted = attributes.items()
        return [found for name, found in self.tags if name == tag and all(found.get(k) == v for k, v in wanted)]


@pytest.fixture(scope="module")
def rendered(finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_run(finished.store, finished.run_id, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def page(rendered: Path) -> Page:
    return Page(rendered)


def test_nothing_of_the_data_is_markup(finished, rendered: Path, page: Page) -> None:
    assert len(page.all("script")) == 1
    assert finished.nasty not in rendered.read_text()
    assert page.text.count(finished.nasty) >= 6  # the command, two prompts, a reason, its evidence and its prompt
    assert not page.all("booth")


def test_every_method_is_a_column_and_every_pair_a_row(finished, page: Page) -> None:
    rows = [row for row in page.all("tr") if "data-subject" in row]
    assert [(row["data-subject"], row["data-kind"]) for row in rows] == [
        ("fox", "accessorise"),
        ("fox", "style"),
        ("owl", "accessorise"),
        ("owl", "style"),
    ]
    start = page.tags.index(("table", {"class": "grid", "id": "grid"}))
    heads = [tag for tag, _ in page.tags[start : start + 12] if tag == "th"]
    assert len(heads) == 2 + len(finished.methods)
    for method in finished.methods:
        assert method in page.words
    assert page.text.count("not drawn yet") == 0


def test_leaderboard_equals_the_database(finished, page: Page) -> None:
    with duckdb.connect(str(finished.store)) as connection:
        means = connection.execute("select method, metric, avg(value) from run_results group by all").fetchall()
        setups = connection.execute("select method, avg(seconds) from setups group by all").fetchall()
    assert len(means) == len(finished.methods) * len(finished.metrics)
    for method, metric, mean in means:
        (cell,) = page.all("td", **{"data-method": method, "data-metric": metric})
        assert float(cell["data-value"]) == pytest.approx(mean, abs=1e-12)
        assert f"{mean:.3f} ± 0.050" in page.text
    for _, seconds in setups:
        assert page.all("td", **{"data-value": repr(seconds)}), seconds


def test_identity_marks_and_scores_are_those_of_the_samples(finished, page: Page) -> None:
    report = read_report(finished.store, finished.run_id)
    samples = [*report.samples, *(failure.sample for failure in report.failures)]
    right = sum(sample.scores["identity"] for sample in samples)
    assert 0 < right < len(samples) == 13
    assert len(page.all("span", **{"class": "mark right"})) == right
    assert len(page.all("span", **{"class": "mark wrong"})) == len(samples) - right
    for sample in samples:
        assert f"{sample.scores['dino']:.2f}" in page.words


def test_comparisons_say_what_their_interval_allows(finished, page: Page, tmp_path: Path) -> None:
    assert "umm minus sd +0.100 +0.020 to +0.200 4 2 too few subjects" in page.text
    assert "higher" not in page.text
    shutil.copytree(finished.store.parent, tmp_path / "six")
    with duckdb.connect(str(tmp_path / "six" / finished.store.name)) as connection:
        connection.execute("update comparisons set cases = 6")
    six = Page(render_run(tmp_path / "six" / finished.store.name, finished.run_id, tmp_path / "six"))
    assert "umm minus sd +0.100 +0.020 to +0.200 4 6 umm higher" in six.text
    assert "umm minus sd -0.100 -0.300 to +0.100 4 6 not told apart" in six.text


def test_pictures_lie_beside_the_page_and_a_lost_one_is_shown_as_missing(rendered: Path, page: Page) -> None:
    sources = [picture["src"] for picture in page.all("img")]
    assert all((rendered.parent / source).is_file() for source in sources)
    drawn, references, failure = 12, 4, 1
    assert len(sources) == drawn - 1 + references + failure
    assert len(page.all("span", **{"class": "missing"})) == 1 + failure
    assert page.text.count("image missing") == 2
    small = [picture for picture in page.all("img") if "fox" in picture["src"]]
    large = [picture for picture in page.all("img") if "umm-owl" in picture["src"]]
    assert small and all(picture.get("class") == "pixelated" for picture in small)
    assert large and all(picture.get("class") is None for picture in large)


def test_the_page_asks_nobody_for_anything(rendered: Path, page: Page) -> None:
    for _, attributes in page.tags:
        for name in ("src", "href"):
            target = attributes.get(name) or ""
            assert not target.startswith(("http", "//", "/", "file:")), target
    assert "url(" not in rendered.read_text() and "@import" not in rendered.read_text()


def test_subjects_of_any_letters_have_their_own_reference(finished, tmp_path: Path) -> None:
    shutil.copy(finished.store, tmp_path / "other.duckdb")
    with duckdb.connect(str(tmp_path / "other.duckdb")) as connection:
        connection.execute("update samples set case_id = case case_id when 'fox' then '狐' else '梟' end")
    page = render_run(tmp_path / "other.duckdb", finished.run_id, tmp_path)
    found = {row["alt"]: row["src"] for row in Page(page).all("img") if str(row["alt"]).startswith("reference")}
    assert found.keys() == {"reference of 狐", "reference of 梟"}
    fox, owl = (page.parent / found[f"reference of {subject}"] for subject in "狐梟")
    assert fox.read_bytes() != owl.read_bytes()


def test_a_second_rendering_makes_only_what_changed(finished, tmp_path: Path) -> None:
    page = render_run(finished.store, finished.run_id, tmp_path)
    fox, owl = (page.parent / "images" / f"sd-{name}" for name in ("fox-p0.png", "owl-p0.jpg"))
    stray, before = page.parent / "images" / "stray.png", owl.stat().st_ino
    stray.write_bytes(fox.read_bytes())
    os.utime(fox, (0, 0))
    old = fox.stat().st_ino
    render_run(finished.store, finished.run_id, tmp_path)
    assert fox.stat().st_mtime > 0 and fox.stat().st_ino != old
    assert owl.stat().st_ino == before
    assert not stray.exists()


def test_a_run_that_was_cut_off_still_renders(finished, tmp_path: Path) -> None:
    shutil.copy(finished.store, tmp_path / "cut.duckdb")
    with duckdb.connect(str(tmp_path / "cut.duckdb")) as connection:
        for table in ("summaries", "comparisons", "failures", "run_protocols"):
            connection.execute(f"delete from {table}")
        connection.execute("delete from samples where method = 'umm' and prompt_id = 'p1'")
    page = Page(render_run(tmp_path / "cut.duckdb", finished.run_id, tmp_path))
    assert "This run has no scores yet" in page.text
    assert page.text.count("not drawn yet") == 2
    assert "No failure is recorded" in page.text
    assert not page.all("svg")


def test_errors_are_one_line(finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=f"no run 'run-9'; latest: {finished.run_id}"):
        read_report(finished.store, "run-9")
    assert main(["--store", str(tmp_path / "none.duckdb"), "--run", "x"]) == 2
    assert main(["--store", str(finished.store), "--run", "x", "--output", str(tmp_path)]) == 2
    shutil.copy(__file__, tmp_path / "text.duckdb")
    assert main(["--store", str(tmp_path / "text.duckdb"), "--run", "x"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("error: ") for line in lines)


def test_the_command_prints_the_page(finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = tmp_path / "readme" / "grid.png"
    assert (
        main(["--store", str(finished.store), "--run", finished.run_id, "--output", str(tmp_path), "--grid", str(grid)])
        == 0
    )
    assert Path(capsys.readouterr().out.strip()) == tmp_path / finished.run_id / "index.html"
    assert grid.is_file()


def test_without_a_run_the_latest_is_rendered(finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(shutil.copy(finished.store, tmp_path / "copy.duckdb"))
    with duckdb.connect(store) as connection:
        connection.execute("update runs set executed = '2024-03-05'")
        for name in ("a-older", "z-older"):
            older = f"select * replace ('{name}' as run_id, '2024-03-04' as executed) from runs where run_id = ?"
            connection.execute(f"insert into runs by name ({older})", [finished.run_id])
    assert main(["--store", store, "--output", str(tmp_path)]) == 0
    assert Path(capsys.readouterr().out.strip()).parent.name == finished.run_id
    with duckdb.connect(store) as connection:
        connection.execute("delete from runs")
    assert main(["--store", store, "--output", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_scores_of_sets_stand_on_the_first_page(finished, page: Page, tmp_path: Path) -> None:
    assert "Of whole sets" not in page.text
    shutil.copytree(finished.store.parent, tmp_path / "sets")
    about = "'umm', 'prior_kid', 'prior_kid/1', 1, 0.0123, 0.01, 0.02, 12, 2, true"
    with duckdb.connect(str(tmp_path / "sets" / finished.store.name)) as connection:
        connection.execute(f"insert into set_scores values ('{finished.run_id}', {about})")
    found = Page(render_run(tmp_path / "sets" / finished.store.name, finished.run_id, tmp_path / "sets"))
    assert [float(cell["data-value"]) for cell in found.all("td", **{"data-set": "prior_kid"})] == [0.0123]
    assert "KID to the prior umm 1 0.0123 0.0100 to 0.0200 12 2 lower prior_kid/1" in found.text


def test_nobody_leads_where_all_are_alike(finished, page: Page, tmp_path: Path) -> None:
    assert "Identity: all alike (0.500)" in page.text
    assert "DINO: dream<booth> (" in page.text
