"""Where a result comes from: the very code, the libraries and the machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[3]
LIBRARIES = (
    *("umm-bench", "torch", "diffusers", "transformers", "tokenizers", "accelerate", "peft"),
    *("numpy", "scipy", "pillow", "safetensors", "duckdb"),
)
"""What a picture, a score or a row depends on."""


def provenance() -> dict[str, Any]:
    """Columns of `executions`."""
    commit, dirty = commit_of(ROOT)
    return {"commit": commit, "dirty": dirty, "versions_json": versions(), "machine_json": machine()}


@cache
def commit_of(root: Path) -> tuple[str | None, bool | None]:
    """The commit of a working copy, and whether its tracked files differ from it; None where `root` is none."""
    if not (root / ".git").exists():
        return None, None
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changed is None else bool(changed)


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):  # no git, or one that waits for something
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    """Of Python and of those of LIBRARIES that are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Without its name: a database may be handed on."""
    torch = sys.modules.get("torch")
    cuda = torch.cuda if torch is not None and torch.cuda.is_available() else None
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [cuda.get_device_name(number) for number in range(cuda.device_count())] if cuda else [],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
