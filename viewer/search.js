// Search trees, played move by move: what was selected, opened, evaluated, backed up or pruned, and what it cost.

// A recorded tree -> the frames of its film. A frame: what it says, and visits, totals, scores, path and pruned nodes at that moment.
function film(tree) {
  const frames = [], parent = node => tree.nodes[node][0], mcts = tree.method == "mcts";
  let visits = {}, totals = {}, scores = {}, priors = {}, values = {}, pruned = new Set(), shown = new Set([0]), tokens = 0;
  const frame = (does, says, path = []) => frames.push({does, says, path: new Set(path), visits: {...visits}, totals: {...totals}, scores: {...scores}, priors, values: {...values},
                                                          pruned: new Set(pruned), shown: new Set(shown), tokens});
  const name = node => node ? `“${tree.nodes[node][1].trim() || "end"}”` : "the prompt";
  frame("start", "The prompt is the root. Nothing has been sampled.");
  for (const move of tree.moves) {
    if (mcts) {
      const path = [];
      for (let node = move.leaf; node >= 0; node = parent(node)) path.unshift(node);
      if (move.leaf) frame("select", `Select: from the root always to the child with the largest Q + U, down to ${name(move.leaf)}.`, path);
      values[move.leaf] = move.value;
      frame("evaluate", `Evaluate: ${name(move.leaf)} is worth ${short(move.value)}.`, path);
      tokens = move.tokens;
      move.children.forEach((child, k) => { shown.add(child); priors[child] = move.priors[k]; });
      frame("expand", move.children.length ? `Expand: ${move.children.length} next step${move.children.length == 1 ? "" : "s"} drawn here.`
        : tree.nodes[move.leaf][2] ? "Expand: this is an end, nothing comes after it." : "Expand: nothing new was drawn.", path);
      if (move.leaf) {
        for (const node of path) { visits[node] = (visits[node] || 0) + 1; totals[node] = (totals[node] || 0) + move.value; }
        frame("back up", `Back up: ${short(move.value)} is told to every node on the path; their visits go up by 1.`, path);
      }
    } else if (move.widths) {
      Object.assign(scores, move.scores);
      const gone = Object.keys(move.widths).filter(node => !move.widths[node]).map(Number), kept = Object.keys(move.widths).length - gone.length;
      frame("evaluate", "Evaluate: each half-finished solution gets a score.", Object.keys(move.scores).map(Number));
      gone.forEach(node => pruned.add(node));
      Object.assign(visits, move.widths);
      frame("prune", `Prune: ${kept} go on, as often as it says behind ×; ${gone.length} are given up.`, Object.keys(move.widths).map(Number).filter(node => move.widths[node]));
    } else {
      tokens = move.tokens;
      move.children.forEach(child => shown.add(child));
      frame("expand", `Expand: ${move.children.length} steps are written.`, move.children);
    }
  }
  tokens = tree.tokens;
  frame("end", `The end: ${tree.tokens} tokens were sampled. Chosen, and ${tree.right ? "right" : "wrong"}: ${tree.chosen.replaceAll("\n", " ⏎ ")}`);
  return frames;
}

function layout(tree) {  // depth goes right, leaves go down: [x, y] of each node, and the size of it all
  const children = tree.nodes.map(() => []), place = [];
  tree.nodes.forEach(([parent], k) => { if (parent >= 0) children[parent].push(k); });
  let leaves = 0, depth = 0;
  const walk = (node, x) => {
    depth = Math.max(depth, x);
    const below = children[node].map(child => walk(child, x + 1));
    const y = below.length ? (below[0] + below.at(-1)) / 2 : leaves++;
    place[node] = [30 + 185 * x, 20 + 26 * y];
    return y;
  };
  walk(0, 0);
  return {place, width: 300 + 185 * depth, height: 30 + 26 * leaves};
}

const play = {timer: null};

