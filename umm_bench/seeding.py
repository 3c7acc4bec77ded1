"""Seeds and keys derived from what they stand for, never from the order in which things happen."""

import hashlib
import json
from pathlib import Path
from typing import Any

_WHOLE_FILE_LIMIT = 64 * 2**20
_BLOCKS, _BLOCK_SIZE, _END_SIZE = 1024, 2**12, 2**20


def digest(*parts: Any, length: int = 20) -> str:
    """Hex digest of JSON-able `parts`: equal parts give equal digests in any process and on any machine.

    `digest("a", 1)` differs from `digest("a1")`; mappings are compared by content, not by order.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def seed_for(*parts: Any) -> int:
    """A 63-bit seed for `torch.Generator.manual_seed` and DuckDB's BIGINT alike."""
    return int(digest(*parts, length=16), 16) >> 1


def sample_seed(run_seed: int, subject_id: str, prompt_id: str, image_index: int) -> int:
    """The seed of one image. The method is not a part of it: methods start from the same noise (paired)."""
    return seed_for("sample", run_seed, subject_id, prompt_id, image_index)


def path_digest(path: Path) -> str:
    """Digest of a file, or of all files below a folder by relative name and content; a README.md changes no result.

    Files above 64 MB count with their size, their first and last megabyte and 1,024 blocks of 4 KB spread evenly
    between: reading gigabytes of weights to find that nothing changed would make a finished run slow. Training
    changes whole tensors, even where it leaves others alone: one of more than a 1,024th of the file always holds the
    start of a block, while a few shorter ones may all lie between.
    """
    inside = (p for p in path.rglob("*") if p.is_file() and p.name != "README.md")
    files = [path] if path.is_file() else sorted(inside)
    whole = hashlib.sha256()
    for file in files:
        relative = file.name if file == path else file.relative_to(path).as_posix()
        size = file.stat().st_size
        whole.update(f"{relative}\0{size}\0".encode())
        with file.open("rb") as stream:
            if size <= _WHOLE_FILE_LIMIT:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
            else:
                blocks = [(size * i // _BLOCKS, _BLOCK_SIZE) for i in range(_BLOCKS)]
                for start, length in [(0, _END_SIZE), *blocks, (size - _END_SIZE, _END_SIZE)]:
                    stream.seek(start)
                    whole.update(stream.read(length))
    return whole.hexdigest()[:16]
