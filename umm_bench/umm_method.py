"""UMM-Diffusion as a benchmarked method: no setup, one reference image, one call."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image

from umm_bench.base import Base, resolve_model, usual
from umm_bench.errors import UserError
from umm_bench.weights import LOAD_ERRORS, first_line, weights_variant

if TYPE_CHECKING:
    from transformers import CLIPImageProcessorPil, PreTrainedModel

    from umm_bench import umm
    from umm_bench.methods import Case, Generation, Prompt, Subject
    from umm_bench.umm import UMMPipeline

# the vision tower of the CLIP whose text tower Stable Diffusion 1.x conditions on
DEFAULT_IMAGE_ENCODER = "openai/clip-vit-large-patch14"
_PROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class UMMConfig:
    """`alpha` in [0, 1], the image against the text. `tiue` and `image_encoder`: "mini", a folder or a hub id;
    left empty, the base's own, and mini's TIUE where it has none. `references`: how many of a subject's images are
    averaged. `subject_guidance`: guidance by what the subjects add to the text, times the run's scale.
    """

    alpha: float = 0.7
    tiue: str = ""
    image_encoder: str = ""
    references: int = 1
    subject_guidance: float = 1.0

    def __post_init__(self) -> None:
        """Raises UserError for a value out of its range."""
        if not 0.0 <= self.alpha <= 1.0:
            raise UserError(f"alpha is {self.alpha}; it must lie between 0 (text only) and 1 (image only)")
        if self.references < 1:
            raise UserError(f"references is {self.references}; it must be at least 1")
        if not 0.0 <= self.subject_guidance < math.inf:
            raise UserError(f"subject_guidance is {self.subject_guidance}; it must be a finite number, 0 or more")


def tiue_location(base: Base, name: str = "") -> str:
    """Where the TIUE is: `name`, or the folder in the base that UMMPipeline.save_pretrained left there, or mini's."""
    inside = Path(base.location) / "tiue"
    return str(inside) if not name and os.path.isdir(inside) else resolve_model(name or "mini", "tiue")


@cache
def _words_before(location: str) -> int:
    """Pseudo words that a prompt needs room for; 0 where there is no TIUE, which loading it will say better."""
    from umm_bench.umm import TIUE

    try:
        config = TIUE.extract_init_dict(TIUE.load_config(location))[0]
    except LOAD_ERRORS:
        return 0
    return config["num_pseudo_words"] if config.get("placement") == "before" else 0


def image_encoder_location(base: Base, name: str = "") -> str:
    """Where the conditioning image encoder is: `name`, or the folder in the base, or CLIP ViT-L/14."""
    if name or base.name == "mini":
        return resolve_model(name or "mini", "image_encoder")
    inside = Path(base.location) / "image_encoder"
    return str(inside) if inside.is_dir() else DEFAULT_IMAGE_ENCODER


def load_image_encoder(location: str) -> "PreTrainedModel":
    """The model behind `image_encoder_location`, float32: the vision tower of a CLIP, or the mini family's.

    Both give `image_embeds` [B, config.projection_dim]. Raises UserError when there is neither.
    """
    import torch
    from transformers import AutoConfig, CLIPVisionModelWithProjection

    from umm_bench.mini.towers import FlatResNetModelWithProjection

    kinds = {"clip": CLIPVisionModelWithProjection, "clip_vision_model": CLIPVisionModelWithProjection}
    kinds["flat-resnet"] = FlatResNetModelWithProjection
    try:
        found = AutoConfig.from_pretrained(location).model_type
        if found in kinds:
            # half-precision weights would stay half without a dtype
            variant = weights_variant(location)
            return kinds[found].from_pretrained(location, dtype=torch.float32, use_safetensors=True, variant=variant)
    except LOAD_ERRORS as error:
        raise UserError(f"cannot load the image encoder from {location}: {first_line(error)}") from error
    # transformers would begin such a tower with random weights
    raise UserError(f"cannot load the image encoder from {location}: it holds a {found}, not a CLIP")


def load_image_processor(location: str) -> "CLIPImageProcessorPil":
    """The processor of the image encoder at `location`: there, or in the feature_extractor/ beside it, where a pipeline
    keeps it. Raises UserError when there is neither.
    """
    from transformers import CLIPImageProcessorPil

    beside = Path(location).parent / "feature_extractor"
    if not os.path.isfile(Path(location) / _PROCESSOR) and os.path.isfile(beside / _PROCESSOR):
        location = str(beside)
    try:
        return CLIPImageProcessorPil.from_pretrained(location)
    except LOAD_ERRORS as error:
        raise UserError(f"cannot load the image processor from {location}: {first_line(error)}") from error


