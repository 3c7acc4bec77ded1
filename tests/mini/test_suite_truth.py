"""What the mini suite says of a picture: each subject's drawing and look, part by part, and a label for each of two."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from umm_bench.errors import UserError
from umm_bench.methods import Case
from umm_bench.metrics.base import ScoredSample
from umm_bench.metrics.identity import Identity, IdentityConfig
from umm_bench.mini.world import backgrounds, looks, scenes
from umm_bench.mini.world.looks import Look
from umm_bench.suites.mini import MiniSuite

TEAL, RED = Look("teal", "white", "dots", "yellow"), Look("red", "black")


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """Two foxes and a house, and a pair of each kind."""
    folder = tmp_path_factory.mktemp("suite")
    subjects = [
        {"id": name, "class_noun": noun, "design": looks.looked(scenes.usual(noun).id, look)}
        for name, noun, look in (("teal-fox", "fox", TEAL), ("red-fox", "fox", RED), ("red-house", "house", RED))
    ]
    left = {"id": "left", "kind": "two_references", "background": "green", "relation": "left of"}
    prompts = [
        {"id": "green", "kind": "recontextualise", "template": "a {subject} on green", "background": "green"},
        {"id": "purple", "kind": "property", "template": "a purple {subject} on green", "background": "green",
         "says": {"main": "purple"}},
        {**left, "template": "a {subject_1} to the left of a {subject_2} on green"},
    ]  # fmt: skip
    pairs = [{"id": "a", "subjects": ["teal-fox", "red-fox"]}, {"id": "b", "subjects": ["teal-fox", "red-house"]}]
    for name, entries in (("subjects", subjects), ("prompts", prompts), ("pairs", pairs)):
        (folder / f"{name}.json").write_text(json.dumps(entries))
    return MiniSuite(folder)


def picture(*things):
    """Sprites (noun, look), one in the middle or two side by side, on green."""
    canvas = backgrounds.draw("green", scenes.rng_for("truth"), 64)
    places = [(0.5, 0.76)] if len(things) == 1 else [(0.26, 0.48), (0.74, 0.48)]
    for (noun, look), (x, scale) in zip(things, places, strict=True):
        scenes.paste(canvas, looks.looked(scenes.usual(noun).id, look), scenes.Placement(x, 0.5, scale))
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))


def prompt_of(suite, case, name):
    return next(prompt for prompt in suite.prompts(case) if prompt.id == name)


def test_of_one_subject_the_part_that_is_wrong_is_named(suite):
    case = Case((suite.subjects()[0],))
    prompt = prompt_of(suite, case, "green")
    right = suite.check(picture(("fox", TEAL)), case, prompt)
    assert right.subjects[0].identity and right.background and all(right.subjects[0].parts.values())
    assert set(right.subjects[0].parts) == {"drawing", "look", *(f"look_{part}" for part in looks.PARTS)}
    for part, miss in (
        ("main", Look("purple", "white", "dots", "yellow")),
        ("mark", Look("teal", "white", "dots", "red")),
    ):
        verdict = suite.check(picture(("fox", miss)), case, prompt).subjects[0]
        wrong = {name for name, fine in verdict.parts.items() if not fine}
        assert not verdict.identity and verdict.concept and wrong == {"look", f"look_{part}"}


def test_where_the_word_contradicts_the_picture_that_part_is_no_matter_of_identity(suite):
    case = Case((suite.subjects()[0],))
    prompt = prompt_of(suite, case, "purple")
    for main, follows in (("purple", "word"), ("teal", "picture")):
        verdict = suite.check(picture(("fox", Look(main, "white", "dots", "yellow"))), case, prompt).subjects[0]
        assert verdict.identity and "look_main" not in verdict.parts
        assert verdict.evidence["parts"]["main"]["follows"] == follows


def test_each_of_two_has_a_label(suite):
    one_class, two_classes = suite.pairs()
    labels = {}
    for case, noun in ((one_class, "fox"), (two_classes, "house")):
        prompt = prompt_of(suite, case, "left")
        for kind, shown in {
            "right": [("fox", TEAL), (noun, RED)],
            "swap": [("fox", RED), (noun, TEAL)],
        }.items():
            check = suite.check(picture(*shown), case, prompt)
            labels[noun, kind] = [subject.evidence["label"] for subject in check.subjects]
    missing = suite.check(picture(("fox", TEAL)), two_classes, prompt_of(suite, two_classes, "left"))
    assert labels == {(n, k): [k, k] for n in ("fox", "house") for k in ("right", "swap")}
    assert [subject.evidence["label"] for subject in missing.subjects] == ["right", "missing"]


def test_identity_has_a_row_for_each_part(suite, tmp_path):
    case = suite.pairs()[1]
    path = tmp_path / "a.png"
    picture(("fox", TEAL), ("house", Look("red", "blue"))).save(path)
    sample = ScoredSample("key", path, case, prompt_of(suite, case, "left"), seed=0)
    rows = Identity(IdentityConfig(), suite).score([sample])
    told = {(row.subject, row.metric): row.value for row in rows}
    assert told["teal-fox", "identity"] == told["teal-fox", "look_pattern"] == told["", "background"] == 1
    assert told["red-house", "drawing"] == told["red-house", "look_main"] == 1
    assert told["red-house", "identity"] == told["red-house", "look_second"] == 0


def test_a_suite_of_an_earlier_world_says_what_to_do(tmp_path):
    (tmp_path / "subjects.json").write_text("[]")
    (tmp_path / "prompts.json").write_text("[]")
    with pytest.raises(UserError, match="earlier world, without pairs; leave the folder out"):
        MiniSuite(tmp_path)
