"""The page of view.py in a real browser: headless Chromium, where it is installed. What is clicked, typed and moved does what it says."""
import json

import pytest
import torch

import checkpoint
import tasks
import view
from browser import CHROMIUM, LOOKS, Browser
from model import GPT, GPTConfig
from sample import generate
from toys import seed

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed (Debian: apt-get install chromium)")
EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"
HALF = 0.6931


def sample(text, reward=0.0, right=False, finished=True, advantage=1.0, ratio=1.0, steps=()):
    """A sample of rollouts.jsonl whose tokens are the words of `text`, each with probability 1/2."""
    tokens = [word + " " for word in text.split(" ")]
    n = len(tokens)
    return {"tokens": tokens, "reward": reward, "right": right, "finished": finished, "steps": list(steps), "logprobs": [-HALF] * n,
            "entropies": [0.5] * n, "advantages": [advantage] * n, "ratios": [ratio + 0.1 * t for t in range(n)], "clipped": [],
            "alternatives": [[[token, 0.5], ["other", 0.25]] for token in tokens]}


def group(step, kind, problem, *samples):
    return {"step": step, "kind": kind, "problem": problem, "clip": [0.2, 0.2], "samples": samples}


TREE = {"method": "mcts", "budget": 16, "problem": "Use 3, 5 to make 8.\n", "score": "rule", "value": "rollouts", "tokens": 12, "right": True,
        "chosen": "3 + 5 = 8", "nodes": [[-1, "Use 3, 5 to make 8.\n", False, False], [0, "3 + 5", False, False], [0, EVIL, False, False], [1, " = 8", True, True]],
        "moves": [{"leaf": 0, "value": 0.5, "children": [1, 2], "priors": [0.75, 0.25], "tokens": 6},
                  {"leaf": 1, "value": 1.0, "children": [3], "priors": [1.0], "tokens": 12}]}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Two runs written by hand, the first with a model. -> folder with run.html (both runs, and the model)."""
    folder = tmp_path_factory.mktemp("pages")
    task = tasks.load("countdown", numbers=2, attempts=1)
    for name, shift in (("first", 0), (f"second {EVIL}".replace("/", "|"), 0.25)):
        run = folder / name
        run.mkdir()
        (run / "config.json").write_text(json.dumps({"algo": "grpo", "task": "countdown", "seed": shift, "lr": EVIL}))
        lines = [{"step": k, "accuracy": 0.05 * k + shift, "reward": 0.05 * k, "entropy": 1 / k, **({"val_pass@1": 0.5} if k % 5 == 0 else {})} for k in range(1, 11)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        groups = [group(0, "val", "Use 3, 5 to make 8.\n", sample("nothing known yet")),
                  group(5, "train", f"Use {EVIL}\n", sample("step five"), sample(EVIL)),
                  group(10, "val", "Use 3, 5 to make 8.\n",
                        # ratios 1.0 1.1 1.2 1.3: the clip of 0.2 cuts what is above 1.2
                        sample("step ten is right", 1.0, True), sample("is wrong", advantage=-1.0), sample("never ends", finished=False),
                        sample("right by luck", 1.0, True, steps=[[1, False, False]]))]
        (run / "rollouts.jsonl").write_text("".join(json.dumps(g) + "\n" for g in groups))
        (run / "trees.jsonl").write_text(json.dumps(TREE) + "\n")
    torch.manual_seed(seed())
    model = GPT(GPTConfig(task.tokenizer.n_vocab, 40, n_layer=2, n_head=2, n_embd=32))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4 if p.ndim == 2 else 1)
    for name, scale in (("first", 1.0), ("warm", 0.9)):
        (folder / name).mkdir(exist_ok=True)
        torch.manual_seed(seed())
        model.embed.weight.data *= scale
        checkpoint.save(folder / name / "checkpoint.pt", model, task, {"algo": "grpo" if name == "first" else "sft", "max_new_tokens": 0},
                        state={"warm_start": str(folder / "warm")})
    view.write_page([run for run in sorted(folder.iterdir()) if (run / "config.json").exists()], folder / "run.html", live=True)
    return folder


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def opened(browser, pages):
    return browser.open(pages / "run.html")


@pytest.fixture
def page(opened):
    """The page, just loaded. At its end: nothing in red in the console, nothing asked of the network, no box opened."""
    opened.reload()
    opened.js("window.alert = () => { window.alerted = true }")
    yield opened
    assert opened.errors == [] and opened.js("window.alerted") is None and len(opened.requests) == 1


def texts(page, selector):
    return page.js(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)")


def slide(page, selector, value):
    """What moving a slider, or choosing from a list, does."""
    page.js(f"(e => {{ e.value = {json.dumps(value)}; for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {{bubbles: true}})) }})"
            f"(document.querySelector({json.dumps(selector)}))")


VIEWS = ("curves", "samples", "problem", "search", "live", "settings")


# ---- every view

@pytest.mark.parametrize("look", LOOKS)
def test_every_view_opens_without_an_error_and_fits_the_width(look, browser, pages):
    page = browser.open(pages / "run.html", **LOOKS[look])
    for name in VIEWS:
        page.click(f"#tab-{name}")
        assert page.js(f"!document.getElementById('{name}').hidden && document.getElementById('{name}').innerText.length > 20"), name
        assert page.js("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the window"
    dark = page.js("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).every(x => x < 80)")
    assert dark == (look == "dark") and page.errors == [] and len(page.requests) == 1
    page.close()


def test_the_button_turns_light_into_dark(page):
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.js(colour)
    page.click("#theme")
    assert page.js(colour) != before
    page.click("#theme")
    assert page.js(colour) == before


def test_what_a_model_wrote_stays_text(page):
    """In samples, prompts, trees, settings and names: the page holds the scripts and pictures that it was made with, none."""
    count = page.js("document.querySelectorAll('script, img').length")
    page.js("showSamples(0, 5)")
    page.js("document.querySelectorAll('#table tr.choice')[1].click()")
    assert EVIL in texts(page, "#text")[0] and EVIL in texts(page, "#groups")[0]
    for name in VIEWS:
        page.click(f"#tab-{name}")
    assert EVIL in texts(page, "#settings")[0] and EVIL.replace("/", "|") in texts(page, "#legend")[0]
    assert page.js("document.querySelectorAll('script, img').length") == count == 2


# ---- from the trend to the step to the sample

def test_a_click_on_a_step_of_a_curve_shows_that_steps_samples(page):
    at = page.js("""(() => { const svg = document.querySelector('#panel-accuracy svg'); svg.scrollIntoView({block: 'center'});
                 const box = svg.getBoundingClientRect(); return [box.x, box.y, box.width, box.height] })()""")
    x, y, width, height = at
    for kind in ("mousePressed", "mouseReleased"):  # 14 of 320 units from the right: the last step, 10
        page.call("Input.dispatchMouseEvent", type=kind, x=x + width * 306 / 320, y=y + height * 0.9, button="left", clickCount=1)
    assert page.js("!document.getElementById('samples').hidden") and "step10" in texts(page, "#samples .row")[0].replace(" ", "")
    assert any("step ten is right" in text for text in texts(page, "#table tr.choice")) and "Use 3, 5 to make 8." in texts(page, "#groups")[0]


def test_the_keyboard_opens_a_step_and_walks_through_a_sample(page):
    page.js("document.querySelector('#panel-accuracy svg').focus()")
    for key in ["ArrowRight"] * 5 + ["Enter"]:
        page.press(key)
    assert any("step five" in text for text in texts(page, "#table tr.choice"))
    page.js("document.querySelector('#table tr.choice').focus()")
    page.press("ArrowDown"), page.press("Enter")
    assert EVIL in texts(page, "#text")[0]
    page.js("document.querySelector('#text [tabindex=\"0\"]').focus()")
    page.press("ArrowRight")
    assert "token 2 of" in texts(page, ".numbers")[0] and "0.500" in texts(page, ".numbers")[0] and "other" in texts(page, ".numbers")[0]


def test_the_slider_of_the_step_shows_other_samples(page):
    page.js("showSamples(0, 0)")
    assert "nothing known yet" in texts(page, "#table")[0]
    slide(page, "#step", 2)
    assert "step ten" in texts(page, "#table")[0] and "nothing known" not in texts(page, "#table")[0]


def test_a_filter_shows_what_it_says(page):
    page.js("showSamples(0, 10)")
    word = {"right": "✓ right", "right by wrong steps": "luck", "not ended": "never ends", "clipped": "step ten"}
    for name, shown in (("all", 4), ("right", 2), ("wrong", 2), ("right by wrong steps", 1), ("not ended", 1), ("clipped", 1)):
        page.click(f'#table [data-filter="{name}"]')
        rows = texts(page, "#table tr.choice")
        assert len(rows) == shown and f"{name} {shown}" in texts(page, "#table [data-filter]")
        assert all(word.get(name, "") in row for row in rows)


def test_a_column_sorts_both_ways(page):
    page.js("showSamples(0, 10)")
    rewards = "[...document.querySelectorAll('#table tr.choice')].map(row => Number(row.children[2].textContent))"
    for expected in ([0, 0, 1, 1], [1, 1, 0, 0]):
        page.click("#table th:nth-child(3) button")
        assert page.js(rewards) == expected


def test_the_slider_of_the_clip_says_and_shows_which_tokens_it_would_cut(page):
    """Ratios 1.0, 1.1, 1.2, 1.3 with a positive advantage."""
    page.js("showSamples(0, 10)")
    for clip, cut in ((0.25, 1), (0.05, 3), (0.15, 2), (0.5, 0)):
        slide(page, "#clip", torch.tensor(clip).log10().item())
        assert f"{cut} of 4 tokens would be clipped" in texts(page, "#sample")[0]
        assert page.js("document.querySelectorAll('#text .clipped').length") == cut


def test_tokens_are_coloured_by_what_is_chosen(page):
    page.js("showSamples(0, 10)")
    style = "document.querySelector('#text [data-t=\"1\"]').getAttribute('style')"
    found = {}
    for name in ("logp", "entropy", "advantage", "ratio", "none"):
        slide(page, "#sample select", name)
        found[name] = page.js(style)
    assert "--minus" in found["logp"] and "--plus" in found["advantage"] and not found["none"] and len(set(found.values())) >= 4


def test_a_false_step_is_underlined(page):
    page.js("showSamples(0, 10)")
    page.click("#table tr.choice:nth-child(4)")
    assert texts(page, "#text .false") == ["by "] and "1 false step" in texts(page, "#sample")[0]


def test_smoothing_changes_the_curves_and_switching_off_a_run_takes_its_line_away(page):
    line = "document.querySelector('#panel-entropy path[fill=none]').getAttribute('d')"
    before = page.js(line)
    slide(page, "#curves input[type=range]", 5)  # a short run begins without
    assert page.js(line) != before
    lines = "document.querySelectorAll('#panel-entropy path[fill=none]').length"
    assert page.js(lines) == 2
    page.click("#legend button")
    assert page.js(lines) == 1


def test_one_problem_is_shown_over_steps_in_both_runs_and_leads_to_the_sample(page):
    page.click("#tab-problem")
    assert len(texts(page, "#problem .columns > div")) == 2
    slide(page, "#when", 1)
    assert all("step ten" in column for column in texts(page, "#problem .columns > div"))
    page.click("#problem .columns > div:nth-child(2) button.tokens")
    assert page.js("!document.getElementById('samples').hidden") and "step ten" in texts(page, "#text")[0]


def test_a_search_is_played_move_by_move(page):
    page.click("#tab-search")
    slide(page, "#move", 0)
    assert len(texts(page, "#search .tree g")) == 1 and "0 tokens sampled of 12" in texts(page, "#search")[0]
    seen = []
    for _ in range(20):
        seen.append(texts(page, "#search p")[0].split(":")[0].split(".")[0])
        page.click('#search button[aria-label="move after"]')
    assert [word for word in seen if word in ("Select", "Evaluate", "Expand", "Back up")] == ["Evaluate", "Expand", "Select", "Evaluate", "Expand", "Back up"]
    assert len(texts(page, "#search .tree g")) == 4 and "12 tokens sampled of 12" in texts(page, "#search")[0]


# ---- the model in the page

@pytest.fixture
def live(page):
    page.click("#tab-live")
    slide(page, "#live-pace", "0")
    return page


DONE = "[...document.querySelectorAll('.live-end')].every(e => e.textContent)"
WRITTEN = ".live-card:nth-child({}) .live-written, .live-card:nth-child({}) .live-forced"


def ask(page, text):
    page.js("document.getElementById('live-prompt').focus()")
    page.type(text)
    page.press("Enter")


def written(page, card):
    return texts(page, WRITTEN.format(card, card))


def test_the_page_answers_a_typed_problem_as_torch_does(live, pages):
    """Greedy, both models; the full stop is left out, as people do."""
    slide(live, "#live-temperature", 0)
    ask(live, "Use 3, 9 to make 12")
    live.wait(DONE)
    for card, name in ((1, "warm"), (2, "first")):
        model, task, _ = checkpoint.load_run(pages / name)
        model.load_state_dict({key: w.half().float() if "blocks" in key and w.ndim == 2 else w for key, w in model.state_dict().items()})
        prompt = task.tokenizer.encode("Use 3, 9 to make 12.\n")
        rollout = generate(model, [prompt], task.max_new_tokens, temperature=0, eos=1)
        expected = ["∎" if token == 1 else task.tokenizer.decode([token]).replace("\n", "⏎\n") for token in rollout.tokens[0].tolist()]
        assert texts(live, f".live-card:nth-child({card}) .live-prompt") + written(live, card) == [
            piece if token != 0 else "<|pad|>" for piece, token in zip(expected, rollout.tokens[0].tolist())]


def test_what_cannot_be_read_gets_one_line_with_an_example(live):
    for text, why in (("Use 3, 555 to make 8", "555"), ("", "no problem yet"), ("hello", "h"), (EVIL, "<"),
                      ("Use 3, 5, 7 to make 8", "9 tokens are more than the 7")):
        ask(live, text)
        line = texts(live, "#live-message")[0]
        assert why in line and "Type a problem like: Use 3, 5 to make 8." in line and "\n" not in line


def test_one_token_at_a_time(live):
    slide(live, "#live-temperature", 0)  # the likeliest token: a sampled one may be the end
    for count in (1, 2, 3):
        live.click(".live-one")
        assert len(written(live, 1)) == len(written(live, 2)) == count


def test_bars_are_the_probabilities_and_the_temperature_sharpens_them(live):
    live.click(".live-one")
    numbers = "[...document.querySelectorAll('.live-card:nth-child(1) .live-bar .live-number')].map(e => Number(e.textContent))"
    at_one = live.js(numbers)
    slide(live, "#live-temperature", 0.2)
    sharp = live.js(numbers)
    assert at_one[:8] == sorted(at_one[:8], reverse=True) and sharp[0] > at_one[0] > 1 / 119
    slide(live, "#live-temperature", 0)
    assert live.js(numbers) == at_one and "always the likeliest" in texts(live, ".live-sliders")[0]


def test_a_candidate_that_is_pressed_stands_there_and_the_model_goes_on(live):
    slide(live, "#live-temperature", 0)
    live.click(".live-main")
    live.wait(DONE)
    before = written(live, 2)
    live.click(".live-card:nth-child(2) .live-written")  # the first token
    candidate = texts(live, ".live-card:nth-child(2) .live-bar code")[3]
    live.click(".live-card:nth-child(2) .live-bars li:nth-child(4) button")
    live.wait(DONE)
    after = written(live, 2)
    assert texts(live, ".live-forced") == [after[0]] and after[0].replace("⏎\n", "⏎").replace("∎", "∎ end") == candidate and after[0] != before[0]
    assert len(after) > 1 or after == ["∎"]
    assert "put there by you" in texts(live, ".live-card:nth-child(2) h4")[0]


def test_the_arrow_keys_walk_through_the_text_and_a_head_colours_what_it_looked_at(live):
    live.click(".live-main")
    live.wait(DONE)
    live.js("document.querySelector('.live-text').focus()")
    live.press("Home")
    assert "Token 1 " in texts(live, ".live-card h4")[0] + " "
    live.press("ArrowRight")
    assert "Token 2" in texts(live, ".live-card h4")[0]
    tints = "[...document.querySelectorAll('.live-card:nth-child(1) .live-token')].map(e => parseInt(e.style.getPropertyValue('--tint')))"
    live.click(".live-card:nth-child(1) .live-head:nth-child(3)")
    assert len(texts(live, ".live-card:nth-child(1) .live-head")) == 4  # 2 layers of 2 heads
    assert live.js("document.activeElement.className") == "live-head" and 98 <= sum(live.js(tints)) <= 102 + 8  # rounded shares of 1
    live.press("Enter")
    assert live.js("document.querySelectorAll('.live-head[aria-pressed=true]').length") == 0


def test_asking_often_counts_the_right_answers(live):
    live.click(".live-often")
    live.wait("[...document.querySelectorAll('.live-tally')].every(e => /of 32 right/.test(e.textContent))")
    assert all("×)" in text for text in texts(live, ".live-tally"))
