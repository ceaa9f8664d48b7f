// The page: tabs, the legend of the runs, the settings, dark or light; then it begins.

const VIEWS = {curves: ["Curves", drawCurves], samples: ["Samples", drawSamples], problem: ["One problem", drawProblem], search: ["Search", drawSearch],
               live: ["Live", drawLive], settings: ["Settings", drawSettings]};

function show(view) {
  state.view = view;
  for (const name in VIEWS) {
    $(name).hidden = name != view;
    $("tab-" + name)?.setAttribute("aria-selected", String(name == view));
  }
  VIEWS[view][1]();
  remember();
}

function drawTabs() {
  const there = Object.keys(VIEWS).filter(name => name != "live" || DATA.live).filter(name => name != "search" || RUNS.some(run => run.trees.length));
  $("tabs").replaceChildren(...there.map(name => el("button", {type: "button", role: "tab", id: "tab-" + name, "aria-controls": name, onclick: () => show(name)}, VIEWS[name][0])));
  return there;
}

function drawLegend() {
  $("legend").replaceChildren(...RUNS.map((run, k) => el("button", {type: "button", "aria-pressed": String(!hidden.has(k)), title: "show or hide", onclick: () => {
    hidden.has(k) ? hidden.delete(k) : hidden.add(k);
    if (hidden.size == RUNS.length) hidden.clear();
    drawLegend();
    show(state.view);
  }}, el("i", {style: `background:${run.colour}`}), `${run.name}: ${run.config.algo} on ${run.config.task}, seed ${run.config.seed}`)));
}

function drawSettings() {
  const names = [...new Set(RUNS.flatMap(run => Object.keys(run.config)))], of = (run, name) => String(run.config[name] ?? "–");
  const differs = name => new Set(RUNS.map(run => of(run, name))).size > 1;
  const after = [...new Set(RUNS.flatMap(run => Object.keys(run.summary?.after || {})))];
  const two = (run, name) => run.summary ? `${short(run.summary.before?.[name])} → ${short(run.summary.after?.[name])}` : "–";
  const rows = (list, write, bold) => el("div", {class: "scroll"}, el("table", {},
    el("thead", {}, el("tr", {}, el("th", {class: "text"}, ""), RUNS.map(run => el("th", {}, run.name)))),
    el("tbody", {}, list.map(name => el("tr", {}, el("td", {class: "text"}, name), RUNS.map(run => el("td", {class: bold && differs(name) ? "differs" : null}, write(run, name))))))));
  $("settings").replaceChildren(
    el("h2", {}, "Test split, before → after"), after.length ? rows(after, two) : el("p", {class: "soft"}, "No summary.json: the run has not ended."),
    el("h2", {}, "Settings"), el("p", {class: "soft"}, RUNS.length > 1 ? "First, and bold, what differs." : ""),
    rows(names.sort((a, b) => differs(b) - differs(a)), of, RUNS.length > 1));
}

let lives = false;
function drawLive() {
  if (!lives) startLive($("live"), DATA.live.models, DATA.live.example);
  lives = true;
}

$("theme").addEventListener("click", () => {
  const root = document.documentElement.style, dark = root.colorScheme ? root.colorScheme == "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.colorScheme = dark ? "light" : "dark";
});
const there = drawTabs();
drawLegend();
show(there.includes(state.view) ? state.view : "curves");
