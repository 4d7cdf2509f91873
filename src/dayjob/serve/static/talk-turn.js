// One question with its answer: written as it comes, explained, corrected, thumbed, compared with its teacher.
import { compare } from "./talk-compare.js";
import { call, chat, uuid, Refused } from "./wire.js";
import { chip, element, line, part, put, slot } from "./words.js";

export class Turn {
  /** `notes` gives what is known of the person's notes, `taught` follows what was taught, `again` asks once more. */
  constructor({ name, asked, notes, taught, again }) {
    Object.assign(this, { name, asked, notes, taught, again, id: "", text: "", session: "", thumb: null });
    this.node = part("turn");
    put(this.node, "name", name);
    put(this.node, "asked", asked);
    slot(this.node, "text").classList.add("writing");
    this.node.addEventListener("click", (event) => {
      const button = event.target.closest("[data-do]");
      if (button) this.act(button);
    });
    slot(this.node, "teach").addEventListener("submit", (event) => {
      event.preventDefault();
      this.teach();
    });
  }

  /** This turn as messages of what comes after it. */
  messages() {
    return [{ role: "user", content: this.asked }, { role: "assistant", content: this.text }];
  }

  /** Ask, and show the answer as it comes. */
  async write(body, signal) {
    const place = slot(this.node, "text");
    try {
      for await (const chunk of chat(body, signal)) {
        this.id = chunk.id;
        this.text += chunk.choices[0]?.delta.content ?? "";
        place.textContent = this.text;
        put(this.node, "version", chunk.model.split("@")[1]);
      }
      this.written();
    } catch (error) {
      if (error.name === "AbortError") this.say(line("stopped"));
      else if (error instanceof Refused) put(this.node, "error", error.message);
      else throw error;
    } finally {
      place.classList.remove("writing");
    }
  }

  written() {
    const place = slot(this.node, "text");
    place.classList.remove("writing");
    place.classList.toggle("empty", !this.text);
    slot(this.node, "tools").hidden = false;
    slot(this.node, "meta").hidden = false;
  }

  /** An answer that the journal has from before. */
  restored(decision) {
    Object.assign(this, { id: decision.id, text: decision.text });
    slot(this.node, "text").textContent = decision.text;
    this.written();
    this.explain(decision);
    const thumb = decision.outcomes.findLast((each) => each.kind === "thumb");
    const gone = decision.outcomes.some((each) => each.kind === "retract" && each.value === thumb?.id);
    if (thumb && !gone) this.thumbed(thumb.id, thumb.value);
  }

  /** Who answered, on whose behalf, and with which notes in the context. */
  explain(decision) {
    put(this.node, "version", decision.version);
    chip(slot(this.node, "role"), "role", decision.role);
    const count = decision.notes.length;
    put(this.node, "noted", count === 0 ? line("no-note") : count === 1 ? line("one-note") : line("notes", { n: count }));
    const list = slot(this.node, "context");
    const known = new Map(this.notes().map((each) => [each.id, each]));
    list.replaceChildren(...decision.notes.map((id) => {
      const note = known.get(id);
      return element("li", note ? (note.asked ? `${note.asked} → ${note.text}` : note.text) : line("gone-note"));
    }));
    list.hidden = !count;
  }

  say(text) {
    slot(this.node, "taught").textContent = text;
  }

  async act(button) {
    const what = button.dataset.do;
    if (what === "again") this.again();
    else if (what === "leave") this.open(null);
    else if (what === "correct" || what === "show") this.open(button.getAttribute("aria-expanded") === "true" ? null : what);
    else if (what === "compare") await this.compared(button);
    else await this.tried(() => this.thumbs(what === "up" ? 1 : -1));
  }

  async tried(doing) {
    try {
      put(this.node, "error", "");
      await doing();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      put(this.node, "error", error.message);
    }
  }

  /** A thumb; the same once more takes it back. */
  async thumbs(value) {
    const old = this.thumb;
    if (old) await call("/v1/feedback", { method: "POST", body: { decision: this.id, kind: "retract", value: old.id } });
    this.thumbed(null, 0);
    this.say(line("withdrawn"));
    if (old?.value === value) return;
    const said = await call("/v1/feedback", { method: "POST", body: { id: uuid(), decision: this.id, kind: "thumb", value } });
    this.thumbed(said.id, value);
    this.say(line("thumbed"));
  }

  thumbed(id, value) {
    this.thumb = id ? { id, value } : null;
    for (const [name, its] of [["up", 1], ["down", -1]]) {
      this.node.querySelector(`[data-do="${name}"]`)?.setAttribute("aria-pressed", String(value === its));
    }
  }

  /** Open the form of a correction or a demonstration, or close it. */
  open(what) {
    const form = slot(this.node, "teach");
    const field = form.querySelector("textarea");
    const last = this.teaching;
    this.teaching = what;
    form.hidden = !what;
    for (const name of ["correct", "show"]) this.node.querySelector(`[data-do="${name}"]`)?.setAttribute("aria-expanded", String(name === what));
    if (!what) {
      this.node.querySelector(`[data-do="${last}"]`)?.focus();
      return;
    }
    slot(form, "label").textContent = line(what);
    field.id ||= `teach-${uuid()}`;
    slot(form, "label").htmlFor = field.id;
    field.value = what === "show" ? this.text : "";
    field.focus();
  }

  async teach() {
    const field = slot(this.node, "teach").querySelector("textarea");
    const text = field.value.trim();
    if (!text) return field.focus();
    const kind = this.teaching === "show" ? "demonstration" : "correction";
    await this.tried(async () => {
      const said = await call("/v1/feedback", { method: "POST", body: { id: uuid(), decision: this.id, kind, text } });
      this.open(null);
      const found = await this.taught();
      const refused = found?.refused.find((each) => each.id === said.id);
      this.say(refused ? line("forgotten", { reason: refused.reason }) : line("noted", { name: this.name }));
    });
  }

  /** Teacher and student, token by token; the same once more closes it. */
  async compared(button) {
    const place = slot(this.node, "compare");
    const open = place.hidden;
    button.setAttribute("aria-expanded", String(open));
    place.hidden = true;
    if (!open) return;
    await this.tried(async () => {
      const { tokens } = await call(`/v1/decisions/${this.id}/compare`);
      compare(place, tokens);
    });
    if (place.hidden) button.setAttribute("aria-expanded", "false");
  }
}
