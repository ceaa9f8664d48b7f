"""docs/scaling.md: the table is what the formulas give."""
import pathlib

from examples import scaling

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "scaling.md"


def test_the_table_is_what_the_script_prints():
    assert f"<!-- scaling table -->\n{scaling.table()}\n<!-- /scaling table -->" in PAGE.read_text()


def test_twice_the_gpus_halve_the_states_and_the_training():
    one, two = (scaling.needs(**scaling.MODELS["0.5 B"], **scaling.GPUS["H200"], N=n) for n in (1, 2))
    assert two["states"] == one["states"] / 2 and two["train"] == 2 * one["train"] and two["sampler"] == one["sampler"]


def test_states_that_fill_the_memory_do_not_fit():
    assert scaling.needs(**scaling.MODELS["7 B"], **scaling.GPUS["H200"], N=1)["rows"] == 0
