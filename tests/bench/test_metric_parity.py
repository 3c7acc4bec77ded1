"""Each encoder against a few lines of transformers, torchmetrics or numpy: the same preparation, the same value."""

import numpy as np
import pytest
import torch
from PIL import Image

from curation.records import Box
from tests.bench import bench_fakes as fakes
from umm_bench.methods import Case, Prompt, Subject
from umm_bench.metrics.base import ScoredSample, Unusable
from umm_bench.metrics.clip_t import ClipT, ClipTConfig
from umm_bench.metrics.detection import Detector
from umm_bench.metrics.dino import Dino, DinoConfig
from umm_bench.metrics.masc.background import MascPrompt, MascPromptConfig, without_subject
from umm_bench.metrics.masc.identity import Masc, MascConfig
from umm_bench.metrics.masc.patches import PatchEncoder

BOX = Box(0.0, 0.6, 0.5, 1.0, 0.9)
"""In the lower left."""


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """Not square, and larger than any model: it has to be resized."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{number}.png" for number in range(2)]
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 255, (9, 12, 3), np.uint8)
        Image.fromarray(pixels).resize((96, 72), Image.Resampling.BICUBIC).save(path)
    return paths


@pytest.fixture
def boxed(monkeypatch):
    monkeypatch.setattr(Detector, "boxes", lambda self, path, phrase: [BOX])


@pytest.fixture(scope="module")
def siglips(tmp_path_factory):
    """A SigLIP and a SigLIP 2 for pictures of any shape, random and tiny."""
    from transformers import Siglip2Config, Siglip2Model, SiglipConfig, SiglipImageProcessorPil, SiglipModel
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    folders = {}
    for name in ("siglip", "siglip2"):
        folder = fakes.make_clip(tmp_path_factory.mktemp("models") / name)
        text = {**sizes, "vocab_size": 54, "max_position_embeddings": 40, "projection_size": 16}
        vision = {**sizes, "patch_size": 8}
        torch.manual_seed(2)
        if name == "siglip":
            SiglipModel(SiglipConfig(text_config=text, vision_config={**vision, "image_size": 32})).save_pretrained(
                folder
            )
            SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
        else:
            Siglip2Model(Siglip2Config(text_config=text, vision_config={**vision, "num_patches": 16})).save_pretrained(
                folder
            )
            Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16).save_pretrained(folder)
        folders[name] = folder
    return folders


def prepared(name, folder, path):
    """Pixels by the library's own classes, and how many patches there are a line."""
    if name == "siglip":
        from transformers import SiglipImageProcessorPil

        return SiglipImageProcessorPil.from_pretrained(folder)(Image.open(path), return_tensors="pt"), (4, 4)
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    inputs = Siglip2ImageProcessorPil.from_pretrained(folder)(Image.open(path), return_tensors="pt")
    return inputs, tuple(inputs["spatial_shapes"][0].tolist())


def model_of(folder):
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder, dtype=torch.float32).eval()


def hidden_states(name, folder, path):
    inputs, grid = prepared(name, folder, path)
    with torch.no_grad():
        states = model_of(folder).get_image_features(**inputs).last_hidden_state[0]
    return states[: grid[0] * grid[1]], grid


def inside_box(grid):
    """Which patches lie in the box by more than half: those whose centres do, of these grids."""
    lines, columns = ((np.arange(side) + 0.5) / side for side in grid)
    return torch.from_numpy(np.outer(lines > 0.6, columns < 0.5).ravel())


def asked(path, reference, template="a {subject} on the beach"):
    subject = Subject("fox", "fox", (reference,), "live")
    return ScoredSample("k", path, Case((subject,)), Prompt("p", template, "recontextualise"), 0)


@pytest.mark.parametrize("name", ["siglip", "siglip2"])
def test_masc_is_the_mean_of_the_largest_cosines_of_the_masked_patches(name, siglips, picture, boxed):
    reference, grid = hidden_states(name, siglips[name], picture[0])
    image, _ = hidden_states(name, siglips[name], picture[1])
    inside = torch.nn.functional.normalize(reference[inside_box(grid)], dim=-1)
    expected = (inside @ torch.nn.functional.normalize(image, dim=-1).T).max(dim=1).values.mean()
    assert 0 < inside_box(grid).sum() < len(reference)
    (row,) = Masc(MascConfig(str(siglips[name])), None).score([asked(picture[1], picture[0])])
    assert row.value == pytest.approx(float(expected), abs=2e-3)
    whole = (torch.nn.functional.normalize(reference, dim=-1) @ torch.nn.functional.normalize(image, dim=-1).T).amax(1)
    assert abs(row.value - float(whole.mean())) > 4e-3  # the mask is not without effect


@pytest.mark.parametrize("name", ["siglip", "siglip2"])
def test_the_background_is_pooled_by_the_models_own_head_with_the_subject_masked(name, siglips, picture, boxed):
    states, grid = hidden_states(name, siglips[name], picture[1])
    model, keep = model_of(siglips[name]), ~inside_box(grid)
    head = model.vision_model.head
    with torch.no_grad():
        probe = head.probe
        attended = head.attention(probe, states[None], states[None], key_padding_mask=~keep[None])[0]
        pooled = (attended + head.mlp(head.layernorm(attended)))[0, 0]
        tokens = tokenizer(siglips[name])(
            "on the beach", padding="max_length", max_length=40, truncation=True, return_tensors="pt"
        )
        text = model.get_text_features(input_ids=tokens["input_ids"]).pooler_output[0]
    expected = torch.nn.functional.cosine_similarity(pooled, text, dim=0)
    (row,) = MascPrompt(MascPromptConfig(str(siglips[name])), None).score([asked(picture[1], picture[0])])
    assert row.value == pytest.approx(float(expected), abs=2e-3)
    assert row.metadata["text"] == "on the beach" and row.metadata["found"]


