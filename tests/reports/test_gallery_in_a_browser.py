"""The gallery as a reader uses it: filters, order, keys, the large view, links to a view, and texts that stay texts."""

import json
import re
from pathlib import Path

import duckdb
import pytest

from benchmarks.synthetic_run import HOSTILE, RUN
from tests.reports.browsing import PHONE, press, tab, until

ROWS = '[...document.querySelectorAll(".row")].map((row) => Number(row.dataset.row))'
KEYS = '[...document.querySelectorAll(".row button.open")].map((each) => each.dataset.key)'
OPENED = "document.querySelector('#large').open && new URLSearchParams(location.hash.slice(1)).get('open')"


@pytest.fixture(scope="module")
def store(made_up: Path):
    with duckdb.connect(str(made_up.parent.parent / "umm_bench.duckdb"), read_only=True) as connection:
        yield connection


@pytest.fixture
def seen(browser, made_up: Path):
    with tab(browser) as opened:
        opened.open(made_up.parent / "gallery.html")
        opened.page.wait_for_selector(".row")
        yield opened
        assert opened.complaints == []


def shown(page) -> tuple[int, int]:
    """Rows and pictures, as the page counts them."""
    rows, pictures = re.search(r"([\d,]+) of [\d,]+ rows, ([\d,]+) pictures", page.inner_text("#count")).groups()
    return int(rows.replace(",", "")), int(pictures.replace(",", ""))


def rows_where(store, condition: str, *values) -> int:
    query = "select count(distinct (case_id, prompt_id, image_index)) from run_samples join samples using (sample_key)"
    return store.execute(f"{query} join sample_subjects using (sample_key) where {condition}", values).fetchone()[0]


def test_everything_is_shown_a_page_at_a_time(seen, store) -> None:
    assert shown(seen.page) == (100, 400)
    assert seen.page.evaluate(ROWS) == list(range(40))
    press(seen.page.locator("#after"))
    press(seen.page.locator("#after"))
    until(seen.page, f"{ROWS}.length === 20")
    assert seen.page.evaluate(ROWS) == list(range(80, 100))
    assert seen.page.is_disabled("#after")


@pytest.mark.parametrize(
    ("name", "value", "condition"),
    [
        ("subject", "owl-1", "subject = ?"),
        ("class", "owl", "class_noun = ?"),
        ("stratum", "look, rare", "subject in (select subject from rarity where stratum = ?)"),
        ("kind", "style", "prompt_kind = ?"),
        ("words", "woodcut", "prompt like '%' || ? || '%'"),
    ],
)
def test_filters_show_what_the_store_has(seen, store, name: str, value: str, condition: str) -> None:
    wanted = rows_where(store, condition, value)
    field = seen.page.locator(f"[name={name}]")
    field.fill(value) if name == "words" else field.select_option(value)
    until(seen.page, f"document.querySelector('#count').textContent.startsWith('{wanted} of')")
    assert 0 < wanted < 100
    assert f"{name}=" in seen.page.url
    seen.page.click("button[type=reset]")
    until(seen.page, "document.querySelector('#count').textContent.startsWith('100 of')")


def test_a_method_a_failure_and_a_range_filter_pictures(seen, store) -> None:
    page = seen.page
    page.select_option("[name=method]", "umm")
    page.select_option("[name=metric]", "dino")
    page.fill("[name=min]", "0.7")
    wanted = store.execute(
        "with means as (select sample_key, avg(value) as mean from run_results where metric = 'dino' and method = 'umm'"
        " group by all) select count(*) from means where round(mean, 4) >= 0.7"
    ).fetchone()[0]
    until(page, f"document.querySelector('#count').textContent.startsWith('{wanted} of')")
    assert shown(page) == (wanted, wanted) and 0 < wanted < 100
    page.click("button[type=reset]")
    page.select_option("[name=label]", "swap")
    until(page, "document.querySelector('.chosen')")
    labels = page.locator(".chosen .label").all_text_contents()
    assert labels and set(labels) == {"swap"}
    page.select_option("[name=label]", "any failure")
    until(page, "[...document.querySelectorAll('.chosen .label')].some((each) => each.textContent !== 'swap')")
    assert "right" not in page.locator(".chosen .label").all_text_contents()


def test_rows_are_sorted_by_a_score_and_by_a_difference(seen, store) -> None:
    page = seen.page
    page.select_option("[name=sort]", "dino")
    page.select_option("[name=of]", "umm")
    page.select_option("[name=minus]", "sd")
    page.select_option("[name=order]", "up")
    until(page, "location.hash.includes('order=up') && document.querySelector('.value')")
    values = [float(text.rpartition(": ")[2]) for text in page.locator(".value").all_text_contents()]
    wanted = store.execute(
        "with means as (select case_id, prompt_id, method, avg(value) as mean from run_results where metric = 'dino'"
        " group by all) select u.mean - s.mean from means u join means s using (case_id, prompt_id)"
        " where u.method = 'umm' and s.method = 'sd' order by 1 limit 40"
    ).fetchall()
    assert values == pytest.approx([row[0] for row in wanted], abs=0.0011)
    assert len(set(values)) > 20


def test_keys_go_from_picture_to_picture_and_back(seen) -> None:
    page = seen.page
    keys = page.evaluate(KEYS)
    page.locator("button.open").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.key") == keys[5]
    page.keyboard.press("Enter")
    until(page, f"{OPENED} === '{keys[5]}'")
    for key, wanted in (("ArrowLeft", keys[4]), ("ArrowLeft", keys[3]), ("ArrowUp", None), ("ArrowDown", keys[7])):
        page.keyboard.press(key)
        if wanted:
            until(page, f"{OPENED} === '{wanted}'")
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('#large').open")
    until(page, f"document.activeElement.dataset.key === '{keys[7]}'")  # the browser tells of the closing a task later
    assert "open=" not in page.url


