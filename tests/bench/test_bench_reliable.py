"""What can go wrong while a run draws: a kill at any moment, memory, the disk, another run, a worker that dies."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.bench import bench_fakes as fakes
from umm_bench.bench.keeping import pictures
from umm_bench.bench.store import OpenAnswers, Store

SAMPLES = (
    "select sample_key, method, config_json, case_id, prompt_id, method_prompt, seed, path, content, bytes,"
    " code_version from samples order by all"
)
ROWS = {
    "samples": SAMPLES,
    "subjects": "select * from sample_subjects order by all",
    "scores": "select * from scores order by all",
    "setups": "select setup_key, method, case_id, path from setups order by all",
    "means": "select method, metric, subject_count, mean, low, high from summaries order by all",
}


def rows(folder: Path) -> dict[str, list[dict]]:
    with OpenAnswers(folder) as answers:
        return {name: answers.rows(query) for name, query in ROWS.items()}


SCRIPT = """
import contextlib, os, pathlib, signal, sys
sys.path.insert(0, ROOT)
from tests.bench import bench_fakes as fakes
from umm_bench import run
from umm_bench.base import Base
from umm_bench.bench.store import Store

when, table, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
upsert, seen = Store.upsert, []

def counted(self, name, given):
    seen.append(name)
    at = seen.count(table) == number and name == table
    if at and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    upsert(self, name, given)
    if at and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)

generate = fakes.Painter.generate

def logged(self, states, case, prompt, seeds):
    with open(LOG, "a") as log:
        log.writelines(f"{case.id} {prompt.id} {seed}\\n" for seed in seeds)
    return generate(self, states, case, prompt, seeds)

Store.upsert, fakes.Painter.generate, Base.pipeline = counted, logged, lambda self: None
run._render = lambda *arguments: pathlib.Path("run-1/index.html")
with contextlib.ExitStack() as stack:
    for registration in fakes.register():
        stack.enter_context(registration)
    sys.exit(run.main(WORDS))
"""


def test_a_kill_at_any_moment_costs_what_was_in_hand_and_nothing_else(world, tmp_path, bench):
    words = fakes.arguments(world, tmp_path / "killed", "--methods", "painter", "--batch-size", "1")
    log = tmp_path / "log.txt"
    given = {"ROOT": str(Path(__file__).parents[2]), "LOG": str(log), "WORDS": words}
    script = "".join(f"{name} = {value!r}\n" for name, value in given.items()) + SCRIPT

    def drawn_after(*moment: str) -> tuple[int, int]:
        done = subprocess.run([sys.executable, "-c", script, *moment], capture_output=True, text=True)
        return done.returncode, len(log.read_text().splitlines())

    assert drawn_after("after", "samples", "1") == (-9, 1)
    assert drawn_after("before", "samples", "2") == (-9, 3)  # the third image lies there without its row
    assert drawn_after("after", "scores", "2") == (-9, 5)  # it is drawn again, and the fourth
    assert drawn_after("never", "", "0") == (0, 5)  # only scores are missing
    assert len(set(log.read_text().splitlines())) == 4
    assert bench("--methods", "painter", "--batch-size", "1") == 0
    assert rows(tmp_path / "killed") == rows(tmp_path / "reports")
    with OpenAnswers(tmp_path / "killed") as answers:
        ended = answers.rows("select ended, seconds > 0 as counted from executions order by started")
    assert [row["ended"] for row in ended] == [None, None, None, "done"]


def test_short_memory_halves_the_batch_and_changes_no_picture(bench, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(fakes.MortalPainter, "at_once", [])
    words = ["--methods", "mortal", "--subjects", "1", "--prompts", "1", "--images-per-prompt", "8"]
    assert bench(*words, "--batch-size", "8", "--set", "mortal.most=3") == 0
    assert fakes.MortalPainter.at_once == [2, 2, 2, 2]
    assert "out of memory with 8 images at a time; goes on with 4" in caplog.text
    first = [row["content"] for row in rows(tmp_path / "reports")["samples"]]
    assert bench(*words, "--batch-size", "1", "--set", "mortal.most=4") == 0
    assert sorted(first * 2) == sorted(row["content"] for row in rows(tmp_path / "reports")["samples"])


def test_memory_that_suffices_for_no_image_is_a_row_with_its_reason(bench, tmp_path):
    assert bench("--methods", "mortal,painter", "--subjects", "1", "--set", "mortal.most=0") == 1
    with OpenAnswers(tmp_path / "reports") as answers:
        reasons = answers.rows("select distinct method, reason from undrawn")
        drawn = answers.rows("select method, count(*) as n from samples group by method")
    said = "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    assert reasons == [{"method": "mortal", "reason": said}]
    assert drawn == [{"method": "painter", "n": 2}]


@pytest.mark.parametrize("full", ["pictures", "rows"])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(bench, tmp_path, monkeypatch, capsys, full):
    save, upsert, calls = pictures.save, Store.upsert, []

    def failing_save(image, path, parameters):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(image, path, parameters)

    def failing_upsert(self, table, given):
        if table == "scores":
            raise duckdb.IOException("IO Error: Could not write: No space left on device")
        upsert(self, table, given)

    if full == "pictures":
        monkeypatch.setattr(pictures, "save", failing_save)
    else:
        monkeypatch.setattr(Store, "upsert", failing_upsert)
    assert bench("--methods", "painter", "--batch-size", "1") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no room left on the disk") and error.count("\n") == 1
    drawn = len(fakes.Painter.drawn)
    monkeypatch.undo()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("umm_bench.base.Base.pipeline", lambda self: None)
        patch.setattr("umm_bench.run._render", lambda *arguments: tmp_path / "run-1" / "index.html")
        fakes.Painter.drawn.clear()
        assert bench("--methods", "painter", "--batch-size", "1") == 0
    assert len(fakes.Painter.drawn) == {3: 2, 4: 0}[drawn]


def test_two_runs_at_once_on_one_folder(bench, tmp_path, capsys):
    with Store(tmp_path / "reports"):
        assert bench("--methods", "painter") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot open") and "another run writes it" in error and error.count("\n") == 1


OWN = """
from dataclasses import dataclass
from PIL import Image

