// Jobs: a list that can be narrowed, with progress, cancel and retry.

import { json } from "./ask.js";
import { chip, duration, el, notice, show, time } from "./say.js";

const EVERY_MS = 2000;
const STATES = ["queued", "running", "succeeded", "failed", "cancelled"];

export async function jobs(main, signal, query) {
  const { tiers } = await json("v1/tiers");
  const chosen = { state: query.get("state") || "", tier: query.get("tier") || "", pages: 1 };
  const list = el("div", { "aria-busy": "true" });
  const select = (name, label, values) => {
    const made = el("select", { id: `by-${name}`, onchange: () => { chosen[name] = made.value; chosen.pages = 1; look(); } },
      el("option", { value: "" }, `all ${label}`), values.map((v) => el("option", { value: v }, v)));
    made.value = chosen[name];
    return [el("label", { for: `by-${name}`, class: "small" }, name === "state" ? "State" : "Tier"), made];
  };
  show(main, el("h1", {}, "Jobs"),
    el("div", { class: "row", role: "search", "aria-label": "Which jobs" },
      select("state", "states", STATES), select("tier", "tiers", tiers.map((t) => t.name))), list);

  async function look() {
    const found = [];
    let before = 0;
    for (let page = 0; page < chosen.pages && before !== null; page += 1) {
      const asked = new URLSearchParams({ state: chosen.state, tier: chosen.tier, before, limit: 50 });
      if (!chosen.state) asked.delete("state");
      const told = await json(`v1/jobs?${asked}`, { signal });
      found.push(...told.jobs);
      before = told.before;
    }
    list.removeAttribute("aria-busy");
    if (!found.length) {
      const narrowed = chosen.state || chosen.tier;
      show(list, el("p", { class: "quiet" }, narrowed ? "No job is like that." : "There are no jobs yet. ",
        narrowed ? null : el("a", { href: "#/submit" }, "Submit the first one.")));
      return;
    }
    const more = before === null ? null : el("button", { type: "button", "data-key": "more", onclick: () => { chosen.pages += 1; look(); } }, "Older jobs");
    show(list, table(found, look), more ? el("p", { class: "row" }, more) : null);
  }

  await look();
  return { every: EVERY_MS, look };
}

function table(found, look) {
  const head = ["Job", "What", "State", "Progress", "Submitted", "Took", ""];
  return el("table", { class: "jobs" },
    el("caption", { class: "skip" }, "Jobs, the newest first"),
    el("thead", {}, el("tr", {}, head.map((text) => el("th", { scope: "col", class: text === "Took" ? "number" : null }, text || el("span", { class: "skip" }, "Actions"))))),
    el("tbody", {}, found.map((job) => row(job, look))));
}

function row(job, look) {
  const name = job.label && job.label !== job.analysis ? `${job.label} (${job.analysis})` : job.analysis;
  const why = job.waits || (job.state === "succeeded" ? "" : job.why);
  return el("tr", {},
    el("td", { class: "id" }, `${job.id}`),
    el("td", { class: "what" }, el("a", { href: `#/jobs/${job.id}`, "data-key": `job-${job.id}`, "aria-label": `Job ${job.id}: ${name}` }, name),
      el("span", { class: "done" }, `queue ${job.queue}, tier ${job.tier}${job.owner ? `, of ${job.owner}` : ""}`),
      why ? el("span", { class: "done" }, why) : null),
    el("td", { class: "state" }, chip(job.cancel_asked && job.state === "running" ? "running" : job.state)),
    el("td", { class: "done-cell" }, ...progress(job)),
    el("td", { class: "when" }, time(job.created_at)),
    el("td", { class: "number took" }, job.measured.seconds === null || !job.ended_at ? "" : duration(job.measured.seconds)),
    el("td", { class: "act" }, ...actions(job, look)));
}

export function progress(job) {
  if (job.state !== "running" && job.state !== "queued") return [];
  const { stage, finished, total } = job.progress;
  if (job.state === "queued" && !finished) return [];
  const said = `${stage || "starting"}${finished ? ` ${finished.toLocaleString("en")}` : ""}${total ? ` of ${total.toLocaleString("en")}` : ""}`;
  const label = `Progress of job ${job.id}`;
  const bar = total ? el("progress", { max: total, value: finished, "aria-label": label }) : job.state === "running" ? el("progress", { "aria-label": label }) : null;
  return [bar, el("span", { class: "done" }, said)];
}

export function actions(job, after) {
  const act = (label, method, path, said) => el("button", {
    type: "button", "data-key": `${label}-${job.id}`, "aria-label": `${label} job ${job.id}`,
    onclick: async (event) => {
      event.target.disabled = true;
      try {
        const now = await json(path, { method });
        notice(said(now));
      } catch (error) {
        notice(error.message);
      }
      after();
    },
  }, label);
  if (job.state === "queued" || job.state === "running") {
    if (job.cancel_asked) return [el("span", { class: "quiet small" }, "stopping")];
    return [act("Cancel", "DELETE", `v1/jobs/${job.id}`, (now) => now.state === "cancelled" ? `Job ${job.id} is cancelled.` : `Job ${job.id} stops between two tasks.`)];
  }
  if (job.state === "failed" || job.state === "cancelled") {
    return [act("Retry", "POST", `v1/jobs/${job.id}/retry`, () => `Job ${job.id} is queued again.`)];
  }
  return [];
}
