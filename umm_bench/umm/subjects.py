"""Subjects in a prompt: whose words are where, and the hidden states with some of them taken from images.

Shapes: N prompts, L tokens, D width of the text encoder, E of the image embedding, K pseudo words, S subjects.
"""

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
from umm_bench.umm.tiue import find_phrase, fuse_hidden_states, place_words, read_positions, rearranged_hidden_states


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


def subject_masks(tokenizer: CLIPTokenizer, prompts: Sequence[str], subjects: Sequence[Subject], length: int) -> Tensor:
    """Where each subject's tokens are in each prompt, [S, N, length].

    Raises UserError for a phrase that a prompt lacks, repeats or cuts off, and for phrases that overlap.
    """
    masks_SNL = torch.zeros(len(subjects), len(prompts), length, dtype=torch.bool)
    for n, prompt in enumerate(prompts):
        for s, subject in enumerate(subjects):
            positions = find_phrase(tokenizer, prompt, subject.words, subject.occurrence)
            masks_SNL[s, n, list(positions)] = True
        if (masks_SNL[:, n].sum(dim=0) > 1).any():
            raise UserError(f'two subjects share words of the prompt "{prompt}"')
    return masks_SNL


def branch_hidden_states(
    pipe: StableDiffusionPipeline,
    input_ids_NL: Tensor,
    h_y_NLD: Tensor,
    masks_SNL: Tensor,
    words: Sequence[Tensor],
    residual: Sequence[bool],
    branches: Iterable[frozenset[int]],
) -> dict[Branch, Tensor]:
    """h_u [N, L, D] of each branch: h_y with the subjects of the branch taken from their pseudo words [K, D].

    Those of a `residual` subject are added to its own words.
    """
    placed_SNLD = torch.stack(
        [
            place_words(words_KD.expand(len(input_ids_NL), -1, -1), mask_NL, adds)
            for words_KD, mask_NL, adds in zip(words, masks_SNL, residual, strict=True)
        ]
    )
    added_SNL = masks_SNL & torch.tensor(residual, device=masks_SNL.device)[:, None, None]
    hidden_states: dict[Branch, Tensor] = {}
    for branch in branches:
        drawn = sorted(branch)
        mask_NL = masks_SNL[drawn].any(dim=0)
        words_NLD = placed_SNLD[drawn].sum(dim=0)
        read_NL = read_positions(pipe, input_ids_NL, mask_NL)
        added_NL = added_SNL[drawn].any(dim=0)
        h_r = rearranged_hidden_states(pipe.text_encoder, input_ids_NL, mask_NL, words_NLD, read_NL, added_NL)
        hidden_states[branch] = fuse_hidden_states(h_y_NLD, h_r, read_NL)
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