def test_keys_turn_the_page_in_the_large_view(seen) -> None:
    page = seen.page
    last = page.evaluate(KEYS)[-1]
    press(page.locator("button.open").last)
    until(page, f"{OPENED} === '{last}'")
    page.keyboard.press("ArrowRight")
    until(page, f"{OPENED} !== '{last}' && {ROWS}[0] === 40")
    assert "page=2" in page.url


def test_a_picture_opens_with_all_that_made_it(seen, store) -> None:
    key, seed, config = store.execute(
        "select sample_key, cast(seed as text), config_json from samples where subject_count = 2 and method = 'umm'"
        " and sample_key in (select sample_key from run_results where metric = 'several' and value = 0)"
        " order by sample_key limit 1"
    ).fetchone()
    page = seen.page
    page.evaluate(f"location.hash = 'open={key}'")
    until(page, f"{OPENED} === '{key}'")
    text = page.inner_text("#large")
    assert seed in text and key in text
    assert json.loads(config)["tiue"] in text
    scores = store.execute(
        "select metric, subject, value, protocol from run_results where sample_key = ?", [key]
    ).fetchall()
    lines = page.locator("#large tbody tr").all_text_contents()
    assert len(lines) == len(scores)
    for _, subject, value, protocol in scores:
        assert any(subject in line and protocol in line and f"{round(value, 4):g}" in line for line in lines)
    evidence = store.execute(
        "select metadata_json from run_results where metric = 'several' and sample_key = ? order by subject", [key]
    ).fetchall()
    boxes = [json.loads(row[0])["box"] for row in evidence]
    drawn = page.locator("#large rect").evaluate_all(
        "all => all.map((each) => each.x.baseVal.value).sort((a, b) => a - b)"
    )
    assert drawn == pytest.approx(sorted(box[0] for box in boxes if box), abs=0.05)
    assert page.locator("#large .references img").count() == 4


def test_similar_failures_are_of_the_same_method_and_label(seen, store) -> None:
    wrong = store.execute(
        "select sample_key from run_results where metric = 'identity' and subject_count = 1 and method = 'sd'"
        " and value = 0 order by 1"
    ).fetchall()
    page, keys = seen.page, [row[0] for row in wrong]
    page.evaluate(f"location.hash = 'open={keys[0]}'")
    page.wait_for_selector("#large .similar")
    near = page.locator("#large .strip a").evaluate_all("all => all.map((each) => each.getAttribute('href').slice(6))")
    assert len(near) == 8 and set(near) <= set(keys[1:])
    press(page.locator("#large .strip a").first)
    until(page, f"{OPENED} === '{near[0]}'")
    press(page.locator("#large .similar h3 a"))
    until(page, f"document.querySelector('#count').textContent.startsWith('{len(keys)} of')")


def test_a_link_leads_to_the_same_view(seen, browser, made_up: Path) -> None:
    page = seen.page
    page.select_option("[name=class]", "fox")
    page.select_option("[name=sort]", "clip_t")
    until(page, "location.hash.includes('clip_t')")
    press(page.locator("button.open").nth(6))
    until(page, OPENED)
    fragment, rows, title = page.evaluate("location.hash"), page.evaluate(ROWS), page.inner_text("#large-title")
    with tab(browser, PHONE) as other:
        again = other.open(made_up.parent / "gallery.html", fragment)
        until(again, OPENED)
        assert (again.evaluate(ROWS), again.inner_text("#large-title")) == (rows, title)
        assert again.input_value("[name=class]") == "fox"
        assert again.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        again.go_back()
        assert other.complaints == []


def test_a_link_to_a_picture_that_is_not_there_says_so(seen) -> None:
    seen.page.evaluate("location.hash = 'open=nobody'")
    until(seen.page, "document.querySelector('#lost').textContent.includes('nobody')")


def test_a_hostile_caption_stays_text(seen, browser, made_up: Path) -> None:
    page = seen.page
    page.fill("[name=words]", "</script>")
    until(page, "document.querySelectorAll('.row').length === 1")
    assert HOSTILE in page.inner_text(".row .prompt")
    press(page.locator("button.open").first)
    page.wait_for_selector("#large dl")
    assert page.inner_text("#large").count(HOSTILE) >= 2
    assert page.evaluate("document.querySelectorAll('[onerror]').length") == 0
    page.wait_for_timeout(200)
    for path in made_up.parent.glob("gallery/*.js"):
        assert "</script" not in path.read_text()


def test_what_is_lost_and_what_was_never_drawn_is_said(seen, store) -> None:
    page = seen.page
    page.select_option("[name=label]", "failed to draw")
    until(page, "document.querySelectorAll('.row').length === 1")
    press(page.locator(".chosen button"))
    page.wait_for_selector("#large dl")
    assert "out of memory" in page.inner_text("#large")
    lost = store.execute("select sample_key from run_samples where run_id = ?", [RUN]).fetchall()[-1][0]
    page.evaluate(f"location.hash = 'open={lost}'")
    until(page, f"document.querySelector('#large').textContent.includes('{lost}')")
    assert "image missing" in page.inner_text("#large")


def test_without_its_files_the_page_says_what_is_missing(browser, made_up: Path, tmp_path: Path) -> None:
    alone = tmp_path / "gallery.html"
    alone.write_bytes((made_up.parent / "gallery.html").read_bytes())
    with tab(browser) as seen:
        assert "must lie beside this page" in seen.open(alone).inner_text("#count")
