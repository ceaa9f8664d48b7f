"""Settings: what a person types is either used as typed or refused in one line."""
from dataclasses import dataclass

import pytest

from config import InputError, Parser, add_flags, check, flag, from_flags, setting


@dataclass
class Oven:
    """oven"""
    rack_level: int = setting(2, "which rack", low=1, high=4)
    heat: float = setting(180.0, "100 % of what is asked", low=0.0)
    mode: str = setting("fan", "how it heats", choices=("fan", "grill"))
    light: bool = setting(True, "the lamp")


def parse(*argv):
    parser = Parser(prog="bake")
    add_flags(parser, Oven)
    return vars(parser.parse_args(argv))


def test_a_flag_is_spelled_with_hyphens():
    assert flag("rack_level") == "--rack-level"


def test_defaults_hold_where_nothing_is_given():
    assert from_flags(Oven, {}) == Oven(2, 180.0, "fan", True)


def test_given_flags_become_fields():
    given = parse("--rack-level", "4", "--heat", "1e2", "--mode", "grill", "--no-light")
    assert from_flags(Oven, given) == Oven(4, 100.0, "grill", False)


def test_flags_that_are_not_given_stay_out_of_the_result():
    """A resumed run must be able to tell what was typed from what is only the default."""
    assert parse("--heat", "200") == {"heat": 200.0}


def test_names_of_other_configs_are_left_alone():
    assert from_flags(Oven, {"group_size": 16, "rack_level": 3}).rack_level == 3


def test_both_ends_of_the_bounds_are_allowed():
    check(Oven(rack_level=1)), check(Oven(rack_level=4)), check(Oven(heat=0.0))


@pytest.mark.parametrize("field, value", [
    ("rack_level", 0), ("rack_level", 5), ("rack_level", 2.0), ("rack_level", True), ("rack_level", "2"),
    ("heat", -0.1), ("heat", float("nan")), ("heat", float("inf")), ("heat", "hot"), ("heat", True),
    ("mode", "steam"), ("mode", ""), ("light", 1),
])
def test_impossible_values_are_refused_in_one_line_that_names_the_flag(field, value):
    with pytest.raises(InputError) as error:
        from_flags(Oven, {field: value})
    assert flag(field) in str(error.value) and "\n" not in str(error.value)


def test_a_whole_number_is_a_fine_float():
    """JSON and people write 200 for 200.0."""
    config = from_flags(Oven, {"heat": 200})
    assert config.heat == 200.0 and type(config.heat) is float


@pytest.mark.parametrize("argv", [["--rack"], ["--rack", "2"], ["--rack-level", "two"], ["--rack-level"], ["--fish"], ["pie"]])
def test_a_bad_command_line_is_one_line_and_exit_status_2(argv, capsys):
    """Also an abbreviation: it would mean something else as soon as another flag is added."""
    with pytest.raises(SystemExit) as error:
        parse(*argv)
    assert error.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_help_shows_defaults_and_survives_a_percent_sign(capsys):
    with pytest.raises(SystemExit) as error:
        parse("--help")
    text = capsys.readouterr().out
    assert error.value.code == 0 and "100 % of what is asked" in text and "(default: 180.0)" in text
