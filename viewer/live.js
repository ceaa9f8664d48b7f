// The model in the page: ask it, watch it think, turn the temperature, put another token somewhere and see how it goes on.
// The models are those of forward.js. Everything that a person types or a model writes goes in as text, never as HTML.
"use strict";

const LIVE_BARS = 8;    // candidates that are shown for a token
const LIVE_TIMES = 32;  // answers of "Ask 32 times"

/** An element: make("button", {class: "x", onclick: f}, "text", child, ...). */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** A token as it can be seen: blanks between bars are blanks, ends of lines have a sign. */
const visible = piece => piece.replace(/\n/g, "⏎") || "∅";
const percent = p => p >= 0.0995 ? p.toFixed(2) : p >= 0.001 ? p.toFixed(3) : p > 0 ? p.toExponential(0) : "0";

/** One model and what it has read and written. `out[t]` is what the model said after ids[t]: about ids[t + 1], as in sample.py. */
class Thinker {
  constructor(packed) {
    Object.assign(this, { packed, model: new Model(packed), vocabulary: new Vocabulary(packed.vocabulary) });
    this.cache = this.model.cache();
    this.limit = Math.min(packed.config.block_size, packed.max_prompt_tokens + packed.max_new_tokens);
    this.start([]);
  }
  start(ids) {
    Object.assign(this, { ids: [], out: [], forced: new Set(), prompt: ids.length, seconds: 0, read: 0 });
    ids.forEach(id => this.push(id));
  }
  push(id) {
    const began = performance.now();
    this.out.push(this.model.step(id, this.ids.length, this.cache));
    this.ids.push(id);
    this.seconds += (performance.now() - began) / 1000;
    this.read++;
  }
  get ended() { return this.ids.length > this.prompt && this.ids.at(-1) === 1; }
  get full() { return this.ids.length >= Math.min(this.prompt + this.packed.max_new_tokens, this.limit); }
  get done() { return !this.prompt || this.ended || this.full; }
  /** Write one token. */
  write(temperature) { this.push(choose(this.out.at(-1).logits, temperature)); }
  /** Put `id` at place t, forget what came after it. The cache needs nothing: later positions are written over. */
  force(t, id) {
    for (const place of [...this.forced]) if (place >= t) this.forced.delete(place);
    this.ids.length = this.out.length = t;
    this.forced.add(t);
    this.push(id);
  }
  /** Another answer to the same problem, beside the one that is shown -> {text, ended}. The cache of the prompt is shared. */
  sample(temperature) {
    this.side ||= this.model.cache();
    if (this.sideOf !== this.ids) this.ids.slice(0, this.prompt).forEach((id, t) => this.model.step(id, t, this.side));
    this.sideOf = this.ids;
    const most = Math.min(this.packed.max_new_tokens, this.limit - this.prompt), words = [];
    let out = this.out[this.prompt - 1];
    while (words.length < most) {
      const id = choose(out.logits, temperature);
      if (id === 1) return { text: words.join(""), ended: true };
      words.push(this.packed.vocabulary[id]);
      out = this.model.step(id, this.prompt + words.length - 1, this.side);
    }
    return { text: words.join(""), ended: false };
  }
  get question() { return this.ids.slice(0, this.prompt).map(id => this.packed.vocabulary[id]).join(""); }
  /** The distribution that token t was chosen from, or will be. */
  probabilities(t, temperature) { return softmax(this.out[t - 1].logits, temperature); }
  text(from = this.prompt) { return this.ids.slice(from).filter(id => id > 1).map(id => this.packed.vocabulary[id]).join(""); }
  /** log of the product of the probabilities of all tokens that were written. */
  logProbability(temperature) {
    let sum = 0;
    for (let t = this.prompt; t < this.ids.length; t++) sum += Math.log(this.probabilities(t, temperature)[this.ids[t]]);
    return sum;
  }
}

