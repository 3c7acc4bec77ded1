"""The detector: a GroundingDINO of 2.8 million parameters for 64 px scenes, which begins with the scoring CLIP's eyes.

The model is transformers' `GroundingDinoForObjectDetection`, unchanged. Its loss is transformers' too, given the right
arguments: as called by the model's `labels` path its proposals would stay random (see `recipes/detector_loss.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoModel,
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    ResNetConfig,
)

import umm_bench.mini.towers  # noqa: F401  # registers the scoring CLIP's image tower
from umm_bench.mini import family
from umm_bench.mini.recipes.clip import SCORING
from umm_bench.mini.recipes.detector_data import Batch, PromptConfig, training_batch
from umm_bench.mini.recipes.detector_loss import LEVELS, detector_loss
from umm_bench.mini.world import backgrounds, colors, scenes, sprites

# transformers' GroundingDINO knows the phrase delimiters by their ids in bert-base-uncased, so the vocabulary is laid
# out around them.
BERT_IDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789'-,&!()/:"


@dataclass(frozen=True)
class DetectorConfig:
    """Sizes of the mini detector and of its batches."""

    image_size: int = 64
    stages: tuple[int, ...] = SCORING.stages  # of the backbone, at strides 4, 8, 16, 32; the last three are features
    blocks: tuple[int, ...] = SCORING.blocks
    d_model: int = 128
    heads: int = 4
    ffn: int = 256
    encoder_layers: int = 2
    decoder_layers: int = 2
    num_queries: int = 16
    sampling_points: int = 2
    text_width: int = 128
    text_layers: int = 1
    prompt: PromptConfig = field(default_factory=PromptConfig)
    batch_size: int = 48
    seed: int = 0


def world_words() -> set[str]:
    """Every word that a caption of the mini world can contain, held-out concepts included."""
    texts = [concept.name for concept in sprites.load().concepts]
    texts += [word for names in scenes.STYLE_WORDS.values() for word in names]
    texts += [word for _, names in scenes.SIZE_WORDS for word in names]
    texts += [phrase for _, phrases in backgrounds.DRAWN.values() for phrase in phrases]
    texts += [pattern for patterns in scenes.FILTERS.values() for pattern in patterns]
    texts += [*colors.PALETTE, *backgrounds.PATTERNS, *scenes.OPENINGS]
    texts.append("a an the and with next to left right of above below wearing holding on in front against")
    texts.append("background plain wall dotted striped checkered")
    return {word for text in texts for word in text.lower().replace("{}", " ").split()}


def _tokenizer(words: Iterable[str]) -> BertTokenizer:
    """Whole words, and single characters for words that are none of them."""
    pieces = sorted({word.lower() for word in words if word.isalnum()} | set(LETTERS)) + [f"##{c}" for c in LETTERS]
    vocabulary = dict(BERT_IDS)
    free = (i for i in range(len(pieces) + 2000) if i not in BERT_IDS.values())
    vocabulary |= {piece: next(free) for piece in pieces if piece not in vocabulary}
    # WordPiece needs every id up to the last delimiter's to be taken.
    taken = set(vocabulary.values())
    vocabulary |= {f"[unused{i}]": i for i in range(max(taken)) if i not in taken}
    return BertTokenizer(vocab=vocabulary, model_max_length=256)


def build_detector(
    config: DetectorConfig, words: Iterable[str] | None = None
) -> tuple[GroundingDinoForObjectDetection, GroundingDinoProcessor]:
    """A randomly initialised detector and its processor; the same config gives the same weights.

    `words` (default `world_words()`) become whole tokens; any other word is spelled in characters.
    """
    tokenizer = _tokenizer(world_words() if words is None else words)
    size = {"height": config.image_size, "width": config.image_size}
    image_processor = GroundingDinoImageProcessorPil(size=size)
    stages = [f"stage{i + 1}" for i in range(len(config.stages))]
    backbone = ResNetConfig(
        embedding_size=config.stages[0],
        hidden_sizes=list(config.stages),
        depths=list(config.blocks),
        layer_type="basic",
        out_features=stages[-LEVELS:],  # type: ignore[call-arg]
    )
    text = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.text_width,
        num_hidden_layers=config.text_layers,
        num_attention_heads=config.heads,
        intermediate_size=2 * config.text_width,
        max_position_embeddings=256,  # positions restart with each phrase
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    # The generator is left as found: a recipe must not reseed its caller.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = GroundingDinoForObjectDetection(
            GroundingDinoConfig(
                backbone_config=backbone,
                text_config=text,
                d_model=config.d_model,
                num_queries=config.num_queries,
                num_feature_levels=LEVELS,
                encoder_layers=config.encoder_layers,
                decoder_layers=config.decoder_layers,
                encoder_attention_heads=config.heads,
                decoder_attention_heads=config.heads,
                encoder_n_points=config.sampling_points,
                decoder_n_points=config.sampling_points,
                encoder_ffn_dim=config.ffn,
                decoder_ffn_dim=config.ffn,
                dropout=0.0,
                fusion_droppath=0.0,
                auxiliary_loss=True,
                class_cost=2.0,
                disable_custom_kernels=True,
            )
        )
        _prime(model)
    # transformers freezes any ResNet whose parameters are not named as timm's are.
    model.model.backbone.requires_grad_(True)
    return model, GroundingDinoProcessor(image_processor, tokenizer)


@torch.no_grad()
def _prime(model: GroundingDinoForObjectDetection) -> None:
    """Start where a pretrained checkpoint would: sane logits, open fusion gates, anchors of a sprite's size."""
    core = model.model
    for layer in core.encoder.layers:
        # 1e-4 protects pretrained towers from each other; there are none here.
        layer.fusion_layer.vision_param.fill_(0.3)
        layer.fusion_layer.text_param.fill_(0.3)
    # Logits are products of two layer-normed vectors, with a spread of sqrt(d_model) and no bias. Scaling the text side
    # gives them unit spread; opposite constants on both sides, orthogonal to all normed vectors, give the negative
    # prior that focal loss wants (Lin et al. 2017, section 4.1).
    width = model.config.d_model
    text_norm = core.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    text_norm.weight.fill_(1 / math.sqrt(width))
    text_norm.bias.fill_(-0.25)
    for norm in (core.decoder.layer_norm, core.enc_output_norm):
        norm.bias.fill_(3.0 / (0.25 * width))
    # Proposals start at 5 and 10 % of the side; a sprite covers about half of it.
    core.encoder_output_bbox_embed.layers[-1].bias[2:].fill_(2.5)


