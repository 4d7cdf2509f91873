// The published failure, replayed: every plot shows what was known after so many interactions.
/* global uPlot */
import { along, axis, chart, colour, line, mark, percent, short } from "./chart.js";

const STEP_MS = 90;
const replay = await (await fetch("/static/replay.json", { cache: "no-store" })).json();
const plots = Object.fromEntries(["reward", "kl", "km", "share"].map((name) => [name, chart(name)]));
const range = document.getElementById("at");
const play = document.getElementById("play");
const first = replay.alarm.indexOf(true);
const events = [
  { box: "alarm", at: first < 0 ? null : replay.steps[first], label: "alarm" },
  { box: "rollback", at: replay.rollback_at, label: "withdrawn" },
].map((event) => ({ ...event, box: document.getElementById(event.box) }));
const end = replay.steps.at(-1);
let timer = 0;

const happened = (event, upTo) => event.at !== null && replay.steps[upTo] >= event.at;

const span = (values, floor) => [Math.min(floor, ...values), Math.max(...values) + 0.1 * (Math.max(...values) - Math.min(floor, ...values) || 1)];

function curve(name, rows, lines, { say = short, y, size = 56 }) {
  return (upTo) => {
    const seen = (values) => values.map((value, at) => (at <= upTo ? value : null));
    const fired = events.filter((event) => happened(event, upTo));
    const options = () => ({
      scales: { x: { time: false, range: [0, end] }, y: { range: () => y } },
      axes: [along("interactions"), axis({ say, size })],
      series: [{ label: "at", value: (u, value, at, index) => short(index === null ? replay.steps[Number(range.value)] : value) }, ...lines()],
      hooks: { draw: fired.map((event) => mark(event.at, "bad", event.label)) },
    });
    plots[name].draw(`${fired.length}`, options, [replay.steps, ...rows.map(seen)]);
  };
}

const km = [...replay.km_served, replay.km_baseline];
const draws = [
  curve("reward", [replay.reward], () => [line("reward", "v1")], { y: span(replay.reward, 0) }),
  curve("kl", [replay.kl], () => [line("KL, nats", "v2")], { y: span([...replay.kl, 0.01], 0) }),
  curve("km", [replay.km_served, replay.steps.map(() => replay.km_baseline)], () => [line("served", "bad"), line("GeoCLIP's own order", "quiet", { dash: [6, 4] })], { y: span(km, 0.9 * Math.min(...km)), size: 62 }),
  share,
];

function share(upTo) {
  const values = replay.position_share[upTo];
  const options = () => ({
    scales: { x: { time: false, range: [0.4, values.length + 0.6] }, y: { range: [0, 1] } },
    axes: [along("position", { splits: () => values.map((_, at) => at + 1) }), axis({ say: percent, size: 56 })],
    series: [
      { label: "position", value: (u, value, at, index) => (index === null ? "" : short(value)) },
      line("share of the clicks", "v1", { say: percent, idle: "", paths: uPlot.paths.bars({ size: [0.62, 72], radius: 0.12 }), fill: `${colour("v1")}66`, width: 1 }),
    ],
  });
  plots.share.draw(`${values.length}`, options, [values.map((_, at) => at + 1), values]);
}

function show() {
  const at = Number(range.value);
  draws.forEach((draw) => draw(at));
  for (const event of events) {
    const fired = happened(event, at);
    if (event.box.hidden === fired) event.box.hidden = !fired;
  }
  document.getElementById("now").textContent =
    `${short(replay.steps[at])} interactions: reward ${short(replay.reward[at])}, KL ${short(replay.kl[at])}, ${Math.round(replay.km_served[at]).toLocaleString("en")} km; clicks ${replay.state[at].replace("_", " ")}`;
  range.setAttribute("aria-valuetext", `${short(replay.steps[at])} interactions`);
}

function stop() {
  clearInterval(timer);
  timer = 0;
  play.textContent = "Play";
  play.setAttribute("aria-pressed", "false");
}

play.addEventListener("click", () => {
  if (timer) return stop();
  if (range.value === range.max) range.value = 0;
  play.textContent = "Pause";
  play.setAttribute("aria-pressed", "true");
  timer = setInterval(() => {
    range.value = Number(range.value) + 1;
    show();
    if (range.value === range.max) stop();
  }, STEP_MS);
});
range.addEventListener("input", show);
show();