@dataclass(frozen=True)
class OwnConfig:
    shade: int = 7

class Own:
    config_class = OwnConfig
    def __init__(self, base, config, generation):
        self.config = config
    def setup(self, subject, directory):
        return None
    def generate(self, states, case, prompt, seeds):
        return [Image.new("RGB", (8, 8), (self.config.shade, seed % 256, 0)) for seed in seeds]
"""


@pytest.fixture
def spread(bench, monkeypatch):
    """The bench with a base that other processes have too."""

    def load(name, dtype="float32", device="auto", offload=False):
        return fakes.EmptyBase(name, name, dtype, device, offload)

    monkeypatch.setattr("umm_bench.bench.plan.load_base", load)
    monkeypatch.setattr("umm_bench.run.load_base", load)
    return bench


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_several_processes_write_the_rows_of_one(spread, tmp_path, executor):
    if executor == "ray":
        pytest.importorskip("ray")
    (tmp_path / "own.py").write_text(OWN)
    words = ["--methods", f"painter,set,{tmp_path / 'own.py'}:Own", "--pairs", "1", "--metrics", "dino,identity"]
    assert spread(*words) == 0
    alone = rows(tmp_path / "reports")
    shutil.move(tmp_path / "reports", tmp_path / "alone")
    fakes.Painter.drawn.clear()
    assert spread(*words, "--workers", "2", "--executor", executor) == 0
    assert fakes.Painter.drawn == []  # not in this process
    assert rows(tmp_path / "reports") == alone
    assert len(alone["setups"]) == 2 + 3 + 2  # of each subject, of each case, and of each subject without a file


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_worker_that_dies_is_replaced_and_its_work_done(spread, tmp_path, caplog, executor):
    if executor == "ray":
        pytest.importorskip("ray")
    grave = tmp_path / "grave"
    mortal = ["--set", f"mortal.grave={grave}", "--set", "mortal.deaths=1"]
    words = ["--methods", "mortal", *mortal, "--workers", "2", "--metrics", "identity"]
    assert spread(*words, "--executor", executor) == 0
    assert grave.read_text() == "x" and "a worker died (" in caplog.text and "at mortal, red-fox" in caplog.text
    assert len(rows(tmp_path / "reports")["samples"]) == 4


def test_work_that_kills_every_worker_is_given_up(spread, tmp_path):
    mortal = ["--set", f"mortal.grave={tmp_path / 'grave'}", "--set", "mortal.deaths=9"]
    assert spread("--methods", "mortal", *mortal, "--workers", "1", "--metrics", "identity") == 1
    with OpenAnswers(tmp_path / "reports") as answers:
        undrawn = answers.rows("select case_id, reason, count(*) as n from undrawn group by all")
        drawn = answers.rows("select distinct case_id from samples")
    assert undrawn == [{"case_id": "red-fox", "reason": "its worker died 2 times (signal 9)", "n": 2}]
    assert drawn == [{"case_id": "blue-cup"}]


def test_what_cannot_be_had_is_one_line(bench, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for words, says in (
        (["--executor", "ray"], "pip install 'umm-bench[ray]'"),
        (["--device", "abacus"], "there is no device 'abacus'"),
        (["--dtype", "int8"], "--dtype"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--budget", "soon"], "--budget must be a time like 90s, 10m or 2h"),
        (["--offload"], "--offload: painter cannot"),
        (["--training-seeds", "2"], "none of these methods is trained"),
    ):
        assert bench("--methods", "painter", *words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and says in error, error


def test_the_run_records_how_it_was_done(spread, tmp_path):
    assert spread("--methods", "painter", "--workers", "1", "--batch-size", "2", "--metrics", "identity") == 0
    with OpenAnswers(tmp_path / "reports") as answers:
        (row,) = answers.rows("select options_json from executions")
    told = json.loads(row["options_json"])
    assert told == {"batch_size": 2, "workers": 1, "executor": "local", "device": "cpu", "offload": False}
