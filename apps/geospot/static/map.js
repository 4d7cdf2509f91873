// The map: a view into an Equal Earth world 2,000 units wide, numbered marks of constant size, and a pin.
// The server projects places to map units; only the pin needs the way back, from units to degrees.

const SVG = "http://www.w3.org/2000/svg";
const HALF_WIDTH = 1000;
const WORLD = { x: 0, y: 0, w: 2040, h: 1010 };
const NARROWEST = 60; // map units across, when zoomed in as far as it goes
const CLOSEST = 200; // map units across, when a heap of guesses is shown
const APART = 25; // pixels between two marks
const MARGIN = { left: 36, right: 84, top: 48, bottom: 36 }; // pixels kept free of marks; the buttons are on the right
const A = [1.340264, -0.081106, 0.000893, 0.003796]; // Equal Earth (Savric, Patterson, Jenny 2018)
const M = Math.sqrt(3) / 2;

const rise = (t) => t * (A[0] + A[1] * t ** 2 + A[2] * t ** 6 + A[3] * t ** 8);
const slope = (t) => A[0] + 3 * A[1] * t ** 2 + 7 * A[2] * t ** 6 + 9 * A[3] * t ** 8;
const UNIT = HALF_WIDTH / ((2 * Math.sqrt(3) * Math.PI) / (3 * A[0])); // map units per projection unit

/** Degrees of a point in map units, or null beside the earth. */
export function degrees(x, y) {
  const up = -y / UNIT;
  let t = up / A[0];
  for (let i = 0; i < 12; i += 1) t -= (rise(t) - up) / slope(t);
  const sine = Math.sin(t) / M;
  const longitude = ((3 * (x / UNIT) * slope(t)) / (2 * Math.sqrt(3) * Math.cos(t))) * (180 / Math.PI);
  if (Math.abs(sine) > 1 || Math.abs(longitude) > 180) return null;
  return { lat: (Math.asin(sine) * 180) / Math.PI, lon: longitude };
}

export function words({ lat, lon }) {
  return `${Math.abs(lat).toFixed(2)}° ${lat < 0 ? "S" : "N"}, ${Math.abs(lon).toFixed(2)}° ${lon < 0 ? "W" : "E"}`;
}

function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}

/** Pixel positions pushed apart until no two are nearer than APART, each kept near its own place. */
function spread(points) {
  // two pixels aside, each in another direction, so that a heap opens into a ring and not into a line
  const at = points.map(({ px, py }, i) => ({ px: px + 2 * Math.cos(i * 2.4), py: py + 2 * Math.sin(i * 2.4) }));
  for (let round = 0; round < 80; round += 1) {
    let moved = false;
    for (let i = 0; i < at.length; i += 1) {
      for (let j = i + 1; j < at.length; j += 1) {
        let dx = at[j].px - at[i].px;
        let dy = at[j].py - at[i].py;
        let far = Math.hypot(dx, dy);
        if (far >= APART) continue;
        if (far < 0.01) {
          dx = Math.cos(i + j);
          dy = Math.sin(i + j);
          far = 1;
        }
        const push = (APART - Math.min(far, APART)) / 2 / far + 0.01;
        at[i].px -= dx * push;
        at[i].py -= dy * push;
        at[j].px += dx * push;
        at[j].py += dy * push;
        moved = true;
      }
    }
    if (!moved) break;
  }
  return at;
}

export class WorldMap {
  constructor(svg, { onPick, onHover, onPin, onPinEnter }) {
    this.svg = svg;
    this.on = { onPick, onHover, onPin, onPinEnter };
    this.view = { ...WORLD };
    this.places = [];
    this.truth = null;
    this.pin = null;
    this.pinning = false;
    this.active = null;
    this.chosen = null;
    this.best = null;
    this.box = { w: 1, h: 1 };
    new ResizeObserver(() => this.resize()).observe(svg);
    svg.addEventListener("pointerdown", (event) => this.grab(event));
    svg.addEventListener("keydown", (event) => this.key(event));
    svg.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.resize();
  }

