// Elements and words: nothing here asks the service. Text goes in as text, never as markup.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "max") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export function notice(text) {
  const place = document.getElementById("notice");
  place.textContent = text;
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => { place.textContent = ""; }, 6000);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "not known";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function bytes(size) {
  if (size === null || size === undefined) return "not known";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (size >= 1024 && i < units.length - 1) { size /= 1024; i += 1; }
  return `${size.toFixed(size < 10 && i ? 1 : 0)} ${units[i]}`;
}

export function figure(value) {
  return value === null || value === undefined ? "not known" : Number(value).toLocaleString("en", { maximumSignificantDigits: 3 });
}

export function ago(at) {
  const seconds = Date.now() / 1000 - at;
  if (seconds < 60) return "just now";
  if (seconds < 86400) return `${duration(seconds)} ago`;
  return new Date(at * 1000).toLocaleDateString("en", { day: "numeric", month: "short" });
}

export function when(at) {
  return at === null ? "not yet" : new Date(at * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "medium" });
}

export function time(at) {
  return el("time", { datetime: new Date(at * 1000).toISOString(), title: when(at) }, ago(at));
}

export function chip(state) {
  return el("span", { class: `chip ${state}` }, state);
}

export function title(name) {
  const said = name.replaceAll("_", " ");
  return said[0].toUpperCase() + said.slice(1);
}

export function facts(rows) {
  return el("dl", { class: "facts" }, rows.map(([what, is]) => [el("dt", {}, what), el("dd", {}, is)]));
}

export function plain(value) {
  if (value === null || value === undefined) return "–";
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (typeof value === "object") return Object.keys(value).join() === "input" ? `content ${value.input.slice(0, 12)}` : JSON.stringify(value);
  return String(value);
}

// Replaces what is shown, and keeps the focus where it was when that element is there again.
export function show(place, ...children) {
  const key = document.activeElement?.dataset?.key;
  place.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  if (key) place.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}
