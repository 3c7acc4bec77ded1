"""groundingdino-py behind the same interface: the wire with a worker of the test's own, and, where the environment of
``python -m curation.grounding.groundingdino_py --setup FOLDER`` is (GROUNDINGDINO_ENV=FOLDER), the real thing."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from curation.config import BuildConfig
from curation.errors import UserError
from curation.grounding import load_grounder
from curation.grounding.groundingdino_py import WORKER, WorkerModel
from curation.grounding.transformers_backend import TransformersGrounder
from tests.curation.conftest import picture, tiny_tokenizer

ENVIRONMENT = Path(os.environ.get("GROUNDINGDINO_ENV", "groundingdino-env"))
CONFIG = BuildConfig(device="cpu", box_threshold=0.0, batch_size=4)

# Speaks the worker's protocol; its scores are the mean pixel, so that an answer can be told from another's.
SPEAKER = f"""
import os, sys
import numpy as np
sys.path.insert(0, {str(WORKER.parent)!r})
from groundingdino_worker import receive, send
out = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
print("chatter of some library")
if sys.argv[1] == "broken":
    send(out, error=np.array("ValueError: no such weights"))
    sys.exit()
send(out, max_text_len=np.array(64), text_encoder=np.array("bert"))
while True:
    try:
        request = receive(sys.stdin.buffer)
    except EOFError:
        sys.exit()
    batch, length = request["input_ids"].shape
    if sys.argv[1] == "small" and batch > 2:
        send(out, error=np.array("RuntimeError: CUDA out of memory"))
    elif sys.argv[1] == "dies":
        os._exit(3)
    else:
        mean = request["pixel_values"].mean((1, 2, 3))
        logits = np.broadcast_to(mean[:, None, None], (batch, 3, length)).astype(np.float32)
        send(out, logits=logits, pred_boxes=np.full((batch, 3, 4), 0.5, np.float32))
