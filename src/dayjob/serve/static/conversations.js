// Conversations: what was said, by which version, with which notes in the context, and what came of it.
import { everyLook } from "./live.js";
import { call, Refused } from "./wire.js";
import { chip, element, line, part, put, slot, when, word } from "./words.js";

const page = document.querySelector("[data-policy]").dataset;
const base = `/v1/policies/${encodeURIComponent(page.policy)}`;
const asked = new URLSearchParams(location.search);
const place = (id) => document.getElementById(id);
const query = new URLSearchParams({ limit: asked.get("limit") || "20" });
const user = page.user || asked.get("user") || "";
if (user) query.set("user", user);
if (asked.get("session")) query.set("session", asked.get("session"));
let last = "";

place("user").value = user;
place("session").value = asked.get("session") ?? "";
place("limit").value = query.get("limit");

everyLook(async () => {
  try {
    const [{ conversations, more }, notes] = await Promise.all([call(`${base}/conversations?${query}`), known()]);
    fault("");
    place("more").hidden = !more;
    const mark = JSON.stringify([conversations, [...notes]]);
    if (mark === last) return;
    last = mark;
    place("none").hidden = conversations.length > 0;
    place("conversations").replaceChildren(...conversations.map((each) => conversation(each, notes)));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    fault(error.message);
  }
});

function fault(text) {
  place("fault").textContent = text;
  place("fault").hidden = !text;
}

async function known() {
  const may = page.may.split(" ");
  if (!may.includes("feedback") || !(user || may.includes("admin"))) return new Map();
  const { notes } = await call(`/v1/notes?${new URLSearchParams(user ? { policy: page.policy, user } : { policy: page.policy })}`);
  return new Map(notes.map((each) => [each.id, each.asked ? `${each.asked} → ${each.text}` : each.text]));
}

function conversation(one, notes) {
  const node = part("conversation");
  const count = one.decisions.length;
  put(node, "user", one.user ?? line("nobody"));
  put(node, "about", line(count === 1 ? "about-one" : "about", { n: count, at: when(one.decisions.at(-1).at) }));
  put(node, "session", one.session ? line("session", { session: one.session }) : "");
  put(node, "older", one.more ? line("older") : "");
  slot(node, "said").replaceChildren(...one.decisions.map((each) => said(each, notes)));
  return node;
}

function said(one, notes) {
  const node = part("said");
  node.dataset.decision = one.id;
  const at = one.messages.findLastIndex((each) => each.role === "user");
  put(node, "asked", one.messages[at]?.content);
  slot(node, "text").textContent = one.text;
  slot(node, "text").classList.toggle("empty", !one.text);
  put(node, "at", when(one.at)).dateTime = one.at;
  put(node, "version", one.version);
  chip(slot(node, "role"), "role", one.role);
  const count = one.notes.length;
  put(node, "noted", count === 0 ? line("no-note") : count === 1 ? line("one-note") : line("notes", { n: count }));
  list(node, "context", one.notes.map((id) => notes.get(id) ?? line("gone-note")));
  list(node, "outcomes", one.outcomes.map(outcome));
  const before = one.messages.filter((each, index) => index !== at);
  const details = slot(node, "before");
  details.hidden = !before.length;
  details.querySelector("summary").textContent = line("before", { n: before.length });
  details.querySelector("div").replaceChildren(...before.map((each) => element("p", `${each.role}: ${each.content}`)));
  return node;
}

function list(node, name, texts) {
  const place = slot(node, name);
  place.hidden = !texts.length;
  place.replaceChildren(...texts.map((each) => element("li", each)));
}

function outcome(one) {
  if (one.kind === "thumb") return line(one.value > 0 ? "up" : "down");
  const kind = word("told", one.kind).text;
  const text = one.text ?? (one.kind === "retract" ? "" : one.value);
  return text === null || text === "" ? kind : line("outcome", { kind, text });
}
