"""Text-and-image unified encoding: an image becomes a word, and the word takes its place in the prompt.

Shapes: B batch, L tokens, D width of the text encoder, E width of the image embedding, K pseudo words.
h_y hidden states of the text; h_r of the text with the subject's words replaced, added to or preceded by pseudo words;
h_u = h_y with h_r where the subject is read: at its words and, for a UNet that also reads a summary of the text, where
the text has ended.
"""

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin, StableDiffusionPipeline
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from umm_bench.errors import UserError
from umm_bench.umm.settings import PLACEMENTS, Placement
from umm_bench.weights import LOAD_ERRORS, first_line, weights_variant


class TIUE(ModelMixin, ConfigMixin):
    """v = MLP(CLIP_image(x_s)): the only trainable part.

    `image_dim` is the width of the image embedding (`projection_dim` of the image encoder), `text_dim` the
    width of the text encoder. `word_std` is the standard deviation of the base's own word embeddings, so that
    an untrained pseudo word has the size of a word.

    `placement` "replace" is the paper's. With "add" the pseudo word is added to the subject's own words, as in E4T
    (2302.12228), and with "before" K pseudo words stand before them, as adjectives would: in both the subject's own
    words go on saying what it is. Untrained, a TIUE that adds changes nothing.

    Raises ValueError for another placement.
    """

    @register_to_config
    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        num_pseudo_words: int = 1,
        hidden_dim: int = 1024,
        depth: int = 2,
        word_std: float = 0.02,
        placement: Placement = "replace",
    ):
        super().__init__()
        if placement not in PLACEMENTS:
            raise ValueError(f"placement is {placement!r}; it must be one of {', '.join(PLACEMENTS)}")
        layers: list[nn.Module] = [nn.LayerNorm(image_dim)]
        width = image_dim
        for _ in range(depth):
            layers += [nn.Linear(width, hidden_dim), nn.GELU()]
            width = hidden_dim
        last = nn.Linear(width, num_pseudo_words * text_dim)
        if placement == "add":
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        layers += [last, nn.Unflatten(-1, (num_pseudo_words, text_dim))]
        self.mlp = nn.Sequential(*layers)
        self.word_std = word_std

    def forward(self, image_embeds_BE: Tensor) -> Tensor:
        """Image embeddings [B, E] -> pseudo words [B, K, D]."""
        return self.word_std * self.mlp(image_embeds_BE)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As ConfigMixin's; the `residual` of older files is the placement "add"."""
        config_dict = dict(config_dict)
        if config_dict.pop("residual", False):
            config_dict["placement"] = "add"
        return super().extract_init_dict(config_dict, **kwargs)


def load_tiue(path: str | Path, **kwargs: Any) -> TIUE:
    """A trained TIUE from a folder or the hub. Raises UserError when there is none, only a pickled one, another model's
    or one that is damaged.
    """
    try:
        tiue = TIUE.from_pretrained(str(path), use_safetensors=True, variant=weights_variant(str(path)), **kwargs)
        broken = [name for name, tensor in tiue.state_dict().items() if not tensor.isfinite().all()]
        if broken:
            raise ValueError(f"{broken[0]} is not finite")
        return tiue
    except LOAD_ERRORS as error:
        if os.path.isfile(Path(path) / "config.json") and list(Path(path).glob("*.safetensors")):
            raise UserError(f"{path} holds no TIUE that can be read: {first_line(error)}") from error
        pickles = sorted(Path(path).glob("*.bin")) if os.path.isdir(path) else []
        if pickles:
            raise UserError(
                f"{pickles[0]} holds pickled weights, which can run code when read; convert it to safetensors"
            ) from error
        raise UserError(f"{path} holds no TIUE (config.json with diffusion_pytorch_model.safetensors)") from error


def span_positions(tokenizer: CLIPTokenizer, prompt: str, start: int, end: int, room: int = 0) -> tuple[int, ...]:
    """Token positions of the characters `prompt[start:end]`, counted from the start token at 0.

    Raises UserError when the tokenizer's length limit, with `room` for pseudo words, would cut any of them off.
    """
    offsets = tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
    positions = tuple(i for i, (a, b) in enumerate(offsets) if a < b and a < end and b > start)
    phrase = prompt[start:end]
    if not positions:
        raise UserError(f'"{phrase}" leaves no token in the prompt "{prompt}"')
    limit = tokenizer.model_max_length - 1 - room  # the last place belongs to the end token
    if positions[-1] >= limit:
        raise UserError(
            f'the prompt is cut at {limit - 1} tokens, before the end of "{phrase}"; '
            "shorten it or name the subject earlier"
        )
    return positions


def cut_off(tokenizer: CLIPTokenizer, text: str, room: int = 0) -> str:
    """The end of `text` that is beyond the tokenizer's length limit, with `room` for pseudo words; empty where all of
    it is read.
    """
    offsets = tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    limit = tokenizer.model_max_length - room
    # the last of the places belongs to the end token
    return text[offsets[limit - 1][0] :] if len(offsets) > limit else ""


