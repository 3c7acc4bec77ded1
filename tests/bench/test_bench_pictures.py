"""Pictures made elsewhere are scored as samples; what lacks and what is foreign has a counted reason."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.bench import bench_fakes as fakes
from tests.bench.bench_fakes import Painter
from tests.bench.test_bench_run import query
from umm_bench.methods import Prompt, Subject
from umm_bench.suites.finished import find_pictures

UNDRAWN = "select case_id, prompt_id, image_index, status, reason from undrawn order by all"


def put(folder: Path, name: str, seed: int = 0) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    image = fakes.paint(seed, 90)
    image.save(folder / name)
    return folder / name


@pytest.fixture
def mine(tmp_path) -> Path:
    """All pictures of two subjects and the two prompts that a run takes."""
    folder = tmp_path / "mine"
    for number, (subject, prompt) in enumerate((s, p) for s in ("red-fox", "blue-cup") for p in ("beach", "hat")):
        put(folder, f"{subject}/{prompt}/0.png", number)
    return folder


def test_finished_pictures_are_scored_beside_drawn_ones_and_paired_with_them(bench, mine, tmp_path, capsys):
    assert bench("--methods", f"painter,images:mine={mine}") == 0
    counts = query(tmp_path, "select method, count(*) from samples group by 1 order by 1")
    assert counts == [("mine", 4), ("painter", 4)] and len(Painter.drawn) == 4
    pixels = {
        Image.open(tmp_path / "reports" / path).tobytes()
        for (path,) in query(tmp_path, "select path from samples where method = 'mine'")
    }
    assert pixels == {fakes.paint(number, 90).tobytes() for number in range(4)}
    assert query(tmp_path, "select distinct pairs from comparisons where method = 'mine'") == [(4,)]
    costs = "select seconds, peak_mb, base from samples where method = 'mine'"
    assert set(query(tmp_path, costs)) == {(None, None, None)}
    assert query(tmp_path, "select count(*) from results where method = 'mine' and metric = 'dino'") == [(4,)]
    assert capsys.readouterr().err == ""


def test_a_picture_that_changes_is_scored_anew_and_one_that_comes_fills_its_gap(bench, mine, tmp_path):
    lost = mine / "red-fox/beach/0.png"
    content = lost.read_bytes()
    lost.unlink()
    words = ["--methods", f"images:mine={mine}"]
    assert bench(*words) == 1
    assert query(tmp_path, UNDRAWN) == [("red-fox", "beach", 0, "failed", f"no such picture in {mine}")]
    lost.write_bytes(content)
    assert bench(*words) == 0
    run = "select method, value from results where metric = 'dino' order by value"
    before = query(tmp_path, run)
    assert len(before) == 4
    Image.new("RGB", (32, 32), "blue").save(lost)
    assert bench(*words) == 0
    after = query(tmp_path, run)
    assert len(after) == 4 and after != before


def test_gaps_and_foreign_files_are_counted_by_reason(bench, mine, tmp_path, capsys):
    (mine / "blue-cup/hat/0.png").write_bytes(b"not a picture")
    (mine / "red-fox/hat/0.png").unlink()
    for name in ("red-fix/beach/0.png", "red-fox/beech/0.png", "red-fox/beach/first.png", "stray.png"):
        put(mine, name)
    for name in ("red-fox/beach/1.png", "red-fox/snow/0.png", "green-owl/beach/0.png", "red-fox/beach/00.png"):
        put(mine, name)
    (mine / "notes.txt").write_text("x")
    (mine / ".DS_Store").write_text("x")
    assert bench("--methods", f"images:mine={mine}") == 1
    out, err = capsys.readouterr()
    told = [line.removeprefix("left out  mine: ") for line in err.splitlines()]
    reasons = {line.partition("): ")[2]: int(line.split()[0]) for line in told}
    assert reasons == {
        "'first' is no number": 1,
        "a second picture of the same sample": 1,
        "no prompt 'beech' for such a subject (did you mean 'beach'?)": 1,
        "no picture": 1,
        "no subject or pair 'red-fix' in the suite (did you mean 'red-fox'?)": 1,
        "not asked for by this run": 3,
        "not named SUBJECT/PROMPT/INDEX": 1,
    }
    rows = query(tmp_path, UNDRAWN)
    assert [row[:4] for row in rows] == [("blue-cup", "hat", 0, "failed"), ("red-fox", "hat", 0, "failed")]
    assert "cannot be read as an image" in rows[0][4] and rows[1][4] == f"no such picture in {mine}"
    assert f"failed    mine: 1 image (as red-fox, prompt hat): no such picture in {mine}" in out
    kept = json.loads(query(tmp_path, "select config_json from runs")[0][0])["left_out"]
    assert len(kept) == len(told) == 7


def test_a_folder_without_any_pair_is_single_subject_only(bench, mine, tmp_path, capsys):
    words = ["--methods", f"images:mine={mine}", "--pairs", "2"]
    assert bench(*words) == 0
    assert "mine: single subject only" in capsys.readouterr().out
    assert set(query(tmp_path, "select status, reason from undrawn")) == {("skipped", "single subject only")}
    put(mine, "red-fox+blue-cup/beside/0.png")
    assert bench(*words) == 1
    assert query(tmp_path, "select status, count(*) from undrawn join run_samples using (sample_key) group by 1") == [
        ("failed", 3)
    ]
    assert query(tmp_path, "select case_id from samples where subject_count = 2") == [("red-fox+blue-cup",)]


class Two:
    """A suite of one subject, whose published prompts begin with an article."""

    name, version, truth = "two", 1, ()

    def __init__(self, prompts):
        self._prompts = prompts

    def subjects(self):
        return [Subject("my_owl", "owl", (), "live")]

    def pairs(self):
        return []

    def prompts(self, case):
        return self._prompts


def test_the_layout_of_dreambench_plus(tmp_path):
    suite = Two([Prompt(f"caption-{n}", "a {subject}", "style") for n in (0, 2)])
    for name in ("tgt_image/my_owl/0_0.jpg", "tgt_image/my_owl/2_1.jpg", "tgt_image/my_owl/1_0.jpg"):
        put(tmp_path, name)
    for name in ("src_image/my_owl/0_0.jpg", "tgt_image/my_owl/0.jpg", "tgt_image/cat/0_0.jpg"):
        put(tmp_path, name)
    (tmp_path / "negative_prompt.txt").write_text("")
    found = find_pictures(tmp_path, suite, {"my_owl": suite.prompts(None)}, 2)
    assert {place: file.name for place, file in found.files.items()} == {
        ("my_owl", "caption-0", 0): "0_0.jpg", ("my_owl", "caption-2", 1): "2_1.jpg",
    }  # fmt: skip
    assert found.foreign == {
        "no prompt number 1 for such a subject": ["tgt_image/my_owl/1_0.jpg"],
        "not named tgt_image/SUBJECT/PROMPT_INDEX": ["tgt_image/my_owl/0.jpg"],
        "no subject or pair 'cat' in the suite": ["tgt_image/cat/0_0.jpg"],
    }


def test_the_layout_of_kosmos_g(tmp_path):
    suite = Two([Prompt("p0", "a {subject} in the snow", "style"), Prompt("p1", "a {subject} on a rug", "style")])
    names = [
        *("my_owl+00+12+a owl in the snow", "my_owl+00+4+a owl in the snow", "my_owl+01+3+a owl in the snow"),
        *("my_owl+00+5+an owl on a rug", "my_owl+00+6+an owl on a car", "fox+00+7+a fox in the snow"),
    ]
    for name in names:
        put(tmp_path, f"{name}.png")
    found = find_pictures(tmp_path, suite, {"my_owl": suite.prompts(None)}, 4)
    assert {place[1:]: file.stem for place, file in found.files.items()} == {
        ("p0", 0): names[1], ("p0", 1): names[0], ("p0", 2): names[2], ("p1", 0): names[3],
    }  # fmt: skip
    assert sorted(found.foreign) == [
        "no prompt 'an owl on a car' for such a subject", "no subject or pair 'fox' in the suite"
    ]  # fmt: skip
