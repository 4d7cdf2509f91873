// Talk: a conversation for each person, written as it comes; what they taught; and their night.
import { everyLook } from "./live.js";
import { Turn } from "./talk-turn.js";
import { clearNotes, showNotes } from "./talk-notes.js";
import { Night } from "./talk-night.js";
import { call, uuid } from "./wire.js";
import { line, part } from "./words.js";

const page = document.querySelector("[data-policy]").dataset;
const policy = page.policy;
const may = new Set(page.may.split(" "));
const DREAM = /^\/dream(?:\s+[x×]?(\d+(?:\.\d+)?))?$/i; // typed as a message, with its budget or without
const place = (id) => document.getElementById(id);
const base = `/v1/policies/${encodeURIComponent(policy)}`;
const STORED = `dayjob talk ${policy}`;
const FIRST = ["ann", "bob"]; // who is offered before anybody spoke

/** What this tab remembers: who speaks here, whose turn it is, and each person's session and running night. */
const kept = { people: FIRST, now: FIRST[0], sessions: {}, nights: {}, ...JSON.parse(sessionStorage.getItem(STORED) ?? "{}") };
if (page.user) Object.assign(kept, { people: [page.user], now: page.user });
const people = new Map(); // name -> {turns, log, night}
let writing = null; // the AbortController of the answer that is being written

const keep = () => sessionStorage.setItem(STORED, JSON.stringify(kept));

function session(name) {
  if (!kept.sessions[name]) {
    kept.sessions[name] = `talk-${uuid()}`;
    keep();
  }
  return kept.sessions[name];
}

function person(name) {
  if (!people.has(name)) {
    const log = part("log");
    place("logs").append(log);
    people.set(name, { log, turns: [], night: null, notes: [], ready: null });
    people.get(name).ready = restore(name);
  }
  return people.get(name);
}

/** After a reload: the conversation of this tab, from the journal. */
async function restore(name) {
  if (!kept.sessions[name]) return;
  const found = await told(name, session(name));
  for (const decision of [...(found?.decisions ?? [])].sort((a, b) => a.at.localeCompare(b.at))) {
    const asked = decision.messages.findLast((each) => each.role === "user")?.content ?? "";
    const made = turn(name, asked);
    made.session = session(name);
    made.restored(decision);
  }
}

/** A session as the journal has it; null where this key may not read it. */
async function told(name, one) {
  if (!may.has("feedback")) return null;
  const query = new URLSearchParams({ user: name, session: one, limit: 1 });
  try {
    return (await call(`${base}/conversations?${query}`)).conversations[0] ?? null;
  } catch {
    return null;
  }
}

function turn(name, asked) {
  const { log, turns } = person(name);
  log.querySelector(".nothing")?.remove();
  const made = new Turn({ name, asked, notes: () => person(name).notes, taught: () => notes(name), again: () => ask(asked) });
  turns.push(made);
  log.append(made.node);
  return made;
}

async function ask(question) {
  if (writing) return;
  const name = kept.now;
  const { turns, ready } = person(name);
  writing = new AbortController();
  busy(true);
  await ready;
  const before = turns.filter((each) => each.session === session(name) && each.text).flatMap((each) => each.messages());
  const made = turn(name, question);
  made.session = session(name);
  made.node.scrollIntoView({ block: "nearest" });
  await made.write({
    model: policy, user: name, metadata: { session: made.session }, temperature: Number(place("temperature").value),
    max_tokens: 256, messages: [...before, { role: "user", content: question }],
  }, writing.signal);
  writing = null;
  busy(false);
  const found = (await told(name, made.session))?.decisions.find((each) => each.id === made.id);
  if (found) made.explain(found);
  made.node.scrollIntoView({ block: "nearest" });
}

function busy(is) {
  place("send").disabled = is;
  place("stop").hidden = !is;
  person(kept.now).log.setAttribute("aria-busy", String(is));
}

function anew(name) {
  delete kept.sessions[name];
  keep();
  const { log, turns } = person(name);
  if (turns.length) log.append(part("divider"));
}

// ---- who speaks ----

function speak(name) {
  if (kept.now !== name && may.has("feedback")) clearNotes();
  kept.now = name;
  if (!kept.people.includes(name)) kept.people.push(name);
  keep();
  const { log, night } = person(name);
  for (const each of people.values()) each.log.hidden = each.log !== log;
  for (const each of document.querySelectorAll("[data-name]")) each.textContent = name;
  for (const each of document.querySelectorAll("#people [data-person]")) each.setAttribute("aria-pressed", String(each.dataset.person === name));
  if (may.has("learn")) (night ?? begin(name)).show();
  refresh();
}

function listPeople() {
  const group = place("people");
  if (!group) return;
  for (const name of kept.people) {
    if ([...group.children].some((each) => each.dataset.person === name)) continue;
    const button = document.createElement("button");
    button.className = "button small person";
    button.dataset.person = name;
    button.textContent = name;
    button.addEventListener("click", () => speak(name));
    group.append(button);
  }
}

async function known() {
  if (page.user || !may.has("admin")) return;
  const found = await call(`${base}/conversations?limit=100`).catch(() => ({ conversations: [] }));
  for (const name of new Set(found.conversations.map((each) => each.user))) {
    if (!name) continue;
    const option = document.createElement("option");
    option.value = name;
    place("known").append(option);
  }
}

// ---- what stands beside the conversation ----

async function notes(name) {
  if (!may.has("feedback")) return null;
  const found = await showNotes(policy, name, { shown: () => kept.now === name, ask });
  if (found) person(name).notes = found.notes;
  return found;
}

async function voice(name) {
  if (!may.has("learn")) return;
  const found = await call(`${base}?${new URLSearchParams({ user: name })}`).catch(() => null);
  person(name).night?.heed(found?.adapter?.job);
  if (!found || kept.now !== name) return;
  const serves = found.serves === "baseline" ? found.baseline : found.champion;
  const own = found.adapter?.champion;
  const theirs = found.serves !== "baseline" && own && own !== found.baseline;
  place("voice").textContent = line(theirs ? "own" : "shared", { name, version: theirs ? own : serves });
}

const refresh = () => Promise.all([notes(kept.now), voice(kept.now)]);

function begin(name) {
  const night = new Night({
    policy, name, job: kept.nights[name], shown: () => kept.now === name,
    began: (job) => { kept.nights[name] = job; keep(); },
    ended: () => { delete kept.nights[name]; keep(); },
    promoted: () => { anew(name); refresh(); },
    settled: refresh,
  });
  person(name).night = night;
  return night;
}

// ---- what is pressed ----

place("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = place("question").value.trim();
  if (!question || writing) return;
  place("question").value = "";
  const dream = place("sleep") && DREAM.exec(question);
  if (dream) person(kept.now).night.start({ dream: true, budget: dream[1] && Number(dream[1]) });
  else ask(question);
});
place("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  place("ask").requestSubmit();
});
place("stop").addEventListener("click", () => writing?.abort());
place("anew").addEventListener("click", () => {
  anew(kept.now);
  place("question").focus();
});
place("newcomer")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const name = place("newcomer-name").value.trim();
  if (!name) return;
  place("newcomer-name").value = "";
  if (!kept.people.includes(name)) kept.people.push(name);
  listPeople();
  speak(name);
});
place("sleep")?.addEventListener("click", () => person(kept.now).night.start());

listPeople();
speak(kept.now);
known();
everyLook(refresh);
