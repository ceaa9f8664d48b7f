"""The model in the page beside torch: are its logits and its answers the same, and how fast is it?

    python bench/page.py runs/countdown-0             with node, and in Chromium where that is installed

On 100 test problems, viewer/forward.js with float16 weights against model.py with float32:

  logits      the largest difference over all places of the prompts and of torch's greedy answers
  answers     how many greedy answers are equal, token by token
  speed       tokens per second, reading and writing, one after the other: there is no batch in the page. The
              fastest of the 100 answers counts: on a machine that does other work too, the others say less
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import checkpoint
from browser import CHROMIUM, Browser
from config import InputError, Parser
from evaluate import fixed_problems
from sample import generate
from viewer import weights

PROBLEMS = 100
NAMES = "float16, softmax, entropy, choose, Model, Vocabulary"

# rows -> the logits at every place of each row
LOGITS = """
    const model = new Model(packed);
    return rows.map(row => { const cache = model.cache(); return row.map((id, t) => Array.from(model.step(id, t, cache).logits)); });"""

# prompts, limit -> {ids, seconds, tokens} of the greedy answer to each prompt
GREEDY = """
    const model = new Model(packed), cache = model.cache();
    return prompts.map(prompt => {
      const ids = [], began = performance.now();
      let out, t = 0;
      for (const id of prompt) out = model.step(id, t++, cache);
      while (ids.length < limit) {
        ids.push(choose(out.logits, 0));
        if (ids[ids.length - 1] === 1) break;
        out = model.step(ids[ids.length - 1], t++, cache);
      }
      return { ids, seconds: (performance.now() - began) / 1000, tokens: t };
    });"""


def node(script, **given):
    """Run JavaScript under node, with the names of forward.js, `verdict` of live.js, and those of `given` -> what it returns."""
    load = lambda names, file: f"const {{{names}}} = require({json.dumps(str(weights.VIEWER / file))});"
    code = (load(NAMES, "forward.js") + load("verdict", "live.js")
            + f"const {{{', '.join(given)}}} = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
            + f"console.log(JSON.stringify((() => {{ {script} }})()))")
    done = subprocess.run(["node", "-e", code], input=json.dumps(given), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout)


def chromium(script, prompts, **given):
    """The same in a page, a few prompts at a time."""
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        page = pathlib.Path(folder) / "page.html"
        page.write_text(f"<script>{(weights.VIEWER / 'forward.js').read_text()}</script>")
        opened = browser.open(page)
        opened.js(f"Object.assign(window, {json.dumps(given)}), null")
        return [answer for i in range(0, len(prompts), 5)
                for answer in opened.js(f"(prompts => {{ {script} }})({json.dumps(prompts[i:i + 5])})")]


def compare(run, count=PROBLEMS):
    """A run -> dict: problems, the largest difference of logits, the number of equal greedy answers, tokens per second."""
    model, task, config = checkpoint.load_run(run)
    packed, limit = weights.pack(run), config["max_new_tokens"] or task.max_new_tokens
    prompts = [task.tokenizer.encode(problem.prompt) for problem in fixed_problems(task, "test", count)]
    rollout = generate(model, prompts, limit, temperature=0, eos=task.tokenizer.eos)
    rows = [row[:length] for row, length in zip(rollout.tokens.tolist(), rollout.lengths.tolist())]
    worst = 0.0
    for row, found in zip(rows, node(LOGITS, packed=packed, rows=rows)):
        with torch.no_grad():
            worst = max(worst, float((model(torch.tensor([row]))[0] - torch.tensor(found)).abs().max()))
    result = {"problems": len(prompts), "logits": worst}
    for name, runner in (("node", node), *([("Chromium", chromium)] if CHROMIUM else [])):
        answers = runner(GREEDY, packed=packed, prompts=prompts, limit=limit)
        result[f"equal in {name}"] = sum(prompt + a["ids"] == row for prompt, a, row in zip(prompts, answers, rows))
        result[f"tokens/s in {name}"] = round(max(a["tokens"] / a["seconds"] for a in answers))
    return result


def main(argv=None):
    parser = Parser(prog="page.py", description="The model in the page beside torch.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders or checkpoint files")
    runs = parser.parse_args(argv).runs
    if not shutil.which("node"):
        raise InputError("node is not installed: forward.js cannot be run outside of a browser")
    for run in runs:
        print(f"{run}: " + ", ".join(f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}"
                                     for name, value in compare(run).items()), flush=True)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
