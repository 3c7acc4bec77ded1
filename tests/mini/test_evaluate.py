"""The evaluation's own arithmetic and data; no test depends on how good the shipped weights are."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch.nn.functional as F

from curation.config import BuildConfig
from curation.grounding import with_threshold
from curation.records import Box
from figures import Figure
from umm_bench.base import load_base
from umm_bench.errors import UserError
from umm_bench.mini import evaluate, family
from umm_bench.mini.evaluation import detector, embedders, generator, intervals, subjects, truth
from umm_bench.mini.measured import read_figures, write_figures
from umm_bench.mini.world import backgrounds, looks, scenes, sprites, suite
from umm_bench.umm_method import load_umm


def test_an_unknown_name_is_one_line_before_anything_is_measured(capsys):
    assert evaluate.main(["encoder", "nosuch"]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "unknown mini model 'nosuch'" in said.err and not said.out


def test_missing_weights_are_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(family, "WEIGHTS", tmp_path)
    assert evaluate.main(["encoder"]) == 2
    assert "make mini" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [0, 1000])
def test_half_written_weights_are_one_line(kept, monkeypatch, tmp_path, capsys):
    whole = family.path("encoder")
    (tmp_path / "encoder").mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / "encoder" / name).write_bytes((whole / name).read_bytes())
    (tmp_path / "encoder" / "model.safetensors").write_bytes((whole / "model.safetensors").read_bytes()[:kept])
    monkeypatch.setattr(family, "WEIGHTS", tmp_path)
    assert evaluate.main(["encoder"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot measure 'encoder': ") and error.count("\n") == 1


def test_written_figures_replace_their_own_and_keep_the_others(tmp_path):
    path = tmp_path / "figures.json"
    with pytest.raises(UserError, match="--write"):
        read_figures(path)
    write_figures([Figure("a.x", 1.0, "s", False, 2.0), Figure("b.y", 0.1, "share", True, 0.5, "n = 3")], path)
    write_figures([Figure("a.x", 3.0, "s", False, 2.0)], path)
    kept = read_figures(path)
    assert kept["a.x"]["value"] == 3.0 and kept["a.x"]["ok"] is False
    assert kept["b.y"]["note"] == "n = 3" and [p.name for p in tmp_path.iterdir()] == ["figures.json"]


def test_json_lines_and_kept_figures_are_the_same(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(evaluate, "FIGURES", tmp_path / "figures.json")
    monkeypatch.setattr(truth, "figures", lambda: iter([Figure("checker.fake", 0.5, "share", True, 0.95)]))
    assert evaluate.main(["checker", "--json", "--write"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line == read_figures(tmp_path / "figures.json")["checker.fake"]
    assert {"name", "value", "unit", "higher_is_better", "bar", "ok"} <= line.keys()


def test_intervals_hold_the_share_and_are_no_points():
    for right, shown in ((0, 20), (7, 20), (20, 20)):
        low, high = intervals.wilson(right, shown)
        assert low - 1e-9 <= right / shown <= high + 1e-9 and high - low > 0.1
    figure = intervals.share("x.y", [True] * 9 + [False], 0.95, "why")
    assert figure.value == 0.9 and figure.ok is False and "n = 10" in figure.note and "why" in figure.note


def test_a_bootstrap_interval_narrows_with_the_data():
    x = np.random.default_rng(0).normal(size=400)
    widths = [np.ptp(intervals.bootstrap(lambda rows, part=x[:n]: part[rows].mean(), n)) for n in (25, 400)]
    assert widths[1] < widths[0] / 2


def test_the_slope_is_that_of_the_line():
    x = np.log10([1.0, 10.0, 100.0, 1000.0])
    assert generator.slope(x, 0.1 + 0.2 * x) == pytest.approx(0.2)


def test_rarity_samples_the_whole_range_of_counts():
    counts = {f"c{i}": 1000.0 / (i + 1) for i in range(300)} | {"never": 0.0}
    chosen = generator.spread_over_counts(counts, 30)
    logs = np.log10([counts[name] for name in chosen])
    assert len(set(chosen)) == 30 and "never" not in chosen
    assert chosen[0] == "c0" and np.histogram(logs, 3)[0].min() >= 5


def test_concepts_without_training_are_named_apart(monkeypatch):
    class Judge:
        def ranks(self, images, truth, names):
            assert len(images) == len(truth) and len(names) == len(world.concepts)
            return np.array([{"train": 1, "held_out": 9}[world.by_name[name].split] for name in truth])

    world = sprites.load()
    monkeypatch.setattr(embedders, "judge", Judge)
    monkeypatch.setattr(embedders.encoder_recipe, "view", lambda *_: np.zeros((64, 64, 3), np.uint8))
    first, fifth = embedders.scoring_clip()
    assert (first.value, fifth.value) == (0, 1)
    unknown = [d for d in world.designs.values() if world.by_name[d.concept].split == "held_out"]
    assert f"0.000 of {len(unknown)} on those never seen" in fifth.note


@pytest.mark.parametrize("sees", [True, False])
def test_what_an_image_encoder_sees_is_the_concept_of_the_nearest_learnt_drawing(sees, monkeypatch):
    world = sprites.load()
    names = [c.name for c in world.concepts]

    def view(design, rng):
        concept = names.index(world.designs[design].concept)
        return np.full((64, 64, 3), (concept // 30, concept % 30, 0), np.uint8)

    class Model:
        def eval(self):
            return self

        def __call__(self, pixels):
            code = ((pixels[:, :2, 0, 0] * 0.25 + 0.5) * 255).round().long()
            concept = code[:, 0] * 30 + code[:, 1]
            return SimpleNamespace(image_embeds=F.one_hot(concept * sees, len(names)).float())

    monkeypatch.setattr(embedders, "load_image_encoder", lambda folder: Model())
    monkeypatch.setattr(embedders.encoder_recipe, "view", view)
    figure, _ = embedders.image_encoder()
    assert figure.value == 1 if sees else figure.value < 0.05


def test_a_drawing_is_told_from_others_by_what_a_model_sees_of_it(monkeypatch):
    monkeypatch.setattr(embedders.encoder_recipe, "view", lambda design, rng: shown(design))
    held = [d for d in sprites.load().designs.values() if d.split == "held_out"]
    identities = sorted({d.identity for d in held})

    def shown(design):
        number = identities.index(sprites.load().designs[design].identity)
        return np.full((64, 64, 3), (number // 200, number % 200, 0), np.uint8)

    def embed(pixels):
        code = ((pixels[:, :2, 0, 0] * 0.25 + 0.5) * 255).round().long()
        return F.one_hot(code[:, 0] * 200 + code[:, 1], len(identities)).float()

    assert all(embedders.identity_top1(embed))
    assert np.mean(embedders.identity_top1(lambda pixels: embed(pixels * 0 - 2))) < 0.01


def test_two_phrases_need_two_places():
    here, there, nearly = Box(0, 0, 0.5, 1, 0.9), Box(0.5, 0, 1, 1, 0.9), Box(0, 0.1, 0.5, 1, 0.9)
    assert generator._apart([[here], [there]])
    assert not generator._apart([[here], [nearly]]) and not generator._apart([[here], []])


def test_the_stated_threshold_is_curations_default():
    config = with_threshold(BuildConfig(), str(family.detector_path()))
    assert f"{config.phrase_score} over" in detector.rule() and detector.rule().endswith(f">= {config.box_threshold}")


def test_subjects_and_validation_designs_were_in_no_training():
    tiue = subjects.held_out_designs()
    assert len(tiue) >= 40 and {d.split for d in tiue} == {"held_out"}
    assert len({d.concept for d in tiue}) == len(tiue) and {d.concept for d in tiue} <= set(generator.frequent())
    validation = truth.validation_designs()
    tuned = {sprites.load().designs[looks.split_id(s["design"])[0]].identity for s in suite.subjects()}
    assert {d.split for d in validation} == {"held_out"} and not tuned & {d.identity for d in validation}


def test_each_of_a_subjects_pictures_is_judged_by_its_own_prompt(monkeypatch):
    designs, colors = subjects.held_out_designs()[:4], backgrounds.PLAIN_COLORS

    def shows(prompts):
        """Pictures whose pixels are the numbers of the prompt's background and concept."""
        grounds = [next(i for i, c in enumerate(colors) if f"on a {c} background" in p) for p in prompts]
        concepts = [next(i for i, d in enumerate(designs) if f" {d.concept} on" in p) for p in prompts]
        return np.array([np.full((1, 1, 2), pair) / 255 for pair in zip(grounds, concepts, strict=True)])

    def umm(prompts, subjects, generator, **_):
        assert len(prompts) == len(generator) and all(f" {subjects[0].phrase} on" in p for p in prompts)
        return SimpleNamespace(images=shows(prompts))

    def concept_ranks(images, names, among):
        return np.array([designs[image[0, 0, 1]].concept != name for image, name in zip(images, names, strict=True)])

    def right_backgrounds(images, grounds):
        return np.array([colors[image[0, 0, 0]] == ground for image, ground in zip(images, grounds, strict=True)])

    monkeypatch.setattr(subjects, "held_out_designs", lambda: designs)
    monkeypatch.setattr(subjects, "load_umm", lambda base, name: umm)
    monkeypatch.setattr(subjects, "right_designs", lambda images, designs: np.ones(len(images)))
    monkeypatch.setattr(subjects, "judge", lambda: SimpleNamespace(ranks=concept_ranks))
    monkeypatch.setattr(generator, "draw", lambda prompts, seeds: (shows(prompts) * 255).round().astype(np.uint8))
    monkeypatch.setattr(generator, "right_backgrounds", right_backgrounds)
    monkeypatch.setattr(generator, "knows", lambda drawings, names: np.ones(len(drawings), bool))
    monkeypatch.setattr(subjects, "errors", lambda designs: np.tile([0.5, 0.625, 1.0], (len(designs), 1)))
    found = {figure.name: figure for figure in subjects.figures()}
    gaps = ("tiue.concept_gap", "tiue.concept_gap_known", "tiue.background_gap")
    assert all(found[name].note.startswith("1.000 against 1.000;") for name in gaps)
    assert found["tiue.identity_ratio_to_sd"].value == found["tiue.identity_learnt"].value == 1
    assert found["tiue.error_saved"].value == found["tiue.error_saved_learnt"].value == 0.2
    assert found["tiue.error_saved"].note.endswith("against none 0.500")


