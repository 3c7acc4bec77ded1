"""Methods in files, the floor, what methods see, and trying again."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.bench import bench_fakes as fakes
from tests.bench.bench_fakes import FussyPainter, Painter
from tests.bench.test_bench_run import query
from umm_bench.methods import METHODS
from umm_bench.suites.degrade import KINDS, degrade

OWN = """
from dataclasses import dataclass
from tests.bench.bench_fakes import Painter

@dataclass(frozen=True)
class Config:
    shade: int = 20

class Dark(Painter):
    name = "dark"
    config_class = Config
    fail_after = None
"""


class Floor(Painter):
    """Stands for plain SD."""

    name = "sd"


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    return file


def test_a_method_in_a_file_is_run_under_its_own_name_and_again_when_the_file_changes(bench, own, tmp_path):
    words = ["--methods", f"painter,{own}:Dark", "--set", "dark.shade=30"]
    for _ in range(2):
        assert bench(*words) == 0
    assert query(tmp_path, "select method, count(*) from samples group by 1 order by 1") == [
        ("dark", 4),
        ("painter", 4),
    ]
    assert query(tmp_path, "select distinct config_json->>'shade' from samples where method = 'dark'") == [("30",)]
    assert len(Painter.drawn) == 8
    own.write_text(OWN + "# changed\n")
    assert bench(*words) == 0
    assert len(Painter.drawn) == 12


@pytest.mark.parametrize(
    ("word", "text", "says"),
    [
        ("own.py:Dark", None, "there is no such file"),
        ("own.py:Dork", OWN, "own.py has no class 'Dork'; it has Config, Dark"),
        ("own.py:Dark", "class Dark\n", "own.py is no Python"),
        ("own.py:Dark", "import nothing_of_the_kind\nclass Dark: pass\n", "cannot be imported: ModuleNotFoundError"),
        ("own.py:Dark", "class Dark:\n    config_class = int\n", "is no method: it has no setup, generate"),
        ("painter,own.py:Dark", OWN.replace('"dark"', '"painter"'), "two methods are named 'painter'"),
        ("images:mine=nowhere", None, "there is no folder 'nowhere'"),
        ("images:=.", None, "expected images:NAME=DIR"),
        ("images:painter=.,painter", None, "two methods are named 'painter'"),
        ("paintr", None, "did you mean 'painter'"),
    ],
)
def test_a_method_that_is_not_there_is_one_line(bench, tmp_path, monkeypatch, capsys, word, text, says):
    monkeypatch.chdir(tmp_path)
    if text:
        (tmp_path / "own.py").write_text(text)
    assert bench("--methods", word) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says in error


def test_the_floor_is_drawn_for_the_same_cases_and_says_that_it_is_one(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(Floor, "fail_after", None)
    with METHODS.register("sd", Floor):
        assert bench("--methods", "painter", "--pairs", "1", "--floor") == 0
        rows = query(tmp_path, "select method, floor, count(*) from run_samples join samples using (sample_key)"
                     " group by all order by all")  # fmt: skip
        assert rows == [("painter", False, 6), ("sd", True, 6)]
        assert set(query(tmp_path, "select method, reference from comparisons")) == {("painter", "sd")}
        drawn = len(Painter.drawn)
        # Asked for by name it is a method; nothing is drawn again.
        assert bench("--methods", "sd,painter", "--pairs", "1", "--floor") == 0
        assert len(Painter.drawn) == drawn
        latest = "select distinct method, floor from results order by all"
        assert query(tmp_path, latest) == [("painter", False), ("sd", False)]
        assert bench("--methods", "painter", "--pairs", "1") == 0
        assert query(tmp_path, latest) == [("painter", False)]


def test_what_is_held_out_is_scored_against_and_not_shown(bench, tmp_path, monkeypatch):
    shown = []
    setup = Painter.setup

    def look(self, subject, directory):
        shown.append(([path.name for path in subject.references], subject.held_out))
        return setup(self, subject, directory)

    monkeypatch.setattr(Painter, "setup", look)
    assert bench("--methods", "painter", "--references", "1") == 0
    assert shown == [(["00.png"], ())] * 2
    kept = query(tmp_path, "select json_array_length(references_json), json_array_length(held_out_json)"
                 " from sample_subjects group by all")  # fmt: skip
    assert kept == [(1, 2)]
    assert bench("--methods", "painter") == 0
    assert len(Painter.drawn) == 8  # what a method sees is in the key


def test_worse_references_are_shown_and_good_ones_scored_against(bench, world, tmp_path, monkeypatch):
    shown = []
    setup = Painter.setup

    def look(self, subject, directory):
        shown.extend(subject.references)
        return setup(self, subject, directory)

    monkeypatch.setattr(Painter, "setup", look)
    words = ["--methods", "painter", "--subjects", "1", "--degrade"]
    assert bench(*words, "noise") == 0
    assert len(shown) == 3 and all(path.parent == tmp_path / "reports" / "degraded" for path in shown)
    clean = np.asarray(Image.open(world / "suite/red-fox/00.png"), dtype=float)
    spread = (np.asarray(Image.open(shown[0]), dtype=float) - clean).std()
    assert 20 < spread < 40
    (references,) = query(tmp_path, "select distinct references_json from sample_subjects")[0]
    assert str(world / "suite/red-fox/00.png") in references and "degraded" not in references
    assert query(tmp_path, "select distinct config_json->>'degrade' from samples") == [("noise",)]
    content = shown[0].read_bytes()
    shown[0].unlink()
    assert bench(*words, "blur") == 0 and bench(*words[:-1]) == 0
    assert len(Painter.drawn) == 6
    assert bench(*words, "noise", "--prompts", "3") == 0
    assert shown[0].read_bytes() == content  # the same noise


@pytest.mark.parametrize("kind", KINDS)
def test_each_way_to_degrade_loses_detail_and_keeps_the_size(kind):
    pixels = 255 * np.random.default_rng(0).integers(0, 2, (48, 64, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    worse = degrade(image, kind, 1)
    assert worse.size == image.size and worse.mode == "RGB"
    assert degrade(image, kind, 1).tobytes() == worse.tobytes()
    blurred = [np.asarray(one.filter(ImageFilter.BoxBlur(8)), dtype=float) for one in (image, worse)]
    assert np.abs(blurred[0] - blurred[1])[12:-12, 12:-12].mean() < 12  # the same picture from afar
    assert np.abs(np.asarray(worse, dtype=float) - pixels).mean() > 10


def test_what_failed_is_tried_again_where_that_is_asked_for(bench, tmp_path, monkeypatch):
    words = ["--methods", "fussy", "--prompts", "3"]
    assert bench(*words) == 1
    failed = "select stage, count(*) from undrawn group by 1 order by 1"
    assert query(tmp_path, failed) == [("generate", 2), ("plan", 2)]
    monkeypatch.setattr(FussyPainter, "generate", Painter.generate)
    assert bench(*words) == 1
    assert query(tmp_path, failed) == [("generate", 2), ("plan", 2)]
    drawn = len(Painter.drawn)
    assert bench(*words, "--retry-failed") == 1
    assert query(tmp_path, failed) == [("plan", 2)] and len(Painter.drawn) == drawn + 2
    assert fakes.FussyPainter.check(None, None, None, fakes.Prompt("snow", "{subject}", "style")) == "too cold"


def test_one_subjects_missing_pictures_are_one_line(bench, world, tmp_path, capsys):
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite/truth.txt").write_text("red")
    (tmp_path / "suite/red-fox").mkdir()
    (tmp_path / "suite/blue-cup").mkdir()
    (tmp_path / "suite/green-owl").mkdir()
    assert bench("--methods", "painter", "--suite-path", str(tmp_path / "suite")) == 2
    assert capsys.readouterr().err == "error: subject 'red-fox' has no reference images\n"
