"""Every page of a run in a real browser, from the disk: nothing asked for, nothing wrong, nothing cut, for everyone."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from benchmarks.synthetic_run import make_run
from reports.render import render_run
from tests.reports.browsing import DESK, PHONE, tab

LINKS = """[...document.querySelectorAll("[href], [src]")].map((each) =>
  each.getAttribute("href") ?? each.getAttribute("src"))"""
IDS = '[...document.querySelectorAll("[id]")].map((each) => each.id)'
OVER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CUT = """[...document.querySelectorAll("figure.chart")].filter((figure) => {
  const svg = figure.querySelector("svg").getBoundingClientRect(), box = figure.getBoundingClientRect();
  return svg.right > Math.min(box.right, document.documentElement.clientWidth) + 1 || box.height > 1000 ||
    getComputedStyle(figure).breakInside !== "avoid" || getComputedStyle(figure).overflowX !== "visible";
}).length"""
A4 = {"width": 718, "height": 1047}  # less the margins, at 96 dpi


@pytest.fixture(scope="module")
def pages(made_up: Path) -> list[Path]:
    found = [made_up.parent.parent / "index.html", *sorted(made_up.parent.glob("*.html"))]
    found.append(found[0].with_name("published.html"))
    assert len(found) >= 7
    return found


@pytest.mark.parametrize(("viewport", "scheme"), [(DESK, "light"), (PHONE, "dark")], ids=["desk", "phone"])
def test_pages_are_silent_fit_and_are_for_everyone(browser, pages, viewport, scheme) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed (extra `dev`)"
    ).Axe()
    faults = []
    with tab(browser, viewport, scheme) as seen:
        for path in pages:
            page = seen.open(path)
            over = page.evaluate(OVER)
            if over:
                faults.append(f"{path.name}: {over} px too wide")
            found = axe.run(page).response["violations"]
            for fault in found:
                if fault["impact"] in ("serious", "critical"):
                    where = [str(node["target"]) for node in fault["nodes"][:3]]
                    faults.append(f"{path.name}: {fault['id']}: {fault['help']}: {where}")
    assert [*faults, *seen.complaints] == []


def test_a_small_run_with_long_names_fits_a_phone(browser, tmp_path: Path) -> None:
    index = render_run(tmp_path / "umm_bench.duckdb", make_run(tmp_path, samples=40, side=64), tmp_path)
    with tab(browser, PHONE) as seen:
        for path in sorted(index.parent.glob("*.html")):
            assert seen.open(path).evaluate(OVER) == 0, path.name
        assert seen.open(index).locator("form.filters").count() == 1
        assert seen.complaints == []


def test_links_of_all_pages_resolve(browser, pages) -> None:
    folder = pages[0].parent
    with tab(browser) as seen:
        found = {path: (seen.open(path).evaluate(LINKS), seen.page.evaluate(IDS)) for path in pages}
    rows = "".join(path.read_text() for path in folder.rglob("rows-*.js"))
    lost, followed = [], 0
    for path, (links, _) in found.items():
        for link in links:
            parts = urlsplit(link)
            if parts.scheme == "data":
                continue
            assert not parts.scheme and not parts.netloc, link
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            followed += 1
            opened = re.fullmatch(r"open=(.+)", unquote(parts.fragment))
            known = found.get(target, ([], []))[1]
            whole = opened[1] in rows if opened else not parts.fragment or parts.fragment in known
            if not target.is_file() or not whole:
                lost.append(f"{path.name}: {link}")
    assert lost == []
    assert followed > 200


def test_print_cuts_no_chart(browser, pages) -> None:
    with tab(browser, A4) as seen:
        charts = 0
        for path in pages:
            page = seen.open(path)
            page.emulate_media(media="print")
            charts += page.locator("figure.chart svg").count()
            assert page.evaluate(CUT) == 0, path.name
            assert page.evaluate(OVER) == 0, path.name
    assert charts >= 4


def test_a_table_is_sorted_by_its_header_and_by_keys(browser, made_up: Path) -> None:
    values = '[...document.querySelectorAll("#leaderboard tbody tr")].map((row) => Number(row.cells[2].dataset.value))'
    with tab(browser) as seen:
        page = seen.open(made_up)
        header = page.locator("#leaderboard th[data-sort]").nth(2)
        header.click()
        assert page.evaluate(values) == sorted(page.evaluate(values), reverse=True)
        header.press("Enter")
        assert page.evaluate(values) == sorted(page.evaluate(values))
        assert header.get_attribute("aria-sort") == "ascending"