def tokenizer(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_the_whole_is_pooled_as_the_model_pools_it(siglips, picture):
    for name, folder in siglips.items():
        inputs, grid = prepared(name, folder, picture[0])
        with torch.no_grad():
            pooled = model_of(folder).get_image_features(**inputs).pooler_output[0]
        encoder = PatchEncoder(str(folder), "encoder")
        ours = encoder.pooled(encoder.patches(picture[0]), np.ones(grid[0] * grid[1]))
        assert ours == pytest.approx(torch.nn.functional.normalize(pooled, dim=0).numpy(), abs=5e-3)


def test_the_mini_clip_pools_the_whole_as_it_is_pooled(picture):
    from umm_bench.metrics.embedding import clip_encoder

    encoder = PatchEncoder("mini", "scoring_clip")
    patches = encoder.patches(picture[0])
    whole = encoder.pooled(patches, np.ones(len(patches.features_ND)))
    assert whole == pytest.approx(clip_encoder("mini").images(picture[:1])[0], abs=2e-3)


def test_a_model_that_pools_no_patches_is_refused(world, picture, boxed):
    with pytest.raises(Unusable, match="does not pool patches"):
        MascPrompt(MascPromptConfig(str(world / "clip")), None).score([asked(picture[0], picture[1])])


def test_a_subject_that_leaves_no_background_is_a_reason(siglips, picture, monkeypatch):
    monkeypatch.setattr(Detector, "boxes", lambda self, path, phrase: [Box(0, 0, 1, 1, 0.9)])
    with pytest.raises(ValueError, match="the subject fills the image: 0% of it is left"):
        MascPrompt(MascPromptConfig(str(siglips["siglip"])), None).score([asked(picture[0], picture[1])])


@pytest.mark.parametrize(
    ("template", "left"),
    [("a {subject} on the beach", "on the beach"), ("A red {subject}, painted", "A red , painted"),
     ("the {subject}", ""), ("painting of a {subject} in Paris", "painting of in Paris")],
)  # fmt: skip
def test_a_prompt_without_its_subject(template, left, picture):
    sample = asked(picture[0], picture[1], template)
    assert without_subject(sample) == left
    metric = MascPrompt(MascPromptConfig(), None)
    assert (metric.why_not(sample) is None) == bool(left)


def test_patches_of_a_centre_crop_know_what_was_cut_off(world, picture):
    """96 x 72 becomes 32 x 32: the middle 72 columns, so that a box of the left quarter covers the first of four."""
    encoder = PatchEncoder(str(world / "clip"), "encoder")
    share = encoder.coverage(picture[0], [Box(0, 0, 0.125 + 0.1875, 1, 0.9)], encoder.patches(picture[0]).grid)
    assert share.reshape(4, 4).tolist() == [[1, 0, 0, 0]] * 4


def test_dino_is_the_cosine_of_cls_tokens(world, picture):
    from transformers import ViTImageProcessorPil, ViTModel

    processor, model = (
        ViTImageProcessorPil.from_pretrained(world / "encoder"),
        ViTModel.from_pretrained(world / "encoder"),
    )
    with torch.no_grad():
        pixels = processor([Image.open(path) for path in picture], return_tensors="pt")["pixel_values"]
        tokens = model.eval()(pixels).last_hidden_state[:, 0]
    expected = torch.nn.functional.cosine_similarity(tokens[0], tokens[1], dim=0)
    (row,) = Dino(DinoConfig(str(world / "encoder")), None).score([asked(picture[1], picture[0])])
    assert row.value == pytest.approx(float(expected), abs=1e-5)


class TorchmetricsModel:
    """Since transformers 5 a CLIP's features come in an output, which torchmetrics does not know."""

    def __init__(self, folder):
        self.model = model_of(folder)
        self.config = self.model.config

    def to(self, device):
        return self

    def get_image_features(self, pixels):
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    def get_text_features(self, ids, mask):
        return self.model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output


def test_clip_t_is_torchmetrics_clip_score_over_100(world, picture):
    from torchmetrics.functional.multimodal import clip_score
    from transformers import CLIPImageProcessorPil, CLIPProcessor

    folder = world / "clip"
    processor = CLIPProcessor(CLIPImageProcessorPil.from_pretrained(folder), tokenizer(folder))
    pixels = torch.from_numpy(np.array(Image.open(picture[0]))).permute(2, 0, 1)
    theirs = clip_score(pixels, "a fox on the beach", lambda: (TorchmetricsModel(folder), processor))
    (row,) = ClipT(ClipTConfig(str(folder)), None).score([asked(picture[0], picture[1])])
    # theirs are never below 0
    assert float(theirs.detach()) / 100 == pytest.approx(max(row.value, 0), abs=1e-5)
