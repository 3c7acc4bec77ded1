"""Custom Diffusion: the paper's update, nothing else changed, and files that diffusers reads."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from baselines.custom_diffusion import WEIGHTS_FILE, WORDS_FILE, CustomDiffusion, CustomDiffusionConfig, text_layers
from baselines.finetuning import with_components
from baselines.stable_diffusion import draw
from tests.baselines.test_baselines import PROMPT, make, pixels
from tests.baselines.test_faithful import (
    PRIOR_WEIGHT,
    STEPS,
    TOLERANCE,
    diffusion_errors,
    latents_of,
    pixels_of,
    text_of,
)
from umm_bench.base import Base
from umm_bench.images import open_image
from umm_bench.methods import Case, Generation, Subject
from umm_bench.seeding import seed_for


@pytest.fixture
def pair(subject: Subject, tmp_path: Path) -> Case:
    Image.new("RGB", (16, 16), (250, 10, 10)).save(tmp_path / "red.png")
    return Case((subject, Subject("egg", "egg", (tmp_path / "red.png",))))


def plain(method: CustomDiffusion, case: Case, unet: Any, pipe: Any, old: int) -> Iterator[float]:
    """By the paper, plainly: the whole table takes gradients, those of the old rows are dropped, the old rows put back.

    `pipe` knows the new words, the rows of its table from `old` on.
    """
    config, table = method.config, pipe.text_encoder.get_input_embeddings().weight
    kept = table.detach()[:old].clone()
    layers = [p for name, p in unet.named_parameters() if ".attn2.to_k." in name or ".attn2.to_v." in name]
    optimizer = torch.optim.AdamW([*layers, table], lr=config.learning_rate, weight_decay=1e-2, foreach=False)
    own: list[tuple[Any, str]] = []
    drawn: list[tuple[Any, str]] = []
    for one, text, class_text in zip(
        case.subjects, ["a <new1> red fox", "a <new2> egg"], ["a red fox", "an egg"], strict=False
    ):
        own += [(picture, text) for picture in pixels_of([open_image(path) for path in one.references])]
        drawn += [(picture, class_text) for picture in pixels_of(method.class_images(one))]
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(seed_for(method.name, case.id, step))
        latents, texts = [], []
        for pool in (own, drawn):
            image_B, z_BCHW = latents_of(pipe, [picture for picture, _ in pool], generator, config.batch_size)
            latents.append(z_BCHW)
            texts += [pool[image][1] for image in image_B.tolist()]
        errors_B = diffusion_errors(pipe, unet, torch.cat(latents), text_of(pipe, texts), generator)
        loss = errors_B[: config.batch_size].mean() + PRIOR_WEIGHT * errors_B[config.batch_size :].mean()
        optimizer.zero_grad()
        loss.backward()
        assert table.grad is not None
        table.grad[:old] = 0
        torch.nn.utils.clip_grad_norm_([*layers, table], 1.0)
        optimizer.step()
        with torch.no_grad():
            table[:old] = kept
        yield loss.item()


@pytest.mark.parametrize("subjects", [1, 2])
def test_it_is_the_papers_update(subjects: int, base: Base, pair: Case) -> None:
    case = Case(pair.subjects[:subjects])
    config = CustomDiffusionConfig(
        steps=STEPS, learning_rate=1e-4, num_class_images=3, class_inference_steps=2, prior_loss_weight=PRIOR_WEIGHT
    )
    method = CustomDiffusion(base, config, Generation())
    ours, encoder = method.trainable_unet(case), method.trainable_text_encoder(case)
    begun = encoder.get_input_embeddings().rows.detach().clone()
    before, theirs = copy.deepcopy(ours.state_dict()), copy.deepcopy(base.pipeline().unet).requires_grad_(True)
    pipe = with_components(
        base.pipeline(),
        tokenizer=copy.deepcopy(base.pipeline().tokenizer),
        text_encoder=copy.deepcopy(base.pipeline().text_encoder),
    )
    old = len(pipe.tokenizer)
    for word, like in zip(["<new1>", "<new2>"][:subjects], ["sks", "pll"], strict=False):
        row = pipe.tokenizer(like, add_special_tokens=False).input_ids[0]
        pipe.load_textual_inversion({word: pipe.text_encoder.get_input_embeddings().weight[row].detach().clone()})
    losses = list(plain(method, case, theirs, pipe, old))
    training = method.train(case, ours, None, encoder)
    assert [loss for _, (_, loss) in zip(range(STEPS), training, strict=False)] == pytest.approx(losses, abs=TOLERANCE)
    for name, weight in ours.state_dict().items():
        assert torch.allclose(weight, theirs.state_dict()[name], atol=TOLERANCE, rtol=0), name
    rows = encoder.get_input_embeddings().rows
    assert torch.allclose(rows, pipe.text_encoder.get_input_embeddings().weight[old:], atol=TOLERANCE, rtol=0)
    assert (rows - begun).abs().amax(1).min() > 10 * TOLERANCE, "each new word is learnt"
    moved = {name for name, weight in ours.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved and all(".attn2.to_k." in name or ".attn2.to_v." in name for name in moved)


def test_diffusers_loads_what_is_saved(base: Base, subject: Subject, tmp_path: Path) -> None:
    method = make("custom_diffusion", base, learning_rate=0.05, steps=6, save_dtype="float32")
    case = Case((subject,))
    state = method.setup(case, tmp_path / "state")
    ours = pixels(method.generate([state], case, PROMPT, [3]))
    pipe = Base("fresh", base.location).pipeline()
    without = pixels(draw(pipe, PROMPT.text(["sks red fox"]), [3], method.generation))
    saved: dict[str, Any] = load_file(tmp_path / "state" / WEIGHTS_FILE)
    rest = {name: {} for name in pipe.unet.attn_processors if ".attn1." in name}
    pipe.unet.load_attn_procs({**saved, **rest}, _pipeline=pipe)
    for word, row_D in load_file(tmp_path / "state" / WORDS_FILE).items():
        pipe.load_textual_inversion({word: row_D})
    theirs = pixels(draw(pipe, "a <new1> red fox on a blue background", [3], method.generation))
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - without).max() > 1


def test_two_subjects_have_two_words(base: Base, pair: Case, tmp_path: Path) -> None:
    method = make("custom_diffusion", base)
    state = method.setup(pair, tmp_path / "state")
    assert method.words(method.config, pair) == ("<new1> red fox", "<new2> egg")
    assert {"<new1>", "<new2>"} <= state.tokenizer.get_vocab().keys()
    assert not {"<new1>", "<new2>"} & base.pipeline().tokenizer.get_vocab().keys()


def test_what_it_cannot_draw_is_said_before(base: Base, pair: Case) -> None:
    config = CustomDiffusionConfig(identifiers=("sks",))
    assert "2 subjects but 1 identifiers" in str(CustomDiffusion.check(config, base, pair, PROMPT))
    alone = Case(pair.subjects[:1])
    assert CustomDiffusion.check(config, base, alone, PROMPT) is None
    assert "must be one" in str(CustomDiffusion.check(replace(config, identifiers=("dog",)), base, alone, PROMPT))
    with pytest.raises(ValueError, match="train_text_encoder"):
        CustomDiffusionConfig(train_text_encoder=True)


def test_keys_and_values_have_diffusers_names(base: Base) -> None:
    names = text_layers(base.pipeline().unet)
    processors = {name for name in base.pipeline().unet.attn_processors if ".attn2." in name}
    assert {name.split(".to_")[0] for name in names} == processors
    assert len(names) == 2 * len(processors)
