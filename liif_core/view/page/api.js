// Requests to the server. All addresses are relative, so that the page also works behind a proxy that adds a prefix.

export const POLL = 500; // milliseconds between two questions about work in progress

/** The server's answer is an error; the message is a sentence for the user. */
export class ApiError extends Error {}

/** Nobody answers. */
export class Unreachable extends Error {}

let stopped = false;
let whenStopped = () => {};

/** Calls `handler` once, when the server turns out to have stopped. */
export function onStopped(handler) {
  whenStopped = handler;
}

export function hasStopped() {
  return stopped;
}

function declareStopped() {
  if (!stopped) {
    stopped = true;
    whenStopped();
  }
}

/** Whether a proxy says that it does not reach the server. */
const isFromProxy = ({ status }) => status === 502 || status === 504;

/** After a failed request: asks once more whether the server is there. */
export async function checkServer() {
  if (stopped) return;
  try {
    const response = await fetch("api/session", { cache: "no-store" });
    if (isFromProxy(response)) declareStopped();
  } catch {
    declareStopped();
  }
}

/** The JSON of an address. Raises ApiError, or Unreachable when there is no server. */
export async function request(address, options = {}) {
  if (stopped) throw new Unreachable();
  let response;
  try {
    response = await fetch(address, { cache: "no-store", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    await checkServer();
    throw stopped ? new Unreachable() : new ApiError("The request failed: the connection was closed.");
  }
  if (isFromProxy(response)) {
    declareStopped();
    throw new Unreachable();
  }
  const text = await response.text();
  let data = null;
  try {
    data = text ? JSON.parse(text) : null;
  } catch {
    // An answer of a proxy in between may be something else than JSON.
  }
  if (!response.ok) throw new ApiError(data?.error || `The server answered with status ${response.status}.`);
  return data;
}

export const session = () => request("api/session");
export const image = (id, signal) => request(`api/images/${encodeURIComponent(id)}`, { signal });
export const info = (layer, id) => request(`${service(layer, id)}/info.json`);
export const service = (layer, id) => `iiif/${encodeURIComponent(layer)}/${encodeURIComponent(id)}`;
export const thumbnail = (id) => `${service("bicubic", id)}/full/^!320,320/0/default.webp`;
export const save = (id) => `api/saves/${encodeURIComponent(id)}`;

export function startSave(what) {
  return request("api/saves", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(what),
  });
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
