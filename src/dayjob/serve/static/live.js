// Keeps a page true: fetches it again and exchanges only the parts that changed. Buttons ask before they act.
const EVERY_MS = 2000;
const listeners = [];
let timer = 0;
let looking = false;

/** Calls `listen` now and after every look at the server. */
export function everyLook(listen) {
  listeners.push(listen);
  listen();
}

/** One look: the page again, then whoever listens. */
export async function look() {
  if (looking) return;
  looking = true;
  clearTimeout(timer);
  try {
    const answer = await fetch(location.pathname, { cache: "no-store" });
    if (answer.status === 401 || answer.status === 403) {
      say("The login has ended: load this page again to log in.");
    } else if (!answer.ok) {
      say(`The server answered ${answer.status}: what stands here may be old.`);
    } else {
      say("");
      exchange(new DOMParser().parseFromString(await answer.text(), "text/html"));
      await Promise.all(listeners.map((listen) => listen()));
    }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    say("The server does not answer: what stands here is old. It is asked again every two seconds.");
  } finally {
    looking = false;
    if (!document.hidden) timer = setTimeout(look, EVERY_MS);
  }
}

function say(text) {
  const banner = document.getElementById("offline");
  banner.hidden = !text;
  if (banner.textContent !== text) banner.textContent = text;
}

function exchange(fresh) {
  const selected = getSelection();
  for (const old of document.querySelectorAll("[data-live]")) {
    const now = fresh.getElementById(old.id);
    if (!now || now.innerHTML === old.dataset.seen || (old.dataset.seen === undefined && now.innerHTML === old.innerHTML)) continue;
    if (selected && !selected.isCollapsed && selected.containsNode(old, true)) continue;
    replace(old, now);
  }
}

function replace(old, now) {
  old.dataset.seen = now.innerHTML;
  const focused = old.contains(document.activeElement) ? document.activeElement.closest("[data-key]")?.dataset.key : undefined;
  const open = [...old.querySelectorAll("details[open]")].map((each) => each.dataset.key);
  old.replaceChildren(...now.childNodes);
  for (const each of old.querySelectorAll("details")) each.open = open.includes(each.dataset.key);
  if (focused === undefined) return;
  const again = [...old.querySelectorAll("[data-key]")].find((each) => each.dataset.key === focused);
  (again?.matches("details") ? again.querySelector("summary") : again)?.focus({ preventScroll: true });
}

// ---- buttons: each says what it will do, and does it once it is confirmed ----

const dialog = document.getElementById("confirm");
const part = (name) => document.getElementById(`confirm-${name}`);
let wanted = null;

function ask(button) {
  wanted = { call: button.dataset.call, method: button.dataset.method ?? "POST", body: JSON.parse(button.dataset.body), why: "reason" in button.dataset };
  part("title").textContent = button.dataset.title;
  part("text").textContent = button.dataset.text;
  part("do").textContent = button.textContent;
  part("error").textContent = "";
  part("reason").value = "";
  part("why").hidden = !wanted.why;
  dialog.showModal();
  (wanted.why ? part("reason") : part("do")).focus();
}

async function act() {
  const reason = part("reason").value.trim();
  if (wanted.why && !reason) {
    part("error").textContent = "Say why: it is recorded with the verdict.";
    part("reason").focus();
    return;
  }
  part("do").disabled = true;
  try {
    const body = wanted.why ? { ...wanted.body, reason } : wanted.body;
    const told = wanted.method === "DELETE" ? {} : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    const answer = await fetch(wanted.call, { method: wanted.method, ...told });
    if (answer.ok) {
      dialog.close();
      document.dispatchEvent(new CustomEvent("acted", { detail: wanted.call }));
      await look();
    } else {
      const said = await answer.json().catch(() => null);
      part("error").textContent = said?.error?.message ?? `The server answered ${answer.status}.`;
    }
  } catch (error) {
    part("error").textContent = `The server was not reached (${error.message}). Nothing is known to have changed.`;
  } finally {
    part("do").disabled = false;
  }
}

if (dialog) {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-call]");
    if (button) ask(button);
  });
  part("do").addEventListener("click", act);
}
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});
timer = setTimeout(look, EVERY_MS);
