// Tools of all views: the data as they lie in the page, elements, colours, and what the reader has chosen.
// Whatever a model wrote goes into the page by textContent alone: no text of it can become an element.

const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs;
const $ = id => document.getElementById(id);

// What the reader looks at. It stands in the address too (#view=samples&step=20), so that it can be sent to somebody.
const state = {view: "curves", run: 0, step: 0, group: 0, sample: 0, token: -1, colour: "logp", problem: "", tree: 0, at: 0};
const hidden = new Set();  // numbers of runs that are switched off
for (const [name, value] of new URLSearchParams(location.hash.slice(1)))
  if (name in state) state[name] = typeof state[name] == "number" ? Number(value) || 0 : value;

function remember() {
  history.replaceState(null, "", "#" + new URLSearchParams(state));
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter(child => child != null));  // strings become text nodes, never HTML
  return element;
}
const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function range(title, attributes, write) {  // a labelled slider that says its value
  const output = el("output"), input = el("input", {type: "range", "aria-label": title, ...attributes});
  const say = () => { output.textContent = write(Number(input.value)); };
  input.addEventListener("input", say);
  say();
  return {input, say, label: el("label", {}, title, input, output)};
}

function select(title, options, chosen, change) {  // options: [value, text]
  const box = el("select", {"aria-label": title, onchange: () => change(box.value)},
                 options.map(([value, text]) => el("option", {value, selected: String(value) == String(chosen)}, text)));
  return el("label", {}, title, box);
}

const short = x => x == null ? "–" : Number.isInteger(x) ? String(x) : Math.abs(x) >= 100 ? x.toFixed(0) : Math.abs(x) >= 0.095 ? x.toFixed(2)
  : x == 0 ? "0" : Math.abs(x) >= 1e-3 ? x.toFixed(4) : x.toExponential(1);
const mean = list => list.reduce((sum, x) => sum + x, 0) / list.length;
const visible = () => RUNS.filter((run, k) => !hidden.has(k));

// Runs that differ in nothing but the seed share a colour, if there are others that differ in more.
{
  const setting = run => JSON.stringify({...run.config, seed: 0, out: "", init: ""});
  const settings = [...new Set(RUNS.map(setting))];
  RUNS.forEach((run, k) => {
    run.number = k;
    run.colour = `var(--run${(settings.length > 1 ? settings.indexOf(setting(run)) : k) % 8})`;
    run.dash = ["", "6 3", "2 3", "9 3 2 3"][settings.length > 1 ? k % 4 : Math.floor(k / 8) % 4];
    run.steps = [...new Set(run.groups.map(group => group.step))].sort((a, b) => a - b);
  });
}

function nearest(list, x) {
  return list.reduce((best, y) => Math.abs(y - x) < Math.abs(best - x) ? y : best, list[0]);
}
