"""The laws of the model, on a random Stable Diffusion of small width."""

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, PNDMScheduler

from tests.umm.conftest import make_tiue, make_umm, picture
from umm_bench.errors import UserError
from umm_bench.umm import Subject, UMMPipeline

PROMPT = "a small dog on the beach"


def seeds(*values):
    return [torch.Generator("cpu").manual_seed(value) for value in values]


def draw(pipe, prompt=PROMPT, seed=0, **kwargs):
    settings = {"num_inference_steps": 3, "guidance_scale": 4.0, "generator": seeds(seed), "output_type": "np"}
    return pipe(prompt, **settings | kwargs).images


def dog(**kwargs):
    return [Subject(picture(5), "dog", **kwargs)]


@pytest.fixture
def unet_rows(umm):
    """The batch sizes that the UNet sees during the test."""
    rows = []
    hook = umm.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    yield rows
    hook.remove()


def test_of_the_same_words_each_subject_changes_those_at_its_own_place(umm):
    prompt = ["a dog on the beach, a red dog"]
    h_y_NLD, _ = umm.encode_prompt(prompt, "cpu", 1, False)
    subjects = [Subject(picture(1), "dog", occurrence=2), Subject(picture(2), "dog", occurrence=1)]
    hidden = umm.encode_subject_prompt(prompt, h_y_NLD, subjects, [frozenset({0}), frozenset({1})])
    ids = umm.tokenizer(prompt[0])["input_ids"]
    dogs = [i for i, word in enumerate(umm.tokenizer.convert_ids_to_tokens(ids)) if word == "dog</w>"]
    changed = [(hidden[frozenset({s})] != h_y_NLD).any(dim=-1)[0].nonzero().flatten().tolist() for s in (0, 1)]
    assert changed == [[dogs[1]], [dogs[0]]]


@pytest.mark.parametrize("scheduler", [None, PNDMScheduler, EulerDiscreteScheduler])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_alpha_zero_is_stable_diffusion(fresh_sd, tiny_image_encoder, scheduler, prediction_type):
    sd = fresh_sd(prediction_type)
    if scheduler is not None:
        options = {"skip_prk_steps": True} if scheduler is PNDMScheduler else {}
        sd.scheduler = scheduler.from_config(sd.scheduler.config, **options)
    shared = {"negative_prompt": "snow", "num_images_per_prompt": 2, "generator": seeds(1, 2)}
    expected = draw(sd, **shared)
    pipe = make_umm(sd, tiny_image_encoder)
    got = draw(pipe, **shared | {"generator": seeds(1, 2)}, subjects=dog(), alpha=0.0)
    assert np.abs(got - expected).max() < 1e-4
    assert np.abs(draw(pipe, subjects=dog(), alpha=0.9) - expected[:1]).max() > 1e-3


def test_guidance_off_is_stable_diffusion_too(umm, tiny_sd):
    for scale in (1.0, 0.0):
        expected = draw(tiny_sd, guidance_scale=scale)
        assert np.abs(draw(umm, guidance_scale=scale) - expected).max() < 1e-4


@pytest.mark.parametrize(
    ("alphas", "guidance_scale", "rows"),
    [([0.0], 4.0, 2), ([1.0], 4.0, 2), ([0.6], 4.0, 3), ([1.0], 1.0, 1), ([0.6], 1.0, 2), ([0.6, 0.6], 4.0, 3),
     ([0.6, 0.3], 4.0, 4), ([1.0, 0.0], 4.0, 2)],
)  # fmt: skip
def test_unet_rows(umm, unet_rows, alphas, guidance_scale, rows):
    words = ("dog", "beach")
    subjects = [Subject(picture(i), words[i], alpha) for i, alpha in enumerate(alphas)]
    draw(umm, subjects=subjects, guidance_scale=guidance_scale)
    assert unet_rows == [rows] * 3


def test_batched_branches_are_the_equation(umm):
    """One step of the pipeline against the equation, each branch predicted alone."""
    latents = torch.randn(1, 4, 8, 8, generator=seeds(3)[0])
    alpha, s = 0.6, 4.0
    seen = {}

    def keep(pipe, step, timestep, tensors):
        seen.update(tensors)
        return {}

    got = umm(
        PROMPT, dog(), alpha, num_inference_steps=1, guidance_scale=s, latents=latents, output_type="latent",
        callback_on_step_end=keep, callback_on_step_end_tensor_inputs=["encoder_hidden_states"],
    ).images  # fmt: skip
    t = umm.scheduler.timesteps[0]
    h_0, h_u, h_y = seen["encoder_hidden_states"].split(1)
    assert torch.allclose(h_y, umm.encode_prompt(PROMPT, "cpu", 1, False)[0])
    with torch.no_grad():
        eps_0, eps_u, eps_y = (umm.unet(latents, t, encoder_hidden_states=h).sample for h in (h_0, h_u, h_y))
    eps = eps_0 + s * (alpha * (eps_u - eps_0) + (1 - alpha) * (eps_y - eps_0))
    assert torch.allclose(got, umm.scheduler.step(eps, t, latents).prev_sample, atol=1e-4)


def test_h_u_changes_at_the_subject_only(umm):
    h_y = umm.encode_prompt([PROMPT], "cpu", 1, False)[0]
    with torch.no_grad():
        hidden_states = umm.encode_subject_prompt([PROMPT], h_y, dog(), [frozenset({0})])
    h_u, h_same = hidden_states[frozenset({0})], hidden_states[frozenset()]
    changed = (h_u != h_y).any(dim=-1)[0].nonzero().flatten().tolist()
    assert changed == [3]
    assert torch.equal(h_same, h_y)


