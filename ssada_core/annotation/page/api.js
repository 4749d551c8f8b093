// Talking to the server. Who we are goes with every request: a tab holds queries, a browser owns drafts.

function remembered(store, key) {
  let value = store.getItem(key);
  if (!value) {
    value = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    store.setItem(key, value);
  }
  return value;
}

export const me = {
  holder: remembered(sessionStorage, "ssada-holder"),
  person: remembered(localStorage, "ssada-person"),
  get name() { return localStorage.getItem("ssada-name") || ""; },
  set name(value) { localStorage.setItem("ssada-name", value); },
};

export class ApiError extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

export async function call(path, { method = "GET", json, body, keepalive = false, signal } = {}) {
  const headers = { "x-holder": me.holder, "x-person": me.person, "x-name": encodeURIComponent(me.name) };
  if (json !== undefined) headers["content-type"] = "application/json";
  if (body !== undefined) headers["content-type"] = "image/png";
  let answer;
  try {
    answer = await fetch(`/api/${path}`, { method, headers, keepalive, signal, body: json !== undefined ? JSON.stringify(json) : body });
  } catch {
    throw new ApiError(0, "the server does not answer");
  }
  if (answer.status === 401) location.reload();
  if (!answer.ok) throw new ApiError(answer.status, await words(answer));
  return answer;
}

async function words(answer) {
  const text = await answer.text();
  try {
    const parsed = JSON.parse(text);
    return typeof parsed.why === "string" ? parsed.why : `the server refused (${answer.status})`;
  } catch {
    return text || `the server refused (${answer.status})`;
  }
}

export const getJson = async (path) => (await call(path)).json();
export const postJson = async (path, json = {}) => (await call(path, { method: "POST", json })).json();

/** Bytes, or null where there are none. */
export async function getBytes(path, signal) {
  const answer = await call(path, { signal });
  return answer.status === 204 ? null : new Uint8Array(await answer.arrayBuffer());
}
