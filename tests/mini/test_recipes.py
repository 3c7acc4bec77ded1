"""The training loop: a resumed run is the unbroken run, bit for bit; other configurations and NaNs are refused."""

import dataclasses
import json
import os
import shutil
import signal

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from umm_bench.errors import UserError
from umm_bench.mini import family, pretrain
from umm_bench.mini.recipes import tokenizer
from umm_bench.mini.recipes.common import Average, Runtime, TrainConfig, fit, schedule, to_device
from umm_bench.mini.recipes.sd import SDConfig
from umm_bench.mini.recipes.vae import DecoderConfig, DecoderRecipe, VAEConfig


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


def test_resume_is_bitwise_the_unbroken_run(tmp_path):
    whole, losses = _run(tmp_path / "a")
    _, before = _run(tmp_path / "b", stop=11)
    resumed, after = _run(tmp_path / "b")
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


def test_a_gradient_that_is_not_finite_leaves_the_checkpoint_before_it(tmp_path):
    every_step = dataclasses.replace(CONFIG, save_seconds=0.0)
    recipe, losses = _Line(), []
    whole, _ = _run(tmp_path / "whole", stop=12)
    with pytest.raises(UserError, match="gradient is inf at step 12"):
        for progress in fit(recipe, every_step, tmp_path / "a"):
            losses.append(progress.loss)
            if progress.step == 12:
                recipe.module.weight.register_hook(lambda gradient: gradient + float("inf"))
    kept = load_file(tmp_path / "a" / "checkpoint" / "average.safetensors")["weight"]
    assert len(losses) == 12 and torch.equal(kept, whole)


@pytest.mark.parametrize("amid", ["forward", "update"])
def test_what_ends_a_step_halfway_leaves_whole_steps(tmp_path, monkeypatch, amid):
    whole, losses = _run(tmp_path / "whole")
    every_step = dataclasses.replace(CONFIG, save_seconds=0.0)
    target, name = (_Line, "loss") if amid == "forward" else (Average, "update")
    real, calls = getattr(target, name), []

    def interrupted(*args):
        calls.append(real(*args))
        if len(calls) == 12:
            raise KeyboardInterrupt
        return calls[-1]

    with monkeypatch.context() as patch:
        patch.setattr(target, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            _run(tmp_path / "a", every_step)
    resumed, after = _run(tmp_path / "a", every_step)
    assert after == losses[11:] and torch.equal(resumed, whole)


def test_a_polite_kill_ends_after_a_whole_step(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrain, "make", lambda *_: (_Line(), CONFIG))
    monkeypatch.setattr(Runtime, "detect", lambda *_: Runtime())
    whole, losses = _run(tmp_path / "whole")
    real = _Line.loss

    def killed(self, x):
        if len(steps) == 11:
            os.kill(os.getpid(), signal.SIGTERM)
        steps.append(real(self, x))
        return steps[-1]

    steps: list[torch.Tensor] = []
    with monkeypatch.context() as patch:
        patch.setattr(_Line, "loss", killed)
        assert pretrain.main(["line", "--folder", str(tmp_path / "a")]) == 130
    assert "continues" in capsys.readouterr().err and len(steps) == 12
    resumed, after = _run(tmp_path / "a")
    assert after == losses[12:] and torch.equal(resumed, whole)


def test_fewer_steps_than_are_done_ship_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrain, "make", lambda *_: (_Line(), CONFIG))
    monkeypatch.setattr(family, "publish", lambda *_: pytest.fail("an unfinished model was shipped"))
    _run(tmp_path / "a", stop=11)
    assert pretrain.main(["line", "--folder", str(tmp_path / "a"), "--steps", "5"]) == 2
    assert pretrain.main(["line", "--folder", str(tmp_path / "b"), "--steps", "0"]) == 2
    shown = capsys.readouterr().err
    assert "has 11 steps already, more than the 5" in shown and "at least 1" in shown


