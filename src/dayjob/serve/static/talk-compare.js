// Teacher and student: how probable each token of an answer is with the notes in the context, and without them.
import { short } from "./chart.js";
import { element, line, part } from "./words.js";

const MARKED = Math.log(2); // nats: at least twice, or at most half, as probable
const HEIGHT = 40; // of the bars' drawing

/** A token as a reader sees it: blanks and line ends are visible, one that writes nothing is the end. */
const seen = (text) => (text === "" ? line("end") : text.replaceAll("\n", "⏎").replace(/^ | $/g, "␣"));

/** How many times as probable with the notes: "×12", "÷3". */
const times = (nats) => (nats >= 0 ? `×${short(Math.exp(nats))}` : `÷${short(Math.exp(-nats))}`);

/** Draw the tokens into a place. */
export function compare(place, tokens) {
  const told = document.getElementById("compare-words").content.cloneNode(true);
  const both = tokens.every((each) => each.with_notes !== null);
  const gap = (each) => (both ? each.with_notes - each.without_notes : 0);
  const marked = tokens.filter((each) => Math.abs(gap(each)) >= MARKED);
  const said = told.querySelector('[data-case="said"]');
  const most = marked.toSorted((a, b) => Math.abs(gap(b)) - Math.abs(gap(a)))[0];
  said.hidden = !both;
  said.textContent = most
    ? line("most", { n: marked.length, all: tokens.length, token: `“${seen(most.text)}”`, times: line(gap(most) > 0 ? "more" : "less", { x: short(Math.exp(Math.abs(gap(most)))) }) })
    : line("alike", { all: tokens.length });
  told.querySelector('[data-case="bare"]').hidden = both;
  told.querySelector(".legend").hidden = !both;
  told.querySelector("tbody").replaceChildren(...tokens.map((each) => row(each, both, gap(each))));
  const drawn = element("p", "", { class: "tokens" });
  drawn.append(...tokens.map((each) => token(each, both, gap(each))));
  place.replaceChildren(said, told.querySelector('[data-case="bare"]'), drawn);
  place.append(told);
  place.hidden = false;
}

function token(each, both, gap) {
  const node = part("token");
  node.querySelector(".word").textContent = seen(each.text);
  bar(node.querySelector(".without"), each.without_notes);
  if (both) bar(node.querySelector(".with"), each.with_notes);
  else node.querySelector(".with").remove();
  if (Math.abs(gap) >= MARKED) {
    node.classList.add("differs");
    node.querySelector(".mark").textContent = times(gap);
  }
  return node;
}

function bar(rect, logprob) {
  const height = 1 + (HEIGHT - 1) * Math.exp(logprob);
  rect.setAttribute("y", String(HEIGHT - height));
  rect.setAttribute("height", String(height));
}

function row(each, both, gap) {
  const made = document.createElement("tr");
  const share = (logprob) => (logprob === null ? "–" : `${short(Math.exp(logprob))} (${logprob.toFixed(2)} nats)`);
  made.append(element("th", seen(each.text), { scope: "row" }), element("td", share(each.with_notes)), element("td", share(each.without_notes)), element("td", both ? times(gap) : "–"));
  return made;
}
