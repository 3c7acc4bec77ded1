"""A method, a suite and tiny metric models for the harness's own tests. Nothing here draws or judges anything."""

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from umm_bench.base import Base
from umm_bench.errors import UserError
from umm_bench.methods import METHODS, Case, Prompt, Subject
from umm_bench.suites.base import SUITES, Check, SubjectCheck

SUBJECTS = [("red-fox", "fox", "live"), ("blue-cup", "cup", "object"), ("green-owl", "owl", "live")]
PROMPTS = [
    ("beach", "a {subject} on the beach", "recontextualise"),
    ("snow", "a {subject} in the snow", "recontextualise"),
    ("hat", "a {subject} with a hat", "accessorise"),
]
PAIRS = [("red-fox", "blue-cup"), ("blue-cup", "green-owl")]
PAIR_PROMPTS = [
    ("beside", "a {subject_1} next to a {subject_2}", "two_references"),
    ("over", "a {subject_2} above a {subject_1}", "two_references"),
]


@dataclass(frozen=True)
class PainterConfig:
    shade: int = 100
    fail_after: int | None = None


class Painter:
    """An image of one colour that depends on the seed and the shade. Writes down what it was asked for.

    It draws several subjects, and a setup is for each.
    """

    name = "painter"
    config_class = PainterConfig
    max_subjects = None
    drawn: ClassVar[list[tuple[str, str, int]]] = []
    set_up: ClassVar[list[tuple[str, bool]]] = []
    """(subject, whether it was found complete)"""
    fail_after: int | None = None

    def __init__(self, base, config, generation):
        self.config = config

    def setup(self, subject, directory):
        found = directory.is_dir()
        Painter.set_up.append((subject.id, found))
        if not found:
            directory.mkdir()
            (directory / "state.txt").write_text(subject.id)
        return (directory / "state.txt").read_text()

    def generate(self, states, case, prompt, seeds):
        assert states == [subject.id for subject in case.subjects]
        if self.fail_after is not None and len(Painter.drawn) >= self.fail_after:
            raise KeyboardInterrupt
        Painter.drawn += [(case.id, prompt.id, seed) for seed in seeds]
        return [paint(seed, self.config.shade) for seed in seeds]


class OtherPainter(Painter):
    """Saves nothing, and draws one subject only."""

    name = "other"
    max_subjects = 1

    def setup(self, subject, directory):
        return subject.id


@dataclass(frozen=True)
class MortalConfig(PainterConfig):
    most: int = 100
    grave: str = ""
    deaths: int = 0


class MortalPainter(Painter):
    """Draws fewer at a time than it is asked to where memory is short, or takes its process with it."""

    name = "mortal"

    config_class = MortalConfig
    at_once: ClassVar[list[int]] = []

    def generate(self, states, case, prompt, seeds):
        if self.config.grave and case.id == "red-fox":
            grave = Path(self.config.grave)
            before = len(grave.read_text()) if grave.exists() else 0
            if before < self.config.deaths:
                grave.write_text("x" * (before + 1))
                os.kill(os.getpid(), signal.SIGKILL)
        if len(seeds) > self.config.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes\nat 0x1")
        MortalPainter.at_once.append(len(seeds))
        return super().generate(states, case, prompt, seeds)


class EmptyBase(Base):
    """A base without weights, in whichever process."""

    def pipeline(self):
        return None


class SetPainter(Painter):
    """A setup is for all subjects of a case together."""

    name = "set"
    setup_for = "case"

    def generate(self, states, case, prompt, seeds):
        assert states == [case.id]
        Painter.drawn += [(case.id, prompt.id, seed) for seed in seeds]
        return [paint(seed, self.config.shade) for seed in seeds]


