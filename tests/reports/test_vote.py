"""Votes: the page says nothing of methods, and what voters save comes back as they meant it."""

import base64
import json
import re
from collections import Counter
from io import BytesIO

import pytest
from PIL import Image

from benchmarks.synthetic_run import METHODS, make_run
from reports.judges.ballot import write_ballot
from tests.reports.browsing import DESK, PHONE, tab, until
from tests.reports.judged import saved
from umm_bench import vote
from umm_bench.bench.judging.ballots import draw_ballot
from umm_bench.bench.keeping.pictures import save
from umm_bench.bench.store import OpenAnswers

RUN = "run-made-up"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("asked")
    make_run(place, samples=160, side=64)
    return place


@pytest.fixture(scope="module")
def page(folder):
    words = ["--store", str(folder), "--pairs", "12", "--checks", "3", "--out", str(folder / "vote.html")]
    assert vote.main(words) == 0
    return folder / "vote.html"


def rows(folder, table):
    with OpenAnswers(folder) as answers:
        return answers.rows(f"select * from {table} order by all")


def content(page) -> dict:
    found = re.search(r"const BALLOT = (\{.*\});", page.read_text())
    return json.loads(found[1])


def test_each_two_methods_are_asked_of_alike_on_one_case_prompt_and_noise(folder):
    with OpenAnswers(folder) as answers:
        ballot = draw_ballot(answers, RUN, pairs=60, checks=5, seed=3)
        samples = {row["sample_key"]: row for row in answers.rows("select * from samples")}
    pairs = [question for question in ballot.questions if question.expects is None]
    assert len(pairs) == 60 and len(ballot.questions) == 65
    shown = [(samples[each.left_key], samples[each.right_key]) for each in pairs]
    for left, right in shown:
        assert all(left[name] == right[name] for name in ("case_id", "prompt_id", "image_index", "seed"))
    two = Counter(tuple(sorted((left["method"], right["method"]))) for left, right in shown)
    assert len(two) == 6 and set(two.values()) == {10}
    sides = Counter(METHODS.index(left["method"]) < METHODS.index(right["method"]) for left, right in shown)
    assert min(sides.values()) > 15
    cells = Counter((left["case_id"], left["prompt_id"]) for left, _ in shown)
    assert len(cells) > 30


def test_a_check_wants_the_subject_itself_and_another_class_is_beside_it(folder):
    with OpenAnswers(folder) as answers:
        ballot = draw_ballot(answers, RUN, pairs=10, checks=8, seed=0)
    checks = [question for question in ballot.questions if question.expects]
    assert len(checks) == 8 and {each.expects for each in checks} == {"left", "right"}
    for each in checks:
        own, other = (each.left, each.right) if each.expects == "left" else (each.right, each.left)
        assert (own,) == each.references
        assert own.name.split("-")[0] == each.prompt.split()[-1] != other.name.split("-")[0]


def test_the_seed_decides_and_methods_can_be_chosen(folder):
    with OpenAnswers(folder) as answers:
        one, same, other = (draw_ballot(answers, RUN, 9, 2, seed) for seed in (1, 1, 2))
        assert one == same and one.id != other.id and one.questions != other.questions
        two = draw_ballot(answers, RUN, 9, 0, 0, ["umm", "sd"])
        methods = {row["sample_key"]: row["method"] for row in answers.rows("select * from samples")}
    assert {methods[key] for each in two.questions for key in (each.left_key, each.right_key)} == {"umm", "sd"}


def test_the_page_tells_nothing_of_who_drew_what(folder, page):
    text = page.read_text()
    keys = [row[side] for row in rows(folder, "ballots") for side in ("left_key", "right_key") if row[side]]
    assert len(keys) == 24
    shown = content(page)
    for told in (*keys, RUN, "samples/", "expects"):
        assert told not in text, told
    for method in METHODS:
        assert method not in json.dumps(shown["questions"])
    assert all(set(each) == {"pair", "prompt", "references", "left", "right"} for each in shown["questions"])
    assert len({json.dumps(each["references"]) for each in shown["questions"]}) > 1


def test_what_a_picture_says_of_its_making_does_not_get_into_the_page(tmp_path, folder):
    with OpenAnswers(folder) as answers:
        ballot = draw_ballot(answers, RUN, 3, 0, 0)
    for question in ballot.questions:
        for path in (question.left, question.right):
            with Image.open(path) as image:
                save(image.convert("RGB"), path, {"method": "umm-was-here"})
    made = write_ballot(ballot, tmp_path / "vote.html")
    for address in content(made)["pictures"]:
        picture = base64.b64decode(address.partition(",")[2])
        assert b"umm-was-here" not in picture and b"umm_bench" not in picture
        with Image.open(BytesIO(picture)) as image:
            assert image.size == (64, 64)


