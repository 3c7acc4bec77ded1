"""What the models that recognise see of looks that no training saw: the conditioning encoder, fidelity's, the CLIP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModel

import umm_bench.mini.towers  # noqa: F401  # registers the image towers
from figures import Figure
from umm_bench.metrics.embedding import image_features
from umm_bench.mini import family
from umm_bench.mini.evaluation import generator
from umm_bench.mini.evaluation.embedders import judge
from umm_bench.mini.evaluation.intervals import share
from umm_bench.mini.evaluation.looks import CHANCE, OTHERS, Dressed, dressed
from umm_bench.mini.recipes import encoder as encoder_recipe
from umm_bench.mini.recipes.clip import normalise
from umm_bench.mini.recipes.singles import PART_VALUES, part_labels
from umm_bench.mini.world import looks, scenes, sprites
from umm_bench.mini.world.looks import Look
from umm_bench.umm_method import load_image_encoder

PROBE, PROBED = 4000, 600  # pictures that a probe learns from, and is asked about
ROUNDS = 4  # held-out looks of each frequent concept
NAMES = ("main", "second", "pattern")


def _picture(sprite_id: str, *key: object) -> np.ndarray:
    return encoder_recipe.view(sprite_id, scenes.rng_for("recognise", sprite_id, *key))


def held_out_looks() -> list[Dressed]:
    """Held-out looks of frequent concepts' usual drawings."""
    return [one for key in range(ROUNDS) for one in dressed(generator.frequent(), "recognise", key)]


def _embed(model: torch.nn.Module, images: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.cat([model(part).image_embeds for part in normalise(np.stack(images)).split(64)])


@torch.no_grad()
def image_encoder() -> Iterator[Figure]:
    """A look's parts, each read by a linear probe from the embedding of a reference."""
    model = load_image_encoder(str(family.path("image_encoder"))).eval()
    names, world = generator.frequent(), sprites.load()
    learnt, said = [], []
    for i in range(PROBE):
        rng = scenes.rng_for("probe", i)
        drawings = world.members(names[int(rng.integers(len(names)))], "train")
        design = drawings[int(rng.integers(len(drawings)))]
        look = looks.draw(rng, design.concept, world.has_second(design.id), held=False)
        learnt.append(_picture(looks.looked(design.id, look)))
        said.append(part_labels(look))
    asked = [one for key in range(100) for one in dressed(names, "probed", key)][:PROBED]
    pictures = [_picture(one.sprite) for one in asked]
    (x_ND, y_N4), (x_MD, y_M4) = (
        (_embed(model, images), torch.tensor(labels))
        for images, labels in ((learnt, said), (pictures, [part_labels(one.look) for one in asked]))
    )
    mean, std = x_ND.mean(0), x_ND.std(0)
    right = {}
    for name in NAMES:
        column = looks.PARTS.index(name)
        weights = _probe((x_ND - mean) / std, y_N4[:, column], len(PART_VALUES[column]))
        right[name] = (((x_MD - mean) / std @ weights[:-1] + weights[-1]).argmax(1) == y_M4[:, column]).float()
    value = float(torch.stack([*right.values()]).mean())
    note = ", ".join(f"{name} {of.mean():.3f}" for name, of in right.items())
    yield Figure("image_encoder.look_parts", round(value, 4), "share", True, 0.90, f"{note}; {PROBED} held-out looks")


def _probe(x_ND: torch.Tensor, y_N: torch.Tensor, classes: int) -> torch.Tensor:
    """Logistic regression with a little decay, weights and bias [D + 1, classes]."""
    with torch.enable_grad():
        weights = torch.zeros(x_ND.shape[1] + 1, classes, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(x_ND @ weights[:-1] + weights[-1], y_N) + 1e-4 * weights.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
    return weights.detach()


@torch.no_grad()
def encoder() -> Iterator[Figure]:
    """The same drawing in the same look in another place, light and background, among pictures of other looks of it."""
    model = AutoModel.from_pretrained(family.path("encoder"), dtype=torch.float32).eval()
    right = []
    for one in held_out_looks():
        sprites_ = [looks.looked(one.design.id, look) for look in one.choices]
        images = [_picture(one.sprite, "query"), *(_picture(sprite, "gallery") for sprite in sprites_)]
        z_ND = F.normalize(image_features(model(normalise(np.stack(images)))), dim=-1)
        right.append(int((z_ND[1:] @ z_ND[0]).argmax()) == 0)
    yield share("encoder.look_top1", right, 0.85, f"among {1 + OTHERS} looks, chance {CHANCE:.2f}")


@torch.no_grad()
def scoring_clip() -> Iterator[Figure]:
    """The right words for a look among those of 19 others of the drawing, half of them near misses."""
    right = []
    for one in held_out_looks():
        among: list[Look] = one.choices[:OTHERS]
        texts = [look.describe(one.design.concept) for look in among]
        right.append(judge().ranks(_picture(one.sprite)[None], texts[:1], texts)[0] < 1)
    yield share("scoring_clip.look_top1", right, 0.70, f"among the words of {OTHERS} looks, chance {1 / OTHERS:.2f}")
