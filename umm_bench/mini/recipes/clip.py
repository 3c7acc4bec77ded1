"""CLIPs from the composer's captions: one that conditions the generator, one that only scores.

The conditioning one is learnt in two parts: the generator takes its text encoder and goes on with it, and an image
tower learns beside what came of that.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    PreTrainedModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from umm_bench.mini import family
from umm_bench.mini.recipes import tokenizer
from umm_bench.mini.recipes.common import load_weights, run_folder
from umm_bench.mini.recipes.painted import singles as painted_singles
from umm_bench.mini.recipes.singles import PART_VALUES, Single, part_labels, single, training_names
from umm_bench.mini.towers import FlatResNetConfig, FlatResNetModelWithProjection
from umm_bench.mini.world import scenes

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class CLIPSizes:
    """Both towers, and the share of pairs that are one sprite captioned "a NAME", concepts drawn evenly.

    The image tower is a ViT of `image_width`, `image_layers` and `patch`, or, where `stages` are given, a ResNet of
    those widths and `blocks`.
    """

    name: str
    image_size: int = 64
    text_width: int = 192
    text_layers: int = 3
    image_width: int = 192
    image_layers: int = 4
    patch: int = 8
    stages: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    projection: int = 192
    batch_size: int = 128
    even_share: float = 0.25
    other_names: int = 0  # "a NAME" of so many further concepts that a step's images are told from
    recolor: float = 0.0  # share of those sprites with colours mixed: a concept is its shape, whoever drew it
    further: float = 0.0  # share of them, where there are any, by a hand that the world has no drawings of
    varied: float = 0.0  # share of them drawn as another hand might have
    looked: float = 0.0  # share of those that are drawn as they are that wear a look, which their text says
    near: int = 0  # texts of so many near misses that a picture with a look is told from
    prototypes: bool = False  # teach the image tower one vector a concept, not shipped, and pull the texts to them
    pull: float = 8.0
    painted: float = 0.0  # share of the single sprites that the image tower is shown a batch at a time
    parts: float = 1.0  # how much reading a look's parts from a picture weighs, by a head that is not shipped either
    seed: int = 1
    vocabulary: str = ""  # digest of the tokenizer, which a warm start takes from the weights


CONDITIONING = CLIPSizes("clip")
SCORING = CLIPSizes(
    "scoring_clip",
    text_width=96,
    text_layers=2,
    stages=(32, 64, 128, 256),
    blocks=(1, 1, 1, 1),
    batch_size=64,
    even_share=0.75,
    other_names=48,
    recolor=0.5,
    further=0.5,
    varied=0.7,
    looked=0.6,
    near=3,
    prototypes=True,
    seed=2,
)

IMAGE_TOWER = dataclasses.replace(
    SCORING,
    name="image_encoder",
    batch_size=128,
    text_width=192,
    text_layers=3,
    recolor=0.0,
    even_share=0.9,
    other_names=24,
    further=0.7,
    varied=0.2,
    looked=0.9,
    near=0,
    pull=0.0,
    parts=8.0,
    painted=0.9,
    seed=5,
)


def image_processor(size: int = 64) -> CLIPImageProcessorPil:
    """The shorter side to `size`, the middle square."""
    crop = {"height": size, "width": size}
    return CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size=crop, image_mean=list(MEAN), image_std=list(STD)
    )


def normalise(images: np.ndarray) -> torch.Tensor:
    """uint8 [B, S, S, 3] to what the processor would give for images of that size."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def build(sizes: CLIPSizes, tokens: CLIPTokenizer) -> PreTrainedModel:
    """A randomly initialised CLIP for the mini tokenizer: a CLIPModel, with a ResNet a dual encoder."""
    text = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=sizes.text_width,
        intermediate_size=4 * sizes.text_width,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=sizes.text_width // 48,
        max_position_embeddings=tokens.model_max_length,
        projection_dim=sizes.projection,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    if sizes.stages:
        tower = FlatResNetConfig(
            embedding_size=sizes.stages[0],
            hidden_sizes=list(sizes.stages),
            depths=list(sizes.blocks),
            layer_type="basic",
            projection_dim=sizes.projection,
        )
        return VisionTextDualEncoderModel(
            VisionTextDualEncoderConfig.from_vision_text_configs(tower, text, projection_dim=sizes.projection)
        )
    vision = CLIPVisionConfig(
        hidden_size=sizes.image_width,
        intermediate_size=4 * sizes.image_width,
        num_hidden_layers=sizes.image_layers,
        num_attention_heads=sizes.image_width // 48,
        image_size=sizes.image_size,
        patch_size=sizes.patch,
        projection_dim=sizes.projection,
    )
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=sizes.projection)
    return CLIPModel(config)


