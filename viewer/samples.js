// Samples: a step, its groups, a group as a table, a sample as coloured text; and one problem over steps and runs.

const QUANTITIES = {  // how a token is coloured. of: its number; scale: number -> -1 (orange) ... 1 (blue); ends: what the key says
  logp: {title: "log-prob", of: t => t.logp, scale: x => x / 4, ends: ["unlikely", "certain"]},
  entropy: {title: "entropy", of: t => t.entropy, scale: x => x / 2, ends: ["0", "2 nats"]},
  advantage: {title: "advantage", of: t => t.advantage, scale: (x, most) => x / most, ends: ["worse than expected", "better"]},
  ratio: {title: "ratio after the update", of: t => t.ratio, scale: x => Math.log(Math.max(x, 1e-3)) / Math.log(1.5), ends: ["rarer: 0.67", "likelier: 1.5"]},
  kl: {title: "KL to the reference", of: t => t.kl, scale: x => x, ends: ["reference: likelier", "policy: likelier"]},
  value: {title: "value", of: t => t.value, scale: x => 2 * x - 1, ends: ["0", "1"]},
  none: {title: "nothing", of: () => null, scale: () => 0, ends: ["", ""]},
};
const NUMBERS = {logp: "log-prob", p: "probability", entropy: "entropy", advantage: "advantage", ratio: "ratio", ref: "reference's log-prob",
                 kl: "log-prob − reference", value: "value before it"};
const FILTERS = {
  "all": () => true, "right": s => s.right === true, "wrong": s => s.right === false,
  "right by wrong steps": s => s.right === true && falseSteps(s) > 0, "not ended": s => !s.finished, "clipped": s => clippedTokens(s) > 0,
};
const table = {filter: "all", sort: 0, down: false, clip: null};  // clip: null, the run's own; else both sides
const falseSteps = sample => (sample.steps || []).filter(step => step[1] === false).length;

function token(sample, t) {  // all that is known of a token
  const get = name => sample[name] == null ? null : (Array.isArray(sample[name]) ? sample[name][t] : sample[name]) / 1000;
  const found = {piece: DATA.words[sample.tokens[t]], logp: get("logp"), entropy: get("entropy"), advantage: get("advantage"),
                 ratio: get("ratio"), ref: get("ref"), value: get("value")};
  found.p = found.logp == null ? null : Math.exp(found.logp);
  found.kl = found.ref == null || found.logp == null ? null : found.logp - found.ref;
  return found;
}

function isClipped(sample, t) {
  const {advantage, ratio} = token(sample, t), [low, high] = table.clip == null ? sample.group.clip || [] : [table.clip, table.clip];
  return low != null && ratio != null && (advantage > 0 && ratio > 1 + high || advantage < 0 && ratio < 1 - low);
}
const clippedTokens = sample => sample.ratio == null || sample.advantage == null ? 0 : sample.tokens.filter((_, t) => isClipped(sample, t)).length;

const textOf = sample => sample.tokens.map(k => DATA.words[k]).join("");
const verdict = sample => sample.right === true ? "✓ right" : !sample.finished ? "… not ended" : sample.right === false ? "✗ wrong" : "reward " + short(sample.reward);

for (const run of RUNS) for (const group of run.groups) {
  group.run = run;
  group.samples.forEach((sample, k) => Object.assign(sample, {group, number: k}));
}

// The pieces of a sample as coloured elements. `inside`: each can be pointed at, and reached by the arrow keys.
function tokenSpans(sample, quantity, inside) {
  const {of, scale} = QUANTITIES[quantity], marks = new Map();
  const most = Math.max(1e-6, ...sample.group.samples.flatMap(s => [s.advantage ?? 0].flat()).map(a => Math.abs(a) / 1000));
  let from = 1;  // behind <think>
  for (const [end, holds, possible] of sample.steps || []) {
    for (let t = from; t <= end; t++) marks.set(t, holds === false ? "false" : holds && possible === false ? "dead" : "");
    from = end + 1;
  }
  return sample.tokens.map((_, t) => {
    const one = token(sample, t), x = of(one), share = x == null ? 0 : Math.max(-1, Math.min(1, scale(x, most)));
    const colour = share ? `background:color-mix(in srgb, var(--${share > 0 ? "plus" : "minus"}) ${Math.round(75 * Math.abs(share))}%, transparent)` : null;
    const classes = [marks.get(t), isClipped(sample, t) && inside ? "clipped" : ""].filter(x => x).join(" ");
    return el("span", {style: colour, class: classes || null, ...(inside ? {tabindex: t ? -1 : 0, "data-t": t} : {})}, one.piece);
  });
}

