"""The page of view.py: small, whole, and nothing that a model wrote can become a part of it. What it does in a browser, if there is one."""
import json
import re
import shutil

import pytest
import torch

import search
import view
from config import InputError
from plumbing import run as run_room
from plumbing.trees import Record
from search import beam_search, tree_search
from search_context import SearchContext
from toys import COMMA, EOS, ONE, TWO, Sums, coins, seeded, writes

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>/*CODE*/"
CONFIG = {"algo": "grpo", "task": "countdown", "seed": 0, "lr": 3e-4, "beta": 0.0, "kl_estimator": "k3"}


def group(step, kind="train", texts=("5", " + ", "3"), right=(True, False), **more):
    n = len(texts)
    samples = [{"tokens": list(texts), "reward": float(r), "right": r, "finished": True, "steps": [[n - 1, r, r]], "logprobs": [-0.5] * n,
                "entropies": [0.25] * n, "advantages": [1.0 if r else -1.0] * n, "ratios": [1.0 + 0.15 * k for k in range(n)], "clipped": [],
                "ref_logprobs": [-0.75] * n, "alternatives": [[["5", 0.6], ["7", 0.4]]] * n, **more} for r in right]
    return {"step": step, "kind": kind, "problem": "Use 5, 3 to make 8.\n", "clip": [0.2, 0.2], "samples": samples}