def phrase_spans(prompt: str, phrase: str) -> list[tuple[int, int]]:
    """Where `phrase` is in `prompt`, as (start, end) in characters: whole words in any letter case and Unicode form.

    Raises UserError for an empty phrase.
    """
    if not phrase.strip():
        raise UserError("the subject's phrase is empty; name the words of the prompt that the image stands for")
    # An accent may be a character of its own in one and not in the other; it belongs to the letter before it.
    words = [{unicodedata.normalize(form, word) for form in ("NFC", "NFD")} | {word} for word in phrase.split()]
    pattern = r"\s+".join(f"(?:{'|'.join(map(re.escape, sorted(forms)))})" for forms in words)
    pattern = rf"(?<![\w\u0300-\u036f]){pattern}(?![\w\u0300-\u036f])"
    return [match.span() for match in re.finditer(pattern, prompt, flags=re.IGNORECASE)]


def find_phrase(
    tokenizer: CLIPTokenizer, prompt: str, phrase: str, occurrence: int | None = None, room: int = 0
) -> tuple[int, ...]:
    """Token positions of `phrase`, as `phrase_spans` finds it, anywhere in `prompt`.

    `occurrence`, from 1, says which one is meant where the prompt has it more than once. Raises UserError when the
    prompt lacks the phrase or that occurrence, has it more than once and none is given, or is cut before its end, with
    `room` for pseudo words.
    """
    spans = phrase_spans(prompt, phrase)
    if not spans:
        raise UserError(f'the prompt "{prompt}" does not contain the subject "{phrase}"')
    if occurrence is None and len(spans) > 1:
        raise UserError(
            f'the prompt "{prompt}" contains the subject "{phrase}" {len(spans)} times; '
            "give a longer phrase that occurs once, or say which one is meant"
        )
    place = 1 if occurrence is None else occurrence
    if not 0 < place <= len(spans):
        raise UserError(f'the prompt "{prompt}" has no occurrence {place} of "{phrase}"; it has {len(spans)}')
    return span_positions(tokenizer, prompt, *spans[place - 1], room)


def place_words(words_BKD: Tensor, mask_BL: Tensor, shared: bool = False) -> Tensor:
    """Pseudo words at the marked positions of each row, zeros elsewhere: [B, L, D].

    The j-th marked token takes word j; tokens beyond the last word repeat it, and a phrase shorter than K uses the
    first words only. `shared` among a row's marked tokens, words that are added move a name of several tokens as far
    as a name of one.
    """
    word_BL = (mask_BL.cumsum(dim=1) - 1).clamp(0, words_BKD.shape[1] - 1)
    words_BLD = words_BKD.gather(1, word_BL[..., None].expand(-1, -1, words_BKD.shape[2]))
    if shared:
        words_BLD = words_BLD / mask_BL.sum(dim=1).clamp(min=1)[:, None, None]
    return words_BLD * mask_BL[..., None]


