// Tiers: workers, queues, waits and cost, now and as they were.

import { json } from "./ask.js";
import { picture } from "./draw.js";
import { bytes, duration, el, figure, show, time } from "./say.js";

const EVERY_MS = 5000;

export async function tiers(main, signal) {
  const cards = el("div", { class: "cards" });
  const workers = el("div");
  const since = el("p", { class: "quiet small" });
  show(main, el("h1", {}, "Tiers"), cards, el("h2", {}, "Workers"), workers, since);

  async function look() {
    const told = await json("v1/tiers", { signal });
    const made = told.tiers.filter((t) => t.most !== 0 || t.load?.queued).map(card);
    show(cards, made);
    show(workers, told.workers.length ? table(told.workers) : el("p", { class: "quiet" }, "No worker is there now."));
    show(since, "Seen since ", time(told.since), ". Money by the prices of the tiers' file.");
  }

  await look();
  return { every: EVERY_MS, look };
}

function card(tier) {
  const load = tier.load;
  const known = (value) => (load === null ? "unknown" : value());
  const late = load && tier.target_wait_s && load.oldest_wait_s > tier.target_wait_s;
  const figures = [
    ["workers", known(() => `${load.live + load.draining}${tier.most === null ? "" : ` of ${tier.most}`}`)],
    ["jobs wait", known(() => figure(load.queued))],
    ["jobs run", known(() => figure(load.running))],
    ["oldest waits", known(() => (load.queued ? duration(load.oldest_wait_s) : "–"))],
    ["an hour now", tier.cost_per_hour === null ? "unknown" : money(tier.cost_per_hour)],
    ["so far", tier.cost === null ? "unknown" : money(tier.cost)],
  ];
  const size = [tier.cores ? `${tier.cores} cores` : "cores of its host", tier.memory_bytes ? bytes(tier.memory_bytes) : "memory of its host", `${tier.jobs_at_once} job${tier.jobs_at_once === 1 ? "" : "s"} at once`];
  return el("article", { class: "card", "aria-label": `Tier ${tier.name}` }, el("h2", {}, tier.name),
    el("p", { class: "quiet small" }, `${size.join(", ")}. Queues: ${tier.queues.join(", ")}.`),
    el("dl", { class: "figures" }, figures.map(([what, is]) => el("div", {}, el("dt", {}, what), el("dd", {}, is)))),
    late ? el("p", { class: "wrongs small" }, `A job waits longer than the target of ${duration(tier.target_wait_s)}.`) : null,
    tier.chart ? picture(tier.chart, `The tier ${tier.name} over time`) : el("p", { class: "quiet small" }, "The picture begins in some seconds."));
}

function money(value) {
  return value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: value < 1 ? 3 : 2 });
}

function table(workers) {
  const head = ["Worker", "Tier", "State", "Processor", "Memory", "Limit"];
  return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Workers" }, el("table", {},
    el("thead", {}, el("tr", {}, head.map((text, j) => el("th", { scope: "col", class: j > 2 ? "number" : null }, text)))),
    el("tbody", {}, workers.map((w) => el("tr", {}, el("th", { scope: "row" }, w.id), el("td", {}, w.tier), el("td", {}, w.state),
      el("td", { class: "number" }, w.cpu_percent === null ? "not known" : `${Math.round(w.cpu_percent)} %`),
      el("td", { class: "number" }, bytes(w.private_bytes)), el("td", { class: "number" }, bytes(w.memory_bytes)))))));
}
