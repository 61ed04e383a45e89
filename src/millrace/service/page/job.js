// One job: state and progress as they change, what was asked, what it took, its result and its accounting as pictures.

import { ask, download, follow, json } from "./ask.js";
import { picture } from "./draw.js";
import { actions, progress } from "./jobs.js";
import { bytes, chip, duration, el, facts, figure, notice, plain, show, title, when } from "./say.js";

const NUMBER = /^[<≤]?\s?[-−+]?[\d.,]+(e[-+]?\d+)?\s?\S{0,4}$|^(–|unknown|not known|not measured)$/;
const AGAIN_MS = 1500;

export async function job(main, signal, _, number) {
  let now = await json(`v1/jobs/${number}`);
  let watching = false;
  const top = el("div");
  const about = el("div");
  const result = el("section", { "aria-label": "Result" });
  const run = el("section", { "aria-label": "Where the time went" });
  const printed = el("pre", { tabindex: "0", "aria-label": "Log" });
  const log = el("details", { ontoggle: () => { if (log.open) fill(); } }, el("summary", {}, "What it printed"), printed);

  async function fill() {
    const text = await (await ask(`v1/jobs/${number}/log`)).text();
    printed.textContent = text || "It has printed nothing.";
  }

  async function report() {
    const told = await json(`v1/jobs/${number}/report?form=json`, { signal });
    show(result, told.result.length ? [el("h2", {}, "Result"), ...told.result.map(section)] : null, files(number, told));
    show(run, told.run.length ? [el("h2", {}, now.ended_at ? "Where the time went" : "Where the time goes, so far"), ...told.run.map(section)] : null);
    for (const [button, place] of parts) button.hidden = !place.childNodes.length;
  }

  function tell() {
    show(top, el("h1", {}, `Job ${now.id}: ${now.label}`),
      el("div", { class: "row" }, chip(now.state), ...progress(now), ...actions(now, again)),
      now.waits ? el("p", { class: "quiet" }, `It waits: ${now.waits}.`) : null,
      now.why && now.state !== "succeeded" ? el("p", { class: now.state === "failed" ? "wrongs" : "quiet" }, now.why) : null);
    show(about, el("div", { class: "columns" },
      el("div", {}, el("h2", {}, "The question"), facts([["analysis", now.analysis], ...Object.entries(now.question).map(([k, v]) => [title(k).toLowerCase(), plain(v)]), ["seed", `${now.seed}`]])),
      el("div", {}, el("h2", {}, "The job"), facts([
        ["where", `queue ${now.queue}, tier ${now.tier}${now.priority ? `, priority ${now.priority}` : ""}`],
        ...(now.owner ? [["of", now.owner]] : []),
        ["submitted", when(now.created_at)], ["started", when(now.started_at)], ["ended", when(now.ended_at)],
        ["attempts", `${now.attempt}`],
        ["time", `${duration(now.measured.seconds)} (${predicted(duration(now.predicted.seconds))})`],
        ["core-seconds", `${figure(now.measured.core_s)} (${predicted(figure(now.predicted.core_s))})`],
        ["memory", `${bytes(now.measured.peak_bytes)} (${predicted(bytes(now.predicted.peak_bytes))})`],
        ...(now.digest ? [["digest", now.digest]] : []),
      ]))));
  }

  const to = (name, place) => el("button", { type: "button", class: "plain", onclick: () => { place.scrollIntoView(); place.querySelector("h2, summary")?.focus(); } }, name);
  const parts = [["Result", result], ["Question", about], ["Time", run], ["Log", log]].map(([name, place]) => [to(name, place), place]);
  const jump = el("nav", { class: "jump", "aria-label": "Parts of this page" }, parts.map(([button]) => button));
  tell();
  show(main, el("p", { class: "small" }, el("a", { href: "#/jobs" }, "All jobs")), top, jump, result, about, run, log);
  await report();
  watch();

  async function again() {
    now = await json(`v1/jobs/${number}`);
    tell();
    watch();
  }

  async function watch() {
    if (watching || now.ended_at) return;
    watching = true;
    try {
      await heard();
    } finally {
      watching = false;
    }
  }

  async function heard() {
    while (!signal.aborted) {
      try {
        await follow(`v1/jobs/${number}/events`, signal, (name, told) => { now = told; tell(); });
        await report();
        if (now.ended_at) { notice(`Job ${now.id} has ${now.state === "succeeded" ? "succeeded" : `ended: ${now.state}`}.`); if (log.open) fill(); return; }
      } catch (error) {
        if (error.name === "AbortError") return;
        notice(error.message);
        await new Promise((done) => setTimeout(done, AGAIN_MS));
      }
    }
  }
  return null;
}

function predicted(said) {
  return said === "not known" ? "nobody could predict it" : `${said} predicted`;
}

function files(number, told) {
  if (!told.files.length) return null;
  const save = (path, name) => el("button", { type: "button", onclick: () => download(path, name).catch((error) => notice(error.message)) }, name);
  return [el("h3", {}, "Files"), el("p", { class: "row" },
    save(`v1/jobs/${number}/report`, `report-${number}.html`),
    ...told.files.filter((name) => !name.endsWith(".vl.json") && name !== "report.html").map((name) => save(`v1/jobs/${number}/files/${name}`, name)))];
}

function section(told) {
  const lines = told.text.split("\n").filter((line) => line.trim());
  return el("div", {}, el("h3", {}, told.title),
    lines.length > 1 ? el("ul", {}, lines.map((line) => el("li", {}, linked(line)))) : lines.length ? el("p", {}, linked(lines[0])) : null,
    told.chart ? picture(told.chart, told.title) : null, told.table ? grid(told.table, told.title) : null);
}

// A dashboard of somebody else's that a note names can be gone to; `names` are set as such.
function linked(line) {
  return line.split(/(https?:\/\/[^\s"<>]+[^\s"<>.,;:)])/).map((part, i) => i % 2 ? el("a", { href: part, rel: "noreferrer" }, part)
    : part.split(/`([^`]+)`/).map((word, j) => j % 2 ? el("code", {}, word) : word));
}

function grid([head, ...rows], title) {
  const text = (cell) => typeof cell === "number" && !Number.isInteger(cell) ? figure(cell) : String(cell);
  const right = head.map((_, j) => rows.length > 0 && rows.every((row) => NUMBER.test(text(row[j] ?? "–"))));
  const css = (j) => (right[j] ? "number" : null);
  return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": title }, el("table", {},
    el("thead", {}, el("tr", {}, head.map((cell, j) => el("th", { scope: "col", class: css(j) }, text(cell))))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, j) => el(j ? "td" : "th", { scope: j ? null : "row", class: css(j) }, text(cell))))))));
}
