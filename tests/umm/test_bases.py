"""Bases as people have them: in variants, saved with more than Stable Diffusion, or none at all."""

import json
import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from tests.umm.conftest import make_tiue, make_umm
from umm_bench import sample
from umm_bench.base import load_base, resolve_model
from umm_bench.errors import UserError
from umm_bench.umm import load_tiue
from umm_bench.umm_method import load_umm, tiue_location


@pytest.fixture(scope="module")
def kinds(tmp_path_factory, tiny_sd, tiny_image_encoder):
    """The tiny Stable Diffusion as `sd`, in half precision only, with its image encoder, and as UMM's own."""
    folder = tmp_path_factory.mktemp("bases")
    encoder, processor = tiny_image_encoder
    tiny_sd.save_pretrained(folder / "sd")
    tiny_sd.save_pretrained(folder / "fp16", variant="fp16")
    parts = tiny_sd.components | {"image_encoder": encoder, "feature_extractor": processor}
    complete = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    complete.save_pretrained(folder / "complete")
    complete.save_pretrained(folder / "complete-fp16", variant="fp16")
    make_umm(tiny_sd, tiny_image_encoder).save_pretrained(folder / "umm")
    shutil.copytree(folder / "fp16", folder / "mixed")
    name = "diffusion_pytorch_model{}.safetensors"
    (folder / "mixed" / "vae" / name.format(".fp16")).rename(folder / "mixed" / "vae" / name.format(""))
    return folder


@pytest.mark.parametrize("kind", ["fp16", "mixed", "complete", "complete-fp16", "umm"])
def test_each_way_of_saving_gives_the_same_base(kinds, kind):
    base, plain = load_base(str(kinds / kind)).pipeline(), load_base(str(kinds / "sd")).pipeline()
    for part in ("unet", "vae", "text_encoder"):
        found, expected = getattr(base, part).state_dict(), getattr(plain, part).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) and found[name].dtype == torch.float32 for name in found)


@pytest.fixture
def hub(kinds, tmp_path, monkeypatch):
    """`hub("fp16")` puts a copy of that base where the hub would have it, as owner/name, and gives its folder."""
    there = {"owner/name": str(tmp_path / "there")}

    def redirect(kind, method):
        known = getattr(kind, method)
        monkeypatch.setattr(kind, method, lambda name, *args, **more: known(there.get(name, name), *args, **more))

    def put(kind):
        shutil.copytree(kinds / kind, tmp_path / "there")
        for method in ("from_pretrained", "load_config"):
            redirect(StableDiffusionPipeline, method)
        redirect(UNet2DConditionModel, "load_config")
        return tmp_path / "there"

    return put


@pytest.mark.parametrize("kind", ["sd", "fp16"])
def test_a_base_of_the_hub_in_half_precision_only(kinds, hub, kind):
    hub(kind)
    found = load_base("owner/name").pipeline().unet.state_dict()
    expected = load_base(str(kinds / "sd")).pipeline().unet.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", ["sd", "fp16"])
@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_of_a_damaged_base_of_the_hub_the_damage_is_said(hub, kind, part):
    file = next((hub(kind) / part).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot load base 'owner/name' from owner/name: ") as told:
        load_base("owner/name").pipeline()
    assert not any(words in str(told.value) for words in ("no file named", "no such modeling files"))


@pytest.mark.parametrize("kind", ["complete", "complete-fp16", "umm"])
def test_the_image_encoder_and_its_processor_are_read_from_the_base(kinds, kind, umm):
    pipe = load_umm(load_base(str(kinds / kind)), None)
    assert pipe.feature_extractor.size == umm.feature_extractor.size
    found, expected = pipe.image_encoder.state_dict(), umm.image_encoder.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_pipeline_of_ours_is_a_base_with_its_own_tiue(kinds, tmp_path, umm, capsys):
    from tests.umm.conftest import picture

    picture(3).save(tmp_path / "ref.png")
    words = [
        "--base",
        kinds / "umm",
        "--image",
        tmp_path / "ref.png",
        "--subject",
        "dog",
        "--prompt",
        "a dog",
        "--steps",
        1,
    ]
    assert sample.main([*map(str, words), "--out", str(tmp_path / "own.png")]) == 0
    assert tiue_location(load_base(str(kinds / "umm"))) == str(kinds / "umm" / "tiue")
    given = ["--tiue", kinds / "umm" / "tiue", "--out", tmp_path / "given.png"]
    assert sample.main(list(map(str, [*words, *given]))) == 0
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "given.png").read_bytes()


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def xl(folder):
    change(folder / "model_index.json", _class_name="StableDiffusionXLPipeline",
           text_encoder_2=["transformers", "CLIPTextModelWithProjection"])  # fmt: skip


