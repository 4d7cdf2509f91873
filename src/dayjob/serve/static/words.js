// Words and parts of the page, from its templates. Whatever people or models wrote is set as text, never as markup.

const words = new Map([...document.getElementById("words").content.querySelectorAll("[data-word]")].map((each) => [each.dataset.word, each]));
const lines = new Map([...document.getElementById("lines").content.querySelectorAll("[data-line]")].map((each) => [each.dataset.line, each.textContent]));

/** What a state is called: {text, tone}. One that has no words is called by its own name. */
export function word(table, key) {
  const found = words.get(`${table}.${key}`);
  return { text: found?.textContent ?? String(key), tone: found?.dataset.tone ?? "plain" };
}

/** What a verdict is called, with whoever said it, and what of its reason the title leaves: {text, tone, rest}. Of what
 *  is held the reason is the title: there are several, and none is true of all. */
export function verdictOf({ kind, by, reason }) {
  const { text, tone } = word(words.has(`verdict-${by}.${kind}`) ? `verdict-${by}` : "verdict", kind);
  if (kind !== "hold") return { text, tone, rest: reason.toLowerCase() === text.toLowerCase() ? "" : reason };
  const [first, ...others] = reason.split(". ");
  const why = `${first.slice(0, 1).toLowerCase()}${first.slice(1)}`.replace(/\.$/, "");
  return { text: why ? `${text}: ${why}` : text, tone, rest: others.join(". ") };
}

/** A line of the page with its braces filled. */
export const line = (key, values = {}) => lines.get(key).replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);

/** A copy of a template's first element. */
export const part = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

/** The named place in a part. */
export const slot = (root, name) => root.querySelector(`[data-slot="${name}"]`);

/** Set a place's text; no text hides it. */
export function put(root, name, text) {
  const place = slot(root, name);
  place.textContent = text ?? "";
  place.hidden = !text;
  return place;
}

/** Set a chip to a state's words. */
export function chip(place, table, key) {
  const { text, tone } = word(table, key);
  place.textContent = text;
  place.className = `chip ${tone}`;
  place.hidden = false;
}

/** An element with a text and attributes. */
export function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** A time to the minute, in UTC. */
export const when = (text) => `${text.slice(0, 10)} ${text.slice(11, 16)} UTC`;
