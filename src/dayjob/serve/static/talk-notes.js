// What a person taught: the notes that stand, what is known without them, and what made none.
import { call, Refused } from "./wire.js";
import { chip, line, part, put, slot } from "./words.js";

const place = (id) => document.getElementById(id);

/** Fetch and show a person's notes and the tenant's; what was found, null where it was refused. */
export async function showNotes(policy, name, { shown, ask }) {
  try {
    const found = await call(`/v1/notes?${new URLSearchParams({ user: name, policy })}`);
    if (shown()) draw(found, ask);
    return found;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (shown()) fault(error.message);
    return null;
  }
}

function fault(text) {
  place("notes-error").textContent = text;
  place("notes-error").hidden = !text;
}

/** Somebody else speaks: of whoever spoke before nothing stays in sight while theirs is fetched. */
export function clearNotes() {
  fault("");
  last = "";
  place("notes").replaceChildren();
  for (const id of ["known-notes", "refused"]) fold(place(id), "", [], null);
  place("no-notes").hidden = true;
}

let last = "";

function draw(found, ask) {
  fault("");
  const mark = JSON.stringify(found);
  if (mark === last) return; // whoever is about to press something keeps it
  last = mark;
  const refused = found.refused.map((each) => ({ ...each, text: each.reason, state: null }));
  const rest = found.notes.filter((each) => each.state === "retired");
  fill(place("notes"), found.notes.filter((each) => each.state !== "retired"), ask);
  fold(place("known-notes"), "old-notes", rest, ask);
  fold(place("refused"), "refused", refused, null);
  place("no-notes").hidden = found.notes.length > 0;
}

function fold(details, title, notes, ask) {
  details.hidden = !notes.length;
  if (notes.length) details.querySelector("summary").textContent = line(title, { n: notes.length });
  fill(details.querySelector("ul"), notes, ask);
}

function fill(list, notes, ask) {
  list.replaceChildren(...notes.map((each) => item(each, ask)));
}

function item(note, ask) {
  const node = part("note");
  node.dataset.note = note.id;
  put(node, "asked", note.asked);
  put(node, "text", note.text);
  const remove = slot(node, "delete");
  if (!note.state) {
    slot(node, "state").remove();
    remove.remove();
    return node;
  }
  chip(slot(node, "state"), "note", note.state);
  if (note.replaced_by) slot(node, "state").hidden = true;
  const whose = [note.scope === "tenant" ? line("everybody") : "", note.replaced_by ? line("replaced") : ""];
  put(node, "whose", whose.filter(Boolean).join(", "));
  const again = slot(node, "ask");
  again.hidden = !note.asked;
  again.addEventListener("click", () => ask(note.asked));
  Object.assign(remove.dataset, {
    call: `/v1/notes/${encodeURIComponent(note.id)}`, method: "DELETE", body: "{}", title: line("delete-title"),
    text: line("delete-text"), key: `delete ${note.id}`,
  });
  return node;
}
