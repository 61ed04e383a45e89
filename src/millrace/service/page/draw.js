// Pictures: Vega-Lite specs that the service made, drawn in the reader's light or dark. The script comes with the first picture.

import { el } from "./say.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
const CANVAS_MARKS = 1500;
const AXIS_PX = 80;
const NARROW_PX = 560;
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

// As wide as there is room, panels below each other where they do not go side by side: specs are made for a desk.
function fitted(spec, room) {
  if (typeof spec.width === "number" && spec.width > room - AXIS_PX) return fitted({ ...spec, width: "container" }, room);
  if (spec.width === "container" && typeof spec.height !== "number") return { ...spec, autosize: { type: "fit-x", contains: "padding" } };
  if (room >= NARROW_PX) return spec;
  if (spec.concat) return { ...spec, columns: 1 };
  const { hconcat, ...rest } = spec;
  return hconcat ? { ...rest, vconcat: hconcat } : spec;
}

async function paint(place) {
  try {
    await script();
    await new Promise(requestAnimationFrame);
    if (!place.isConnected) return;
    const shade = dark.matches ? "dark" : "light";
    const marks = place.spec.data?.values?.length || 0;
    place.view?.finalize();
    const made = await window.vegaEmbed(place, fitted(place.spec, place.clientWidth), {
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