class DetectorRecipe:
    """The detector as `recipes.common.fit` wants it."""

    name = "detector"
    default = DetectorConfig()

    def __init__(self, config: DetectorConfig = default) -> None:
        self.config, self.batch_size = config, config.batch_size
        self.module, self.processor = build_detector(config)
        if (config.stages, config.blocks) == (SCORING.stages, SCORING.blocks):
            self._take_tower(family.path("scoring_clip"))

    def _take_tower(self, clip: Path) -> None:
        """Start with the backbone of a CLIP that knows the concepts, as GroundingDINO starts with trained towers."""
        tower = AutoModel.from_pretrained(clip, dtype=torch.float32).vision_model.state_dict()
        self.module.model.backbone.conv_encoder.model.load_state_dict(tower)

    def batch(self, step: int) -> Batch:
        config = self.config
        return training_batch(step, config.prompt, self.processor, config.batch_size, config.seed, config.image_size)

    def loss(self, batch: Batch) -> Tensor:
        return detector_loss(self.module, batch)

    def save(self, folder: Path) -> None:
        self.module.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        saved = GroundingDinoForObjectDetection.from_pretrained(folder, dtype=torch.float32)
        self.module.load_state_dict(saved.state_dict())

    def parts(self) -> list[Path]:
        return []
