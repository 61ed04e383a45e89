// Asks the service. The token stays in this tab and goes nowhere but into the Authorization header.

const KEPT = "millrace-token";

export class Wrong extends Error {
  constructor(status, detail, errors) {
    super(detail);
    this.status = status;
    this.errors = errors || [];
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEPT),
  set: (value) => sessionStorage.setItem(KEPT, value),
  clear: () => sessionStorage.removeItem(KEPT),
};

export async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  if (options.json !== undefined) headers["Content-Type"] = "application/json";
  const body = options.json !== undefined ? JSON.stringify(options.json) : options.body;
  let told;
  try {
    told = await fetch(path, { method: options.method || "GET", headers, body, signal: options.signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Wrong(0, "The service does not answer. It may be starting again; this page goes on asking.");
  }
  if (!told.ok) {
    const said = await told.json().catch(() => ({ detail: `The service answered ${told.status}.` }));
    throw new Wrong(told.status, said.detail, said.errors);
  }
  return told;
}

export async function json(path, options) {
  return (await ask(path, options)).json();
}

// Server-sent events over fetch: EventSource cannot send a token.
export async function follow(path, signal, heard) {
  const told = await ask(path, { signal });
  const reader = told.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n");
      const name = lines.find((line) => line.startsWith("event: "))?.slice(7);
      const data = lines.find((line) => line.startsWith("data: "))?.slice(6);
      if (name && data) heard(name, JSON.parse(data));
    }
  }
}

export async function download(path, name) {
  const blob = await (await ask(path)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
