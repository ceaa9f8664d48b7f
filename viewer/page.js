const DATA = JSON.parse(document.getElementById("data").textContent);
const TABS = {curves: "Curves", samples: "Samples", problem: "One problem", search: "Search", live: "Live", settings: "Settings"};
function show(tab) {
  for (const name in TABS) document.getElementById(name).hidden = name != tab;
}
for (const name in TABS) {
  if (name == "live" && !DATA.live) continue;
  const button = document.createElement("button");
  button.textContent = TABS[name]; button.id = "tab-" + name; button.onclick = () => show(name);
  document.getElementById("tabs").append(button);
}
if (DATA.live) startLive(document.getElementById("live"), DATA.live.models, DATA.live.example);
