"""Suites from folders: what is read, what is left out and why, and what is one clear error."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from umm_bench.errors import UserError
from umm_bench.methods import Case, Subject
from umm_bench.suites import __main__ as suites
from umm_bench.suites import new
from umm_bench.suites.custom_concept_101 import CustomConcept101
from umm_bench.suites.dreambench import DreamBench
from umm_bench.suites.dreambench_plus import DreamBenchPlus
from umm_bench.suites.folder import FolderSuite
from umm_bench.suites.pairs import KINDS, kind_of, seeded_pairs

DATA = Path(__file__).parents[3] / "shared" / "data"
LISTING = """\ufeffClasses

subject_name,class
my-mug,mug
rex 2,dog
"shirt, blue",t-shirt

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the jungle'.format(unique_token, class_token),
'a {0} {1} in a chef's kitchen'.format(unique_token, class_token),
"a {0} {1} on a sailor's chest".format(unique_token, class_token),
'a {0} {1} on a \\'red\\' rug',
'a tie-dyed {0} {1}'.format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} in the jungle'.format(unique_token, class_token),
'a {0} {1} wearing a "top" hat'.format(unique_token, class_token),
]
"""


def picture(path: Path, color: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), color).save(path, format="JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG")
    return path


def single(subject: Subject) -> Case:
    return Case((subject,))


@pytest.fixture
def dreambench(tmp_path) -> Path:
    (tmp_path / "prompts_and_classes.txt").write_text(LISTING, encoding="utf-8")
    for name in ("my-mug", "rex 2", "shirt, blue"):
        for file in ("00.JPG", "01.Png"):
            picture(tmp_path / name / file)
    (tmp_path / "my-mug" / "._00.JPG").write_bytes(b"Mac OS X")
    (tmp_path / "my-mug" / "02.heic").write_bytes(b"ftypheic")
    return tmp_path


def test_dreambench_reads_names_classes_prompts_and_pictures_as_people_write_them(dreambench):
    suite = DreamBench(dreambench)
    subjects = {subject.id: subject for subject in suite.subjects()}
    assert {name: (s.class_noun, s.kind) for name, s in subjects.items()} == {
        "my-mug": ("mug", "object"), "rex 2": ("dog", "live"), "shirt, blue": ("t-shirt", "object"),
    }  # fmt: skip
    assert [path.name for path in subjects["my-mug"].references] == ["00.JPG", "01.Png"]
    prompts = [(p.template, p.kind) for p in suite.prompts(single(subjects["my-mug"]))]
    assert prompts == [
        ("a {subject} in the jungle", "recontextualise"), ("a {subject} in a chef's kitchen", "recontextualise"),
        ("a {subject} on a sailor's chest", "recontextualise"), ("a {subject} on a 'red' rug", "recontextualise"),
        ("a tie-dyed {subject}", "property"),
    ]  # fmt: skip
    assert suite.prompts(single(subjects["rex 2"]))[1].template == 'a {subject} wearing a "top" hat'
    assert suite.omitted == [f"{dreambench / 'my-mug'}: 1 file is no picture that can be read: 02.heic"]


def test_dreambench_pairs_are_drawn_where_both_may_be(dreambench):
    suite = DreamBench(dreambench)
    by_kind = {kind_of(pair): [p.template for p in suite.prompts(pair)] for pair in suite.pairs()}
    assert by_kind["live-object"] == ["a {subject_1} and a {subject_2} in the jungle"]
    assert by_kind["object-object"][1] == "a {subject_1} next to a {subject_2} in a chef's kitchen"
    assert len(by_kind["object-object"]) == 4


@pytest.mark.parametrize(
    ("old", "line", "says"),
    [
        ("my-mug,mug", "my-mug;mug", "line 4: expected SUBJECT,CLASS: my-mug;mug"),
        ("my-mug,mug", "../mug,mug", "line 4: '../mug' is no folder's name"),
        ("my-mug,mug", "rex 2,dog", "line 5: subject 'rex 2' was there before"),
        ("'a tie-dyed {0} {1}'", "'a tie-dyed {0}'", "line 17: "),
        ("'a tie-dyed {0} {1}'.f", "a tie-dyed {0} {1}.f", "line 17: expected"),
        ("'a tie-dyed {0} {1}'", "'a {0} {1} and {0} {1}'", "line 17: "),
        ("'a tie-dyed {0} {1}'", "'a {0} {1} as {1}'", "line 17: a {0} or {1} by itself"),
        ("Classes\n", "Subjects\n", "line 1: not under Classes"),
        ("Live Subject Prompts", "Live Prompts", "line 20: expected"),
    ],
)
def test_a_line_of_dreambenchs_list_that_cannot_be_read_is_named(dreambench, old, line, says):
    assert old in LISTING
    (dreambench / "prompts_and_classes.txt").write_text(LISTING.replace(old, line), encoding="utf-8")
    with pytest.raises(UserError) as error:
        DreamBench(dreambench)
    assert says in str(error.value) and str(dreambench / "prompts_and_classes.txt") in str(error.value)


def test_seeded_pairs_cover_the_kinds_and_stay_when_a_subject_is_added():
    def subjects(number: int) -> list[Subject]:
        kinds = [("cup", "object"), ("dog", "live"), ("can", "object"), ("cat", "live"), ("cup", "object")]
        return [Subject(f"s{i}", *(kinds[i % 5][0], ()), kind=kinds[i % 5][1]) for i in range(number)]

    pairs = seeded_pairs("x", subjects(10))
    assert len(pairs) == len({frozenset(s.id for s in pair.subjects) for pair in pairs}) == 45
    assert [kind_of(pair) for pair in pairs[:8]] == [*KINDS, *KINDS]
    assert pairs == seeded_pairs("x", subjects(10)) != seeded_pairs("y", subjects(10))
    more = [pair for pair in seeded_pairs("x", subjects(11)) if "s10" not in pair.id.split("+")]
    assert Counter(pair.id for pair in more) == Counter(pair.id for pair in pairs)
    for kind in KINDS:
        assert [p for p in more if kind_of(p) == kind] == [p for p in pairs if kind_of(p) == kind]


@pytest.mark.skipif(not (DATA / "dreambench").is_dir(), reason="no copy of DreamBench beside the project")
def test_dreambenchs_own_pairs():
    suite = DreamBench(DATA / "dreambench")
    pairs = suite.pairs()
    assert len(pairs) == 435 and suite.omitted == []
    assert [pair.id for pair in pairs[:4]] == [
        "vase+rc_car", "cat+dog6", "rc_car+dog5", "grey_sloth_plushie+bear_plushie"
    ]  # fmt: skip
    assert [len(suite.prompts(pair)) for pair in pairs[:4]] == [20, 10, 10, 20]


@pytest.fixture
def concepts(tmp_path) -> Path:
    """Two concepts and their pair in the published layout."""
    entries = [
        {"instance_prompt": f"photo of a <new{i}> {noun}", "class_prompt": noun,
         "prompt_filename": f"prompts/{noun}.txt", "instance_data_dir": f"./benchmark_dataset/{name}"}
        for i, (name, noun) in enumerate((("pet_cat5", "cat"), ("woodenpot", "wooden pot")), start=1)
    ]  # fmt: skip
    pair = [*entries, {"prompt_filename_compose": "prompts/woodenpot_pet.txt"}]
    (tmp_path / "dataset.json").write_text(json.dumps(entries))
    (tmp_path / "dataset_multiconcept.json").write_text(json.dumps([pair]))
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/cat.txt").write_text("photo of a {}.\n{} oil painting ghibli inspired. \nA {} wearing a hat")
    (tmp_path / "prompts/wooden pot.txt").write_text("{} in snowy ice.\na beige colored {}.")
    (tmp_path / "prompts/woodenpot_pet.txt").write_text("the {1} is in the {0}.\n{0} and {0} at dawn.\n")
    for name in ("pet_cat5", "woodenpot"):
        for index in range(3):
            picture(tmp_path / "benchmark_dataset" / name / f"{index}.jpg")
    return tmp_path


def test_custom_concept_101_is_read_from_its_lists(concepts):
    suite = CustomConcept101(concepts)
    cat, pot = suite.subjects()
    assert (cat.id, cat.class_noun, cat.kind, len(cat.references)) == ("pet_cat5", "cat", "live", 3)
    kinds = {p.template: p.kind for s in (cat, pot) for p in suite.prompts(single(s))}
    assert kinds == {
        "photo of a {subject}.": "recontextualise", "{subject} oil painting ghibli inspired.": "style",
        "A {subject} wearing a hat": "accessorise", "{subject} in snowy ice.": "recontextualise",
        "a beige colored {subject}.": "property",
    }  # fmt: skip
    (pair,) = suite.pairs()
    (prompt,) = suite.prompts(pair)
    assert pair.id == "pet_cat5+woodenpot"
    assert prompt.text(pair.class_nouns) == "the wooden pot is in the cat." and prompt.kind == "two_references"
    slip = (
        f"{concepts / 'prompts/woodenpot_pet.txt'}, line 2: does not name each concept once: {{0}} and {{0}} at dawn."
    )
    assert suite.omitted == [slip]


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("dataset.json", lambda d: d[0].pop("class_prompt"), r"entry 1: 'class_prompt' is missing"),
        ("dataset.json", lambda d: d.append(d[0]), "entry 3: 'pet_cat5' was there before"),
        ("dataset_multiconcept.json", lambda d: d[0].__setitem__(1, d[0][0]), "entry 1: .*'pet_cat5' more than once"),
        ("dataset_multiconcept.json", lambda d: d[0].pop(), "entry 1: "),
    ],
)
def test_a_broken_list_of_concepts_is_one_line(concepts, file, change, says):
    told = json.loads((concepts / file).read_text())
    change(told)
    (concepts / file).write_text(json.dumps(told))
    with pytest.raises(UserError, match=says):
        CustomConcept101(concepts)


@pytest.mark.skipif(
    not (DATA / "custom_concept_101").is_dir(), reason="no lists of CustomConcept101 beside the project"
)
def test_custom_concept_101s_published_lists():
    suite = CustomConcept101(DATA / "custom_concept_101")
    assert len(suite.subjects()) == len(suite.pairs()) == 101
    assert {len(suite.prompts(single(subject))) for subject in suite.subjects()} == {20}
    assert {len(suite.prompts(pair)) for pair in suite.pairs()} == {11, 12}
    (slip,) = suite.omitted
    assert "scene_pet.txt, line 5" in slip


def test_dreambench_plus_is_read_from_its_published_layout(tmp_path):
    captions = ["A {} on a rock", "a watercolor of a kitten", "Two cats", "kitten, and a kitten", *["a kitten"] * 5]
    for category in ("live_subject/animal", "style"):
        picture(tmp_path / "images" / category / "00.jpg")
        (tmp_path / "captions" / category).mkdir(parents=True)
        text = "\n".join(["Kitten", *captions]).format("kitten")
        (tmp_path / "captions" / category / "00.txt").write_text(text + "\n")
    picture(tmp_path / "images/object/07.jpg")
    (tmp_path / "captions/style/03.txt").write_text("Ink\na drawing in ink")
    suite = DreamBenchPlus(tmp_path)
    animal, style = suite.subjects()
    assert (animal.id, animal.kind, animal.class_noun) == ("live_subject_animal_00_kitten", "live", "Kitten")
    assert (style.id, style.kind) == ("style_00_kitten", "style")
    prompts = suite.prompts(single(animal))
    assert [p.id for p in prompts] == [f"caption-{i}" for i in (0, 1, 3, 4, 5, 6, 7, 8)]
    assert prompts[2].template == "{subject}, and a kitten" and prompts[3].kind == "style"
    reasons = sorted(line.partition(": ")[2] for line in suite.omitted)
    assert reasons == ["'Kitten' is not in it: Two cats"] * 2 + ["it has no captions", "it has no picture"]


def test_new_writes_a_suite_that_can_be_run(tmp_path, capsys):
    for name in ("my-mug", "rex 2", 'the "red" one'):
        picture(tmp_path / name / "a.PNG")
    (tmp_path / "empty").mkdir()
    assert new.main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"left out, as no picture is in it: {tmp_path / 'empty'}" in said
    suite = FolderSuite(tmp_path)
    assert {s.id: s.class_noun for s in suite.subjects()} == {"my-mug": "mug", "rex 2": "rex", 'the "red" one': "one"}
    assert [pair.id for pair in suite.pairs()] == ["my-mug+rex 2"]
    assert len(suite.prompts(single(suite.subjects()[0]))) == 5 and len(suite.prompts(suite.pairs()[0])) == 1
    written = (tmp_path / "suite.toml").read_bytes()
    assert new.main([str(tmp_path)]) == 2 and "is there already" in capsys.readouterr().err
    assert (tmp_path / "suite.toml").read_bytes() == written


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: None, "nothing was found"),
        (lambda folder: picture(folder / "a.png"), "a folder of its own"),
        (lambda folder: os.rmdir(folder), "is no folder"),
    ],
)
def test_new_without_folders_of_pictures_is_one_line(tmp_path, capsys, make, says):
    folder = tmp_path / "mine"
    folder.mkdir()
    make(folder)
    assert new.main([str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says in error


OWN = """
[subjects.mug]
class_noun = "mug"
[subjects.rex]
class_noun = "dog"
kind = "live"
[[prompts]]
id = "beach"
template = "a {subject} on a beach"
[[pairs]]
subjects = ["mug", "rex"]
"""


@pytest.mark.parametrize(
    ("old", "line", "says"),
    [
        ('"mug", "rex"', '"mug", "mug"', "pair 1: a case has subject 'mug' more than once"),
        ('"mug", "rex"', '"mug", "rix"', "pair 1: there is no subject 'rix' (did you mean 'rex'?)"),
        ('"mug", "rex"', '"mug"', "pair 1: expected subjects"),
        ('class_noun = "dog"', 'class_nuon = "dog"', "unknown key 'class_nuon' (did you mean 'class_noun'?)"),
        ('class_noun = "dog"', "class_noun = 1", "subject 'rex': class_noun must be text"),
        ('"live"', '"life"', "kind is 'life' (did you mean 'live'?)"),
        ("{subject} on", "subject on", "prompt 1: prompt 'beach' must hold"),
        ("[subjects.mug]", "[subjects.mag]", "subject 'mag': there is no such folder"),
        ("[[prompts]]", "[[prompt]]", "unknown key 'prompt' (did you mean 'prompts'?)"),
        ("[subjects.mug]", "[subjects.mug", "suite.toml cannot be read"),
    ],
)
def test_a_broken_suite_toml_is_one_line(tmp_path, capsys, old, line, says):
    for name in ("mug", "rex"):
        picture(tmp_path / name / "a.png")
    (tmp_path / "suite.toml").write_text(OWN)
    assert suites.main(["show", "folder", "--suite-path", str(tmp_path)]) == 0
    capsys.readouterr()
    assert old in OWN
    (tmp_path / "suite.toml").write_text(OWN.replace(old, line))
    assert suites.main(["show", "folder", "--suite-path", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says in error


def test_a_suite_is_printed_as_data(tmp_path, capsys):
    for name in ("mug", "rex", "other"):
        picture(tmp_path / name / "a.png")
    (tmp_path / "suite.toml").write_text(OWN)
    assert suites.main(["show", "folder", "--suite-path", str(tmp_path)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [s["id"] for s in shown["subjects"]] == ["mug", "rex"] and shown["pairs"][0]["subjects"] == ["mug", "rex"]
    assert shown["subjects"][0]["prompts"] == [
        {"id": "beach", "template": "a {subject} on a beach", "kind": "recontextualise"}
    ]
    assert shown["omitted"] == [f"{tmp_path / 'other'}: its pictures are not used, suite.toml does not name it"]
    assert suites.main(["list"]) == 0
    names = [line.split("/")[0] for line in capsys.readouterr().out.splitlines()]
    assert {"custom_concept_101", "dreambench", "dreambench_plus", "folder", "mini"} <= set(names)
    assert suites.main(["show", "foldr"]) == 2
    assert "did you mean 'folder'" in capsys.readouterr().err
