"""What diffusers checks on each of its own pipelines (its tester mixin is not in the wheel), on UMMPipeline."""

import inspect
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from diffusers.utils import hub_utils
from huggingface_hub import ModelCard

from tests.umm.conftest import make_umm
from tests.umm.test_pipeline import PROMPT, dog, draw, seeds
from umm_bench.umm import UMMPipeline


def reload(pipe, folder, **kwargs):
    pipe.save_pretrained(folder, safe_serialization=True)
    loaded = UMMPipeline.from_pretrained(folder, **kwargs)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def largest(a, b):
    return np.abs(a - b).max()


def test_the_call_has_the_common_arguments():
    names = set(inspect.signature(UMMPipeline.__call__).parameters)
    assert names >= {
        "prompt", "height", "width", "guidance_scale", "negative_prompt", "cross_attention_kwargs", "generator",
        "num_inference_steps", "num_images_per_prompt", "latents", "output_type", "return_dict",
        "callback_on_step_end", "callback_on_step_end_tensor_inputs",
    }  # fmt: skip


def test_dict_and_tuple_outputs_are_equal(umm):
    by_name = draw(umm, subjects=dog())
    by_place = umm(
        PROMPT,
        dog(),
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=seeds(0),
        output_type="np",
        return_dict=False,
    )
    assert isinstance(by_place, tuple) and np.array_equal(by_place[0], by_name)


@pytest.mark.parametrize("optional", ["safety_checker", "feature_extractor", "image_encoder", "tiue", "controlnet"])
def test_an_optional_component_may_be_missing(fresh_sd, tiny_image_encoder, tmp_path, optional):
    assert optional in UMMPipeline._optional_components
    pipe = make_umm(fresh_sd(), tiny_image_encoder)
    setattr(pipe, optional, None)
    pipe.register_to_config(**{optional: (None, None)})
    loaded = reload(pipe, tmp_path)
    assert getattr(loaded, optional) is None
    assert largest(draw(loaded), draw(pipe)) < 1e-4


def test_float16_is_kept_by_save_and_load(fresh_sd, tiny_image_encoder, tmp_path):
    pipe = make_umm(fresh_sd(), tiny_image_encoder)
    pipe.save_pretrained(tmp_path, variant="fp16")
    loaded = UMMPipeline.from_pretrained(tmp_path, variant="fp16", torch_dtype=torch.float16)
    models = {name: part for name, part in loaded.components.items() if isinstance(part, torch.nn.Module)}
    assert {"vae", "unet", "text_encoder", "image_encoder", "tiue"} <= models.keys()
    assert {part.dtype for part in models.values()} == {torch.float16}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close(fresh_sd, tiny_image_encoder, dtype, tmp_path):
    pipe = reload(make_umm(fresh_sd(), tiny_image_encoder), tmp_path)
    expected = draw(pipe, subjects=dog())
    pipe.to(dtype)
    assert {pipe.unet.dtype, pipe.tiue.dtype, pipe.image_encoder.dtype} == {dtype}
    assert np.abs(draw(pipe, subjects=dog()) - expected).mean() < 0.05


def test_to_device_moves_every_model(fresh_sd, tiny_image_encoder, tmp_path):
    pipe = reload(make_umm(fresh_sd(), tiny_image_encoder), tmp_path)
    pipe.to("meta")
    models = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert {part.device.type for part in models} == {"meta"}


def test_num_images_per_prompt(umm):
    for prompts in (PROMPT, [PROMPT, PROMPT]):
        for number in (1, 2):
            images = draw(umm, prompts, subjects=dog(), num_images_per_prompt=number, num_inference_steps=1, seed=0,
                          generator=None)  # fmt: skip
            assert len(images) == number * (1 if isinstance(prompts, str) else 2)


def test_the_components_make_the_same_pipeline(umm):
    again = UMMPipeline(**umm.components)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(draw(again, subjects=dog()), draw(umm, subjects=dog()))


def test_the_scheduler_is_saved_and_can_be_changed(fresh_sd, tiny_image_encoder, tmp_path):
    pipe = make_umm(fresh_sd("v_prediction"), tiny_image_encoder)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    loaded = reload(pipe, tmp_path)
    assert isinstance(loaded.scheduler, DPMSolverMultistepScheduler)
    assert loaded.scheduler.config.prediction_type == "v_prediction"
    assert largest(draw(loaded, subjects=dog()), draw(pipe, subjects=dog())) < 1e-4
    passed = UMMPipeline.from_pretrained(tmp_path, scheduler=DDIMScheduler())
    assert isinstance(passed.scheduler, DDIMScheduler)


