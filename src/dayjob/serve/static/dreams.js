// Dreams: environments that were proposed, which held and why the others did not, and what came of rehearsing in them.
import { percent } from "./chart.js";
import { everyLook } from "./live.js";
import { call, Refused } from "./wire.js";
import { chip, element, line, part, put, slot, when } from "./words.js";

const page = document.querySelector("[data-policy]").dataset;
const base = `/v1/policies/${encodeURIComponent(page.policy)}`;
const user = page.user || new URLSearchParams(location.search).get("user") || "";
const place = (id) => document.getElementById(id);
const query = new URLSearchParams(user ? { limit: 20, user } : { limit: 20 });
let last = "";
let job = "";

place("whose-title").textContent = user ? line("person", { name: user }) : line("everybody");
place("whose").value = user;

everyLook(async () => {
  try {
    const { dreams } = await call(`${base}/dreams?${query}`);
    const mark = JSON.stringify(dreams);
    if (mark !== last) {
      last = mark;
      place("none").hidden = dreams.length > 0;
      place("dreams").replaceChildren(...dreams.map(dream));
    }
    if (job) await follow();
    fault("");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    fault(error.message);
  }
});

place("dream").addEventListener("submit", async (event) => {
  event.preventDefault();
  const budget = Number(place("budget").value);
  try {
    ({ job } = await call(`${base}/dream`, { method: "POST", body: user ? { budget, user } : { budget } }));
    say(line("queued"));
    fault("");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    fault(error.message);
  }
});

async function follow() {
  const { state, progress, result, error } = await call(`/v1/jobs/${encodeURIComponent(job)}`);
  if (state === "queued") return say(line("queued"));
  if (state === "running") return say(line("running", { share: percent(progress) }));
  job = "";
  say(state === "failed" ? line("failed", { error }) : line("done", { what: result?.challenger ?? result?.reason ?? "" }));
}

function fault(text) {
  place("fault").textContent = text;
  place("fault").hidden = !text;
}

function say(text) {
  place("now").textContent = text;
  place("now").hidden = !text;
}

// ---- one dream ----

function dream(one) {
  const node = part("one");
  node.dataset.job = one.job;
  put(node, "at", when(one.at));
  put(node, "version", one.version ?? "");
  if (one.status) chip(slot(node, "status"), "status", one.status);
  else slot(node, "status").hidden = true;
  put(node, "made", line("made", one));
  put(node, "reason", one.reason);
  slot(node, "facts").replaceChildren(...facts(one));
  const rows = one.environments.map((each) => [
    each.name, each.author, admitted(each), each.faithful ? agreed(each.faithful) : "–", share(each.before), share(each.after),
  ]);
  const box = slot(node, "environments");
  box.hidden = !rows.length;
  box.querySelector("tbody").replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((cell, at) => (at ? element("td", cell) : element("th", cell, { scope: "row" }))));
    return row;
  }));
  const faults = slot(node, "faults");
  faults.hidden = !one.faults.length;
  faults.querySelector("summary").textContent = line("faults", { n: one.faults.length });
  faults.querySelector("ul").replaceChildren(...one.faults.map((each) => element("li", each)));
  return node;
}

function facts({ episodes, tokens, steps, transferred }) {
  const found = [];
  if (episodes) found.push(["rehearsed", line("attempts", { episodes, tokens, steps })]);
  if (transferred?.questions) {
    const { right_before: before, right_after: after, questions: asked } = transferred;
    found.push(["transferred", line("shift", { before, after, asked })]);
  }
  return found.map(([name, value]) => {
    const made = document.createElement("div");
    made.append(element("dt", line(name)), element("dd", value));
    return made;
  });
}

const share = (value) => (value === null || value === undefined ? "–" : percent(value));
const admitted = (each) => (each.admitted && !each.dropped ? line(each.shown ? "shown" : "yes", each) : each.reason);

function agreed({ agreed, claimed, interval: [low, high] }) {
  return line("agree", { agreed, claimed, low: percent(low), high: percent(high) });
}
