"""The wheel has all that the commands need: modules, templates, assets, weights, entry points."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from umm_bench.mini import family

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("curation", "umm_bench", "baselines", "reports", "benchmarks")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Built from a copy: setuptools would take what an earlier build left beside the sources."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "run-*", "samples", "setups", "*.duckdb*", ".*")
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "figures.py"):
        shutil.copy(ROOT / name, source / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        place,
        source,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = place.glob("*.whl")
    return zipfile.ZipFile(built)


def test_every_module_and_data_file_is_in_it(wheel):
    there = set(wheel.namelist())
    wanted = {"figures.py"}
    for package in PACKAGES:
        for pattern in ("*.py", "templates/*", "assets/*", "weights/**/*", "*.jsonl", "mini/figures.json"):
            wanted |= {str(f.relative_to(ROOT)) for f in (ROOT / package).rglob(pattern) if f.is_file()}
    wanted = {name for name in wanted if not any(part.startswith((".", "__pycache__")) for part in Path(name).parts)}
    assert {
        "reports/templates/run.html.j2",
        "umm_bench/mini/assets/sprites.parquet",
        "reports/assets/report.js",
    } < wanted
    assert wanted - there == set()
    if (family.WEIGHTS / "sd").is_dir():
        assert sum(name.endswith(".safetensors") for name in there) >= len(family.NAMES)


def test_nothing_else_is_in_it(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"figures.py", *PACKAGES}
    assert not [name for name in wheel.namelist() if name.startswith("tests/") or name.endswith(".duckdb")]


def test_entry_points_and_licences_are_those_of_the_project(wheel):
    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    written = wheel.read(f"{info}/entry_points.txt").decode()
    for group, points in declared.items():
        assert f"[{group}]" in written
        for name, target in points.items():
            assert f"{name} = {target}" in written
            assert target.split(":")[0].replace(".", "/") + ".py" in wheel.namelist()
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= set(wheel.namelist())
