"""A tiny GroundingDINO with random weights, img2dataset tars made on the spot, and a grounder without weights."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curation.config import BuildConfig
from curation.language.phrases import PhraseExtractor
from curation.records import Box
from curation.web.fetch import Fetcher

os.environ.setdefault("HF_HUB_OFFLINE", "1")

SUBJECTS = ("red fox", "blue car", "wooden chair", "white rabbit", "green bottle", "yellow bird")


def picture(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """Smooth noise: every seed another perceptual hash, and JPEG-friendly."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


def caption(index: int) -> str:
    return f"a {SUBJECTS[index % 6]} next to a {SUBJECTS[(index + 1) % 6]} on a table"


def row(index: int, shard: int = 0, **changes: Any) -> dict[str, bytes]:
    """Members of one good row, by suffix; ``changes`` replaces members or, as ``json_...``, metadata."""
    key = f"{shard:05d}{index:04d}"
    seed = 1000 * shard + index
    metadata = {
        "url": f"https://example.com/{key}.jpg",
        "caption": caption(seed),
        "key": key,
        "status": "success",
        "NSFW": "UNLIKELY",
        "similarity": 0.33,
        "punsafe": 0.01,
        "pwatermark": 0.02,
    }
    metadata |= {name.removeprefix("json_"): v for name, v in changes.items() if name.startswith("json_")}
    members = {
        "jpg": encoded(picture(seed)),
        "txt": str(metadata["caption"]).encode(),
        "json": json.dumps(metadata).encode(),
    }
    members |= {name: v for name, v in changes.items() if not name.startswith("json_")}
    return {suffix: content for suffix, content in members.items() if content is not None}


def write_tar(path: Path, rows: Sequence[dict[str, bytes]], shard: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for index, members in enumerate(rows):
            for suffix, content in members.items():
                info = tarfile.TarInfo(f"{shard:05d}{index:04d}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


class EveryPhraseGrounder:
    """Finds each phrase in a strip of its own, left to right."""

    def ground(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[list[list[Box]]]:
        return [
            [[Box(i / len(row), 0.1, (i + 1) / len(row), 0.9, 0.5 + 0.01 * i)] for i in range(len(row))]
            for row in phrases
        ]


@pytest.fixture
def grounder() -> EveryPhraseGrounder:
    return EveryPhraseGrounder()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    for shard in range(3):
        write_tar(folder / f"{shard:05d}.tar", [row(index, shard) for index in range(8)], shard)
    return folder


@pytest.fixture
def site():
    from tests.curation.web import serving

    with serving() as running:
        yield running


@pytest.fixture
def fetcher():
    from tests.curation.web import LOCAL

    made = Fetcher(LOCAL)
    yield made
    made.close()


@pytest.fixture(scope="session")
def extractor() -> PhraseExtractor:
    return PhraseExtractor(BuildConfig())


def tiny_tokenizer() -> Any:
    """BERT's way of cutting words, down to letters. Its ids of [CLS], [SEP], "." and "?" are built into the model."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789"]
    for offset, token in enumerate([*letters, *(f"##{letter}" for letter in letters), "a", "fox", "car", "dog"]):
        vocabulary.setdefault(token, 200 + offset)
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint folder."""
    import torch
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoProcessor,
        ResNetConfig,
    )
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    text = BertConfig(vocab_size=1100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    vision = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 24, 32],
        depths=[1, 1, 1],
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3"],
    )
    config = GroundingDinoConfig(
        backbone_config=vision,
        text_config=text,
        d_model=32,
        num_queries=12,
        num_feature_levels=3,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_text_len=48,
        init_std=0.5,
    )
    folder = tmp_path_factory.mktemp("detector")
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 128}
    GroundingDinoProcessor(GroundingDinoImageProcessorPil(size=size), tokenizer).save_pretrained(folder)
    return folder
