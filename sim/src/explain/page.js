// Draws one step at a time from the data above. All text goes through textContent.
"use strict";

const story = JSON.parse(document.getElementById("story").textContent);
const last = story.steps.length - 1;
const at = (id) => document.getElementById(id);
let current = 0;

// make("td.cell.stale", "text", child, ...)
function make(what, ...children) {
  const [tag, ...classes] = what.split(".");
  const node = document.createElement(tag);
  classes.filter(Boolean).forEach((name) => node.classList.add(name));
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

// Gives a node its name, by which changes and culprits find it.
function named(key, node) {
  node.dataset.key = key;
  return node;
}

function chip(bytes) {
  const inside = bytes.inside ? make("small", ` holds ${bytes.inside}`) : null;
  return make(`span.chip.${bytes.class}`, bytes.text, inside);
}

function columns(step) {
  return ["table", ...Array.from({ length: step.cpus }, (_, cpu) => `CPU ${cpu}`)];
}

function drawEvent(step, number) {
  const vms = step.vms.map((vm) =>
    named(vm.key, make(`span.vm.${vm.text === "runs" ? "runs" : "stopped"}`, `${vm.name} ${vm.text}`)));
  const life = step.life > 0 ? make("span.vm", `life ${step.life + 1} of the host`) : null;
  const tick = step.ticked ? make("span.vm", "the clock ticked") : null;
  const line = number === 0 ? "start" : `event ${number}`;
  return [
    make("div.meta", make(`span.mover.${step.mover}`, line), make("code", step.line), ...vms, life, tick),
    make("p.words", step.words),
    make("ul.outcomes", step.outcomes.map((one) =>
      make(one.is_wrong ? "li.wrong" : "li", one.words))),
  ];
}

function drawVerdict(step) {
  if (step.broken.length === 0) {
    return [make("p.holds", make("strong", "Every clause holds"), " at this moment.")];
  }
  return step.broken.map((clause) => make(
    "div.clause",
    make("p", make("strong.id", clause.id), clause.since ? " is still broken: " : " is broken: ",
      make("q", clause.sentence)),
    make("ul", clause.because.length > 0
      ? clause.because.map((text) => make("li", `${text[0].toUpperCase()}${text.slice(1)}.`))
      : [make("li", "What this event changed is marked below.")]),
  ));
}

function drawViews(step) {
  const view = (key, views, none) => named(key, make("td.view", views.length === 0
    ? make("span.none", none)
    : views.map((one) => make(one.stale ? "div.way.stale" : "div.way", chip(one.bytes),
      make("small", ` in ${one.at}${one.stale ? `, only because ${one.by} remembers` : ""}`)))));
  const rows = step.pages.map((page) => {
    const stopped = step.vms[Number(page.name.split(":")[0])].text !== "runs";
    const hands = page.hands
      ? named(page.handed.key, make("div.way", chip({ ...page.handed.bytes, inside: null }),
        make("small", " ready to hand over")))
      : null;
    const host = view(page.host_view.key, page.host_view.views, hands ? "" : "nothing");
    if (hands) host.append(hands);
    return make("tr",
      make("th", `page ${page.name}`),
      named(page.state.key, make(`td.state.${page.state.class}`, page.state.text)),
      named(page.version.key, make("td.number", `v${page.version.text}`)),
      named(page.held.key, make("td", page.held.text ? make("span.tag", "held") : make("span.none", "no"))),
      view(page.guest_view.key, page.guest_view.views, stopped ? "nothing" : "nothing; a touch faults"),
      named(page.latest.key, make("td", chip(page.latest.bytes))),
      host);
  });
  return [make("table.views",
    make("thead", make("tr", ...["", "state", "version", "held", "the guest sees", "it should see",
      "the management side sees"].map((text) => make("th", text)))),
    make("tbody", rows))];
}

// Guests' tables, memory, the management side's table: three tables side by side with lines.
function drawMap(step) {
  const heads = columns(step).map((text) => make("th", text));
  const found = (cell) => named(cell.key, make(cell.stale ? "td.cell.stale" : "td.cell",
    cell.at ? `\u2192 ${cell.at}` : make("span.none", "\u00b7")));
  const guests = make("table.side.guests",
    make("caption", "guests find their pages"),
    make("thead", make("tr", make("th", ""), ...heads)),
    make("tbody", step.pages.map((page) =>
      make("tr", make("th", page.name), ...page.guest.map(found)))));
  const memory = make("table.side.memory",
    make("caption", "memory"),
    make("thead", make("tr", ...["", "holds", "whose"].map((text) => make("th", text)))),
    make("tbody", step.places.map((place) => make("tr", make("th", place.name),
      named(place.bytes.key, make("td", chip(place.bytes.bytes))),
      named(place.owner.key, make("td.owner", place.owner.text))))));
  const allowed = (cell) => named(cell.key, make(cell.stale ? "td.cell.stale" : "td.cell",
    cell.perm ?? make("span.none", "\u00b7")));
  const host = make("table.side.host",
    make("caption", "management side reaches"),
    make("thead", make("tr", make("th", ""), ...columns(step).map((text) => make("th", text)))),
    make("tbody", step.places.map((place) =>
      make("tr", make("th", place.name), ...place.host.map(allowed)))));
  const lines = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  lines.setAttribute("aria-hidden", "true");
  return [guests, memory, host, lines];
}

// Solid where a table says so, dashed where only a CPU remembers.
function drawLines(step) {
  const map = at("map");
  const svg = map.querySelector("svg");
  const frame = map.getBoundingClientRect();
  const row = (table, index) => map.querySelectorAll(`.${table} tbody tr`)[index].getBoundingClientRect();
  const line = (from, to, stale, bad) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const [x1, y1] = [from.x - frame.x, from.y - frame.y];
    const [x2, y2] = [to.x - frame.x, to.y - frame.y];
    const middle = (x1 + x2) / 2;
    path.setAttribute("d", `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`);
    path.setAttribute("class", `line${stale ? " stale" : ""}${bad ? " culprit" : ""}`);
    svg.append(path);
  };
  const culprits = new Set(step.broken.flatMap((clause) => clause.cells));
  const center = (box) => box.top + box.height / 2;
  step.pages.forEach((page, index) => {
    const ways = new Map();
    for (const cell of page.guest.filter((one) => one.at)) {
      const way = ways.get(cell.at) ?? { stale: true, bad: false };
      ways.set(cell.at, { stale: way.stale && cell.stale, bad: way.bad || culprits.has(cell.key) });
    }
    for (const [name, way] of ways) {
      const target = step.places.findIndex((place) => place.name === name);
      if (target < 0) continue;
      const [from, to] = [row("guests", index), row("memory", target)];
      line({ x: from.right, y: center(from) }, { x: to.left, y: center(to) }, way.stale, way.bad);
    }
  });
  step.places.forEach((place, index) => {
    const ways = place.host.filter((cell) => cell.perm);
    if (ways.length === 0) return;
    const [from, to] = [row("memory", index), row("host", index)];
    line({ x: from.right, y: center(from) }, { x: to.left, y: center(to) },
      ways.every((cell) => cell.stale), ways.some((cell) => culprits.has(cell.key)));
  });
}

