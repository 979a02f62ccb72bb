// The line below the picture: scale, position, render time, and how far the encoding is.

import * as api from "./api.js";

const find = (id) => document.getElementById(id);
const RECENT = 24; // tiles, whose median render time is shown

export const scaleText = (scale) => `x${scale < 10 ? Number(scale.toFixed(scale < 1 ? 2 : 1)) : Math.round(scale)}`;

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Measures how long the server renders tiles of the model layers, by the header Server-Timing of its answers. */
export class RenderTimes {
  constructor(models) {
    const parts = models.map((id) => `/iiif/${encodeURIComponent(id)}/`);
    new PerformanceObserver((list) => {
      const entries = list.getEntries().filter(({ name }) => parts.some((part) => name.includes(part)));
      this.add(entries.map(renderTime).filter((time) => time !== null));
    }).observe({ type: "resource" });
    performance.addEventListener("resourcetimingbufferfull", () => performance.clearResourceTimings());
    this.reset();
  }

  reset() {
    this.times = [];
    find("render-time").textContent = "–";
  }

  add(times) {
    if (!times.length) return;
    this.times = [...this.times, ...times].slice(-RECENT);
    const time = median(this.times);
    find("render-time").textContent = `${time < 10 ? time.toFixed(1) : Math.round(time)} ms per tile`;
  }
}

/** The milliseconds of an answer; null if it was kept by the server or the browser. */
function renderTime(entry) {
  if (entry.transferSize < entry.encodedBodySize) return null; // the browser had it
  if (entry.serverTiming.some(({ name, description }) => name === "cache" && description === "hit")) return null;
  return entry.serverTiming.find(({ name }) => name === "render")?.duration ?? null;
}

export function showView(layers) {
  find("scale").textContent = scaleText(layers.scale());
}

export function showPosition(position) {
  find("position").textContent = position ? position.map((value) => value.toFixed(1)).join(", ") : "–";
}

export const isEncoding = ({ state }) => state === "waiting" || state === "encoding";

function encodingText(layer) {
  const seconds = `${layer.seconds.toFixed(1)} s`;
  return {
    waiting: "waiting to encode",
    encoding: `encoding ${Math.floor(100 * layer.done)}%`,
    ready: `encoded in ${seconds}`,
    partly: `${Math.floor(100 * layer.done)}% encoded in ${seconds}; the rest is encoded where you look`,
    failed: "encoding failed",
  }[layer.state];
}

let announced = "";

/** Shows the state of every model. Screen readers hear of each new state and of every quarter. */
export function showEncoding(layers) {
  const entries = Object.entries(layers);
  const parts = entries.map(([id, layer]) => {
    const name = entries.length > 1 ? `${layer.name}: ` : "";
    let row = find(`encoding-${id}`);
    if (!row) {
      row = document.createElement("p");
      row.id = `encoding-${id}`;
      const bar = Object.assign(document.createElement("progress"), { max: 1 });
      bar.setAttribute("aria-label", `Encoding of ${layer.name}`);
      row.append(bar, document.createElement("span"));
      find("encoding").append(row);
    }
    const [bar, words] = row.children;
    bar.hidden = !isEncoding(layer);
    bar.value = layer.done;
    words.textContent = name + encodingText(layer);
    const quarter = { ...layer, done: Math.floor(4 * layer.done) / 4 };
    return name + encodingText(layer.state === "encoding" ? quarter : layer);
  });
  const now = parts.join(", ");
  if (now !== announced) find("announcement").textContent = announced = now;
}

export function clear() {
  find("encoding").replaceChildren();
  find("notes").replaceChildren();
  find("announcement").textContent = announced = "";
  showPosition(null);
}

const dismissed = new Set();

/** A remark in the line below the picture, once per text. */
export function showNote(text) {
  if (!text || dismissed.has(text) || [...find("notes").children].some((note) => note.dataset.text === text)) return;
  find("notes").append(closable(text, () => dismissed.add(text)));
}

/** A message over the page, once per text until it is closed. `action` is [label, function]. */
export function showMessage(text, { failure = true, action = null } = {}) {
  if ([...find("notices").children].some((note) => note.dataset.text === text)) return;
  const box = closable(text, () => {});
  box.className = failure ? "notice failure" : "notice";
  if (action) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: action[0] });
    button.addEventListener("click", action[1]);
    box.insertBefore(button, box.lastChild);
  }
  find("notices").append(box);
}

export const clearMessages = () => api.hasStopped() || find("notices").replaceChildren();

function closable(text, whenClosed) {
  const box = document.createElement("div");
  box.className = "note";
  box.dataset.text = text;
  const words = Object.assign(document.createElement("p"), { textContent: text });
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: "×", title: "Close" });
  button.setAttribute("aria-label", `Close the message: ${text}`);
  button.addEventListener("click", () => {
    box.remove();
    whenClosed();
  });
  box.append(words, button);
  return box;
}
