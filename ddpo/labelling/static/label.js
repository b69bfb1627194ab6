// One pair at a time. The server decides what comes next; the page knows no model.

import { ask } from "/frame/frame.js";

const KEYS = {
  ArrowLeft: "left", 1: "left", ArrowRight: "right", 2: "right",
  " ": "tie", 0: "tie", "=": "tie", b: "bad", B: "bad",
};
const BACK = ["Backspace", "u", "U"];
const SMALL = 160; // pixels; images below it are enlarged without smoothing
const WORDS = { left: "left", right: "right", tie: "tie", bad: "both bad" };

const element = (id) => document.getElementById(id);
let view = null; // the pair on the page, as the server described it
let busy = true; // a request or an image is under way
let since = 0; // when both images appeared

function complain(error) {
  element("error").textContent = error ? error.message : "";
  element("error").hidden = !error;
}

function only(id) {
  for (const name of ["name-form", "pair", "end"]) element(name).hidden = name !== id;
}

async function loadImage(side, address) {
  const image = element(side);
  image.src = address;
  await image.decode().catch(() => {
    throw new Error(`The ${side} image cannot be shown. Reload the page.`);
  });
  image.classList.toggle("small", image.naturalWidth < SMALL);
}

async function present(found) {
  view = found;
  document.activeElement?.blur?.(); // otherwise the space bar would press the button again
  if (found.place === found.total) {
    element("thanks").textContent = `All ${found.total} pairs are labelled. Thank you, ${found.rater}.`;
    only("end");
    return;
  }
  const prompt = element("prompt");
  prompt.firstElementChild.textContent = found.prompt ?? "";
  prompt.hidden = !found.prompt;
  element("count").textContent = `${found.done} of ${found.total}`;
  element("bar").max = found.total;
  element("bar").value = found.done;
  element("back").disabled = found.place === 0;
  element("before").hidden = !found.answer;
  element("before").textContent = found.answer ? `Your choice was: ${WORDS[found.answer]}.` : "";
  for (const button of document.querySelectorAll("[data-choice]"))
    button.classList.toggle("chosen", button.dataset.choice === found.answer);
  only("pair");
  await Promise.all([loadImage("left", found.left), loadImage("right", found.right)]);
  since = performance.now();
}

/** Runs one step at a time; keys that are pressed meanwhile are ignored. */
async function step(work) {
  if (busy) return;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    await present(await work());
    complain(null);
  } catch (error) {
    complain(error);
  }
  busy = false;
  document.body.removeAttribute("aria-busy");
}

const show = (rater, place = null) => step(() => ask("/show", { rater, place }));

function choose(choice) {
  if (view === null || view.place === view.total) return;
  const seconds = Math.max(0, (performance.now() - since) / 1000);
  step(() => ask("/answer", { rater: view.rater, place: view.place, choice, seconds }));
}

function back() {
  if (view !== null && view.place > 0) show(view.rater, view.place - 1);
}

async function askName() {
  view = null;
  only("name-form");
  element("name").value = "";
  element("name").focus();
}

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || view === null) return;
  const onButton = event.target instanceof HTMLButtonElement;
  if (onButton && (event.key === " " || event.key === "Enter")) return; // it presses the button
  if (BACK.includes(event.key)) back();
  else if (event.key in KEYS) choose(KEYS[event.key]);
  else return;
  event.preventDefault();
});
for (const button of document.querySelectorAll("[data-choice]"))
  button.addEventListener("click", () => choose(button.dataset.choice));
element("back").addEventListener("click", back);
element("end-back").addEventListener("click", back);
element("other").addEventListener("click", askName);
element("name-form").addEventListener("submit", (event) => {
  event.preventDefault();
  show(element("name").value);
});

ask("/settings").then(async (found) => {
  busy = false;
  if (found.rater) await show(found.rater);
  else await askName();
}, complain);
