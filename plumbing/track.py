"""--track: each line of metrics.jsonl also to TensorBoard, Weights & Biases or Trackio, for those who have a home for metrics there.

It is a copy. metrics.jsonl stays the truth: what a tracker loses, refuses or has not installed ends no run.
"""
import importlib

from tqdm import tqdm

MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "trackio": "trackio"}


def numbers(line):
    """A line of metrics -> its numbers alone: {name: number}."""
    return {name: value for name, value in line.items() if name != "step" and isinstance(value, (int, float))}


def tensorboard(module, run):
    """-> log(line), finish(). Events go into the run's folder; a resumed run takes back what was logged beyond its checkpoint."""
    writer = module.SummaryWriter(str(run.folder), purge_step=run.step + 1)

    def log(line):
        for name, value in numbers(line).items():
            writer.add_scalar(name, value, line["step"])

    return log, writer.close


def online(module, run):
    """-> log(line), finish(), for wandb and for trackio, which has the same three functions."""
    module.init(project="thinksmall", name=run.folder.name, config=run.config_dict())
    return lambda line: module.log(numbers(line), step=line["step"]), module.finish


class Tracker:
    """`tracker(line)` for each line, `tracker.finish()` at the end. Silent without --track, and after a first mistake."""

    def __init__(self, name, run):
        self.name, self.log = name, None
        if name != "none":
            self.guard(self.open, run)

    def open(self, run):
        module = importlib.import_module(MODULES[self.name])
        self.log, self.close = (tensorboard if self.name == "tensorboard" else online)(module, run)

    def __call__(self, line):
        if self.log:
            self.guard(self.log, line)

    def finish(self):
        if self.log:
            self.guard(self.close)

    def guard(self, action, *given):
        """Do it; if the tracker raises, say so in one line and go on without it. Its exceptions are its own: any kind."""
        try:
            action(*given)
        except ImportError:
            self.log = None
            tqdm.write(f"(--track {self.name}: it is not installed; pip install {self.name}. metrics.jsonl has everything)")
        except Exception as error:
            self.log = None
            tqdm.write(f"(--track {self.name}: {type(error).__name__}: {' '.join(str(error).split())[:150]}; the run goes on without it)")
