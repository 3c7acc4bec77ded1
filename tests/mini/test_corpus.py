"""mini-LAION: LAION's layout, LAION's dirt, and a truth that the miner's files do not contain."""

import io
import json
import tarfile
from collections import Counter

import pyarrow.parquet as pq
import pytest
from PIL import Image

from umm_bench.mini.world import corpus, looks, scenes, sprites, suite
from umm_bench.mini.world.looks import Look


def test_layout_and_truth(tmp_path):
    folder = corpus.build(tmp_path / "laion", 130)
    truth = {row["key"]: row for row in pq.read_table(folder / "truth" / "truth.parquet").to_pylist()}
    assert len(truth) == 130 and sorted(p.name for p in folder.glob("*.tar")) == ["00000.tar", "00001.tar"]
    assert pq.read_table(folder / "urls.parquet").column_names == ["URL", "TEXT", "NSFW", "similarity", "LICENSE"]
    with tarfile.open(folder / "00000.tar") as tar:
        names = tar.getnames()
        for key in sorted({name.split(".")[0] for name in names}):
            image, meta = tar.extractfile(f"{key}.jpg").read(), json.loads(tar.extractfile(f"{key}.json").read())
            assert meta["key"] == key and "dirt" not in meta and "objects" not in meta
            if truth[key]["dirt"] in ("truncated", "corrupt", "empty_image"):
                with pytest.raises((OSError, SyntaxError)):
                    Image.open(io.BytesIO(image)).load()
            else:
                assert Image.open(io.BytesIO(image)).size == (corpus.PIXELS, corpus.PIXELS)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    a, b = corpus.build(tmp_path / "a", 20), corpus.build(tmp_path / "b", 20)
    assert (a / "00000.tar").read_bytes() == (b / "00000.tar").read_bytes()
    c = corpus.build(tmp_path / "c", 20, seed=1)
    assert (a / "00000.tar").read_bytes() != (c / "00000.tar").read_bytes()


def in_the_middle(scene):
    """Whether its first sprite is alone there and large."""
    x0, y0, x1, y1 = scene.objects[0].box
    return len(scene.objects) == 1 and abs(x0 + x1 - 1) < 0.1 and abs(y0 + y1 - 1) < 0.1 and max(x1 - x0, y1 - y0) > 0.6


def test_a_varied_corpus_has_the_same_concepts_large_in_the_middle_and_in_more_looks(tmp_path):
    centred, looked, said = [0, 0], [0, 0], [0, 0]
    for i in range(60):
        for k, varied in enumerate((False, True)):
            scene = corpus.row(i, varied=varied).scene
            things = [o for o in scene.objects if o.design]
            worn = [(o, Look.parse(o.look)) for o in things if o.look]
            centred[k] += in_the_middle(scene)
            looked[k] += len(worn)
            said[k] += sum(look.describe(o.concept) in o.phrase for o, look in worn)
    assert centred[1] > 1.3 * centred[0] and looked[1] > 2 * looked[0] > 10
    assert all(0.6 * worn < told < worn for worn, told in zip(looked, said, strict=True))
    corpus.build(tmp_path / "a", 2, varied=True)
    corpus.build(tmp_path / "b", 2)
    kept = [json.loads((tmp_path / name / "corpus.json").read_text())["varied"] for name in "ab"]
    assert kept == [True, False]
    written = [(tmp_path / name / "00000.tar").read_bytes() for name in "ab"]
    assert written[0] != written[1]


def test_dirt_comes_at_its_rate():
    kinds = [corpus.row(i).dirt for i in range(600)]
    wrong = kinds.count("wrong_caption") / len(kinds)
    assert abs(wrong - corpus.DIRT["wrong_caption"]) < 0.03
    assert set(corpus.DIRT) - set(kinds) <= {"empty_image"}


def test_a_wrong_look_names_the_right_thing_in_other_colours():
    rows = [row for row in map(corpus.row, range(900)) if row.dirt == "wrong_look"]
    assert len(rows) > 10
    for row in rows:
        (thing,) = [o for o in row.scene.objects if o.design]
        look, caption = Look.parse(thing.look), row.caption.decode()
        assert thing.concept in caption and thing.phrase not in caption and not row.named
        assert not set(caption.split()) & ({look.main, look.second, look.mark} - {None}) - set(
            row.scene.background.phrase.split()
        )


def test_the_suite_holds_subjects_that_are_new_as_their_strata_say(tmp_path):
    world = sprites.load()
    folder = suite.build(tmp_path / "suite")
    subjects, _, prompts = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("subjects", "pairs", "prompts")
    )
    alone = [subject for subject in subjects if subject["stratum"] != "pair"]
    assert len(alone) >= 24 and len({subject["id"] for subject in subjects}) == len(subjects)
    assert Counter((s["stratum"], s["frequency"]) for s in alone) == Counter(suite.STRATA)
    assert len({(s["stratum"], s["frequency"]) for s in alone[:4]}) >= 3, "the first four are of several strata"
    for subject in subjects:
        design_id, look = looks.split_id(subject["design"])
        design = world.designs[design_id]
        if subject["stratum"] == "drawing":
            assert look is None and design.split == "held_out"
        else:
            assert design == scenes.usual(subject["class_noun"])
            assert (look is None) == (subject["stratum"] == "usual")
            assert look is None or looks.held_out(design.concept, look)
        assert subject["seen"] == (subject["frequency"] != "never")
        assert len(list((folder / subject["id"]).glob("*.png"))) == suite.REFERENCES
    kinds = {"recontextualise", "accessorise", "property", "style", "two_subjects", "two_references"}
    assert {prompt["kind"] for prompt in prompts} == kinds
    for prompt in prompts:
        names = ["{subject_1}", "{subject_2}"] if prompt["kind"] == "two_references" else ["{subject}"]
        assert all(prompt["template"].count(name) == 1 for name in names)


def test_pairs_are_crossed_by_class_and_colour_and_each_comes_on_either_side(tmp_path):
    made, partners = suite.pairs()
    entries = {entry["id"]: entry for entry in [*suite.subjects(), *partners]}
    assert len(made) >= 16 and len({pair["id"] for pair in made}) == len(made)
    assert Counter((p["classes"], p["colors"]) for p in made) == Counter(suite.PAIRS)
    for pair in made:
        a, b = (entries[subject] for subject in pair["subjects"])
        one, other = (looks.split_id(entry["design"])[1] for entry in (a, b))
        assert (a["class_noun"] == b["class_noun"]) == (pair["classes"] == "one class")
        colors = [{look.main, look.second, look.mark} - {None} for look in (one, other)]
        assert one.main == other.main if pair["colors"] == "like" else not colors[0] & colors[1]
        assert one.pattern != other.pattern
    partnered = {entry["id"] for entry in partners}
    assert 4 < sum(pair["subjects"][0] in partnered for pair in made) < len(made) - 4