def test_callbacks_see_and_change_only_the_listed_tensors(umm):
    seen = []

    def callback(pipe, step, timestep, tensors):
        seen.append((step, set(tensors)))
        return {}

    draw(umm, subjects=dog(), callback_on_step_end=callback,
         callback_on_step_end_tensor_inputs=umm._callback_tensor_inputs)  # fmt: skip
    listed = {"latents", "prompt_embeds", "negative_prompt_embeds", "encoder_hidden_states"}
    assert seen == [(step, listed) for step in range(3)]
    with pytest.raises(ValueError, match="callback_on_step_end_tensor_inputs"):
        draw(umm, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=["eps"])

    def last_is_zero(pipe, step, timestep, tensors):
        return {"latents": torch.zeros_like(tensors["latents"])} if step == pipe.num_timesteps - 1 else {}

    assert not draw(umm, subjects=dog(), callback_on_step_end=last_is_zero, output_type="latent").any()


def test_a_callback_may_turn_the_guidance_off_and_interrupt(umm):
    rows = []
    hook = umm.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))

    def off_then_stop(pipe, step, timestep, tensors):
        pipe._guidance_scale = 1.0
        pipe._interrupt = step == 2
        return {}

    draw(umm, subjects=dog(), num_inference_steps=6, callback_on_step_end=off_then_stop)
    hook.remove()
    assert rows == [3, 2, 2]


def test_latents_go_in_and_come_out(umm):
    latents = torch.randn(1, 4, 8, 8)
    assert np.array_equal(draw(umm, latents=latents, subjects=dog()), draw(umm, latents=latents, subjects=dog()))
    out = draw(umm, subjects=dog(), output_type="latent")
    decoded = umm.vae.decode(out / umm.vae.config.scaling_factor).sample
    shown = umm.image_processor.postprocess(decoded.detach(), output_type="np")
    assert largest(shown, draw(umm, subjects=dog())) < 1e-5
    assert draw(umm, subjects=dog(), output_type="pt").shape == (1, 3, 32, 32)
    assert draw(umm, subjects=dog(), output_type="pil")[0].size == (32, 32)


def test_attention_slicing_and_tiling_change_nothing(fresh_sd, tiny_image_encoder):
    pipe = make_umm(fresh_sd(), tiny_image_encoder)
    expected = draw(pipe, subjects=dog())
    pipe.enable_attention_slicing()
    assert largest(draw(pipe, subjects=dog()), expected) < 1e-4
    pipe.disable_attention_slicing()
    pipe.vae.enable_slicing()
    two = {"num_images_per_prompt": 2, "generator": seeds(0, 1)}
    assert largest(draw(pipe, subjects=dog(), **two)[:1], expected) < 1e-4


def test_offload_hooks_change_nothing(fresh_sd, tiny_image_encoder, tmp_path):
    """With the CPU as the accelerator too: the hooks are accelerate's own, only the copies are to the same place."""
    pipe = reload(make_umm(fresh_sd(), tiny_image_encoder), tmp_path)
    expected = draw(pipe, subjects=dog())
    pipe.enable_model_cpu_offload(device="cpu")
    assert largest(draw(pipe, subjects=dog()), expected) < 1e-5
    assert largest(draw(pipe, subjects=dog()), expected) < 1e-5


def test_from_pipe_shares_the_weights_both_ways(umm, tiny_sd):
    assert umm.unet is tiny_sd.unet and umm.vae is tiny_sd.vae
    back = StableDiffusionPipeline.from_pipe(umm, torch_dtype=torch.float32)
    back.set_progress_bar_config(disable=True)
    assert back.unet is umm.unet
    assert largest(draw(back), draw(tiny_sd)) < 1e-5


def test_push_to_hub_uploads_what_save_pretrained_writes(umm, monkeypatch):
    uploaded = []

    def upload(self, folder, repo_id, **kwargs):
        uploaded.extend(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())

    monkeypatch.setattr(hub_utils, "create_repo", lambda name, **kwargs: SimpleNamespace(repo_id=name))
    monkeypatch.setattr(hub_utils, "load_or_create_model_card", lambda name, **kwargs: ModelCard("---\n---\n"))
    monkeypatch.setattr(hub_utils, "populate_model_card", lambda card: card)
    monkeypatch.setattr(UMMPipeline, "_upload_folder", upload)
    umm.push_to_hub("someone/umm", token="none")
    assert {"model_index.json", "tiue/diffusion_pytorch_model.safetensors", "unet/config.json"} <= set(uploaded)
    assert not [name for name in uploaded if name.endswith((".bin", ".pt"))]
