"""Registry, seeds, configurations, suites and metrics, each by itself."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.bench import bench_fakes as fakes
from umm_bench.base import load_base
from umm_bench.cli import progress
from umm_bench.configs import build_config
from umm_bench.errors import UserError
from umm_bench.images import open_image
from umm_bench.methods import METHODS, Case, Prompt, Subject
from umm_bench.metrics.base import ScoredSample
from umm_bench.metrics.clip_i import ClipI, ClipIConfig
from umm_bench.metrics.clip_t import ClipT, ClipTConfig
from umm_bench.metrics.dino import Dino, DinoConfig
from umm_bench.metrics.identity import Identity, IdentityConfig
from umm_bench.registry import Registry
from umm_bench.seeding import digest, path_digest, sample_seed, seed_for
from umm_bench.suites.dreambench import DreamBench
from umm_bench.suites.mini import MiniSuite

DREAMBENCH = Path(__file__).parents[3] / "shared" / "data" / "dreambench"


def test_registry_suggests_and_forgets():
    registry = Registry("umm_bench.no_such_group", "method")
    with registry.register("dreambooth", "json:dumps"), registry.register("sd", int):
        assert registry.load("dreambooth")([1]) == "[1]"
        assert registry.load("sd") is int
        with pytest.raises(UserError, match="did you mean 'dreambooth'"):
            registry.load("dreamboth")
    assert registry.names() == []


def test_entry_points_are_known_without_importing_them():
    assert {"sd", "textual_inversion", "dreambooth", "umm"} <= set(METHODS.names())
    assert METHODS.target("dreambooth") == "baselines.dreambooth:DreamBooth"


def test_seeds_depend_on_every_part_and_on_nothing_else():
    seeds = {sample_seed(0, "a", "b", 0), sample_seed(1, "a", "b", 0), sample_seed(0, "ab", "", 0)}
    seeds |= {sample_seed(0, "a", "b", 1), sample_seed(0, "a", "c", 0)}
    assert len(seeds) == 5 and all(0 <= seed < 2**63 for seed in seeds)
    # Written down: another value would silently make every sample of every user again.
    assert seed_for("sample", 0, "fox", "beach", 0) == SEED
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})


SEED = 6394926269947789946


def test_path_digest_sees_content_and_names(tmp_path):
    (tmp_path / "a").write_text("1")
    before = path_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = path_digest(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({before, renamed, path_digest(tmp_path)}) == 3


def test_path_digest_sees_a_changed_tensor_anywhere_in_a_large_file(tmp_path):
    weights, size = tmp_path / "weights", 70 * 2**20
    digests = set()
    for changed in (None, 5 * 2**20, 35 * 2**20 + 1, size - 2**20 - 2**17):
        with weights.open("wb") as stream:
            stream.truncate(size)
            if changed is not None:
                stream.seek(changed)
                stream.write(b"1" * 2**17)
        digests.add(path_digest(weights))
    assert len(digests) == 4


@dataclass(frozen=True)
class Config:
    steps: int = 1
    rank: int | None = 4
    mode: Literal["flip", "none"] = "none"
    deep: bool = False
    layers: tuple[int, ...] = ()


def test_settings_are_parsed_by_type():
    words = {"steps": "7", "rank": "none", "mode": "flip", "deep": "true", "layers": "1, 2"}
    assert build_config(Config, words, "m") == Config(7, None, "flip", True, (1, 2))
    for key, value in (("steps", "x"), ("mode", "flop"), ("deep", "maybe"), ("layers", "1,x"), ("rank", "")):
        with pytest.raises(UserError, match=f"m.{key}="):
            build_config(Config, {key: value}, "m")


def test_a_template_names_the_subject_once():
    assert Prompt("p", "a {subject} here", "style").text(["sks dog"]) == "a sks dog here"
    assert Prompt("p", "a {subject} on a beach", "style").text(["owl"]) == "an owl on a beach"
    assert Prompt("p", "{subject}, a toy", "style").text(["owl"]) == "owl, a toy"


def test_a_template_of_several_names_each_once_in_any_order():
    prompt = Prompt("p", "A {subject_2} and a {subject_1}, a {red} toy", "two_references")
    assert prompt.subjects == 2
    assert prompt.text(["owl", "ape"]) == "An ape and an owl, a {red} toy"
    assert prompt.text(["dog", "dog"]) == "A dog and a dog, a {red} toy"
    for words in (["owl"], ["a", "b", "c"], "ab"):
        with pytest.raises(ValueError, match="names 2 subjects"):
            prompt.text(words)


def test_a_template_knows_where_each_subject_is():
    prompt = Prompt("p", "A {subject_2}, a dog and a {subject_1}", "two_references")
    text, spans = prompt.text(["dog", "owl"]), prompt.spans(["dog", "owl"])
    assert text == "An owl, a dog and a dog" and [text[a:b] for a, b in spans] == ["dog", "owl"]
    assert spans == ((20, 23), (3, 6))
    assert Prompt("p", "a {subject}", "style").spans(["sks dog"]) == ((2, 9),)


@pytest.mark.parametrize(
    "template",
    ["a dog", "{subject} and {subject}", "{subject} and {subject_1}", "{subject_1} and {subject_1}", "{subject_2}",
     "{subject_1} and {subject_3}", "{subject_0}", "{subject_1} and {subjet_2}", ""],
)  # fmt: skip
def test_a_template_that_does_not_is_refused(template):
    with pytest.raises(ValueError, match="prompt 'p' must hold"):
        Prompt("p", template, "style")


def test_a_case_is_named_after_its_subjects():
    fox, owl = Subject("fox", "fox", (Path("a.png"),)), Subject("owl", "bird", (Path("b.png"),))
    assert Case((fox,)).id == "fox" and Case((fox,)).subject == fox
    pair = Case((owl, fox))
    assert pair.id == "owl+fox" and pair.class_nouns == ("bird", "fox")
    with pytest.raises(ValueError):
        _ = pair.subject
    with pytest.raises(ValueError, match="'fox' more than once"):
        Case((fox, owl, fox))
    with pytest.raises(ValueError, match="without subjects"):
        Case(())


def test_references_are_read_upright_on_white(tmp_path):
    image = Image.new("RGBA", (4, 2), (255, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "a.png", exif=exif)
    read = open_image(tmp_path / "a.png")
    assert read.size == (2, 4) and read.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.skipif(not DREAMBENCH.is_dir(), reason="no copy of DreamBench beside the project")
def test_dreambench_is_read_from_its_own_files():
    suite = DreamBench(DREAMBENCH)
    subjects = {subject.id: subject for subject in suite.subjects()}
    assert len(subjects) == 30
    assert sum(subject.kind == "live" for subject in subjects.values()) == 9
    assert all(4 <= len(subject.references) <= 6 for subject in subjects.values())
    assert subjects["grey_sloth_plushie"].class_noun == "stuffed animal"
    for name in ("backpack", "dog"):
        prompts = suite.prompts(Case((subjects[name],)))
        assert len({prompt.id for prompt in prompts}) == 25
    live = {prompt.template: prompt.kind for prompt in suite.prompts(Case((subjects["dog"],)))}
    assert live["a {subject} in a chef outfit"] == "accessorise"
    assert live["a {subject} in the jungle"] == "recontextualise"
    assert live["a cube shaped {subject}"] == "property"


@pytest.fixture
def samples(world) -> list[ScoredSample]:
    references = tuple(sorted((world / "suite" / "red-fox").glob("*.png")))
    subject = Subject("red-fox", "fox", references, "live")
    prompts = [Prompt(*parts) for parts in fakes.PROMPTS]
    return [
        ScoredSample(f"k{number}", path, Case((subject,)), prompt, number)
        for number, (path, prompt) in enumerate(zip(references, prompts, strict=True))
    ]


def test_clip_scores_are_those_of_the_model_itself(world, samples):
    import torch
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(world / "clip", dtype=torch.float32).eval()
    texts = [sample.prompt.text(["fox"]) for sample in samples]
    tokens = CLIPTokenizer.from_pretrained(world / "clip")(texts, padding=True, return_tensors="pt")
    images = [Image.open(path) for path in samples[0].case.subject.references]
    pixels = CLIPImageProcessorPil.from_pretrained(world / "clip")(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        out = model(pixel_values=pixels, **tokens)
    text = ClipT(ClipTConfig(str(world / "clip")), None).score(samples)
    image = ClipI(ClipIConfig(str(world / "clip")), None).score(samples)
    expected = (out.image_embeds * out.text_embeds).sum(-1)
    assert [score.value for score in text] == pytest.approx(expected.tolist(), abs=1e-5)
    cosines = out.image_embeds @ out.image_embeds.T
    assert [score.value for score in image] == pytest.approx(cosines.mean(-1).tolist(), abs=1e-5)
    assert image[0].metadata["references"]["00.png"] == pytest.approx(1, abs=1e-3)
    assert "clip@" in text[0].protocol and text[0].explanation.endswith("'a fox on the beach'")


def test_a_long_prompt_is_marked_as_cut(world, samples):
    first = samples[0]
    prompt = Prompt("long", "a {subject} " + "with a very long hat " * 5, "style")
    long = ScoredSample("k", first.path, first.case, prompt, 0)
    scores = ClipT(ClipTConfig(str(world / "clip")), None).score([first, long])
    assert [score.metadata["truncated"] for score in scores] == [False, True]


def test_a_batch_scores_as_its_members(world, samples):
    from umm_bench.metrics import embedding

    metric = Dino(DinoConfig(str(world / "encoder")), None)
    together = [score.value for score in metric.score(samples)]
    embedding.vision_encoder.cache_clear()
    alone = [Dino(DinoConfig(str(world / "encoder")), None).score([sample])[0].value for sample in samples]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(np.round(together, 4))) > 1


def test_a_broken_metric_model_is_a_clear_error(tmp_path, samples):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot load metric model"):
        Dino(DinoConfig(str(tmp_path)), None).score(samples)


def test_a_base_is_found_or_refused(tmp_path):
    assert load_base(str(tmp_path)).location == str(tmp_path)
    assert load_base("stabilityai/sd-turbo").fingerprint == "stabilityai/sd-turbo"
    for name in ("./nowhere", "nowhere", "a/b/c"):
        with pytest.raises(UserError, match="is neither"):
            load_base(name)
    with pytest.raises(UserError, match="cannot load base"):
        load_base(str(tmp_path)).pipeline()


def test_a_verdict_names_the_truth_that_it_rests_on(tmp_path):
    entry = {"id": "cat", "class_noun": "cat", "design": "cat/noto"}
    (tmp_path / "pairs.json").write_text("[]")
    (tmp_path / "prompts.json").write_text('[{"id": "blue", "template": "a {subject}", "kind": "property"}]')
    protocols = []
    for design in ("cat/noto", "cat/fluent-3d", "cat/noto"):
        (tmp_path / "subjects.json").write_text(json.dumps([{**entry, "design": design}]))
        metric = Identity(IdentityConfig(), MiniSuite(tmp_path))
        protocols.append(metric.protocol)
    assert protocols[0] == protocols[2] != protocols[1]
    assert protocols[0].startswith("identity/4: ground truth of suite mini/3@")
    assert [path.name for path in metric.weights] == ["subjects.json", "prompts.json", "pairs.json"]


def test_the_mini_suite_says_how_often_its_concepts_were_there_to_be_learnt():
    suite = MiniSuite()
    counts = suite.concept_counts()
    assert set(counts) == {subject.class_noun for subject in suite.subjects()}
    assert counts["automobile"] > 100 and min(counts.values()) < 10


def test_progress_counts_no_work_of_an_earlier_run_in_its_rate(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    said = io.StringIO()
    with progress.Tracker(Console(file=said, force_terminal=False), "training", 200, before=100) as tracker:
        now[0] = 20.0
        tracker.update(140)
    assert said.getvalue().startswith("training 140/200, 2.00/s, 30 s left")