class FussyPainter(Painter):
    """Refuses prompts about snow while planning, fails to set up the owl, and fails to draw a hat."""

    name = "fussy"

    @staticmethod
    def check(config, base, case, prompt):
        return "too cold" if prompt.id == "snow" else None

    @staticmethod
    def words(config, case):
        return [f"fussy {noun}" for noun in case.class_nouns]

    def setup(self, subject, directory):
        Painter.set_up.append((subject.id, directory.is_dir()))
        if subject.id == "green-owl":
            raise UserError("owls do not sit still\nnever")
        return subject.id

    def generate(self, states, case, prompt, seeds):
        if prompt.id == "hat":
            raise IndexError("no hat in store")
        return super().generate(states, case, prompt, seeds)


def paint(seed: int, shade: int) -> Image.Image:
    color = np.random.default_rng(seed).integers(0, 150, 3) + shade
    return Image.new("RGB", (32, 32), tuple(int(c) for c in color))


class FakeSuite:
    """`path` as `make_suite` leaves it. The truth, in a file: identity where the image is redder than blue."""

    name = "fake"
    version = 1

    def __init__(self, path=None):
        self.path = path
        self.truth = (path / "truth.txt",)

    def subjects(self):
        return [
            Subject(name, noun, tuple(sorted((self.path / name).glob("*.png"))), kind) for name, noun, kind in SUBJECTS
        ]

    def pairs(self):
        known = {subject.id: subject for subject in self.subjects()}
        return [Case((known[first], known[second])) for first, second in PAIRS]

    def prompts(self, case):
        return [Prompt(*parts) for parts in (PROMPTS if len(case.subjects) == 1 else PAIR_PROMPTS)]

    def check(self, image, case, prompt):
        red, green, blue = image.getpixel((0, 0))
        evidence = {"best_design": "blue-cup", "red": red, "blue": blue}
        identity = red > blue if self.truth[0].read_text() == "red" else blue > red
        verdict = SubjectCheck(identity, concept=True, evidence=evidence)
        return Check((verdict,) * len(case.subjects), background=green > 120)

    def concept_counts(self):
        return {"fox": 10}


def make_suite(path: Path) -> Path:
    for number, (name, _, _) in enumerate(SUBJECTS):
        (path / name).mkdir(parents=True)
        for index in range(3):
            paint(10 * number + index, 80).save(path / name / f"{index:02d}.png")
    (path / "truth.txt").write_text("red")
    return path


def make_clip(path: Path) -> Path:
    """A random CLIP with a tokenizer of single letters, its end token not 2."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    path.mkdir(parents=True)
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (path / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(path / "vocab.json"), str(path / "merges.txt"), model_max_length=40)
    tokenizer.save_pretrained(path)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    text = {**sizes, **ends, "vocab_size": len(words), "max_position_embeddings": 40}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8})
    CLIPModel(config).half().save_pretrained(path)
    size = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(path)
    return path


def make_encoder(path: Path) -> Path:
    import torch
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    ViTModel(config).save_pretrained(path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def register():
    """Context managers under which the fakes are known by name."""
    return [
        METHODS.register("painter", Painter),
        METHODS.register("other", OtherPainter),
        METHODS.register("set", SetPainter),
        METHODS.register("fussy", FussyPainter),
        METHODS.register("mortal", MortalPainter),
        SUITES.register("fake", FakeSuite),
    ]


def arguments(world: Path, output: Path, *more: str) -> list[str]:
    """A command line for the fakes in `world`, less its methods. What `more` says goes before."""
    asked = more[more.index("--metrics") + 1] if "--metrics" in more else "clip_t,clip_i,dino"
    names = [name for name in asked.split(",") if name in ("clip_t", "clip_i", "dino") or "dino" not in asked]
    names = [name for name in names if name not in ("identity", "sharpness", "blockiness")]
    models = {f"{name}.model": "clip" if name.startswith("clip") else "encoder" for name in names}
    free = {name: folder for name, folder in models.items() if not any(word.startswith(f"{name}=") for word in more)}
    return [
        *("--suite", "fake", "--suite-path", str(world / "suite"), "--base", str(world / "base")),
        *(word for name, folder in free.items() for word in ("--set", f"{name}={world / folder}")),
        *("--output", str(output), "--subjects", "2", "--prompts", "2", "--no-floor", *more),
    ]
