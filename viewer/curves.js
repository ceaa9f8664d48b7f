// Curves of all metrics, and the signs of a run that goes wrong.

const FIRST = ["accuracy", "reward", "entropy", "kl", "length", "finished", "groups_with_variance", "explained_variance", "margin",
               "attempts", "hits", "legal", "correct_marks", "pass@8", "greedy", "grad_norm", "clip_fraction"];
const LEFT_OUT = ["step", "val_problems"];
const panelOf = name => name == "val_pass@1" ? "accuracy" : name.replace(/^val_/, "");
const curve = {smooth: Math.max(0, ...RUNS.map(run => (run.metrics.step || []).length)) > 50 ? 5 : 1, cursor: null, panels: []};

function smoothed(values, width) {  // the mean of a value and those before it; gaps stay gaps
  return values.map((x, k) => x == null ? null : mean(values.slice(Math.max(0, k + 1 - width), k + 1).filter(y => y != null)));
}

function ticks(low, high) {
  const raw = (high - low) / 4 || 1, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(x => x * unit).find(x => x >= raw), found = [];
  for (let x = Math.ceil(low / step) * step; x <= high + step / 1e6; x += step) found.push(Math.abs(x) < step / 1e6 ? 0 : x);
  return found;
}

const labelOf = (y, all) => y.toFixed(all.length > 1 ? Math.max(0, Math.ceil(-Math.log10(all[1] - all[0]) - 1e-9)) : 2);  // as many digits as tell them apart

function panel(name) {
  const W = 320, H = 170, left = 42, right = 14, top = 8, bottom = 22;
  const lines = visible().flatMap(run => Object.keys(run.metrics).filter(key => panelOf(key) == name && !LEFT_OUT.includes(key)).map(key => {
    const looked = key.startsWith("val_"), values = looked ? run.metrics[key] : smoothed(run.metrics[key], curve.smooth);
    return {run, key, looked, points: run.metrics.step.map((step, k) => [step, values[k]]).filter(point => point[1] != null)};
  })).filter(line => line.points.length);
  if (!lines.length) return null;
  const xs = lines.flatMap(line => line.points.map(p => p[0])), ys = lines.flatMap(line => line.points.map(p => p[1]));
  const x0 = Math.min(0, ...xs), x1 = Math.max(1, ...xs);
  let y0 = Math.min(...ys), y1 = Math.max(...ys);
  if (y0 >= 0 && y0 < 0.6 * y1) y0 = 0;
  if (y1 == y0) { y1 += Math.abs(y1) / 2 || 1; y0 -= y0 ? Math.abs(y0) / 2 : 0; }
  const X = x => left + (x - x0) / (x1 - x0) * (W - left - right), Y = y => H - bottom - (y - y0) / (y1 - y0) * (H - top - bottom);
  const cursor = svg("line", {class: "cursor", y1: top, y2: H - bottom, visibility: "hidden"}), output = el("output");
  const marks = RUNS.filter(run => run.groups.length).slice(0, 1).flatMap(run => run.steps).filter(step => step <= x1);
  const drawing = svg("svg", {viewBox: `0 0 ${W} ${H}`, tabindex: 0, role: "slider", "aria-label": `${name}: left and right move, Enter opens the samples`,
                              "aria-valuemin": x0, "aria-valuemax": x1, "aria-valuenow": x0},
    ticks(y0, y1).map((y, _, all) => [svg("line", {class: "grid", x1: left, x2: W - right, y1: Y(y), y2: Y(y)}),
                            svg("text", {x: left - 5, y: Y(y) + 4, "text-anchor": "end"}, labelOf(y, all))]),
    ticks(x0, x1).filter(x => Number.isInteger(x)).map(x => svg("text", {x: X(x), y: H - 6, "text-anchor": "middle"}, String(x))),
    svg("path", {d: marks.map(step => `M${X(step).toFixed(1)} ${H - bottom}v4`).join(""), stroke: "var(--soft)"}),  // samples are there
    lines.map(line => [
      svg("path", {d: line.points.map(([x, y], k) => `${k ? "L" : "M"}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`).join(""), fill: "none", stroke: line.run.colour,
                   "stroke-width": line.looked ? 2.2 : 1.4, "stroke-dasharray": line.run.dash, opacity: lines.some(l => l.looked) && !line.looked ? 0.6 : 1}),
      line.looked ? line.points.map(([x, y]) => svg("circle", {cx: X(x), cy: Y(y), r: 2.6, fill: line.run.colour})) : []]),
    cursor);
  const one = {name, drawing, move(step) {  // the same step in all panels
    const values = lines.map(line => [line, line.points.reduce((best, p) => Math.abs(p[0] - step) < Math.abs(best[0] - step) ? p : best)]);
    cursor.setAttribute("x1", X(step)); cursor.setAttribute("x2", X(step)); cursor.setAttribute("visibility", "visible");
    output.replaceChildren(...values.flatMap(([line, [, y]]) => [el("span", {style: `color:${line.run.colour}`}, ` ${line.looked ? "●" : "–"}${short(y)}`)]));
    drawing.setAttribute("aria-valuenow", step);
    drawing.setAttribute("aria-valuetext", `step ${step}: ` + values.map(([line, [, y]]) => `${line.run.name} ${short(y)}`).join(", "));
  }};
  const at = event => {
    const box = drawing.getBoundingClientRect();
    const x = x0 + ((event.clientX - box.left) / box.width * W - left) / (W - left - right) * (x1 - x0);
    return Math.max(x0, Math.min(x1, Math.round(x)));
  };
  const open = (step, y) => {  // the run whose curve is nearest to the pointer
    const height = line => Math.abs(Y(line.points.reduce((best, p) => Math.abs(p[0] - step) < Math.abs(best[0] - step) ? p : best)[1]) - y);
    const line = y == null ? lines[0] : lines.reduce((best, l) => height(l) < height(best) ? l : best);
    showSamples(line.run.number, step);
  };
  drawing.addEventListener("pointermove", event => moveCursor(at(event)));
  drawing.addEventListener("click", event => {
    const box = drawing.getBoundingClientRect();
    open(at(event), (event.clientY - box.top) / box.height * H);
  });
  drawing.addEventListener("keydown", event => {
    const by = {ArrowLeft: -1, ArrowRight: 1, PageUp: 10, PageDown: -10}[event.key];
    if (by) moveCursor(Math.max(x0, Math.min(x1, (curve.cursor ?? x0) + by)));
    else if (event.key == "Enter") open(curve.cursor ?? x0, null);
    else return;
    event.preventDefault();
  });
  curve.panels.push(one);
  const both = lines.some(line => line.looked) && lines.some(line => !line.looked);
  return el("figure", {id: "panel-" + name}, el("figcaption", {}, name + " ", output), drawing,
            el("p", {class: "soft"}, DATA.glossary[name] || DATA.glossary["val_" + name] || "", both ? " ●: val." : ""));
}