function drawBatches(step) {
  const flights = step.flights.map((flight) => make("div.flight",
    make("p", make("strong", `CPU ${flight.cpu}`), " ", make("code", flight.asks.join(", ")),
      flight.fate ? make(`span.fate.${flight.fate}`, `${flight.fate} at this event`) : null),
    make("ol.calls", [...flight.calls, "commit: the table says so from now on"].map((text, index) =>
      named(`call ${flight.cpu} ${index}`, make(
        index < flight.taken ? "li.done" : index === flight.taken ? "li.now" : "li", text))))));
  return [make("h2", "Batches in flight"), ...(flights.length > 0
    ? flights : [make("p.none", "none")])];
}

function drawKnown(step) {
  const seals = step.known.map((seal) => named(seal.key, make("li",
    make("span.chip.sealed", seal.text), make("small", ` holds ${seal.inside}`))));
  return [make("h2", "Seals that the management side keeps"),
    seals.length > 0 ? make("ul.seals", seals) : make("p.none", "none"),
    seals.length > 0 ? make("p.hint", "It has the sealed bytes, not what they hold.") : null];
}

function draw(number) {
  const step = story.steps[number];
  const fill = (id, children) => at(id).replaceChildren(...children.filter(Boolean));
  fill("event", drawEvent(step, number));
  fill("verdict", drawVerdict(step));
  at("verdict").className = step.broken.length > 0 ? "broken" : "";
  fill("views", drawViews(step));
  fill("map", drawMap(step));
  fill("batches", drawBatches(step));
  fill("known", drawKnown(step));
}

const cells = () => document.querySelectorAll("#stage [data-key]");

// What every named cell says, to compare with the step before.
function texts() {
  return new Map(Array.from(cells(), (node) =>
    [node.dataset.key, `${node.textContent} ${node.classList.contains("done")}`]));
}

