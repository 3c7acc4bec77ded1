"""Training changes the MLP and nothing else, and goes on as if it had never stopped."""

import dataclasses
import json
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from diffusers import DDPMScheduler
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.umm.conftest import make_tiue, make_umm, row
from umm_bench.errors import UserError
from umm_bench.umm import TIUE
from umm_bench.umm import encoded as encoding
from umm_bench.umm.checkpoint import STATE_FILE, check_encoder, load_state, run_identity, save_state
from umm_bench.umm.encoded import EncodedPairs, encode_pairs, tokenizer_digest
from umm_bench.umm.pairs import read_pairs, subject_caption, target_image
from umm_bench.umm.settings import EncodeConfig, TrainConfig
from umm_bench.umm.trainer import FrozenConvolutions, _indices, initial_state, min_snr_weight, train

CONFIG = TrainConfig(steps=4, batch_size=4, hidden_dim=16, learning_rate=1e-2, warmup_steps=2, drop_rate=0.25)
ENCODE = EncodeConfig(views=2, chunk_size=4, dtype="float32")


@pytest.fixture
def encoded(umm, pairs_folder, tmp_path):
    return EncodedPairs(list(encode_pairs(umm, read_pairs(pairs_folder()), tmp_path / "cache", ENCODE)))


@pytest.fixture
def identity(umm, encoded):
    return run_identity(umm, encoded, CONFIG.rows_per_step())


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_cache_holds_what_the_models_say(umm, pairs_folder, encoded):
    pair = list(read_pairs(pairs_folder()))[5]
    batch = encoded.batch([5])
    with torch.no_grad():
        pixels = umm.image_processor.preprocess(target_image(pair, (32, 32)))
        posterior = umm.vae.encode(pixels).latent_dist
        ids = batch.input_ids_BL
        assert torch.allclose(batch.mean_BCHW, posterior.mean, atol=1e-5)
        assert torch.allclose(batch.std_BCHW, posterior.std, atol=1e-5)
        assert torch.allclose(batch.h_y_BLD, umm.text_encoder(ids)[0], atol=1e-5)
    captions = [subject_caption(pair, head_only) for head_only in (True, False)]
    assert umm.tokenizer.decode(ids[0], skip_special_tokens=True).strip() in [text for text, *_ in captions]
    assert umm.tokenizer.decode(ids[0][batch.mask_BL[0]]).strip() in [text[a:b] for text, a, b in captions]
    assert batch.image_embeds_BVE.shape == (1, 2, 24)
    assert not torch.equal(batch.image_embeds_BVE[:, 0], batch.image_embeds_BVE[:, 1])


def test_encoding_is_reused_by_content(umm, pairs_folder, tmp_path, fresh_sd, tiny_image_encoder, monkeypatch):
    pairs, cache = list(read_pairs(pairs_folder())), tmp_path / "cache"

    def reused(pipe=umm, rows=pairs, config=ENCODE):
        return [chunk.reused for chunk in encode_pairs(pipe, rows, cache, config)]

    assert reused() == [False, False]
    assert reused() == [True, True]
    assert reused(rows=[*pairs[:5], dataclasses.replace(pairs[5], noun="cat")]) == [True, False]
    assert reused(config=dataclasses.replace(ENCODE, views=3)) == [False, False]
    assert reused(pipe=make_umm(fresh_sd(seed=9), tiny_image_encoder)) == [False, False]
    assert reused(pipe=make_umm(fresh_sd(), tiny_image_encoder)) == [True, True]
    other = make_umm(fresh_sd(), deepcopy(tiny_image_encoder))
    other.feature_extractor.size = {"shortest_edge": 40}
    assert reused(pipe=other) == [False, False]
    other = make_umm(fresh_sd(), tiny_image_encoder)
    other.tokenizer.model_max_length -= 1
    assert reused(pipe=other) == [False, False]
    monkeypatch.setattr(encoding, "FORMAT", "another")
    assert reused() == [False, False]
    assert not list(cache.glob("*.tmp"))