/** Countdown alone can be judged without a key, by what the prompt says. -> true, false, or null: another task. */
function verdict(prompt, completion) {
  const asked = /^Use ([0-9, ]+) to make ([0-9]+)\.\s*$/.exec(prompt);
  if (!asked) return null;
  const around = ["<answer>", "</answer>"].map(tag => completion.split(tag));
  if (around.some(parts => parts.length !== 2) || around[0][0].includes("</answer>")) return false;  // two answers are none
  const answer = around[0][1].split("</answer>")[0];
  if (!/^[-+*\/()\s0-9]+$/.test(answer) || /\b0[0-9]/.test(answer)) return false;
  const sorted = numbers => numbers.map(Number).sort((a, b) => a - b).join();
  if (sorted(answer.match(/[0-9]+/g) || []) !== sorted(asked[1].match(/[0-9]+/g))) return false;
  const tokens = answer.match(/[0-9]+|[-+*\/()]/g);
  let i = 0;
  const atom = () => {
    if (tokens[i] !== "(") return /^[0-9]+$/.test(tokens[i]) ? Number(tokens[i++]) : NaN;
    i++;
    const value = sum();
    return tokens[i++] === ")" ? value : NaN;
  };
  const term = () => {
    let value = atom();
    while (tokens[i] === "*" || tokens[i] === "/") value = tokens[i++] === "*" ? value * atom() : value / atom();
    return value;
  };
  const sum = () => {
    let value = term();
    while (tokens[i] === "+" || tokens[i] === "-") value = tokens[i++] === "+" ? value + term() : value - term();
    return value;
  };
  return Math.abs(sum() - Number(asked[2])) < 1e-9 && i === tokens.length;
}

/** The card of one model: its text, the token that is looked at, what else could have come there, where the heads looked. */
class Card {
  constructor(thinker, settings, forced) {
    Object.assign(this, { thinker, settings, forced, selected: 0, follow: true, head: null });
    this.text = make("div", { class: "live-text", tabindex: 0, role: "listbox", "aria-label": `what ${thinker.packed.name} writes`,
                              onkeydown: event => this.key(event) });
    this.status = make("p", { class: "live-status" });
    this.tally = make("p", { class: "live-tally", role: "status" });
    this.detail = make("div", { class: "live-detail" });
    this.element = make("article", { class: "live-card", "aria-label": thinker.packed.name },
                        make("h3", {}, thinker.packed.name), this.text, this.status, this.tally, this.detail);
  }

  /** Ask often: how often is it right, and what are the answers? Pauses now and then, so that the page stays alive. */
  async count(times) {
    const { thinker, settings } = this, question = thinker.question, ids = thinker.ids, found = new Map();
    let right = 0, paused = performance.now();
    for (let done = 1; done <= times; done++) {
      const { text, ended } = thinker.sample(settings.temperature), verdicted = ended && verdict(question, text);
      const answer = ended ? (/<answer>([^]*?)<\/answer>/.exec(text) || [0, "no answer"])[1] : "out of room";
      const of = found.get(answer) || { count: 0, right: verdicted };
      found.set(answer, { ...of, count: of.count + 1 });
      right += verdicted === true;
      if (performance.now() - paused > 30 || done === times) {
        const likeliest = [...found].sort((a, b) => b[1].count - a[1].count).slice(0, 4);
        const judged = verdict(question, "") !== null;
        this.tally.replaceChildren(make("strong", {}, judged ? `${right} of ${done} right` : `${done} answers`), ": ",
          likeliest.map(([text, of]) => `${judged ? (of.right ? "✓ " : "✗ ") : ""}${text} (${of.count}×)`).join(" · "), found.size > 4 ? " · …" : "");
        await new Promise(go => setTimeout(go));
        if (thinker.ids !== ids) return this.tally.replaceChildren();  // another problem was asked meanwhile
        paused = performance.now();
      }
    }
  }

  select(t, follow = false) {
    const { ids, done } = this.thinker;
    this.selected = Math.max(1, Math.min(t, ids.length - (done ? 1 : 0)));
    this.follow = follow;
    this.draw();
  }