  show(places) {
    Object.assign(this, { places, truth: null, pin: null, chosen: null, best: null, active: null });
    this.fit();
  }

  /** The truth, what was chosen and what was closest. */
  reveal({ truth, chosen, best }) {
    Object.assign(this, { truth, chosen, best });
    this.fit();
  }

  fit() {
    const points = [...this.places, ...(this.truth ? [this.truth] : []), ...(this.pin ? [this.pin] : [])];
    if (!points.length) {
      this.look(WORLD.x, WORLD.y, WORLD.w);
      return;
    }
    const xs = points.map((p) => p.x);
    const ys = points.map((p) => p.y);
    const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const [wide, high] = [this.box.w - MARGIN.left - MARGIN.right, this.box.h - MARGIN.top - MARGIN.bottom];
    const unit = Math.max((right - left) / wide, (bottom - top) / high, CLOSEST / this.box.w);
    const [aside, below] = [(MARGIN.right - MARGIN.left) / 2, (MARGIN.bottom - MARGIN.top) / 2];
    this.look((left + right) / 2 + aside * unit, (top + bottom) / 2 + below * unit, this.box.w * unit);
  }

  look(x, y, w) {
    const aspect = this.box.w / this.box.h;
    const widest = Math.max(WORLD.w, WORLD.h * aspect);
    const width = Math.min(Math.max(w, NARROWEST), widest);
    const height = width / aspect;
    const free = (size, whole) => Math.max(0, (whole - size) / 2);
    const clamp = (value, limit) => Math.min(Math.max(value, -limit), limit);
    this.view = { x: clamp(x, free(width, WORLD.w)), y: clamp(y, free(height, WORLD.h)), w: width, h: height };
    this.draw();
  }

  zoom(factor, at = this.pinning && this.pin ? this.pin : this.view) {
    const { x, y, w } = this.view;
    const width = w * factor;
    const keep = width / w;
    this.look(at.x + (x - at.x) * keep, at.y + (y - at.y) * keep, width);
  }

  resize() {
    const box = this.svg.getBoundingClientRect();
    if (!box.width || !box.height) return;
    this.box = { w: box.width, h: box.height };
    if (this.places.length || this.pin) this.look(this.view.x, this.view.y, this.view.w);
    else this.fit();
  }

  setPinning(on) {
    this.pinning = on;
    this.svg.classList.toggle("pinning", on);
    if (on && !this.pin) this.setPin(this.view.x, this.view.y);
    if (!on) this.pin = null;
    this.draw();
  }

  setPin(x, y) {
    const place = degrees(x, y);
    if (!place) return;
    this.pin = { x, y, ...place };
    const { view } = this;
    const inside = Math.abs(x - view.x) < view.w * 0.48 && Math.abs(y - view.y) < view.h * 0.48;
    if (inside) this.draw();
    else this.look(x, y, view.w);
    this.on.onPin(this.pin);
  }

  highlight(item) {
    this.active = item;
    for (const mark of this.svg.querySelectorAll(".place-mark")) mark.classList.toggle("on", mark.dataset.item === item);
    const mark = this.svg.querySelector(".place-mark.on");
    // drawn last, so on top; a node that moves under the pointer loses its click, so only where it must
    if (mark && mark !== mark.parentNode.lastChild) mark.parentNode.append(mark);
  }

  units(event) {
    const box = this.svg.getBoundingClientRect();
    const { view } = this;
    return {
      x: view.x + ((event.clientX - box.left) / box.width - 0.5) * view.w,
      y: view.y + ((event.clientY - box.top) / box.height - 0.5) * view.h,
    };
  }