function key(quantity) {
  const stops = [-1, -.5, 0, .5, 1].map(x => `color-mix(in srgb, var(--${x > 0 ? "plus" : "minus"}) ${75 * Math.abs(x)}%, transparent)`);
  const half = {logp: stops.slice(0, 3), entropy: stops.slice(2)}[quantity] || stops, [low, high] = QUANTITIES[quantity].ends;
  return quantity == "none" ? el("span") : el("span", {class: "soft"}, low + " ", el("i", {class: "key", style: `background:linear-gradient(90deg,${half})`}), " " + high);
}

// ---- the view: run and step, then the groups, then the table, then the sample; each redraws what lies below it

function showSamples(run, step) {
  Object.assign(state, {run, step, group: 0, sample: 0, token: -1});
  show("samples");
}

const groupsHere = () => RUNS[state.run].groups.filter(group => group.step == state.step);

function drawSamples() {
  state.run = Math.min(state.run, RUNS.length - 1);
  const run = RUNS[state.run], box = $("samples");
  if (!run.steps.length) return box.replaceChildren(el("p", {}, `${run.name} holds no samples.`));
  state.step = nearest(run.steps, state.step);
  const place = range("step", {min: 0, max: run.steps.length - 1, value: run.steps.indexOf(state.step), id: "step"}, k => String(run.steps[k]));
  const go = k => { if (k >= 0 && k < run.steps.length) { place.input.value = k; place.say(); state.step = run.steps[k]; state.group = state.sample = 0; drawGroups(); } };
  place.input.addEventListener("input", () => go(Number(place.input.value)));
  box.replaceChildren(
    el("div", {class: "row"},
      RUNS.length > 1 ? select("run", RUNS.map((r, k) => [k, r.name]), state.run, value => { state.run = Number(value); drawSamples(); }) : null,
      place.label,
      el("button", {type: "button", "aria-label": "step before", onclick: () => go(Number(place.input.value) - 1)}, "◀"),
      el("button", {type: "button", "aria-label": "step after", onclick: () => go(Number(place.input.value) + 1)}, "▶")),
    el("div", {id: "groups", class: "row"}), el("div", {id: "table"}), el("div", {id: "sample"}));
  drawGroups();
}

function drawGroups() {
  const groups = groupsHere(), right = group => group.samples.filter(s => s.right).length;
  state.group = Math.min(state.group, groups.length - 1);
  $("groups").replaceChildren(...[...groups, null].map((group, k) => {
    if (!group && groups.length < 2) return "";
    const name = group ? `${group.kind == "val" ? "val" : "training"}: ${group.problem.trim()}` : "all groups of this step";
    const count = group && group.samples[0].right != null ? ` ${right(group)}/${group.samples.length}` : "";
    const number = group ? k : -1;
    return el("button", {type: "button", "aria-pressed": String(state.group == number),
                         onclick: () => { state.group = number; state.sample = 0; drawGroups(); }}, name + count);
  }));
  drawTable();
}

const COLUMNS = [["#", s => s.number + 1], ["verdict", verdict], ["reward", s => s.reward], ["advantage", s => averageOf(s, "advantage")],
                 ["tokens", s => s.tokens.length], ["log-prob", s => averageOf(s, "logp")], ["entropy", s => averageOf(s, "entropy")],
                 ["false steps", s => s.steps ? falseSteps(s) : null], ["clipped", s => s.ratio == null ? null : clippedTokens(s)], ["text", textOf]];
function averageOf(sample, name) {
  return sample[name] == null ? null : (Array.isArray(sample[name]) ? mean(sample[name]) : sample[name]) / 1000;
}

