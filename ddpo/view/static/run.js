// One run: its curves, its images at a chosen iteration, one prompt along training, and its facts.

import { plot } from "./charts.js";
import { h, imageOf, number, picture, setText } from "./dom.js";

const PLOTS = [
  ["reward_mean", "Mean reward", "trained"], ["held_out", "Held-out reward", "heldout"],
  ["approx_kl", "KL of the updates", "trained"], ["reference_kl", "KL to the reference policy", "trained"],
  ["ratio_mean_deviation", "Mean |ratio − 1|", "trained"], ["clip_fraction", "Clipped share", "trained"],
  ["grad_norm", "Norm of the gradient", "trained"], ["loss", "Loss", "trained"],
  ["unscorable", "Unscorable images", "trained"], ["seconds", "Seconds per iteration", "trained"],
];
const ALONG = 12; // images of the strip along training

export class RunPage {
  constructor(page, key) {
    this.key = key;
    this.chosen = null; // null: the last
    this.prompt = 0;
    this.head = h("div");
    this.plots = h("div", { class: "plots" });
    this.slider = h("input", { type: "range", min: 0, max: 0, value: 0, id: "iteration",
      oninput: () => this.choose(Number(this.slider.value)) });
    this.where = h("output", { for: "iteration" });
    this.grid = h("ul", { class: "cells" });
    this.prompts = h("select", { id: "prompt", onchange: () => { this.prompt = Number(this.prompts.value); this.showAlong(); } });
    this.along = h("ul", { class: "cells along" });
    this.images = h("section", {}, h("h2", {}, "Samples"),
      h("p", { class: "chooser" }, h("label", { for: "iteration" }, "Iteration"), this.slider, this.where,
        h("small", { class: "soft" }, h("kbd", {}, "←"), " ", h("kbd", {}, "→"))),
      this.grid, h("h3", {}, "One prompt along training"),
      h("p", { class: "chooser" }, h("label", { for: "prompt" }, "Prompt"), this.prompts), this.along);
    this.rest = h("div");
    page.replaceChildren(this.head, h("section", {}, h("h2", {}, "Curves"), this.plots), this.images, this.rest);
  }

  address() { return `/api/run/${this.key}`; }

  show(run) {
    this.run = run;
    document.title = `${run.name} – ddpo view`;
    this.showHead();
    this.showPlots();
    this.showImages();
    this.showRest();
    return run.up_to_date;
  }

  get place() {
    const last = this.run.grids.length - 1;
    return this.chosen === null ? last : Math.min(this.chosen, last);
  }

  choose(place) {
    if (!this.run) return;
    const last = this.run.grids.length - 1;
    const to = Math.max(0, Math.min(last, place));
    this.chosen = to === last ? null : to; // at the end it follows the training
    this.showImages();
    this.showPlots();
  }

  key_pressed(name) {
    if (name === "ArrowLeft") this.choose(this.place - 1);
    else if (name === "ArrowRight") this.choose(this.place + 1);
    else if (name === "Home") this.choose(0);
    else if (name === "End") this.choose(Infinity);
    else return false;
    return true;
  }

  showHead() {
    const { run } = this;
    const planned = run.planned === null ? "" : ` of ${run.planned}`;
    const state = run.fault ? `damaged: ${run.fault}` : run.state;
    this.head.replaceChildren(h("h1", {}, run.name),
      h("p", {}, h("b", { class: `state ${run.state}` }, state), ` · ${run.done}${planned} iterations · `,
        `${run.algorithm} on ${run.model} for ${run.reward}`),
      h("p", {}, `Mean reward ${number(run.last)}`,
        run.held_out === null ? "" : ` · held-out (${run.held_out_name}) ${number(run.held_out)}`,
        run.grade ? ` · reward hacking: ${run.grade}` : ""));
  }

  showPlots() {
    const { run } = this;
    const chosen = run.grids.length ? run.grids[this.place] : null;
    const drawn = PLOTS.filter(([name]) => {
      const points = run.curves[name];
      return points.length && (name !== "unscorable" || points.some((point) => point[1] > 0));
    });
    this.plots.replaceChildren(...drawn.map(([name, title, kind]) => {
      const points = run.curves[name];
      const errors = name === "reward_mean" ? run.curves.reward_se : [];
      return h("figure", { "data-curve": name },
        h("figcaption", {}, h("b", {}, title), ` ${number(points.at(-1)[1])}`,
          name === "reward_mean" ? " (band: ± 1 standard error)" : ""),
        plot(title, points, kind, run.done, chosen, errors));
    }));
    if (!drawn.length) this.plots.append(h("p", { class: "soft" }, "No iteration is finished yet."));
  }

