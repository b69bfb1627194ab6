// Checks a report in Chromium: load time, console errors, requests that leave the page, sideways
// scrolling, and the findings of axe-core, at desktop and phone width, in light and dark.
// Exit code 1 after any serious finding.
//
//   npm install --prefix /tmp/check ws && npm pack axe-core      (MPL-2.0; axe.min.js is in the archive)
//   NODE_PATH=/tmp/check/node_modules node tools/check_report.mjs report.html axe.min.js [--screenshots DIR] [--chromium PATH]

import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const WebSocket = createRequire(join(process.env.NODE_PATH ?? ".", "x.js"))("ws");
const args = process.argv.slice(2);
const option = (name, otherwise) => {
  const position = args.indexOf(name);
  return position < 0 ? otherwise : args.splice(position, 2)[1];
};
const screenshots = option("--screenshots", "");
if (screenshots) mkdirSync(screenshots, { recursive: true });
const chromium = option("--chromium", "chromium");
const [page, axe] = args;
if (!page || !axe) {
  console.error("usage: check_report.mjs report.html axe.min.js [--screenshots DIR] [--chromium PATH]");
  process.exit(2);
}
const address = pathToFileURL(resolve(page)).href;
const LIMITS = { bytes: 15e6, milliseconds: 2000 };

const home = mkdtempSync(join(tmpdir(), "check-report-"));
const browser = spawn(chromium, [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", `--user-data-dir=${home}`, "--remote-debugging-port=0", "about:blank",
]);
let output = "";
const endpoint = await new Promise((found, failed) => {
  browser.stderr.on("data", (data) => {
    output += data;
    const match = output.match(/DevTools listening on (ws:\S+)/);
    if (match) found(match[1]);
  });
  browser.on("error", failed);
  browser.on("exit", () => failed(new Error(`chromium ended: ${output}`)));
});

const socket = new WebSocket(endpoint, { maxPayload: 2 ** 28 });
await new Promise((opened) => socket.on("open", opened));
let last = 0;
const waiting = new Map();
const listeners = [];
socket.on("message", (data) => {
  const message = JSON.parse(data);
  if (message.id) {
    const { done, failed } = waiting.get(message.id);
    waiting.delete(message.id);
    message.error ? failed(new Error(message.error.message)) : done(message.result);
  } else listeners.forEach((listener) => listener(message));
});
const send = (method, params = {}, sessionId = undefined) =>
  new Promise((done, failed) => {
    waiting.set(++last, { done, failed });
    socket.send(JSON.stringify({ id: last, method, params, sessionId }));
  });

async function look(width, height, scheme) {
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
  const call = (method, params) => send(method, params, sessionId);
  const value = async (expression) =>
    (await call("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true })).result.value;
  const errors = [], requests = [];
  let loaded;
  const finished = new Promise((done) => (loaded = done));
  const listener = ({ method, params, sessionId: from }) => {
    if (from !== sessionId) return;
    if (method === "Log.entryAdded" && params.entry.level === "error") errors.push(params.entry.text);
    if (method === "Runtime.exceptionThrown") errors.push(params.exceptionDetails.text);
    if (method === "Runtime.consoleAPICalled" && params.type === "error") errors.push(JSON.stringify(params.args));
    if (method === "Network.requestWillBeSent" && !/^(data|about):/.test(params.request.url)) requests.push(params.request.url);
    if (method === "Page.loadEventFired") loaded();
  };
  listeners.push(listener);
  for (const domain of ["Page", "Runtime", "Log", "Network"]) await call(`${domain}.enable`);
  await call("Page.setBypassCSP", { enabled: false });
  await call("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 500 });
  await call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  const start = performance.now();
  await call("Page.navigate", { url: address });
  await finished;
  await value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"); // until it is painted
  const milliseconds = Math.round(performance.now() - start);
  const wide = await value("document.documentElement.scrollWidth - innerWidth");
  const name = `${width}-${scheme}`;
  if (screenshots) {
    const shot = await call("Page.captureScreenshot", { format: "png" });
    writeFileSync(join(screenshots, `${name}.png`), Buffer.from(shot.data, "base64"));
    const full = await call("Page.captureScreenshot", { format: "png", captureBeyondViewport: true, clip: { x: 0, y: 0, width, height: Math.min(await value("document.documentElement.scrollHeight"), 16000), scale: 1 } });
    writeFileSync(join(screenshots, `${name}-full.png`), Buffer.from(full.data, "base64"));
    if (name === "1280-light") {
      const paper = await call("Page.printToPDF", { printBackground: true });
      writeFileSync(join(screenshots, "paper.pdf"), Buffer.from(paper.data, "base64"));
    }
  }
  // every part is opened, since axe does not look into closed ones
  await value("document.querySelectorAll('details').forEach(part => part.open = true)");
  await call("Runtime.evaluate", { expression: readFileSync(axe, "utf8") });
  const found = JSON.parse(await value("axe.run(document, {resultTypes: ['violations']}).then(r => JSON.stringify(r.violations.map(v => ({id: v.id, impact: v.impact, nodes: v.nodes.length, first: v.nodes[0].html.slice(0, 160) + ' | ' + v.nodes[0].failureSummary.slice(0, 300)}))))"));
  listeners.splice(listeners.indexOf(listener), 1);
  await send("Target.closeTarget", { targetId });
  return { name, milliseconds, wide, errors, requests: requests.filter((url) => url !== address), violations: found };
}

let bad = 0;
const bytes = statSync(page).size;
console.log(`${(bytes / 1e6).toFixed(2)} MB`);
if (bytes > LIMITS.bytes) bad++;
for (const [width, height] of [[1280, 900], [375, 812]])
  for (const scheme of ["light", "dark"]) {
    const seen = await look(width, height, scheme);
    const serious = seen.violations.filter(({ impact }) => impact === "serious" || impact === "critical");
    console.log(`${seen.name}: ${seen.milliseconds} ms, ${seen.errors.length} console errors, ${seen.requests.length} requests, ${seen.wide} px too wide, axe: ${seen.violations.length} findings, ${serious.length} serious`);
    for (const line of [...seen.errors, ...seen.requests]) console.log(`  ${line}`);
    for (const { id, impact, nodes, first } of seen.violations) console.log(`  ${impact} ${id} ×${nodes}: ${first}`);
    bad += seen.errors.length + seen.requests.length + serious.length + (seen.milliseconds > LIMITS.milliseconds ? 1 : 0) + (seen.wide > 0 ? 1 : 0);
  }
await send("Browser.close").catch(() => {});
socket.close();
await new Promise((ended) => (browser.exitCode === null ? browser.on("exit", ended) : ended()));
rmSync(home, { recursive: true, force: true, maxRetries: 5 });
process.exit(bad ? 1 : 0);
