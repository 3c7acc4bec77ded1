"""The checker against composed scenes, whose truth is known: what it must accept, and what it must refuse."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from umm_bench.mini.checking import checker, pairs, repainted
from umm_bench.mini.evaluation import truth
from umm_bench.mini.world import backgrounds, looks, scenes, sprites, suite
from umm_bench.mini.world.looks import Look

SUBJECTS = [subject["design"] for subject in suite.subjects()[:5]]


def _draw(design: str, background: str, key: str, scale: float = 0.75) -> np.ndarray:
    rng = scenes.rng_for("checker-test", design, key)
    canvas = backgrounds.draw(background, rng, 64)
    scenes.paste(canvas, design, scenes.random_placement(rng, 0.5, 0.5, scale))
    return np.clip(canvas, 0, 255).astype(np.uint8)


def test_right_subjects_and_backgrounds_are_found():
    results = [checker.check(_draw(design, "blue", "a"), design, {"background": "blue"}) for design in SUBJECTS]
    for part in ("identity", "concept", "background", "count"):
        assert sum(result[part] for result in results) >= len(SUBJECTS) - 1, part


def test_another_drawing_of_the_concept_is_not_the_subject():
    result = checker.check(_draw("cat/noto", "blue", "b"), "cat/fluent-3d", {"background": "beach"})
    assert not result["identity"] and result["best_design"] == "cat/noto" and result["margin"] < 0
    assert result["background"] is False


def test_designs_of_a_concept_are_told_apart():
    for subject in SUBJECTS[:4]:
        own = sprites.load().designs[looks.split_id(subject)[0]]
        rival = next(d for d in sprites.load().members(own.concept) if d.identity != own.identity)
        result = checker.check(_draw(rival.id, "yellow", "c"), subject, {"background": "yellow"})
        assert not result["identity"], subject


def test_another_concept_is_noticed():
    result = checker.check(_draw("banana/noto", "blue", "c"), "automobile/fx", {"background": "blue"})
    assert result["concept"] is False and result["count"] is False


@pytest.mark.parametrize("background", ["yellow", "white", "green dots", "beach", "brick wall", "city"])
def test_a_blank_picture_has_no_identity(background):
    blank = backgrounds.draw(background, scenes.rng_for("blank"), 64).astype(np.uint8)
    for subject in SUBJECTS[:3]:
        result = checker.check(blank, subject, {"background": background})
        assert not result["identity"] and not result["concept"] and not result["count"]
        assert result["background"]


def test_a_blob_of_the_right_colour_has_no_identity():
    for subject in SUBJECTS:
        blob = truth.posed(None, {"id": "blue", "kind": "", "background": "blue"}, "test", blob=subject)
        result = checker.check(blob, subject, {"background": "blue"})
        assert not result["identity"] and not result["concept"], subject


def test_a_blur_of_the_subject_has_no_identity():
    for subject in SUBJECTS[:4]:
        sharp = Image.fromarray(_draw(subject, "blue", "d"))
        blurred = sharp.filter(ImageFilter.GaussianBlur(6))
        result = checker.check(blurred, subject, {"background": "blue"})
        assert not result["identity"], subject


def test_a_little_blur_and_noise_change_nothing():
    for subject in SUBJECTS[:4]:
        soft = np.asarray(Image.fromarray(_draw(subject, "blue", "e")).filter(ImageFilter.GaussianBlur(0.8)))
        noisy = np.clip(soft + scenes.rng_for("noise").normal(0, 6, soft.shape), 0, 255).astype(np.uint8)
        assert checker.check(noisy, subject, {"background": "blue"})["identity"], subject


@pytest.mark.parametrize(("spots", "right"), [([(0.5, 0.5)], True), ([(0.25, 0.5), (0.75, 0.5)], False)])
def test_drawings_of_the_concept_are_counted(spots, right):
    picture = truth.group(["dog/noto"] * len(spots), "blue", "test", spots)
    result = checker.check(picture, "dog/noto", {"background": "blue"})
    assert result["count"] is right and result["found"] == len(spots)


@pytest.mark.parametrize(("relation", "right"), [("left of", True), ("right of", False), ("next to", True)])
def test_relations_are_those_of_the_places(relation, right):
    picture = truth.group(["dog/noto", "banana/noto"], "blue", "test", [(0.25, 0.5), (0.75, 0.5)])
    prompt = {"background": "blue", "other": "banana", "relation": relation}
    result = checker.check(picture, "dog/noto", prompt)
    assert result["relation"] is right and result["count"] is True


def test_what_the_prompt_does_not_name_gets_no_verdict():
    result = checker.check(_draw("dog/noto", "beach", "f"), "dog/noto", {"style": "sepia", "background": "beach"})
    assert result["background"] is None and result["relation"] is None


def test_the_nearest_design_is_always_some_design_of_the_concept():
    blank = np.full((64, 64, 3), 128, np.uint8)
    assert sprites.load().designs[checker.nearest_design(blank, "dog")].concept == "dog"
    assert checker.nearest_design(_draw("dog/noto", "blue", "g"), "dog") == "dog/noto"


LOOKS = ("teal/white/dots/yellow", "purple/-/-/-", "black/orange/stripes/pink", "white/-/rings/red", "-/-/checks/blue")


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("design", ["fox/noto", "penguin/fluent-3d"])
def test_a_painted_look_is_read_back(design, look):
    picture = _draw(looks.looked(design, Look.parse(look)), "light blue", "h")
    found, margins = repainted.read_look(picture, design)
    assert found == Look.parse(look)
    assert min(margins.values()) > 0


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_is_nearest_among_near_misses_in_any_order(look):
    wanted = Look.parse(look)
    among = [wanted, *(other for _, other in looks.near_misses(wanted, True))]
    picture = _draw(looks.looked("fox/noto", wanted), "beach", "i")
    soft = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1.2)))
    for image in (picture, soft):
        assert repainted.nearest_look(image, "fox/noto", among) == 0
        assert repainted.nearest_look(image, "fox/noto", among[::-1]) == len(among) - 1


def test_a_part_is_less_clear_where_a_picture_is_between_two_looks():
    one, other = (_draw(looks.looked("fox/noto", Look(main)), "blue", "j").astype(float) for main in ("red", "teal"))
    share = [repainted.read_look((one * (1 - t) + other * t).astype(np.uint8), "fox/noto") for t in (0.0, 0.15)]
    assert [look.main for look, _ in share] == ["red", "red"]
    assert share[0][1]["main"] > share[1][1]["main"]


FOX = "fox/noto"
WANTED = Look("teal", "white", "dots", "yellow")
BLUE = {"background": "blue"}


def _told(shown: str, prompt: dict = BLUE, asked: str = looks.looked(FOX, WANTED)) -> dict:
    return checker.check(_draw(shown, "blue", "k"), asked, prompt)


def test_a_subject_in_its_look_is_itself():
    result = _told(looks.looked(FOX, WANTED))
    assert result["identity"] and result["drawing"] and result["look"]
    assert result["parts"]["pattern"] == {"wanted": "dots", "found": "dots", "right": True}


@pytest.mark.parametrize(
    ("part", "near"),
    [
        ("main", Look("purple", "white", "dots", "yellow")),
        ("second", Look("teal", "red", "dots", "yellow")),
        ("pattern", Look("teal", "white", "stripes", "yellow")),
        ("mark", Look("teal", "white", "dots", "black")),
    ],
)
def test_a_near_miss_is_wrong_in_its_part_alone(part, near):
    result = _told(looks.looked(FOX, near))
    assert result["concept"] and result["drawing"] and not result["look"] and not result["identity"]
    assert [p for p, told in result["parts"].items() if not told["right"]] == [part]
    assert result["parts"][part]["found"] == getattr(near, part)


def test_another_drawing_in_the_same_look_has_the_look_alone():
    result = _told(looks.looked("fox/twemoji", WANTED))
    assert result["concept"] and not result["drawing"] and not result["identity"]


@pytest.mark.parametrize("shown", [Look("purple"), Look(None, None, "stripes", "white")])
def test_what_is_no_part_of_a_look_must_be_as_drawn(shown):
    assert _told(FOX, asked=FOX)["identity"]
    result = _told(looks.looked(FOX, shown), asked=FOX)
    assert result["drawing"] and not result["look"] and not result["identity"]
    assert result["parts"] == dict.fromkeys(looks.PARTS)


@pytest.mark.parametrize(("main", "follows"), [("purple", "word"), ("teal", "picture"), ("brown", "neither")])
def test_a_part_that_the_prompt_says_otherwise_follows_word_or_picture(main, follows):
    shown = looks.looked(FOX, Look(main, "white", "dots", "yellow"))
    result = _told(shown, {**BLUE, "says": {"main": "purple"}})
    assert result["parts"]["main"]["follows"] == follows and result["parts"]["main"]["said"] == "purple"
    assert result["identity"]  # what the prompt says is no matter of identity


def test_a_pattern_that_only_the_prompt_says_has_a_part_of_its_own():
    says = {**BLUE, "says": {"pattern": "stripes", "mark": "white"}}
    asked = looks.looked(FOX, Look("purple"))
    plain, striped = (
        _told(looks.looked(FOX, look), says, asked)
        for look in (Look("purple"), Look("purple", None, "stripes", "white"))
    )
    assert [plain["parts"][part]["follows"] for part in ("pattern", "mark")] == ["picture", "picture"]
    assert [striped["parts"][part]["follows"] for part in ("pattern", "mark")] == ["word", "word"]
    assert plain["identity"] and striped["identity"] and plain["parts"]["second"] is None


TEAL, PURPLE = looks.looked(FOX, WANTED), looks.looked(FOX, Look("purple", "pink"))
PENGUIN = "penguin/fluent-3d#red/-/stripes/white"
LEFT = {"background": "light blue", "relation": "left of"}


def _pair(shown: list[str], asked: list[str], prompt: dict = LEFT) -> dict:
    spots = [(0.27, 0.5), (0.73, 0.5)][: len(shown)]
    return pairs.check_pair(truth.group(shown, "light blue", "test", spots), asked, prompt)


def _labels(result: dict) -> list[str]:
    return [subject["label"] for subject in result["subjects"]]


@pytest.mark.parametrize(
    ("shown", "labels", "order"),
    [
        ([TEAL, PURPLE], ["right", "right"], True),
        ([PURPLE, TEAL], ["swap", "swap"], False),
        ([TEAL, TEAL], ["right", "dominance"], True),
        ([looks.looked(FOX, Look("teal", "pink", "dots", "yellow")), PURPLE], ["blending", "right"], True),
        ([looks.looked(FOX, Look("black", "white", "dots", "yellow")), PURPLE], ["drift", "right"], True),
        ([PURPLE], ["missing", "right"], False),
    ],
)
def test_what_became_of_two_of_one_class(shown, labels, order):
    result = _pair(shown, [TEAL, PURPLE])
    assert _labels(result) == labels and result["order"] is order and result["background"]


@pytest.mark.parametrize(
    ("shown", "labels", "order"),
    [
        ([TEAL, PENGUIN], ["right", "right"], True),
        ([PENGUIN, TEAL], ["right", "right"], False),
        (["fox/noto#red/-/stripes/white", "penguin/fluent-3d#teal/white/dots/yellow"], ["swap", "swap"], True),
        ([TEAL, "penguin/fluent-3d#teal/white/dots/yellow"], ["right", "dominance"], True),
        ([TEAL, TEAL], ["right", "dominance"], False),
        ([PENGUIN], ["missing", "right"], False),
    ],
)
def test_what_became_of_two_of_different_classes(shown, labels, order):
    result = _pair(shown, [TEAL, PENGUIN])
    assert _labels(result) == labels and result["order"] is order


def test_blending_names_the_part_that_is_the_others():
    blended, whole = _pair(["fox/noto#red/white/dots/yellow", PENGUIN], [TEAL, PENGUIN])["subjects"]
    assert [part for part, told in blended["parts"].items() if told["other"]] == ["main"]
    assert not any(told["other"] for told in whole["parts"].values())
    assert blended["box"][2] < whole["box"][0]


@pytest.mark.parametrize("shown", [[TEAL, PURPLE], [looks.looked(FOX, Look("teal", "pink", "dots", "yellow")), PURPLE]])
def test_the_order_of_a_pair_only_exchanges_its_verdicts(shown):
    one = _pair(shown, [TEAL, PURPLE])
    two = _pair(shown, [PURPLE, TEAL], {**LEFT, "relation": "right of"})
    assert one["subjects"] == two["subjects"][::-1] and one["order"] == two["order"]
