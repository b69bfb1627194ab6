// Two iterations, of one run or of two, side by side on the prompts that both have.

import { ask } from "/frame/frame.js";
import { h, imageOf, number, picture } from "./dom.js";

export class Compare {
  constructor(page, key) {
    this.sides = [0, 1].map((side) => ({
      key, run: null, place: side ? Infinity : 0,
      runs: h("select", { id: `run${side}`, onchange: () => this.chooseRun(side) }),
      slider: h("input", { type: "range", min: 0, max: 0, id: `at${side}`, oninput: () => this.move(side) }),
      facts: h("output", { for: `at${side}` }),
    }));
    this.table = h("div");
    page.replaceChildren(h("h1", {}, "Compare"), h("div", { class: "sides" }, this.sides.map((side, at) =>
      h("section", {}, h("p", { class: "chooser" }, h("label", { for: `run${at}` }, at ? "Right" : "Left"), side.runs),
        h("p", { class: "chooser" }, h("label", { for: `at${at}` }, "Iteration"), side.slider, side.facts)))), this.table);
    document.title = "Compare – ddpo view";
  }

  address() { return "/api/runs"; }

  show(answer) {
    const names = JSON.stringify(answer.runs.map((run) => [run.key, run.name]));
    if (names !== this.names && answer.runs.length) {
      this.names = names;
      for (const [at, side] of this.sides.entries()) {
        side.key = answer.runs.some((run) => run.key === side.key) ? side.key : answer.runs[0].key;
        side.runs.replaceChildren(...answer.runs.map((run) => h("option", { value: run.key }, run.name)));
        side.runs.value = side.key;
        this.chooseRun(at);
      }
    }
    return answer.complete;
  }

  async chooseRun(at) {
    const side = this.sides[at];
    side.key = side.runs.value;
    try {
      side.run = await ask(`/api/run/${side.key}`);
    } catch (error) {
      this.table.replaceChildren(h("p", { class: "bad" }, error.message));
      return;
    }
    const last = side.run.grids.length - 1;
    side.slider.max = Math.max(0, last);
    side.slider.value = Math.max(0, Math.min(side.place, last));
    this.move(at);
  }

  move(at) {
    this.sides[at].place = Number(this.sides[at].slider.value);
    for (const side of this.sides) {
      if (!side.run) return;
      side.iteration = side.run.grids[side.place] ?? side.run.grids.at(-1);
      const value = (name) => number(side.run.curves[name].find((point) => point[0] === side.iteration)?.[1]);
      side.slider.setAttribute("aria-valuetext", `iteration ${side.iteration}`);
      side.facts.textContent = side.iteration === undefined ? "no samples"
        : [side.iteration, ["reward", "reward_mean"], ["held-out", "held_out"]].filter((one) => !one[1] || value(one[1]) !== "–")
          .map((one) => (one[1] ? `${one[0]} ${value(one[1])}` : one)).join(" · ");
    }
    this.showPairs();
  }

  showPairs() {
    const [left, right] = this.sides;
    const both = left.run.prompts.map((prompt, place) => [prompt, place, right.run.prompts.indexOf(prompt)])
      .filter((one) => one[2] >= 0);
    if (!both.length || left.iteration === undefined || right.iteration === undefined) {
      this.table.replaceChildren(h("p", { class: "soft" }, "The two have no samples of equal prompts."));
      return;
    }
    const images = (side, place, prompt) => h("figure", {},
      h("div", { class: "pair" }, [place, side.run.prompts.length + place].map((cell) =>
        picture(imageOf(side.key, side.iteration, cell), `${prompt}: ${side.run.name}, iteration ${side.iteration}`))),
      h("figcaption", {}, `${side.run.name}, iteration ${side.iteration}`));
    this.table.replaceChildren(h("ul", { class: "pairs" }, both.map(([prompt, one, other]) => h("li", {},
      h("h2", {}, prompt), h("div", { class: "sides" }, images(left, one, prompt), images(right, other, prompt))))));
  }
}
