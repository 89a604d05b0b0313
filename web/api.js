// The daemon's API, as the page uses it.

const answerMs = 15_000;
const maxAnswerBytes = 64 * 1024 * 1024;
const storageKey = "squash.token";

/** An answer that is not a success; `status` is 0 where there was none. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let token = readToken();

export function hasToken() {
  return token !== "";
}

/** Whether a header can carry it. */
export function isToken(text) {
  return /^[\x21-\x7e]+$/.test(text);
}

/** Keeps the token until the tab is closed; "" forgets it. */
export function setToken(text) {
  token = text;
  try {
    if (text === "") sessionStorage.removeItem(storageKey);
    else sessionStorage.setItem(storageKey, text);
  } catch {
    // the browser keeps nothing for this page: it is asked for again after a reload
  }
}

function readToken() {
  try {
    const kept = sessionStorage.getItem(storageKey) ?? "";
    return isToken(kept) ? kept : "";
  } catch {
    return ""; // as above
  }
}

export const health = () => ask("GET", "/health");
export const openapi = () => ask("GET", "/openapi.json");
export const modules = () => ask("GET", "/v1/modules");
export const sandboxes = () => ask("GET", "/v1/sandboxes");
export const logs = (id) => ask("GET", `${sandboxPath(id)}/logs`);
export const create = (body) => ask("POST", "/v1/sandboxes", { body, timeoutMs: null });
export const destroy = (id) => ask("DELETE", sandboxPath(id), { timeoutMs: null });
/** Aborting it kills the command. */
export const exec = (id, body, signal) => ask("POST", `${sandboxPath(id)}/exec`, { body, signal, timeoutMs: null });

function sandboxPath(id) {
  return `/v1/sandboxes/${encodeURIComponent(id)}`;
}

async function ask(method, path, { body, signal, timeoutMs = answerMs } = {}) {
  const headers = new Headers();
  if (token !== "") headers.set("Authorization", `Bearer ${token}`);
  if (body !== undefined) headers.set("Content-Type", "application/json");
  const signals = [signal, timeoutMs === null ? undefined : AbortSignal.timeout(timeoutMs)].filter(Boolean);
  let response, text;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      signal: signals.length === 0 ? null : AbortSignal.any(signals),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
    if (Number(response.headers.get("content-length")) > maxAnswerBytes)
      throw new ApiError(response.status, "the answer is too long to be shown");
    text = await response.text();
  } catch (error) {
    if (signal?.aborted || error instanceof ApiError) throw error;
    throw new ApiError(
      0,
      error.name === "TimeoutError" ? "squashd does not answer in time" : "squashd cannot be reached",
    );
  }
  if (!response.ok) throw new ApiError(response.status, errorText(text) ?? `squashd answers ${response.status}`);
  return text === "" ? null : parse(text, response.status);
}

function parse(text, status) {
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError(status, "the answer is not squashd's: it is no JSON");
  }
}

function errorText(text) {
  try {
    const { error } = JSON.parse(text);
    return typeof error === "string" ? error : null;
  } catch {
    return null; // a proxy's page, say; the status tells enough
  }
}
