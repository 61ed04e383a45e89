// Submit: a form made from the OpenAPI of the service, so that it asks for what the analyses ask for.

import { json } from "./ask.js";
import { bytes, duration, el, figure, notice, show, title } from "./say.js";

const FORMS = {
  model: { txt: "lightgbm", json: "xgboost-json", ubj: "xgboost-ubj", cbm: "catboost", onnx: "onnx", skops: "skops" },
  data: { csv: "csv", parquet: "parquet", pq: "parquet", arrow: "arrow", feather: "arrow", npy: "npy", jsonl: "jsonl", ndjson: "jsonl", json: "json", py: "py", gml: "gml", dot: "dot", toml: "toml" },
};

export async function submit(main, signal, query) {
  const [open, named] = await Promise.all([json("v1/openapi.json"), json("v1/names")]);
  const shapes = open.components.schemas;
  const orders = Object.entries(open.paths["/v1/jobs"].post.requestBody.content["application/json"].schema.discriminator.mapping)
    .map(([name, ref]) => [name, shape({ $ref: ref }, shapes)]);
  const fields = el("div");
  const wrong = el("div", { role: "alert" });
  const forecast = el("div", { role: "status" });
  const which = el("select", { id: "analysis", onchange: () => fill() }, orders.map(([name]) => el("option", { value: name }, name)));
  which.value = query.get("analysis") || "explain";
  const names = (kind) => named.names.filter((n) => n.kind === kind).map((n) => n.name);
  const lists = ["data", "model"].map((kind) => el("datalist", { id: `names-${kind}` }, names(kind).map((n) => el("option", { value: n }))));
  let read = () => ({});

  function fill() {
    const order = orders.find(([name]) => name === which.value)[1];
    const question = shape(order.properties.question, shapes);
    const needed = question.required || [];
    const parts = Object.entries(question.properties).map(([name, said]) => field(`question.${name}`, name, shape(said, shapes), needed.includes(name)));
    const about = ["queue", "priority", "seed", "label"].map((name) => field(name, name, shape(order.properties[name], shapes), false));
    read = () => {
      const asked = { analysis: which.value, question: {} };
      for (const one of parts) { const value = one.value(); if (value !== undefined) asked.question[one.name] = value; }
      for (const one of about) { const value = one.value(); if (value !== undefined) asked[one.name] = value; }
      return asked;
    };
    show(fields, ...parts.filter((p) => needed.includes(p.name)).map((p) => p.element),
      el("details", {}, el("summary", {}, "More about the question"), ...parts.filter((p) => !needed.includes(p.name)).map((p) => p.element)),
      el("details", {}, el("summary", {}, "About the job"), ...about.map((p) => p.element)));
    show(wrong);
    show(forecast);
  }

  function complain(error) {
    for (const place of fields.querySelectorAll(".wrong")) place.textContent = "";
    for (const place of fields.querySelectorAll("[aria-invalid]")) place.removeAttribute("aria-invalid");
    const rest = [];
    for (const { at, why } of error.errors || []) {
      const place = [...fields.querySelectorAll("[data-at]")].find((one) => at.endsWith(one.dataset.at) || at.includes(`${one.dataset.at}.`));
      if (!place) { rest.push(`${at}: ${why}`); continue; }
      place.querySelector(".wrong").textContent = why;
      place.querySelector("input, select, textarea").setAttribute("aria-invalid", "true");
      place.closest("details")?.setAttribute("open", "");
    }
    const said = error.errors?.length ? (rest.length ? rest.join("; ") : "Something is not right yet; it is marked below.") : error.message;
    show(wrong, el("p", { class: "wrongs" }, said));
    (fields.querySelector('[aria-invalid="true"]') || wrong).focus?.();
    wrong.scrollIntoView({ block: "nearest" });
  }

  async function send(event) {
    event.preventDefault();
    const plan = event.submitter?.value === "plan";
    event.submitter.disabled = true;
    show(wrong);
    try {
      const told = await json(plan ? "v1/plan" : "v1/jobs", { method: "POST", json: read() });
      if (plan) show(forecast, ...plans(told));
      else { notice(`Job ${told.id} is ${told.state}.`); location.hash = `#/jobs/${told.id}`; }
    } catch (error) {
      complain(error);
    } finally {
      event.submitter.disabled = false;
    }
  }

  const form = el("form", { onsubmit: send, novalidate: true },
    el("div", { class: "field" }, el("label", { for: "analysis" }, "Analysis"), which), fields, wrong,
    el("div", { class: "row" }, el("button", { type: "submit", class: "first", value: "submit" }, "Submit"),
      el("button", { type: "submit", value: "plan" }, "What will it take?")), forecast);
  show(main, el("h1", {}, "Submit a job"), ...lists, form, upload(() => submit(main, signal, new URLSearchParams({ analysis: which.value }))));
  fill();
  return null;
}

// References resolved, and "or null" left out: a field that is left empty is not sent.
function shape(said, shapes) {
  if (said.$ref) return { ...shape(shapes[said.$ref.split("/").pop()], shapes), ...{ ...said, $ref: undefined } };
  if (said.allOf?.length === 1) return { ...shape(said.allOf[0], shapes), ...said };
  if (said.anyOf) {
    const kinds = said.anyOf.filter((one) => one.type !== "null").map((one) => shape(one, shapes));
    return { ...kinds[0], ...said, kinds };
  }
  return { ...said, kinds: [said] };
}