BROKEN = {
    "xl": xl,
    "xl unet": lambda f: change(f / "unet" / "config.json", addition_embed_type="text_time"),
    "upscaler": lambda f: change(f / "unet" / "config.json", num_class_embeds=1000),
    "sd3": lambda f: change(
        f / "model_index.json", unet=[None, None], transformer=["diffusers", "SD3Transformer2DModel"]
    ),
    "t5": lambda f: change(f / "model_index.json", text_encoder=["transformers", "T5EncoderModel"]),
    "odd entry": lambda f: change(f / "model_index.json", vae="vae"),
    "own class": lambda f: change(f / "model_index.json", unet=["my_models", "MyUNet"]),
    "no json": lambda f: (f / "model_index.json").write_text("{"),
    "a list": lambda f: (f / "model_index.json").write_text("[1]"),
    "no index": lambda f: (f / "model_index.json").unlink(),
    "no unet": lambda f: shutil.rmtree(f / "unet"),
    "no vae weights": lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").unlink(),
    "pointer": lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").write_text("version https://git-lfs.git"),
    "no config": lambda f: (f / "text_encoder" / "config.json").write_text("nothing"),
    "other sizes": lambda f: change(f / "unet" / "config.json", block_out_channels=[24, 48]),
    "no tokenizer": lambda f: shutil.rmtree(f / "tokenizer"),
    "empty": lambda f: [shutil.rmtree(f), f.mkdir()],
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_base_is_one_line(kinds, tmp_path, damage, capsys):
    folder = tmp_path / "base"
    shutil.copytree(kinds / "sd", folder)
    damage(folder)
    assert sample.main(["--base", str(folder), "--prompt", "a dog", "--out", str(tmp_path / "o.png")]) == 2
    error = capsys.readouterr().err.strip()
    assert error.splitlines()[-1].startswith(f"error: cannot load base '{folder}'")
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize(
    "name",
    ["my models/sd", "models/my sd", "owner/na me", "a/b/c", "./x", "/nowhere", "~/sd", "x", "", "o/n\0", "x" * 5000,
     "owner/", "/", "owner/name/", "a\\b", "owner/\u00e4"],
)  # fmt: skip
def test_names_that_are_neither_folder_nor_hub_id(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="neither 'mini', nor a folder, nor a hub id"):
        resolve_model(name if name != "/" else "//x", "sd")


def test_a_single_file_is_told_from_a_folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is a file; give a folder"):
        resolve_model(str(tmp_path / "model.safetensors"), "sd")


def nan(folder):
    path = folder / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * torch.nan for name, tensor in load_file(path).items()}, path)


@pytest.mark.parametrize(
    "damage",
    [
        nan,
        lambda f: (f / "config.json").write_text("{"),
        lambda f: (f / "config.json").write_text("{}"),
        lambda f: change(f / "config.json", hidden_dim=17),
        lambda f: change(f / "config.json", depth="two"),
        lambda f: (f / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 50),
        lambda f: (f / "config.json").unlink(),
    ],
)
def test_a_damaged_tiue_is_one_line(tmp_path, damage):
    make_tiue().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match="holds no TIUE"):
        load_tiue(tmp_path)


def test_a_tiue_in_half_precision_only(tmp_path):
    tiue = make_tiue()
    tiue.save_pretrained(tmp_path, variant="fp16")
    assert torch.equal(load_tiue(tmp_path).mlp[1].weight, tiue.mlp[1].weight)
