"""A tiny UMMPipeline, and pairs in the layout that curation writes."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from umm_bench.umm import TIUE, UMMPipeline


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """A blocky random RGB image; different seeds give clearly different ones."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def make_tiue(seed: int = 2, **overrides: Any) -> TIUE:
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"image_dim": 24, "text_dim": 32, "hidden_dim": 16, "word_std": 1.0}
    return TIUE(**settings | overrides).eval()


def make_umm(sd: Any, encoder: Any, **tiue: Any) -> UMMPipeline:
    pipe = UMMPipeline.from_pipe(sd, image_encoder=encoder[0], feature_extractor=encoder[1], tiue=make_tiue(**tiue))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def umm(tiny_sd: Any, tiny_image_encoder: Any) -> UMMPipeline:
    """Shared by the whole session; treat it as read-only."""
    return make_umm(tiny_sd, tiny_image_encoder)


def row(seed: int, caption: str, phrase: str, head: str) -> dict[str, Any]:
    image = picture(seed)
    start = caption.index(phrase)
    return {
        "id": f"row-{seed}",
        "image": {"bytes": png(image), "path": None},
        "crop": {"bytes": png(image.crop((4, 8, 28, 24))), "path": None},
        "caption": caption,
        "phrase_start": start,
        "phrase_end": start + len(phrase),
        "head": head,
        "box": [0.125, 0.25, 0.875, 0.75],
    }


def write_pairs(folder: Path, rows: Sequence[dict[str, Any]], shard_size: int = 4) -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for i in range(0, len(rows), shard_size):
        table = pa.Table.from_pylist(list(rows[i : i + shard_size]))
        pq.write_table(table, folder / "data" / f"train-{i:05d}.parquet")
    return folder


@pytest.fixture
def pairs_folder(tmp_path: Path) -> Callable[..., Path]:
    """`pairs_folder(rows)` writes curation's parquet shards; without rows, six good ones."""

    def make(rows: Sequence[dict[str, Any]] | None = None) -> Path:
        good = [
            row(i, f"a small red {w} on the beach", f"a small red {w}", w) for i, w in enumerate(["dog", "fox"] * 3)
        ]
        return write_pairs(tmp_path / "pairs", good if rows is None else rows)

    return make


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Any, tiny_image_encoder: Any) -> Path:
    """A Stable Diffusion folder with its image encoder inside, and a TIUE beside it."""
    folder = tmp_path_factory.mktemp("models")
    tiny_sd.save_pretrained(folder / "sd")
    for part in tiny_image_encoder:
        part.save_pretrained(folder / "sd" / "image_encoder")
    make_tiue().save_pretrained(folder / "tiue")
    make_tiue(text_dim=768).save_pretrained(folder / "wide")
    return folder
