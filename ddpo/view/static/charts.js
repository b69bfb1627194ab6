// Curves as SVG; colours come from the stylesheet.

import { number, s } from "./dom.js";

const WIDTH = 360;
const HEIGHT = 170;
const EDGE = { left: 58, right: 10, top: 8, bottom: 22 };

function around(values) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - room, high + room];
}

const scale = ([low, high], start, end) => (value) =>
  start + ((value - low) / (high - low || 1)) * (end - start);

const path = (points, x, y) =>
  points.map(([at, value], place) =>
    `${place ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");

/** Round numbers from low to high, at most `most` + 1 of them. */
function ticks(low, high, most = 4) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high; at += 1) found.push(at * step);
  return found;
}

/** A number of an axis, with as many decimals as the step between its numbers needs. */
function tickText(value, step) {
  if (Math.abs(value) < step / 2) return "0";
  if (step < 1e-3 || step >= 1e5) return number(value);
  return value.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9))).replaceAll("-", "−");
}

/** A curve without axes, for a table. */
export function sparkline(points) {
  const svg = s("svg", { viewBox: "0 0 120 32", class: "spark", "aria-hidden": "true" });
  if (points.length) {
    const x = scale([points[0][0], Math.max(points.at(-1)[0], points[0][0] + 1)], 3, 117);
    const y = scale(around(points.map((point) => point[1])), 29, 3);
    const end = points.at(-1);
    svg.append(s("path", { d: path(points, x, y), class: "run trained" }));
    svg.append(s("circle", { cx: x(end[0]), cy: y(end[1]), r: 2.5, class: "mark trained" }));
  }
  return svg;
}

/** A plot over iterations: points, their kind ("trained" or "heldout"), and the chosen iteration. */
export function plot(title, points, kind, end, chosen, errors = []) {
  const values = points.map((point) => point[1]);
  const spread = new Map(errors);
  const rows = points.filter(([at]) => spread.has(at));
  const edges = rows.flatMap(([at, value]) => [value - spread.get(at), value + spread.get(at)]);
  const range = around([...values, ...edges]);
  const x = scale([0, Math.max(end, 1)], EDGE.left, WIDTH - EDGE.right);
  const y = scale(range, HEIGHT - EDGE.bottom, EDGE.top);
  const last = points.at(-1);
  const svg = s("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "data-points": points.length,
    "aria-label": `${title}: ${number(values[0])} at iteration ${points[0][0]}, ` +
      `${number(last[1])} at iteration ${last[0]}`,
  });
  const levels = ticks(...range, 6);
  for (const at of levels) {
    svg.append(s("line", { x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(at), y2: y(at), class: "grid" }),
      s("text", { x: EDGE.left - 6, y: y(at) + 4, "text-anchor": "end", class: "tick" },
        tickText(at, levels[1] - levels[0])));
  }
  for (const at of ticks(0, Math.max(end, 1)).filter(Number.isInteger)) {
    svg.append(s("text", { x: x(at), y: HEIGHT - 5, "text-anchor": "middle", class: "tick" }, String(at)));
  }
  if (rows.length > 1) {
    const upper = rows.map(([at, value]) => [at, value + spread.get(at)]);
    const lower = rows.map(([at, value]) => [at, value - spread.get(at)]).reverse();
    svg.append(s("path", { d: `${path([...upper, ...lower], x, y)}z`, class: `band ${kind}` }));
  }
  svg.append(s("path", { d: path(points, x, y), class: `run ${kind}` }));
  const few = points.length <= 40 ? points : [last];
  for (const [at, value] of few) {
    svg.append(s("circle", { cx: x(at), cy: y(value), r: 2.5, class: `mark ${kind}` }));
  }
  if (chosen !== null) {
    svg.append(s("line", { x1: x(chosen), x2: x(chosen), y1: EDGE.top, y2: HEIGHT - EDGE.bottom, class: "chosen" }));
  }
  return svg;
}
