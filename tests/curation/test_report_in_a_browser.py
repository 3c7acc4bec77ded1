"""The pages of a build as a reader opens them, from the disk."""

from pathlib import Path

import pytest

from curation import build_pairs
from curation.output import report
from curation.output.tally import Tally
from curation.output.writer import Layout
from tests.curation.conftest import EveryPhraseGrounder, row, write_tar
from tests.curation.test_build import config
from tests.curation.test_report import HOSTILE
from tests.reports.browsing import DESK, PHONE, tab

OVER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
INK = "getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()"
SHOWN = "document.querySelectorAll('#pairs figure').length"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pages")
    rows = [row(index) for index in range(8)]
    rows += [row(8, json_caption=HOSTILE), row(9, json_caption=HOSTILE, jpg=b"x"), row(10, json_punsafe=0.99)]
    write_tar(folder / "in" / "0.tar", rows)
    build_pairs(config(folder / "in", folder / "out"), EveryPhraseGrounder())
    return folder / "out" / "report.html", folder / "out" / "pairs.html"


@pytest.mark.parametrize(("viewport", "scheme"), [(DESK, "light"), (PHONE, "dark")], ids=["desk", "phone"])
def test_they_are_silent_fit_and_are_for_everyone(browser, pages, viewport, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed (extra `dev`)")
    faults = []
    with tab(browser, viewport, scheme) as seen:
        for path in pages:
            page = seen.open(path)
            faults += [f"{path.name}: too wide"] if page.evaluate(OVER) else []
            for fault in axe.Axe().run(page).response["violations"]:
                if fault["impact"] in ("serious", "critical"):
                    faults.append(f"{path.name}: {fault['id']}: {[str(node['target']) for node in fault['nodes'][:3]]}")
        assert [*faults, *seen.complaints] == []


def test_they_follow_light_dark_and_print_as_the_pages_of_runs_do(browser, pages):
    found = {}
    for scheme in ("light", "dark"):
        with tab(browser, DESK, scheme) as seen:
            page = seen.open(pages[0])
            found[scheme] = page.evaluate(INK)
            page.emulate_media(media="print")
            found[f"{scheme}, printed"] = page.evaluate(INK)
            assert page.evaluate(OVER) == 0
    assert found["light"] != found["dark"]
    assert found["dark, printed"] == found["light, printed"] == found["light"]


def test_pairs_are_filtered(browser, pages):
    with tab(browser) as seen:
        page = seen.open(pages[1])
        everything = page.evaluate(SHOWN)
        assert everything > 10
        page.fill("#words", "{{7*7}}")
        assert page.evaluate(SHOWN) == 2
        page.fill("#words", "no caption says this")
        assert page.evaluate(SHOWN) == 0
        assert seen.complaints == []


def test_a_caption_that_no_filter_has_cleaned_stays_text(browser, tmp_path):
    hostile = "</script><img src=x onerror=alert(1)>"
    made = report.Report(Layout(tmp_path, 1), Tally(), {}, seed=0)
    pair = {"picture": "", "box": [0, 0, 9, 9], "before": hostile, "phrase": hostile, "after": "", "score": 0.5}
    made.__dict__["_pairs"] = [{**pair, "concept": hostile, "key": hostile}]
    page_file = tmp_path / "pairs.html"
    page_file.write_text(made.pairs())
    with tab(browser) as seen:
        page = seen.open(page_file)
        assert page.inner_text("#pairs").count(hostile) == 4
        assert page.evaluate("document.querySelectorAll('img[onerror]').length") == 0
        assert not any("dialog" in said or "asked" in said for said in seen.complaints)


def test_their_policy_lets_no_other_script_run(browser, pages):
    for path in pages:
        with tab(browser) as seen:
            page = seen.open(path)
            page.evaluate("""() => { const own = document.createElement("script");
                own.textContent = "window.ran = true"; document.body.append(own); }""")
            assert page.evaluate("window.ran") is None
            assert any("Content Security Policy" in said for said in seen.complaints)
