// Pictures: Vega-Lite specs that the service made, drawn in the reader's light or dark. The script comes with the first picture.

import { el } from "./say.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
const CANVAS_MARKS = 1500;
const AXIS_PX = 80;
let loading = null;
const drawn = new Set();

function script() {
  loading ||= new Promise((done, failed) => {
    const made = el("script", { src: "page/vega.js" });
    made.onload = done;
    made.onerror = () => { loading = null; failed(new Error("the script that draws did not come")); };
    document.head.append(made);
  });
  return loading;
}

function words(text) {
  return Array.isArray(text) ? text.join(" ") : String(text ?? "");
}

// A figure of a spec, its title as text of the page: that wraps on a phone, and Vega's does not.
export function picture(spec, fallback) {
  const { title, description, ...rest } = spec;
  const said = typeof title === "object" && title !== null && !Array.isArray(title) ? title : { text: title };
  const place = el("div", { class: "chart", role: "img", "aria-label": description || words(said.text) || fallback });
  place.spec = rest;
  drawn.add(place);
  place.ready = paint(place);
  const caption = el("figcaption", {},
    said.text ? el("strong", {}, words(said.text)) : null, said.subtitle ? el("span", {}, words(said.subtitle)) : null);
  return el("figure", {}, caption.childNodes.length ? caption : null, place);
}

// As wide as there is room: specs are made for a desk.
function fitted(spec, room) {
  if (typeof spec.width === "number" && spec.width > room - AXIS_PX) return fitted({ ...spec, width: "container" }, room);
  if (spec.width === "container" && typeof spec.height !== "number") return { ...spec, autosize: { type: "fit-x", contains: "padding" } };
  const { hconcat, ...rest } = spec;
  return hconcat ? { ...rest, concat: hconcat, columns: hconcat.length } : spec;
}

// Panels go below each other as long as they do not go side by side.
async function embed(place, spec, options) {
  const made = await window.vegaEmbed(place, spec, options);
  const across = spec.concat ? Math.min(spec.columns || spec.concat.length, spec.concat.length) : 1;
  if (across < 2 || place.scrollWidth <= place.clientWidth + 1) return made;
  made.finalize();
  return embed(place, { ...spec, columns: across - 1 }, options);
}

async function paint(place) {
  try {
    await script();
    await new Promise(requestAnimationFrame);
    if (!place.isConnected) return;
    const shade = dark.matches ? "dark" : "light";
    const marks = place.spec.data?.values?.length || 0;
    place.view?.finalize();
    const made = await embed(place, fitted(place.spec, place.clientWidth), {
      actions: false, config: window.millraceThemes[shade], renderer: marks > CANVAS_MARKS ? "canvas" : "svg", tooltip: { theme: shade },
    });
    place.view = made.view;
    place.dataset.drawn = shade;
  } catch (error) {
    place.textContent = `This picture could not be drawn: ${error.message}`;
  }
}

dark.addEventListener("change", () => {
  for (const place of drawn) {
    if (place.isConnected) paint(place);
    else drawn.delete(place);
  }
});