  key(event) {
    const to = { ArrowLeft: this.selected - 1, ArrowRight: this.selected + 1, Home: this.thinker.prompt, End: this.thinker.ids.length };
    if (!(event.key in to)) return;
    event.preventDefault();
    this.select(to[event.key]);
  }

  draw() {
    const { thinker } = this, { ids, prompt, out } = thinker;
    if (!ids.length) return;
    if (this.follow) this.selected = ids.length - (thinker.done ? 1 : 0);
    const attention = this.head && out[this.selected - 1].attention[this.head[0]][this.head[1]];
    const spans = ids.map((id, t) => {
      const piece = thinker.packed.vocabulary[id], kind = t < prompt ? "prompt" : thinker.forced.has(t) ? "forced" : "written";
      const span = make("span", { class: `live-token live-${kind}`, role: "option", id: `${this.element.id}-${t}`,
                                  "aria-selected": String(t === this.selected), onclick: () => t && this.select(t) },
                        id === 1 ? "∎" : piece.replace("\n", "⏎\n"));
      span.style.setProperty("--tint", `${Math.round(100 * this.tint(t, attention))}%`);
      return span;
    });
    if (!thinker.done) spans.push(make("span", { class: "live-token live-next", role: "option", id: `${this.element.id}-${ids.length}`, title: "the next token",
                                         "aria-selected": String(this.selected === ids.length), onclick: () => this.select(ids.length) }, "▁"));
    this.text.replaceChildren(...spans);
    this.text.setAttribute("aria-activedescendant", `${this.element.id}-${this.selected}`);
    this.drawStatus();
    this.drawDetail();
  }

  /** How strongly token t is coloured, 0 to 1. */
  tint(t, attention) {
    if (attention) return t < attention.length ? attention[t] : 0;
    if (t < this.thinker.prompt) return 0;
    const p = this.thinker.probabilities(t, this.settings.temperature);
    return this.settings.colour === "entropy" ? Math.min(1, entropy(p) / 2.5) : 0.9 * (1 - p[this.thinker.ids[t]]);
  }

  drawStatus() {
    const { thinker, settings } = this, count = thinker.ids.length - thinker.prompt;
    const right = thinker.ended && verdict(thinker.question, thinker.text());
    const end = !thinker.done ? "" : !thinker.ended ? "out of room: counts as wrong" : right === null ? "ended by itself" : right ? "right" : "wrong";
    const mark = { right: "✓ ", wrong: "✗ ", "out of room: counts as wrong": "✗ " }[end] || "";
    const parts = [`${count} token${count === 1 ? "" : "s"}`];
    if (count) parts.push(`probability of this text ${percent(Math.exp(thinker.logProbability(settings.temperature)))}`);
    parts.push(`${Math.round(thinker.read / Math.max(1e-3, thinker.seconds)).toLocaleString("en")} tokens/s in this browser`);
    this.status.replaceChildren(make("strong", { class: "live-end" }, mark + end), end ? " · " : "", parts.join(" · "));
  }

  drawDetail() {
    const { thinker, settings, selected } = this, { ids } = thinker, pieces = thinker.packed.vocabulary;
    const drawn = [selected, ids.slice(0, selected + 1), settings.temperature, this.head].join();
    if (drawn === this.drawn) return;  // nothing has changed: the keyboard may be somewhere in it
    this.drawn = drawn;
    const p = thinker.probabilities(selected, settings.temperature), chosen = ids[selected];
    const order = Array.from(p.keys()).sort((a, b) => p[b] - p[a]), shown = order.slice(0, LIVE_BARS);
    if (chosen !== undefined && !shown.includes(chosen)) shown.push(chosen);
    const what = chosen === undefined ? "The next token"
      : `Token ${selected - thinker.prompt + 1}` + (thinker.forced.has(selected) ? ", put there by you" : "");
    const inPrompt = selected < thinker.prompt;
    const bars = shown.map(id => make("li", {}, make("button", { type: "button", class: "live-bar", "aria-pressed": String(id === chosen),
        disabled: inPrompt, title: inPrompt ? "" : "put this token here, and let the model go on", onclick: () => this.forced(this, selected, id) },
      make("code", {}, id === 1 ? "∎ end" : visible(pieces[id])),
      make("span", { class: "live-measure" }, make("span", { style: `width:${(100 * p[id]).toFixed(1)}%` })),
      make("span", { class: "live-number" }, percent(p[id])))));
    this.detail.replaceChildren(
      make("h4", {}, inPrompt ? `Prompt, token ${selected + 1}` : what,
           make("small", {}, ` entropy ${entropy(p).toFixed(2)} nats` + (chosen === undefined ? "" : `, chosen with ${percent(p[chosen])}`))),
      make("ol", { class: "live-bars" }, ...bars),
      make("h4", {}, "Where each head looked", make("small", {}, " before this token; press one to see it in the text")),
      make("div", { class: "live-heads" }, ...this.heads()));
  }

