"""Help and wrong options are answered at once: no command loads a model library before it has read its words."""

import subprocess
import sys

import pytest

COMMANDS = [
    *(f"umm_bench.{name}" for name in ("run", "train", "sample", "demo", "vote", "export", "replay", "focus")),
    *("umm_bench.suites.new", "umm_bench.mini.evaluate", "umm_bench.mini.family"),
    *("umm_bench.mini.evaluation.comparison", "umm_bench.mini.world.corpus"),
    *("curation.build", "curation.evaluate", "curation.judge", "reports.render", "reports.screenshots", "benchmarks"),
]
SCRIPT = """
import runpy, sys
name, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(name, run_name="__main__")
except SystemExit as end:
    heavy = sorted({"torch", "diffusers", "transformers", "spacy", "datasets"} & set(sys.modules))
    print(end.code, *heavy)
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_words_are_read_before_anything_heavy_is_loaded(name):
    for words, code in ((["--help"], 0), (["--no-such-option"], 2)):
        ran = subprocess.run([sys.executable, "-c", SCRIPT, name, *words], capture_output=True, text=True, check=True)
        assert ran.stdout.splitlines()[-1] == str(code), ran.stdout + ran.stderr
