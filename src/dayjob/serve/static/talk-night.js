// A person's night: asked for, followed to its end, then what the gate said of it and who answers from now on.
import { call, Refused } from "./wire.js";
import { chip, element, line, verdictOf, word } from "./words.js";

const EVERY_MS = 1000;
const PATIENCE_S = 10; // after which silence is said to be silence
const place = (id) => document.getElementById(id);
const pause = () => new Promise((done) => setTimeout(done, EVERY_MS));
const DECIDED = ["champion", "rejected", "held", "superseded", "rolled_back", "tainted", "damaged", "retired"];

export class Night {
  constructor({ policy, name, job, shown, began, ended, promoted, settled }) {
    Object.assign(this, { policy, name, job, shown, began, ended, promoted, settled });
    this.base = `/v1/policies/${encodeURIComponent(policy)}`;
    this.user = new URLSearchParams({ user: name });
    this.state = { now: "", share: null, end: [], busy: false };
    if (job) this.follow();
  }

  /** Ask for a night of this person; with `dream` for one that rehearses, for so many times its compute. */
  async start({ dream = false, budget } = {}) {
    if (this.state.busy) return;
    this.tell({ now: line("queued"), share: 0, end: [], busy: true });
    const body = budget === undefined ? { user: this.name } : { user: this.name, budget };
    try {
      ({ job: this.job } = await call(`${this.base}/${dream ? "dream" : "learn"}`, { method: "POST", body }));
      this.began(this.job);
    } catch (error) {
      this.fail(error);
      return;
    }
    await this.follow();
  }

  /** A night that was begun elsewhere is followed too; one that was followed to its end is not begun anew. */
  async heed(job) {
    if (this.state.busy || !job || job === this.job) return;
    this.job = job;
    this.began(job);
    await this.follow();
  }

  async follow() {
    this.tell({ now: line("queued"), share: 0, end: [], busy: true });
    try {
      const job = await this.finished();
      this.ended();
      if (job.state === "failed") this.tell({ now: line("failed", { error: job.error }), share: null, busy: false });
      else if (!job.result?.challenger) this.tell({ now: line("nothing", { reason: job.result?.reason ?? "" }), share: 1, busy: false });
      else await this.judged(job.result.challenger);
    } catch (error) {
      this.fail(error);
    }
    await this.settled();
  }

  async finished() {
    for (let waited = 0; ; waited++) {
      const job = await call(`/v1/jobs/${encodeURIComponent(this.job)}`);
      if (job.state === "succeeded" || job.state === "failed") return job;
      const idle = waited > PATIENCE_S ? line("waits", { s: waited }) : line("queued");
      this.tell({ now: job.state === "running" ? line("running") : idle, share: job.progress });
      await pause();
    }
  }

  async judged(version) {
    for (let waited = 0; ; waited++) {
      const { nights: [night] } = await call(`${this.base}/nights?${this.user}&${new URLSearchParams({ version })}`);
      if (DECIDED.includes(night.status) || night.verdict) return this.told(night);
      this.tell({ now: line(waited > PATIENCE_S ? "unjudged" : "judging", { version, s: waited }), share: 1 });
      await pause();
    }
  }

  async told(night) {
    const serves = night.status === "champion";
    const { version, counts } = night;
    const said = element("p");
    const mark = element("span", "", { class: "chip" });
    chip(mark, "status", night.status);
    const verdict = night.verdict ? verdictOf(night.verdict) : { ...word("status", night.status), rest: "" };
    said.append(mark, ` ${verdict.rest}`);
    const counted = element("p", `${line("counted", { learned: counts.learned, all: counts.lessons })} `);
    counted.append(element("a", line("report"), { href: `/policies/${encodeURIComponent(this.policy)}/mornings?${this.user}` }));
    const standing = await call(`${this.base}?${this.user}`).catch(() => null);
    const other = standing?.adapter?.champion ?? standing?.champion ?? "";
    const then = serves ? line("promoted", { version, name: this.name }) : line("kept", { version: other, name: this.name });
    this.tell({ now: line("judged", { version, verdict: verdict.text }), share: 1, end: [said, element("p", then), counted], busy: false });
    if (serves) this.promoted();
  }

  fail(error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 404) this.ended();
    this.tell({ now: error.message, share: null, busy: false });
  }

  tell(change) {
    Object.assign(this.state, change);
    if (this.shown()) this.show();
  }

  /** Draw it; called also when this person's turn comes. */
  show() {
    const { now, share, end, busy } = this.state;
    place("sleep").disabled = busy;
    place("night").hidden = !now;
    const text = place("night-now");
    if (text.textContent !== now) text.textContent = now;
    place("night-bar").closest(".evidence").hidden = share === null;
    place("night-bar").value = share ?? 0;
    place("night-share").textContent = `${Math.round(100 * (share ?? 0))} %`;
    place("night-end").replaceChildren(...end);
  }
}
