"""Both sides of `benchmarks.baselines` do the same work, ours with less of it twice."""

from pathlib import Path

import pytest

from baselines.dreambooth import DreamBoothConfig
from baselines.textual_inversion import TextualInversionConfig
from benchmarks import baselines as benchmark
from umm_bench.base import Base

DREAMBOOTH = DreamBoothConfig(steps=3, num_class_images=2, class_inference_steps=2, learning_rate=1e-4)


def encodings_of(base: Base, run: object) -> int:
    """How many pictures `run` gives the VAE."""
    counted: list[int] = []
    encode = base.pipeline().vae.encode
    base.pipeline().vae.encode = lambda pixels: counted.append(len(pixels)) or encode(pixels)
    try:
        run()
    finally:
        del base.pipeline().vae.encode
    return sum(counted)


@pytest.mark.parametrize("prior", [0, 2])
def test_dreambooth_beside_the_plain_recipe(prior: int, base: Base, tmp_path: Path) -> None:
    config = DreamBoothConfig(**{**vars(DREAMBOOTH), "num_class_images": prior})
    sides = benchmark.dreambooth(base, config, benchmark.make_subjects(tmp_path, 2, 3))
    ours, plain = sides.ours(), sides.plain()
    assert len(ours) == 6 and ours == pytest.approx(plain, rel=1e-4)
    # Ours: three pictures of each subject, and the class's, once for both. Plain: the batch, at each step of each.
    assert encodings_of(base, sides.ours) == 2 * 3 + prior
    assert encodings_of(base, sides.plain) == 2 * 3 * (4 if prior else 2)


def test_textual_inversion_beside_the_plain_recipe(base: Base, tmp_path: Path) -> None:
    config = TextualInversionConfig(steps=4, batch_size=2, num_vectors=2)
    sides = benchmark.textual_inversion(base, config, benchmark.make_subjects(tmp_path, 2, 3))
    ours, plain = sides.ours(), sides.plain()
    assert len(ours) == 8 and ours == pytest.approx(plain, rel=1e-4)
    assert encodings_of(base, sides.ours) == 6 and encodings_of(base, sides.plain) == 16


def test_the_final_loss_is_of_the_last_quarter_of_each_subject() -> None:
    assert benchmark.final_loss([9, 9, 9, 1, 9, 9, 9, 3], steps=4) == 2
    assert benchmark.final_loss([9, 1, 9, 3], steps=2) == 2
