"""The Stable Diffusion checkpoint that all methods of a run build on, loaded once and only when needed."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umm_bench.errors import UserError
from umm_bench.seeding import path_digest
from umm_bench.weights import LOAD_ERRORS, first_line, weights_variant

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer

logger = logging.getLogger(__name__)


# owner/name, as the hub has them
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NOT_THERE = re.compile("no file named|not appear to have a file named|no such modeling files")
# StableDiffusionPipeline's parts by the one class that each of them has in Stable Diffusion 1.x and 2.x
_PARTS = {
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "unet": ("UNet2DConditionModel",),
}


def resolve_model(name: str, part: str) -> str:
    """Path or hub id behind a model argument.

    `"mini"` is the embedded family's `part` ("sd", "scoring_clip", "encoder"); an existing folder is itself;
    `owner/name` is left to the hub. Anything else is a `UserError`.
    """
    if name == "mini":
        from umm_bench.mini import family

        return str(family.path(part))
    if os.path.isdir(name):
        return name
    if os.path.exists(name):
        raise UserError(f"model '{name}' is a file; give a folder in diffusers or transformers format")
    if not _HUB_ID.fullmatch(name):
        raise UserError(f"model '{name}' is neither 'mini', nor a folder, nor a hub id like owner/name")
    return name


def model_fingerprint(location: str) -> str:
    """Content digest of a local folder; a hub id stands for itself."""
    return path_digest(Path(location)) if Path(location).is_dir() else location


@dataclass(frozen=True)
class Usual:
    """How subjects are drawn on a base where nobody says otherwise: `alpha`, and `subject_guidance` times the scale."""

    guidance_scale: float = 7.5
    alpha: float = 0.7
    subject_guidance: float = 1.0


def usual(name: str) -> Usual:
    """The settings of the base `name`: diffusers' guidance and the paper's fusion, or what serves mini best."""
    return Usual(3.0, 0.8, 2.0) if name == "mini" else Usual()


def pick_device() -> str:
    """`"cuda"` where there is one, else `"cpu"`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(asked: str) -> str:
    """The device that `asked` means, "auto" or a name of torch's. UserError where there is no such one."""
    import torch

    if asked == "auto":
        return pick_device()
    try:
        torch.empty(0, device=torch.device(asked))
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise UserError(f"there is no device '{asked}' ({first_line(error)}); there are: {', '.join(there)}") from error
    return asked


def choose_precision(asked: str, device_type: str) -> str:
    """The precision of the frozen models, "no" or "bf16"; `asked` may be "auto"."""
    import torch

    if device_type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # a step of the mini base takes about 0.6 of float32's time, with AMX or with AVX512-BF16 alone
        fast = device_type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return asked if asked != "auto" else "bf16" if fast else "no"


DTYPES = ("float32", "bfloat16", "float16")


class Base:
    """A Stable Diffusion 1.x/2.x checkpoint in diffusers format. Making one loads nothing; a copy or a pickle of it has
    nothing loaded either.
    """

    def __init__(
        self, name: str, location: str, dtype: str = "float32", device: str = "auto", offload: bool = False
    ) -> None:
        self.name = name
        """As the user wrote it."""
        self.location = location
        """Local folder or hub id."""
        self.dtype = dtype
        """Of DTYPES: of the weights, and of what is computed with them."""
        self.asked_device = device
        """"auto", or a device of torch's: "cpu", "cuda", "cuda:1"."""
        self.offload = offload
        """Whether each part is on the GPU only while it is needed: slower, for small cards."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.location, self.dtype, self.asked_device, self.offload)

    def on(self, device: str) -> Base:
        """The same, not loaded, on another device."""
        return type(self)(self.name, self.location, self.dtype, device, self.offload)

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the weights change, or what they are rounded to."""
        weights = model_fingerprint(self.location)
        return weights if self.dtype == "float32" else f"{weights}/{self.dtype}"

    @cached_property
    def device(self) -> str:
        """UserError for one that is not there, and for `offload` without a GPU."""
        device = check_device(self.asked_device)
        if self.offload and device == "cpu":
            raise UserError("--offload puts each part on the GPU while it is needed; without a GPU, leave it out")
        return device

    @cached_property
    def _pipeline(self) -> StableDiffusionPipeline:
        import torch
        from diffusers import StableDiffusionPipeline

        local = os.path.isdir(self.location)
        found = [weights_variant(os.path.join(self.location, part)) for part in _PARTS]
        # of a folder it is known; of the hub it shows
        variants = (next(filter(None, found), None),) if local else (None, "fp16")
        failed: list[Exception] = []
        for variant in variants:
            try:
                _check_is_sd(StableDiffusionPipeline.load_config(self.location), self.location)
                pipe = StableDiffusionPipeline.from_pretrained(
                    self.location,
                    dtype=getattr(torch, self.dtype),
                    use_safetensors=True,
                    variant=variant,
                    requires_safety_checker=False,
                    # what a pipeline of ours or another saved beside Stable Diffusion itself
                    **dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder")),
                )
                _check_fits(pipe)
                break
            except LOAD_ERRORS as error:
                failed.append(error)
        else:
            # of two variants one is usually not there, which is not what is wrong
            told = next((each for each in failed if not _NOT_THERE.search(str(each))), failed[0])
            raise UserError(f"cannot load base '{self.name}' from {self.location}: {first_line(told)}") from told
        pipe.set_progress_bar_config(disable=True)
        return self.place(pipe)

    def place(self, pipe: Any) -> Any:
        """A pipeline of this base's parts, where they belong."""
        if self.offload:
            pipe.enable_model_cpu_offload(device=self.device)
            return pipe
        return pipe.to(self.device)

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """The pipeline's tokenizer, without its weights. `UserError` when it cannot be loaded."""
        from transformers import CLIPTokenizer

        try:
            return CLIPTokenizer.from_pretrained(self.location, subfolder="tokenizer")
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"cannot load the tokenizer of base '{self.name}' from {self.location}: {reason}"
            ) from error

    def pipeline(self) -> StableDiffusionPipeline:
        """The one shared pipeline, of `dtype`, on `device`. Treat it as read-only: copy what you train."""
        return self._pipeline


