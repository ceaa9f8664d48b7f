"""A pretend GPU: the CPU computes, and every tensor remembers whether it would lie on a GPU.

    with PretendGPU() as gpu:
        model = GPT(config).to("cuda")          # works on a machine without one; model.device says cuda:0
        generate(model, prompts, 16)            # decoding steps are "captured": what a graph may not do is noted
    assert not gpu.errors, gpu.errors
    print(gpu.questions)                        # every place where the host waits for the device, and how often

An error is an operation on tensors of two devices, a generator of the wrong one, or a question inside
of a captured step. A question is whatever makes the host wait: .item(), .tolist(), bool(), .cpu(),
nonzero, boolean masks, indices and values that are copied from the host.

What it does not find: kernels that are missing or slow, memory, numerical differences, questions below
Python (inside of an optimizer or a backward pass).

How: a TorchFunctionMode sees each call from Python. A storage is on the GPU if it was made there, or
computed from what is. A freed storage may be followed by another one at the same address, so each
result is marked anew.
"""
import collections
import sys
from types import SimpleNamespace

import torch
from torch.overrides import TorchFunctionMode

from plumbing import buffers

Tensor = torch.Tensor
QUESTIONS = {Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.nonzero,
             torch.nonzero, Tensor.cpu, Tensor.numpy, torch.equal, Tensor.equal, torch.unique, Tensor.unique}
PLAIN = {Tensor.untyped_storage, Tensor.data_ptr, Tensor.numel, Tensor.dim, Tensor.size, Tensor.__len__, Tensor.__repr__}
BELOW = ("_foreach", "_fused", "_has_compatible", "_group_tensors", "__set__")  # what optimizers and modules do with gradients and weights


def tensors(x):
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, (list, tuple)):
        for y in x:
            yield from tensors(y)
    elif isinstance(x, dict):
        yield from tensors(list(x.values()))


def is_gpu(device):
    return torch.device(device).type == "cuda"


def place():
    """The line of ours, or of a test, from which a call came."""
    frame = sys._getframe(1)
    while frame and (frame.f_code.co_filename == __file__ or "/torch/" in frame.f_code.co_filename):
        frame = frame.f_back
    return f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno} in {frame.f_code.co_name}" if frame else "?"


class Generator(torch.Generator):
    """Knows on which device it was made. The numbers are those of the CPU."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls)
        made.on_gpu = is_gpu(device)
        return made


class PretendGPU(TorchFunctionMode):
    """errors, questions: Counters of "what at file:line in function"."""

    def __init__(self):
        super().__init__()
        self.storages, self.capturing = set(), False
        self.errors, self.questions = collections.Counter(), collections.Counter()

    def __enter__(self):
        """Generators can be made for the device, and steps can be captured: what is replayed is the
        step itself."""
        self.real = torch.Generator, buffers.capture, buffers.KEPT
        torch.Generator, buffers.capture, buffers.KEPT = Generator, self.capture, {}
        return super().__enter__()

    def __exit__(self, *error):
        torch.Generator, buffers.capture, buffers.KEPT = self.real
        return super().__exit__(*error)

    def capture(self, step, memory):
        def replay():
            self.capturing = True
            try:
                step()
            finally:
                self.capturing = False
        return SimpleNamespace(replay=replay, pool=lambda: None)

    def has(self, t):
        return t.numel() > 0 and t.untyped_storage().data_ptr() in self.storages

    def put(self, t, on_gpu):
        if t.numel():
            (self.storages.add if on_gpu else self.storages.discard)(t.untyped_storage().data_ptr())

    def wrong(self, what):
        self.errors[f"{what} at {place()}"] += 1

    def ask(self, what):
        self.questions[f"{what} at {place()}"] += 1
        if self.capturing:
            self.wrong(f"{what} inside of a captured step")

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name, getter = dict(kwargs or {}), getattr(function, "__name__", ""), getattr(function, "__self__", None)
        if getter is Tensor.device:
            return torch.device("cuda:0" if self.has(args[0]) else "cpu")
        if getter is Tensor.is_cuda:
            return self.has(args[0])
        if name == "__get__" or function in PLAIN:
            out = function(*args, **kwargs)
            if getter is Tensor.grad and out is not None:  # made below Python
                self.put(out, self.has(args[0]))
            return out
        if function is Tensor.to:
            return self.to(*args, **kwargs)
        wanted = is_gpu(kwargs["device"]) if kwargs.get("device") is not None else None
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        used = list(tensors(args)) + list(tensors(kwargs))
        here = [t for t in used if self.has(t)]
        there = [t for t in used if not self.has(t) and t.dim() and t.numel()]  # numbers without a dimension may be mixed in
        self.look(function, name, args, here, there, used, wanted)
        generator = kwargs.get("generator")
        if generator is not None and getattr(generator, "on_gpu", False) != (bool(here) if wanted is None else wanted):
            self.wrong(f"{name} with a generator of the other device")
        out = function(*args, **kwargs)
        if here and function is Tensor.cpu:
            out = out.clone()
            self.put(out, False)
            return out
        shared = {t.untyped_storage().data_ptr() for t in used if t.numel()}
        for t in tensors(out):
            if t.numel() and t.untyped_storage().data_ptr() not in shared:
                self.put(t, bool(here) if wanted is None else wanted)
        return out

    def look(self, function, name, args, here, there, used, wanted):
        """Note what this call asks, and what it mixes."""
        indexing = function in (Tensor.__getitem__, Tensor.__setitem__)
        if here and function in QUESTIONS:
            self.ask(name)
        elif here and indexing and any(t.dtype == torch.bool for t in tensors(args[1])):
            self.ask("boolean mask as an index")
        if here and there and wanted is None and not name.startswith(BELOW):
            if indexing and self.has(args[0]):
                self.ask("index or value copied from the host")
            elif function is not Tensor.copy_:
                self.wrong(f"{name} of tensors on two devices, shapes {[tuple(t.shape) for t in used]}")

    def to(self, tensor, *args, **kwargs):
        """Tensor.to: the one call that moves."""
        before = wanted = self.has(tensor)
        if sys._getframe(2).f_code.co_filename.endswith("clip_grad.py"):  # asks below Python where gradients lie, and hears the truth
            return tensor
        for a in (*args, *kwargs.values()):
            wanted = is_gpu(a) if isinstance(a, (str, torch.device)) else self.has(a) if isinstance(a, Tensor) else wanted
        cpu = lambda a: torch.device("cpu") if isinstance(a, (str, torch.device)) else a
        out = tensor.to(*map(cpu, args), **{name: cpu(a) for name, a in kwargs.items()})
        if wanted != before:
            out = out.clone() if out.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr() else out
            if before:
                self.ask("copy to the host")
        self.put(out, wanted)
        return out
