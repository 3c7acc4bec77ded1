"""A report to give away: a zip that opens anywhere, and one file with everything in it."""

import shutil
import zipfile
from pathlib import Path

import pytest

from reports import bundle
from reports.render import main
from tests.reports.browsing import PHONE, press, tab, until

RUN = "run-made-up"


@pytest.fixture(scope="module")
def given(made_up: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the zip and the single file of the made-up run."""
    output, away = (tmp_path_factory.mktemp(name) for name in ("output", "away"))
    store = made_up.parent.parent / "umm_bench.duckdb"
    assert main(["--store", str(store), "--output", str(output), "--zip", "--single-file"]) == 0
    for name in (f"{RUN}.zip", f"{RUN}.html"):
        shutil.copy(output / name, away)
    return away


def test_the_zip_opens_anywhere_and_leads_nowhere_else(given: Path, browser, tmp_path: Path) -> None:
    with zipfile.ZipFile(given / f"{RUN}.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [RUN]
    with tab(browser) as seen:
        for name in ("index.html", "gallery.html"):
            page = seen.open(tmp_path / RUN / name)
            assert page.locator("a[href^='../']").count() == 0
        until(page, "document.querySelectorAll('.row').length === 40")
        assert seen.complaints == []


def test_one_file_has_all_pages_and_the_gallery(given: Path, browser, tmp_path: Path) -> None:
    alone = Path(shutil.copy(given / f"{RUN}.html", tmp_path))
    with tab(browser, PHONE) as seen:
        page = seen.open(alone)
        until(page, "document.querySelectorAll('.row').length === 40")
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
        assert len(ids) == len(set(ids)) and {"results", "gallery", "several", "rare", "claims"} <= set(ids)
        links = page.evaluate("[...document.querySelectorAll('a[href]')].map((each) => each.getAttribute('href'))")
        inner = [link for link in links if not link.startswith("data:text/csv")]
        assert all(link.startswith("#") for link in inner)
        assert {link[1:] for link in inner if not link.startswith("#open=")} <= set(ids)
        press(page.locator("#worst a.opens").first)
        until(page, "document.querySelector('#large').open && !!document.querySelector('#large dl')")
        assert page.locator("#large img").first.get_attribute("src").startswith("data:image/")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert seen.complaints == []


def test_the_same_run_is_the_same_zip(made_up: Path, tmp_path: Path) -> None:
    folders = [Path(shutil.copytree(made_up.parent, tmp_path / name / RUN)) for name in ("one", "two")]
    assert bundle.write_zip(folders[0]).read_bytes() == bundle.write_zip(folders[1]).read_bytes()


def test_one_file_that_would_be_too_large_is_refused_in_one_line(made_up, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(bundle, "MOST_MB", 0.1)
    store = made_up.parent.parent / "umm_bench.duckdb"
    assert main(["--store", str(store), "--output", str(tmp_path), "--single-file"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--zip" in line and not (tmp_path / f"{RUN}.html").exists()
