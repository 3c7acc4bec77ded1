"""The wheel has all that the commands need: modules, templates, assets, weights, entry points."""

import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.wheel import MODULES, PACKAGES, ROOT, build_wheel
from umm_bench.mini import family


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build_wheel(sys.executable, tmp_path_factory.mktemp("wheel"), "--no-build-isolation"))


def test_every_module_and_data_file_is_in_it(wheel):
    there = set(wheel.namelist())
    wanted = set(MODULES)
    for package in PACKAGES:
        for pattern in ("*.py", "templates/*", "assets/*", "weights/**/*", "*.jsonl", "*.css", "mini/figures.json"):
            wanted |= {str(f.relative_to(ROOT)) for f in (ROOT / package).rglob(pattern) if f.is_file()}
    wanted = {name for name in wanted if not any(part.startswith((".", "__pycache__")) for part in Path(name).parts)}
    assert {
        "reports/templates/base.html.j2",
        "umm_bench/mini/assets/sprites.parquet",
        "design/base.css",
        "reports/assets/report.js",
    } < wanted
    assert wanted - there == set()
    if (family.WEIGHTS / "sd").is_dir():
        assert sum(name.endswith(".safetensors") for name in there) >= len(family.NAMES)


def test_nothing_else_is_in_it(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {*MODULES, *PACKAGES}
    assert not [name for name in wheel.namelist() if name.startswith("tests/") or name.endswith(".duckdb")]


def test_entry_points_and_licences_are_those_of_the_project(wheel):
    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    written = wheel.read(f"{info}/entry_points.txt").decode()
    for group, points in declared.items():
        assert f"[{group}]" in written
        for name, target in points.items():
            assert f"{name} = {target}" in written
            module = target.split(":")[0].replace(".", "/")
            assert {f"{module}.py", f"{module}/__init__.py"} & set(wheel.namelist())
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= set(wheel.namelist())
