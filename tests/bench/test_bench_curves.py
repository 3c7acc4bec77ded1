"""A method at several steps of one training, and settings whose defaults depend on the base."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from tests.bench.bench_fakes import Painter
from tests.bench.test_bench_run import query
from umm_bench.bench.asked import Asked, with_curves
from umm_bench.configs import describe
from umm_bench.methods import METHODS


@dataclass(frozen=True)
class TrainedConfig:
    source: ClassVar[str] = "a fake paper"

    shade: int = 100
    words: tuple[str, ...] = ("one",)
    steps: int = 7
    curve: tuple[int, ...] = ()


class Trained(Painter):
    """Asks for a shade that the base decides."""

    name = "trained"
    config_class = TrainedConfig
    seen: ClassVar[list[TrainedConfig]] = []

    @staticmethod
    def defaults(base):
        return replace(TrainedConfig(), shade=len(base.name) % 2 + 40, words=("from", "base"))

    def setup(self, subject, directory):
        Trained.seen.append(self.config)
        return super().setup(subject, directory)


@pytest.fixture
def trained():
    Trained.seen.clear()
    with METHODS.register("trained", Trained):
        yield


def test_a_curve_is_scored_at_each_of_its_steps_in_their_order(bench, tmp_path, trained):
    words = ["--methods", "painter,trained", "--set", "trained.curve=50,9", "--set", "trained.shade=3"]
    assert bench(*words) == 0
    assert query(tmp_path, "select method, count(*) from samples group by 1 order by 1") == [
        ("painter", 4),
        ("trained@50", 4),
        ("trained@9", 4),
    ]
    assert [(config.steps, config.shade) for config in Trained.seen] == [(9, 3), (9, 3), (50, 3), (50, 3)]
    assert query(tmp_path, "select distinct method from setups order by 1") == [
        ("painter",),
        ("trained@50",),
        ("trained@9",),
    ]
    assert {row[0] for row in query(tmp_path, "select method from summaries")} == {"painter", "trained@9", "trained@50"}
    drawn = len(Painter.drawn)
    assert bench(*words) == 0
    assert len(Painter.drawn) == drawn, "a second run of the same command has nothing to do"


@pytest.mark.parametrize("curve", ["", "0", "5,5", "5,-1", "many", "1.5"])
def test_a_curve_of_no_steps_is_one_line(bench, capsys, trained, curve):
    assert bench("--methods", "trained", "--set", f"trained.curve={curve}") == 2
    error = capsys.readouterr().err
    assert error == f"error: --set trained.curve={curve}: expected different numbers of steps, e.g. 50,100,200\n"


def test_a_method_without_steps_has_no_curve(bench, capsys):
    assert bench("--methods", "painter", "--set", "painter.curve=1,2") == 2
    assert "painter has no setting" in capsys.readouterr().err


def test_a_folder_of_pictures_has_no_points(tmp_path):
    asked = (Asked("mine", pictures=tmp_path), Asked("trained"))
    settings = [("mine", "curve", "1,2"), ("trained", "curve", "2, 1")]
    points = with_curves(asked, settings)
    assert [(point.name, point.method, point.steps) for point in points] == [
        ("mine", "mine", None),
        ("trained@1", "trained", 1),
        ("trained@2", "trained", 2),
    ]


def test_defaults_are_the_bases_and_printed_and_settings_win(bench, capsys, world, trained):
    shade = len(str(world / "base")) % 2 + 40
    assert bench("--methods", "trained", "--set", "trained.steps=3") == 0
    assert set(Trained.seen) == {TrainedConfig(shade, ("from", "base"), 3)}
    told = f"settings  trained: shade={shade} words=from,base steps=3 curve=none (defaults: a fake paper)"
    assert told in capsys.readouterr().err.splitlines()


def test_a_config_is_described_as_it_is_set():
    assert describe(TrainedConfig(words=())) == "shade=100 words=none steps=7 curve=none"
