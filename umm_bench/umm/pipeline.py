"""UMMPipeline: Stable Diffusion whose prompt may contain images.

Shapes: B images, C channels, H height, W width, L tokens, D width of the text encoder, E of the image
embedding, N prompts, K pseudo words, R rows of one UNet call (branches times B).
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
from diffusers.pipelines.stable_diffusion.pipeline_output import StableDiffusionPipelineOutput
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import retrieve_timesteps
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusers.schedulers import KarrasDiffusionSchedulers
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPTokenizer, PreTrainedModel

from umm_bench.errors import UserError
from umm_bench.images import ImageInput, as_list, open_image, square
from umm_bench.umm.callbacks import take_rows
from umm_bench.umm.canvas import Canvas, picture_canvas
from umm_bench.umm.cards import SubjectCard
from umm_bench.umm.control import Control, picture_control
from umm_bench.umm.guidance import TEXT, Branch, Differences, Guidance, Interval, Schedule, fused_guidance
from umm_bench.umm.prefix import shared_work
from umm_bench.umm.subjects import Subject, branch_hidden_states, lora_scaled, subject_masks
from umm_bench.umm.tiue import TIUE, cut_off

logger = logging.getLogger(__name__)


class UMMPipeline(StableDiffusionPipeline):
    """Text-to-image, image-to-image and inpainting with subjects given by images, from a frozen Stable Diffusion and
    a trained TIUE, with a ControlNet if there is one.

    `UMMPipeline.from_pipe(sd_pipe, image_encoder=..., feature_extractor=..., tiue=...)` shares the components
    of a loaded Stable Diffusion pipeline. The image encoder is a `CLIPVisionModelWithProjection` or any other model
    whose output has `image_embeds` [B, config.projection_dim]. Raises UserError when the TIUE was trained for encoders
    of another width.
    """

    model_cpu_offload_seq = "image_encoder->tiue->text_encoder->unet->vae"
    _optional_components = ["safety_checker", "feature_extractor", "image_encoder", "tiue", "controlnet"]  # noqa: RUF012
    _callback_tensor_inputs = ["latents", "prompt_embeds", "negative_prompt_embeds", "encoder_hidden_states"]  # noqa: RUF012

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        image_encoder: PreTrainedModel = None,
        feature_extractor: CLIPImageProcessorPil = None,
        tiue: TIUE | None = None,
        controlnet: ControlNetModel | MultiControlNetModel | None = None,
        safety_checker: StableDiffusionSafetyChecker = None,
        requires_safety_checker: bool = False,
    ):
        super().__init__(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            safety_checker=safety_checker,
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,
            requires_safety_checker=requires_safety_checker,
        )
        if isinstance(controlnet, (list, tuple)):
            controlnet = MultiControlNetModel(controlnet)
        self.register_modules(tiue=tiue, controlnet=controlnet)
        self.control_image_processor = VaeImageProcessor(
            vae_scale_factor=self.vae_scale_factor, do_convert_rgb=True, do_normalize=False
        )
        if tiue is not None:
            _check_width("text encoder", text_encoder.config.hidden_size, tiue.config.text_dim)
        if tiue is not None and image_encoder is not None:
            _check_width("image encoder", image_encoder.config.projection_dim, tiue.config.image_dim)

    @classmethod
    def from_pipe(cls, pipeline: Any, **kwargs: Any) -> "UMMPipeline":
        """As diffusers', but the shared components keep their dtype unless one is asked for."""
        kwargs.setdefault("dtype", pipeline.dtype)
        return super().from_pipe(pipeline, **kwargs)

    @torch.no_grad()
    def embed_images(self, images: Sequence[ImageInput]) -> Tensor:
        """CLIP image embeddings [len(images), E]; the input of the TIUE."""
        if self.image_encoder is None or self.feature_extractor is None:
            raise UserError("this pipeline has no image_encoder and feature_extractor; pass both to from_pipe")
        pictures = [square(open_image(image)) for image in images]
        return self.encode_image(pictures, self._execution_device, num_images_per_prompt=1)[0]

    def make_card(self, images: ImageInput | Sequence[ImageInput], phrase: str) -> SubjectCard:
        """The pseudo words of a subject from one picture or several, to be saved, shared and used without them."""
        pictures = as_list(images)
        words_KD = self.encode_subjects([Subject(pictures, phrase)])[0]
        return SubjectCard(words_KD.detach().float().cpu(), phrase, len(pictures), self.tiue.config.placement)

    @torch.no_grad()
    def encode_subjects(self, subjects: Sequence[Subject]) -> list[Tensor]:
        """Pseudo words [K, D] of each subject.

        Raises UserError without a TIUE, with an unreadable image and with a card made for another base.
        """
        return [self._embedded_words(s) if s.card is None else self._card_words(s.card) for s in subjects]

    def _card_words(self, card: SubjectCard) -> Tensor:
        width = self.text_encoder.config.hidden_size
        if card.words_KD.shape[1] != width:
            raise UserError(
                f'the card of "{card.phrase}" was made for a base of width {card.words_KD.shape[1]}, this base has '
                f"{width}; make one for this base"
            )
        return card.words_KD.to(self._execution_device, self.text_encoder.dtype)

    def _embedded_words(self, subject: Subject) -> Tensor:
        if self.tiue is None:
            raise UserError(
                "this pipeline has no TIUE, so it cannot take subjects; pass tiue=TIUE.from_pretrained(...)"
            )
        if subject.embeds is not None:
            embeds_nE = subject.embeds.reshape(-1, subject.embeds.shape[-1]).to(self._execution_device)
        elif subject.image is not None and (pictures := as_list(subject.image)):
            embeds_nE = self.embed_images(pictures)
        else:
            raise UserError(f'the subject "{subject.words}" has neither image nor embeds nor card')
        return self.tiue(embeds_nE.mean(dim=0, keepdim=True).to(self._execution_device, self.tiue.dtype))[0]

    @torch.no_grad()
    def encode_subject_prompt(
        self,
        prompt: Sequence[str],
        h_y_NLD: Tensor,
        subjects: Sequence[Subject],
        branches: Iterable[frozenset[int]],
        lora_scale: float | None = None,
    ) -> dict[Branch, Tensor]:
        """Hidden states [N, L, D] of each branch: h_y with that branch's subjects taken from their images.

        `lora_scale` is that of a LoRA on the text encoder, as for encode_prompt. Raises UserError for a phrase that a
        prompt lacks, repeats or cuts off, and for phrases that overlap.
        """
        # as encode_prompt does: a textual inversion of several vectors is several tokens
        prompt = [self.maybe_convert_prompt(text, self.tokenizer) for text in prompt]
        length, device = h_y_NLD.shape[1], h_y_NLD.device
        drawn = [branch for branch in branches if branch]
        if not drawn:
            subject_masks(self.tokenizer, prompt, subjects, length)
            return {TEXT: h_y_NLD}
        words = self.encode_subjects(subjects)
        placements = [s.card.placement if s.card else self.tiue.config.placement for s in subjects]
        room = sum(len(each) for each, placement in zip(words, placements, strict=True) if placement == "before")
        masks_SNL = subject_masks(self.tokenizer, prompt, subjects, length, room).to(device)
        input_ids_NL = self.tokenizer(
            prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids.to(device)
        with lora_scaled(self.text_encoder, lora_scale):
            hidden_states = branch_hidden_states(self, input_ids_NL, h_y_NLD, masks_SNL, words, placements, drawn)
        return {TEXT: h_y_NLD, **hidden_states}

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        prompt: str | list[str],
        subjects: Subject | Sequence[Subject] = (),
        alpha: Schedule = 0.7,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float = 7.5,
        subject_guidance_scale: float | None = None,
        guidance_interval: Interval = (0.0, 1.0),
        subject_interval: Interval = (0.0, 1.0),
        fast: bool = False,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        image: ImageInput | None = None,
        mask_image: ImageInput | None = None,
        strength: float | None = None,
        control_image: ImageInput | Sequence[ImageInput] | None = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_interval: Interval = (0.0, 1.0),
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callable[..., dict] | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Generates images; arguments that are not listed mean what they mean in StableDiffusionPipeline.

        prompt: one text or a list; each contains every subject's phrase once, or more often where it says which.
        subjects: images and the words they stand for, e.g. `Subject(image, "dog")` or a list; none makes plain SD.
        alpha: in [0, 1], how far the prediction with the images counts against the one from the text alone; a
            number, a list stretched over the steps, or a function of the progress in [0, 1). 0 is
            StableDiffusionPipeline; 0 and 1 cost two UNet rows an image, values between them three.
        guidance_scale, subject_guidance_scale: s_text on what the text adds to no text, and s_subject on what the
            subjects add to the text; without the second it equals the first.
        guidance_interval, subject_interval: fractions of the steps, (start, stop), at which guidance is on and at
            which the images count: (0.25, 1) draws the layout from the text first, (0, 0.6) leaves the end to it.
        fast: not all branches at all steps (see guidance.Differences): the time of plain SD, nearly the same image.
        image, strength: start from this picture, as noisy as strength (default 0.8) in (0, 1] says. It is resized to
            height and width, by default the base's size.
        mask_image: draw only where this is white (strength 1.0 by default); for any base and for inpainting UNets.
        control_image: the ControlNet's picture, or a list with one for each of several ControlNets;
            controlnet_conditioning_scale and control_interval as controlnet_conditioning_scale and
            control_guidance_start and _end in StableDiffusionControlNetPipeline.
        callback_on_step_end_tensor_inputs: of "latents", "prompt_embeds" or "encoder_hidden_states" (the rows of this
            step's branches, h_0 first) and "negative_prompt_embeds" (h_0, to be read only, as in diffusers).

        Raises UserError for a phrase that the prompt lacks, has twice or cuts off, an alpha outside [0, 1], an
        unreadable image, and arguments that do not fit together.
        """
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        sample_size = self.unet.config.sample_size
        sample_height, sample_width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
        height = height or sample_height * self.vae_scale_factor
        width = width or sample_width * self.vae_scale_factor
        self.check_inputs(
            prompt, height, width, None, negative_prompt,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        subjects = [subjects] if isinstance(subjects, Subject) else subjects
        if not math.isfinite(guidance_scale):
            raise UserError(f"guidance_scale is {guidance_scale}; it must be a finite number, 1 is off")
        guidance = Guidance(
            tuple(alpha if s.alpha is None else s.alpha for s in subjects),
            subject_guidance_scale,
            guidance_interval,
            subject_interval,
        )
        self._guidance_scale = guidance_scale
        self._guidance_rescale, self._clip_skip = 0.0, None
        self._cross_attention_kwargs = cross_attention_kwargs
        self._interrupt = False
        device = self._execution_device

        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise UserError("the list of prompts is empty")
        num_images = len(prompts) * num_images_per_prompt
        all_timesteps, num_inference_steps = retrieve_timesteps(
            self.scheduler, num_inference_steps, device, timesteps, sigmas
        )
        dtype = self.text_encoder.dtype
        if image is not None:
            canvas = picture_canvas(
                self, image, mask_image, strength, num_images, (height, width), num_inference_steps, generator, dtype
            )
        elif mask_image is not None or strength is not None:
            raise UserError("mask_image and strength need an image to start from")
        else:
            noise = self.prepare_latents(
                num_images, self.vae.config.latent_channels, height, width, dtype, device, generator, latents
            )
            canvas = Canvas(noise, all_timesteps, num_inference_steps)
        canvas.check_channels(self.unet)
        control = picture_control(
            self, control_image, controlnet_conditioning_scale, control_interval, num_images, (height, width)
        )

        negatives = [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else negative_prompt
        for text in dict.fromkeys(negatives or []):  # encode_prompt warns of a prompt that is cut, not of these
            if lost := cut_off(self.tokenizer, self.maybe_convert_prompt(text, self.tokenizer)):
                logger.warning('the negative prompt is too long, and this part is not read: "%s"', lost)
        lora_scale = (cross_attention_kwargs or {}).get("scale")
        h_y_NLD, h_0_NLD = self.encode_prompt(
            prompts, device, 1, self.do_classifier_free_guidance, negatives, lora_scale=lora_scale
        )
        steps = range(len(canvas.timesteps))
        branches = {level.subjects for i in steps for level in guidance.levels(i / len(steps))}
        hidden_states = self.encode_subject_prompt(prompts, h_y_NLD, subjects, branches, lora_scale)
        hidden_states[None] = h_0_NLD
        hidden_states = {
            branch: h_NLD.repeat_interleave(num_images_per_prompt, dim=0)
            for branch, h_NLD in hidden_states.items()
            if h_NLD is not None
        }
        latents = self._denoise(
            canvas, hidden_states, guidance, Differences() if fast else Differences(period=1), control,
            self.prepare_extra_step_kwargs(generator, eta), callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        return self._finish(latents, output_type, return_dict, dtype, generator)

    def _denoise(
        self,
        canvas: Canvas,
        hidden_states: dict[Branch, Tensor],
        guidance: Guidance,
        differences: Differences,
        control: Control | None,
        extra_step_kwargs: dict[str, Any],
        callback: Callable[..., dict] | None,
        callback_tensors: Sequence[str],
    ) -> Tensor:
        latents_BCHW, timesteps = canvas.latents_BCHW, canvas.timesteps
        num_steps = len(timesteps)
        num_warmup_steps = num_steps - canvas.num_inference_steps * self.scheduler.order
        self._num_timesteps = num_steps
        rows: dict[tuple[Branch, ...], Tensor] = {}
        with self.progress_bar(total=canvas.num_inference_steps) as bar, shared_work(self.unet, len(latents_BCHW)):
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    continue
                # read anew: a callback may turn the guidance off
                scale = self.guidance_scale if self.do_classifier_free_guidance else 1.0
                weights = guidance.weights(i / num_steps, scale)
                branches = tuple(differences.branches(i, i / num_steps, weights))
                if branches not in rows or callback is not None:  # which may change what it is shown
                    rows[branches] = torch.cat([hidden_states[branch] for branch in branches])
                h_RLD = rows[branches]
                eps_RCHW = self._predict(canvas, latents_BCHW, t, h_RLD, control, i / num_steps, num_steps)
                eps = dict(zip(branches, eps_RCHW.chunk(len(branches)), strict=True))
                eps_BCHW = fused_guidance(differences.complete(eps, weights), weights)
                latents_BCHW = self.scheduler.step(eps_BCHW, t, latents_BCHW, **extra_step_kwargs, return_dict=False)[0]
                if canvas.kept is not None:
                    following = timesteps[i + 1] if i + 1 < num_steps else None
                    latents_BCHW = canvas.kept.restore(latents_BCHW, self.scheduler, following)
                if callback is not None:
                    tensors = {"latents": latents_BCHW, "negative_prompt_embeds": hidden_states.get(None)}
                    tensors |= dict.fromkeys(("prompt_embeds", "encoder_hidden_states"), h_RLD)
                    changed = callback(self, i, t, {name: tensors[name] for name in callback_tensors}) or {}
                    latents_BCHW = changed.get("latents", latents_BCHW)
                    take_rows(hidden_states, branches, h_RLD, changed)
                if i == num_steps - 1 or ((i + 1) > num_warmup_steps and (i + 1) % self.scheduler.order == 0):
                    bar.update()
        return latents_BCHW

    def _predict(
        self,
        canvas: Canvas,
        latents_BCHW: Tensor,
        t: Tensor,
        h_RLD: Tensor,
        control: Control | None,
        progress: float,
        num_steps: int,
    ) -> Tensor:
        """The UNet's prediction [R, C, H, W] for the rows of all branches."""
        repeats = (len(h_RLD) // len(latents_BCHW), 1, 1, 1)
        sample_RCHW = self.scheduler.scale_model_input(latents_BCHW.repeat(repeats), t)
        residuals = {}
        if control is not None:
            residuals = control.residuals(self.controlnet, sample_RCHW, t, h_RLD, progress, num_steps)
        if canvas.extra_BCHW is not None:
            sample_RCHW = torch.cat([sample_RCHW, canvas.extra_BCHW.repeat(repeats)], dim=1)
        return self.unet(
            sample_RCHW,
            t,
            encoder_hidden_states=h_RLD,
            timestep_cond=self._timestep_cond(len(h_RLD)),
            cross_attention_kwargs=self.cross_attention_kwargs,
            return_dict=False,
            **residuals,
        )[0]

    def _finish(self, latents_BCHW: Tensor, output_type: str, return_dict: bool, dtype: Any, generator: Any) -> Any:
        images, has_nsfw_concept = latents_BCHW, None
        if output_type != "latent":
            scaled = latents_BCHW / self.vae.config.scaling_factor
            images = self.vae.decode(scaled, return_dict=False, generator=generator)[0]
            images, has_nsfw_concept = self.run_safety_checker(images, self._execution_device, dtype)
        show = [not nsfw for nsfw in has_nsfw_concept] if has_nsfw_concept else [True] * len(images)
        images = self.image_processor.postprocess(images, output_type=output_type, do_denormalize=show)
        self.maybe_free_model_hooks()
        if not return_dict:
            return images, has_nsfw_concept
        return StableDiffusionPipelineOutput(images=images, nsfw_content_detected=has_nsfw_concept)

    def _timestep_cond(self, rows: int) -> Tensor | None:
        # guidance-distilled UNets (LCM) take the scale as an input instead of a second branch
        if self.unet.config.time_cond_proj_dim is None:
            return None
        scale = torch.tensor(self.guidance_scale - 1).repeat(rows)
        embedding = self.get_guidance_scale_embedding(scale, embedding_dim=self.unet.config.time_cond_proj_dim)
        return embedding.to(device=self._execution_device, dtype=self.unet.dtype)


def _check_width(encoder: str, width: int, expected: int) -> None:
    if width != expected:
        raise UserError(
            f"the TIUE was trained for a {encoder} of width {expected}, this base has {width}; "
            "train one for this base with `python -m umm_bench.train`"
        )