  grab(event) {
    if (event.button !== 0 || event.target.closest(".place-mark")) return;
    const from = { x: event.clientX, y: event.clientY, view: { ...this.view } };
    let dragged = false;
    const move = (next) => {
      const [dx, dy] = [next.clientX - from.x, next.clientY - from.y];
      dragged ||= Math.hypot(dx, dy) > 5;
      if (dragged) this.look(from.view.x - (dx / this.box.w) * from.view.w, from.view.y - (dy / this.box.h) * from.view.h, from.view.w);
    };
    const end = (last) => {
      this.svg.removeEventListener("pointermove", move);
      this.svg.removeEventListener("pointerup", end);
      this.svg.removeEventListener("pointercancel", end);
      if (!dragged && last.type === "pointerup" && this.pinning) {
        const { x, y } = this.units(last);
        this.setPin(x, y);
      }
    };
    this.svg.setPointerCapture(event.pointerId);
    this.svg.addEventListener("pointermove", move);
    this.svg.addEventListener("pointerup", end);
    this.svg.addEventListener("pointercancel", end);
  }

  wheel(event) {
    if (!event.ctrlKey && document.activeElement !== this.svg) return; // the page scrolls, unless the map was chosen
    event.preventDefault();
    this.zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, this.units(event));
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) {
      const size = this.view.w * (event.shiftKey ? 0.005 : this.pinning ? 0.02 : 0.1);
      if (this.pinning && this.pin) this.setPin(this.pin.x + step[0] * size, this.pin.y + step[1] * size);
      else this.look(this.view.x + step[0] * size, this.view.y + step[1] * size, this.view.w);
    } else if (event.key === "+" || event.key === "=") this.zoom(1 / 1.5);
    else if (event.key === "-") this.zoom(1.5);
    else if (event.key === "0") this.fit();
    else if (event.key === "Enter" && this.pinning && this.pin) this.on.onPinEnter();
    else return;
    event.preventDefault();
  }

  draw() {
    const { view, svg } = this;
    svg.setAttribute("viewBox", `${view.x - view.w / 2} ${view.y - view.h / 2} ${view.w} ${view.h}`);
    const pixel = view.w / this.box.w;
    const screen = this.places.map((p) => ({ px: p.x / pixel, py: p.y / pixel }));
    const at = spread(screen);
    const [lines, marks, pins] = ["lines", "marks", "pins"].map((id) => svg.querySelector(`#${id}`));
    for (const group of [lines, marks, pins]) group.replaceChildren();
    this.places.forEach((place, index) => {
      const [x, y] = [at[index].px * pixel, at[index].py * pixel];
      if (Math.hypot(x - place.x, y - place.y) > 3 * pixel) {
        element("line", { x1: place.x, y1: place.y, x2: x, y2: y }, lines);
        element("circle", { class: "mark-dot", r: 4 * pixel, cx: place.x, cy: place.y, "stroke-width": 1.5 * pixel }, lines);
      }
    });
    // last to first, so that the better guess lies on top
    [...this.places].reverse().forEach((place) => {
      const index = this.places.indexOf(place);
      const [x, y] = [at[index].px * pixel, at[index].py * pixel];
      const mark = element("g", { class: "place-mark", transform: `translate(${x} ${y}) scale(${pixel})` }, marks);
      mark.dataset.item = place.item;
      mark.classList.toggle("on", place.item === this.active);
      mark.classList.toggle("best", place.item === this.best);
      mark.classList.toggle("faded", Boolean(this.truth) && place.item !== this.best && place.item !== this.chosen);
      element("circle", { r: 12 }, mark);
      element("text", { y: 0.5 }, mark).textContent = place.position;
      element("title", {}, mark).textContent = `${place.position}. ${place.where}`;
      mark.addEventListener("click", () => this.on.onPick(place.item));
      mark.addEventListener("pointerenter", () => this.on.onHover(place.item));
      mark.addEventListener("pointerleave", () => this.on.onHover(null));
    });
    const needle = this.pin ?? this.truth;
    if (needle) {
      const pin = element("g", { class: "pin", transform: `translate(${needle.x} ${needle.y}) scale(${pixel * 1.15})` }, pins);
      element("path", { d: "M0 0C-3.5-8-11-13-11-21a11 11 0 0 1 22 0C11-13 3.5-8 0 0Z" }, pin);
      element("circle", { cy: -21, r: 4.2 }, pin);
      element("title", {}, pin).textContent = this.pin ? "Your pin" : "The true place";
    }
  }
}