def test_a_batch_equals_its_members(umm):
    subjects = [Subject(picture(5), "dog", 0.8), Subject(picture(6), "on", 0.3)]
    prompts = ["a dog on the beach", "snow and a small dog on it"]
    batch = draw(umm, prompts, subjects=subjects, num_images_per_prompt=2, generator=seeds(1, 2, 3, 4))
    for i, prompt in enumerate(prompts):
        for j in range(2):
            alone = draw(umm, prompt, subjects=subjects, seed=2 * i + j + 1)
            assert np.abs(batch[2 * i + j] - alone[0]).max() < 1e-4


def test_each_subject_keeps_its_own_image(umm):
    def one(first, second):
        return draw(umm, "a dog and a fox", subjects=[Subject(picture(first), "dog"), Subject(picture(second), "fox")])

    assert np.abs(one(1, 2) - one(2, 1)).max() > 1e-3
    swapped = [Subject(picture(2), "fox"), Subject(picture(1), "dog")]
    assert np.abs(one(1, 2) - draw(umm, "a dog and a fox", subjects=swapped)).max() < 1e-4


def test_save_and_load_give_the_same_image(umm, tmp_path):
    umm.save_pretrained(tmp_path)
    assert not list(tmp_path.rglob("*.bin"))
    loaded = UMMPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    for name in ("vae", "unet", "text_encoder", "image_encoder", "tiue"):
        before, after = getattr(umm, name).state_dict(), getattr(loaded, name).state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before) and before.keys() == after.keys()
    # the last bit depends on how the loaded tensors lie in memory
    assert np.abs(draw(loaded, subjects=dog()) - draw(umm, subjects=dog())).max() < 1e-5


def test_embeds_stand_for_their_image(umm):
    embeds = umm.embed_images([picture(5)])[0]
    got = draw(umm, subjects=[Subject(phrase="dog", embeds=embeds)])
    assert np.array_equal(got, draw(umm, subjects=dog()))
    assert np.abs(got - draw(umm, subjects=[Subject(picture(6), "dog")])).max() > 1e-3


def test_outputs_and_callbacks(umm):
    steps = []

    def stop_guiding(pipe, step, timestep, tensors):
        steps.append((step, tuple(tensors["latents"].shape)))
        return {"latents": torch.zeros_like(tensors["latents"])}

    zeroed = umm(
        PROMPT, dog(), num_inference_steps=2, output_type="latent", return_dict=False, callback_on_step_end=stop_guiding
    )
    assert steps == [(0, (1, 4, 8, 8)), (1, (1, 4, 8, 8))]
    assert not zeroed[0].any()
    image = umm(PROMPT, dog(), num_inference_steps=1).images[0]
    assert image.size == (32, 32) and image.mode == "RGB"
    assert umm(PROMPT, dog(), num_inference_steps=1, height=48, width=40).images[0].size == (40, 48)


def test_half_precision_stays_half(fresh_sd, tiny_image_encoder):
    sd = fresh_sd().to(torch.bfloat16)
    pipe = UMMPipeline.from_pipe(
        sd, image_encoder=tiny_image_encoder[0], feature_extractor=tiny_image_encoder[1], tiue=make_tiue()
    )
    assert pipe.unet.dtype == pipe.tiue.dtype == torch.bfloat16
    assert np.isfinite(draw(pipe, subjects=dog())).all()
    pipe.image_encoder.float()  # the fixture is shared


@pytest.mark.parametrize(
    ("prompt", "subjects", "message"),
    [
        ("a fox", [Subject(picture(1), "dog")], 'does not contain the subject "dog"'),
        ("a fox", [Subject(picture(1), "dog", 0.0)], "does not contain"),
        ("a dog", [Subject(picture(1), "dog", 1.2)], "alpha is 1.2"),
        ("a dog", [Subject(None, "dog")], "neither image nor embeds nor card"),
        ("a dog", [Subject([], "dog")], "neither image nor embeds nor card"),
        ([], [], "list of prompts is empty"),
        ("", [Subject(picture(1), "dog")], "does not contain"),
        ("on snow " * 11 + "a dog", [Subject(picture(1), "dog")], "cut at 22 tokens"),
        ("a red dog", [Subject(picture(1), "red dog"), Subject(picture(2), "dog")], "share words"),
        ("a dog", [Subject("missing.png", "dog")], "no image file"),
        ("a dog", [Subject(b"garbage", "dog")], "cannot be read"),
    ],
)
def test_errors(umm, prompt, subjects, message):
    with pytest.raises(UserError, match=message):
        draw(umm, prompt, subjects=subjects)


def test_a_tiue_for_another_base_is_named(tiny_sd, tiny_image_encoder):
    with pytest.raises(UserError, match="text encoder of width 768, this base has 32"):
        make_umm(tiny_sd, tiny_image_encoder, text_dim=768)
    with pytest.raises(UserError, match="image encoder of width 512, this base has 24"):
        make_umm(tiny_sd, tiny_image_encoder, image_dim=512)


def test_without_tiue_it_is_stable_diffusion(tiny_sd):
    pipe = UMMPipeline.from_pipe(tiny_sd)
    pipe.set_progress_bar_config(disable=True)
    assert np.abs(draw(pipe) - draw(tiny_sd)).max() < 1e-4
    with pytest.raises(UserError, match="no TIUE"):
        draw(pipe, subjects=dog())