  heads() {
    const { ids, out, packed } = this.thinker;
    return out[this.selected - 1].attention.flatMap((looks, layer) => looks.map((look, head) => {
      const pressed = this.head && this.head[0] === layer && this.head[1] === head;
      const strip = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      strip.setAttribute("viewBox", `0 0 ${look.length} 1`);
      strip.setAttribute("preserveAspectRatio", "none");
      look.forEach((weight, t) => {
        if (weight < 0.02) return;
        const cell = document.createElementNS("http://www.w3.org/2000/svg", "rect");
        for (const [name, value] of Object.entries({ x: t, y: 0, width: 1, height: 1, "fill-opacity": weight.toFixed(2) })) cell.setAttribute(name, value);
        strip.append(cell);
      });
      const most = look.indexOf(look.reduce((a, b) => Math.max(a, b)));
      return make("button", { type: "button", class: "live-head", "aria-pressed": String(Boolean(pressed)),
                              "aria-label": `layer ${layer + 1}, head ${head + 1}: most on ${visible(packed.vocabulary[ids[most]])}, ${percent(look[most])}`,
                              onclick: () => { this.head = pressed ? null : [layer, head]; this.draw(); this.refocus(layer, head); } },
                  make("span", {}, `${layer + 1}.${head + 1}`), strip, make("code", {}, visible(packed.vocabulary[ids[most]])),
                  make("span", { class: "live-number" }, percent(look[most])));
    }));
  }

  /** What was pressed has been drawn anew: the keyboard stays where it was. */
  refocus(layer, head) {
    const n = this.thinker.packed.config.n_head;
    this.detail.querySelectorAll(".live-head")[layer * n + head].focus();
  }
}

