// Mornings: what each night changed, the correction behind each change, and what it cost elsewhere.
import { along, axis, chart, line as curve, percent, short } from "./chart.js";
import { everyLook } from "./live.js";
import { call, Refused } from "./wire.js";
import { chip, element, line, part, put, slot, verdictOf, when, word } from "./words.js";

const page = document.querySelector("[data-policy]").dataset;
const base = `/v1/policies/${encodeURIComponent(page.policy)}`;
const user = page.user || new URLSearchParams(location.search).get("user") || "";
const may = new Set(page.may.split(" "));
const place = (id) => document.getElementById(id);
const plot = chart("nights");
const unlearned = new Set(); // by this page
const query = new URLSearchParams({ limit: 20 });
if (user) query.set("user", user);
let last = "";

place("whose-title").textContent = user ? line("person", { name: user }) : line("everybody");
place("whose").value = user;

document.addEventListener("acted", (event) => {
  unlearned.add(event.detail);
  last = "";
});

everyLook(async () => {
  try {
    const [{ nights }, notes] = await Promise.all([call(`${base}/nights?${query}`), known()]);
    const mark = JSON.stringify([nights, [...notes.keys()]]);
    fault("");
    if (mark === last) return;
    last = mark;
    place("none").hidden = nights.length > 0;
    place("nights").replaceChildren(...nights.map((each) => night(each, notes)));
    draw(nights.toReversed().filter((each) => each.exam));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    fault(error.message);
  }
});
people();

function fault(text) {
  place("fault").textContent = text;
  place("fault").hidden = !text;
}

/** The notes that may be read, by id. */
async function known() {
  if (!may.has("feedback") || !(user || may.has("admin"))) return new Map();
  const query = new URLSearchParams(user ? { policy: page.policy, user } : { policy: page.policy });
  const { notes } = await call(`/v1/notes?${query}`);
  return new Map(notes.map((each) => [each.id, each]));
}

async function people() {
  if (page.user || !may.has("admin")) return;
  const { conversations } = await call(`${base}/conversations?limit=100`).catch(() => ({ conversations: [] }));
  const names = new Set(conversations.map((each) => each.user).filter(Boolean));
  place("known").replaceChildren(...[...names].map((name) => element("option", "", { value: name })));
}

// ---- one night ----

function night(one, notes) {
  const node = part("night");
  node.dataset.version = one.version;
  put(node, "at", when(one.at));
  put(node, "version", one.version);
  chip(slot(node, "status"), "status", one.status);
  put(node, "made", line("made", { recipe: one.recipe, parent: one.parent ?? "–" }));
  verdict(node, one.verdict, one.gate_verdict);
  const asked = new Map((one.exam?.questions ?? []).map((each) => [each.family, each.asked]));
  const rows = one.lessons.map((each) => ({ ...each, note: notes.get(each.id), asked: each.asked || notes.get(each.id)?.asked || asked.get(each.family) || "" }));
  const changed = rows.filter((each) => !each.left_out && (each.before === null || each.before !== each.after));
  slot(node, "changed").replaceChildren(...changed.map(lesson));
  slot(node, "unchanged").hidden = changed.length > 0;
  fold(slot(node, "same"), "same", rows.filter((each) => !each.left_out && each.before !== null && each.before === each.after));
  fold(slot(node, "out"), "out", rows.filter((each) => each.left_out));
  slot(node, "unexamined").hidden = Boolean(one.exam);
  if (one.exam) examine(node, one);
  const { lessons_omitted: lessons, questions_omitted: questions } = one.counts;
  put(node, "omitted", lessons || questions ? line("omitted", { lessons, questions }) : "");
  return node;
}

/** What was said of it last, and where a person or an erasure said it, what the gate itself had said. */
function verdict(node, said, gate) {
  slot(node, "unjudged").hidden = Boolean(said);
  if (!said) return;
  const { text, tone, rest } = verdictOf(said);
  const box = slot(node, "verdict");
  box.hidden = false;
  box.classList.add(tone);
  put(node, "verdict-title", text);
  put(node, "reason", rest);
  if (said.by === "gate") return;
  const own = gate && verdictOf(gate);
  put(node, "gate", own ? line("gate", { title: own.text, reason: own.rest }) : line("no-gate"));
}

function fold(details, title, rows) {
  details.hidden = !rows.length;
  details.querySelector("summary").textContent = line(title, { n: rows.length });
  details.querySelector("ul").replaceChildren(...rows.map(lesson));
}

const text = (value) => (value === null ? line("hidden") : value || line("nothing-said"));

// Why an answer does not count as learned.
function missed(one) {
  if (!one.wanted) return "";
  if (one.as_read) return line("read-as", one);
  return one.after === one.wanted && one.behind !== null ? line("beside", { said: text(one.behind) }) : line("wanted", one);
}