function drawTable() {
  const groups = groupsHere(), chosen = state.group < 0 ? groups : [groups[state.group]];
  const all = chosen.flatMap(group => group.samples), columns = COLUMNS.filter(([, of]) => all.some(s => of(s) != null));
  const of = (columns[table.sort] || columns[0])[1], order = (a, b) => of(a) < of(b) ? -1 : of(a) > of(b) ? 1 : 0;
  const rows = all.filter(FILTERS[table.filter]).sort((a, b) => table.down ? order(b, a) : order(a, b));
  const choose = sample => { state.group = groups.indexOf(sample.group) >= 0 && state.group >= 0 ? groups.indexOf(sample.group) : state.group;
                             state.sample = all.indexOf(sample); state.token = -1; mark(); drawSample(all[state.sample]); };
  const mark = () => [...$("table").querySelectorAll("tr.choice")].forEach((row, k) => row.setAttribute("aria-selected", String(rows[k] == all[state.sample])));
  const sortBy = k => { table.down = table.sort == k && !table.down; table.sort = k; drawTable(); $("table").querySelectorAll("th button")[k].focus(); };
  $("table").replaceChildren(
    el("div", {class: "row", role: "group", "aria-label": "filter"}, Object.keys(FILTERS).map(name => el("button",
      {type: "button", "aria-pressed": String(table.filter == name), "data-filter": name,
       onclick: () => { table.filter = name; drawTable(); $("table").querySelector(`[data-filter="${name}"]`).focus(); }}, `${name} ${all.filter(FILTERS[name]).length}`))),
    rows.length ? el("div", {class: "scroll"}, el("table", {},
      el("thead", {}, el("tr", {}, columns.map(([name], k) => el("th", {class: name == "text" ? "text" : null, "aria-sort": table.sort == k ? (table.down ? "descending" : "ascending") : "none"},
        el("button", {type: "button", onclick: () => sortBy(k)}, name + (table.sort == k ? (table.down ? " ▾" : " ▴") : "")))))),
      el("tbody", {}, rows.map(sample => el("tr", {class: "choice", tabindex: 0, onclick: () => choose(sample), onkeydown: event => {
        const next = {ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling"}[event.key];
        if (event.key == "Enter" || event.key == " ") choose(sample);
        else if (next) event.currentTarget[next]?.focus();
        else return;
        event.preventDefault();
      }}, columns.map(([name, value]) => {
        const x = value(sample), text = name == "text" ? textOf(sample).replaceAll("\n", " ⏎ ") : typeof x == "string" ? x : short(x);
        return el("td", {class: name == "text" ? "text" : name == "verdict" && sample.right != null ? (sample.right ? "yes" : "no") : null}, text);
      })))))) : el("p", {class: "soft"}, "No sample of this kind here."));
  mark();
  drawSample(all[state.sample] || all[0]);
}

function drawSample(sample) {
  remember();
  const has = Object.keys(QUANTITIES).filter(name => name == "none" || QUANTITIES[name].of(token(sample, 0)) != null);
  if (!has.includes(state.colour)) state.colour = has[0];
  const numbers = el("div", {class: "numbers", "aria-live": "polite"}, el("p", {class: "soft"}, "Point at a token, or walk with the arrow keys: its numbers, and what else could have stood there."));
  const text = el("div", {class: "tokens", id: "text", role: "group", "aria-label": "the sample, token by token"});
  const note = el("p", {class: "soft"});
  const look = target => {
    if (!target?.dataset.t) return;
    text.querySelector(".here")?.classList.remove("here");
    target.classList.add("here");
    state.token = Number(target.dataset.t);
    tell(numbers, sample, state.token);
  };
  text.addEventListener("pointerover", event => look(event.target));
  text.addEventListener("focusin", event => { look(event.target); remember(); });
  text.addEventListener("keydown", event => {
    const by = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10}[event.key], t = Number(event.target.dataset.t);
    if (!by) return;
    event.preventDefault();
    const next = text.querySelector(`[data-t="${Math.max(0, Math.min(sample.tokens.length - 1, t + by))}"]`);
    event.target.tabIndex = -1; next.tabIndex = 0; next.focus();
  });
  const own = sample.group.clip, canClip = sample.ratio != null && sample.advantage != null;
  const redraw = () => {
    text.replaceChildren(el("span", {class: "prompt"}, sample.group.problem), ...tokenSpans(sample, state.colour, true));
    look(text.querySelector(`[data-t="${state.token}"]`));
    const false_ = falseSteps(sample), cut = clippedTokens(sample);
    note.textContent = [verdict(sample), canClip ? `${cut} of ${sample.tokens.length} tokens would be clipped (boxes)` : "",
      sample.steps ? `${false_} false step${false_ == 1 ? "" : "s"} (wavy line); dotted: true, but the target is out of reach from here` : ""].filter(x => x).join(" · ");
    shade.replaceChildren(key(state.colour));
  };
  const shade = el("span");
  const colours = select("colour by", has.map(name => [name, QUANTITIES[name].title]), state.colour, value => { state.colour = value; redraw(); remember(); });
  const clip = range("clip", {min: -4, max: 0, step: 0.02, id: "clip", value: Math.log10(table.clip ?? own?.[0] ?? 0.2)},
                     x => table.clip == null && own ? `the run's: −${short(own[0])} +${short(own[1])}` : `±${short(10 ** x)}`);
  clip.input.addEventListener("input", () => { table.clip = 10 ** Number(clip.input.value); clip.say(); redraw(); });
  clip.input.addEventListener("change", () => { drawTable(); $("clip").focus(); });
  $("sample").replaceChildren(
    el("h2", {}, `Sample ${sample.number + 1}: ${sample.group.problem.trim()}`),
    el("div", {class: "row"}, colours, shade, canClip ? clip.label : null,
      canClip && table.clip != null ? el("button", {type: "button", onclick: () => { table.clip = null; drawTable(); }}, "the run's clip") : null,
      el("button", {type: "button", onclick: () => { state.problem = sample.group.problem; show("problem"); }}, "this problem elsewhere")),
    el("div", {class: "sample"}, el("div", {}, text, note), numbers));
  redraw();
}

