import contextlib
from pathlib import Path

import pytest

from tests.bench import bench_fakes as fakes
from umm_bench import run
from umm_bench.base import Base


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """A folder with a fake suite, a tiny CLIP, a tiny encoder and an empty base."""
    folder = tmp_path_factory.mktemp("world")
    fakes.make_suite(folder / "suite")
    fakes.make_clip(folder / "clip")
    fakes.make_encoder(folder / "encoder")
    (folder / "base").mkdir()
    return folder


@pytest.fixture
def bench(world, tmp_path, monkeypatch):
    """Call it with words of a command line: runs them with the fakes registered, returns the exit status."""
    monkeypatch.setattr(Base, "pipeline", lambda self: None)
    monkeypatch.setattr(run, "_render", lambda database, run_id, output: output / run_id / "index.html")
    monkeypatch.setattr(fakes.Painter, "drawn", [])
    monkeypatch.setattr(fakes.Painter, "set_up", [])
    with contextlib.ExitStack() as stack:
        for registration in fakes.register():
            stack.enter_context(registration)
        yield lambda *words: run.main(fakes.arguments(world, tmp_path / "reports", *words))
