// Search trees, played step by step: what was selected, opened, evaluated, backed up or pruned, and what it cost.

function drawSearch() {
  $("search").replaceChildren(el("p", {}, "soon"));
}
