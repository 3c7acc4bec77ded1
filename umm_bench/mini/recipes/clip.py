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
from PIL import Image
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
from umm_bench.mini.towers import FlatResNetConfig, FlatResNetModelWithProjection
from umm_bench.mini.world import backgrounds, further, scenes, sprites
from umm_bench.mini.world.colors import LUMA

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
    prototypes: bool = False  # teach the image tower one vector a concept, not shipped, and pull the texts to them
    pull: float = 8.0
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
    prototypes=True,
    seed=2,
)

IMAGE_TOWER = dataclasses.replace(
    SCORING, name="image_encoder", text_width=192, text_layers=3, even_share=0.6, recolor=0.0, varied=0.2, seed=5
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


def training_names() -> list[str]:
    """The concepts that are not held out, by rank."""
    return [concept.name for concept in sprites.load().concepts if concept.split == "train"]


def varied(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture, float32 [S, S, 3], as another hand might have drawn it.

    Sheared and stretched, then perhaps only its edges, grey, coarse or negative, then perhaps with a hole.
    """
    size = image.shape[0]
    margin = size // 2
    wide = np.pad(np.clip(image, 0, 255).astype(np.uint8), ((margin, margin), (margin, margin), (0, 0)), "reflect")
    linear = np.diag(np.exp(rng.uniform(-0.3, 0.3, 2)))
    linear[0, 1], linear[1, 0] = rng.uniform(-0.25, 0.25, 2)
    centre = margin + size / 2
    shift = centre - linear @ np.array([size / 2, size / 2])
    affine = (*linear[0], shift[0], *linear[1], shift[1])
    drawn = Image.fromarray(wide).transform((size, size), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    image = np.asarray(drawn, dtype=np.float32)
    look = rng.random()
    if look < 0.15:
        edges = np.abs(np.gradient(image, axis=0)).sum(2) + np.abs(np.gradient(image, axis=1)).sum(2)
        edges = np.minimum(edges, 255)[..., None]
        image = np.repeat(edges if rng.random() < 0.5 else 255 - edges, 3, 2)
    elif look < 0.3:
        image = np.repeat(image @ LUMA[:, None], 3, 2)
    elif look < 0.4:
        image = np.round(image / 85) * 85
    elif look < 0.5:
        image = 255 - image
    if rng.random() < 0.4:
        height, width = rng.integers(size // 6, size // 2, 2)
        y, x = rng.integers(0, size - height), rng.integers(0, size - width)
        image = image.copy()
        image[y : y + height, x : x + width] = rng.uniform(0, 255, 3)
    return image.astype(np.float32)


def single(key: str, sizes: CLIPSizes) -> tuple[np.ndarray, str]:
    """One training sprite, every concept as likely as another, and its concept.

    `sizes.further` of them are by further hands, `recolor` have their channels mixed, `varied` are `varied`.
    """
    rng = scenes.rng_for("single", key)
    names = training_names()
    name = names[int(rng.integers(len(names)))]
    members = sprites.load().members(name, "train")
    drawing = members[int(rng.integers(len(members)))].id
    other = further.draw(name, rng) if rng.random() < sizes.further else None
    canvas = backgrounds.draw(backgrounds.choose(rng).name, rng, sizes.image_size)
    scale = float(rng.uniform(0.45, 0.95))
    x, y = 0.5 + rng.uniform(-0.5, 0.5, 2) * (1.05 - scale)
    at = scenes.random_placement(rng, float(x), float(y), scale)
    if other:
        drawing, at = other.design.id, dataclasses.replace(at, gain=other.gain or at.gain)
    scenes.paste(canvas, drawing, at)
    if rng.random() < sizes.recolor:
        mixed = canvas.reshape(-1, 3) @ rng.dirichlet((0.5, 0.5, 0.5), 3).astype(np.float32)
        canvas = mixed.reshape(canvas.shape)
    if rng.random() < sizes.varied:
        canvas = varied(canvas, rng)
    return np.clip(canvas, 0, 255).astype(np.uint8), name


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

        Single sprites come first. `texts` holds the tokens of names, then of captions, apart because captions are
        longer. `truth` [B] is each image's among all of them. `named` holds the names' concepts, as rows of
        `self.names`; the first of them belong to the single sprites.
        """
        sizes, images, truth = self.config, [], []
        singles = round(sizes.even_share * sizes.batch_size)
        key = f"{self.name}-{sizes.seed}-{step}"
        for i in range(sizes.batch_size):
            if i < singles:
                image, name = single(f"{key}-{i}", sizes)
                truth.append(scenes.article(name))
            else:
                scene = scenes.compose(f"{key}-{i}", size=sizes.image_size)
                image = scene.image
                truth.append(scene.caption)
            images.append(image)
        others = scenes.rng_for("names", key).permutation(self.names)[: sizes.other_names]
        names = list(dict.fromkeys(truth[:singles] + [scenes.article(name) for name in others]))
        captions = list(dict.fromkeys(truth[singles:]))
        rows = {text: i for i, text in enumerate(names + captions)}
        return {
            "texts": [self.tokenize(texts) for texts in (names, captions) if texts],
            "pixel_values": normalise(np.stack(images)),
            "truth": torch.tensor([rows[text] for text in truth]),
            "named": torch.tensor([self.rows[text] for text in names]),
        }

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
        named = batch["named"]
        prototypes_ND = F.normalize(self.prototypes.weight, dim=-1)
        single = truth < len(named)
        seen = F.cross_entropy(scale * image_BD[single] @ prototypes_ND.T, named[truth[single]])
        # Softmax would be content with texts that are nearest to their prototypes; pictures lie around the prototypes.
        apart = 1 - (text_TD[: len(named)] * prototypes_ND[named].detach()).sum(dim=-1).mean()
        return contrast + seen + self.config.pull * apart

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
