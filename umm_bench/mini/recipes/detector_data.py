"""Prompts and labels for the detector from composed scenes, and the figures of a detector on scenes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from transformers.image_transforms import center_to_corners_format

from umm_bench.mini.world import backgrounds, scenes
from umm_bench.mini.world.scenes import Scene, article, rng_for

if TYPE_CHECKING:
    from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class PromptConfig:
    """How a scene becomes a prompt. Probabilities in [0, 1]; `absent` is the most phrases that are not there."""

    absent: int = 5
    concept_only: float = 0.35
    bare: float = 0.2  # without the article, as some noun phrases come
    background: float = 0.4  # the background named as a phrase: no object, so nothing to find
    crowded: float = 0.4  # two or three objects, whatever the composer's own shares: more to learn a step
    even: float = 0.5  # concepts drawn evenly, not by frequency: a detector is asked for rare things too
    other_hands: float = 0.3  # sprites by hands that the world has no drawings of
    looked: float = 0.35  # sprites in looks; four in five of their phrases say them


@dataclass(frozen=True)
class Grounding:
    """A prompt with its truth: `boxes[i]` are the xyxy boxes of `phrases[i]`, none for a phrase that is absent.

    `concepts[i]` is what the phrase is about; a background is its own concept.
    """

    phrases: tuple[str, ...]
    concepts: tuple[str, ...]
    boxes: tuple[tuple[Box, ...], ...]


@dataclass(frozen=True)
class Batch:
    """`inputs` as the model's forward takes them, `labels` as its loss does (boxes cxcywh in [0, 1]).

    `concepts` names each image's phrases' concepts, in the order that `class_labels` counts.
    """

    inputs: dict[str, Tensor]
    labels: list[dict[str, Tensor]]
    concepts: list[tuple[str, ...]]


def _setting(scene_background: str, rng: np.random.Generator) -> str:
    """The background's words as the noun phrase that a parser finds: "a beach" of "on a beach"."""
    words = re.sub(r"^(on|in|at|against|under|in front of) ", "", scene_background)
    words = re.sub(r"^front of ", "", words)
    return words if rng.random() < 0.85 else str(rng.choice(["a picture", "a photo", "an image"]))


def ground_truth(scene: Scene, rng: np.random.Generator, config: PromptConfig) -> Grounding:
    """A shuffled prompt of the scene's phrases with absent ones among them, 1 to `absent`."""
    there: dict[str, list[Box]] = {}
    about: dict[str, str] = {}
    present = [o.concept for o in scene.objects]
    for o in scene.objects:
        # With two foxes in sight, "a fox" would name both: only the full phrase tells them apart.
        short = present.count(o.concept) == 1 and rng.random() < config.concept_only
        phrase = _bare(article(o.concept) if short else o.phrase, rng, config)
        there.setdefault(phrase, []).append(o.box)
        about[phrase] = o.concept
    wanted = len(there) + int(rng.integers(1, config.absent + 1))
    if rng.random() < config.background:
        about.setdefault(setting := _setting(scene.background.phrase, rng), setting)
    while len(about) < wanted:
        if rng.random() < 0.1:
            about.setdefault(setting := _setting(backgrounds.choose(rng).phrase, rng), setting)
            continue
        design = scenes.draw_design(rng, "train_even" if rng.random() < config.even else "train")
        if design.concept not in present:
            full = scenes.describe(design, float(rng.uniform(0.3, 0.9)), rng)
            phrase = article(design.concept) if rng.random() < config.concept_only else full
            about.setdefault(_bare(phrase, rng, config), design.concept)
    phrases = tuple(about)
    phrases = tuple(phrases[i] for i in rng.permutation(len(phrases)))
    return Grounding(phrases, tuple(about[p] for p in phrases), tuple(tuple(there.get(p, ())) for p in phrases))


def _bare(phrase: str, rng: np.random.Generator, config: PromptConfig) -> str:
    return re.sub(r"^(a|an) ", "", phrase) if rng.random() < config.bare else phrase


def prompt_inputs(
    processor: GroundingDinoProcessor, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]]
) -> dict[str, Tensor]:
    """Model inputs for uint8 [S, S, 3] images with one list of phrases each."""
    inputs = processor(images=list(images), text=[list(p) for p in phrases], padding=True, return_tensors="pt")
    return dict(inputs)


def training_batch(
    step: int,
    config: PromptConfig,
    processor: GroundingDinoProcessor,
    batch_size: int,
    seed: int = 0,
    size: int = 64,
) -> Batch:
    """The batch of a step: a function of its arguments, so that a resumed run sees what an unbroken one would."""
    images, groundings = [], []
    for i in range(batch_size):
        key = f"detector-{seed}-{step}-{i}"
        rng = rng_for("prompt", key)
        subjects = int(rng.choice([2, 3])) if rng.random() < config.crowded else None
        split = "train_even" if rng.random() < config.even else "train"
        scene = scenes.compose(
            key, split, size, subjects, other_hands=config.other_hands, looked=config.looked, said=0.8
        )
        images.append(scene.image)
        groundings.append(ground_truth(scene, rng, config))
    inputs = prompt_inputs(processor, images, [g.phrases for g in groundings])
    return Batch(inputs, [_labels(g) for g in groundings], [g.concepts for g in groundings])


