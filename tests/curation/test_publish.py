"""A build on the hub: what is pushed, what is replaced, and what is said where it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from curation import build_pairs
from curation.build import main
from tests.curation.hub import TOKEN, standing_in
from tests.curation.test_build import config

# In a process of its own: the library reads its endpoint, its token and whether it is offline when it is imported.
PUSH = """
import sys
from pathlib import Path
from curation.errors import UserError
from curation.output.publish import check, publish
from curation.output.writer import Layout
folder, count, name = sys.argv[1:]
try:
    check(name)
    print(publish(Layout(Path(folder), int(count)), name))
except UserError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture
def hub():
    with standing_in() as running:
        yield running


def environment(url: str, home: Path, token: str | None = TOKEN) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {"HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return kept | own | ({"HF_TOKEN": token} if token else {})


def push(folder: Path, name: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", PUSH, str(folder), "3", name]
    return subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=300)


def test_a_build_is_pushed_whole_and_pushed_again_replaces_its_shards(hub, corpus: Path, tmp_path: Path, grounder):
    out = tmp_path / "out"
    build_pairs(config(corpus, out, sets=True), grounder)
    env = environment(hub.url, tmp_path / "home")
    done = push(out, "somebody/pairs", env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/datasets/somebody/pairs"
    pushed = hub.datasets["somebody/pairs"]
    shards = [f"data/train-{i:05d}-of-00003.parquet" for i in range(3)]
    names = {"README.md", "manifest.json", "concept_counts.parquet", "report.html", "pairs.html", *shards}
    names |= {"sets/README.md", *(f"sets/{name}" for name in shards)}
    assert pushed.keys() == names | {".gitattributes"}
    assert all(pushed[name] == (out / name).read_bytes() for name in names)
    assert hub.private["somebody/pairs"] and len(hub.commits) == 1

    pushed["data/train-00000-of-00009.parquet"] = b"of an earlier build"
    pushed["notes.md"] = b"somebody's own"
    done = push(out, "somebody/pairs", env)
    assert done.returncode == 0, done.stderr
    assert pushed.keys() == names | {".gitattributes", "notes.md"}
    assert all(pushed[name] == (out / name).read_bytes() for name in names)


def test_what_the_hub_says_is_one_line(hub, corpus: Path, tmp_path: Path, grounder):
    out = tmp_path / "out"
    build_pairs(config(corpus, out), grounder)
    cases = [(environment(hub.url, tmp_path / "home", token=None), "nobody is logged in")]
    cases.append((environment(hub.url, tmp_path / "home", token="hf_wrong"), "does not take the token"))
    cases.append((environment("http://127.0.0.1:9", tmp_path / "home"), "cannot be reached"))
    for env, said in cases:
        done = push(out, "somebody/pairs", env)
        assert done.returncode == 1 and said in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    hub.failing = "/commit/"
    done = push(out, "somebody/pairs", environment(hub.url, tmp_path / "home"))
    assert "the hub refuses" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert hub.datasets["somebody/pairs"].keys() == {".gitattributes"}  # nothing half-way


@pytest.mark.parametrize("name", ["pairs", "a/b/c", "some body/pairs", "-/x--y", ""])
def test_a_name_that_cannot_be_is_one_line_and_exit_code_2(name: str, corpus: Path, tmp_path: Path, capsys):
    arguments = ["--input", str(corpus), "--output", str(tmp_path / "o"), f"--publish={name}"]
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("error: --publish must be OWNER/NAME")
    assert not (tmp_path / "o").exists()


def test_the_command_mines_and_publishes(hub, corpus: Path, tmp_path: Path, tiny_detector: Path):
    arguments = ["--input", str(corpus), "--output", str(tmp_path / "out"), "--detector", str(tiny_detector)]
    arguments += ["--device", "cpu", "--limit", "4", "--box-threshold", "0.01", "--publish", "somebody/few"]
    env = environment(hub.url, tmp_path / "home")
    run = [sys.executable, "-m", "curation.build", *arguments]
    done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"published: {hub.url}/datasets/somebody/few" in done.stdout
    assert hub.datasets["somebody/few"]["manifest.json"] == (tmp_path / "out" / "manifest.json").read_bytes()