def test_a_tokenizer_is_known_by_its_rules_and_not_by_its_last_call(tiny_sd, fresh_sd):
    tokenizer = fresh_sd().tokenizer
    fresh = tokenizer_digest(tokenizer)
    tokenizer("a dog", padding="max_length", truncation=True, max_length=7)
    assert tokenizer_digest(tokenizer) == fresh == tokenizer_digest(tiny_sd.tokenizer)
    tokenizer.add_tokens("owl")
    assert tokenizer_digest(tokenizer) != fresh


def test_processes_share_the_encoding(umm, pairs_folder, tmp_path):
    pairs = list(read_pairs(pairs_folder()))
    parts = [list(encode_pairs(umm, pairs, tmp_path / "cache", ENCODE, part, 2)) for part in (0, 1)]
    assert [[chunk.number for chunk in part] for part in parts] == [[0], [1]]
    together = list(encode_pairs(umm, pairs, tmp_path / "cache", ENCODE))
    assert [chunk.path for chunk in together] == [part[0].path for part in parts]
    assert all(chunk.reused for chunk in together)


def test_unusable_rows_are_counted(umm, pairs_folder, tmp_path):
    long = "on snow " * 11 + "a dog"
    cut = row(1, long, "a dog", "dog")
    broken = row(2, "a dog", "a dog", "dog") | {"image": {"bytes": b"broken", "path": None}}
    folder = pairs_folder([row(0, "a fox", "a fox", "fox"), cut, broken])
    pairs = EncodedPairs(list(encode_pairs(umm, read_pairs(folder), tmp_path / "cache", ENCODE)))
    assert len(pairs) == 1
    assert pairs.skipped == {"phrase beyond the tokenizer's limit": 1, "unreadable image": 1}
    folder = pairs_folder([cut, broken])
    with pytest.raises(UserError, match="no pair is left to train on: 1 phrase beyond"):
        EncodedPairs(list(encode_pairs(umm, read_pairs(folder), tmp_path / "cache", ENCODE)))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_only_the_mlp_trains_and_it_learns(fresh_sd, tiny_image_encoder, encoded, prediction_type):
    pipe = make_umm(fresh_sd(prediction_type), tiny_image_encoder)
    frozen = (pipe.vae, pipe.unet, pipe.text_encoder, pipe.image_encoder)
    before = [weights(model) for model in frozen]
    config = dataclasses.replace(CONFIG, steps=15, drop_rate=0.0, min_snr_gamma=0.0)
    state = initial_state(pipe, config)
    start = weights(state.tiue)
    fixed = dataclasses.replace(config, steps=1, learning_rate=0.0)

    def loss_now():
        return next(train(pipe, encoded, fixed, dataclasses.replace(state, step=0))).loss

    first = loss_now()
    for _ in train(pipe, encoded, config, state):
        pass
    # dataclasses.replace shares the modules, and a rate of 0 leaves them alone
    assert loss_now() < first
    assert all(same(old, weights(model)) for old, model in zip(before, frozen, strict=True))
    assert all(parameter.grad is None for model in frozen for parameter in model.parameters())
    assert not any(torch.equal(start[name], tensor) for name, tensor in state.tiue.state_dict().items())
    assert not same(weights(state.ema), weights(state.tiue))


