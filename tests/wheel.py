"""The wheel, built from a copy: setuptools would take what an earlier build left beside the sources."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("design", "curation", "umm_bench", "baselines", "reports", "benchmarks")
MODULES = tuple(sorted(file.name for file in ROOT.glob("*.py")))


def build_wheel(python: Path | str, place: Path, *options: str) -> Path:
    """The file's path, below the empty folder `place`. RuntimeError with what pip said where it cannot be built."""
    source = place / "source"
    not_sources = shutil.ignore_patterns("__pycache__", "run-*", "samples", "setups", "*.duckdb*", ".*")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=not_sources)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", *MODULES):
        shutil.copy(ROOT / name, source / name)
    command = [python, "-m", "pip", "wheel", "--quiet", "--no-deps", *options, "-w", place, source]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    (built,) = place.glob("*.whl")
    return built
