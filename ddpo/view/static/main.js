// The page: one view for each address after #, asked again every few seconds while it is visible.

import { Compare } from "./compare.js";
import { setText } from "./dom.js";
import { Overview } from "./overview.js";
import { RunPage } from "./run.js";

const SECONDS = 3;
const SOON = 0.3; // while the server still reads
const LOST = "The server does not answer. Start ddpo view again and open the address that it prints.";
const page = document.getElementById("page");
const status = document.getElementById("status");
let view = null;
let tag = "";
let timer = 0;

function open() {
  const [, word, key] = location.hash.split("/");
  if (word === "run" && key) view = new RunPage(page, key);
  else if (word === "compare") view = new Compare(page, key);
  else view = new Overview(page);
  tag = "";
  refresh();
}

async function refresh() {
  clearTimeout(timer);
  const asked = view;
  let wait = SECONDS;
  if (!document.hidden || !tag) {
    try {
      const headers = tag ? { "If-None-Match": tag } : {};
      const answer = await fetch(asked.address(), { headers, cache: "no-store" });
      if (asked !== view) return;
      if (answer.status === 401) throw new TypeError("the secret is missing");
      const found = answer.status === 304 ? null : await answer.json();
      if (asked !== view) return;
      if (found?.error) setText(status, found.error);
      else {
        setText(status, "");
        if (found) {
          tag = answer.headers.get("ETag") ?? "";
          if (!asked.show(found)) wait = SOON;
        }
      }
    } catch (error) {
      setText(status, error instanceof TypeError ? LOST : String(error));
    }
  }
  if (asked === view) timer = setTimeout(refresh, wait * 1000);
}

addEventListener("hashchange", () => { open(); page.focus(); scrollTo(0, 0); });
addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.("input, select, textarea, .scroll")) return;
  if (event.key === "Escape") location.hash = "#/";
  else if (view.key_pressed?.(event.key)) event.preventDefault();
});
open();