function moveCursor(step) {
  curve.cursor = step;
  for (const panel of curve.panels) panel.move(step);
}

function drawCurves() {
  const names = [...new Set(visible().flatMap(run => Object.keys(run.metrics)).filter(key => !LEFT_OUT.includes(key)).map(panelOf))];
  const place = name => FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length;
  names.sort((a, b) => place(a) - place(b));
  curve.panels = [];
  const smooth = range("smooth", {min: 1, max: 20, value: curve.smooth}, x => x == 1 ? "off" : `${x} steps`);
  smooth.input.addEventListener("change", () => { curve.smooth = Number(smooth.input.value); drawCurves(); $("curves").querySelector("input").focus(); });
  const figures = names.map(panel).filter(figure => figure);
  $("curves").replaceChildren(
    signsBox(), el("div", {class: "row"}, smooth.label, el("span", {class: "soft"}, "A click on a step opens its samples. Ticks under a curve: samples are there.")),
    figures.length ? el("div", {class: "panels"}, figures) : el("p", {}, "No step has been taken: there are no curves."));
}

// ---- signs: what a person who has seen many runs would look for. Means over the first two and the last five steps.

function signs(run) {
  const m = run.metrics, c = run.config, n = (m.step || []).length, width = Math.min(5, Math.floor(n / 2)), found = [];
  if (n < 6) return found;
  const part = (name, from, to) => mean((m[name] || []).slice(from, to).filter(x => x != null));  // NaN, if nothing is there: no sign
  const early = name => part(name, 0, Math.min(2, width)), late = name => part(name, n - width, n);
  const best = name => Math.max(...Array.from({length: n - width + 1}, (_, k) => part(name, k, k + width)).filter(x => !isNaN(x)));
  const stepOf = test => m.step[Math.max(0, m.step.findIndex((_, k) => test(k)))];
  const say = (text, panels, step) => found.push({run, text, panels, step});
  const fell = best("accuracy") > 0.02 && late("accuracy") < 0.2 * Math.max(best("accuracy"), (m.accuracy || [0])[0]);
  const jump = Math.max(...(m.kl || []).filter(x => x != null));
  if (((m.accuracy || [0])[0] > 0.02 && late("accuracy") < 0.2 * m.accuracy[0] || fell) && late("reward") < 0.5 * early("reward") + 0.1)
    say(`Collapse: accuracy is ${short(late("accuracy"))} at the end; it was ${short(Math.max(m.accuracy[0], best("accuracy")))}. The KL to the warm start went up to `
        + `${short(jump)} nats per token. A rate that is too high does this (here --lr ${c.lr}): start again with a tenth.`,
        ["accuracy", "kl"], stepOf(k => m.accuracy[k] != null && m.accuracy[k] < 0.2 * Math.max(m.accuracy[0], best("accuracy"))));
  const collapsed = found.length > 0, agree = `${Math.round(100 * (1 - late("groups_with_variance")))} % of the groups agree in their reward at the end`;
  const formOnly = late("reward") - late("accuracy") > 0.3 && late("accuracy") < early("accuracy") + 0.02;
  const held = (m["val_pass@1"] || []).filter(x => x != null).at(-1);
  if (late("accuracy") - held > 0.25)
    say(`Learned by heart: ${short(late("accuracy"))} of the training samples are right and ${short(held)} on val${c.train_problems ? ` (here --train-problems ${c.train_problems})` : ""}.`,
        ["accuracy"], m.step[n - 1]);
  if (formOnly)
    say(`Reward without accuracy: the reward is ${short(late("reward"))}, accuracy went from ${short(early("accuracy"))} to ${short(late("accuracy"))}. `
        + `Something else is being paid for (here --format-weight ${c.format_weight}, --accuracy-weight ${c.accuracy_weight}): read the samples.`,
        ["reward", "accuracy"], m.step[n - 1]);
  if (!collapsed && !formOnly && late("groups_with_variance") < 0.2 && early("groups_with_variance") > 0.3)
    say(`Little is left to learn: ${agree}; the entropy went from ${short(early("entropy"))} to ${short(late("entropy"))} nats per token. Fine if the task is solved; else more problems`
        + `${c.train_problems ? ` (here --train-problems ${c.train_problems})` : ""}, a lower --lr, or --entropy-bonus.`, ["groups_with_variance", "entropy"], m.step[n - 1]);
  if (c.beta > 0 && c.kl_estimator == "k1" && late("kl") > 0.03)
    say(`A KL that holds nothing: --beta ${c.beta} with --kl-estimator k1, and yet the policy is ${short(late("kl"))} nats per token away from the warm start. In a loss the gradient of k1 `
        + "knows nothing of the reference; k2 or k3 do.", ["kl"], m.step[n - 1]);
  if (late("finished") < 0.75)
    say(`${Math.round(100 * (1 - late("finished")))} % of the completions are cut off by the token limit, which counts as wrong.`, ["finished", "length"], m.step[n - 1]);
  if (!collapsed) for (const [name, of] of [["legal", "attempts follow the rules"], ["correct_marks", "marks are true"]])
    if (late(name) / late("attempts") < early(name) / early("attempts") - 0.05)
      say(`The reasoning rots where no reward looks: ${Math.round(100 * early(name) / early("attempts"))} % of the ${of} at first, ${Math.round(100 * late(name) / late("attempts"))} % at the end.`,
          [name, "attempts"], m.step[n - 1]);
  if ((m.skipped || [0])[n - 1] > 0)
    say(`${m.skipped[n - 1]} optimizer steps were skipped, for their gradient was not finite.`, ["skipped", "grad_norm"], stepOf(k => m.skipped[k] > 0));
  return found;
}

function signsBox() {
  const found = visible().flatMap(signs);
  if (!found.length) return el("span");
  return el("div", {class: "signs"}, el("strong", {}, "Worth a look"), el("ul", {}, found.map(sign => el("li", {},
    RUNS.length > 1 ? el("b", {style: `color:${sign.run.colour}`}, sign.run.name + ": ") : null, sign.text + " ",
    sign.panels.map(name => el("button", {type: "button", onclick: () => $("panel-" + name)?.scrollIntoView({block: "center"})}, name)), " ",
    sign.run.groups.length ? el("button", {type: "button", onclick: () => showSamples(sign.run.number, sign.step)}, `samples at ${sign.step}`) : null))));
}
