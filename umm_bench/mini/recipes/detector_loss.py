"""The detector's loss: transformers' own criterion given the right arguments, and an alignment for a quick start."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GroundingDinoForObjectDetection
from transformers.loss.loss_grounding_dino import GroundingDinoForObjectDetectionLoss
from transformers.models.grounding_dino.modeling_grounding_dino import build_label_maps, build_text_mask

from umm_bench.mini.recipes.detector_data import Batch

# Proposals that each object may claim (as H-DETR's one-to-many branch; the decoder stays one to one).
PROPOSALS_PER_OBJECT = 4
TEMPERATURE = 0.1
LEVELS = 3  # feature maps that the detector looks at, each half as wide as the one before


def criterion(logits: Tensor, labels: list[dict[str, Tensor]], device: torch.device, pred_boxes: Tensor, config: Any,
              label_maps: tuple[Tensor, ...], text_mask: Tensor, **auxiliary: Any) -> Any:  # fmt: skip
    """transformers' GroundingDINO loss with the two arguments that it gets wrong put right.

    It looks up the tokens of class c of image i at row c + len(maps[i]) of all images' maps, which is right for the
    first two images only; with every image given the whole table and its classes' rows in it, any copy is right. And
    its two-stage part scores the learned queries instead of the proposals, so it is left out here.
    """
    starts = torch.tensor([0] + [len(m) for m in label_maps[:-1]]).cumsum(0).tolist()
    labels = [{**lab, "class_labels": lab["class_labels"] + start} for lab, start in zip(labels, starts, strict=True)]
    auxiliary = {k: v for k, v in auxiliary.items() if k in ("outputs_class", "outputs_coord")}
    config = copy.copy(config)
    config.two_stage, config.auxiliary_loss = False, bool(auxiliary)
    tables = (torch.cat(label_maps),) * len(labels)
    return GroundingDinoForObjectDetectionLoss(
        logits, labels, device, pred_boxes, config, tables, text_mask, **auxiliary
    )


def alignment_loss(vision_BSD: Tensor, text_BLD: Tensor, maps: tuple[Tensor, ...], batch: Batch) -> Tensor:
    """Contrast what is inside each true box with all phrases of the batch, before vision and text are fused.

    GroundingDINO starts from towers that know their words; from scratch, this is what teaches them (InfoNCE both ways).
    Phrases about the object's own concept in other prompts are neither right nor wrong and stay out.
    """
    phrases_PD = torch.cat(
        [m[:, : text_BLD.shape[1]].float() @ t / m.sum(1, keepdim=True) for m, t in zip(maps, text_BLD, strict=True)]
    )
    concepts = [c for image in batch.concepts for c in image]
    centers_S2 = _cell_centers(vision_BSD.shape[1], vision_BSD.device)
    objects, targets, start = [], [], 0
    for v_SD, label, m in zip(vision_BSD, batch.labels, maps, strict=True):
        center, half = label["boxes"][:, None, :2], label["boxes"][:, None, 2:] / 2
        inside_NS = ((centers_S2 - center).abs() <= half.clamp(min=0.07)).all(-1).float()
        objects.append(inside_NS @ v_SD / inside_NS.sum(1, keepdim=True).clamp(min=1))
        targets.append(label["class_labels"] + start)
        start += len(m)
    target_N = torch.cat(targets)
    logits_NP = F.normalize(torch.cat(objects), dim=-1) @ F.normalize(phrases_PD, dim=-1).T / TEMPERATURE
    index = {name: i for i, name in enumerate(dict.fromkeys(concepts))}
    concept_P = torch.tensor([index[c] for c in concepts], device=logits_NP.device)
    own_NP = F.one_hot(target_N, len(concepts)).bool()
    logits_NP = logits_NP.masked_fill((concept_P[target_N, None] == concept_P) & ~own_NP, -1e4)
    # Columns are phrases: only those that are there have an object to choose.
    to_phrase = F.cross_entropy(logits_NP, target_N)
    to_object = F.cross_entropy(logits_NP.T[target_N], torch.arange(len(target_N), device=target_N.device))
    return to_phrase + to_object


def _cell_centers(cells: int, device: torch.device) -> Tensor:
    """Centres of the feature levels' cells, [cells, 2] xy in [0, 1]: n x n, then half of n on each side and so on."""
    n = round((cells / sum(4**-level for level in range(LEVELS))) ** 0.5)
    levels = []
    for level in range(LEVELS):
        side = n >> level
        axis = (torch.arange(side, device=device) + 0.5) / side
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        levels.append(torch.stack([x.flatten(), y.flatten()], 1))
    return torch.cat(levels)


def detector_loss(model: GroundingDinoForObjectDetection, batch: Batch, alignment: float = 1.0) -> Tensor:
    """The training loss of a batch, a scalar: decoder layers, the encoder's proposals, and the alignment.

    The `labels` path of transformers detaches the proposals' boxes and scores something else in their place, so that
    the proposal heads would stay random. Here all proposals are matched by the same criterion, as in the paper.
    """
    model.loss_function = criterion
    outputs = model(**batch.inputs, labels=batch.labels, output_hidden_states=True)
    ids = batch.inputs["input_ids"]
    # Logits are padded to `max_text_len`; over all proposals that would cost more than the model.
    proposals_BSL = outputs.enc_outputs_class[..., : ids.shape[1]]
    maps = build_label_maps(proposals_BSL, ids)  # type: ignore[arg-type]
    k = PROPOSALS_PER_OBJECT
    claims = [
        {"class_labels": lab["class_labels"].repeat(k), "boxes": lab["boxes"].repeat(k, 1)} for lab in batch.labels
    ]
    proposal_loss, _, _ = criterion(
        proposals_BSL,
        claims,
        model.device,
        outputs.enc_outputs_coord_logits.sigmoid(),
        model.config,
        maps,
        build_text_mask(proposals_BSL, batch.inputs["attention_mask"]),
    )
    vision, text = outputs.encoder_vision_hidden_states[0], outputs.encoder_text_hidden_states[0]
    return outputs.loss + proposal_loss + alignment * alignment_loss(vision, text, maps, batch)