def test_the_average_covers_a_batch_norms_statistics():
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    average, means, weights = Average(module, 0.5), [torch.zeros(2)], [module[0].weight.detach().clone()]
    for step in range(8, 11):  # from there on the rate is 0.5
        module(torch.randn(16, 3, generator=torch.Generator().manual_seed(step)) + step)
        with torch.no_grad():
            module[0].weight += step
        average.update(module, step)
        means.append(0.5 * means[-1] + 0.5 * module[1].running_mean)
        weights.append(0.5 * weights[-1] + 0.5 * module[0].weight)
    live = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    average.swap(module)
    assert torch.allclose(module[1].running_mean, means[-1]) and torch.allclose(module[0].weight, weights[-1])
    assert not torch.allclose(means[-1], live["1.running_mean"])
    average.swap(module)
    assert all(torch.equal(tensor, live[name]) for name, tensor in module.state_dict().items())


def test_learning_rate_rises_holds_and_falls():
    shares = [schedule(step, CONFIG) for step in range(30)]
    assert shares[0] < shares[4] == shares[15] == 1 > shares[-1]


def test_an_unknown_name_is_one_line_and_exit_code_2(capsys):
    assert pretrain.main(["nosuch"]) == 2
    assert "unknown mini model" in capsys.readouterr().err


