// Plots in the page's own colours. A plot with the same lines only gets new numbers, so nothing flickers.
/* global uPlot */
const dark = matchMedia("(prefers-color-scheme: dark)");
const charts = new Set();

/** The value of a colour of the stylesheet. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** A number with three significant digits, large ones with separators. */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e7) return value.toExponential(1);
  return size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
}

/** A share as a percentage. */
export const percent = (value) => (Number.isFinite(value) ? `${Number((100 * value).toFixed(1))} %` : "–");

/** A difference with its sign. */
export const signed = (value) => (Number.isFinite(value) ? `${value < 0 ? "−" : value > 0 ? "+" : ""}${Number(Math.abs(value).toPrecision(2))}` : "–");

/** One line of a plot. `stroke` names a colour of the stylesheet; without a cursor the last value shows, or `idle`. */
export function line(label, stroke, { say = short, idle, ...rest } = {}) {
  const value = (u, v, at, index) => (index ?? null) !== null ? say(v) : idle ?? say(last(u.data[at]));
  return { label, stroke: colour(stroke), width: 2, spanGaps: true, points: { show: false }, value, ...rest };
}

const last = (values) => {
  for (let at = values.length - 1; at >= 0; at--) if (values[at] !== null && values[at] !== undefined) return values[at];
  return null;
};

/** An axis in the page's colours. */
export function axis({ say = short, label = "", ...rest } = {}) {
  const font = getComputedStyle(document.body).fontFamily;
  return {
    stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: `12px ${font}`,
    labelFont: `12px ${font}`, label: label || undefined, labelSize: 20, size: 44, gap: 4,
    values: (u, splits) => splits.map((each) => (each === null ? "" : say(each))), ...rest,
  };
}

/** The x axis of whole numbers: interactions, decisions, positions. */
export const along = (label, rest = {}) => axis({ label, size: 30, space: (u, at, min, max, size) => Math.min(70, size / 4), grid: { show: false }, say: (value) => short(value), ...rest });

class Chart {
  constructor(place) {
    this.place = place;
    this.shape = "";
    this.build = null;
    this.width = 0;
    charts.add(this);
    new ResizeObserver(() => this.fit()).observe(place);
  }

  /** `build` makes uPlot's options anew (colours may have changed); `shape` differs where the lines do. */
  draw(shape, build, data) {
    this.place.hidden = false;
    this.place.closest("figure").hidden = false;
    this.build = build;
    this.data = data;
    if (this.plot && shape === this.shape) {
      this.plot.setData(data);
      return;
    }
    this.shape = shape;
    this.make();
  }

  make() {
    this.plot?.destroy();
    this.width = this.place.clientWidth;
    const height = this.place.classList.contains("short") ? 170 : 230;
    const common = { width: this.width, height, legend: { live: true }, cursor: { drag: { x: false, y: false }, y: false }, padding: [10, 22, 0, 0] };
    this.plot = new uPlot({ ...common, ...this.build() }, this.data, this.place);
  }

  fit() {
    const width = this.place.clientWidth;
    if (!this.plot || !width || width === this.width) return;
    this.width = width;
    this.plot.setSize({ width, height: this.plot.height });
  }

  clear() {
    this.plot?.destroy();
    this.plot = null;
    this.place.hidden = true;
  }
}

/** The plot of the figure with this name. */
export const chart = (name) => new Chart(document.querySelector(`[data-plot="${name}"] .plot`));

/** Straight horizontal lines across a plot, as a uPlot hook: [value, colour]. */
export const across = (lines, scale = "y") => (u) => {
  for (const [value, stroke] of lines) rule(u, stroke, () => [u.bbox.left, u.valToPos(value, scale, true), u.bbox.left + u.bbox.width, u.valToPos(value, scale, true)]);
};

/** A vertical line with words at a value of x. */
export const mark = (x, stroke, words) => (u) => {
  if (x === null || x < u.scales.x.min || x > u.scales.x.max) return;
  const left = u.valToPos(x, "x", true);
  rule(u, stroke, () => [left, u.bbox.top, left, u.bbox.top + u.bbox.height]);
  const { ctx } = u;
  ctx.save();
  ctx.fillStyle = colour(stroke);
  ctx.font = `600 ${12 * devicePixelRatio}px ${getComputedStyle(document.body).fontFamily}`;
  const room = u.bbox.left + u.bbox.width - left > ctx.measureText(words).width + 12;
  ctx.textAlign = room ? "left" : "right";
  ctx.fillText(words, left + (room ? 6 : -6) * devicePixelRatio, u.bbox.top + 12 * devicePixelRatio);
  ctx.restore();
};

function rule(u, stroke, ends) {
  const { ctx } = u;
  const [x0, y0, x1, y1] = ends();
  if (![x0, y0, x1, y1].every(Number.isFinite)) return;
  ctx.save();
  ctx.beginPath();
  ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
  ctx.clip();
  ctx.beginPath();
  ctx.strokeStyle = colour(stroke);
  ctx.lineWidth = 1.5 * devicePixelRatio;
  ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.moveTo(x0, y0);
  ctx.lineTo(x1, y1);
  ctx.stroke();
  ctx.restore();
}

dark.addEventListener("change", () => charts.forEach((each) => each.plot && each.make()));
