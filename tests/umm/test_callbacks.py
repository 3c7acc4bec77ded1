"""diffusers' own callbacks do to UMMPipeline what they do to StableDiffusionPipeline."""

import pytest
import torch
from diffusers.callbacks import IPAdapterScaleCutoffCallback, MultiPipelineCallbacks, SDCFGCutoffCallback

from tests.umm.conftest import picture
from umm_bench.errors import UserError
from umm_bench.umm import Subject


def draw(pipe, number=1, **settings):
    settings |= {"num_inference_steps": 4, "guidance_scale": 5.0, "output_type": "latent"}
    generator = [torch.Generator().manual_seed(i) for i in range(number)]
    return pipe("a dog on snow", num_images_per_prompt=number, generator=generator, **settings).images


@pytest.mark.parametrize(
    "callback",
    [
        SDCFGCutoffCallback(cutoff_step_ratio=0.5),
        SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0),
        MultiPipelineCallbacks([SDCFGCutoffCallback(cutoff_step_ratio=0.25)]),
    ],
)
def test_the_cutoff_is_stable_diffusions_with_alpha_0(umm, tiny_sd, callback):
    expected = draw(tiny_sd, callback_on_step_end=callback)
    assert (draw(umm, callback_on_step_end=callback) - expected).abs().max() < 1e-4
    subject = Subject(picture(1), "dog", alpha=0.0)
    assert (draw(umm, subjects=subject, callback_on_step_end=callback) - expected).abs().max() < 1e-4
    assert (draw(umm) - expected).abs().max() > 1e-3


def test_after_the_cutoff_the_subject_counts_and_h_0_is_not_evaluated(umm):
    rows = []
    hook = umm.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    callback = SDCFGCutoffCallback(cutoff_step_ratio=0.5)
    try:
        both = draw(umm, number=2, subjects=Subject(picture(1), "dog"), callback_on_step_end=callback)
    finally:
        hook.remove()
    assert rows == [6, 6, 6, 4]
    for i in range(2):  # a batch equals its members, which diffusers' own pipeline cannot do here
        generator = torch.Generator().manual_seed(i)
        alone = umm("a dog on snow", Subject(picture(1), "dog"), num_inference_steps=4, guidance_scale=5.0,
                    generator=generator, output_type="latent", callback_on_step_end=callback).images  # fmt: skip
        assert (alone[0] - both[i]).abs().max() < 1e-4


def test_prompt_embeds_that_a_callback_changes_go_on(umm, tiny_sd):
    other = tiny_sd.encode_prompt("a fox", "cpu", 1, True)
    names = ["latents", "prompt_embeds", "negative_prompt_embeds"]

    def swap(pipe, step, timestep, tensors):
        assert set(tensors) == set(names)
        return {"prompt_embeds": torch.cat([other[1], other[0]])} if step == 1 else tensors

    settings = {"callback_on_step_end": swap, "callback_on_step_end_tensor_inputs": names}
    expected = draw(tiny_sd, **settings)
    assert (draw(umm, **settings) - expected).abs().max() < 1e-4
    assert (draw(umm) - expected).abs().max() > 1e-3


def test_an_adapters_callback_and_rows_that_cannot_be(umm):
    seen = []
    umm.set_ip_adapter_scale = seen.append
    try:
        draw(umm, callback_on_step_end=IPAdapterScaleCutoffCallback(cutoff_step_ratio=0.5))
    finally:
        del umm.set_ip_adapter_scale
    assert seen == [0.0]

    def wrong(pipe, step, timestep, tensors):
        return {"prompt_embeds": tensors["prompt_embeds"].repeat(2, 1, 1)}

    with pytest.raises(UserError, match="the callback returned hidden states"):
        draw(umm, callback_on_step_end=wrong, callback_on_step_end_tensor_inputs=["prompt_embeds"])
