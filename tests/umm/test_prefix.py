"""The part before the first cross-attention is computed once, and nothing else changes."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from umm_bench.umm.prefix import TEXTS, remembered_text, shared_prefix, text_free_modules, text_only_modules

SHAPES = {
    "stable diffusion 1.5": {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
    "stable diffusion 2.1": {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "use_linear_projection": True,
    },
    "text at half size": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
    "text in the time embedding": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 2,
        "resnet_time_scale_shift": "scale_shift",
    },
    "no self-attention": {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "only_cross_attention": True,
    },
}


def make_unet(shape):
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=24, norm_num_groups=8,
        attention_head_dim=4, **SHAPES[shape],
    ).eval()  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("num_images", [1, 2])
def test_rows_of_all_branches_equal_the_plain_unet(shape, num_images):
    unet = make_unet(shape)
    latents = torch.randn(num_images, 4, 8, 8)
    for branches in (1, 2, 3, 2):
        h_RLD = torch.randn(branches * num_images, 5, 24)
        sample = latents.repeat(branches, 1, 1, 1)
        expected = unet(sample, 7, encoder_hidden_states=h_RLD).sample
        with shared_prefix(unet, num_images):
            got = unet(sample, 7, encoder_hidden_states=h_RLD).sample
        assert torch.allclose(got, expected, atol=1e-5)


@torch.no_grad()
def test_each_module_of_the_prefix_sees_one_row_an_image_and_the_rest_all():
    unet = make_unet("text at half size")
    prefix, rows = set(text_free_modules(unet)), {}
    assert unet.down_blocks[0] in prefix
    assert unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1 in prefix
    with shared_prefix(unet, 2):
        watched = [*prefix, unet.mid_block, unet.down_blocks[1].attentions[0].transformer_blocks[0].attn2]

        def count(module, args, kwargs):
            rows[module] = len((*args, *kwargs.values())[0])

        hooks = [module.register_forward_pre_hook(count, with_kwargs=True) for module in watched]
        unet(torch.randn(2, 4, 8, 8).repeat(3, 1, 1, 1), 7, encoder_hidden_states=torch.randn(6, 5, 24))
        for hook in hooks:
            hook.remove()
    assert [rows[module] for module in watched] == [2] * len(prefix) + [6, 6]


def test_the_hooks_leave_even_after_an_error():
    unet = make_unet("text at half size")
    with pytest.raises(RuntimeError), shared_prefix(unet, 1):
        unet(torch.randn(3, 5, 8, 8), 7, encoder_hidden_states=torch.randn(3, 5, 24))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())


def test_a_compiled_unet_is_left_alone():
    unet = make_unet("text at half size")
    unet.mid_block._compiled_call_impl = object()  # what Module.compile sets, without the wait for it
    with shared_prefix(unet, 1):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())


@torch.no_grad()
@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_remembered_text_changes_no_bit_and_is_read_once(shape):
    unet, reads = make_unet(shape), []
    texts = [torch.randn(2, 5, 24) for _ in range(TEXTS + 2)]
    samples = [torch.randn(2, 4, 8, 8) for _ in range(3)]
    expected = [[unet(x, t, encoder_hidden_states=h).sample for t, x in enumerate(samples)] for h in texts]
    reader = next(text_only_modules(unet))
    with remembered_text(unet):
        forward = reader.forward
        reader.register_forward_hook(lambda *_: reads.append("asked"))
        weight = next(m for m in reader.modules() if isinstance(m, torch.nn.Linear))
        weight.register_forward_hook(lambda *_: reads.append("computed") if weight is not reader else None)
        for h, wanted in zip(texts, expected, strict=True):
            for t, x in enumerate(samples):
                assert torch.equal(unet(x, t, encoder_hidden_states=h).sample, wanted[t])
    assert forward is not reader.forward and reads.count("asked") == len(texts) * len(samples)
    if weight is not reader:
        assert reads.count("computed") == len(texts)


@torch.no_grad()
def test_a_text_that_was_changed_is_read_anew():
    unet, x, h = make_unet("text in the time embedding"), torch.randn(1, 4, 8, 8), torch.randn(1, 5, 24)
    with remembered_text(unet):
        before = unet(x, 7, encoder_hidden_states=h).sample
        h.mul_(-1)
        after = unet(x, 7, encoder_hidden_states=h).sample
    assert torch.equal(after, unet(x, 7, encoder_hidden_states=h).sample) and not torch.allclose(after, before)


@torch.inference_mode()
def test_inference_mode_remembers_too():
    unet, x, h = make_unet("text in the time embedding"), torch.randn(1, 4, 8, 8), torch.randn(1, 5, 24)
    expected = unet(x, 7, encoder_hidden_states=h).sample
    with remembered_text(unet):
        assert all(torch.equal(unet(x, 7, encoder_hidden_states=h).sample, expected) for _ in range(2))


def test_what_remembers_leaves_and_is_not_there_with_gradients():
    unet = make_unet("text in the time embedding")
    modules = list(text_only_modules(unet))
    modules[1].forward = own = modules[1].forward  # as accelerate's offloading
    with remembered_text(unet):
        assert modules[1].forward is own
    with torch.no_grad(), pytest.raises(RuntimeError), remembered_text(unet):
        assert all("forward" in vars(module) for module in modules) and modules[1].forward is not own
        unet(torch.randn(1, 5, 8, 8), 7, encoder_hidden_states=torch.randn(1, 5, 24))
    assert [vars(module).get("forward") for module in modules] == [None, own, *[None] * (len(modules) - 2)]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())