def load_umm(base: Base, tiue: str | None, image_encoder: str = "") -> "UMMPipeline":
    """The base's pipeline with an image encoder and, unless `tiue` is None, a trained TIUE, all of the base's dtype.

    Raises UserError when a part cannot be loaded or does not fit the base.
    """
    import torch

    from umm_bench.umm import UMMPipeline, load_tiue
    from umm_bench.umm.checkpoint import check_encoder

    sd = base.pipeline()
    location = image_encoder_location(base, image_encoder)
    encoder = load_image_encoder(location)
    if tiue is not None:
        check_encoder(Path(tiue_location(base, tiue)), encoder)
    pipe = UMMPipeline.from_pipe(
        sd,
        image_encoder=encoder.eval().requires_grad_(False),
        feature_extractor=load_image_processor(location),
        tiue=None if tiue is None else load_tiue(tiue_location(base, tiue), torch_dtype=torch.float32),
        dtype=getattr(torch, base.dtype),
    )
    pipe.set_progress_bar_config(disable=True)
    return base.place(pipe)


def subjects_of(case: "Case", prompt: "Prompt", references: int) -> "list[umm.Subject]":
    """The pipeline's subjects: the first `references` pictures of each, standing for its own place in the prompt.

    The template says where that is; the same words may be elsewhere too, as another subject's or nobody's. UserError
    where the words there are part of others ("dogs").
    """
    from umm_bench import umm

    text, subjects = prompt.text(case.class_nouns), []
    for subject, span in zip(case.subjects, prompt.spans(case.class_nouns), strict=True):
        found = umm.phrase_spans(text, subject.class_noun)
        if span not in found:
            raise UserError(f'the prompt "{text}" does not contain the subject "{subject.class_noun}" as words')
        pictures = subject.references[:references]
        subjects.append(umm.Subject(pictures, subject.class_noun, occurrence=found.index(span) + 1))
    return subjects


class UMM:
    """The Method protocol around UMMPipeline. Its published claim is one subject; several each take their own words."""

    name: ClassVar[str] = "umm"
    config_class: ClassVar[type] = UMMConfig
    max_subjects: ClassVar[int | None] = None
    can_offload: ClassVar[bool] = True

    @staticmethod
    def defaults(base: Base) -> UMMConfig:
        return UMMConfig(usual(base.name).alpha, subject_guidance=usual(base.name).subject_guidance)

    @staticmethod
    def weights(config: UMMConfig, base: Base) -> Sequence[Path]:
        """The local folders beside the base's pipeline that the images depend on."""
        parts = [tiue_location(base, config.tiue), image_encoder_location(base, config.image_encoder)]
        return [Path(part) for part in parts if Path(part).is_dir()]

    @staticmethod
    def check(config: UMMConfig, base: Base, case: "Case", prompt: "Prompt") -> str | None:
        """Each subject's words must be words of the prompt, and before it is cut."""
        from umm_bench.umm.subjects import subject_masks

        tokenizer = base.tokenizer
        text = prompt.text(case.class_nouns)
        try:
            subjects = subjects_of(case, prompt, 1)
            room = _words_before(tiue_location(base, config.tiue)) * len(subjects)
            subject_masks(tokenizer, [text], subjects, tokenizer.model_max_length, room)
        except UserError as error:
            return str(error)
        return None

    def __init__(self, base: Base, config: UMMConfig, generation: "Generation") -> None:
        self.config, self.generation = config, generation
        self._pipe = load_umm(base, config.tiue, config.image_encoder)

    def setup(self, subject: "Subject", directory: Path) -> Any:
        """Nothing to fine-tune."""
        return None

    def generate(
        self, states: Sequence[None], case: "Case", prompt: "Prompt", seeds: Sequence[int]
    ) -> list[Image.Image]:
        """One image a seed, from the first `config.references` images of each subject."""
        import torch

        return self._pipe(
            prompt.text(case.class_nouns),
            subjects=subjects_of(case, prompt, self.config.references),
            alpha=self.config.alpha,
            num_inference_steps=self.generation.num_inference_steps,
            guidance_scale=self.generation.guidance_scale,
            subject_guidance_scale=self.config.subject_guidance * self.generation.guidance_scale,
            num_images_per_prompt=len(seeds),
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        ).images