/** Build the view in `root`. models: what weights.py packed, side by side, all of one task; example: a first prompt. */
function startLive(root, models, example) {
  const settings = { temperature: 1, colour: "surprise", pace: 20 };
  const cards = models.map((packed, i) => {
    const card = new Card(new Thinker(packed), settings, force);
    card.element.id = `live-${i}`;
    return card;
  });
  let running = null, asked = null;

  const input = make("input", { id: "live-prompt", type: "text", value: example.trim(), autocomplete: "off", spellcheck: "false", size: 40,
                                "aria-describedby": "live-message" });
  const message = make("p", { id: "live-message", role: "alert" });
  const stop = make("button", { type: "button", class: "live-stop", onclick: () => running ? halt() : run(cards) }, "Go on");
  const temperature = make("input", { id: "live-temperature", type: "range", min: 0, max: 2, step: 0.1, value: 1, oninput: () => {
    settings.temperature = Number(temperature.value);
    degrees.textContent = settings.temperature ? settings.temperature.toFixed(1) : "0: always the likeliest";
    cards.forEach(card => card.draw());
  } });
  const degrees = make("output", { for: "live-temperature" }, "1.0");
  const pace = make("select", { id: "live-pace", onchange: () => { settings.pace = Number(pace.value); } },
                    ...[[4, "slowly"], [20, "to read along"], [0, "at once"]].map(([value, name]) => make("option", { value, selected: value === 20 }, name)));
  const colour = make("select", { id: "live-colour", onchange: () => {
    settings.colour = colour.value;
    cards.forEach(card => { card.head = null; card.draw(); });
  } }, make("option", { value: "surprise" }, "surprise: strong is unlikely"), make("option", { value: "entropy" }, "entropy: strong is undecided"));

  const form = make("form", { class: "live-form", onsubmit: event => { event.preventDefault(); if (ask()) run(cards); } },
    make("label", { for: "live-prompt" }, "Problem"), input,
    make("div", { class: "live-buttons" }, make("button", { type: "submit", class: "live-main" }, "Think"), stop,
      make("button", { type: "button", class: "live-one", onclick: () => { halt(); if (asked === input.value || ask()) cards.forEach(one); } }, "One token"),
      make("button", { type: "button", class: "live-often", onclick: often }, `Ask ${LIVE_TIMES} times`),
      make("button", { type: "button", onclick: another }, "Another problem")),
    make("div", { class: "live-sliders" },
      make("span", {}, make("label", { for: "live-temperature" }, "Temperature"), temperature, degrees),
      make("span", {}, make("label", { for: "live-pace" }, "Pace"), pace), make("span", {}, make("label", { for: "live-colour" }, "Colour"), colour)));
  const help = make("p", { class: "live-help" }, "Choose a token (click, or ← →) to see what else could have come there. " +
    "Press a candidate to put it there: the model goes on from it. Grey is the problem; a frame marks what you have put there; ∎ is the end.");
  root.replaceChildren(make("style", {}, LIVE_STYLE), form, message, help, make("div", { class: "live-cards" }, ...cards.map(card => card.element)));
  ask();

  /** Every model reads the problem. -> false, and one line, if it cannot. */
  function ask() {
    halt();
    message.textContent = "";
    const { vocabulary, packed } = cards[0].thinker;  // all models are of one task
    try {
      const end = example.endsWith("\n") ? "\n" : "";
      const typed = [input.value.trim() + end, `${input.value.trim().replace(/\.*$/, "")}.${end}`];  // the full stop may be left out
      let ids;
      try { ids = vocabulary.encode(typed[0]); } catch (error) { ids = vocabulary.encode(typed[1]); }
      if (ids.length < 2) throw new Error("there is no problem yet");
      if (ids.length > packed.max_prompt_tokens) throw new Error(`${ids.length} tokens are more than the ${packed.max_prompt_tokens} of the longest problem`);
      cards.forEach(card => { card.thinker.start(ids); card.tally.replaceChildren(); card.select(ids.length, true); });
      asked = input.value;
      stop.disabled = false;
      return true;
    } catch (error) {
      message.textContent = `${error.message}. Type a problem like: ${example.trim()}`;
      return false;
    }
  }

  function another() {
    const { examples } = cards[0].thinker.packed, others = examples.filter(text => text.trim() !== input.value.trim());
    input.value = (others[Math.floor(Math.random() * others.length)] || example).trim();
    if (ask()) run(cards);
  }

  async function often() {
    if (asked === input.value || ask()) for (const card of cards) await card.count(LIVE_TIMES);
  }

  function one(card) {
    if (card.thinker.done) return;
    card.thinker.write(settings.temperature);
    card.draw();
  }

  function force(card, t, id) {
    halt();
    card.thinker.force(t, id);
    card.select(t);
    card.text.focus({ preventScroll: true });
    run([card]);
  }

  /** Let some cards write until all are done, at the chosen pace. */
  function run(some) {
    halt();
    const turn = () => {
      const began = performance.now();
      do some.forEach(one); while (!settings.pace && some.some(card => !card.thinker.done) && performance.now() - began < 30);
      if (some.every(card => card.thinker.done)) halt();
      else running = setTimeout(turn, settings.pace ? 1000 / settings.pace : 0);
    };
    running = setTimeout(turn, 0);
    stop.textContent = "Stop";
    stop.disabled = false;
  }

  function halt() {
    clearTimeout(running);
    running = null;
    stop.textContent = "Go on";
    stop.disabled = cards.every(card => card.thinker.done);
  }
}