function lesson(one) {
  const node = part("lesson");
  node.dataset.lesson = one.id;
  put(node, "asked", one.asked);
  if (one.left_out) put(node, "change", one.left_out);
  else {
    put(node, "before", text(one.before));
    put(node, "after", text(one.after));
    const mark = slot(node, "learned");
    mark.textContent = line(one.learned ? "yes" : one.as_read ? "read" : "no");
    mark.classList.add(one.learned ? "good" : "warn");
    put(node, "wanted", one.learned ? "" : missed(one));
  }
  put(node, "behind", one.note ? line("behind", { text: one.note.text }) : line("unknown"));
  const path = `/v1/lessons/${encodeURIComponent(one.id)}`;
  const button = slot(node, "unlearn");
  const gone = unlearned.has(path);
  button.hidden = gone || !may.has("feedback");
  put(node, "gone", gone ? line("unlearned") : "");
  Object.assign(button.dataset, { call: path, method: "DELETE", body: "{}", title: line("unlearn-title"), text: line("unlearn-text"), key: `unlearn ${one.id}` });
  return node;
}

// ---- its exam ----

const sum = (rows, name) => rows.reduce((all, each) => all + each[name], 0);

function examine(node, { exam, counts }) {
  slot(node, "exam").hidden = false;
  const { questions = [], taught, suites = [], traffic, rates = [], phrases = [] } = exam;
  const facts = [];
  if (taught?.asked) facts.push(["taught", taught.right_before, taught.right_after, taught.asked]);
  if (counts.questions) facts.push(["unseen", counts.right_before, counts.right_after, counts.questions]);
  if (suites.length) facts.push(["retained", sum(suites, "right_before"), sum(suites, "right_after"), sum(suites, "asked")]);
  slot(node, "facts").replaceChildren(...facts.map(([name, before, after, asked]) => fact(line(name), line("shift", { before, after, asked }))));
  if (traffic) moved(slot(node, "kl"), traffic);
  table(node, "suites", suites.map((each) => [each.name, each.asked, each.right_before, each.right_after, each.lost, each.won]));
  table(node, "rates", rates.map((each) => [word("rate", each.name).text, each.asked, each.before, each.after]));
  table(node, "phrases", phrases.map((each) => [each.phrase, short(each.before), short(each.after)]));
  const turned = questions.filter((each) => each.right_before !== each.right_after);
  const won = turned.filter((each) => each.right_after).length;
  table(node, "questions", turned.map((each) => [text(each.asked), text(each.wanted), text(each.before), text(each.after)]));
  slot(node, "questions").querySelector("summary").textContent = line("questions", { n: turned.length, won, lost: turned.length - won });
}

function fact(name, value) {
  const made = document.createElement("div");
  made.append(element("dt", name), element("dd", value));
  return made;
}

function moved(box, { kl, kl_budget: budget, prompts }) {
  const said = line("kl", { kl: short(kl), budget: short(budget), prompts: short(prompts) });
  box.hidden = false;
  box.querySelector("progress").value = budget > 0 ? Math.min(1, kl / budget) : 0;
  box.querySelector("progress").setAttribute("aria-label", said);
  box.querySelector("span").textContent = said;
}

function table(node, name, rows) {
  const box = slot(node, name);
  box.hidden = !rows.length;
  box.querySelector("tbody").replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((cell, at) => (at ? element("td", cell) : element("th", cell, { scope: "row" }))));
    return row;
  }));
}

// ---- by night ----

function draw(nights) {
  const share = (part, all) => (all ? part / all : null);
  const taught = nights.map(({ exam }) => share(exam.taught?.right_after, exam.taught?.asked));
  const unseen = nights.map(({ counts }) => share(counts.right_after, counts.questions));
  const retained = nights.map(({ exam }) => share(sum(exam.suites ?? [], "right_after"), sum(exam.suites ?? [], "asked")));
  if (!nights.length) return plot.clear();
  const points = { show: true, size: 8 };
  const options = () => ({
    scales: { x: { time: false, range: [0.5, nights.length + 0.5] }, y: { range: [-0.02, 1.04] } },
    axes: [along("night", { splits: () => nights.map((_, at) => at + 1) }), axis({ say: percent, size: 56 })],
    series: [
      { label: "night", value: (u, value, at, index) => (index === null ? nights.length : value) },
      curve(line("taught"), "v1", { say: percent, points }), curve(line("unseen"), "v4", { say: percent, points, dash: [2, 4] }),
      curve(line("retained"), "v2", { say: percent, points, dash: [8, 4] }),
    ],
  });
  plot.draw(`${nights.length}`, options, [nights.map((_, at) => at + 1), taught, unseen, retained]);
  const rest = retained.at(-1) === null ? line("unasked") : line("kept", { share: percent(retained.at(-1)) });
  const said = { n: nights.length, taught: percent(taught.at(-1)), retained: rest };
  document.querySelector("#nights-words p").textContent = line("plot", said);
}