@pytest.mark.parametrize("split", [{}, {"batch_size": 2, "gradient_accumulation_steps": 2}])
def test_resume_is_bitwise_the_uninterrupted_run(umm, encoded, identity, tmp_path, split):
    config = dataclasses.replace(CONFIG, **split)
    through = initial_state(umm, config)
    losses = [state.loss for state in train(umm, encoded, config, through)]
    stopped = initial_state(umm, config)
    run = train(umm, encoded, config, stopped)
    next(run), next(run)
    save_state(tmp_path, stopped, config, identity)
    resumed = load_state(tmp_path, umm, config, identity)
    assert resumed.step == 2
    assert [state.loss for state in train(umm, encoded, config, resumed)] == losses[2:]
    assert same(weights(resumed.tiue), weights(through.tiue))
    assert same(weights(resumed.ema), weights(through.ema))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_accumulated_passes_equal_one_batch(umm, encoded, batch_size):
    """4 rows a step, split or whole: the same losses and weights up to rounding, other than those of fewer rows."""

    def run(size, passes):
        config = dataclasses.replace(CONFIG, batch_size=size, gradient_accumulation_steps=passes, learning_rate=1e-3)
        state = initial_state(umm, config)
        norms = [(now.loss, now.grad_norm) for now in train(umm, encoded, config, state)]
        return torch.tensor(norms), weights(state.tiue)

    (whole, whole_weights), (split, split_weights) = run(4, 1), run(batch_size, 4 // batch_size)
    assert torch.allclose(split, whole, rtol=1e-4)
    assert all(torch.allclose(split_weights[name], tensor, atol=1e-5) for name, tensor in whole_weights.items())
    assert not torch.allclose(run(batch_size, 1)[0], whole, rtol=1e-2)


def test_activations_made_twice_change_nothing(umm, encoded, fresh_sd, tiny_image_encoder):
    pipe = make_umm(fresh_sd(), tiny_image_encoder)
    pipe.unet.enable_gradient_checkpointing()
    runs = [initial_state(umm, CONFIG) for _ in range(2)]
    losses = [[s.loss for s in train(p, encoded, CONFIG, run)] for p, run in zip((umm, pipe), runs, strict=True)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_half_precision_keeps_the_mlp_in_float32(fresh_sd, tiny_image_encoder, encoded):
    pipe = make_umm(fresh_sd(), deepcopy(tiny_image_encoder))
    config = dataclasses.replace(CONFIG, mixed_precision="bf16")
    full, half = initial_state(pipe, CONFIG), initial_state(pipe, config)
    expected = [state.loss for state in train(pipe, encoded, CONFIG, full)]
    assert [state.loss for state in train(pipe, encoded, config, half)] == pytest.approx(expected, rel=0.05)
    assert pipe.unet.dtype == pipe.vae.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in (*weights(half.tiue).values(), *weights(half.ema).values())} == {torch.float32}


def test_checkpoint_is_the_average_as_a_tiue_without_pickles(umm, encoded, identity, tmp_path):
    state = initial_state(umm, CONFIG)
    for _ in train(umm, encoded, CONFIG, state):
        save_state(tmp_path, state, CONFIG, identity)
    assert same(weights(TIUE.from_pretrained(tmp_path)), weights(state.ema))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
        STATE_FILE,
    ]
    assert json.loads((tmp_path / "config.json").read_text())["text_dim"] == 32
    assert load_file(tmp_path / STATE_FILE)


def test_a_kill_while_the_tiue_is_written_is_made_good(umm, encoded, identity, tmp_path, monkeypatch):
    state = initial_state(umm, CONFIG)
    steps = train(umm, encoded, CONFIG, state)
    next(steps)
    save_state(tmp_path, state, CONFIG, identity)
    next(steps)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TIUE, "save_pretrained", killed)
        with pytest.raises(KeyboardInterrupt):
            save_state(tmp_path, state, CONFIG, identity)
    resumed = load_state(tmp_path, umm, CONFIG, identity)
    assert resumed.step == 1  # not 2, after which nothing would write the TIUE again
    for _ in train(umm, encoded, CONFIG, resumed):
        save_state(tmp_path, resumed, CONFIG, identity)
    assert same(weights(TIUE.from_pretrained(tmp_path)), weights(resumed.ema))


