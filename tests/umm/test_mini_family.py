"""The laws of the model on the shipped mini family; nothing here depends on how well it draws."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from tests.umm.conftest import picture
from umm_bench.base import load_base
from umm_bench.mini import family
from umm_bench.umm import Subject, UMMPipeline
from umm_bench.umm_method import load_umm

pytestmark = pytest.mark.skipif(
    not all((family.WEIGHTS / name).is_dir() for name in ("sd", "image_encoder", "tiue")),
    reason="mini weights are not there: make mini",
)

PROMPT = "a cat on a blue background"


@pytest.fixture(scope="module")
def pipe():
    return load_umm(load_base("mini"), "mini")


@pytest.fixture(scope="module")
def sd():
    return load_base("mini").pipeline()


def draw(pipe, prompt=PROMPT, seeds=(0,), **settings):
    settings = {"num_inference_steps": 2, "guidance_scale": 4.0, "output_type": "np"} | settings
    generator = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return pipe(prompt, generator=generator, num_images_per_prompt=len(seeds), **settings).images


def cat(alpha=None):
    return Subject(picture(5, (64, 64)), "cat", alpha)


def far(a, b):
    return np.abs(a - b).max()


def test_alpha_zero_is_stable_diffusion(pipe, sd):
    expected = draw(sd)
    assert far(draw(pipe, subjects=cat(0.0)), expected) < 1e-4
    assert far(draw(pipe, subjects=cat(0.9)), expected) > 1e-3


def test_alpha_one_is_two_branches_and_between_are_three(pipe):
    rows = []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    for alpha in (1.0, 0.5):
        draw(pipe, subjects=cat(alpha))
    hook.remove()
    assert rows == [2, 2, 3, 3]


def test_a_batch_equals_its_members(pipe):
    both = draw(pipe, subjects=cat(), seeds=(1, 2))
    assert far(both[1:], draw(pipe, subjects=cat(), seeds=(2,))) < 1e-4


def test_h_u_changes_at_the_subject_and_where_the_text_has_ended(pipe):
    h_y = pipe.encode_prompt([PROMPT], pipe.device, 1, False)[0]
    h_u = pipe.encode_subject_prompt([PROMPT], h_y, [cat()], [frozenset({0})])[frozenset({0})]
    words, end = pipe.tiue.config.num_pseudo_words, len(pipe.tokenizer(PROMPT).input_ids) - 1
    assert pipe.tiue.config.placement == "before"
    assert torch.equal(h_u[:, :2], h_y[:, :2])
    assert (h_u[0, 2 : 2 + words] != h_y[0, 2]).any(dim=-1).all() and (h_u[0, 2 + words] != h_y[0, 2]).any()
    assert torch.equal(h_u[:, 3 + words : end + words], h_y[:, 3:end])  # the text around it, moved on
    assert (h_u[:, end + words :] != h_y[:, end : h_y.shape[1] - words]).any(dim=-1).all()


def test_save_and_load_give_the_same_image(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = UMMPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    assert far(draw(loaded, subjects=cat()), draw(pipe, subjects=cat())) < 1e-4


def test_lora_and_textual_inversion_load_on_the_base(tmp_path):
    # a base of its own: both change it
    base = load_base("mini")
    pipe, sd = load_umm(base, "mini"), base.pipeline()
    before = draw(pipe, subjects=cat())
    pipe.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_k", "to_v"]))
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(pipe.unet))
    pipe.unet.delete_adapters("default")
    save_file({"<toy>": torch.randn(2, pipe.text_encoder.config.hidden_size)}, tmp_path / "toy.safetensors")

    pipe.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    pipe.load_textual_inversion(tmp_path / "toy.safetensors", token="<toy>")
    assert far(draw(pipe, subjects=cat()), before) > 1e-3
    prompt = "a cat next to a <toy>"
    assert far(draw(pipe, prompt, subjects=cat(0.0)), draw(sd, prompt)) < 1e-4
    assert far(draw(pipe, prompt, subjects=cat(0.9)), draw(sd, prompt)) > 1e-3


def test_a_style_reference(pipe):
    prompt = "a cat in the style of <image>"
    style = Subject(picture(7, (64, 64)), "<image>")
    assert far(draw(pipe, prompt, subjects=style), draw(pipe, prompt)) > 1e-3
