import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

from baselines.finetuning import (
    denoising_errors,
    frozen,
    image_size,
    read_references,
    require_finite,
    training_schedule,
)
from baselines.latents import cache_latents
from baselines.progress import is_complete, save_state
from umm_bench.base import Base
from umm_bench.errors import UserError
from umm_bench.methods import Subject


def test_cached_latents_are_the_posteriors_own_samples(base: Base, subject: Subject) -> None:
    pipe = base.pipeline()
    image = Image.open(subject.references[0]).crop((0, 0, 16, 16))
    cache = cache_latents(pipe.vae, [image], 16, "none")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        posterior = pipe.vae.encode(pixels).latent_dist
    expected = posterior.sample(torch.Generator().manual_seed(3)) * pipe.vae.config.scaling_factor
    assert torch.equal(cache.sample(torch.tensor([0]), torch.Generator().manual_seed(3)), expected)


def test_flip_adds_mirror_images(base: Base, subject: Subject) -> None:
    pipe = base.pipeline()
    images = read_references(subject.references)
    flipped = cache_latents(pipe.vae, images, image_size(pipe), "flip")
    assert len(flipped) == 2 * len(images)
    mirrored = cache_latents(pipe.vae, [images[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)], 16, "none")
    assert torch.allclose(flipped.mean_NCHW[2], mirrored.mean_NCHW[0], atol=1e-6)


def test_an_oracle_has_no_error_under_either_prediction_type(base: Base) -> None:
    """A network that inverts the schedule's own equations for a known latent must be right everywhere."""
    schedule = training_schedule(base.pipeline())
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    class Oracle:
        def __call__(self, z: torch.Tensor, t: torch.Tensor, encoder_hidden_states: torch.Tensor):
            a = schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
            noise = (z - a.sqrt() * latents) / (1 - a).sqrt()
            v = a.sqrt() * noise - (1 - a).sqrt() * latents
            self.sample = noise if schedule.config.prediction_type == "epsilon" else v
            return self

    h = torch.zeros(3, 40, 16)
    errors = denoising_errors(Oracle(), schedule, latents, h, torch.Generator().manual_seed(2))
    assert errors.shape == (3,)
    assert errors.max() < 1e-5


def test_other_prediction_types_are_refused(base: Base) -> None:
    schedule = DDPMScheduler.from_config(base.pipeline().scheduler.config, prediction_type="sample")
    with pytest.raises(UserError, match="only epsilon and v_prediction"):
        denoising_errors(None, schedule, torch.zeros(1, 4, 8, 8), torch.zeros(1, 40, 16), torch.Generator())


def test_transparency_becomes_white_and_bad_files_are_named(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_references([tmp_path / "clear.png"])[0].getpixel((0, 0)) == (255, 255, 255)
    Image.new("I;16", (4, 4), 128 << 8).save(tmp_path / "deep.png")
    assert read_references([tmp_path / "deep.png"])[0].getpixel((0, 0)) == (128, 128, 128)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for name in ("broken.png", "absent.png"):
        with pytest.raises(UserError, match=name):
            read_references([tmp_path / name])
    with pytest.raises(UserError, match="without reference"):
        read_references([])


def test_frozen_lets_gradients_through_and_restores_flags() -> None:
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2, requires_grad=True)
    layer.bias.requires_grad_(False)
    with frozen(layer):
        layer(x).sum().backward()
    assert x.grad is not None and layer.weight.grad is None
    assert layer.weight.requires_grad and not layer.bias.requires_grad


@pytest.mark.parametrize(("loss", "norm", "named"), [("nan", "1", "loss"), ("1", "inf", "gradient")])
def test_what_is_not_finite_is_named(subject: Subject, loss: str, norm: str, named: str) -> None:
    require_finite("m", subject, 0, torch.tensor(1.0), torch.tensor(1.0))
    with pytest.raises(UserError, match=f"the {named} became (nan|inf) at step 1; .*--set m.learning_rate"):
        require_finite("m", subject, 0, torch.tensor(float(loss)), torch.tensor(float(norm)))


def test_state_is_whole_or_absent(tmp_path: Path) -> None:
    directory, record = tmp_path / "state", {"config": {"steps": 2, "words": ("a", "b")}}

    def killed(path: Path) -> None:
        (path / "half.bin").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_state(directory, record, [], killed)
    assert not directory.exists() and not is_complete(directory, record)
    save_state(directory, record, [0.5], lambda path: (path / "whole.bin").write_text("whole"))
    assert is_complete(directory, record)
    assert not is_complete(directory, {"config": {"steps": 3}})
    assert sorted(path.name for path in directory.iterdir()) == ["state.json", "whole.bin"]
    assert json.loads((directory / "state.json").read_text())["losses"] == [0.5]