def load_base(name: str, dtype: str = "float32", device: str = "auto", offload: bool = False) -> Base:
    """`"mini"`, a folder in diffusers format, or a hub id. `UserError` when it is none of these."""
    return Base(name, resolve_model(name, "sd"), dtype, device, offload)


def _check_is_sd(index: Any, location: str) -> None:
    """Raises ValueError where the parts that `model_index.json` names are not those of Stable Diffusion 1.x/2.x."""
    from diffusers import UNet2DConditionModel

    kind = index.get("_class_name", "unknown")
    for part, classes in _PARTS.items():
        value = index.get(part)
        found = value[1] if isinstance(value, list | tuple) and len(value) == 2 else None
        if found not in classes:
            raise ValueError(f"it is no Stable Diffusion 1.x or 2.x, but a {kind} whose {part} is {found}")
    more = [part for part in ("text_encoder_2", "text_encoder_3", "transformer", "prior") if index.get(part)]
    if more:
        raise ValueError(f"it is no Stable Diffusion 1.x or 2.x, but a {kind} with a {more[0]}")
    unet = UNet2DConditionModel.load_config(location, subfolder="unet")
    for name, known in {
        "addition_embed_type": (None, "text"),
        "class_embed_type": (None,),
        "num_class_embeds": (None,),
    }.items():
        if unet.get(name) not in known:
            raise ValueError(f"it is no Stable Diffusion 1.x or 2.x: its UNet has {name} {unet[name]}")


def _check_fits(pipe: StableDiffusionPipeline) -> None:
    """Raises ValueError where the UNet does not read the text encoder's width or the VAE's latents, and where the
    tokenizer's files are not there, which transformers takes for one without words.
    """
    tokenizer, text = pipe.tokenizer, pipe.text_encoder.config
    if not 2 < len(tokenizer) <= text.vocab_size:
        raise ValueError(f"its tokenizer has {len(tokenizer)} words, its text encoder {text.vocab_size}")
    # where the tokenizer's own configuration is missing
    tokenizer.model_max_length = min(tokenizer.model_max_length, text.max_position_embeddings)
    width, read = pipe.text_encoder.config.hidden_size, pipe.unet.config.cross_attention_dim
    if any(each != width for each in (read if isinstance(read, list | tuple) else [read])):
        raise ValueError(f"its UNet reads text of width {read}, its text encoder writes {width}")
    latents = pipe.vae.config.latent_channels
    # alone, or with a mask and the masked picture beside them (inpainting)
    if pipe.unet.config.in_channels not in (latents, 2 * latents + 1) or pipe.unet.config.out_channels != latents:
        raise ValueError(
            f"its UNet takes {pipe.unet.config.in_channels} channels and gives {pipe.unet.config.out_channels}, "
            f"its VAE has {latents}: Stable Diffusion for text, pictures or inpainting alone is a base"
        )
