// The plots of a trial, of either kind of policy.
import { across, along, axis, colour, line, short, signed } from "./chart.js";

const x = { time: false };

/** The effect and the evidence of the last trial in `points`, counted in `judged`. */
export function trial(plots, points, judged) {
  const end = points.at(-1);
  const ours = points.filter((one) => one.challenger === end.challenger && one.champion === end.champion && one.judged > 0);
  const known = ours.filter((one, at) => ours[at + 1]?.judged !== one.judged);
  if (!known.length) {
    plots.effect.clear();
    plots.evidence.clear();
    return;
  }
  const column = (name) => known.map((one) => one[name]);
  const alone = { points: { show: known.length < 3 } };
  const effect = () => ({
    scales: { x },
    axes: [along(judged), axis({ say: signed, size: 62 })],
    series: [
      { label: "judged", value: (u, value, at, index) => short(index === null ? u.data[0].at(-1) : value) },
      line("effect", "v1", { say: signed, ...alone }),
      line("from", "v1", { say: signed, width: 1, dash: [2, 3], ...alone }),
      line("to", "v1", { say: signed, width: 1, dash: [2, 3], ...alone }),
    ],
    bands: [{ series: [3, 2], fill: `${colour("v1")}26` }],
    hooks: { draw: [across([[0, "quiet"]])] },
  });
  plots.effect.draw(`${known.length < 3}`, effect, [column("judged"), column("effect"), column("low"), column("high")]);
  const tens = (value) => Math.log10(Math.max(value, 1e-3));
  const back = (value) => short(10 ** value);
  const evidence = () => ({
    scales: { x, y: { range: (u, min, max) => [Math.min(0, min), max + 0.15] } },
    axes: [along(judged), axis({ size: 62, splits: (u, at, min, max) => steps(min, max), say: back })],
    series: [
      { label: "judged", value: (u, value, at, index) => short(index === null ? u.data[0].at(-1) : value) },
      line("evidence", "v1", { say: back, ...alone }),
      line("needed", "good", { say: back, dash: [6, 4] }),
    ],
  });
  plots.evidence.draw(`${known.length < 3}`, evidence, [column("judged"), column("e_value").map(tens), column("e_needed").map(tens)]);
}

/** 1, 3, 10, 30 ... between two powers of ten; fewer where they would be many. */
function steps(min, max) {
  const every = max - min > 5 ? Math.ceil((max - min) / 5) : 0;
  const out = [];
  for (let power = Math.floor(min); power <= max; power += every || 1) {
    out.push(power);
    if (!every) out.push(power + Math.log10(3));
  }
  return out.filter((each) => each >= min && each <= max);
}