def _labels(grounding: Grounding) -> dict[str, Tensor]:
    classes = [i for i, boxes in enumerate(grounding.boxes) for _ in boxes]
    corners = torch.tensor([box for boxes in grounding.boxes for box in boxes]).reshape(-1, 4)
    low, high = corners[:, :2], corners[:, 2:]
    return {
        "class_labels": torch.tensor(classes, dtype=torch.long),
        "boxes": torch.cat([(low + high) / 2, high - low], 1),
    }


def phrase_spans(input_ids_L: Tensor, separators: Iterable[int]) -> list[tuple[int, int]]:
    """The token span [start, end) of each phrase of a prompt, delimiters left out."""
    inside = [int(i) not in set(separators) for i in input_ids_L]
    edges = np.flatnonzero(np.diff([False, *inside, False]))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


@torch.no_grad()
def phrase_scores(
    model: GroundingDinoForObjectDetection, processor: GroundingDinoProcessor, inputs: dict[str, Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Per image: scores [phrases, queries], the mean probability over a phrase's tokens; boxes [queries, 4] xyxy."""
    outputs = model(**{k: v.to(model.device) for k, v in inputs.items()})
    tokenizer = processor.tokenizer
    ends = tokenizer.convert_tokens_to_ids([".", "?", "[CLS]", "[SEP]", "[PAD]"])
    probabilities_BQL = outputs.logits.sigmoid().cpu()
    boxes_BQ4: Tensor = center_to_corners_format(outputs.pred_boxes.cpu())  # type: ignore[assignment,arg-type]
    results = []
    for ids, p_QL, boxes in zip(inputs["input_ids"], probabilities_BQL, boxes_BQ4, strict=True):
        scores = [p_QL[:, start:end].mean(1) for start, end in phrase_spans(ids, ends)]
        results.append((torch.stack(scores), boxes))
    return results


def _iou(boxes_Q4: np.ndarray, box: Box) -> np.ndarray:
    low, high = np.maximum(boxes_Q4[:, :2], box[:2]), np.minimum(boxes_Q4[:, 2:], box[2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(boxes_Q4[:, 2:] - boxes_Q4[:, :2], axis=1) + (box[2] - box[0]) * (box[3] - box[1])
    return shared / (area - shared)


def average_precision(scores: np.ndarray, correct: np.ndarray, positives: int) -> float:
    """Area under the precision-recall curve, precision made monotone (as COCO and VOC 2010 do)."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(correct[order])
    precision = hits / np.arange(1, len(order) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * correct[order]).sum() / max(1, positives))


def detector_metrics(
    model: GroundingDinoForObjectDetection,
    processor: GroundingDinoProcessor,
    evaluated: Sequence[Scene],
    threshold: float = 0.25,
    config: PromptConfig = PromptConfig(),
    batch_size: int = 32,
) -> dict[str, float]:
    """Figures on scenes, each with a prompt of its phrases and absent ones.

    Returns:
        ap50: average precision of all (phrase, box) predictions pooled, right at IoU >= 0.5 and once per true box.
        recall: share of true boxes that the phrase's best box meets at IoU >= 0.5 with a score >= `threshold`.
        localisation: share of true boxes that the phrase's best box meets, whatever its score.
    """
    pooled: list[float] = []
    right: list[bool] = []
    found, met, truth = 0, 0, 0
    groundings = [ground_truth(s, rng_for("evaluate", i), config) for i, s in enumerate(evaluated)]
    for start in range(0, len(groundings), batch_size):
        part = groundings[start : start + batch_size]
        images = [s.image for s in evaluated[start : start + batch_size]]
        inputs = prompt_inputs(processor, images, [g.phrases for g in part])
        for grounding, (scores_PQ, boxes_Q4) in zip(part, phrase_scores(model, processor, inputs), strict=True):
            boxes = boxes_Q4.numpy()
            for phrase_scores_Q, true_boxes in zip(scores_PQ.numpy(), grounding.boxes, strict=True):
                order = np.argsort(-phrase_scores_Q, kind="stable")
                best = order[0]
                overlap = (
                    np.stack([_iou(boxes, box) for box in true_boxes]) if true_boxes else np.zeros((0, len(order)))
                )
                taken = np.zeros(len(true_boxes), dtype=bool)
                for query in order:
                    open_overlap = np.where(taken, 0, overlap[:, query])
                    hit = len(taken) > 0 and open_overlap.max() >= 0.5
                    if hit:
                        taken[open_overlap.argmax()] = True
                    pooled.append(float(phrase_scores_Q[query]))
                    right.append(bool(hit))
                truth += len(true_boxes)
                on_target = int((overlap[:, best] >= 0.5).sum())
                met += on_target
                found += on_target * int(phrase_scores_Q[best] >= threshold)
    return {
        "ap50": average_precision(np.array(pooled), np.array(right), truth),
        "recall": found / max(1, truth),
        "localisation": met / max(1, truth),
    }