function show(number) {
  current = Math.min(last, Math.max(0, number));
  let before = null;
  if (current > 0) {
    draw(current - 1);
    before = texts();
  }
  draw(current);
  const step = story.steps[current];
  const now = texts();
  const culprits = new Set(step.broken.flatMap((clause) => clause.cells));
  for (const node of cells()) {
    const key = node.dataset.key;
    const isCall = key.startsWith("call ");
    if (before && !isCall && before.get(key) !== now.get(key)) node.classList.add("changed");
    if (culprits.has(key)) node.classList.add("bad");
  }
  drawLines(step);
  at("slider").value = current;
  at("where").textContent = `event ${current} of ${last}`;
  document.body.dataset.step = current;
  document.querySelectorAll("#events li, #ticks span").forEach((node) =>
    node.classList.toggle("current", Number(node.dataset.at) === current));
  const item = document.querySelector("#events li.current");
  const list = at("events");
  const [box, around] = [item.getBoundingClientRect(), list.getBoundingClientRect()];
  if (box.top < around.top) list.scrollTop -= around.top - box.top + box.height;
  if (box.bottom > around.bottom) list.scrollTop += box.bottom - around.bottom + box.height;
  at("first").disabled = at("previous").disabled = current === 0;
  at("last").disabled = at("next").disabled = current === last;
}

// Goes to a step in a way that the address remembers.
function go(number) {
  const to = Math.min(last, Math.max(0, number));
  history.replaceState(null, "", `#step=${to}`);
  show(to);
}

function drawHead() {
  at("headline").textContent = story.headline;
  const configuration = make("span", make("strong", "Configuration "), story.configuration, ".");
  configuration.title = story.bounds;
  at("about").append(make("span", "A simulated host runs the shipped core. Each page should look ",
    "plain to the guest that owns it, and sealed or closed to whoever manages the guest, ",
    "between any two steps."));
  const from = [story.name, ...story.notes].filter(Boolean).join(" \u00b7 ");
  at("about").append(configuration, make("small", from));
  const clause = story.breaking === null ? [] : story.steps[story.breaking].broken;
  for (const { id, sentence } of clause) {
    at("about").append(make("span", make("strong", `Clause ${id} `), make("q", sentence)));
  }
}

function drawTrack() {
  story.steps.forEach((step, number) => {
    const fresh = step.broken.some((clause) => !clause.since);
    const state = step.broken.length === 0 ? "" : fresh ? ".breaking" : ".broken";
    const call = step.call ? make("small", step.call) : null;
    const item = make(`li.${step.mover}${state}`, make("code", step.line), call);
    const tick = make(`span.${step.mover}${state}`);
    if (fresh) {
      item.append(make("em", `breaks ${step.broken.map((clause) => clause.id).join(", ")}`));
    }
    tick.title = `event ${number}: ${step.line}`;
    for (const node of [item, tick]) {
      node.dataset.at = number;
      node.addEventListener("click", () => go(number));
    }
    at("events").append(item);
    at("ticks").append(tick);
  });
  at("ticks").classList.toggle("many", last > 120);
  at("slider").max = last;
}

function drawLegend() {
  const sample = (what, text, meaning) => make("span", make(what, text), ` ${meaning}`);
  at("legend").append(
    make("strong", "Legend "),
    sample("span.chip.secret", "store 1, secret", "what the guest stored in private; nobody else may read it"),
    sample("span.chip.shown", "store 1, shown", "was in the page while its guest had it open"),
    sample("span.chip.sealed", "sealed view/0:0/e1/v2", "sealed bytes: stream, page, epoch, version"),
    sample("span.chip.public", "management's own bytes", "what it wrote or knows anyway"),
    sample("span.cell.stale", "write", "stale: a CPU remembers what its table no longer says; a fence ends it"),
    make("span", make("span.mover.guest", "guest"), ", ", make("span.mover.management", "management"),
      ", ", make("span.mover.trusted", "trusted side"), ": who moves"),
    sample("span.sample.changed", "changed", "by this event"),
    sample("span.sample.bad", "broken", "what breaks the clause"),
    make("span", make("kbd", "\u2190"), " ", make("kbd", "\u2192"), " step, ",
      make("kbd", "Home"), " ", make("kbd", "End"), " ends of the trace"));
}

// Without a step in the address, a counterexample opens where it breaks.
function asked() {
  const match = /^#step=(\d+)$/.exec(location.hash);
  return match ? Number(match[1]) : story.breaking ?? 0;
}

const KEYS = {
  ArrowLeft: () => current - 1,
  ArrowRight: () => current + 1,
  Home: () => 0,
  End: () => last,
};

drawHead();
drawTrack();
drawLegend();
show(asked());
addEventListener("hashchange", () => show(asked()));
addEventListener("resize", () => show(current));
document.addEventListener("keydown", (event) => {
  const to = KEYS[event.key];
  if (!to || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  go(to());
});
at("slider").addEventListener("input", () => go(Number(at("slider").value)));
at("first").addEventListener("click", () => go(0));
at("previous").addEventListener("click", () => go(current - 1));
at("next").addEventListener("click", () => go(current + 1));
at("last").addEventListener("click", () => go(last));