function drawSearch() {
  const trees = visible().flatMap(run => run.trees.map(tree => ({...tree, run})));
  clearInterval(play.timer);
  if (!trees.length) return $("search").replaceChildren(el("p", {}, "These runs hold no trees: python search.py RUN --trees RUN/trees.jsonl"));
  state.tree = Math.min(state.tree, trees.length - 1);
  const tree = trees[state.tree], frames = film(tree), {place, width, height} = layout(tree), last = frames.length - 1;
  const at = range("move", {min: 0, max: last, value: Math.min(state.at || last, last), id: "move"}, k => `${k} of ${last}`);
  const says = el("p", {"aria-live": "polite"}), cost = el("progress", {max: Math.max(tree.tokens, 1), "aria-label": "tokens spent"}), costs = el("span", {class: "soft"});
  const drawing = svg("svg", {width, height, role: "group", "aria-label": "the tree"}), detail = el("div", {class: "numbers", "aria-live": "polite"}, el("p", {class: "soft"}, "Point at a node."));
  const draw = () => {
    const f = frames[Number(at.input.value)], size = node => tree.method == "mcts" ? 5 + Math.min(9, 2 * Math.sqrt(f.visits[node] || 0)) : 8;
    const worth = node => f.visits[node] && tree.method == "mcts" ? f.totals[node] / f.visits[node] : f.scores[node] ?? f.values[node];
    const shade = x => x == null ? "var(--page)" : `color-mix(in srgb, var(--${x > 0.5 ? "plus" : "minus"}) ${Math.round(Math.min(1, 2 * Math.abs(x - 0.5)) * 85)}%, var(--page))`;
    const label = node => node ? tree.nodes[node][1].replaceAll("\n", "⏎").replace(/<[^>]*>/g, " ").replace(/,? *$/, "").trim().slice(0, tree.nodes[node][2] ? 40 : 16) : "prompt";
    const wide = node => size(node) + 9 + 7.3 * (label(node).length + (worth(node) == null ? 0 : 1 + short(worth(node)).length) + (tree.method != "mcts" && f.visits[node] ? 3 : 0));  // circle and label
    state.at = Number(at.input.value);
    remember();
    says.textContent = f.says;
    cost.value = f.tokens;
    costs.textContent = `${f.tokens} tokens sampled of ${tree.tokens}`;
    const nodes = [...f.shown];
    drawing.replaceChildren(
      ...nodes.filter(node => node).map(node => {
        const parent = tree.nodes[node][0], [x, y] = place[node], [px, py] = place[parent];
        return svg("path", {class: "edge" + (f.path.has(node) && (f.path.has(parent) || tree.method != "mcts") ? " path" : ""), d: `M${px + wide(parent)} ${py}C${x - 25} ${py} ${x - 25} ${y} ${x} ${y}`});
      }),
      ...nodes.map(node => {
        const [, text, ended, right] = tree.nodes[node], [x, y] = place[node], worthHere = worth(node);
        const numbers = {step: text.trim() || (ended ? "end" : "–"), visits: tree.method == "mcts" ? f.visits[node] || 0 : null, "goes on": tree.method == "mcts" ? null : f.visits[node],
                         "mean value Q": tree.method == "mcts" && f.visits[node] ? f.totals[node] / f.visits[node] : null, prior: f.priors[node], "value when opened": f.values[node],
                         score: f.scores[node], "the answer is": ended ? (right ? "right" : "wrong") : null, "pruned": f.pruned.has(node) ? "yes" : null};
        const look = () => detail.replaceChildren(el("table", {}, Object.entries(numbers).filter(([, x]) => x != null).map(([name, x]) =>
          el("tr", {}, el("td", {}, name), el("td", {}, typeof x == "number" ? short(x) : x)))));
        return svg("g", {tabindex: 0, class: f.pruned.has(node) ? "pruned" : null, onpointerenter: look, onfocus: look, "aria-label": Object.entries(numbers).filter(([, x]) => x != null).map(pair => pair.join(" ")).join(", ")},
          svg("circle", {cx: x, cy: y, r: size(node), fill: shade(worthHere), "stroke-width": f.path.has(node) ? 3 : 1}),
          svg("text", {x: x + size(node) + 5, y: y + 4}, label(node), ended ? (right ? " ✓" : " ✗") : "", worthHere == null ? "" : svg("tspan", {"font-weight": 700}, ` ${short(worthHere)}`), tree.method != "mcts" && f.visits[node] ? ` ×${f.visits[node]}` : ""));
      }));
  };
  const go = k => { at.input.value = k; at.say(); draw(); };
  at.input.addEventListener("input", draw);
  const run = el("button", {type: "button", id: "play", onclick: () => {
    clearInterval(play.timer);
    if (run.textContent == "stop") return void (run.textContent = "play");
    run.textContent = "stop";
    if (Number(at.input.value) == last) go(0);
    play.timer = setInterval(() => {
      if (Number(at.input.value) == last || $("search").hidden) { clearInterval(play.timer); run.textContent = "play"; } else go(Number(at.input.value) + 1);
    }, 500);
  }}, "play");
  const title = one => `${RUNS.length > 1 ? one.run.name + ", " : ""}${one.method}, budget ${one.budget}: ${one.problem.trim()} ${one.right ? "✓" : "✗"}`;
  $("search").replaceChildren(
    el("div", {class: "row"}, select("search", trees.map((one, k) => [k, title(one)]), state.tree, value => { state.tree = Number(value); state.at = 0; drawSearch(); })),
    el("div", {class: "row"}, el("button", {type: "button", "aria-label": "move before", onclick: () => go(Number(at.input.value) - 1)}, "◀"), at.label,
      el("button", {type: "button", "aria-label": "move after", onclick: () => go(Number(at.input.value) + 1)}, "▶"), run, cost, costs),
    says, el("div", {class: "sample"}, el("div", {class: "tree"}, drawing), detail),
    el("p", {class: "soft"}, `Fill: blue is worth more than ½, orange less. ${tree.method == "mcts" ? "Size: visits." : "Crossed out: pruned."} Finished solutions are scored by ${tree.score}, half-finished ones by ${tree.value}.`));
  draw();
}
