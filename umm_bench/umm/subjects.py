"""Subjects in a prompt: whose words are where, and the hidden states with some of them taken from images.

Shapes: N prompts, L tokens, D width of the text encoder, E of the image embedding, K pseudo words, S subjects.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import scale_lora_layers, unscale_lora_layers
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from umm_bench.errors import UserError
from umm_bench.images import ImageInput
from umm_bench.umm.cards import SubjectCard
from umm_bench.umm.guidance import Branch, Schedule
from umm_bench.umm.settings import Placement
from umm_bench.umm.tiue import cut_off, find_phrase, subject_hidden_states

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """Images and the words of the prompt that they stand for.

    `image` is one reference or a list of them, whose embeddings are averaged. `phrase` may span several words; a style
    is a subject too: `Subject(picture, "<image>")` with "a dog in the style of <image>". Where the prompt has the
    phrase more than once, `occurrence`, from 1, says which one is meant: "a dog next to a dog" may be two subjects.
    `alpha`, a number or a schedule, overrides the call's. `embeds` [E] or [n, E], image embeddings made before, or a
    `card` replace `image`; a card's own phrase is used where none is given.
    """

    image: ImageInput | Sequence[ImageInput] | None = None
    phrase: str = ""
    alpha: Schedule | None = None
    embeds: Tensor | None = None
    card: SubjectCard | None = None
    occurrence: int | None = None

    @property
    def words(self) -> str:
        """The phrase to look for in the prompt."""
        return self.phrase or (self.card.phrase if self.card is not None else "")


def subject_masks(
    tokenizer: CLIPTokenizer, prompts: Sequence[str], subjects: Sequence[Subject], length: int, room: int = 0
) -> Tensor:
    """Where each subject's tokens are in each prompt, [S, N, length]; `room` is left for words before the subjects.

    Raises UserError for a phrase that a prompt lacks, repeats or cuts off, and for phrases that overlap.
    """
    masks_SNL = torch.zeros(len(subjects), len(prompts), length, dtype=torch.bool)
    for n, prompt in enumerate(prompts):
        for s, subject in enumerate(subjects):
            positions = find_phrase(tokenizer, prompt, subject.words, subject.occurrence, room)
            masks_SNL[s, n, list(positions)] = True
        if (masks_SNL[:, n].sum(dim=0) > 1).any():
            raise UserError(f'two subjects share words of the prompt "{prompt}"')
        if room and (lost := cut_off(tokenizer, prompt, room)):  # without room it is encode_prompt that warns
            logger.warning('with pseudo words before its subjects the prompt is too long; not read of it: "%s"', lost)
    return masks_SNL


def branch_hidden_states(
    pipe: StableDiffusionPipeline,
    input_ids_NL: Tensor,
    h_y_NLD: Tensor,
    masks_SNL: Tensor,
    words: Sequence[Tensor],
    placements: Sequence[Placement],
    branches: Iterable[frozenset[int]],
) -> dict[Branch, Tensor]:
    """h_u [N, L, D] of each branch: h_y with the subjects of the branch taken from their pseudo words [K, D]."""
    hidden_states: dict[Branch, Tensor] = {}
    for branch in branches:
        drawn = sorted(branch)
        words_NKD = [words[s].expand(len(input_ids_NL), -1, -1) for s in drawn]
        hidden_states[branch] = subject_hidden_states(
            pipe, input_ids_NL, h_y_NLD, masks_SNL[drawn], words_NKD, [placements[s] for s in drawn]
        )
    return hidden_states


@contextmanager
def lora_scaled(text_encoder: CLIPTextModel, scale: float | None) -> Iterator[None]:
    """The text encoder's LoRA, if a scale is given, at that scale."""
    if scale is None:
        yield
        return
    scale_lora_layers(text_encoder, scale)
    try:
        yield
    finally:
        unscale_lora_layers(text_encoder, scale)