class _CLIPRecipe:
    default: CLIPSizes

    def __init__(self, sizes: CLIPSizes | None = None) -> None:
        sizes = sizes or self.default
        self.name, self.config, self.batch_size = sizes.name, sizes, sizes.batch_size
        self._speak(self.first_tokenizer())
        torch.manual_seed(sizes.seed)
        self.clip = build(sizes, self.tokenizer)
        # A CPU's fused attention has a backward pass slower than the plain products.
        self.clip.set_attn_implementation("eager")
        self.module = torch.nn.ModuleDict({"clip": self.clip})
        self.names = training_names()
        self.rows = {scenes.article(name): i for i, name in enumerate(self.names)}
        self.prototypes = torch.nn.Embedding(len(self.names), sizes.projection) if sizes.prototypes else None
        if self.prototypes is not None:
            self.module["prototypes"] = self.prototypes
            # Thrown away as they are: a look's parts, read from a picture's embedding.
            self.parts_head = torch.nn.Linear(sizes.projection, sum(map(len, PART_VALUES)))
            self.module["parts"] = self.parts_head

    def first_tokenizer(self) -> CLIPTokenizer:
        """What the text tower is built for, where no weights bring their own."""
        return tokenizer.train()

    def _speak(self, tokens: CLIPTokenizer) -> None:
        self.tokenizer = tokens
        self.config = dataclasses.replace(self.config, vocabulary=tokenizer.digest(tokens))

    def load_text(self, folder: Path) -> None:
        """The tokenizer and the text encoder of the generator in `folder`, whose projection is learnt anew."""
        self._speak(CLIPTokenizer.from_pretrained(folder / "tokenizer"))
        state = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).state_dict()
        self.clip.text_model.load_state_dict({name.removeprefix("text_model."): t for name, t in state.items()})

    def batch(self, step: int) -> dict[str, Any]:
        """Images of a step, and the texts they are told from, each text once.

        Single sprites come first. `texts` holds the tokens of names, then of captions and looks, apart because those
        are longer. `truth` [B] is each image's among all of them. `named` holds the names' concepts, as rows of
        `self.names`; `concepts` [S] and `parts` [S, 4] are the single sprites' concepts and `part_labels`.
        """
        sizes, images, truth = self.config, [], []
        key = f"{self.name}-{sizes.seed}-{step}"
        singles = self.singles(key, round(sizes.even_share * sizes.batch_size))
        for one in singles:
            images.append(one.image)
            truth.append(one.text)
        captions = [miss for one in singles for miss in one.near_misses] + [one.text for one in singles if one.look]
        for i in range(len(singles), sizes.batch_size):
            scene = scenes.compose(f"{key}-{i}", size=sizes.image_size, looked=sizes.looked / 2, said=0.8)
            images.append(scene.image)
            truth.append(scene.caption)
            captions.append(scene.caption)
        others = scenes.rng_for("names", key).permutation(self.names)[: sizes.other_names]
        plain = [one.text for one in singles if not one.look]
        names = list(dict.fromkeys(plain + [scenes.article(name) for name in others]))
        captions = [text for text in dict.fromkeys(captions) if text not in names]
        rows = {text: i for i, text in enumerate(names + captions)}
        return {
            "texts": [self.tokenize(texts) for texts in (names, captions) if texts],
            "pixel_values": normalise(np.stack(images)),
            "truth": torch.tensor([rows[text] for text in truth]),
            "named": torch.tensor([self.rows[text] for text in names]),
            "concepts": torch.tensor([self.rows[scenes.article(one.name)] for one in singles]),
            "parts": torch.tensor([part_labels(one.look) for one in singles]),
        }

    def singles(self, key: str, count: int) -> list[Single]:
        """So many of the single sprites of a step."""
        return [single(f"{key}-{i}", self.config) for i in range(count)]

    def tokenize(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """Token ids and mask [B, L] of the longest text."""
        return dict(self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt"))

    def text(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """Unit text embeddings [B, projection]."""
        features = self.clip.get_text_features(tokens["input_ids"], tokens["attention_mask"])
        return F.normalize(features.pooler_output.float(), dim=-1)

    def loss(self, batch: dict[str, Any]) -> torch.Tensor:
        """Which text an image has, among all; which images a text has, equally likely where several do."""
        truth, text_TD = batch["truth"], torch.cat([self.text(tokens) for tokens in batch["texts"]])
        image = self.clip.get_image_features(pixel_values=batch["pixel_values"]).pooler_output
        image_BD = F.normalize(image.float(), dim=-1)
        scale = self.clip.logit_scale.clamp(max=4.6052).exp()
        logits_BT = scale * image_BD @ text_TD.T
        own_BT = F.one_hot(truth, len(text_TD)).float()
        used = truth.unique()
        target_UB = (own_BT / own_BT.sum(0).clamp(min=1)).T[used]
        contrast = 0.5 * (F.cross_entropy(logits_BT, truth) + F.cross_entropy(logits_BT.T[used], target_UB))
        if self.prototypes is None:
            return contrast
        # Names alone teach the image tower slowly: what a step's few texts tell apart is easy, and they move as well.
        named, concepts = batch["named"], batch["concepts"]
        prototypes_ND = F.normalize(self.prototypes.weight, dim=-1)
        seen = F.cross_entropy(scale * image_BD[: len(concepts)] @ prototypes_ND.T, concepts)
        # Softmax would be content with texts that are nearest to their prototypes; pictures lie around the prototypes.
        apart = 1 - (text_TD[: len(named)] * prototypes_ND[named].detach()).sum(dim=-1).mean()
        parts = self.part_loss(image[: len(concepts)], batch["parts"])
        return contrast + seen + self.config.pull * apart + self.config.parts * parts

    def part_loss(self, image_SD: torch.Tensor, parts_S4: torch.Tensor) -> torch.Tensor:
        """What the parts of looks cost that are not read from the embeddings right; 0 where no picture has a look."""
        logits = self.parts_head(image_SD).float().split([len(values) for values in PART_VALUES], dim=1)
        worn = max(1, int((parts_S4[:, 0] >= 0).sum()))
        losses = [F.cross_entropy(part, parts_S4[:, k], reduction="sum") for k, part in enumerate(logits)]
        return torch.stack(losses).sum() / (worn * len(PART_VALUES))

    def save(self, folder: Path) -> None:
        self.clip.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        image_processor(self.config.image_size).save_pretrained(folder)

    def load(self, folder: Path) -> None:
        load_weights(self.clip, folder)
        self._speak(CLIPTokenizer.from_pretrained(folder))  # the ids that those weights know
        if self.prototypes is not None:  # not kept: they begin where the names are
            with torch.no_grad():
                self.prototypes.weight.copy_(self.text(self.tokenize(list(self.rows))))

    def parts(self) -> list[Path]:
        return []


class ConditioningCLIP(_CLIPRecipe):
    default = CONDITIONING


class ScoringCLIP(_CLIPRecipe):
    default = SCORING


class ImageTower(_CLIPRecipe):
    """The image tower beside the generator's text encoder, which is finished and frozen (as LiT, 2111.07991, turned).

    What the TIUE can know of a reference is what this sees in it, so it learns as the scoring CLIP does; that one
    itself must not condition what it judges.
    """

    default = IMAGE_TOWER

    def __init__(self, sizes: CLIPSizes | None = None) -> None:
        own = run_folder("sd", (sizes or self.default).image_size) / "model"  # of another size than the family's
        self.generator = own if own.is_dir() else family.path("sd")
        super().__init__(sizes)
        self.load_text(self.generator)
        self.clip.text_model.requires_grad_(False)

    def first_tokenizer(self) -> CLIPTokenizer:
        """The generator's."""
        return CLIPTokenizer.from_pretrained(self.generator / "tokenizer")

    def singles(self, key: str, count: int) -> list[Single]:
        """Most of them painted, the others by other hands: what makes a concept and not who drew it."""
        painted = round(self.config.painted * count)
        many = painted_singles(key, painted, self.config.image_size, self.config.looked, self.config.near)
        return many + super().singles(key, count - painted)

    def save(self, folder: Path) -> None:
        """The tower and its projection: the text's and the prototypes are of no use without the rest."""
        tower = FlatResNetModelWithProjection(self.clip.config.vision_config)
        state = self.clip.state_dict()
        tower.load_state_dict({name: state[name] for name in tower.state_dict()})
        tower.save_pretrained(folder)
        image_processor(self.config.image_size).save_pretrained(folder)

    def load(self, folder: Path) -> None:
        tower = FlatResNetModelWithProjection(self.clip.config.vision_config)
        load_weights(tower, folder)
        self.clip.load_state_dict(self.clip.state_dict() | tower.state_dict())
