"""What every test can rely on: it comes to an end, and its random numbers are its own."""
import contextlib
import faulthandler
import os
import pathlib
import random
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors, in processes of tests too: a second thread costs more than it brings

import pytest
import torch

from toys import seed

# Tests of the rooms beside the core: run where they are named, or with THINKSMALL_ALL=1, as CI does.
BESIDE = {f"test_{name}.py" for name in """
    exercises sheets check_run pretend_gpu bench_gpu browser live view ask rollouts track export
    experiments bond cov pods dagger distill offpolicy prime rm_rl sdpo star vineppo genrm rlaif score critique
    propose self_play small claims facts coconut coverage mcts_noise compute_optimal longer_or_larger
    games distillation_recipe leco playing judge_accuracy credit gym_table scaling trl hunt exact bench stream_of_search
    """.split()}
LIMIT = float(os.environ.get("THINKSMALL_TIME_LIMIT", "60"))  # seconds for a test, and for what its fixtures do before; 0: none


def pytest_ignore_collect(collection_path, config):
    name = collection_path.name
    return True if name in BESIDE and not os.environ.get("THINKSMALL_ALL") and not any(name in arg for arg in config.args) else None


@pytest.fixture(autouse=True)
def random_states():
    """Without this a test that draws without a generator would get other numbers alone than behind the other tests."""
    torch.manual_seed(seed()), random.seed(seed())


class TimeLimit:
    """A loop without an end is a failure like any other: one line that says which test, and where it was."""

    def __init__(self):
        self.stderr = os.dup(2)  # pytest puts a file in its place while a test runs

    @contextlib.contextmanager
    def limited(self, item):
        def too_long(_, frame):
            place = f"{pathlib.Path(frame.f_code.co_filename).name}, line {frame.f_lineno}, {frame.f_code.co_name}"
            pytest.fail(f"{item.nodeid} was stopped after {LIMIT:g} s, in {place} (THINKSMALL_TIME_LIMIT=600 for a slow machine)",
                        pytrace=False)

        previous = signal.signal(signal.SIGALRM, too_long)
        # Again every second: where exceptions are only printed (in a __del__) the first one would be lost.
        signal.setitimer(signal.ITIMER_REAL, LIMIT, 1)
        # The last resort, for code that is stuck in C, where Python handles no signal: where it is, and the end of all tests.
        faulthandler.dump_traceback_later(3 * LIMIT, exit=True, file=self.stderr)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            faulthandler.cancel_dump_traceback_later()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item):
        with self.limited(item):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        with self.limited(item):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item):
        with self.limited(item):
            return (yield)


def pytest_configure(config):
    if LIMIT and hasattr(signal, "setitimer"):  # there is none on Windows
        config.pluginmanager.register(TimeLimit())  # hooks of this file itself would not see the doctests of the other folders
