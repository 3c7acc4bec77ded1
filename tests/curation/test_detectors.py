"""Every family of detectors behind the one interface, each on a small random configuration."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from curation import BuildConfig, UserError, build_pairs
from curation.build import main
from curation.grounding import load_grounder, with_threshold
from curation.vision.crops import pixel_edges
from tests.curation.conftest import picture
from tests.curation.detectors import MAKERS, SIDE

# Random weights score everything: a low threshold keeps many boxes to compare.
CONFIG = BuildConfig(device="cpu", box_threshold=0.0, batch_size=4)
# A phrase of these is scored by itself.
INDEPENDENT = ("owlvit", "owlv2", "sam3")
IMAGES = [picture(1), picture(2, 64, 96), picture(3, 70, 70), picture(4, 128, 64), picture(5)]
PHRASES = [["a fox"], ["a dog", "a car"], ["a"], ["a fox", "a car", "a dog"], ["a tall bottle", "a fox"]]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory):
    import torch

    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            torch.manual_seed(0)
            made[family] = MAKERS[family](tmp_path_factory.mktemp(family))
        return made[family]

    return get


@pytest.fixture(scope="module")
def grounders(checkpoints):
    made = {}

    def get(family: str):
        if family not in made:
            try:
                made[family] = load_grounder(CONFIG, str(checkpoints(family)))
            except UserError as error:
                if "needs torchvision" in str(error):
                    pytest.skip(str(error))
                raise
        return made[family]

    return get


def values(boxes):
    return [(b.x0, b.y0, b.x1, b.y1, b.score) for b in boxes]


def assert_alike(boxes, others):
    """The same values, in whichever order those of nearly equal scores come."""
    left = list(others)
    assert len(boxes) == len(left) > 0
    for box in boxes:
        left.remove(next(other for other in left if box == pytest.approx(other, abs=1e-4)))


def assert_same(row, other):
    for phrase, same in zip(row, other, strict=True):
        assert_alike(values(phrase), values(same))


@pytest.mark.parametrize("family", MAKERS)
def test_a_rows_boxes_do_not_depend_on_its_batch_mates(family: str, grounders):
    grounder = grounders(family)
    together = grounder.ground(IMAGES, PHRASES)
    for image, phrases, row in zip(IMAGES, PHRASES, together, strict=True):
        assert_same(row, grounder.ground([image], [phrases])[0])
    (fox,), (car,) = grounder.ground([IMAGES[0], IMAGES[3]], [["a fox"], ["a fox"]])
    assert values(fox) != values(car)  # the picture matters
    one, other = grounder.ground([IMAGES[0]], [["a fox", "a yellow car"]])[0]
    assert [b.score for b in one] != [b.score for b in other]  # and so does the phrase


@pytest.mark.parametrize("family", INDEPENDENT)
def test_a_phrases_boxes_do_not_depend_on_the_other_phrases(family: str, grounders):
    grounder = grounders(family)
    alone = [grounder.ground([IMAGES[3]], [[phrase]])[0][0] for phrase in PHRASES[3]]
    assert_same(grounder.ground([IMAGES[3]], [PHRASES[3]])[0], alone)


@pytest.mark.parametrize("family", MAKERS)
def test_boxes_are_in_the_picture_best_first_and_what_cannot_be_asked_has_none(family: str, grounders):
    grounder = grounders(family)
    nothing, (blank, long, fox) = grounder.ground(IMAGES[:2], [[], ["  ", "z" * 90, "a fox"]])
    assert (nothing, blank, long) == ([], [], []) and fox
    scores = [box.score for box in fox]
    assert scores == sorted(scores, reverse=True) and 0 <= scores[-1] <= scores[0] <= 1
    assert all(0 <= b.x0 <= b.x1 <= 1 and 0 <= b.y0 <= b.y1 <= 1 for b in fox)


@pytest.mark.parametrize("family", MAKERS)
def test_the_threshold_is_the_families_own_unless_it_is_given(family: str, checkpoints, grounders):
    published = {"owlvit": 0.1, "owlv2": 0.1, "omdet-turbo": 0.3, "mm-grounding-dino": 0.25, "sam3": 0.5}
    assert with_threshold(BuildConfig(), str(checkpoints(family))).box_threshold == published[family]
    middle = sorted(box.score for row in grounders(family).ground(IMAGES, PHRASES) for phrase in row for box in phrase)
    cut = (middle[len(middle) // 2] + middle[len(middle) // 2 - 1]) / 2
    strict = load_grounder(BuildConfig(device="cpu", box_threshold=cut), str(checkpoints(family)))
    kept = [b.score for row in strict.ground(IMAGES, PHRASES) for phrase in row for b in phrase]
    assert kept and all(score >= cut for score in kept) and len(kept) < len(middle)


def test_owls_boxes_are_those_of_the_librarys_post_processing(grounders):
    """Also of a picture that is no square, which OWLv2 pads and OWL-ViT stretches."""
    import torch

    image = IMAGES[3]
    for family in ("owlvit", "owlv2"):
        grounder = grounders(family)
        processor = grounder._processor
        texts = [["a photo of a fox"]]
        inputs = processor(text=texts, images=image, return_tensors="pt", max_length=16)
        with torch.no_grad():
            outputs = grounder._model(**inputs)
        (expected,) = processor.post_process_grounded_object_detection(
            outputs, threshold=-1.0, target_sizes=[(image.height, image.width)]
        )
        edges = expected["boxes"] / torch.tensor([image.width, image.height] * 2)
        scored = zip(edges, expected["scores"], strict=True)
        wanted = [(*edge.clamp(0, 1).tolist(), float(score)) for edge, score in scored]
        found = values(grounder.ground([image], [["a fox"]])[0][0])
        assert len(found) == (SIDE // 16) ** 2
        assert_alike(found, wanted)


def test_omdets_boxes_are_those_of_the_model_on_its_own_inputs(grounders):
    import torch

    grounder, image, phrases = grounders("omdet-turbo"), IMAGES[1], ["a fox", "a car"]
    tokens = {"padding": "max_length", "max_length": 40, "return_tensors": "pt"}
    classes = grounder._tokenizer(phrases, **tokens)
    tasks = grounder._tokenizer(["Detect a fox, a car."], **tokens)
    pixels = grounder._image_processor(images=[image], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        outputs = grounder._model(
            pixel_values=pixels,
            classes_input_ids=classes["input_ids"],
            classes_attention_mask=classes["attention_mask"],
            tasks_input_ids=tasks["input_ids"],
            tasks_attention_mask=tasks["attention_mask"],
            classes_structure=torch.tensor([2]),
        )
    for index, boxes in enumerate(grounder.ground([image], [phrases])[0]):
        scores = outputs.decoder_class_logits[0, :, index].sigmoid()
        assert [box.score for box in boxes] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-4)


def test_omdet_asks_in_several_tasks_where_one_is_too_long(grounders):
    phrases = [f"a fox and a dog {i}" for i in range(8)]
    (row,) = grounders("omdet-turbo").ground([IMAGES[0]], [phrases])
    assert len(row) == 8 and all(row)


def test_sam3_multiplies_by_presence_and_gives_masks_of_the_crops_size(grounders):
    import torch

    grounder, image = grounders("sam3"), IMAGES[3]
    (boxes,) = grounder.ground([image], [["a fox"]])[0]
    pixels = torch.tensor(list(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR).tobytes()))
    pixels_BCHW = (pixels.view(1, SIDE, SIDE, 3).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    text = grounder._tokenizer("a fox", padding="max_length", max_length=32, return_tensors="pt")
    with torch.no_grad():
        outputs = grounder._model(
            pixel_values=pixels_BCHW, input_ids=text["input_ids"], attention_mask=text["attention_mask"]
        )
    presence = float(outputs.presence_logits.sigmoid())
    assert 0.001 < presence < 0.999  # so that leaving it out would show
    scores = outputs.pred_logits[0].sigmoid() * presence
    assert [box.score for box in boxes] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-3)
    shown = [box for box in boxes if box.mask]
    assert shown
    for box in shown:
        with Image.open(io.BytesIO(box.mask)) as mask:
            left, top, right, bottom = pixel_edges(box, *image.size)
            assert mask.mode == "L" and mask.size == (right - left, bottom - top)
            assert set(mask.tobytes()) <= {0, 255}


def test_out_of_memory_halves_the_batch_of_any_family(grounders, monkeypatch):
    import torch

    for family in ("owlv2", "omdet-turbo", "sam3"):
        grounder = grounders(family)
        expected = grounder.ground([IMAGES[0]] * 3, [["a fox", "a car"]] * 3)
        asked, detect = [], grounder._detect

        def small(jobs, asked=asked, detect=detect):
            asked.append(len(jobs))
            if len(jobs) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return detect(jobs)

        monkeypatch.setattr(grounder, "_detect", small)
        monkeypatch.setattr(grounder, "_batch_size", 4)
        found = grounder.ground([IMAGES[0]] * 3, [["a fox", "a car"]] * 3)
        assert max(asked) > 1 and asked[-1] == 1
        for row, same in zip(found, expected, strict=True):
            assert_same(row, same)


def test_a_build_with_another_family_pairs_and_keeps_its_masks(corpus: Path, tmp_path: Path, checkpoints):
    import pyarrow.parquet as pq

    for family in ("owlv2", "sam3"):
        out = tmp_path / family
        config = BuildConfig(
            input=str(corpus),
            output=str(out),
            detector=str(checkpoints(family)),
            device="cpu",
            box_threshold=0.001,
            max_instances=99,
            limit=4,
            max_box_area=1.0,
            min_box_area=0.0,
            max_box_aspect=99,
            min_crop_side=1,
        )
        assert build_pairs(config).tally.pairs > 0
        rows = pq.read_table(out / "data").to_pylist()
        masks = [row["mask"] for row in rows]
        if family == "owlv2":
            assert masks == [None] * len(rows)
            continue
        for row in rows:
            with (
                Image.open(io.BytesIO(row["mask"]["bytes"])) as mask,
                Image.open(io.BytesIO(row["crop"]["bytes"])) as crop,
            ):
                assert mask.size == crop.size


def test_a_model_that_grounds_nothing_is_one_line_and_exit_code_2(corpus: Path, tmp_path: Path, capsys):
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    arguments = ["--input", str(corpus), "--output", str(tmp_path / "o"), "--detector", str(tmp_path / "bert")]
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: --detector") and "of the type bert" in error and "owlv2" in error
    with pytest.raises(UserError, match=r"^--detector [^\n]* cannot be loaded: [^\n]+$"):
        load_grounder(CONFIG, "none/such")
