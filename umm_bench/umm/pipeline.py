"""UMMPipeline: Stable Diffusion whose prompt may contain images.

Shapes: B images, C channels, H height, W width, L tokens, D width of the text encoder, E of the image
embedding, N prompts, K pseudo words, R rows of one UNet call (branches times B).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.pipelines.stable_diffusion.pipeline_output import StableDiffusionPipelineOutput
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import retrieve_timesteps
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusers.schedulers import KarrasDiffusionSchedulers
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from umm_bench.errors import UserError
from umm_bench.umm.guidance import Level, fused_guidance, fusion_levels
from umm_bench.umm.images import ImageInput, open_image, square
from umm_bench.umm.tiue import TIUE, find_phrase, fuse_hidden_states, place_words, rearranged_hidden_states


@dataclass(frozen=True)
class Subject:
    """An image and the words of the prompt that it stands for.

    `phrase` occurs once in the prompt and may span several words; a style is a subject too, with the phrase
    that names the style. `alpha` overrides the call's. `embeds` [E], an image embedding made before, replaces
    `image`.
    """

    image: ImageInput | None = None
    phrase: str = ""
    alpha: float | None = None
    embeds: Tensor | None = None


class UMMPipeline(StableDiffusionPipeline):
    """Text-to-image with subjects given by images, from a frozen Stable Diffusion and a trained TIUE.

    `UMMPipeline.from_pipe(sd_pipe, image_encoder=..., feature_extractor=..., tiue=...)` shares the components
    of a loaded Stable Diffusion pipeline. Raises UserError when the TIUE was trained for encoders of another
    width.
    """

    model_cpu_offload_seq = "image_encoder->tiue->text_encoder->unet->vae"
    _optional_components = ["safety_checker", "feature_extractor", "image_encoder", "tiue"]  # noqa: RUF012
    _callback_tensor_inputs = ["latents", "encoder_hidden_states"]  # noqa: RUF012

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        image_encoder: CLIPVisionModelWithProjection = None,
        feature_extractor: CLIPImageProcessorPil = None,
        tiue: TIUE | None = None,
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
        self.register_modules(tiue=tiue)
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

    def encode_subjects(self, subjects: Sequence[Subject]) -> Tensor:
        """Pseudo words [len(subjects), K, D]. Raises UserError without a TIUE or with an unreadable image."""
        if self.tiue is None:
            raise UserError(
                "this pipeline has no TIUE, so it cannot take subjects; pass tiue=TIUE.from_pretrained(...)"
            )
        embeds_SE = torch.stack([self._embed_subject(subject) for subject in subjects])
        return self.tiue(embeds_SE.to(self._execution_device, self.tiue.dtype))

    def _embed_subject(self, subject: Subject) -> Tensor:
        if subject.embeds is not None:
            return subject.embeds.reshape(-1).to(self._execution_device)
        if subject.image is None:
            raise UserError(f'the subject "{subject.phrase}" has neither image nor embeds')
        return self.embed_images([subject.image])[0]

    def encode_subject_prompt(
        self, prompt: Sequence[str], h_y_NLD: Tensor, subjects: Sequence[Subject], levels: Sequence[Level]
    ) -> list[Tensor]:
        """Hidden states [N, L, D] of each level: h_y with that level's subjects taken from their images.

        Raises UserError for a phrase that a prompt lacks, repeats or cuts off, and for phrases that overlap.
        """
        # as encode_prompt does: a textual inversion of several vectors is several tokens
        prompt = [self.maybe_convert_prompt(text, self.tokenizer) for text in prompt]
        positions = [[find_phrase(self.tokenizer, text, subject.phrase) for subject in subjects] for text in prompt]
        for text, spans in zip(prompt, positions, strict=True):
            if len(set().union(*spans)) < sum(map(len, spans)):
                raise UserError(f'two subjects share words of the prompt "{text}"')
        if not any(level.subjects for level in levels):
            return [h_y_NLD for _ in levels]
        words_SKD = self.encode_subjects(subjects)
        input_ids_NL = self.tokenizer(
            prompt, padding="max_length", max_length=h_y_NLD.shape[1], truncation=True, return_tensors="pt"
        ).input_ids.to(h_y_NLD.device)
        masks_SNL = torch.zeros(len(subjects), *input_ids_NL.shape, dtype=torch.bool, device=h_y_NLD.device)
        for n, spans in enumerate(positions):
            for s, span in enumerate(spans):
                masks_SNL[s, n, list(span)] = True
        placed_SNLD = torch.stack(
            [
                place_words(words_KD.expand(len(prompt), -1, -1), mask_NL)
                for words_KD, mask_NL in zip(words_SKD, masks_SNL, strict=True)
            ]
        )
        hidden_states = []
        for level in levels:
            drawn = sorted(level.subjects)
            h_NLD = h_y_NLD
            if drawn:
                mask_NL = masks_SNL[drawn].any(dim=0)
                words_NLD = placed_SNLD[drawn].sum(dim=0)
                h_r = rearranged_hidden_states(self.text_encoder, input_ids_NL, mask_NL, words_NLD)
                h_NLD = fuse_hidden_states(h_y_NLD, h_r, mask_NL)
            hidden_states.append(h_NLD)
        return hidden_states

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        prompt: str | list[str],
        subjects: Sequence[Subject] = (),
        alpha: float = 0.7,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float = 7.5,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
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

        prompt: one text or a list; each contains every subject's phrase once.
        subjects: images and the words they stand for, e.g. `[Subject(image, "dog")]`; none makes plain SD.
        alpha: in [0, 1], how far the prediction with the images counts against the one from the text alone.
            0 is StableDiffusionPipeline; 0 and 1 cost two UNet rows an image, values between them three.
        callback_on_step_end_tensor_inputs: of "latents" and "encoder_hidden_states" (all branches, h_0
        first).

        Raises UserError for a phrase that the prompt lacks, has twice or cuts off, an alpha outside [0, 1]
        and an unreadable image.
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
        levels = fusion_levels([alpha if s.alpha is None else s.alpha for s in subjects])
        weights = [level.weight for level in levels]
        self._guidance_scale = guidance_scale
        self._guidance_rescale = 0.0
        self._clip_skip = None
        self._cross_attention_kwargs = cross_attention_kwargs
        self._interrupt = False
        guided = self.do_classifier_free_guidance
        device = self._execution_device

        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        num_images = len(prompts) * num_images_per_prompt
        negatives = [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else negative_prompt
        lora_scale = (cross_attention_kwargs or {}).get("scale")
        h_y_NLD, h_0_NLD = self.encode_prompt(prompts, device, 1, guided, negatives, lora_scale=lora_scale)
        branches = [h_0_NLD] if guided else []
        branches += self.encode_subject_prompt(prompts, h_y_NLD, subjects, levels)
        encoder_hidden_states = torch.cat([h.repeat_interleave(num_images_per_prompt, dim=0) for h in branches])

        timesteps, num_inference_steps = retrieve_timesteps(
            self.scheduler, num_inference_steps, device, timesteps, sigmas
        )
        latents = self.prepare_latents(
            num_images, self.unet.config.in_channels, height, width, h_y_NLD.dtype, device, generator, latents
        )
        extra_step_kwargs = self.prepare_extra_step_kwargs(generator, eta)
        timestep_cond_RE = self._timestep_cond(len(encoder_hidden_states))
        num_warmup_steps = len(timesteps) - num_inference_steps * self.scheduler.order
        self._num_timesteps = len(timesteps)
        with self.progress_bar(total=num_inference_steps) as progress_bar:
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    continue
                eps_RCHW = self.unet(
                    self.scheduler.scale_model_input(torch.cat([latents] * len(branches)), t),
                    t,
                    encoder_hidden_states=encoder_hidden_states,
                    timestep_cond=timestep_cond_RE,
                    cross_attention_kwargs=cross_attention_kwargs,
                    return_dict=False,
                )[0]
                eps_k_BCHW = eps_RCHW.chunk(len(branches))
                if guided:
                    eps_BCHW = fused_guidance(eps_k_BCHW[0], eps_k_BCHW[1:], weights, self.guidance_scale)
                else:
                    eps_BCHW = fused_guidance(torch.zeros_like(latents), eps_k_BCHW, weights, 1.0)
                latents = self.scheduler.step(eps_BCHW, t, latents, **extra_step_kwargs, return_dict=False)[0]
                if callback_on_step_end is not None:
                    tensors = {"latents": latents, "encoder_hidden_states": encoder_hidden_states}
                    wanted = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                    changed = callback_on_step_end(self, i, t, wanted) or {}
                    latents = changed.get("latents", latents)
                    encoder_hidden_states = changed.get("encoder_hidden_states", encoder_hidden_states)
                if i == len(timesteps) - 1 or ((i + 1) > num_warmup_steps and (i + 1) % self.scheduler.order == 0):
                    progress_bar.update()

        images, has_nsfw_concept = latents, None
        if output_type != "latent":
            images = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False, generator=generator)[
                0
            ]
            images, has_nsfw_concept = self.run_safety_checker(images, device, h_y_NLD.dtype)
        show = [not nsfw for nsfw in has_nsfw_concept] if has_nsfw_concept else [True] * num_images
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
