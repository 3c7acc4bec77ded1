"""mini-LAION: LAION's layout, LAION's dirt, and a truth that the miner's files do not contain."""

import io
import json
import tarfile

import pyarrow.parquet as pq
import pytest
from PIL import Image

from umm_bench.mini.world import corpus, scenes, sprites, suite


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


def other_colors(scene):
    """The sprites said to have a colour that their design does not have."""
    designs = sprites.load().designs
    things = [o for o in scene.objects if o.design]
    return sum(bool(set(o.phrase.split()) & set(scenes.RECOLORS) - set(designs[o.design].colors)) for o in things)


def in_the_middle(scene):
    """Whether its first sprite is alone there and large."""
    x0, y0, x1, y1 = scene.objects[0].box
    return len(scene.objects) == 1 and abs(x0 + x1 - 1) < 0.1 and abs(y0 + y1 - 1) < 0.1 and max(x1 - x0, y1 - y0) > 0.6


def test_a_varied_corpus_has_the_same_drawings_large_in_the_middle_and_in_other_colors(tmp_path):
    centred, recolored = [0, 0], [0, 0]
    for i in range(60):
        plain, varied = corpus.row(i).scene, corpus.row(i, varied=True).scene
        assert [o.design for o in varied.objects if o.design] == [o.design for o in plain.objects if o.design]
        recolored = [recolored[0] + other_colors(plain), recolored[1] + other_colors(varied)]
        centred = [centred[0] + in_the_middle(plain), centred[1] + in_the_middle(varied)]
    assert centred[1] > 1.3 * centred[0] and recolored[1] > 2 * recolored[0]
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


def test_the_suite_holds_subjects_that_no_training_saw(tmp_path):
    from umm_bench.mini.world import sprites

    folder = suite.build(tmp_path / "suite")
    subjects = json.loads((folder / "subjects.json").read_text())
    prompts = json.loads((folder / "prompts.json").read_text())
    assert len(subjects) >= 20
    assert {p["kind"] for p in prompts} == {"recontextualise", "accessorise", "property", "style", "two_subjects"}
    for subject in subjects:
        assert sprites.load().designs[subject["design"]].split == "held_out"
        assert len(list((folder / subject["id"]).glob("*.png"))) == suite.REFERENCES
    assert all(prompt["template"].count("{subject}") == 1 for prompt in prompts)
