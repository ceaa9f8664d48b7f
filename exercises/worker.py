"""Where a student's code runs: not in the grader's process, and without the solution.

grade.py starts this file once. It imports what takes long (torch) and waits; for each test it forks, so
that a test costs milliseconds and meets nothing that another one has left behind. The child gets limits
of time, memory and file size, nothing to read and nowhere to print, and an audit hook that ends it at
once if it opens the solution, writes outside of its copy, starts a process, signals one, or uses the
network. It calls the function on the inputs and writes what came out, as plain data, into a pipe. It
knows neither what should have come out nor who asks; whether that is right is decided elsewhere.

That is a seat belt and no sandbox: see TEACHERS.md.
"""
import contextlib
import importlib.util
import io
import os
import pathlib
import pickle
import resource
import select
import signal
import struct
import sys
import time

LARGEST = 32 << 20  # bytes of an answer


def read_exactly(fd, n):
    data = bytearray()
    while len(data) < n:
        part = os.read(fd, n - len(data))
        if not part:
            return None
        data += part
    return bytes(data)


def send(fd, value):
    data = pickle.dumps(value)
    data = memoryview(struct.pack("!Q", len(data)) + data)
    while data:
        data = data[os.write(fd, data):]


def receive(fd):
    """-> what `send` sent; None at the end. Only between grader and worker: a student's bytes are never
    unpickled.
    """
    head = read_exactly(fd, 8)
    body = head and read_exactly(fd, *struct.unpack("!Q", head))
    return pickle.loads(body) if body else None


# -------------------------------------------------------------------------------------------- the child

STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
          "os.forkpty", "os.startfile", "pty.spawn")
SIGNALS = ("os.kill", "os.killpg", "signal.pthread_kill")
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate",
           "os.chmod", "os.chown", "os.utime", "os.setxattr", "shutil.rmtree", "shutil.move", "shutil.copyfile")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def guard(copy, solution, give_up):
    """Install the audit hook: give_up(reason) must not return."""
    realpath, fspath, fsdecode, isinstance_ = os.path.realpath, os.fspath, os.fsdecode, isinstance
    allowed = (sys.prefix + os.sep, sys.base_prefix + os.sep)  # a virtual environment may lie in its folder
    within = lambda path, folder: path == folder or path.startswith(folder + os.sep)

    def hook(event, args):
        if event in STARTS:
            give_up("starts a process")
        if event in SIGNALS:
            give_up("sends a signal")
        if event.startswith("socket."):
            give_up("uses the network")
        if event == "open" or event in CHANGES:
            named, mode, flags = (args[:1], args[1] or "", args[2] or 0) if event == "open" else (args, "w", 0)
            writes = any(letter in mode for letter in "wax+") or flags & WRITES
            for path in [realpath(fsdecode(fspath(a))) for a in named if isinstance_(a, (str, bytes, os.PathLike))]:
                if within(path, solution) and not path.startswith(allowed):
                    give_up("opens a file of the solution")
                if writes and not within(path, copy) and path != os.devnull:
                    give_up("writes outside of its folder")
    sys.addaudithook(hook)


def child(request, out, calls, solution):
    """Call one function on its cases, write the answer, end."""
    exit_, write, save = os._exit, os.write, sys.modules["torch"].save
    copy, limit = request["folder"], request["limit"]

    def answer(value):
        data = io.BytesIO()
        save(value, data)
        view = memoryview(data.getvalue())
        while view:
            view = view[write(out, view):]

    def give_up(reason):
        answer({"gives up": reason})
        exit_(0)

    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.chdir(copy)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = pathlib.Path("/proc/self/statm")
    if pages.exists():  # what torch has reserved already, and 2 GiB
        used = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30),) * 2)
    cases = sys.modules["torch"].load(io.BytesIO(request["cases"]), weights_only=True)
    sys.path.insert(0, copy)
    sys.dont_write_bytecode = True
    guard(copy, solution, give_up)
    try:
        files = calls.source_of(request["target"])
        answer({"files": files, "found": calls.run(request["part"], cases)})
    except BaseException as error:  # SystemExit and KeyboardInterrupt too
        place, trace = "", error.__traceback__
        while trace:
            name = trace.tb_frame.f_code.co_filename
            if name.startswith(copy + os.sep):
                place = f" ({name[len(copy) + 1:]}, line {trace.tb_lineno})"
            trace = trace.tb_next
        answer({"error": type(error).__name__, "says": f"{error}"[:300] + place})
    exit_(0)


# ------------------------------------------------------------------------------------------- the parent

def wait_for(pid, fd, limit):
    """Read the child's answer until it ends, or for too long, or too much -> bytes, how it ended."""
    data, deadline, ended = bytearray(), time.monotonic() + 5 * limit, None
    while ended is None:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        part = os.read(fd, 1 << 16) if ready else None
        if part is None:
            ended = "time"
        elif not part:
            break
        data += part or b""
        ended = "size" if len(data) > LARGEST else ended
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not ended and not data and code < 0:
        ended = "time" if -code in (signal.SIGXCPU, signal.SIGKILL) else "signal"
    return bytes(data), ended or f"exit {code}"


def main(calls_path, solution):
    spec = importlib.util.spec_from_file_location("calls", calls_path)
    calls = importlib.util.module_from_spec(spec)
    sys.modules["calls"] = calls
    spec.loader.exec_module(calls)
    torch = sys.modules["torch"]
    torch.set_num_threads(1)
    import numpy, tiktoken, tqdm  # noqa: F401  what the core imports besides
    requests, answers = os.dup(0), os.dup(1)  # nothing that prints may get between
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    while (request := receive(requests)) is not None:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            for fd in (requests, answers, read):
                os.close(fd)
            child(request, write, calls, solution)
        os.close(write)
        send(answers, wait_for(pid, read, request["limit"]))
        os.close(read)


if __name__ == "__main__":
    main(*sys.argv[1:])
