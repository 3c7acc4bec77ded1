"""The order of rooms: imports run one way, rooms are small, each says what it is, the picture shows what is there."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_MODULES = {"umm_bench/umm": 16, "umm_bench": 20}  # one model, read as a whole; commands, named as they are typed
UMM_STANDS_ON = {"torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "PIL", "pyarrow"}


def _load_architecture():
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


architecture = _load_architecture()


def test_every_module_has_a_room_and_imports_run_down():
    assert architecture.upward(architecture.edges(architecture.modules())) == []


def test_an_import_that_runs_up_is_found_wherever_it_stands(tmp_path):
    low, other = tmp_path / "errors.py", tmp_path / "other.py"
    low.write_text(
        "import importlib\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from umm_bench.bench.store import Store\n"
        "def late():\n    import reports.render\n    return importlib.import_module('benchmarks.common')\n"
    )
    other.write_text("from umm_bench.errors import UserError\n")
    above = dict.fromkeys(("umm_bench.bench.store", "reports.render", "benchmarks.common"), other)
    assert architecture.upward(architecture.edges({"umm_bench.errors": low} | above)) == [
        "umm_bench.errors:4 umm_bench.bench.store.Store",
        "umm_bench.errors:6 reports.render",
        "umm_bench.errors:7 benchmarks.common",
    ]


def test_a_module_without_a_room_is_named():
    with pytest.raises(KeyError, match=r"umm_bench\.lost has no room"):
        architecture.room("umm_bench.lost", {"umm_bench.lost": Path()})


def _names(package: str) -> set[str]:
    files = (ROOT / package).rglob("*.py")
    return {name for file in files for name, _ in architecture.imports(file)}


def test_curation_knows_nothing_of_the_others():
    own = {name.split(".")[0] for name in _names("curation")} & set(architecture.ROOTS)
    assert own == {"curation", "design", "figures", "atomic"}


def test_the_model_stands_on_its_libraries_and_small_modules():
    names = _names("umm_bench/umm")
    inside = {".".join(name.split(".")[:2]) for name in names if name.startswith("umm_bench.")}
    assert inside == {"umm_bench.umm", "umm_bench.errors", "umm_bench.images", "umm_bench.weights"}
    outside = {name.split(".")[0] for name in names} - {"umm_bench", "atomic", *sys.stdlib_module_names}
    assert outside <= UMM_STANDS_ON


def test_rooms_and_modules_are_small():
    for module, file in architecture.modules().items():
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 400, f"{module} is too long; split it"
        if file.name == "__init__.py":
            folder = str(file.parent.relative_to(ROOT))
            inside = [f for f in file.parent.glob("*.py") if f.name not in ("__init__.py", "__main__.py")]
            assert len(inside) <= MOST_MODULES.get(folder, 14), f"{folder} has {len(inside)} modules; make a room"


def test_every_package_says_what_lives_there_and_what_it_lists_is_there():
    for module, file in architecture.modules().items():
        if file.name == "__init__.py":
            assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), f"{module} does not say what it is"
            package = importlib.import_module(module)
            assert all(hasattr(package, name) for name in getattr(package, "__all__", ())), module


def test_the_picture_is_that_of_the_imports():
    drawn = architecture.svg(architecture.edges(architecture.modules()))
    assert architecture.PICTURE.read_text(encoding="utf-8") == drawn, "run `python docs/architecture.py`"
    assert all(f">{name}</text>" in drawn for name in architecture.LEVEL)