def test_votes_are_read_back_again_and_again_as_they_were_given(folder, page, tmp_path, capsys):
    ballot = content(page)["ballot"]
    path = tmp_path / "votes.json"
    path.write_text(saved(ballot, " Ann ", {1: "left", 2: "tie"}))
    for _ in range(2):
        assert vote.main(["--store", str(folder), "--read", str(path)]) == 0
    mine = [row for row in rows(folder, "votes") if row["voter"] == "Ann"]
    assert [(row["pair"], row["answer"], row["seconds"]) for row in mine] == [(1, "left", 2.0), (2, "tie", 2.0)]
    path.write_text(saved(ballot, "Ann", {1: "right"}))
    assert vote.main(["--store", str(folder), "--read", str(path)]) == 0
    mine = [row for row in rows(folder, "votes") if row["voter"] == "Ann"]
    assert [(row["pair"], row["answer"]) for row in mine] == [(1, "right"), (2, "tie")]
    assert "1 answers of 1 voter" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("nothing", "holds no JSON"),
        ("[" * 100_000, "holds no JSON"),
        ("[]", "it has no answers"),
        ({"answers": []}, "it has no answers"),
        ({"voter": " "}, "does not say who has voted"),
        ({"voter": "\ud800"}, "does not say who has voted"),
        ({"ballot": "another"}, "is of the page 'another', which this store has not made"),
        ({"ballot": ["a"]}, "which this store has not made"),
        ({"answers": [{"pair": 99, "answer": "left"}]}, "answer 1 is none to a pair"),
        ({"answers": [{"pair": True, "answer": "left"}]}, "answer 1 is none to a pair"),
        ({"answers": [{"pair": 1, "answer": ["left"]}]}, "answer 1 is none to a pair"),
        ({"answers": [{"pair": 1, "answer": "left"}, 7]}, "answer 2 is none to a pair"),
    ],
)
def test_a_file_that_no_page_has_saved_is_one_line_and_nothing_is_kept(folder, page, tmp_path, capsys, change, says):
    before = rows(folder, "votes")
    good = {"ballot": content(page)["ballot"], "voter": "mallory", "answers": [{"pair": 1, "answer": "left"}]}
    whole, bad = tmp_path / "good.json", tmp_path / "bad.json"
    whole.write_text(json.dumps(good))
    bad.write_text(change if isinstance(change, str) else json.dumps({**good, **change}))
    assert vote.main(["--store", str(folder), "--read", str(whole), str(bad)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says in error and str(bad) in error
    assert rows(folder, "votes") == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--methods", "sd,nobody"], "has no picture by 'nobody'; there are dreambooth@100"),
        (["--methods", "sd"], "has no two methods"),
        (["--run", "run-x"], "there is no run 'run-x'"),
        (["--pairs", "0"], "--pairs must be at least 1"),
        (["--read", "/nowhere.json"], "cannot read /nowhere.json"),
    ],
)
def test_what_cannot_be_asked_is_one_line(folder, tmp_path, capsys, words, says):
    assert vote.main(["--store", str(folder), "--out", str(tmp_path / "vote.html"), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error
    assert list(tmp_path.iterdir()) == []


def test_people_vote_by_keys_and_clicks_and_save_a_file(browser, folder, page, tmp_path):
    with tab(browser) as seen:
        opened = seen.open(page)
        count = len(content(page)["questions"])
        assert opened.is_disabled("#download")
        opened.keyboard.press("ArrowLeft")
        opened.click("[data-answer=right]")
        opened.keyboard.press("ArrowDown")
        opened.keyboard.press("Backspace")
        assert opened.inner_text("#where") == f"3 of {count}"
        opened.keyboard.press("ArrowRight")
        opened.click("[data-answer=tie]")
        for _ in range(count - 4):
            opened.keyboard.press("ArrowLeft")
        assert opened.inner_text("#where") == "All are answered. Thank you."
        until(opened, "document.activeElement.id === 'voter'")
        opened.keyboard.type("Zoë left?")
        with opened.expect_download() as download:
            opened.click("#download")
        download.value.save_as(tmp_path / download.value.suggested_filename)
        assert seen.complaints == []
    (file,) = tmp_path.iterdir()
    assert file.name == f"votes-{content(page)['ballot']}-Zo-left-.json"
    assert vote.main(["--store", str(folder), "--read", str(file)]) == 0
    mine = {row["pair"]: row["answer"] for row in rows(folder, "votes") if row["voter"] == "Zoë left?"}
    assert mine == {1: "left", 2: "right", 3: "right", 4: "tie", **dict.fromkeys(range(5, count + 1), "left")}


@pytest.mark.parametrize(("viewport", "scheme"), [(DESK, "light"), (PHONE, "dark")], ids=["desk", "phone"])
def test_the_page_fits_is_silent_and_is_for_everyone(browser, page, viewport, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed (extra `dev`)")
    with tab(browser, viewport, scheme) as seen:
        opened = seen.open(page)
        over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert opened.evaluate(over) == 0
        assert opened.evaluate("[...document.images].every((image) => image.naturalWidth === 64)")
        found = axe.Axe().run(opened).response["violations"]
        assert [fault["id"] for fault in found if fault["impact"] in ("serious", "critical")] == []
        assert seen.complaints == []
