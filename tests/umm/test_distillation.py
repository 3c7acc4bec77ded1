"""Part of the target may be what the generator itself makes of the whole caption."""

import dataclasses

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from tests.umm.conftest import make_umm, row
from umm_bench.errors import UserError
from umm_bench.umm.encoded import EncodedPairs, encode_pairs
from umm_bench.umm.pairs import read_pairs
from umm_bench.umm.settings import EncodeConfig, TrainConfig
from umm_bench.umm.trainer import denoising_loss, draw, initial_state, noise_schedule, summary_loss, train, umm_loss

CONFIG = TrainConfig(hidden_dim=16, drop_rate=0.0)
ENCODE = EncodeConfig(views=2, chunk_size=4, dtype="float32", head_rate=1.0, whole_captions=True)


def test_the_target_may_be_what_the_generator_makes_of_the_whole_caption(umm, pairs_folder, tmp_path):
    folder = pairs_folder([row(0, "a red fox on grass", "a red fox", "fox"), row(1, "a fox on grass", "a fox", "fox")])
    batch = EncodedPairs(list(encode_pairs(umm, read_pairs(folder), tmp_path / "cache", ENCODE))).batch([0, 1])
    assert batch.cut_B.tolist() == [True, False]
    assert torch.equal(batch.h_whole_BLD[1], batch.h_y_BLD[1]) and not torch.equal(*batch.h_whole_BLD)
    schedule, shapes = noise_schedule(umm), {"image_embeds": (2, 24), "mean": batch.mean_BCHW.shape[1:]}
    draws = draw(shapes, 2, 0, 0, schedule.config.num_train_timesteps)
    z_BCHW = batch.mean_BCHW * umm.vae.config.scaling_factor

    def loss(share):
        taught = (batch.h_whole_BLD, torch.tensor(share))
        return denoising_loss(umm, schedule, z_BCHW, batch.h_whole_BLD, draws, 0.0, taught).item()

    plain = denoising_loss(umm, schedule, z_BCHW, batch.h_whole_BLD, draws, 0.0).item()
    assert loss([0.0, 0.0]) == pytest.approx(plain) and loss([1.0, 1.0]) == pytest.approx(0, abs=1e-9)
    assert 0 < loss([1.0, 0.0]) < plain

    config, tiue = CONFIG, initial_state(umm, CONFIG).tiue
    plain, taught, refused = (
        umm_loss(umm, tiue, schedule, batch, part, dataclasses.replace(config, distill=share, drop_rate=rate)).item()
        for part, share, rate in ((draws, 0.0, 0.0), (draws, 1.0, 0.0), (draws, 1.0, 1.0))
    )
    assert plain != pytest.approx(taught)
    without = umm_loss(umm, tiue, schedule, batch, draws, dataclasses.replace(config, drop_rate=1.0)).item()
    assert refused == pytest.approx(without)  # without its picture a row has nothing to tell
    bare = dataclasses.replace(batch, h_whole_BLD=None, cut_B=None)
    with pytest.raises(UserError, match="whole_captions"):
        umm_loss(umm, tiue, schedule, bare, draws, dataclasses.replace(config, distill=1.0))


@pytest.fixture
def reads_a_summary(tiny_sd, tiny_image_encoder):
    torch.manual_seed(0)
    more = {"addition_embed_type": "text", "addition_embed_type_num_heads": 2}
    known = {name: value for name, value in tiny_sd.unet.config.items() if not name.startswith("_")}
    unet = UNet2DConditionModel.from_config(known | more)
    sd = StableDiffusionPipeline.from_pipe(tiny_sd, unet=unet)
    return make_umm(sd, tiny_image_encoder, placement="before")


def test_first_steps_may_match_the_summary_of_the_whole_caption(reads_a_summary, pairs_folder, tmp_path, monkeypatch):
    pipe = reads_a_summary
    encoded = EncodedPairs(list(encode_pairs(pipe, read_pairs(pairs_folder()), tmp_path / "cache", ENCODE)))
    config = dataclasses.replace(CONFIG, placement="before", batch_size=6, learning_rate=3e-2)
    config = dataclasses.replace(config, summary_steps=40, steps=42)
    batch, draws = encoded.batch(range(6)), draw(encoded.shapes, 6, 0, 0, 1000)
    calls, forward = [], pipe.unet.forward
    monkeypatch.setattr(pipe.unet, "forward", lambda *args, **more: calls.append(1) or forward(*args, **more))
    start = initial_state(pipe, config)
    before = summary_loss(pipe, start.tiue, batch, draws, config).item()
    for state in train(pipe, encoded, config, start):
        assert len(calls) == max(0, state.step - 40)
        if state.step == 40:
            assert summary_loss(pipe, state.tiue, batch, draws, config).item() < 0.5 * before
    uncut = dataclasses.replace(batch, cut_B=torch.zeros(6, dtype=torch.bool))
    assert summary_loss(pipe, state.tiue, uncut, draws, config).item() == 0


def test_a_unet_without_a_summary_cannot_match_one(umm, pairs_folder, tmp_path):
    encoded = EncodedPairs(list(encode_pairs(umm, read_pairs(pairs_folder()), tmp_path / "cache", ENCODE)))
    config = dataclasses.replace(CONFIG, summary_steps=1)
    with pytest.raises(UserError, match="--summary-steps must be 0"):
        next(train(umm, encoded, config, initial_state(umm, config)))
