"""What becomes of several subjects: places, labels from cosines, thresholds from references, the metric itself."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from curation.records import Box
from tests.bench import bench_fakes as fakes
from tests.curation.conftest import tiny_detector  # noqa: F401  # a fixture
from umm_bench.errors import UserError
from umm_bench.images import open_image
from umm_bench.methods import Case, Prompt, Subject
from umm_bench.metrics.base import ScoredSample, is_for
from umm_bench.metrics.several import Several, SeveralConfig, calibration, places
from umm_bench.metrics.several.decoder import Decoder
from umm_bench.metrics.several.labels import Crop, label_subjects
from umm_bench.metrics.several.metric import assign
from umm_bench.metrics.several.places import Place
from umm_bench.metrics.several.references import References, Seen
from umm_bench.mini.evaluation import several as composed
from umm_bench.mini.evaluation import truth

OWN = np.array([[0.9, 0.4], [0.4, 0.9]])
PROMPT = Prompt("pair", "a {subject_1} and a {subject_2}", "two_references")


def crop(*row, references=OWN, threshold=0.9):
    return Crop(np.array(row), references, threshold)


def labels(crops, nouns=("fox", "cup"), doubled=None):
    return [verdict.label for verdict in label_subjects(crops, nouns, doubled)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (((0.89, 0.41), (0.42, 0.88)), ["right", "right"]),
        (((0.45, 0.35), (0.42, 0.88)), ["drift", "right"]),  # of neither
        (((0.75, 0.40), (0.42, 0.88)), ["drift", "right"]),  # something is lost, and nothing of the other's is there
        (((0.70, 0.55), (0.42, 0.88)), ["blending", "right"]),
        (((0.50, 0.80), (0.42, 0.88)), ["dominance", "right"]),
        (((0.50, 0.80), (0.75, 0.55)), ["swap", "swap"]),
        (((0.50, 0.80), (0.62, 0.60)), ["swap", "swap"]),  # less clear in one of them
        (((0.50, 0.80), (0.45, 0.75)), ["dominance", "blending"]),
    ],
)
def test_a_label_says_where_a_crop_is_between_the_two(rows, expected):
    assert labels([crop(*row) for row in rows]) == expected


def test_of_one_class_only_what_is_just_like_the_other_is_taken_for_it():
    nouns = ("fox", "fox")
    assert labels([crop(0.5, 0.8), crop(0.42, 0.88)], nouns) == ["blending", "right"]
    assert labels([crop(0.42, 0.89), crop(0.42, 0.88)], nouns) == ["dominance", "right"]


def test_what_is_not_found_is_missing_or_has_given_its_place_to_a_second_other():
    assert labels([crop(0.89, 0.41), None]) == ["right", "missing"]
    assert labels([None, None]) == ["missing", "missing"]
    verdicts = label_subjects([crop(0.89, 0.41), None], ("fox", "cup"), [None, 0])
    assert [verdict.label for verdict in verdicts] == ["right", "dominance"] and verdicts[1].rival == 0


def test_of_three_the_rival_is_the_one_that_shows():
    references = np.array([[0.9, 0.4, 0.3], [0.4, 0.9, 0.5], [0.3, 0.5, 0.9]])
    told = label_subjects(
        [crop(*row, references=references) for row in ((0.4, 0.5, 0.8), (0.4, 0.89, 0.5), (0.3, 0.5, 0.88))],
        ("fox", "cup", "owl"),
    )
    assert [verdict.label for verdict in told] == ["dominance", "right", "right"] and told[0].rival == 2


def test_two_that_nobody_can_tell_apart_are_both_themselves():
    alike = np.full((2, 2), 0.9)
    assert labels([crop(0.9, 0.9, references=alike)] * 2, ("fox", "fox")) == ["right", "right"]


class Strips:
    """Finds each noun where `boxes` has it, unless that place was painted over; writes down what it was asked."""

    def __init__(self, boxes):
        self.boxes, self.asked = boxes, []

    def ground(self, images, phrases):
        self.asked.append([list(row) for row in phrases])
        return [[[b for b in self.boxes.get(n, ()) if self._is_there(image, b)] for n in row]
                for image, row in zip(images, phrases, strict=True)]  # fmt: skip

    @staticmethod
    def _is_there(image, box):
        x, y = (box.x0 + box.x1) / 2 * image.width, (box.y0 + box.y1) / 2 * image.height
        return image.getpixel((int(x), int(y))) == (255, 0, 0)


def striped():
    image = Image.new("RGB", (40, 20), "white")
    image.paste("red", (2, 2, 18, 18))
    image.paste("red", (22, 2, 38, 18))
    return image


LEFT, RIGHT = Box(0.05, 0.1, 0.45, 0.9, 0.8), Box(0.55, 0.1, 0.95, 0.9, 0.6)


def test_a_second_of_a_class_is_looked_for_where_the_first_was_painted_over():
    class Shy(Strips):
        def ground(self, images, phrases):
            return [[boxes[:1] for boxes in row] for row in super().ground(images, phrases)]

    shy = Shy({"fox": [LEFT, RIGHT]})
    assert [place.box for place in places.find(shy, [striped()], [["fox", "fox"]])[0]] == [LEFT, RIGHT]
    assert len(shy.asked) == 2
    bold = Strips({"fox": [LEFT], "cup": [RIGHT]})
    assert [place.noun for place in places.find(bold, [striped()], [["fox", "cup"]])[0]] == ["fox", "cup"]
    assert len(bold.asked) == 1


def test_nothing_found_is_no_place_and_is_not_looked_for_again():
    nothing = Strips({})
    assert places.find(nothing, [striped(), striped()], [["fox", "cup"], ["fox"]]) == [[], []]
    assert len(nothing.asked) == 1


def test_a_place_is_one_whatever_it_is_called_and_a_part_of_a_thing_is_none():
    again = replace(LEFT, x1=0.44, score=0.5)
    part = Box(0.1, 0.2, 0.3, 0.5, 0.7)
    found = places.merge([("cup", again), ("fox", part), ("fox", LEFT), ("cup", RIGHT)])
    assert found == [Place(LEFT, {"fox": 0.8, "cup": 0.5}), Place(RIGHT, {"cup": 0.6})]
    hat = places.merge([("fox", LEFT), ("hat", part)])
    assert [place.noun for place in hat] == ["fox", "hat"]


def test_a_picture_that_is_all_box_can_be_painted_over():
    assert places.paint_over(striped(), [Box(0, 0, 1, 1, 1)]).getcolors() == [(800, (255, 0, 0))]


def test_looks_decide_between_two_of_a_class_and_a_class_between_two():
    two = [Place(LEFT, {"fox": 0.9}), Place(RIGHT, {"fox": 0.3})]
    assert assign(two, [crop(0.4, 0.7), crop(0.7, 0.4)], ["fox", "fox"]) == [1, 0]
    mixed = [Place(LEFT, {"fox": 0.9, "cup": 0.5}), Place(RIGHT, {"cup": 0.3})]
    assert assign(mixed, [crop(0.4, 0.7), crop(0.7, 0.4)], ["fox", "cup"]) == [0, 1]
    # the detector's word is worth less than a subject's own looks
    assert assign(mixed, [crop(0.4, 0.9), crop(0.9, 0.4)], ["fox", "cup"]) == [1, 0]
    assert assign(mixed[:1], [crop(0.6, 0.6)], ["fox", "cup"]) == [0, None]
    assert assign([], [], ["fox", "cup"]) == [None, None]


@pytest.fixture(scope="module")
def small(tmp_path_factory, tiny_detector) -> SeveralConfig:  # noqa: F811
    return SeveralConfig(
        str(fakes.make_encoder(tmp_path_factory.mktemp("small") / "encoder")), str(tiny_detector), "none", 0.01
    )


def pair_of(folder: Path, nouns=("fox", "car"), pictures=(3, 1)) -> Case:
    subjects = []
    for number, (noun, shown) in enumerate(zip(nouns, pictures, strict=True)):
        home = folder / f"s{number}"
        home.mkdir()
        for index in range(shown):
            noise = np.random.default_rng([number, index]).integers(0, 256, (40, 30, 3), np.uint8)
            Image.fromarray(noise).save(home / f"{index}.png")
        subjects.append(Subject(home.name, noun, tuple(sorted(home.glob("*.png")))))
    return Case(tuple(subjects))


def suite_of(*cases):
    return SimpleNamespace(name="small", version=1, pairs=lambda: list(cases))


def sample_of(case: Case, image: Image.Image, path: Path) -> ScoredSample:
    image.save(path)
    return ScoredSample(path.stem, path, case, PROMPT, 0)


@pytest.mark.parametrize(
    "nouns", [("fox", "car"), ("", "?."), ("fox. car", "FOX"), ("日本の 狐", "a" * 400), ("fox", "fox")]
)
def test_any_noun_and_a_single_reference_get_one_row_a_subject_with_its_evidence(small, tmp_path, nouns):
    case = pair_of(tmp_path, nouns)
    metric = Several(small, suite_of(case))
    sample = sample_of(case, striped(), tmp_path / "made.png")
    scores = metric.score([sample])
    assert [score.subject for score in scores] == ["s0", "s1"]
    for score in scores:
        told = score.metadata
        assert score.metric == "several" and score.protocol == metric.protocol
        assert score.value == float(told["label"] == "right") and score.explanation
        assert set(told["references"]) == {"s0", "s1"} == set(told["references"]["s0"])
        if told["box"] is None:
            assert told["label"] == "missing" and told["detected"] is None and told["row"] == {} and score.value == 0
        else:
            x0, y0, x1, y1 = told["box"]
            assert 0 <= x0 < x1 <= 40 and 0 <= y0 < y1 <= 20 and set(told["row"]) == {"s0", "s1"}
    if nouns == ("", "?."):
        assert [score.metadata["label"] for score in scores] == ["missing", "missing"]


def test_neither_batch_nor_order_changes_a_row(small, tmp_path):
    case = pair_of(tmp_path)
    noise = [np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8) for seed in range(3)]
    samples = [sample_of(case, Image.fromarray(n), tmp_path / f"{i}.png") for i, n in enumerate(noise)]
    together = Several(small, suite_of(case)).score(samples)
    metric = Several(small, suite_of(case))
    alone = [score for sample in reversed(samples) for score in metric.score([sample])]
    by_name = {(score.sample_key, score.subject): score for score in alone}
    assert all(by_name[score.sample_key, score.subject] == score for score in together)
    assert len(together) == len(by_name) == 6


def test_a_threshold_is_the_suites_and_what_cannot_be_read_is_left_out(small, tmp_path, caplog):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    case, broken = pair_of(tmp_path / "one"), pair_of(tmp_path / "two")
    whole = Several(small, suite_of(case, broken)).calibration.threshold(Seen(32), case)
    assert whole < 1
    broken.subjects[0].references[0].write_bytes(b"no picture")
    assert Several(small, suite_of(case, broken)).calibration.threshold(Seen(32), case) == pytest.approx(
        Several(small, suite_of(case)).calibration.threshold(Seen(32), broken)
    )
    assert "calibrating without s0+s1" in caplog.text
    own = Several(small, suite_of()).calibration
    assert own.threshold(Seen(32), case) == pytest.approx(np.quantile(own.kept(case, Seen(32)), calibration.MISSED))


@pytest.mark.parametrize(("spread", "warned"), [(0.02, False), (1.0, True)])
def test_an_encoder_that_cannot_tell_subjects_apart_is_said_to(spread, warned, tmp_path, caplog):
    def rows(subject, side, number=4):
        middle = np.eye(8)[int(subject.id[-1])]
        noisy = middle + spread * np.random.default_rng([int(subject.id[-1]), number]).normal(size=(number, 8))
        return noisy / np.linalg.norm(noisy, axis=1, keepdims=True)

    class Rows(References):
        def __init__(self):
            self.of, self.off = rows, lambda subject, side: np.stack([rows(subject, side)] * 3, axis=1)

    case = pair_of(tmp_path)
    threshold = calibration.Calibration(Rows(), [case]).threshold(Seen(32), case)
    assert (threshold < 0.5) == warned == ("mean little" in caplog.text)


def test_the_protocol_names_models_and_what_was_calibrated_on(small, tmp_path):
    case = pair_of(tmp_path)
    one = Several(small, suite_of(case)).protocol
    case.subjects[0].references[0].write_bytes(case.subjects[0].references[1].read_bytes())
    assert one != Several(small, suite_of(case)).protocol != Several(small, suite_of()).protocol
    assert one != Several(replace(small, box_threshold=0.5), suite_of(case)).protocol


def test_it_is_for_cases_of_several(small, tmp_path):
    case = pair_of(tmp_path)
    metric = Several(small, suite_of())
    assert is_for(metric, case) and not is_for(metric, Case(case.subjects[:1]))


@pytest.mark.parametrize(("config", "says"), [
    (SeveralConfig(box_threshold=0.0), "box_threshold must be between 0 and 1"),
    (SeveralConfig(detector="nowhere"), "neither 'mini', nor a folder"),
])  # fmt: skip
def test_settings_that_cannot_be_are_one_line(config, says):
    with pytest.raises(UserError, match=says):
        Several(config, suite_of())


def test_a_folder_that_is_no_detector_is_one_line(small, tmp_path):
    with pytest.raises(UserError, match=r"several\.detector .*no config\.json"):
        _ = Several(replace(small, detector=str(tmp_path)), suite_of()).grounder


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """The mini models on one pair of each kind: (metric, samples by (one class?, kind))."""
    suite = composed.ComposedSuite(tmp_path_factory.mktemp("composed"), composed.pairs(2, composed.TUNE), np.asarray)
    samples = {(pair.one_class, shown.kind): sample for pair, shown, sample in suite.samples()}
    return Several(SeveralConfig(), suite), samples


def test_what_a_vae_decoded_is_held_against_references_that_it_decoded(mini, tmp_path):
    """Its traces are not what a subject lost; a picture that has none is held against references as they are."""
    metric, samples = mini
    plain = samples[False, "right"]
    decoded = replace(plain, path=tmp_path / "decoded.png")
    Image.fromarray(truth.decoded(np.asarray(open_image(plain.path)))).save(decoded.path)
    unaware = Several(replace(metric.config, vae="none"), SimpleNamespace(name="small", pairs=lambda: [plain.case]))
    kept = {
        (name, shown): np.array([score.metadata["kept"] for score in by.score([sample])])
        for name, by in (("aware", metric), ("unaware", unaware))
        for shown, sample in (("plain", plain), ("decoded", decoded))
    }
    assert kept["aware", "plain"] == pytest.approx(kept["unaware", "plain"])
    assert (kept["aware", "decoded"] > kept["unaware", "decoded"] + 0.02).all()


@pytest.mark.parametrize("size", [(1, 1), (70, 33), (64, 64)])
def test_a_decoded_picture_has_its_size_and_looks_alike(size):
    image = Image.new("RGB", size, (200, 80, 60))
    decoded = Decoder("mini")(image)
    assert decoded.size == size
    assert abs(np.asarray(decoded, float) - np.asarray(image, float)).mean() < 12


def test_a_vae_that_is_none_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"several\.vae .* cannot be loaded"):
        _ = Decoder(str(tmp_path)).vae


def told(scores):
    return {score.subject: (score.metadata["label"], score.metadata["box"]) for score in scores}


def test_as_asked_is_right_and_one_left_out_is_missing(mini):
    metric, samples = mini
    asked = [score for one_class in (False, True) for score in metric.score([samples[one_class, "right"]])]
    assert sum(score.value for score in asked) >= 3  # of four: labels are right in 0.95 of such
    for one_class in (False, True):
        gone = metric.score([samples[one_class, "missing"]])
        assert sorted(score.metadata["label"] for score in gone) == ["missing", "right"]


def test_two_of_one_class_are_told_apart_whatever_the_detectors_order(mini):
    metric, samples = mini
    sample = samples[True, "right"]
    before = told(metric.score([sample]))
    assert len({tuple(box) for _, box in before.values()}) == 2

    class Reversed:
        """The surest box is the least sure, and comes last."""

        def __init__(self, grounder):
            self.grounder = grounder

        def ground(self, images, phrases):
            return [[[replace(box, score=1 - box.score) for box in reversed(boxes)] for boxes in row]
                    for row in self.grounder.ground(images, phrases)]  # fmt: skip

    usual = metric.grounder
    try:
        metric.__dict__["grounder"] = Reversed(usual)
        assert told(metric.score([sample])) == before
    finally:
        metric.__dict__["grounder"] = usual
    turned = replace(sample, case=Case(sample.case.subjects[::-1]))
    assert told(metric.score([turned])) == before
