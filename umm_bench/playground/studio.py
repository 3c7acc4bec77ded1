"""What the playground draws, from what its page asks: plain Stable Diffusion beside UMM, from the same noise."""

from __future__ import annotations

import argparse
import base64
import binascii
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umm_bench.base import Usual
from umm_bench.cli.arguments import GUIDANCE, SEED, SHARE, some_text, whole
from umm_bench.errors import UserError
from umm_bench.methods import Prompt
from umm_bench.sample import check_length

if TYPE_CHECKING:
    from PIL.Image import Image

    from umm_bench import methods
    from umm_bench.umm import Subject, SubjectCard, UMMPipeline

MOST_SUBJECTS = 2
MOST_STEPS = 200
UPLOAD_BYTES = 16 * 2**20
"""Of a picture or a card; a photograph of 50 megapixels is smaller."""


@dataclass(frozen=True)
class Drawn:
    """Both from the same noise; `seconds` of the two calls."""

    plain: Image
    umm: Image
    prompt: str
    seconds: tuple[float, float]


class Studio:
    """Draws with a loaded pipeline, one request at a time. `known` are the subjects that a request may name, `usual`
    the settings of one that says nothing.
    """

    def __init__(self, pipe: UMMPipeline, known: Sequence[methods.Subject] = (), usual: Usual | None = None) -> None:
        self.pipe = pipe
        self.usual = usual or Usual()
        self.known = {subject.id: subject for subject in known}
        self._alone = threading.Lock()

    def draw(self, asked: Mapping[str, Any]) -> Drawn:
        """`asked` holds prompt, subjects (each with suite, picture or card, and words and alpha), fast, steps,
        guidance and seed; pictures and cards are in base64. UserError for what cannot be drawn.
        """
        import torch

        subjects, prompt = self._subjects(asked), _text(asked, "prompt", "the prompt")
        try:
            template = Prompt("yours", prompt, "")
            if template.subjects != len(subjects):
                raise ValueError
        except ValueError:
            wanted = "{subject} once" if len(subjects) == 1 else "{subject_1} and {subject_2} once each"
            raise UserError(f"the prompt must hold {wanted}, where the words of the subject go") from None
        text = template.text([subject.words for subject in subjects])
        check_length(self.pipe.tokenizer, "the prompt", text)
        shared: dict[str, Any] = {
            "num_inference_steps": _number(whole(1, MOST_STEPS), asked, "steps", 30),
            "guidance_scale": _number(GUIDANCE, asked, "guidance", self.usual.guidance_scale),
        }
        seed, fast = _number(SEED, asked, "seed", 0), asked.get("fast") is True
        placed = _placed(subjects, text, template.spans([subject.words for subject in subjects]))
        with self._alone:
            try:
                self.pipe.scheduler.set_timesteps(shared["num_inference_steps"])
            except ValueError as error:
                raise UserError(f"these steps are not for this base: {error}") from error
            began = time.monotonic()
            plain = self.pipe(text, generator=torch.Generator("cpu").manual_seed(seed), **shared).images[0]
            between = time.monotonic()
            generator = torch.Generator("cpu").manual_seed(seed)
            shared["subject_guidance_scale"] = shared["guidance_scale"] * self.usual.subject_guidance
            umm = self.pipe(text, subjects=placed, fast=fast, generator=generator, **shared).images[0]
        return Drawn(plain, umm, text, (between - began, time.monotonic() - between))

    def card(self, asked: Mapping[str, Any]) -> tuple[str, bytes]:
        """The first subject that is asked for as a file: its name and what is in it."""
        from umm_bench.umm import SubjectCard

        subject = self._subjects(asked)[0]
        made: SubjectCard | None = subject.card
        if made is None:
            assert subject.image is not None  # of a subject without a card
            with self._alone:
                made = self.pipe.make_card(subject.image, subject.words)
        elif made.phrase != subject.words:
            made = SubjectCard(made.words_KD, subject.words, made.references, made.placement)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "card.safetensors"
            made.save(path)
            content = path.read_bytes()
        name = "".join(letter if letter.isalnum() else "-" for letter in subject.words)[:60]
        return f"{name}.safetensors", content

    def _subjects(self, asked: Mapping[str, Any]) -> list[Subject]:
        wanted = asked.get("subjects")
        if not isinstance(wanted, list) or not 1 <= len(wanted) <= MOST_SUBJECTS:
            raise UserError(f"choose one subject, or two: there are {len(wanted) if isinstance(wanted, list) else 0}")
        return [self._subject(each, f"subject {n}") for n, each in enumerate(wanted, start=1)]

    def _subject(self, asked: Any, name: str) -> Subject:
        from umm_bench.images import open_image
        from umm_bench.umm import Subject

        if not isinstance(asked, dict):
            raise UserError(f"{name} says nothing of where it comes from")
        alpha = _number(SHARE, asked, "alpha", self.usual.alpha)
        if asked.get("card"):
            card = _read_card(_upload(asked["card"], f"the card of {name}"), name)
            words = card.phrase if not asked.get("words") else _text(asked, "words", f"the words of {name}")
            if not words.strip():
                raise UserError(f"the card of {name} does not say its words; write them beside it")
            return Subject(card=card, phrase=words, alpha=alpha)
        if asked.get("picture"):
            picture = open_image(_upload(asked["picture"], f"the picture of {name}"))
            return Subject(picture, _text(asked, "words", f"the words of {name}"), alpha)
        found = self.known.get(str(asked.get("suite") or ""))
        if found is None:
            raise UserError(f"{name} has no picture: choose one of the list, or upload a picture or a card")
        words = _text(asked, "words", f"the words of {name}") if asked.get("words") else found.class_noun
        return Subject([open_image(found.references[0])], words, alpha)


def _placed(subjects: Sequence[Subject], text: str, spans: Sequence[tuple[int, int]]) -> list[Subject]:
    """Each at its own place in the prompt: "a dog next to a dog" may be two of them."""
    from dataclasses import replace

    from umm_bench.umm import phrase_spans

    placed = []
    for subject, span in zip(subjects, spans, strict=True):
        found = phrase_spans(text, subject.words)
        if span not in found:
            raise UserError(f'"{subject.words}" is a part of other words in "{text}"; set it apart with spaces')
        placed.append(replace(subject, occurrence=found.index(span) + 1))
    return placed


def _number(kind: Callable[[str], Any], asked: Mapping[str, Any], name: str, default: Any) -> Any:
    try:
        return kind(str(asked.get(name, default)))
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{name} {error}") from None


def _text(asked: Mapping[str, Any], name: str, called: str) -> str:
    value = asked.get(name)
    try:
        return some_text(value if isinstance(value, str) else "").strip()
    except argparse.ArgumentTypeError as error:
        empty = not isinstance(value, str) or not value.strip()
        raise UserError(f"write {called}: nothing is there" if empty else f"{called} {error}") from None


def _upload(text: Any, name: str) -> bytes:
    if not isinstance(text, str) or len(text) > UPLOAD_BYTES * 4 / 3 + 4:
        raise UserError(f"{name} is larger than {UPLOAD_BYTES // 2**20} MB; make it smaller")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UserError(f"{name} did not arrive whole; upload it again") from None


def _read_card(content: bytes, name: str) -> SubjectCard:
    from umm_bench.umm import load_card

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "card"
        path.write_bytes(content)
        try:
            return load_card(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), f"the card of {name}")) from None


def as_png(image: Image) -> str:
    """A picture as the address of itself."""
    content = BytesIO()
    image.save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
