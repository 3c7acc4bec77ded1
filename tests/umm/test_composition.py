"""Stable Diffusion's own features beside a subject: at alpha 0 diffusers' own pipelines, above it the subject."""

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    HeunDiscreteScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file

from tests.umm.conftest import make_umm, picture
from tests.umm.test_pipeline import PROMPT, dog, draw
from umm_bench.errors import UserError
from umm_bench.umm import UMMPipeline


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def far(a, b):
    return np.abs(a - b).max()


def half_mask():
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (0, 0, 16, 32))
    return mask


@pytest.fixture
def lora(fresh_sd, tmp_path):
    """A LoRA of the UNet and of the text encoder, in diffusers' own file."""
    sd = fresh_sd()
    torch.manual_seed(0)
    layers = {}
    for part, targets in (("unet", ["to_q", "to_v"]), ("text_encoder", ["q_proj", "v_proj"])):
        model = getattr(sd, part)
        model.add_adapter(LoraConfig(r=2, lora_alpha=16, init_lora_weights="gaussian", target_modules=targets))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight)
        layers[f"{part}_lora_layers"] = get_peft_model_state_dict(model)
    StableDiffusionPipeline.save_lora_weights(tmp_path, **layers)
    return tmp_path


def test_lora(fresh_sd, tiny_image_encoder, lora):
    pipe = make_umm(fresh_sd(), tiny_image_encoder)
    before = draw(pipe, subjects=dog())
    pipe.load_lora_weights(lora)
    after = draw(pipe, subjects=dog())
    assert far(before, after) > 1e-3
    assert far(draw(pipe, subjects=dog(), cross_attention_kwargs={"scale": 0.0}), before) < 1e-4
    sd = quiet(fresh_sd())
    sd.load_lora_weights(lora)
    assert far(draw(pipe, subjects=dog(), alpha=0.0), draw(sd)) < 1e-4
    pipe.unload_lora_weights()
    assert far(draw(pipe, subjects=dog()), before) < 1e-4


def test_textual_inversion(fresh_sd, tiny_image_encoder, tmp_path):
    save_file({"<hat>": torch.randn(2, 32)}, tmp_path / "hat.safetensors")
    prompt = "a <hat> on a small dog"
    pipe, sd = make_umm(fresh_sd(), tiny_image_encoder), quiet(fresh_sd())
    for one in (pipe, sd):
        one.load_textual_inversion(tmp_path / "hat.safetensors", token="<hat>")
    assert far(draw(pipe, prompt, subjects=dog(), alpha=0.0), draw(sd, prompt)) < 1e-4
    with_subject = draw(pipe, prompt, subjects=dog())
    assert far(with_subject, draw(sd, prompt)) > 1e-3
    assert far(with_subject, draw(pipe, "a h on a small dog", subjects=dog())) > 1e-3


@pytest.mark.parametrize("scheduler", [None, HeunDiscreteScheduler])
def test_image_to_image(fresh_sd, tiny_image_encoder, scheduler):
    sd = fresh_sd()
    if scheduler is not None:
        sd.scheduler = scheduler.from_config(sd.scheduler.config)
    pipe, theirs = make_umm(sd, tiny_image_encoder), quiet(StableDiffusionImg2ImgPipeline.from_pipe(sd))
    settings = {"image": picture(9), "strength": 0.7, "num_inference_steps": 4}
    expected = draw(theirs, **settings)
    assert far(draw(pipe, **settings, subjects=dog(), alpha=0.0), expected) < 1e-4
    assert far(draw(pipe, **settings, subjects=dog()), expected) > 1e-3
    assert far(draw(pipe, **settings | {"strength": 1.0}, subjects=dog()), expected) > 1e-3


