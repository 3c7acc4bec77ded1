"""Each trainer beside a plain update written from its paper: nothing cached, nothing shared, nothing fused.

The plain side makes the same draws, from the same generators, in the same order: pictures, posterior noise, noise,
timesteps. What it computes from them is its own: it encodes pixels and text at every step, adds noise by the forward
process's equation, and steps a plain AdamW, in Textual Inversion over the whole vocabulary.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from baselines.dreambooth import DreamBooth, DreamBoothConfig
from baselines.dreambooth_lora import DreamBoothLora, DreamBoothLoraConfig
from baselines.textual_inversion import TextualInversion, TextualInversionConfig
from baselines.words import OBJECT_TEMPLATES
from umm_bench.base import Base
from umm_bench.images import open_image
from umm_bench.methods import Case, Generation, Subject
from umm_bench.seeding import seed_for

STEPS = 20
TOLERANCE = 1e-5
PRIOR_WEIGHT = 0.7


def pixels_of(images: list[Image.Image]) -> list[Tensor]:
    """Each [1, 3, 16, 16], in [-1, 1]."""
    squares = [ImageOps.fit(image, (16, 16), Image.Resampling.BICUBIC) for image in images]
    return [torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 127.5 - 1 for square in squares]


def latents_of(pipe: Any, pixels: list[Tensor], generator: torch.Generator, batch_size: int) -> tuple[Tensor, Tensor]:
    """Random pictures, encoded now: latents [B, 4, 8, 8] and which pictures they are."""
    image_B = torch.randint(len(pixels), (batch_size,), generator=generator)
    return image_B, encoded(pipe, [pixels[image] for image in image_B.tolist()], generator)


def encoded(pipe: Any, pixels: list[Tensor], generator: torch.Generator) -> Tensor:
    with torch.no_grad():
        posterior_B = pipe.vae.encode(torch.cat(pixels)).latent_dist
    noise_BCHW = torch.randn(posterior_B.mean.shape, generator=generator)
    return (posterior_B.mean + posterior_B.std * noise_BCHW) * pipe.vae.config.scaling_factor


def diffusion_errors(pipe: Any, unet: Any, z_BCHW: Tensor, h_BLD: Tensor, generator: torch.Generator) -> Tensor:
    """Squared errors of noise or of velocity [B], by the equations of DDPM (2006.11239) and of 2202.00512."""
    noise_BCHW = torch.randn(z_BCHW.shape, generator=generator)
    t_B = torch.randint(1000, (len(z_BCHW),), generator=generator)
    config = pipe.scheduler.config
    beta_T = torch.linspace(config.beta_start, config.beta_end, 1000)
    assert config.beta_schedule == "linear"
    a_B = torch.cumprod(1 - beta_T, 0)[t_B].view(-1, 1, 1, 1)
    noisy_BCHW = a_B.sqrt() * z_BCHW + (1 - a_B).sqrt() * noise_BCHW
    target_BCHW = noise_BCHW
    if config.prediction_type == "v_prediction":
        target_BCHW = a_B.sqrt() * noise_BCHW - (1 - a_B).sqrt() * z_BCHW
    return (unet(noisy_BCHW, t_B, encoder_hidden_states=h_BLD).sample - target_BCHW).square().mean(dim=(1, 2, 3))


def text_of(pipe: Any, texts: list[str], text_encoder: Any = None) -> Tensor:
    ids_BL = pipe.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return (text_encoder or pipe.text_encoder)(ids_BL)[0]


def plain_dreambooth(
    method: DreamBooth, case: Case, unet: Any, phrases: list[str], class_phrases: list[str], text_encoder: Any = None
) -> Iterator[float]:
    """Equation 2 of 2208.12242: the subject's error, and the class's by the weight."""
    config, pipe = method.config, method.base.pipeline()
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    parameters += text_encoder.parameters() if text_encoder else []
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=1e-2, foreach=False, fused=False)
    unet.train()
    own: list[tuple[Tensor, str]] = []
    drawn: list[tuple[Tensor, str]] = []
    for subject, text, class_text in zip(case.subjects, phrases, class_phrases, strict=True):
        own += [(pixels, text) for pixels in pixels_of([open_image(path) for path in subject.references])]
        if config.num_class_images:
            drawn += [(pixels, class_text) for pixels in pixels_of(method.class_images(subject))]
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(seed_for(method.name, case.id, step))
        latents, texts = [], []
        for pool in (own, drawn) if drawn else (own,):
            image_B, z_BCHW = latents_of(pipe, [pixels for pixels, _ in pool], generator, config.batch_size)
            latents.append(z_BCHW)
            texts += [pool[image][1] for image in image_B.tolist()]
        with torch.set_grad_enabled(text_encoder is not None):
            h_BLD = text_of(pipe, texts, text_encoder)
        errors_B = diffusion_errors(pipe, unet, torch.cat(latents), h_BLD, generator)
        loss = errors_B[: config.batch_size].mean()
        if drawn:
            loss = loss + PRIOR_WEIGHT * errors_B[config.batch_size :].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        yield loss.item()


@pytest.fixture
def other(tmp_path: Path) -> Subject:
    Image.new("RGB", (16, 16), (250, 10, 10)).save(tmp_path / "red.png")
    return Subject("egg", "egg", (tmp_path / "red.png",))


@pytest.mark.parametrize("prior", [0, 3])
@pytest.mark.parametrize("kind", ["dreambooth", "dreambooth_lora", "two subjects", "text encoder"])
def test_dreambooth_is_the_papers_update(kind: str, prior: int, base: Base, subject: Subject, other: Subject) -> None:
    # A low rate: Adam turns the rounding of a gradient next to nothing into a part of a whole step.
    settings: dict[str, Any] = {"steps": STEPS, "learning_rate": 1e-4, "num_class_images": prior}
    settings |= {"class_inference_steps": 2, "prior_loss_weight": PRIOR_WEIGHT, "identifiers": ("sks", "pll")}
    case, phrases, class_phrases = Case((subject,)), ["a sks red fox"], ["a red fox"]
    method: DreamBooth = DreamBooth(base, DreamBoothConfig(**settings), Generation())
    if kind == "dreambooth_lora":
        settings["identifiers"] = ("sks",)
        method = DreamBoothLora(base, DreamBoothLoraConfig(**settings, rank=2), Generation())
    elif kind == "two subjects":
        case, phrases, class_phrases = Case((subject, other)), [*phrases, "a pll egg"], [*class_phrases, "an egg"]
    ours, theirs = method.trainable_unet(case), method.trainable_unet(case)
    before = copy.deepcopy(ours.state_dict())
    encoders = [copy.deepcopy(base.pipeline().text_encoder) if kind == "text encoder" else None for _ in range(2)]
    plain = list(plain_dreambooth(method, case, theirs, phrases, class_phrases, encoders[1]))
    training = method.train(case, ours, None, encoders[0])
    found = [loss for _, (_, loss) in zip(range(STEPS), training, strict=False)]
    assert found == pytest.approx(plain, abs=TOLERANCE)
    for name, weight in ours.state_dict().items():
        assert torch.allclose(weight, theirs.state_dict()[name], atol=TOLERANCE, rtol=0), name
    if encoders[0] is not None and encoders[1] is not None:
        shared = base.pipeline().text_encoder.state_dict()
        for name, weight in encoders[0].state_dict().items():
            if not name.endswith("k_proj.bias"):  # softmax takes it out: its gradient is rounding alone
                assert torch.allclose(weight, encoders[1].state_dict()[name], atol=TOLERANCE, rtol=0), name
        weight = encoders[0].state_dict()["final_layer_norm.weight"]
        assert (weight - shared["final_layer_norm.weight"]).abs().max() > 10 * TOLERANCE
    moved = [name for name, weight in ours.state_dict().items() if (weight - before[name]).abs().max() > 10 * TOLERANCE]
    assert moved and all("lora" in name for name in moved) == (kind == "dreambooth_lora")


@pytest.mark.parametrize("vectors", [1, 2])
def test_textual_inversion_is_the_papers_update(vectors: int, base: Base, subject: Subject) -> None:
    """Plainly: every row takes gradients and steps, and the old ones are put back, as diffusers' script does."""
    config = TextualInversionConfig(num_vectors=vectors, steps=STEPS, batch_size=3, learning_rate=1e-2)
    method = TextualInversion(base, config, Generation())
    rows_VD = method.initial_rows(subject)
    begun = rows_VD.detach().clone()
    pipe = method.copied_pipeline()
    words = ["<umm-subject>", "<umm-subject>_1"][:vectors]
    pipe.tokenizer.add_tokens(words)
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer), mean_resizing=False)
    table = pipe.text_encoder.get_input_embeddings().weight
    old = len(table) - vectors
    with torch.no_grad():
        table[old:] = begun
    kept = table.detach()[:old].clone()
    optimizer = torch.optim.AdamW([table], lr=1e-2, weight_decay=1e-2, foreach=False, fused=False)
    pixels = pixels_of([open_image(path) for path in subject.references])
    plain = []
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(seed_for("textual_inversion", "fox", step))
        image_B = torch.randint(len(pixels), (3,), generator=generator)
        text_B = torch.randint(27, (3,), generator=generator)
        h_BLD = text_of(pipe, [OBJECT_TEMPLATES[text].format(" ".join(words)) for text in text_B.tolist()])
        z_BCHW = encoded(pipe, [pixels[image] for image in image_B.tolist()], generator)
        loss = diffusion_errors(pipe, base.pipeline().unet, z_BCHW, h_BLD, generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            table[:old] = kept
        plain.append(loss.item())
    base.pipeline().unet.zero_grad()
    assert [loss for _, loss in method.train(subject, rows_VD)] == pytest.approx(plain, abs=TOLERANCE)
    assert torch.allclose(rows_VD, table[old:], atol=TOLERANCE, rtol=0)
    assert (rows_VD - begun).abs().amax(1).min() > 100 * TOLERANCE, "every vector is learnt"


def test_a_second_training_from_the_cache_is_bitwise_the_first(base: Base, subject: Subject) -> None:
    method = DreamBooth(base, DreamBoothConfig(steps=3, num_class_images=0), Generation())
    case, weights, encodings = Case((subject,)), [], []
    encode = base.pipeline().vae.encode
    base.pipeline().vae.encode = lambda pixels: encodings.append(pixels) or encode(pixels)
    try:
        for _ in range(2):
            unet = method.trainable_unet(case)
            list(method.train(case, unet))
            weights.append(unet.state_dict())
    finally:
        del base.pipeline().vae.encode
    assert len(encodings) == len(subject.references), "each picture once, for both trainings"
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
