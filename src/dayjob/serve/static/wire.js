// The wire contract from a page: JSON in and out, and a chat as a stream. A refusal carries the server's own words.

/** What the server refused, or that it was not reached. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** One call; its JSON. Raises Refused. */
export async function call(path, { method = "GET", body, signal } = {}) {
  const answer = await reached(path, { method, body, signal });
  return answer.json();
}

async function reached(path, { method, body, signal }) {
  const told = body === undefined ? {} : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, { method, cache: "no-store", signal, ...told });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(`The server was not reached (${error.message}).`, 0);
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  throw new Refused(said?.error?.message ?? `The server answered ${answer.status}.`, answer.status);
}

/** The chunks of a chat's stream as they come. Raises Refused, also for a fault in the middle or a stream cut short. */
export async function* chat(body, signal) {
  const answer = await reached("/v1/chat/completions", { method: "POST", body: { ...body, stream: true }, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Refused("The answer was cut short: ask again.", 0);
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refused(chunk.error.message, 0);
      yield chunk;
    }
  }
}

/** A random UUID, also where the page is not served over TLS. */
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