def test_resume_errors(umm, encoded, identity, tmp_path):
    state = initial_state(umm, CONFIG)
    next(train(umm, encoded, CONFIG, state))
    save_state(tmp_path, state, CONFIG, identity)
    with pytest.raises(UserError, match=r"weight_decay=0\.01, not 0\.1"):
        load_state(tmp_path, umm, dataclasses.replace(CONFIG, weight_decay=0.1), identity)
    with pytest.raises(UserError, match="nothing to resume"):
        load_state(tmp_path / "nowhere", umm, CONFIG, identity)
    split = dataclasses.replace(CONFIG, batch_size=2, gradient_accumulation_steps=2)
    assert load_state(tmp_path, umm, split, identity).step == 1
    with pytest.raises(UserError, match="number of rows a step is not the one"):
        load_state(tmp_path, umm, CONFIG, run_identity(umm, encoded, 8))
    (tmp_path / STATE_FILE).write_bytes((tmp_path / STATE_FILE).read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        load_state(tmp_path, umm, CONFIG, identity)


def test_a_setting_younger_than_the_state_is_as_it_was(umm, encoded, identity, tmp_path):
    state = initial_state(umm, CONFIG)
    next(train(umm, encoded, CONFIG, state))
    save_state(tmp_path, state, CONFIG, identity)
    with safe_open(tmp_path / STATE_FILE, "pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["config"])
    del config["placement"]
    save_file(load_file(tmp_path / STATE_FILE), tmp_path / STATE_FILE, metadata | {"config": json.dumps(config)})
    assert load_state(tmp_path, umm, CONFIG, identity).step == 1
    with pytest.raises(UserError, match="placement=replace, not add"):
        load_state(tmp_path, umm, dataclasses.replace(CONFIG, placement="add"), identity)


def test_a_run_goes_on_with_another_learning_rate(umm, encoded, identity, tmp_path):
    state = initial_state(umm, CONFIG)
    next(train(umm, encoded, CONFIG, state))
    save_state(tmp_path, state, CONFIG, identity)
    slower = dataclasses.replace(CONFIG, learning_rate=1e-4, warmup_steps=0)
    resumed = load_state(tmp_path, umm, slower, identity)
    next(train(umm, encoded, slower, resumed))
    assert resumed.step == 2 and [group["lr"] for group in resumed.optimizer.param_groups] == [1e-4]


@pytest.mark.parametrize(
    "part",
    ["unet", "vae", "text encoder", "image encoder", "tokenizer", "feature extractor", "noise schedule", "data"],
)
def test_resume_with_another_part_of_the_base_is_refused(
    umm, encoded, identity, fresh_sd, tiny_image_encoder, tmp_path, part
):
    state = initial_state(umm, CONFIG)
    next(train(umm, encoded, CONFIG, state))
    save_state(tmp_path, state, CONFIG, identity)
    encoder = deepcopy(tiny_image_encoder)
    other = make_umm(fresh_sd("v_prediction" if part == "noise schedule" else "epsilon"), encoder)
    changed = getattr(other, part.replace(" ", "_"), None)
    if isinstance(changed, torch.nn.Module):
        with torch.no_grad():
            next(changed.parameters()).add_(1e-3)
    if part == "tokenizer":
        changed.add_tokens("owl")
    if part == "feature extractor":
        changed.do_center_crop = False
    if part == "data":
        encoded.digest = "another"
    with pytest.raises(UserError, match=f"the {part} is not the one that it was trained with"):
        load_state(tmp_path, other, CONFIG, run_identity(other, encoded, CONFIG.rows_per_step()))


def test_a_nan_ends_training_before_it_reaches_the_weights(umm, encoded):
    state = initial_state(umm, CONFIG)
    run = train(umm, encoded, CONFIG, state)
    next(run)
    kept = weights(state.tiue)
    healthy = encoded.batch
    encoded.batch = lambda indices: dataclasses.replace(
        healthy(indices), mean_BCHW=healthy(indices).mean_BCHW * float("nan")
    )
    with pytest.raises(UserError, match="the loss became nan at step 2"):
        next(run)
    assert same(kept, weights(state.tiue)) and state.step == 1


def test_every_pair_is_seen_once_an_epoch(encoded, umm):
    seen = [i for step in range(3) for i in _indices(6, 4, 0, step)]
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))
    assert seen[:6] != seen[6:]


def test_min_snr_weights():
    scheduler = DDPMScheduler()
    abar = scheduler.alphas_cumprod[torch.tensor([0, 500, 999])]
    snr = abar / (1 - abar)
    assert torch.allclose(min_snr_weight(abar, 5.0, is_v=False), torch.minimum(snr, torch.tensor(5.0)) / snr)
    assert torch.allclose(min_snr_weight(abar, 5.0, is_v=True), torch.minimum(snr, torch.tensor(5.0)) / (snr + 1))
    assert min_snr_weight(abar, 0.0, is_v=True).tolist() == [1, 1, 1]
    # a schedule that ends in pure noise
    assert min_snr_weight(torch.zeros(1), 5.0, is_v=False).item() == 1