def folder(path, groups=(), metrics=None, **config):
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(CONFIG | config))
    metrics = metrics or [{"step": k, "accuracy": 0.1 * k, "reward": 0.1 * k, "entropy": 0.2, "kl": 0.0} for k in range(1, 9)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    (path / "rollouts.jsonl").write_text("".join(json.dumps(g) + "\n" for g in groups))
    return path


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


# ---- the file

def test_a_page_holds_its_runs_and_asks_for_nothing_else(tmp_path):
    run, out = folder(tmp_path / "a", [group(1), group(2)]), tmp_path / "run.html"
    view.main([str(run), str(run), "--out", str(out)])
    page = out.read_text()
    data = data_of(page)
    assert [len(r["groups"]) for r in data["runs"]] == [2, 2] and data["runs"][0]["metrics"]["step"] == list(range(1, 9))
    assert not re.search(r"""\b(src|href)=|@import|\bfetch\(|XMLHttpRequest|url\(""", page.replace(EVIL, "")) and "default-src 'none'" in page


def test_what_a_model_wrote_stays_data(tmp_path):
    run = folder(tmp_path / "evil", [group(1, texts=(EVIL, "3"))], out=EVIL)
    view.write_page([run], tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    assert page.count("<script") == page.count("</script>") == 2 and EVIL in data_of(page)["words"]


def test_numbers_survive_to_three_places(tmp_path):
    words = {}
    [sample] = view.dense({"samples": [{"tokens": ["a", "b", "a"], "logprobs": [-0.12345, -2.0, -0.5], "ratios": [1.0, 1.0, 1.0], "right": True,
                                        "alternatives": [[["a", 0.75], ["b", 0.25]]] * 3}]}, words)["samples"]
    assert sample == {"right": True, "tokens": [0, 1, 0], "logp": [-123, -2000, -500], "ratio": 1000, "alternatives": [[0, 750, 1, 250]] * 3}
    assert list(words) == ["a", "b"]


def test_a_page_is_below_5_megabytes_and_keeps_first_and_last_step(tmp_path):
    long = [group(step, logprobs=[-k / 7 for k in range(3)]) for step in range(1, 601)]
    runs = [view.read_run(folder(tmp_path / name, long, [{"step": k, "accuracy": 0.5} for k in range(1, 601)])) for name in "ab"]
    page = view.page(runs, limit=200_000)
    steps = [g["step"] for g in data_of(page)["runs"][0]["groups"]]
    assert 120_000 < len(page.encode()) <= 200_000 and view.LIMIT < 5e6 and steps[0] == 1 and steps[-1] == 600 and steps == sorted(steps)
    assert 10 < len(steps) and max(b - a for a, b in zip(steps, steps[1:])) < 2.1 * 600 / len(steps)  # left out evenly


def test_long_curves_are_thinned_but_no_look_at_val_is_lost():
    lines = [{"step": k, "reward": 1 / k} | ({"val_pass@1": 0.5} if k % 50 == 0 else {}) for k in range(1, 10_001)]
    metrics = view.columns(lines)
    assert len(metrics["step"]) < 1300 and metrics["step"][-1] == 10_000 and sum(x is not None for x in metrics["val_pass@1"]) == 200


def test_an_older_run_shows_its_samples_txt(tmp_path):
    run = folder(tmp_path / "older")
    (run / "rollouts.jsonl").unlink()
    (run / "samples.txt").write_text("=== step 0\nUse 5, 3 to make 8.\n<think>5 + 3 = 8, found\n</think><answer>5 + 3</answer><|eos|>\n--- reward 1\n"
                                     "Use 1, 2 to make 3.\n<think>1 (cut off)\n--- reward 0\n=== step 20\nUse 5, 3 to make 8.\n<think><|eos|>\n--- reward 0\n")
    groups = [json.loads(line) for _, line in view.read_run(run)["groups"]]
    assert [(g["step"], g["problem"].strip(), g["samples"][0]["finished"], g["samples"][0]["reward"]) for g in groups] == [
        (0, "Use 5, 3 to make 8.", True, 1.0), (0, "Use 1, 2 to make 3.", False, 0.0), (20, "Use 5, 3 to make 8.", True, 0.0)]
    assert groups[0]["samples"][0]["tokens"] == ["<think>5 + 3 = 8, found\n</think><answer>5 + 3</answer>"]


def test_a_run_that_is_alive_can_be_looked_at(tmp_path):
    """Its last line is half written, and there is no summary yet."""
    run = folder(tmp_path / "alive", [group(1)])
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        (run / name).write_text((run / name).read_text() + '{"step": 9, "acc')
    assert len(view.read_run(run)["metrics"]["step"]) == 8 and len(view.read_run(run)["groups"]) == 1


@pytest.mark.parametrize("break_it, says", [
    (lambda run: shutil.rmtree(run), "no run"), (lambda run: (run / "config.json").write_text("[]"), "no run"),
    (lambda run: (run / "metrics.jsonl").write_text("nonsense\n{}\n"), "JSON lines"),
    (lambda run: (run / "rollouts.jsonl").write_text("nonsense\n{}\n"), "JSON lines")])
def test_what_is_no_run_is_refused_in_one_line(break_it, says, tmp_path):
    run = folder(tmp_path / "run")
    break_it(run)
    with pytest.raises(InputError, match=says) as refused:
        view.main([str(run), "--out", str(tmp_path / "run.html")])
    assert "\n" not in str(refused.value)


def test_a_place_that_cannot_be_written_to_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        view.main([str(folder(tmp_path / "run")), "--out", str(tmp_path / "nowhere" / "run.html")])


def test_a_page_that_fails_does_not_end_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(view, "write_page", lambda *_: 1 / 0)
    monkeypatch.setattr(run_room.Run, "__init__", lambda self: None)
    run = run_room.Run()
    run.folder = folder(tmp_path / "run")
    (run.folder / "metrics.jsonl").write_text("")
    run.draw_curves()
    assert "no run.html" in capsys.readouterr().out


# ---- search trees

def recorded(method, policy, answers=(3, 2), budget=60):
    context = SearchContext(policy, Sums(), [Sums().problem(a) for a in answers], 8, generator=seeded())
    context.record = Record(context)
    if method == "mcts":
        rows, trees = tree_search(context, budget, context.own_confidence, context.own_confidence, root_width=4)
    else:
        allocation = search.rebase_allocation if method == "rebase" else search.top_k
        rows, trees = beam_search(context, 6, context.own_confidence, context.own_confidence, allocation), None
    lines = context.record.lines(rows, method=method, budget=budget, score="confidence", value="confidence")
    return [json.loads(line) for line in lines.splitlines()], trees, context


def test_replaying_the_moves_of_mcts_gives_its_visits_and_totals():
    lines, trees, context = recorded("mcts", coins())
    for i, (line, tree) in enumerate(zip(lines, trees)):
        visits, totals, opened = [0] * len(line["nodes"]), [0.0] * len(line["nodes"]), {0}
        for move in line["moves"]:
            node = move["leaf"]
            assert node in opened and all(line["nodes"][child][0] == node for child in move["children"])
            opened |= set(move["children"])
            while node >= 0 and move["leaf"]:
                visits[node], totals[node], node = visits[node] + 1, totals[node] + move["value"], line["nodes"][node][0]
        assert visits == tree.visits and totals == pytest.approx(tree.totals) and sum(visits) > 0
        assert [parent for parent, *_ in line["nodes"]] == tree.parents
        assert line["moves"][-1]["tokens"] <= line["tokens"] == context.token_cost[i]


@pytest.mark.parametrize("method", ["beam_search", "rebase"])
def test_only_what_was_not_pruned_goes_on(method):
    lines, _, context = recorded(method, coins())
    for i, line in enumerate(lines):
        widths, seen = {0: 6}, {0}
        for move in line["moves"]:
            if "widths" in move:
                widths = {int(node): width for node, width in move["widths"].items()}
                assert move["scores"].keys() == move["widths"].keys() and set(widths) <= seen
            else:
                for node, width in widths.items():
                    assert sum(line["nodes"][child][0] == node for child in move["children"]) == width
                seen |= set(move["children"])
        assert seen == set(range(len(line["nodes"]))) and line["tokens"] == context.token_cost[i] == move["tokens"]


def test_a_node_says_whether_it_ended_and_whether_it_is_right():
    """The policy writes "1, 2" for sure, which is right for 3."""
    lines, _, _ = recorded("beam_search", writes(GO={ONE: 1.0}, ONE={COMMA: 1.0}, COMMA={TWO: 1.0}, TWO={EOS: 1.0}), answers=(3, 4))
    assert lines[0]["nodes"][1] == [0, "1, ", False, False] and ["2", True, True] in [node[1:] for node in lines[0]["nodes"]]
    assert lines[0]["right"] and not lines[1]["right"] and ["2", True, False] in [node[1:] for node in lines[1]["nodes"]]


def test_the_record_changes_no_search():
    def answers(record):
        context = SearchContext(coins(), Sums(), [Sums().problem(3)] * 3, 8, generator=seeded())
        context.record = Record(context) if record else None
        return beam_search(context, 6, context.own_confidence, context.own_confidence), context.token_cost, context.generator.get_state()
    (rows, cost, generator), (others, other_cost, other) = answers(True), answers(False)
    assert rows == others and cost == other_cost and torch.equal(generator, other)