def test_a_tiue_that_adds_nothing_saves_no_error(monkeypatch):
    pipe = load_umm(load_base("mini"), "mini")
    monkeypatch.setattr(subjects, "pipeline", lambda: pipe)
    designs = subjects.held_out_designs()[:2]
    own, other, none = subjects.errors(designs).T
    assert (np.abs(own / none - 1) > 1e-3).all() and (np.abs(own / other - 1) > 1e-4).all()
    pipe.tiue.register_to_config(placement="add")
    for parameter in pipe.tiue.parameters():
        parameter.data.zero_()
    assert np.allclose(subjects.errors(designs), none[:, None])


def test_another_drawing_is_of_the_same_concept():
    held = subjects.held_out_designs()
    learnt = [subjects.another(design) for design in held]
    assert not {d.identity for d in learnt} & {scenes.usual(d.concept).identity for d in held}
    for design, other in zip([*held, *learnt], [*learnt, *map(subjects.another, learnt)], strict=True):
        assert other.concept == design.concept and other.identity != design.identity and other.split == "train"


def test_a_ratio_to_nothing_is_finite():
    figure = subjects._ratio(np.full(10, 0.5), np.zeros(10))
    assert np.isfinite(figure.value) and figure.ok


def test_gaps_are_positive_where_the_subject_costs_something():
    assert subjects._gap("tiue.concept_gap", np.array([0.5, 0.5]), np.array([1.0, 0.5])).value == 0.25