def test_an_unknown_prediction_type_is_refused(fresh_sd, tiny_image_encoder, encoded):
    pipe = make_umm(fresh_sd("sample"), tiny_image_encoder)
    with pytest.raises(UserError, match="prediction_type sample"):
        next(train(pipe, encoded, CONFIG, initial_state(pipe, CONFIG)))


def test_the_reference_reaches_the_loss(umm, encoded):
    """Without this, training would succeed with the images ignored."""
    config = dataclasses.replace(CONFIG, drop_rate=0.0, learning_rate=0.0)
    first = next(train(umm, encoded, config, initial_state(umm, config))).loss
    healthy = encoded.batch
    encoded.batch = lambda indices: dataclasses.replace(
        healthy(indices), image_embeds_BVE=torch.randn_like(healthy(indices).image_embeds_BVE)
    )
    assert next(train(umm, encoded, config, initial_state(umm, config))).loss != first


def test_frozen_convolutions_keep_no_input_and_the_same_gradient(tiny_sd):
    def run(mode):
        kept = []
        context_BLD = torch.linspace(-1, 1, 2 * 24 * 32).view(2, 24, 32).requires_grad_()
        latents_BCHW = torch.linspace(-1, 1, 2 * 4 * 8 * 8).view(2, 4, 8, 8)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t), mode:
            tiny_sd.unet(latents_BCHW, 5, encoder_hidden_states=context_BLD).sample.square().sum().backward()
        return context_BLD.grad, sum({t.untyped_storage().data_ptr(): t.nbytes for t in kept}.values())

    tiny_sd.unet.requires_grad_(False)
    (plain, all_bytes), (frozen, bytes_kept) = run(nullcontext()), run(FrozenConvolutions())
    assert torch.allclose(plain, frozen, rtol=1e-4, atol=1e-6)
    assert bytes_kept < 0.9 * all_bytes


def test_trainable_convolutions_are_left_alone():
    layer, x = torch.nn.Conv2d(2, 2, 3), torch.ones(1, 2, 4, 4, requires_grad=True)
    with FrozenConvolutions():
        layer(x).sum().backward()
    assert layer.weight.grad is not None and x.grad is not None


def test_a_tiue_is_not_given_what_another_image_encoder_sees(umm, encoded, identity, tmp_path):
    (state,) = train(umm, encoded, dataclasses.replace(CONFIG, steps=1), initial_state(umm, CONFIG))
    save_state(tmp_path / "tiue", state, CONFIG, identity)
    check_encoder(tmp_path / "tiue", umm.image_encoder)
    other = deepcopy(umm.image_encoder)
    next(other.parameters()).data += 1e-3
    with pytest.raises(UserError, match="another image encoder"):
        check_encoder(tmp_path / "tiue", other)
    (tmp_path / "tiue" / STATE_FILE).unlink()  # as it ships
    check_encoder(tmp_path / "tiue", other)


def test_a_training_may_begin_with_a_trained_tiue(umm, encoded, identity):
    (state,) = train(umm, encoded, dataclasses.replace(CONFIG, steps=1), initial_state(umm, CONFIG))
    begun = initial_state(umm, CONFIG, state.tiue)
    assert same(weights(begun.tiue), weights(state.tiue)) and same(weights(begun.ema), weights(state.tiue))
    assert run_identity(umm, encoded, 4, state.tiue) != run_identity(umm, encoded, 4)
    of_another_base = make_tiue(hidden_dim=8, word_std=3.0)
    begun = initial_state(umm, dataclasses.replace(CONFIG, hidden_dim=8), of_another_base).tiue
    embeds_BE = torch.ones(1, 24)
    assert torch.equal(begun(embeds_BE), of_another_base(embeds_BE))
    with pytest.raises(UserError, match="hidden_dim=16, this one 8"):
        initial_state(umm, dataclasses.replace(CONFIG, hidden_dim=8), state.tiue)
