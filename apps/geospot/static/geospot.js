// Geospot's page: one round at a time. It knows nothing of dayjob; its own server does.

import { WorldMap, words } from "./map.js";

const id = (name) => document.getElementById(name);
const LEARNED_EVERY_MS = 15000;
let round = null; // the round on show, as the server dealt it
let preview = null; // the object URL of an uploaded photo

const map = new WorldMap(id("world"), {
  onPick: (item) => choose(item),
  onHover: (item) => highlight(item),
  onPin: (pin) => (id("pin-at").textContent = words(pin)),
  onPinEnter: () => sendPin(),
});

async function call(path, { method = "POST", body, type = "application/json" } = {}) {
  let response;
  try {
    response = await fetch(path, { method, body, headers: body ? { "Content-Type": type } : {} });
  } catch {
    throw new Error("Geospot's own server does not answer. Is it still running?");
  }
  const data = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(data.error?.message ?? `The server answered ${response.status}.`);
  return data;
}

function trouble(error) {
  id("trouble").textContent = error ? error.message : "";
  id("trouble").hidden = !error;
  if (error) id("trouble").scrollIntoView({ block: "nearest" });
}

async function busy(work) {
  if (document.body.dataset.phase === "working") return;
  const before = document.body.dataset.phase;
  document.body.dataset.phase = "working";
  trouble(null);
  try {
    document.body.dataset.phase = (await work()) ?? before;
  } catch (error) {
    document.body.dataset.phase = before;
    trouble(error);
  }
}

// ---- a new round

function picture(source, alternative) {
  const image = id("picture");
  image.src = source;
  image.alt = alternative;
  image.hidden = false;
  id("drop-hint").hidden = true;
}

function deal(dealt) {
  round = dealt;
  id("places").replaceChildren(...dealt.places.map(row));
  id("places-hint").textContent = dealt.simulated
    ? "Which is closest to where the card was posted? Pick it here or on the map."
    : "Which is closest to where the photo was taken? Pick it here or on the map.";
  id("none").hidden = false;
  id("result").hidden = true;
  id("teach").hidden = true;
  id("served").textContent = `Decision ${dealt.round}, served by ${dealt.served.version}: ${dealt.served.role}.`;
  id("served").hidden = false;
  id("pinbar").hidden = dealt.simulated;
  pinning(false);
  map.show(dealt.places);
  id("places-title").focus({ preventScroll: true });
  return "choosing";
}

function row(place) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.className = "place";
  button.type = "button";
  button.dataset.item = place.item;
  const part = (name, text) => {
    const span = document.createElement("span");
    span.className = name;
    span.textContent = text;
    button.append(span);
    return span;
  };
  part("number", place.position).setAttribute("aria-label", `Guess ${place.position}:`);
  part("name", place.where);
  part("at", place.coordinates);
  part("far", "");
  button.addEventListener("click", () => choose(place.item));
  for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => highlight(place.item));
  for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => highlight(null));
  item.append(button);
  return item;
}

function highlight(item) {
  map.highlight(item);
  for (const button of document.querySelectorAll(".place")) button.classList.toggle("on", button.dataset.item === item);
}

function simulate() {
  busy(async () => {
    const dealt = await call("/simulated");
    picture(dealt.card, "A drawn card in place of a simulated photo; its postmark is the clue.");
    id("caption").textContent = `Simulated photo. Postmark: ${dealt.postmark}.`;
    id("caption").hidden = false;
    return deal(dealt);
  });
}

function upload(file) {
  if (!file) return;
  busy(async () => {
    const dealt = await call("/photo", { body: file, type: file.type || "application/octet-stream" });
    if (preview) URL.revokeObjectURL(preview);
    preview = URL.createObjectURL(file);
    picture(preview, `Your photo ${file.name}`);
    id("caption").hidden = true;
    return deal(dealt);
  });
}

// ---- the answer

function choose(item) {
  if (document.body.dataset.phase !== "choosing") return;
  busy(async () => settle(await call("/answer", { body: JSON.stringify({ round: round.round, item }) }), item));
}

function sendPin() {
  if (!map.pin) return;
  const { lat, lon } = map.pin;
  busy(async () => settle(await call("/pin", { body: JSON.stringify({ round: round.round, lat, lon }) }), null));
}

function settle(answer, chosen) {
  const truth = answer.truth ?? null;
  for (const button of document.querySelectorAll(".place")) {
    const { item } = button.dataset;
    button.classList.toggle("chosen", item === chosen);
    button.classList.toggle("best", item === answer.best);
    button.querySelector(".far").textContent = answer.far?.[item] ?? "";
    button.disabled = true;
  }
  pinning(false);
  map.reveal({ truth, chosen, best: answer.best ?? null });
  id("result-text").textContent = answer.message;
  id("result").hidden = false;
  id("none").hidden = true;
  if (truth) id("places-hint").textContent = round.simulated ? "How far each was from the true place:" : "How far each was from your pin:";
  id("teach").hidden = !(truth && round.simulated && !answer.taught);
  id("pinbar").hidden = round.simulated || Boolean(truth);
  id("result").focus({ preventScroll: true });
  id("result").scrollIntoView({ block: "nearest" });
  learned();
  return "answered";
}