function field(at, name, said, needed) {
  const id = `f-${at.replaceAll(".", "-")}`;
  const kinds = said.kinds || [said];
  const choices = kinds.flatMap((one) => one.enum || (one.const !== undefined ? [one.const] : []));
  const kind = said.type || kinds[0]?.type;
  const more = { id, "aria-describedby": `${id}-help ${id}-wrong`, "aria-required": needed ? "true" : null };
  let input;
  if (choices.length && !said["x-names"]) {
    input = el("select", more, needed ? null : el("option", { value: "" }, `not given${said.default !== undefined && said.default !== null ? ` (${said.default})` : ""}`), choices.map((c) => el("option", { value: c }, c)));
  } else if (kind === "boolean") {
    input = el("input", { ...more, type: "checkbox" });
  } else if (kind === "object" || (kind === "array" && ["object", undefined].includes(shapeOfItems(said)))) {
    input = el("textarea", { ...more, spellcheck: "false", placeholder: kind === "array" ? '[{"name": ...}]' : '{"name": ...}' });
  } else {
    const numeric = kinds.every((one) => one.type === "number" || one.type === "integer");
    const list = said["x-names"] === "model" || said["x-names"] === "data" ? `names-${said["x-names"]}` : null;
    const shown = said.default !== undefined && said.default !== null && typeof said.default !== "object" ? String(said.default) : null;
    input = el("input", { ...more, type: "text", inputmode: numeric ? "decimal" : null, list, autocomplete: "off", spellcheck: "false", placeholder: shown });
  }
  const label = el("label", { for: id }, title(name));
  const help = el("span", { class: "help", id: `${id}-help` }, helped(said, kind));
  const wrong = el("span", { class: "wrong", id: `${id}-wrong` });
  return { name, element: el("div", { class: "field", "data-at": at }, label, input, help, wrong), value: () => valueOf(input, kinds, kind) };
}

function shapeOfItems(said) {
  const items = said.items || said.kinds?.find((one) => one.items)?.items;
  return items?.$ref ? "object" : items?.type;
}

function helped(said, kind) {
  const text = said["x-names"] === "model" || said["x-names"] === "data" ? `A name of ${said["x-names"] === "model" ? "a model" : "data"}, registered or sent below: ${said.description || said.kinds?.[0]?.description || ""}` : said.description || "";
  if (kind === "array" && shapeOfItems(said) === "string") return `${text}${text ? " — " : ""}several with commas between them`;
  return text;
}

function valueOf(input, kinds, kind) {
  if (input.type === "checkbox") return input.checked ? true : undefined;
  const text = input.value.trim();
  if (!text) return undefined;
  if (input.tagName === "TEXTAREA" || (text.startsWith("{") && kinds.some((one) => one.type === "object"))) {
    try { return JSON.parse(text); } catch { return text; }
  }
  const types = kinds.map((one) => one.type);
  if ((types.includes("number") || types.includes("integer")) && text !== "" && !Number.isNaN(Number(text))) return Number(text);
  if (kind === "array") return text.split(",").map((part) => part.trim()).filter(Boolean);
  return text;
}

function plans(told) {
  const head = ["Tier", "Time", "Core-seconds", "Memory", "Money"];
  return [el("h2", {}, "What it will take"), el("p", {}, `It would go to the queue ${told.queue} of the tier ${told.tier}: ${told.why}.`),
    el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Forecast" }, el("table", {},
      el("thead", {}, el("tr", {}, head.map((text, j) => el("th", { scope: "col", class: j ? "number" : null }, text)))),
      el("tbody", {}, told.tiers.map((t) => el("tr", {}, el("th", { scope: "row" }, t.tier), t.fits
        ? [duration(t.seconds), figure(t.core_s), bytes(t.peak_bytes), t.money === null ? "not known" : t.money.toPrecision(2)].map((text) => el("td", { class: "number" }, text))
        : el("td", { colspan: "4" }, `does not fit: it needs ${bytes(t.needs_bytes)}`))))))];
}

function upload(after) {
  const file = el("input", { id: "file", type: "file" });
  const name = el("input", { id: "file-name", type: "text", autocomplete: "off", spellcheck: "false" });
  const kind = el("select", { id: "file-kind" }, el("option", { value: "data" }, "data"), el("option", { value: "model" }, "model"));
  const said = el("p", { role: "alert" });
  file.addEventListener("change", () => { if (file.files[0] && !name.value) name.value = file.files[0].name.replace(/\.[^.]+$/, "").replace(/[^A-Za-z0-9._-]/g, "-"); });
  async function send(event) {
    event.preventDefault();
    const one = file.files[0];
    const form = one && FORMS[kind.value][one.name.split(".").pop().toLowerCase()];
    if (!one || !name.value) { show(said, "Choose a file, and give it a name."); said.className = "wrongs"; return; }
    if (!form) { show(said, `A ${kind.value} file ends in ${Object.keys(FORMS[kind.value]).join(", ")}.`); said.className = "wrongs"; return; }
    event.submitter.disabled = true;
    try {
      await json(`v1/${kind.value === "model" ? "models" : "data"}/${encodeURIComponent(name.value)}?form=${form}`, { method: "PUT", body: one });
      notice(`${name.value} is now the ${kind.value} ${one.name}.`);
      await after();
    } catch (error) {
      show(said, error.message);
      said.className = "wrongs";
      event.submitter.disabled = false;
    }
  }
  return el("section", { "aria-label": "Send a file" }, el("h2", {}, "Send a file"),
    el("p", { class: "quiet small" }, "Data, or a model in its library's own form. It gets a name that your questions can use."),
    el("form", { onsubmit: send, novalidate: true }, el("div", { class: "field" }, el("label", { for: "file-kind" }, "What it is"), kind),
      el("div", { class: "field" }, el("label", { for: "file" }, "File"), file), el("div", { class: "field" }, el("label", { for: "file-name" }, "Name"), name), said,
      el("button", { type: "submit" }, "Send")));
}
