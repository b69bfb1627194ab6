// The table of runs; its rows are updated in place, so that focus and scrolling stay.

import { sparkline } from "./charts.js";
import { h, imageOf, number, picture, setText } from "./dom.js";

const COLUMNS = [
  ["name", "Run"], ["state", "State"], ["done", "Iterations"], ["last", "Reward"], [null, "Curve"],
  ["held_out", "Held-out"], ["grade", "Reward hacking"], [null, "Samples"],
  ["reward", "Trained on"], ["model", "Model"], ["algorithm", "Algorithm"],
];

export class Overview {
  constructor(page) {
    this.rows = new Map();
    this.sorted = "name";
    this.downward = false;
    this.note = h("p", { class: "soft" });
    this.body = h("tbody");
    this.heads = COLUMNS.map(([name, words]) => h("th", { scope: "col" },
      name ? h("button", { class: "sort", onclick: () => this.sortBy(name) }, words) : words));
    page.replaceChildren(h("h1", {}, "Runs"), this.note,
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Runs" },
        h("table", { class: "runs" }, h("thead", {}, h("tr", {}, this.heads)), this.body)));
    document.title = "Runs – ddpo view";
  }

  address() { return "/api/runs"; }

  show(answer) {
    this.runs = answer.runs;
    const more = answer.complete ? "" : ", still reading";
    setText(this.note, answer.runs.length || !answer.complete
      ? `${answer.found} ${answer.found === 1 ? "run" : "runs"} in ${answer.folders.join(", ")}${more}`
      : `No run in ${answer.folders.join(", ")} yet. ddpo train makes one.`);
    const keys = new Set(this.runs.map((run) => run.key));
    for (const [key, row] of this.rows) if (!keys.has(key)) { row.line.remove(); this.rows.delete(key); }
    for (const run of this.runs) {
      if (!this.rows.has(run.key)) this.rows.set(run.key, newRow(run));
      update(this.rows.get(run.key), run);
    }
    this.order();
    this.hideEmpty();
    return answer.complete;
  }

  /** Hides the columns of measurements that no run has. */
  hideEmpty() {
    for (const name of ["held_out", "grade"]) {
      const hidden = !this.runs.some((run) => run[name] !== null && run[name] !== "");
      this.heads[COLUMNS.findIndex(([column]) => column === name)].hidden = hidden;
      for (const { cell } of this.rows.values()) cell[name].hidden = hidden;
    }
  }

  sortBy(name) {
    this.downward = this.sorted === name && !this.downward;
    this.sorted = name;
    this.order();
  }

  order() {
    const value = (run) => run[this.sorted] ?? "";
    const compare = (one, other) => typeof value(one) === "number" && typeof value(other) === "number"
      ? value(one) - value(other) : String(value(one)).localeCompare(String(value(other)), "en", { numeric: true });
    const runs = [...this.runs].sort((one, other) => (this.downward ? -1 : 1) * compare(one, other));
    runs.forEach((run, place) => {
      const { line } = this.rows.get(run.key);
      if (this.body.children[place] !== line) this.body.insertBefore(line, this.body.children[place] ?? null);
    });
    COLUMNS.forEach(([name], place) => {
      if (name === this.sorted) this.heads[place].setAttribute("aria-sort", this.downward ? "descending" : "ascending");
      else this.heads[place].removeAttribute("aria-sort");
    });
  }
}

function newRow(run) {
  const cell = {};
  for (const name of ["state", "done", "last", "curve", "held_out", "grade", "samples", "reward", "model", "algorithm"]) {
    cell[name] = h("td", { class: `c-${name}` });
  }
  const link = h("a", { href: `#/run/${run.key}` }, run.name);
  const line = h("tr", { "data-key": run.key }, h("th", { scope: "row" }, link), ...Object.values(cell));
  return { line, cell, curve: "", grid: null };
}

function update(row, run) {
  const { cell } = row;
  setText(cell.state, run.fault ? "damaged" : run.state);
  cell.state.className = `state ${run.fault ? "diverged" : run.state}`;
  cell.state.title = run.fault;
  setText(cell.done, run.planned === null ? String(run.done) : `${run.done} of ${run.planned}`);
  setText(cell.last, number(run.last));
  setText(cell.held_out, number(run.held_out));
  setText(cell.grade, run.grade || "–");
  for (const name of ["reward", "model", "algorithm"]) setText(cell[name], run[name]);
  const curve = JSON.stringify(run.curve);
  if (curve !== row.curve) cell.curve.replaceChildren(sparkline(run.curve));
  row.curve = curve;
  if (run.grid !== row.grid) {
    row.grid = run.grid;
    cell.samples.replaceChildren(picture(imageOf(run.key, run.grid, "preview"),
      `samples of ${run.name} after iteration ${run.grid}`));
  }
}
