"""Subject cards: a subject's pseudo words in one small file, made once and used without its pictures.

A card needs neither the image encoder nor the TIUE that made it, only a base with the same text encoder.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from atomic import whole_file
from umm_bench.errors import UserError
from umm_bench.umm.settings import Placement

FORMATS: dict[str, Placement] = {"umm-card/1": "replace", "umm-card/2": "add", "umm-card/3": "before"}


@dataclass(frozen=True, eq=False)
class SubjectCard:
    """`words_KD` are K pseudo words of the text encoder's width D; `phrase` is the noun they were made for, and
    `references` the number of pictures that they average. `placement` is what they do to the words of the phrase in
    whose place a prompt has the card, as a TIUE's.
    """

    words_KD: Tensor
    phrase: str
    references: int = 1
    placement: Placement = "replace"

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file (3 kB for a word of Stable Diffusion 1.5), whole or not at all."""
        version = next(name for name, placement in FORMATS.items() if placement == self.placement)
        metadata = {"format": version, "phrase": self.phrase, "references": str(self.references)}
        with whole_file(Path(path)) as unfinished:
            save_file({"words": self.words_KD.detach().float().cpu().contiguous()}, unfinished, metadata=metadata)


def load_card(path: str | Path) -> SubjectCard:
    """Reads a card; nothing in the file is ever executed.

    Raises UserError for a missing file, a pickle, another kind of safetensors file and words that are not finite.
    """
    if not os.path.isfile(path):
        raise UserError(f"no subject card at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") not in FORMATS or "words" not in file.keys():  # noqa: SIM118
                raise UserError(f"{path} is no subject card ({', '.join(FORMATS)}); make one with `sample --save-card`")
            words_KD = file.get_tensor("words")
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(_unreadable(path, error)) from error
    if words_KD.ndim != 2 or not words_KD.numel() or not words_KD.is_floating_point():
        raise UserError(f"the subject card {path} is damaged: its words must be K x D numbers")
    if not words_KD.float().isfinite().all():
        raise UserError(f"the subject card {path} is damaged: its words are not finite")
    references = metadata.get("references", "1")
    count = int(references) if references.isdecimal() and len(references) < 10 else 1
    return SubjectCard(words_KD, metadata.get("phrase", ""), count, FORMATS[metadata["format"]])


def _unreadable(path: str | Path, error: Exception) -> str:
    try:
        with open(path, "rb") as file:
            start = file.read(2)
    except OSError as reason:
        return f"{path} cannot be read: {reason.strerror}"
    # a pickle of protocol 2 or later, or torch.save's zip archive of one
    if start in (b"PK",) or start[:1] == b"\x80":
        return f"{path} is pickled, which can run code when read; a subject card is a safetensors file"
    return f"{path} is no safetensors file: {error}"