"""


def speaker(mode: str) -> WorkerModel:
    return WorkerModel([sys.executable, "-c", SPEAKER, mode])


def grounder(mode: str, tiny_detector: Path) -> TransformersGrounder:
    from transformers import AutoProcessor

    return TransformersGrounder(speaker(mode), AutoProcessor.from_pretrained(tiny_detector), CONFIG)


def flat(rows) -> list[list[float]]:
    return [[v for boxes in row for b in boxes for v in (b.x0, b.y0, b.x1, b.y1, b.score)] for row in rows]


def test_a_worker_process_is_a_model(tiny_detector: Path):
    images, phrases = [picture(i) for i in range(5)], [["a fox"]] * 5
    found = grounder("good", tiny_detector).ground(images, phrases)
    scores = [row[0][0].score for row in found]
    assert len(set(scores)) == 5
    small = grounder("small", tiny_detector).ground(images, phrases)  # after halving its batches
    for row, other in zip(flat(small), flat(found), strict=True):
        assert row == pytest.approx(other)


def test_a_worker_that_fails_is_one_clear_line(tiny_detector: Path):
    with pytest.raises(UserError, match="no such weights"):
        speaker("broken")
    with pytest.raises(UserError, match="ended with code 3"):
        grounder("dies", tiny_detector).ground([picture(1)], [["a fox"]])
    with pytest.raises(UserError, match="--setup"):
        load_grounder(replace(CONFIG, backend="groundingdino-py", groundingdino_env="/nowhere"), "/nowhere")


# The names of the same tensors, transformers' on the left.
NAMES = [
    (r"^model\.backbone\.conv_encoder\.model", "backbone.0"),
    (r"swin\.embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"swin\.embeddings\.norm", "patch_embed.norm"),
    (r"swin\.encoder\.", ""),
    (r"hidden_states_norms\.stage2", "norm1"),
    (r"hidden_states_norms\.stage3", "norm2"),
    (r"hidden_states_norms\.stage4", "norm3"),
    (r"attention\.relative_position_bias\.relative_position_bias_table", "attn.relative_position_bias_table"),
    (r"attention\.o_proj", "attn.proj"),
    (r"blocks\.(\d+)\.layernorm_before", r"blocks.\1.norm1"),
    (r"blocks\.(\d+)\.layernorm_after", r"blocks.\1.norm2"),
    (r"^model\.input_proj_vision", "input_proj"),
    (r"^model\.text_backbone", "bert"),
    (r"^model\.text_projection", "feat_map"),
    (r"^model\.query_position_embeddings", "transformer.tgt_embed"),
    (r"^model\.encoder_output_bbox_embed", "transformer.enc_out_bbox_embed"),
    (r"^model\.(level_embed|enc_output|encoder|decoder)", r"transformer.\1"),
    (r"encoder\.layers\.(\d+)\.text_enhancer_layer", r"encoder.text_layers.\1"),
    (r"encoder\.layers\.(\d+)\.fusion_layer", r"encoder.fusion_layers.\1"),
    (r"encoder\.layers\.(\d+)\.deformable_layer", r"encoder.layers.\1"),
    (r"(text_layers\.\d+)\.layer_norm_before", r"\1.norm1"),
    (r"(text_layers\.\d+)\.layer_norm_after", r"\1.norm2"),
    (r"(fusion_layers\.\d+)\.vision_param", r"\1.gamma_v"),
    (r"(fusion_layers\.\d+)\.text_param", r"\1.gamma_l"),
    (r"(fusion_layers\.\d+)\.layer_norm_vision", r"\1.layer_norm_v"),
    (r"(fusion_layers\.\d+)\.layer_norm_text", r"\1.layer_norm_l"),
    (r"(fusion_layers\.\d+\.attn\..*)vision_proj", r"\1v_proj"),
    (r"(fusion_layers\.\d+\.attn\..*)text_proj", r"\1l_proj"),
    (r"(transformer\.encoder\.layers\.\d+)\.self_attn_layer_norm", r"\1.norm1"),
    (r"(transformer\.encoder\.layers\.\d+)\.final_layer_norm", r"\1.norm2"),
    (r"(decoder\.layers\.\d+)\.self_attn_layer_norm", r"\1.norm2"),
    (r"(decoder\.layers\.\d+)\.encoder_attn_text_layer_norm", r"\1.catext_norm"),
    (r"(decoder\.layers\.\d+)\.encoder_attn_layer_norm", r"\1.norm1"),
    (r"(decoder\.layers\.\d+)\.final_layer_norm", r"\1.norm3"),
    (r"(decoder\.layers\.\d+)\.encoder_attn_text", r"\1.ca_text"),
    (r"(decoder\.layers\.\d+)\.encoder_attn\b", r"\1.cross_attn"),
    (r"decoder\.layer_norm", "decoder.norm"),
    (r"decoder\.reference_points_head", "decoder.ref_point_head"),
    (r"(transformer\.(?:en|de)coder\..*)\.fc(\d)", r"\1.linear\2"),
]  # fmt: skip
STACKED = [
    (r"attention\.([qkv])_proj\.(weight|bias)$", r"attn.qkv.\2"),
    (r"(self_attn|ca_text)\.(query|key|value)\.(weight|bias)$", r"\1.in_proj_\3"),
]


def original_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' weights under groundingdino-py's names; queries, keys and values in one tensor."""
    stacked: dict[str, list[torch.Tensor]] = {}
    result = {}
    for name, tensor in state.items():
        if ".swin.layernorm" in name or ".pooler." in name:
            continue  # not in the other model
        for pattern, new in NAMES:
            name = re.sub(pattern, new, name)
        for pattern, new in STACKED:
            if name.startswith("bert."):
                break
            if re.search(pattern, name):
                stacked.setdefault(re.sub(pattern, new, name), []).append(tensor)
                break
        else:
            result[name] = tensor
            continue
        if name.startswith("bert."):
            result[name] = tensor
    return result | {name: torch.cat(parts) for name, parts in stacked.items()}


