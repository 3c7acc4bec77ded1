"""The training loop: a resumed run is the unbroken run, bit for bit; other configurations and NaNs are refused."""

import dataclasses
import json

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from umm_bench.errors import UserError
from umm_bench.mini import family, pretrain, tokenizer
from umm_bench.mini.recipes.common import Optimizers, Runtime, TrainConfig, fit, schedule, to_device
from umm_bench.mini.recipes.sd import SDConfig, SDRecipe
from umm_bench.mini.recipes.vae import VAEConfig


class _Line:
    """Fits a line; the data are a function of the step."""

    name, config, batch_size = "line", VAEConfig(), 16

    def __init__(self, scale: float = 1.0) -> None:
        torch.manual_seed(0)
        self.module, self.scale = torch.nn.Linear(4, 1), scale

    def batch(self, step: int) -> torch.Tensor:
        return torch.randn(16, 4, generator=torch.Generator().manual_seed(step))

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * (self.module(x) - x.sum(1, keepdim=True)).square().mean()

    def save(self, folder) -> None: ...

    def load(self, folder) -> None: ...

    def parts(self):
        return []


CONFIG = TrainConfig(steps=30, learning_rate=0.05, warmup=5)


def _run(folder, config=CONFIG, stop=None):
    recipe = _Line()
    losses = []
    training = fit(recipe, config, folder)
    for progress in training:
        losses.append(progress.loss)
        if progress.step == stop:
            break
    training.close()
    return recipe.module.weight.detach().clone(), losses


@pytest.mark.parametrize("muon", [None, 0.02])
def test_resume_is_bitwise_the_unbroken_run(tmp_path, muon):
    config = dataclasses.replace(CONFIG, muon=muon)
    whole, losses = _run(tmp_path / "a", config)
    _, before = _run(tmp_path / "b", config, stop=11)
    resumed, after = _run(tmp_path / "b", config)
    assert torch.equal(whole, resumed) and before + after == losses
    assert losses[-1] < losses[0]


def test_a_half_written_checkpoint_is_never_read(tmp_path):
    _run(tmp_path / "a", stop=11)
    (tmp_path / "a" / "checkpoint").rename(tmp_path / "a" / "checkpoint.old")  # killed between two renames
    _, after = _run(tmp_path / "a")
    assert len(after) == 19


def test_another_configuration_is_refused(tmp_path, monkeypatch):
    _run(tmp_path / "a", stop=5)
    with pytest.raises(UserError, match="was made with"):
        _run(tmp_path / "a", dataclasses.replace(CONFIG, learning_rate=0.1))
    monkeypatch.setattr(_Line, "config", VAEConfig(crop=16))
    with pytest.raises(UserError, match="was made with"):
        _run(tmp_path / "a")


@pytest.mark.parametrize("name", ["state.json", "module.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_checkpoint_is_refused_and_left_alone(tmp_path, name, damage):
    _run(tmp_path / "a", stop=5)
    file = tmp_path / "a" / "checkpoint" / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:20])
    before = {path.name: path.read_bytes() for path in file.parent.iterdir()}
    with pytest.raises(UserError, match="damaged"):
        _run(tmp_path / "a")
    assert {path.name: path.read_bytes() for path in file.parent.iterdir()} == before


def test_a_nan_stops_the_run(tmp_path):
    with pytest.raises(UserError, match="loss is nan"):
        list(fit(_Line(scale=float("nan")), CONFIG, tmp_path))


def test_learning_rate_rises_holds_and_falls():
    shares = [schedule(step, CONFIG) for step in range(30)]
    assert shares[0] < shares[4] == shares[15] == 1 > shares[-1]


def test_muon_takes_the_hidden_matrices_and_kernels_and_changes_them_in_place():
    module = torch.nn.ModuleDict({"conv_in": torch.nn.Conv2d(1, 4, 3), "hidden": torch.nn.Conv2d(4, 6, 3)})
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizers = Optimizers(module, TrainConfig(steps=1, learning_rate=0.0, weight_decay=0.0, muon=0.1))
    module["hidden"](module["conv_in"](torch.randn(2, 1, 8, 8))).square().mean().backward()
    optimizers.step(1.0, 1.0)
    changed = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"hidden.weight"}  # AdamW's rate is 0 here
    step = (before["hidden.weight"] - module["hidden"].weight).detach().flatten(1)
    lengths = torch.linalg.svdvals(step)  # Muon's step is nearly orthogonal: no direction is favoured
    assert lengths.max() / lengths.min() < 2


def test_an_unknown_name_is_one_line_and_exit_code_2(capsys):
    assert pretrain.main(["nosuch"]) == 2
    assert "unknown mini model" in capsys.readouterr().err


