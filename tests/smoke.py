"""`make smoke`: the wheel in a fresh environment, used from another folder; fails where it writes outside of it.

With `--environment DIR` an environment that is there is used again, its wheel replaced.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.wheel import ROOT, build_wheel

COMMANDS = (
    "curation.build --source laion --limit 40",
    "umm_bench.run --methods sd,umm --subjects 1 --prompts 2 --steps 3",
    "reports.render --grid grid.png",
)
EXPECTED = ("data/pairs/report.html", "data/pairs/manifest.json", "reports/umm_bench.duckdb", "grid.png")


def state(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Every file of the folders with its size and time."""
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


def install(environment: Path, wheels: Path) -> Path:
    """The environment's interpreter, with the project's wheel in it."""
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = build_wheel(python, wheels)
    subprocess.run([*pip, "install", "-c", ROOT / "constraints.txt", wheel], check=True)
    subprocess.run([*pip, "install", "--no-deps", "--force-reinstall", wheel], check=True)
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, help="default: a fresh one, removed at the end")
    chosen = parser.parse_args().environment
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        environment = (chosen or place / "environment").resolve()
        python = install(environment, place / "wheels")
        here, home, scratch = (place / part for part in ("here", "home", "scratch"))
        for folder in (here, home, scratch):
            folder.mkdir()
        # Whatever a library keeps by itself lies below these two; bytecode is Python's own.
        settings = {"HOME": str(home), "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"}
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "XDG_", "HF_"))}
        before = state(environment, home, scratch)
        for command in COMMANDS:
            print(f"python -m {command}", flush=True)
            done = subprocess.run([python, "-m", *command.split()], cwd=here, env=kept | settings)
            if done.returncode:
                print(f"exit code {done.returncode}", file=sys.stderr)
                return 1
        missing = [file for file in EXPECTED if not (here / file).is_file()]
        after = state(environment, home, scratch)
        outside = sorted(str(file) for file in after if before.get(file) != after[file])
        inside = len(state(here))
    for what, files in (("missing", missing), ("written outside the current folder", outside)):
        for file in files:
            print(f"{what}: {file}", file=sys.stderr)
    if not missing and not outside:
        print(f"the wheel works: {inside} files, all below the current folder")
    return bool(missing or outside)


if __name__ == "__main__":
    sys.exit(main())