def test_options_change_the_recipe_and_its_training():
    recipe, config = pretrain.make("encoder", 64, ["batch_size=8", "stages=8,8,16,16", "learning_rate=0.5", "decay=0"])
    assert recipe.batch_size == 8 and recipe.encoder.config.hidden_sizes == [8, 8, 16, 16]
    assert config.learning_rate == 0.5 and config.decay == 0


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ("nosuch=1", "has no 'nosuch'; choose from stages, blocks, batch_size"),
        ("batch_size", "give a value like 96"),
        ("batch_size=0", "give a value like 96"),
        ("batch_size=1.5", "give a value like 96"),
        ("learning_rate=nan", "give a value like 0.003"),
        ("learning_rate=-1", "give a value like 0.003"),
        ("stages=1,x", "give a value like 64,128,256,512"),
        ("image_size=32", "has no 'image_size'"),
        ("steps=5", "has no 'steps'"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(option, shown, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert pretrain.main(["encoder", "-o", option]) == 2
    error = capsys.readouterr().err
    assert shown in error and f"--option {option}" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


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
    for warm, steps in ((False, [11]), (True, [7, 11])):
        folder = tmp_path / f"run-{warm}"
        pretrain.note_origin(_Line(), folder, warm)
        _run(folder, stop=11)
        runs = pretrain.training_runs(_Line(), folder)
        assert [run["steps"] for run in runs] == steps
        (shipped / family.TRAINING).write_text(json.dumps({"line": runs}))  # publishing again counts nothing twice
        assert pretrain.training_runs(_Line(), folder) == runs
        (shipped / family.TRAINING).write_text(json.dumps({"line": [{"steps": 7, "batch_size": 4}]}))


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


def test_the_decoder_is_trained_alone_and_shipped_inside_its_generator(tmp_path, monkeypatch):
    before, sd = family.path("sd"), tmp_path / "weights" / "sd"
    shutil.copytree(before, sd)
    monkeypatch.setattr(family, "WEIGHTS", tmp_path / "weights")
    recipe = DecoderRecipe(DecoderConfig(scenes_per_step=1))
    list(fit(recipe, TrainConfig(steps=2, warmup=1), tmp_path / "run"))
    assert family.publish(recipe, tmp_path / "run", [{"steps": 2}]) == [sd]
    old, new = (AutoencoderKL.from_pretrained(folder / "vae").state_dict() for folder in (before, sd))
    changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"decoder", "post_quant_conv"}
    for part in ("unet", "text_encoder"):
        for file in (before / part).glob("*.safetensors"):
            assert (sd / part / file.name).read_bytes() == file.read_bytes()
    record = json.loads((sd / family.TRAINING).read_text())
    assert record["decoder"] == [{"steps": 2}] and record["sd"] and record["vae"]
    assert not (sd / "README.md").exists()  # a card of other weights


def test_a_decoders_checkpoint_belongs_to_its_encoder(tmp_path, monkeypatch):
    vae = AutoencoderKL.from_pretrained(family.path("sd") / "vae")
    monkeypatch.setattr(family, "WEIGHTS", tmp_path)
    vae.save_pretrained(tmp_path / "sd" / "vae")
    config = TrainConfig(steps=1, warmup=1)
    list(fit(DecoderRecipe(DecoderConfig(scenes_per_step=1)), config, tmp_path / "run"))
    assert not list(fit(DecoderRecipe(DecoderConfig(scenes_per_step=1)), config, tmp_path / "run"))
    with torch.no_grad():
        vae.encoder.conv_in.weight.mul_(2)
    vae.save_pretrained(tmp_path / "sd" / "vae")
    with pytest.raises(UserError, match="was made with"):
        list(fit(DecoderRecipe(DecoderConfig(scenes_per_step=1)), config, tmp_path / "run"))


def test_the_decoder_sees_latents_with_noise():
    recipes = [DecoderRecipe(DecoderConfig(scenes_per_step=1, noise=noise)) for noise in (0.0, 2.0)]
    crops = recipes[0].batch(0)
    with torch.no_grad():
        clean, noisy = (recipe.loss(crops).item() for recipe in recipes)
    assert noisy > 2 * clean


def test_shipping_leaves_the_old_model_or_the_new_one(tmp_path, monkeypatch):
    monkeypatch.setattr(family, "WEIGHTS", tmp_path)
    family.ship("line", lambda folder: (folder / "a.txt").write_text("old"))
    real, moves = os.replace, []

    def killed(source, target):
        moves.append(target)
        if len(moves) in (2, 3):
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        for _ in range(2):  # killed between the two moves, and once more before the second
            with pytest.raises(KeyboardInterrupt):
                family.ship("line", lambda folder: (folder / "a.txt").write_text("new"))
            assert (tmp_path / "line.old" / "a.txt").read_text() == "old"
    family.ship("line", lambda folder: (folder / "a.txt").write_text("new"))
    assert (tmp_path / "line" / "a.txt").read_text() == "new" and not (tmp_path / "line.old").exists()


def test_a_shipped_model_does_not_say_where_it_was_loaded_from(tmp_path, monkeypatch):
    monkeypatch.setattr(family, "WEIGHTS", tmp_path)
    model = AutoencoderKL.from_pretrained(family.PARTS.parent / "sd" / "vae")
    shipped = family.ship("again", model.save_pretrained)
    assert "_name_or_path" not in json.loads((shipped / "config.json").read_text())
    assert AutoencoderKL.from_pretrained(shipped).config.latent_channels == model.config.latent_channels


def test_counts_after_a_warm_start_are_of_all_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(family, "WEIGHTS", tmp_path / "weights")
    home, run = tmp_path / "weights" / "line", tmp_path / "run"
    home.mkdir(parents=True)
    (home / family.TRAINING).write_text(json.dumps({"line": [{"steps": 10, "batch_size": 16}]}))
    family.write_counts(home / family.COUNTS, {"dog": 8.0, "cat": 4.0})
    pretrain.note_origin(_Line(), run, warm=True)
    monkeypatch.setattr(
        _Line, "save", lambda self, folder: family.write_counts(folder / family.COUNTS, {"owl": 4.0, "cat": 8.0})
    )
    runs = [{"steps": 10, "batch_size": 16}, {"steps": 30, "batch_size": 16}]
    for _ in range(2):  # publishing again counts nothing twice
        (written,) = family.publish(_Line(), run, runs, shipped=False)
        assert json.loads((written / family.COUNTS).read_text()) == {"cat": 7.0, "owl": 3.0, "dog": 2.0}


def test_a_part_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    runs = [{"steps": 1, "batch_size": 16}]
    monkeypatch.setattr(_Line, "save", lambda self, folder: (folder / "a").write_text("old"))
    family.publish(_Line(), tmp_path, runs, shipped=False)

    def killed(self, folder):
        (folder / "a").write_text("new")
        raise KeyboardInterrupt

    monkeypatch.setattr(_Line, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        family.publish(_Line(), tmp_path, runs, shipped=False)
    assert (tmp_path / "model" / "a").read_text() == "old"


def test_what_a_checkpoint_differs_in_is_said(tmp_path):
    _run(tmp_path / "a", stop=5)
    state = tmp_path / "a" / "checkpoint" / "state.json"
    state.write_text(state.read_text().replace('"name"', '"former": 3, "name"', 1))
    with pytest.raises(UserError) as refused:
        _run(tmp_path / "a", dataclasses.replace(CONFIG, learning_rate=0.1))
    assert f"learning_rate={CONFIG.learning_rate} (now 0.1), former=3 (now gone)" in str(refused.value)
