"""Whole checkpoint folders of every family of detectors, small and random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.curation.conftest import tiny_tokenizer

SIDE = 64


def tiny_clip_tokenizer() -> Any:
    """CLIP's way: the end of a text has the greatest id, by which the model finds it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,"
    vocabulary = {"!": 0, "<|start|>": 98, "<|end|>": 99}
    for offset, token in enumerate([*letters, *(f"##{letter}" for letter in letters), "fox", "car", "dog", "photo"]):
        vocabulary.setdefault(token, 1 + offset)
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="!"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="<|start|> $A <|end|>", special_tokens=[("<|start|>", 98), ("<|end|>", 99)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="!", pad_token="!", bos_token="<|start|>", eos_token="<|end|>"
    )


def small_text(most: int) -> dict[str, Any]:
    return {
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": most,
        "bos_token_id": 98,
        "eos_token_id": 99,
        "pad_token_id": 0,
    }


def shake(model: Any) -> Any:
    """Weights so large that a change of the input shows in the output."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.dim() > 1 else 0.05
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale / max(1, parameter.dim()))
    return model.eval()


def owl(folder: Path, version: int) -> Path:
    import transformers as t

    family = {1: (t.OwlViTConfig, t.OwlViTForObjectDetection, t.OwlViTProcessor, t.OwlViTImageProcessorPil)}
    family[2] = (t.Owlv2Config, t.Owlv2ForObjectDetection, t.Owlv2Processor, t.Owlv2ImageProcessorPil)
    config, model, processor, images = family[version]
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 16,
    }
    made = config(text_config=small_text(16), vision_config=vision, projection_dim=32)
    shake(model(made)).save_pretrained(folder)
    processor(images(size={"height": SIDE, "width": SIDE}), tiny_clip_tokenizer()).save_pretrained(folder)
    return folder


def small_swin() -> Any:
    from transformers import SwinConfig

    return SwinConfig(
        image_size=SIDE,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[2, 2, 2, 2],
        window_size=4,
        out_indices=[2, 3, 4],
    )


def omdet(folder: Path) -> Path:
    from transformers import CLIPTextConfig, DetrImageProcessorPil, OmDetTurboConfig, OmDetTurboForObjectDetection

    config = OmDetTurboConfig(
        backbone_config=small_swin(),
        text_config=CLIPTextConfig(**small_text(40) | {"hidden_size": 48}),
        use_timm_backbone=False,
        text_projection_in_dim=48,
        text_projection_out_dim=48,
        class_embed_dim=48,  # another than the decoder's, or the model lacks the layer that it asks for
        task_encoder_hidden_dim=32,
        encoder_hidden_dim=32,
        decoder_hidden_dim=32,
        vision_features_channels=[32, 32, 32],
        encoder_in_channels=[32, 64, 128],
        encoder_attention_heads=2,
        encoder_dim_feedforward=32,
        decoder_num_heads=2,
        decoder_num_layers=2,
        decoder_dim_feedforward=32,
        num_queries=12,
        image_size=SIDE,
        apply_layernorm_after_vision_backbone=False,  # which is for backbones of timm, whose features end in channels
    )
    shake(OmDetTurboForObjectDetection(config)).save_pretrained(folder)
    DetrImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    tiny_clip_tokenizer().save_pretrained(folder)
    return folder


def mm_grounding_dino(folder: Path) -> Path:
    from transformers import (
        BertConfig,
        GroundingDinoProcessor,
        MMGroundingDinoConfig,
        MMGroundingDinoForObjectDetection,
    )
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

    text = BertConfig(vocab_size=1100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    config = MMGroundingDinoConfig(
        backbone_config=small_swin(),
        text_config=text,
        use_timm_backbone=False,
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
    shake(MMGroundingDinoForObjectDetection(config)).save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 128}
    GroundingDinoProcessor(GroundingDinoImageProcessorPil(size=size), tiny_tokenizer()).save_pretrained(folder)
    return folder


def sam3(folder: Path) -> Path:
    from transformers import CLIPTextConfig, Sam3Config
    from transformers.models.sam3.modeling_sam3 import Sam3Model

    small = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    backbone = {
        "model_type": "sam3_vit_model",
        **small,
        "num_hidden_layers": 2,
        "image_size": SIDE,
        "patch_size": 8,
        "window_size": 4,
        "global_attn_indexes": [1],
        "pretrain_image_size": 32,
    }
    config = Sam3Config(
        vision_config={
            "backbone_config": backbone,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config=CLIPTextConfig(**small_text(32), projection_dim=32),
        geometry_encoder_config={**small, "num_layers": 1},
        detr_encoder_config={**small, "num_layers": 1},
        detr_decoder_config={**small, "num_layers": 2, "num_queries": 12},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    shake(Sam3Model(config)).save_pretrained(folder)
    tiny_clip_tokenizer().save_pretrained(folder)
    return folder


MAKERS = {
    "owlvit": lambda folder: owl(folder, 1),
    "owlv2": lambda folder: owl(folder, 2),
    "omdet-turbo": omdet,
    "mm-grounding-dino": mm_grounding_dino,
    "sam3": sam3,
}
