// The plots of one policy, from the JSON of its report and its series. Where nothing is known nothing is drawn.
/* global uPlot */
import { along, axis, chart, colour, line, percent, short } from "./chart.js";
import { everyLook } from "./live.js";
import { trial } from "./trial.js";

const policy = document.querySelector("[data-policy]").dataset.policy;
const LINES = ["v1", "v2", "v3", "v4", "v5", "v6"]; // colours of the stylesheet, in the order of first service
const plots = Object.fromEntries(["position", "shares", "effect", "evidence", "reward", "error", "learning"].map((name) => [name, chart(name)]));
const STILL = 0.01; // nats: below this a plot of the KL would only magnify noise
const x = { time: false };

everyLook(async () => {
  const base = `/v1/policies/${encodeURIComponent(policy)}`;
  const [report, found] = await Promise.all([read(`${base}/report`), read(`${base}/series`)]);
  if (!report || !found) return;
  position(report);
  shares((found.series.position ?? []).filter((one) => one.share_at?.some((share) => share > 0)));
  trial(plots, found.series.trial ?? [], "judged decisions");
  versions(found.series.versions ?? []);
  learning((found.series.learning ?? []).filter((one) => Number.isFinite(one.kl) || Number.isFinite(one.reward)));
});

async function read(address) {
  const answer = await fetch(address, { cache: "no-store" });
  return answer.ok ? answer.json() : null;
}

function position(report) {
  const share = report.feedback.share_at ?? [];
  if (!share.length) return plots.position.clear();
  const { beta = [], beta_low: low = [], beta_high: high = [], predicted = [] } = report.bias ?? {};
  const upTo = (values) => share.map((_, at) => values[at] ?? null);
  const bars = uPlot.paths.bars({ size: [0.62, 72], radius: 0.12 });
  const options = () => ({
    scales: { x: { ...x, range: [0.4, share.length + 0.6] }, y: { range: (u, min, max) => [-0.05 * Math.max(0.1, max), Math.max(0.1, max * 1.08)] } },
    axes: [along("position", { splits: () => share.map((_, at) => at + 1) }), axis({ say: percent, size: 56 })],
    series: [
      { label: "position", value: (u, value, at, index) => (index === null ? "" : short(value)) },
      line("share of the clicks", "v1", { say: percent, idle: "", paths: bars, fill: `${colour("v1")}66`, width: 1 }),
      ...(beta.length ? [line("pull of the position (β)", "accent", { say: percent, idle: "", points: { show: true, size: 7 } })] : []),
      ...(low.length ? [line("95 % from", "accent", { say: percent, idle: "", width: 0 }), line("to", "accent", { say: percent, idle: "", width: 0 })] : []),
      ...(predicted.length ? [line("foretold by the click model", "v2", { say: percent, idle: "", points: { show: true, size: 7 } })] : []),
    ],
    bands: beta.length && low.length ? [{ series: [4, 3], fill: `${colour("accent")}2e` }] : [],
  });
  const rows = [share, ...(beta.length ? [upTo(beta)] : []), ...(low.length ? [upTo(low), upTo(high)] : []), ...(predicted.length ? [upTo(predicted)] : [])];
  plots.position.draw(`${share.length} ${beta.length} ${low.length} ${predicted.length}`, options, [share.map((_, at) => at + 1), ...rows]);
}

function shares(points) {
  if (points.length < 2) return;
  const places = points.at(-1).share_at.slice(0, 3).map((_, at) => at);
  const options = () => ({
    scales: { x, y: { range: (u, min, max) => [0, Math.max(0.1, max * 1.08)] } },
    axes: [along("journal row"), axis({ say: percent, size: 56 })],
    series: [
      { label: "row", value: (u, value, at, index) => short(index === null ? u.data[0].at(-1) : value) },
      ...places.map((at) => line(`position ${at + 1}`, LINES[at], { say: percent })),
    ],
  });
  const rows = places.map((at) => points.map((one) => one.share_at[at] ?? null));
  plots.shares.draw(`${places}`, options, [points.map((one) => one.seq), ...rows]);
}

function versions(points) {
  const names = [...new Set(points.flatMap((point) => Object.keys(point.versions)))];
  if (!names.length) return plots.reward.clear();
  const stroke = (name, at) => (name.startsWith("v0-") ? "quiet" : LINES[at % LINES.length]);
  const drawn = (plot, what, say) => {
    const column = (name) => points.map((point) => point.versions[name]?.[what] ?? null);
    const few = points.length < 3;
    const options = () => ({
      scales: { x },
      axes: [along("journal row"), axis({ size: 56, say })],
      series: [
        { label: "row", value: (u, value, at, index) => short(index === null ? u.data[0].at(-1) : value) },
        ...names.map((name, at) => line(name, stroke(name, at), { say, points: { show: few, size: 8 } })),
      ],
    });
    plot.draw(`${names} ${few}`, options, [points.map((point) => point.seq), ...names.map(column)]);
  };
  drawn(plots.reward, "reward", short);
  const truth = points.some((point) => Object.values(point.versions).some((one) => Number.isFinite(one.error)));
  if (truth) drawn(plots.error, "error", short);
}

function learning(points) {
  if (points.length < 2) return plots.learning.clear();
  const column = (name) => points.map((one) => one[name] ?? null);
  const options = () => ({
    scales: { x, y: { range: (u, min, max) => [0, Math.max(STILL, 1.1 * max)] }, reward: {} },
    axes: [along("journal row"), axis({ size: 56, label: "KL, nats" }), axis({ scale: "reward", side: 1, size: 50, label: "reward", grid: { show: false } })],
    series: [
      { label: "row", value: (u, value, at, index) => short(index === null ? u.data[0].at(-1) : value) },
      line("KL moved", "v2"),
      line("reward", "v1", { scale: "reward" }),
    ],
  });
  plots.learning.draw("two", options, [column("seq"), column("kl"), column("reward")]);
}
