"""CLIP, SAM and earlier builds: each alone on tiny random weights, then in whole builds."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from curation import BuildConfig, UserError, build_pairs
from curation.errors import Rejected
from curation.records import Box, Phrase
from curation.vision.clip import ClipScorer
from curation.vision.crops import crop, pixel_edges
from curation.vision.dedup import DuplicateIndex
from curation.vision.masks import SamSegmenter
from curation.vision.models import Found, PairModels
from tests.conftest import LENGTH, make_tokenizer
from tests.curation.conftest import encoded, picture, row, write_tar


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=LENGTH, **sizes, **ends)
    vision = CLIPVisionConfig(image_size=32, patch_size=8, initializer_factor=5.0, **sizes)
    folder = tmp_path_factory.mktemp("clip")
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    torch.manual_seed(0)
    vision = SamVisionConfig(
        hidden_size=32,
        output_channels=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        mlp_dim=32,
        window_size=2,
        global_attn_indexes=[0],
        num_pos_feats=16,
    )
    prompts = SamPromptEncoderConfig(hidden_size=32, image_size=64, patch_size=16, mask_input_channels=4)
    decoder = SamMaskDecoderConfig(
        hidden_size=32, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16
    )
    folder = tmp_path_factory.mktemp("sam")
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    SamModel(config).save_pretrained(folder)
    size = {"height": 64, "width": 64}
    SamImageProcessorPil(size={"longest_edge": 64}, pad_size=size, mask_size=size).save_pretrained(folder)
    return folder


def thing(text: str) -> Phrase:
    return Phrase(text, 0, len(text), text, text, text)


def test_clip_scores_are_cosines(tiny_clip: Path):
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    scorer = ClipScorer.load(str(tiny_clip), "cpu")
    crops, phrases = [picture(i, 40, 50) for i in range(3)], ["a red fox", "a dog on a red beach", "a red fox"]
    scores = scorer.score(crops, phrases)
    model: CLIPModel = CLIPModel.from_pretrained(tiny_clip).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(tiny_clip)(crops, return_tensors="pt")
    tokens = AutoTokenizer.from_pretrained(tiny_clip)(phrases, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**tokens, **pixels).logits_per_image.diagonal() / model.logit_scale.exp()
    assert scores == pytest.approx(expected.tolist(), abs=1e-5)
    assert scorer.embed([]).shape == (0, 16) and scorer.score([], []) == []
    assert np.linalg.norm(scorer.embed(crops), axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert len(scorer.score(crops[:1], ["a very long " * 40])) == 1  # cut to the model's length


def test_crops_below_the_score_are_rejected(tiny_clip: Path):
    images, box = [picture(1), picture(2)], Box(0.1, 0.1, 0.6, 0.9, 0.5)
    phrases, outcomes = [[thing("a dog"), thing("a fox")], [thing("a cat")]], [[box, Rejected("no_box")], [box]]
    free = PairModels(clip=ClipScorer.load(str(tiny_clip), "cpu"), min_clip_score=-1.0)
    first, second = free.judge(images, phrases, outcomes)
    assert isinstance(first[0], Found) and isinstance(second[0], Found) and isinstance(first[1], Rejected)
    assert first[0].clip_score is not None and second[0].clip_score is not None
    alone = free.clip.score([crop(images[1], box)], ["a cat"]) if free.clip else []
    assert second[0].clip_score == pytest.approx(alone[0], abs=1e-5)
    between = (first[0].clip_score + second[0].clip_score) / 2
    strict = PairModels(clip=free.clip, min_clip_score=between).judge(images, phrases, outcomes)
    kept = [isinstance(strict[0][0], Found), isinstance(strict[1][0], Found)]
    assert kept == [first[0].clip_score >= between, second[0].clip_score >= between] and sum(kept) == 1
    rejected = [found for found in (strict[0][0], strict[1][0]) if isinstance(found, Rejected)]
    assert rejected[0].reason == "low_clip_score"


def test_masks_have_their_crops_size(tiny_sam: Path):
    image = picture(3, 90, 60)
    boxes = [Box(0.1, 0.2, 0.5, 0.9, 0.5), Box(0.4, 0.0, 1.0, 1.0, 0.5)]
    segmenter = SamSegmenter.load(str(tiny_sam), "cpu")
    masks = segmenter.segment(image, boxes)
    assert [mask.size for mask in masks] == [crop(image, box).size for box in boxes]
    assert all(mask.mode == "L" and set(np.unique(np.asarray(mask))) <= {0, 255} for mask in masks)
    assert segmenter.segment(image, []) == []
    (alone,) = segmenter.segment(image, boxes[1:])
    assert np.mean(np.asarray(alone) == np.asarray(masks[1])) > 0.99


def test_pixel_edges_round_outwards_and_stay_inside():
    assert pixel_edges(Box(0.101, 0.0, 0.5, 1.0, 1), 100, 50) == (10, 0, 50, 50)


def test_no_checkpoint_is_one_clear_line(tmp_path: Path):
    for config, flag in ((BuildConfig(clip=str(tmp_path)), "--clip"), (BuildConfig(segmenter=str(tmp_path)), "--seg")):
        with pytest.raises(UserError, match=f"^{flag}[^\\n]* cannot be loaded: [^\\n]+$"):
            PairModels.load(config)
    with pytest.raises(UserError, match="--dedup-against"):
        PairModels.load(BuildConfig(dedup_against=str(tmp_path)))
    with pytest.raises(UserError, match="--clip"):
        PairModels().embed([picture(1)])


def test_semantic_duplicates_by_cosine():
    pytest.importorskip("faiss")
    index = DuplicateIndex(-1, min_cosine=0.9)
    assert not index.has_similar((1.0, 0.0))
    index.add_similar((1.0, 0.0))
    assert index.has_similar((0.95, 0.3122)) and not index.has_similar((0.8, 0.6))
    off = DuplicateIndex(-1)
    off.add_similar((1.0, 0.0))
    assert not off.has_similar((1.0, 0.0))


def rows_of(folder: Path) -> list[dict]:
    return [row for path in sorted((folder / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_a_build_with_all_of_them(corpus: Path, tmp_path: Path, grounder, tiny_clip: Path, tiny_sam: Path):
    pytest.importorskip("faiss")
    # A crop of picture 1, far from it in perceptual hash, and turned pictures, near in this CLIP's eyes or not.
    settings = {"clip": str(tiny_clip), "segmenter": str(tiny_sam), "min_clip_score": -1.0, "device": "cpu"}
    config = BuildConfig(input=str(corpus), output=str(tmp_path / "out"), semantic_duplicates=0.9999, **settings)
    result = build_pairs(config, grounder)
    pairs = rows_of(tmp_path / "out")
    assert len(pairs) == result.tally.pairs > 0
    for pair in pairs:
        mask, cut = (Image.open(io.BytesIO(pair[name]["bytes"])) for name in ("mask", "crop"))
        assert mask.size == cut.size
        assert -1 <= pair["clip_score"] <= 1 and len(pair["embedding"]) == 16
    # Everything is the same picture when any cosine will do; across shards, too.
    loose = BuildConfig(input=str(corpus), output=str(tmp_path / "loose"), semantic_duplicates=-1.0, **settings)
    tally = build_pairs(loose, grounder).tally
    assert tally.rows_kept == 1
    assert tally.row_reasons["duplicate_semantic"] == 21 and tally.row_reasons["duplicate_across_shards"] == 2
    assert tally.rows_read == tally.rows_kept + sum(tally.row_reasons.values())


def test_images_of_an_earlier_build_are_not_wanted_again(tmp_path: Path, grounder, tiny_clip: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    write_tar(tmp_path / "a" / "0.tar", [row(i) for i in range(4)])
    build_pairs(BuildConfig(input=str(tmp_path / "a"), output=str(first)), grounder)
    again = row(1, jpg=encoded(picture(1), "PNG"))  # other bytes, the same picture
    write_tar(tmp_path / "b" / "0.tar", [row(0), again, row(8), row(9)])
    config = BuildConfig(input=str(tmp_path / "b"), output=str(second), dedup_against=str(first))
    tally = build_pairs(config, grounder).tally
    assert (tally.rows_kept, tally.row_reasons["duplicate_of_earlier_build"]) == (2, 2)
    assert not {r["sha256"] for r in rows_of(first)} & {r["sha256"] for r in rows_of(second)}
    pytest.importorskip("faiss")
    needs = BuildConfig(
        input=str(tmp_path / "b"),
        output=str(tmp_path / "third"),
        dedup_against=str(first),
        clip=str(tiny_clip),
        semantic_duplicates=0.99,
    )
    with pytest.raises(UserError, match="--semantic-duplicates"):
        build_pairs(needs, grounder)


def test_other_models_are_another_build(corpus: Path, tmp_path: Path, grounder, tiny_clip: Path):
    settings = {"input": str(corpus), "output": str(tmp_path / "out"), "min_clip_score": -1.0, "device": "cpu"}
    build_pairs(BuildConfig(clip=str(tiny_clip), limit=4, **settings), grounder)
    with pytest.raises(UserError, match="clip sha256"):
        build_pairs(BuildConfig(limit=4, **settings), grounder)