function tell(box, sample, t) {  // all numbers of a token, and the alternatives
  const one = token(sample, t), list = sample.alternatives?.[t] || [], pairs = [];
  for (let k = 0; k < list.length; k += 2) pairs.push([DATA.words[list[k]], list[k + 1] / 1000]);
  const written = piece => el("code", {}, piece.replaceAll("\n", "⏎"));
  box.replaceChildren(el("strong", {}, written(one.piece)), ` token ${t + 1} of ${sample.tokens.length}`,
    el("table", {}, Object.entries(NUMBERS).filter(([name]) => one[name] != null).map(([name, title]) => el("tr", {}, el("td", {}, title), el("td", {}, one[name].toFixed(3))))),
    pairs.length ? el("p", {class: "soft"}, "likeliest here") : "",
    el("table", {}, pairs.map(([piece, p]) => el("tr", {}, el("td", {class: piece == one.piece ? "differs" : null}, written(piece)), el("td", {}, p.toFixed(3)),
      el("td", {style: "width:45%"}, el("span", {class: "bar", style: `width:${100 * p}%`}))))));
}

// ---- one problem: over the steps of training, and in several runs side by side

function drawProblem() {
  const seen = new Map();  // problem -> its groups
  for (const run of visible()) for (const group of run.groups) seen.set(group.problem, [...seen.get(group.problem) || [], group]);
  const often = [...seen].filter(([, groups]) => groups.length > 1).sort((a, b) => b[1].length - a[1].length).map(([problem]) => problem);
  const box = $("problem");
  if (!often.length) return box.replaceChildren(el("p", {}, "No problem occurs twice in what was logged. Looks at val (--eval-every) see the same few again and again."));
  if (!seen.has(state.problem)) state.problem = often[0];
  if (!often.includes(state.problem)) often.unshift(state.problem);
  const groups = seen.get(state.problem), steps = [...new Set(groups.map(group => group.step))].sort((a, b) => a - b);
  state.step = nearest(steps, state.step);
  const place = range("step", {min: 0, max: steps.length - 1, value: steps.indexOf(state.step), id: "when"}, k => String(steps[k]));
  const columns = el("div", {class: "columns"});
  const go = step => { state.step = step; place.input.value = steps.indexOf(step); place.say(); draw(); };
  place.input.addEventListener("input", () => go(steps[Number(place.input.value)]));
  const draw = () => {
    remember();
    columns.replaceChildren(...visible().map(run => {
      const own = groups.filter(group => group.run == run), near = own.length ? nearest(own.map(group => group.step), state.step) : null;
      const share = group => group.samples.filter(s => s.right).length / group.samples.length;
      const strip = svg("svg", {class: "strip", viewBox: `0 0 ${Math.max(1, own.length) * 12} 34`, height: 34, width: Math.min(560, Math.max(1, own.length) * 12), preserveAspectRatio: "none",
                                role: "img", "aria-label": "share of right samples over the steps"},
        own.map((group, k) => svg("rect", {x: 12 * k + 1, y: 32 - 30 * share(group) - 1, width: 10, height: 30 * share(group) + 2, fill: run.colour, opacity: group.step == near ? 1 : 0.45,
                                           onclick: () => go(group.step)}, svg("title", {}, `step ${group.step}: ${short(share(group))} right`))));
      return el("div", {}, el("h2", {style: `color:${run.colour}`}, run.name), strip,
        el("p", {class: "soft"}, near == null ? "does not know this problem" : `step ${near}`),
        own.filter(group => group.step == near).flatMap(group => group.samples).map(sample => el("button", {type: "button", class: "tokens small",
          onclick: () => { Object.assign(state, {run: run.number, step: near, group: run.groups.filter(g => g.step == near).indexOf(sample.group), sample: sample.number}); show("samples"); }},
          el("b", {class: sample.right ? "yes" : "no"}, verdict(sample) + " "), tokenSpans(sample, state.colour, false))));
    }));
  };
  const has = Object.keys(QUANTITIES).filter(name => name == "none" || groups.some(g => QUANTITIES[name].of(token(g.samples[0], 0)) != null));
  if (!has.includes(state.colour)) state.colour = has[0];
  const shade = el("span", {}, key(state.colour));
  box.replaceChildren(el("div", {class: "row"},
      select("problem", often.map(problem => [problem, `${problem.trim()} (${seen.get(problem).length})`]), state.problem, value => { state.problem = value; drawProblem(); }),
      place.label, select("colour by", has.map(name => [name, QUANTITIES[name].title]), state.colour, value => { state.colour = value; shade.replaceChildren(key(value)); draw(); }), shade),
    el("p", {class: "soft"}, "Bars: the share of right samples at each step. A click on a sample opens it."), columns);
  draw();
}