@pytest.mark.parametrize("strength", [1.0, 0.7])
def test_inpainting(fresh_sd, tiny_image_encoder, strength):
    sd = fresh_sd()
    pipe, theirs = make_umm(sd, tiny_image_encoder), quiet(StableDiffusionInpaintPipeline.from_pipe(sd))
    settings = {"image": picture(9), "mask_image": half_mask(), "strength": strength, "num_inference_steps": 4}
    expected = draw(theirs, **settings, height=32, width=32)
    assert far(draw(pipe, **settings, subjects=dog(), alpha=0.0), expected) < 1e-4
    kept = draw(pipe, **settings, subjects=dog(), output_type="latent")[:, :, :, 4:]
    assert far(kept.numpy(), draw(pipe, **settings, output_type="latent")[:, :, :, 4:].numpy()) < 1e-5
    assert far(draw(pipe, **settings, subjects=dog()), expected) > 1e-3


def test_an_inpainting_unet(fresh_sd, tiny_image_encoder):
    sd = fresh_sd()
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(sd.unet.config, in_channels=9).eval()
    sd = StableDiffusionPipeline(**{**sd.components, "unet": unet}, requires_safety_checker=False)
    pipe, theirs = make_umm(sd, tiny_image_encoder), quiet(StableDiffusionInpaintPipeline.from_pipe(sd))
    settings = {"image": picture(9), "mask_image": half_mask()}
    expected = draw(theirs, **settings, height=32, width=32)
    assert far(draw(pipe, **settings, subjects=dog(), alpha=0.0), expected) < 1e-4
    assert far(draw(pipe, **settings, subjects=dog()), expected) > 1e-3
    with pytest.raises(UserError, match="takes 9 channels, not 4"):
        draw(pipe, subjects=dog())


@pytest.mark.parametrize("image", ["image", "image and mask"])
def test_pictures_in_a_batch_equal_their_members(umm, image):
    settings = {"image": picture(9), "strength": 0.7, "subjects": dog(), "num_inference_steps": 3}
    if "mask" in image:
        settings["mask_image"] = half_mask()
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in (1, 2)]
    both = draw(umm, **settings, num_images_per_prompt=2, generator=generators)
    for row, seed in enumerate((1, 2)):
        assert far(both[row], draw(umm, **settings, seed=seed)[0]) < 1e-4


@pytest.mark.parametrize("number", [1, 2])
def test_controlnet(fresh_sd, tiny_image_encoder, number):
    sd = fresh_sd()
    nets = []
    for seed in range(number):
        torch.manual_seed(seed)
        net = ControlNetModel.from_unet(sd.unet, conditioning_embedding_out_channels=(4, 8, 8)).eval()
        for block in (*net.controlnet_down_blocks, net.controlnet_mid_block):
            torch.nn.init.normal_(block.weight, std=0.5)  # made as zeros
        nets.append(net)
    pictures = [picture(i) for i in range(number)]
    theirs = quiet(
        StableDiffusionControlNetPipeline(
            **sd.components, controlnet=nets if number > 1 else nets[0], requires_safety_checker=False
        )
    )
    expected = draw(theirs, image=pictures if number > 1 else pictures[0], control_guidance_end=0.7)
    pipe = UMMPipeline.from_pipe(
        theirs, image_encoder=tiny_image_encoder[0], feature_extractor=tiny_image_encoder[1],
        tiue=make_umm(sd, tiny_image_encoder).tiue,
    )  # fmt: skip
    quiet(pipe)
    settings = {"control_image": pictures, "control_interval": (0.0, 0.7)}
    assert far(draw(pipe, **settings, subjects=dog(), alpha=0.0), expected) < 1e-4
    assert far(draw(pipe, **settings, subjects=dog()), expected) > 1e-3
    assert far(expected, draw(sd)) > 1e-3
    with pytest.raises(UserError, match="no control_image"):
        draw(pipe)
    with pytest.raises(UserError, match=f"{number} ControlNets need a control_image"):
        draw(pipe, control_image=[picture(1)] * 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": picture(1), "strength": 0.0}, "strength is 0"),
        ({"image": picture(1), "strength": 0.1}, "leaves none"),
        ({"mask_image": half_mask()}, "need an image"),
        ({"image": "missing.png"}, "no image file"),
        ({"control_image": picture(1)}, "there is no controlnet"),
    ],
)
def test_errors(umm, arguments, message):
    with pytest.raises(UserError, match=message):
        draw(umm, PROMPT, **arguments)