def places_before(mask_BL: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """How rows of L tokens look with `count` places before their first marked token; their last `count` are gone.

    Returns where each place comes from, [B, L], to gather by, and which are new, bool [B, L]. Those come from the
    first marked token. A row without a mark stays as it is.
    """
    place_BL = torch.arange(mask_BL.shape[1], device=mask_BL.device).expand_as(mask_BL)
    first_B1 = torch.where(mask_BL, place_BL, mask_BL.shape[1]).amin(dim=1, keepdim=True)
    source_BL = torch.where(place_BL < first_B1, place_BL, (place_BL - count).maximum(first_B1))
    new_BL = (place_BL >= first_B1) & (place_BL < first_B1 + count)
    return source_BL, new_BL


@dataclass(frozen=True)
class Rearranged:
    """Texts with pseudo words in their places: what `rearranged_hidden_states` encodes.

    `h_y_BLD` are the hidden states of the tokens as the text alone has them, moved where words stand before a subject.
    `mask_BL` is where pseudo words are, `added_BL` the part of it where they are added, `subject_BL` also the subjects'
    own words.
    """

    input_ids_BL: Tensor
    h_y_BLD: Tensor
    words_BLD: Tensor
    mask_BL: Tensor
    added_BL: Tensor
    subject_BL: Tensor


def rearrange(
    input_ids_BL: Tensor,
    h_y_BLD: Tensor,
    masks_SBL: Tensor,
    words: Sequence[Tensor],
    placements: Sequence[Placement],
) -> Rearranged:
    """Each subject's pseudo words [B, K, D] placed at, or before, its own words, which `masks_SBL` marks.

    Words before a subject move the rest of the text on; as many tokens at its end are gone, the last of all stays.
    """
    last_B1 = input_ids_BL[:, -1:]
    own_SBL, places_SBL = masks_SBL, masks_SBL.clone()
    for s, placement in enumerate(placements):
        if placement != "before":
            continue
        source_BL, new_BL = places_before(own_SBL[s], words[s].shape[1])
        source_SBL = source_BL.expand(len(masks_SBL), -1, -1)
        own_SBL = own_SBL.gather(2, source_SBL) & ~new_BL
        places_SBL = places_SBL.gather(2, source_SBL) & ~new_BL
        places_SBL[s] = new_BL
        input_ids_BL = torch.cat([input_ids_BL.gather(1, source_BL)[:, :-1], last_B1], dim=1)
        h_y_BLD = h_y_BLD.gather(1, source_BL[..., None].expand_as(h_y_BLD))
    adds_S = torch.tensor([placement == "add" for placement in placements], device=masks_SBL.device)
    placed = [place_words(*each) for each in zip(words, places_SBL, adds_S.tolist(), strict=True)]
    return Rearranged(
        input_ids_BL,
        h_y_BLD,
        torch.stack(placed).sum(dim=0),
        places_SBL.any(dim=0),
        (places_SBL & adds_S[:, None, None]).any(dim=0),
        (places_SBL | own_SBL).any(dim=0),
    )


@contextmanager
def _word_embeddings_replaced(
    text_encoder: CLIPTextModel, mask_BL: Tensor, words_BLD: Tensor, added_BL: Tensor
) -> Iterator[None]:
    # CLIPTextModel takes no inputs_embeds (transformers 5), and a copy of its forward would rot
    def replace(module: nn.Module, args: tuple[Any, ...], embeds_BLD: Tensor) -> Tensor:
        words = words_BLD.to(embeds_BLD.dtype) + embeds_BLD * added_BL[..., None]
        return torch.where(mask_BL[..., None], words, embeds_BLD)

    hook = text_encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


def read_positions(pipe: StableDiffusionPipeline, input_ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """Where h_u is h_r, bool [B, L]: `mask_BL`, and in some UNets the end token and the padding after it.

    Stable Diffusion reads its text by cross-attention alone, so that a change at the subject's words is read there. A
    UNet that also adds all positions' summary to its time embedding (`addition_embed_type="text"`, as DeepFloyd IF)
    hardly notices one position in it. Where the text has ended a causal encoder holds the whole of it, the pseudo word
    included; the words around the subject stay those of h_y.
    """
    if pipe.unet.config.addition_embed_type != "text":
        return mask_BL
    return mask_BL | ((input_ids_BL == pipe.tokenizer.eos_token_id).cumsum(dim=1) > 0)


def rearranged_hidden_states(
    text_encoder: CLIPTextModel,
    input_ids_BL: Tensor,
    mask_BL: Tensor,
    words_BLD: Tensor,
    read_BL: Tensor | None = None,
    added_BL: Tensor | None = None,
) -> Tensor:
    """h_r = CLIP_text(word embeddings of y, those under the mask replaced by v), up to the last position of `read_BL`.

    That is the mask where left out. Under `added_BL`, a part of the mask, v is added instead. CLIP's text encoder is
    causal, so what follows cannot change h_r there, and nothing else of h_r is used. Returns [B, n, D] with n <= L.
    """
    read_BL = mask_BL if read_BL is None else read_BL
    added_BL = torch.zeros_like(mask_BL) if added_BL is None else added_BL
    n = int(read_BL.any(dim=0).nonzero().max()) + 1
    with _word_embeddings_replaced(text_encoder, mask_BL[:, :n], words_BLD[:, :n], added_BL[:, :n]):
        return text_encoder(input_ids_BL[:, :n])[0]


def fuse_hidden_states(h_y_BLD: Tensor, h_r_BnD: Tensor, read_BL: Tensor) -> Tensor:
    """h_u = where(read, h_r, h_y); h_r may end after the last position that is read."""
    n = h_r_BnD.shape[1]
    h_u_BnD = torch.where(read_BL[:, :n, None], h_r_BnD, h_y_BLD[:, :n])
    return torch.cat([h_u_BnD, h_y_BLD[:, n:]], dim=1)


def subject_hidden_states(
    pipe: StableDiffusionPipeline,
    input_ids_BL: Tensor,
    h_y_BLD: Tensor,
    masks_SBL: Tensor,
    words: Sequence[Tensor],
    placements: Sequence[Placement],
) -> Tensor:
    """h_u [B, L, D] of texts, some subjects of which are taken from their pseudo words [B, K, D]; see `rearrange`."""
    text = rearrange(input_ids_BL, h_y_BLD, masks_SBL, words, placements)
    read_BL = read_positions(pipe, text.input_ids_BL, text.subject_BL)
    h_r_BnD = rearranged_hidden_states(
        pipe.text_encoder, text.input_ids_BL, text.mask_BL, text.words_BLD, read_BL, text.added_BL
    )
    return fuse_hidden_states(text.h_y_BLD, h_r_BnD.to(h_y_BLD.dtype), read_BL)