@pytest.fixture(scope="module")
def both_formats(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One set of random weights as a transformers checkpoint and as groundingdino-py's."""
    from transformers import (
        BertConfig,
        BertModel,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoProcessor,
        SwinConfig,
    )
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

    torch.manual_seed(0)
    text = BertConfig(vocab_size=1100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    # The sizes of "swin_T_224_1k", which the other package has built in.
    swin = SwinConfig(depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], out_features=["stage2", "stage3", "stage4"])
    config = GroundingDinoConfig(
        backbone_config=swin,
        text_config=text,
        d_model=256,  # which the other package has built in as well
        num_queries=10,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        init_std=0.3,
    )
    model = GroundingDinoForObjectDetection(config).eval()
    with torch.no_grad():  # what is initialised to zero or one would hide a tensor in a wrong place
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
        # Coordinates away from 0 and 1: the one clips their logit at 1e-3, the other at 1e-5.
        for head in (model.model.encoder_output_bbox_embed, model.bbox_embed[0]):
            head.layers[-1].weight *= 0.1
    new, old = tmp_path_factory.mktemp("transformers"), tmp_path_factory.mktemp("original")
    model.save_pretrained(new)
    size = {"shortest_edge": 64, "longest_edge": 128}
    GroundingDinoProcessor(GroundingDinoImageProcessorPil(size=size), tiny_tokenizer()).save_pretrained(new)

    GroundingDinoImageProcessorPil(size=size).save_pretrained(old)
    # Its tokenizer is loaded by an older transformers, which knows this class by its older name.
    tiny_tokenizer().save_pretrained(old / "text_encoder")
    file = old / "text_encoder" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    BertModel(text).save_pretrained(old / "text_encoder")
    torch.save({"model": original_state(model.state_dict())}, old / "weights.pth")
    (old / "config.py").write_text(
        'backbone = "swin_T_224_1k"\nposition_embedding = "sine"\npe_temperatureH = 20\npe_temperatureW = 20\n'
        "return_interm_indices = [1, 2, 3]\nenc_layers = 1\ndec_layers = 2\npre_norm = False\ndim_feedforward = 32\n"
        "hidden_dim = 256\ndropout = 0.0\nnheads = 2\nnum_queries = 10\nquery_dim = 4\nnum_patterns = 0\n"
        "num_feature_levels = 4\nenc_n_points = 4\ndec_n_points = 4\ntwo_stage_type = 'standard'\n"
        "two_stage_bbox_embed_share = False\ntwo_stage_class_embed_share = False\ntransformer_activation = 'relu'\n"
        "dec_pred_bbox_embed_share = True\ndn_box_noise_scale = 1.0\ndn_label_noise_ratio = 0.5\n"
        "dn_labelbook_size = 2000\nembed_init_tgt = True\nmax_text_len = 256\ntext_encoder_type = 'bert'\n"
        "use_text_enhancer = True\nuse_fusion_layer = True\nuse_checkpoint = False\nuse_transformer_ckpt = False\n"
        "use_text_cross_attention = True\ntext_dropout = 0.0\nfusion_dropout = 0.0\nfusion_droppath = 0.1\n"
        "sub_sentence_present = True\nmodelname = 'groundingdino'\nbackbone_freeze_keywords = None\n"
    )
    return new, old


@pytest.mark.skipif(
    not (ENVIRONMENT / "bin" / "python").is_file(),
    reason="no environment for groundingdino-py: python -m curation.grounding.groundingdino_py --setup FOLDER, "
    "then GROUNDINGDINO_ENV=FOLDER",
)
def test_boxes_match_the_transformers_backends(both_formats: tuple[Path, Path]):
    new, old = both_formats
    images = [picture(1), picture(2, 64, 96), picture(3, 100, 100)]
    phrases = [["a fox", "a dog"], ["a car"], ["a dog", "a car", "a fox and a car"]]
    ours = load_grounder(CONFIG, str(new)).ground(images, phrases)
    config = replace(CONFIG, backend="groundingdino-py", groundingdino_env=str(ENVIRONMENT))
    theirs = load_grounder(config, str(old)).ground(images, phrases)
    mine, other = ([box for row in rows for boxes in row for box in boxes] for rows in (ours, theirs))
    assert len(mine) == len(other) == 10 * 6  # every query of every phrase
    for a, b in zip(mine, other, strict=True):
        assert (a.x0, a.y0, a.x1, a.y1) == pytest.approx((b.x0, b.y0, b.x1, b.y1), abs=1e-4)
        assert a.score == pytest.approx(b.score, rel=1e-2)
    # Random as they are, the weights tell one box from another.
    assert max(a.x0 for a in mine) - min(a.x0 for a in mine) > 0.05
    assert max(a.score for a in mine) > 10 * min(a.score for a in mine)