if (typeof module !== "undefined") module.exports = { verdict };  // node, for the tests

const LIVE_STYLE = `
.live-form { display: grid; gap: .5rem; max-width: 60rem }
.live-form > label { font-weight: 600 }
.live-form input[type=text] { font: 1.05rem ui-monospace, monospace; padding: .5rem; width: 100%; color: inherit;
                              background: var(--box, transparent); border: 1px solid var(--line, gray); border-radius: 6px }
.live-form button:disabled { opacity: .5; cursor: default }
.live-form .live-main { font-weight: 600 }
.live-buttons, .live-sliders { display: flex; flex-wrap: wrap; gap: .4rem .8rem; align-items: center }
.live-sliders span { display: inline-flex; gap: .4rem; align-items: center; max-width: 100% }
.live-sliders select { min-width: 0 }
.live-sliders output { min-width: 2rem }
#live-message { color: var(--wrong, #c2410c); margin: .3rem 0; min-height: 1.5em; overflow-wrap: anywhere }
.live-help { max-width: 60rem; color: var(--soft, gray); margin: 0 0 .75rem }
.live-cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)) }
.live-card { display: grid; grid-template-rows: subgrid; grid-row: span 5; row-gap: 0; min-width: 0;
             border: 1px solid var(--line, gray); border-radius: 6px; padding: .75rem }
.live-card h3, .live-card h4 { margin: 0 0 .4rem; font-size: 1rem }
.live-card h4 { margin-top: .8rem; font-size: .9rem }
.live-card small { font-weight: 400; color: var(--soft, gray) }
.live-text { font: 1rem/1.9 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; min-height: 7.6rem }
.live-token { cursor: pointer; border-radius: .2rem; padding: .1rem 0;
              background: color-mix(in srgb, var(--minus, #e57a22) calc(var(--tint, 0%) * .75), transparent) }
.live-prompt { color: var(--soft, gray) }
.live-forced { outline: 2px dashed currentColor; outline-offset: -1px }
.live-token[aria-selected=true] { box-shadow: 0 0 0 3px var(--focus, #0072b2) }
.live-status { margin: .5rem 0; font-size: .85rem; font-variant-numeric: tabular-nums }
.live-tally { margin: .2rem 0; font-size: .9rem; overflow-wrap: anywhere }
.live-bars { list-style: none; margin: 0; padding: 0 }
.live-card .live-bar, .live-card .live-head {
  display: grid; width: 100%; gap: .5rem; align-items: center; font-size: .85rem; text-align: left; min-height: 1.6rem; padding: .1rem .3rem;
  border: 1px solid transparent; border-radius: .25rem; background: none; color: inherit; opacity: 1 }
.live-card .live-bar { grid-template-columns: 6.5rem 1fr 3.2rem }
.live-card .live-head { grid-template-columns: 2rem 1fr 5rem 3.2rem; min-height: 1.35rem }
.live-card .live-bar:enabled:hover, .live-card .live-head:hover { background: var(--box, transparent); border-color: var(--line, gray) }
.live-card .live-bar[aria-pressed=true], .live-card .live-head[aria-pressed=true] { border-color: var(--focus, #0072b2); background: var(--box, transparent) }
.live-bar code, .live-head code { white-space: pre; overflow: hidden; text-overflow: ellipsis }
.live-measure { background: color-mix(in srgb, currentColor 10%, transparent); height: .7rem; border-radius: .2rem; overflow: hidden }
.live-measure span { display: block; height: 100%; background: var(--plus, #2f8fd0) }
.live-number { text-align: right; font-variant-numeric: tabular-nums }
.live-head svg { width: 100%; height: 1rem; background: color-mix(in srgb, currentColor 7%, transparent); fill: var(--minus, #e57a22) }
`;