def test_an_image_depends_on_its_own_prompt_and_seed(monkeypatch):
    monkeypatch.setattr(generator, "STEPS", 2)
    prompts = ["a dog on a blue background", "a cat on a red background"]
    both, single = generator.draw(prompts, (0, 1)), generator.draw(prompts[1:], (1,))
    assert both.shape == (2, 64, 64, 3) and both.dtype == np.uint8
    assert np.abs(both[1].astype(int) - single[0]).max() <= 1


YES = {
    **dict.fromkeys(("identity", "look", "drawing", "concept", "background", "count", "relation"), True),
    "parts": {part: {"right": True} for part in looks.PARTS},
}  # what a checker says that takes everything for right


def test_the_checkers_figures_ask_both_ways():
    found = {f.name: f.note for f in truth.subject_figures(truth.validation_designs(2), "test")}
    assert "n = 4" in found["checker.identity"] and "n = 4" in found["checker.background"]
    assert "n = 2" in found["checker.concept"]  # one of the two wrong pictures shows another design of the concept


def test_each_wrong_picture_meets_every_prompt(monkeypatch):
    asked, designs = [], truth.validation_designs(48)
    monkeypatch.setattr(truth.checker, "check", lambda *_: YES)
    monkeypatch.setattr(truth, "posed", lambda *_: None)
    monkeypatch.setattr(truth, "_wrong", lambda design, look, prompt, kind, key: asked.append((prompt["id"], kind)))
    list(truth.subject_figures(designs, "test"))
    assert len(set(asked)) == len(truth.PROMPTS) * len(truth.WRONG) == 48


def test_a_checker_that_always_says_yes_is_right_half_of_the_time(monkeypatch):
    monkeypatch.setattr(truth.checker, "check", lambda *_: YES)
    designs = truth.validation_designs(6)
    both = {"subjects": [{"label": "right"}, {"label": "right"}]}
    monkeypatch.setattr(truth.pairs, "check_pair", lambda *_: both)
    figures = [f(designs, "test") for f in (truth.count_figure, truth.relation_figure, truth.pair_figure)]
    figures += truth.subject_figures(designs, "test")
    assert {f.value for f in figures} == {0.5}
