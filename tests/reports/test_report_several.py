"""The page on several subjects: each case with its boxes, similarities and label, rates, traits, and the truth."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from PIL import Image

from reports.data import read_report
from reports.findings.several import LABELS
from reports.render import render_run
from tests.reports.test_render_run import Page
from umm_bench.bench.store import Store

NASTY = "<img src=x onerror=alert(1)>"
PAIRS = {"fox+owl": ("fox", "owl"), "owl+hat": ("owl", NASTY), "fox+fox": ("fox", "fox")}
ASKED = {"and": "a {} and a {}", "left": "a {} to the left of a {}"}
# Labels by method, in the order of the pairs, of the prompts and of the subjects.
SD = ("drift missing", "drift blending", "drift drift", "swap swap", "drift drift", "right drift")
UMM = ("right right", "right blending", "right right", "right drift", "right right", "dominance right")
GIVEN = {"sd": " ".join(SD).split(), "umm": " ".join(UMM).split()}


def evidence(label: str, ids: list[str], n: int, margin: float) -> dict:
    there = label != "missing"
    row = {one: round(0.4 + margin / 2 if one == ids[n] else 0.4 - margin / 2, 4) for one in ids}
    matrix = {one: {other: 0.81 if one == other else 0.26 for other in ids} for one in ids}
    box = [4 + 20 * n, 8, 20 + 20 * n, 40] if there else None
    return {
        "label": label,
        "box": box,
        "detected": 0.7 if there else None,
        "row": row if there else {},
        "references": matrix,
        "margin": margin if there else None,
    }


def add_pairs(folder: Path, run_id: str, measured: bool = True) -> None:
    samples, subjects, scores, place = [], [], [], 0
    for method, labels in GIVEN.items():
        given = iter(labels)
        for case, nouns in PAIRS.items():
            for prompt_id, text in ASKED.items():
                key, ids = f"{method}-{case}-{prompt_id}", [f"{noun}-{n}" for n, noun in enumerate(nouns)]
                path = f"pair{len(samples)}.png"
                Image.new("RGB", (64, 48), (9 * len(samples), 90, 200)).save(folder / path)
                samples.append(
                    dict(sample_key=key, method=method, config_json={}, base="mini", suite="mini", case_id=case)
                    | dict(subject_count=2, prompt_id=prompt_id, prompt_kind="two", prompt=text.format(*nouns))
                    | dict(image_index=0, seed=3, path=path, seconds=1.0, peak_mb=1.0, code_version="1")
                )
                for n, noun in enumerate(nouns):
                    label, place = next(given), place + 1
                    subjects.append(
                        dict(sample_key=key, place=n + 1, subject=ids[n], class_noun=noun, setup_key="x")
                        | dict(references_json=["fox.png"], held_out_json=[])
                    )
                    row = dict(sample_key=key, subject=ids[n], explanation="", value=float(label == "right"))
                    truth = {"label": "drift" if label == "blending" else label, "box": [0.25, 0.5, 0.5, 1.0]}
                    scores.append(row | dict(metric="identity", protocol="identity/1: made up", metadata_json=truth))
                    if measured:
                        found = evidence(label, ids, n, round(0.01 * place - 0.1, 2))
                        scores.append(row | dict(metric="several", protocol="several/1", metadata_json=found))
    with Store(folder) as store:
        store.upsert("samples", samples)
        store.upsert("sample_subjects", subjects)
        store.upsert("scores", scores)
        known = store.rows("select sample_key from run_samples where run_id = ?", [run_id])
        added = [{"sample_key": sample["sample_key"]} for sample in samples]
        store.replace_of_run("run_samples", run_id, known + added)
        protocols = store.rows("select metric, protocol from run_protocols where run_id = ?", [run_id])
        store.replace_of_run("run_protocols", run_id, [*protocols, {"metric": "several", "protocol": "several/1"}])


@pytest.fixture(scope="module")
def paired(finished, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("paired")
    shutil.copytree(finished.store.parent, folder, dirs_exist_ok=True)
    add_pairs(folder, finished.run_id)
    return replace(finished, store=folder / finished.store.name)


@pytest.fixture(scope="module")
def several(paired):
    return read_report(paired.store, paired.run_id).several


@pytest.fixture(scope="module")
def page(paired, tmp_path_factory: pytest.TempPathFactory) -> Page:
    index = render_run(paired.store, paired.run_id, tmp_path_factory.mktemp("out"))
    return Page(index.with_name("several.html"))


def test_rates_are_shares_of_the_subjects_asked_for(several, page: Page) -> None:
    rates = several.rates()
    for method, labels in GIVEN.items():
        assert sum(rate.mean for rate in rates[method].values()) == pytest.approx(1)
        for label in LABELS:
            rate = rates[method][label]
            assert rate.mean == pytest.approx(labels.count(label) / len(labels))
            assert 0 <= rate.low <= rate.mean <= rate.high <= 1 and (rate.samples, rate.clusters) == (12, 3)
            cells = page.all("td", **{"data-method": method, "data-label": label})
            assert [float(cell["data-value"]) for cell in cells] == [pytest.approx(rate.mean)]


def test_traits_tell_whom_it_happens_to(several) -> None:
    found = {(trait.name, trait.value): trait.failing for trait in several.traits()}
    assert found["Their classes", "same class"]["umm"].mean == pytest.approx(1 / 4)
    assert found["Their classes", "different"]["umm"].mean == pytest.approx(2 / 8)
    assert found["Place in the prompt", "named first"]["sd"].mean == pytest.approx(5 / 6)
    assert found["Place in the prompt", "named second"]["sd"].mean == 1
    assert {value for name, value in found if name == "Relation in the prompt"} == {"and", "to the left of"}
    assert not [value for name, value in found if name == "References of the two"], "all are equally alike"


def test_examples_begin_with_the_lowest_margin_and_go_on_at_the_median(several) -> None:
    shown = several.examples("right")
    margins = sorted(o.margin for _, o in several.labelled if o.label == "right")
    assert [each.outcome.margin for each in shown if each.why == "worst"] == margins[:3]
    around = [each.outcome.margin for each in shown if each.why == "median"]
    assert margins[len(margins) // 2] in around and all(each.outcome.label == "right" for each in shown)
    (missing,) = several.examples("missing")
    assert missing.outcome.margin is None and missing.outcome.frame((64, 48)) is None


def test_the_confusion_table_has_every_subject_once(several, page: Page) -> None:
    counts = several.confusion()
    assert sum(counts.values()) == 24
    assert (counts["drift", "blending"], counts["blending", "blending"], counts["swap", "swap"]) == (2, 0, 2)
    assert several.agreement().mean == pytest.approx(22 / 24)
    cells = page.all("td", **{"data-truth": "drift", "data-label": "blending"})
    assert len(cells) == 1 and "92 % agree" in page.text


def test_boxes_are_drawn_in_the_pixels_of_the_picture(page: Page) -> None:
    assert page.all("svg", viewbox="0 0 64 48")
    boxes = page.all("rect")
    assert {(box["x"], box["width"], box["y"], box["height"]) for box in boxes} == {
        ("4", "16", "8", "32"),
        ("24", "16", "8", "32"),
    }


def test_similarities_stand_beside_those_of_the_references(page: Page) -> None:
    tables = page.all("table", **{"class": "heat"})
    articles = page.all("article")
    assert len(tables) == 2 * len(articles) > 0
    assert page.text.count("0.81") == 2 * len(articles) and page.text.count("This picture") == len(articles)


def test_a_hostile_class_stays_text(page: Page) -> None:
    assert not [picture for picture in page.all("img") if picture.get("src") == "x"]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert NASTY in page.text


def test_without_the_metric_the_truth_is_shown_and_said_to_be_it(finished, tmp_path: Path) -> None:
    shutil.copytree(finished.store.parent, tmp_path / "store")
    add_pairs(tmp_path / "store", finished.run_id, measured=False)
    store = tmp_path / "store" / finished.store.name
    several = read_report(store, finished.run_id).several
    assert not several.measured and several.confusion() == {} and several.agreement() is None
    assert several.rates()["umm"]["drift"].mean == pytest.approx((1 + 1) / 12)
    page = Page(render_run(store, finished.run_id, tmp_path).with_name("several.html"))
    assert "these labels are the suite's ground truth" in page.text and not page.all("table", **{"class": "heat"})
    assert {(box["x"], box["y"], box["width"], box["height"]) for box in page.all("rect")} == {
        ("16.0", "24.0", "16.0", "24.0")
    }


def test_a_run_without_pairs_says_so(finished, tmp_path: Path) -> None:
    page = Page(render_run(finished.store, finished.run_id, tmp_path).with_name("several.html"))
    assert "drew no picture of several subjects" in page.text and "--pairs 4" in page.text


def test_pairs_that_nothing_has_labelled_say_what_does(paired, tmp_path: Path) -> None:
    shutil.copytree(paired.store.parent, tmp_path / "store")
    store = tmp_path / "store" / paired.store.name
    with duckdb.connect(str(store)) as connection:
        connection.execute("delete from scores where sample_key like '%+%'")
    page = Page(render_run(store, paired.run_id, tmp_path).with_name("several.html"))
    assert "nothing has said yet what became of them" in page.text and not page.all("article")


def test_a_label_that_is_not_known_is_left_out_and_counted(paired, tmp_path: Path) -> None:
    shutil.copytree(paired.store.parent, tmp_path / "store")
    store = tmp_path / "store" / paired.store.name
    with duckdb.connect(str(store)) as connection:
        odd = json.dumps({"label": "</style>", "box": None})
        change = "update scores set metadata_json = ? where metric = 'several' and sample_key = 'sd-fox+owl-and'"
        connection.execute(change, [odd])
    page = Page(render_run(store, paired.run_id, tmp_path).with_name("several.html"))
    assert "2 subjects without a label are left out" in page.text