function pinning(on) {
  map.setPinning(on);
  id("pin-toggle").setAttribute("aria-pressed", String(on));
  id("pin-toggle").textContent = on ? "Put the pin away" : "I know the place: drop a pin";
  id("pin-tools").hidden = !on;
  if (on) id("world").focus();
  id("world").setAttribute(
    "aria-label",
    on
      ? "World map with your pin. Arrow keys move the pin, with Shift in small steps; Enter sends it; plus and minus zoom."
      : "World map of the ten guesses. Arrow keys move the view, plus and minus zoom. The same places are in the list.",
  );
}

function again() {
  if (round?.simulated || !id("file")) simulate();
  else {
    id("file").focus();
    id("file").click();
  }
}

// ---- what it has learned

function tile({ tone, title, detail }, ...more) {
  const box = document.createElement("div");
  box.className = `tile ${tone}`;
  const heading = document.createElement("h3");
  heading.textContent = title;
  box.append(heading);
  if (detail) {
    const text = document.createElement("p");
    text.textContent = detail;
    box.append(text);
  }
  box.append(...more);
  return box;
}

function bars(shares) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const add = (name, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    svg.append(made);
  };
  const wide = 240 / shares.length;
  svg.setAttribute("viewBox", "0 0 240 62");
  svg.setAttribute("class", "shares");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Share of clicks by position: ${shares.map((s, i) => `${i + 1}: ${Math.round(100 * s)} %`).join(", ")}`);
  shares.forEach((share, index) => {
    const height = Math.max(1, 38 * share);
    add("rect", { x: index * wide + 2, y: 50 - height, width: wide - 4, height, rx: 1.5 });
    add("text", { x: (index + 0.5) * wide, y: 60 }, index + 1);
    if (share >= 0.005) add("text", { x: (index + 0.5) * wide, y: 46 - height }, `${Math.round(100 * share)}%`);
  });
  return svg;
}

function list(verdicts) {
  const items = document.createElement("ul");
  for (const { title, detail, at } of verdicts) {
    const item = document.createElement("li");
    const time = document.createElement("time");
    time.textContent = at;
    const text = document.createElement("p");
    text.textContent = `${title}. ${detail}`;
    item.append(time, text);
    items.append(item);
  }
  return items;
}

function counts(rows) {
  const table = document.createElement("dl");
  for (const { name, count } of rows) {
    const [number, label] = [document.createElement("dt"), document.createElement("dd")];
    number.textContent = count.toLocaleString("en");
    label.textContent = name;
    table.append(number, label);
  }
  return table;
}

async function learned() {
  let told;
  try {
    told = await call("/learned", { method: "GET" });
  } catch (error) {
    id("tiles").replaceChildren(tile({ tone: "warn", title: "Not known right now", detail: error.message }));
    return;
  }
  const verdicts = told.verdicts.length
    ? tile({ tone: told.verdicts[0].tone, title: "Verdicts of the gate" }, list(told.verdicts))
    : tile({ tone: "plain", title: "No verdicts yet", detail: "A new version serves only after a verdict, and each verdict will be listed here." });
  id("tiles").replaceChildren(
    tile(told.serving, counts(told.counts)),
    tile(told.feedback, ...(told.shares.length ? [bars(told.shares)] : [])),
    tile(told.trial),
    verdicts,
  );
}

// ---- what the page listens to

id("simulate").addEventListener("click", simulate);
id("again").addEventListener("click", again);
id("none").addEventListener("click", () => choose(null));
id("pin-toggle").addEventListener("click", () => pinning(!map.pinning));
id("pin-send").addEventListener("click", sendPin);
id("teach").addEventListener("click", () =>
  busy(async () => settle(await call("/teach", { body: JSON.stringify({ round: round.round }) }), map.chosen)),
);
id("zoom-in").addEventListener("click", () => map.zoom(1 / 1.6));
id("zoom-out").addEventListener("click", () => map.zoom(1.6));
id("zoom-fit").addEventListener("click", () => map.fit());

if (id("file")) {
  const frame = id("frame");
  id("file").addEventListener("change", (event) => upload(event.target.files[0]));
  for (const name of ["dragover", "dragleave", "drop"]) {
    frame.addEventListener(name, (event) => {
      event.preventDefault();
      frame.classList.toggle("over", name === "dragover");
      if (name === "drop") upload(event.dataTransfer.files[0]);
    });
  }
}

learned();
setInterval(() => document.visibilityState === "visible" && learned(), LEARNED_EVERY_MS);
