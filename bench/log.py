"""What rollouts.jsonl and run.html cost a run: CPU seconds and bytes.

    python bench/log.py RUN             from the policy of a run of countdown, with the settings of the main job

CPU seconds, not those of the clock: other programs on the machine count less. One thread: OMP_NUM_THREADS=1.
"""
import contextlib
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import train
import view
from config import InputError, Parser
from plumbing import rollouts, start
from plumbing.run import Run
from plumbing.warm_starts import init_from

STEPS = 6  # the first of them is left out: it allocates


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("run", metavar="RUN", help="run folder of a countdown run")
    path = parser.parse_args().run
    with tempfile.TemporaryDirectory() as folder:
        run = Run(pathlib.Path(folder), "grpo", "countdown", start.configure("grpo", "countdown", {"device": "cpu"}))
        init_from(path, run.policy, run.task)
        run.build()
        run.write("config.json", '{"algo": "grpo", "task": "countdown"}')
        log, seconds, original = [], [], rollouts.logged

        @contextlib.contextmanager
        def timed(*args):
            began = time.process_time()
            with original(*args):
                before = time.process_time() - began
                yield
                began = time.process_time()
            log.append(before + time.process_time() - began)

        train.logged = timed
        size = lambda: (run.folder / "rollouts.jsonl").stat().st_size
        for _ in range(STEPS):
            began = time.process_time()
            train.step(run)
            seconds.append(time.process_time() - began)
        step, of_it, step_bytes = sum(seconds[1:]) / (STEPS - 1), sum(log[1:]) / (STEPS - 1), size() // STEPS
        began = time.process_time()
        rollouts.log_look(run)
        look, look_bytes = time.process_time() - began, size() - STEPS * step_bytes
        steps, looks = run.loop.steps, run.loop.steps // run.loop.eval_every + 1
        print(f"a step: {step - of_it:.2f} s and {of_it:.3f} s for the log, {step_bytes / 1e3:.0f} kB; a look: {look:.2f} s for the log, {look_bytes / 1e3:.0f} kB")
        print(f"{steps} steps and {looks} looks: {(steps * of_it + looks * look) / (steps * (step - of_it)):.1%} more than the steps alone, "
              f"{(steps * step_bytes + looks * look_bytes) / 1e6:.1f} MB")
        run.write("rollouts.jsonl", run.read("rollouts.jsonl") * (steps // STEPS))
        began = time.process_time()
        shown = view.write_page([run.folder], run.folder / "run.html")
        print(f"run.html: {time.process_time() - began:.1f} s, {shown / 1e6:.1f} MB")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
