"""Command-line values: each ends as a number in its range or as one line."""

import math

import pytest

from umm_bench.cli.arguments import GUIDANCE, SEED, SHARE, STEPS, Parser, any_text, file_name, real, some_text, whole
from umm_bench.configs import build_config
from umm_bench.errors import UserError
from umm_bench.umm_method import UMMConfig


def read(kind, *words):
    parser = Parser()
    parser.add_argument("--it", type=kind)
    return parser.parse_args(["--it", *words]).it


@pytest.mark.parametrize(
    ("kind", "word", "value"),
    [
        (STEPS, "1000", 1000), (STEPS, " 7 ", 7), (SEED, "0", 0), (SEED, str(2**63 - 1), 2**63 - 1),
        (GUIDANCE, "0", 0.0), (GUIDANCE, "7.5", 7.5), (GUIDANCE, "1e2", 100.0), (SHARE, "1", 1.0),
        (real(0, 1, above=True), "1e-9", 1e-9), (real(), "-3.5", -3.5), (whole(0), "0", 0),
    ],
)  # fmt: skip
def test_numbers_in_their_range(kind, word, value):
    assert read(kind, word) == value


@pytest.mark.parametrize(
    ("kind", "word", "message"),
    [
        (STEPS, "0", "--it must be at least 1, not 0"),
        (STEPS, "1001", "--it must be at most 1000, not 1001"),
        (STEPS, "-1", "at least 1"),
        (STEPS, "1.5", "must be a whole number, not 1.5"),
        (STEPS, "9" * 5000, "must be a whole number, not 999"),
        (STEPS, "nan", "whole number"),
        (STEPS, "", "whole number, not ''"),
        (SEED, str(2**64), "at most 9223372036854775807"),
        (SEED, str(2**63), "at most"),
        (SEED, "-1", "at least 0"),
        (GUIDANCE, "nan", "--it must be a finite number, not nan"),
        (GUIDANCE, "inf", "finite"),
        (GUIDANCE, "1e999", "finite"),
        (GUIDANCE, "1e30", "at most 1000"),
        (GUIDANCE, "-0.1", "at least 0"),
        (GUIDANCE, "5,0", "must be a number, not 5,0"),
        (SHARE, "1.01", "at most 1"),
        (real(0, 1, above=True), "0", "above 0"),
        (whole(), str(10**10), "at most"),
        (some_text, " ", "--it is empty"),
        (any_text, "\udcff", "UTF-8"),
        (any_text, "a\0b", "NUL"),
        (file_name, "folder/", "must name a file, not a folder"),
        (file_name, "", "must name a file"),
        (file_name, ".", "must name a file"),
    ],
)
def test_what_does_not_fit_is_one_line(kind, word, message):
    with pytest.raises(UserError) as caught:
        read(kind, word)
    assert message in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_argparse_speaks_as_a_user_error_too():
    for words in (["--other", "1"], ["--it"], ["--it", "-inf"]):
        parser = Parser()
        parser.add_argument("--it", type=GUIDANCE)
        with pytest.raises(UserError, match="see --help"):
            parser.parse_args(words)


@pytest.mark.parametrize("alpha", ["nan", "inf", "-1", "2", "1e999", "x"])
def test_settings_of_a_method_are_finite_and_in_range(alpha):
    with pytest.raises(UserError, match="umm"):
        build_config(UMMConfig, {"alpha": alpha}, "umm")
    with pytest.raises(UserError, match="at least 1"):
        build_config(UMMConfig, {"references": "0"}, "umm")
    assert math.isclose(build_config(UMMConfig, {"alpha": "0.25"}, "umm").alpha, 0.25)
