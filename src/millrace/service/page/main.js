// Which page is shown, who is signed in, and asking again now and then.

import { token } from "./ask.js";
import { job } from "./job.js";
import { jobs } from "./jobs.js";
import { el, notice, show } from "./say.js";
import { submit } from "./submit.js";
import { tiers } from "./tiers.js";

const main = document.getElementById("main");
const account = document.getElementById("account");
const PAGES = [[/^\/jobs\/(\d+)$/, job, "Job"], [/^\/jobs$/, jobs, "Jobs"], [/^\/tiers$/, tiers, "Tiers"], [/^\/submit$/, submit, "Submit"]];
let leaving = new AbortController();

async function go(moved) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  if (location.hash === "#main") { main.focus(); return; }
  const [path, query] = (location.hash.slice(1) || "/jobs").split("?");
  const found = PAGES.find(([pattern]) => pattern.test(path)) || PAGES[1];
  const number = found[0].exec(path)?.[1];
  document.title = `${found[2]}${number ? ` ${number}` : ""} – millrace`;
  for (const link of document.querySelectorAll("nav a")) {
    if (path.startsWith(link.getAttribute("href").slice(1))) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  account.hidden = !token.get();
  main.setAttribute("aria-busy", "true");
  try {
    const live = await found[1](main, signal, new URLSearchParams(query || ""), number);
    if (signal.aborted) return;
    if (moved) main.focus({ preventScroll: true });
    if (live) again(live, signal);
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    if (error.status === 401) signIn();
    else {
      show(main, el("h1", {}, "That did not work"), el("p", {}, error.message), el("p", {}, el("button", { type: "button", onclick: () => go(true) }, "Try again")));
    }
  } finally {
    main.removeAttribute("aria-busy");
  }
}

async function again({ every, look }, signal) {
  while (!signal.aborted) {
    await new Promise((done) => setTimeout(done, every));
    if (signal.aborted || document.hidden) continue;
    try {
      await look();
    } catch (error) {
      if (error.status === 401) { signIn(); return; }
      if (error.name !== "AbortError") notice(error.message);
    }
  }
}

function signIn() {
  const refused = Boolean(token.get());
  token.clear();
  account.hidden = true;
  const input = el("input", { id: "token", type: "password", autocomplete: "off", required: true, "aria-describedby": "token-help" });
  const enter = (event) => { event.preventDefault(); if (input.value.trim()) { token.set(input.value.trim()); go(true); } };
  show(main, el("h1", {}, "Sign in"), el("form", { onsubmit: enter }, el("div", { class: "field" }, el("label", { for: "token" }, "Token"), input,
    el("span", { class: "help", id: "token-help" }, "The operator makes one with `millrace token NAME`. It stays in this tab.")),
    refused ? el("p", { class: "wrongs", role: "alert" }, "That token is not known here.") : null, el("button", { type: "submit", class: "first" }, "Sign in")));
  input.focus();
}

account.addEventListener("click", () => { token.clear(); go(true); });
window.addEventListener("hashchange", () => go(true));
go(false);