def test_batches_made_ahead_are_the_same_batches(tmp_path):
    alone, losses = _run(tmp_path / "a")
    recipe = _Line()
    ahead = [p.loss for p in fit(recipe, CONFIG, tmp_path / "b", Runtime(workers=2))]
    assert ahead == losses and torch.equal(recipe.module.weight, alone)


def test_a_batch_moves_whole():
    batch = {"a": torch.ones(2), "b": [(torch.zeros(1), "text")], "c": Runtime(workers=1)}
    moved = to_device(batch, torch.device("meta"))
    assert moved["a"].is_meta and moved["b"][0][0].is_meta and moved["b"][0][1] == "text" and moved["c"].workers == 1


def test_the_card_names_every_run_that_made_the_weights(tmp_path, monkeypatch):
    shipped = tmp_path / "weights" / "line"
    shipped.mkdir(parents=True)
    (shipped / family.TRAINING).write_text(json.dumps({"line": [{"steps": 7, "batch_size": 4}]}))
    monkeypatch.setattr(family, "WEIGHTS", tmp_path / "weights")
    _run(tmp_path / "run", stop=11)
    fresh = pretrain.training_runs(_Line(), tmp_path / "run", warm=False)
    assert [run["steps"] for run in fresh] == [11]
    warm = pretrain.training_runs(_Line(), tmp_path / "run", warm=True)
    assert [run["steps"] for run in warm] == [7, 11]


@pytest.mark.parametrize("name", ["vae", "clip", "scoring_clip", "encoder", "detector"])
def test_recipes_train_at_128_px(name, monkeypatch):
    shipped = CLIPTokenizer.from_pretrained(family.path("sd") / "tokenizer")  # learning it anew takes a while
    monkeypatch.setattr(tokenizer, "train", lambda: shipped)
    recipe, _ = pretrain.make(name, 128)
    small = {"vae": {"scenes_per_step": 1}, "detector": {}}.get(name, {"batch_size": 4})
    recipe = type(recipe)(dataclasses.replace(recipe.default, image_size=128, **small))
    loss = recipe.loss(recipe.batch(0))
    loss.backward()
    assert torch.isfinite(loss) and any(p.grad is not None and p.grad.any() for p in recipe.module.parameters())


def test_sizes_that_do_not_fit_are_one_line(capsys):
    assert pretrain.main(["vae", "--size", "100"]) == 2
    assert pretrain.main(["vae", "--size", "128", "--warm-start"]) == 2
    assert pretrain.main(["sd", "--size", "256"]) == 2
    assert capsys.readouterr().err.count("error:") == 3


def test_a_vae_ahead_of_the_shipped_generator_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(family, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(family, "PARTS", tmp_path / "weights" / "parts")
    recipe, _ = pretrain.make("vae")
    runs = [{"steps": 1, "batch_size": recipe.batch_size}]
    written = family.publish(recipe, tmp_path / "run", runs)
    assert written == [tmp_path / "run" / "model", tmp_path / "weights" / "parts" / "vae"]
    weight = recipe.module.encoder.conv_in.weight.detach().clone()
    again, _ = pretrain.make("vae")
    torch.nn.init.zeros_(again.module.encoder.conv_in.weight)
    pretrain.warm_start(again)
    assert torch.allclose(again.module.encoder.conv_in.weight, weight, atol=1e-3)  # half precision
    monkeypatch.chdir(tmp_path)  # no training here: a generator is trained on the part
    assert SDConfig().vae == family.PARTS / "vae"


def test_a_shipped_model_does_not_say_where_it_was_loaded_from(tmp_path, monkeypatch):
    monkeypatch.setattr(family, "WEIGHTS", tmp_path)
    model = AutoencoderKL.from_pretrained(family.PARTS.parent / "sd" / "vae")
    shipped = family.ship("again", model.save_pretrained)
    assert "_name_or_path" not in json.loads((shipped / "config.json").read_text())
    assert AutoencoderKL.from_pretrained(shipped).config.latent_channels == model.config.latent_channels


def test_a_generator_goes_on_from_saved_weights_and_refuses_those_of_other_sizes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = SDConfig(scenes=32, chunk=32, batch_size=2, channels=(16, 32))
    recipe, again = SDRecipe(small), SDRecipe(small)
    with torch.no_grad():
        recipe.unet.conv_in.weight.add_(1.0)
    recipe.unet.save_pretrained(tmp_path / "sd" / "unet")
    again.load(tmp_path / "sd")
    assert torch.equal(again.unet.conv_in.weight, recipe.unet.conv_in.weight)
    with pytest.raises(UserError, match="of other sizes"):
        SDRecipe(dataclasses.replace(small, channels=(16, 48))).load(tmp_path / "sd")