  showImages() {
    const { run } = this;
    this.images.hidden = !run.grids.length;
    if (!run.grids.length) return;
    const iteration = run.grids[this.place];
    this.slider.max = run.grids.length - 1;
    this.slider.value = this.place;
    this.slider.setAttribute("aria-valuetext", `iteration ${iteration}`);
    const at = (name) => run.curves[name].find((point) => point[0] === iteration)?.[1];
    const reward = iteration ? `reward ${number(at("reward_mean"))}` : "base model";
    setText(this.where, `${iteration} · ${reward}` +
      (at("held_out") === undefined ? "" : ` · held-out ${number(at("held_out"))}`));
    const columns = Math.max(1, run.prompts.length);
    const shown = `${this.key} ${iteration}`;
    if (this.shown !== shown) {
      this.shown = shown;
      this.grid.replaceChildren(...(run.prompts.length ? run.prompts : [""]).map((prompt, place) =>
        h("li", {}, h("figure", {},
          picture(imageOf(this.key, iteration, place), `${prompt}, first noise`),
          picture(imageOf(this.key, iteration, columns + place), `${prompt}, second noise`),
          h("figcaption", {}, prompt)))));
    }
    if (this.prompts.children.length !== run.prompts.length) {
      this.prompts.replaceChildren(...run.prompts.map((prompt, place) => h("option", { value: place }, prompt)));
    }
    this.showAlong();
  }

  showAlong() {
    const { run } = this;
    const step = Math.max(1, (run.grids.length - 1) / (ALONG - 1));
    const places = new Set();
    for (let at = 0; at < run.grids.length - 0.5; at += step) places.add(Math.round(at));
    places.add(run.grids.length - 1);
    const iterations = [...places].map((place) => run.grids[place]);
    const drawn = `${this.prompt} ${iterations}`;
    if (this.drawn === drawn) return;
    this.drawn = drawn;
    const prompt = run.prompts[this.prompt] ?? "";
    this.along.replaceChildren(...iterations.map((iteration) => h("li", {}, h("figure", {},
      picture(imageOf(this.key, iteration, this.prompt), `${prompt} after iteration ${iteration}`),
      h("figcaption", {}, String(iteration))))));
  }

  showRest() {
    const { run } = this;
    const facts = JSON.stringify([run.findings, run.settings, run.checkpoints, run.evaluations]);
    if (this.facts === facts) return;
    this.facts = facts;
    const open = this.rest.querySelector("details")?.open ?? false;
    this.rest.replaceChildren(
      h("h2", {}, "Findings"), run.findings.length
        ? h("ul", {}, run.findings.map(([iteration, text]) => h("li", {}, iteration ? `Iteration ${iteration}: ` : "", text)))
        : h("p", { class: "soft" }, "Nothing unusual in the metrics."),
      h("h2", {}, "Evaluations"), run.evaluations.length
        ? h("ul", {}, run.evaluations.map((one) => this.evaluation(one)))
        : h("p", { class: "soft" }, "None in this run folder. ddpo eval makes one."),
      h("h2", {}, "Checkpoints"), run.checkpoints.length
        ? h("p", {}, run.checkpoints.map((one, place) =>
          `${place ? ", " : ""}${one.iteration}${one.best ? " (best by the held-out reward)" : ""}`).join(""))
        : h("p", { class: "soft" }, "None yet."),
      h("p", {}, h("a", { href: `#/compare/${this.key}` }, "Compare two iterations or runs")),
      h("details", { open }, h("summary", {}, "Settings"), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Settings" },
        h("table", {}, h("thead", {}, h("tr", {}, ["Setting", "Value", "From"].map((word) => h("th", { scope: "col" }, word)))),
          h("tbody", {}, run.settings.map(([name, value, origin]) =>
            h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value), h("td", { class: "soft" }, origin))))))));
  }

  evaluation(one) {
    const to = `/evaluation/${this.key}/${encodeURIComponent(one.name)}/report.html`;
    return h("li", {}, one.page ? h("a", { href: to }, one.name) : one.name,
      one.grade ? ` – reward hacking: ${one.grade}. ` : ". ", h("span", { class: "soft" }, one.text));
  }
}
