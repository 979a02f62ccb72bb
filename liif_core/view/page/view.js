// The page of `liif view`: a list of images or one image, chosen by the address (`#image=...`), and all controls.

import * as api from "./api.js";
import { Layers, previewOf } from "./layers.js";
import * as readout from "./readout.js";
import { SaveDialog } from "./save.js";

const find = (id) => document.getElementById(id);
const PATIENCE = 500; // milliseconds: how long the model waits for the preview
const STEP = 0.15; // of the view: how far an arrow key moves it
const DIVIDER_STEPS = { // percent of the width
  ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -100, End: 100,
};

let session, layers, times, saveDialog;
let image = null; // that is shown
let opening = null; // an AbortController for what the shown image waits for

async function start() {
  api.onStopped(() => {
    readout.showMessage("The server has stopped; start liif view again.", {
      action: ["Reload", () => location.reload()],
    });
  });
  try {
    session = await api.session();
  } catch (error) {
    find("loading").textContent = error.message || "The server has stopped; start liif view again.";
    return;
  }
  find("help-version").textContent = `liif-core ${session.version}, enlarged up to ${session.zoom} times`;
  saveDialog = new SaveDialog(session);
  times = new readout.RenderTimes(models().map(({ id }) => id));
  if (session.folder) fillGallery();
  connectControls();
  window.addEventListener("hashchange", route);
  find("loading").remove();
  await route();
}

const models = () => session.layers.filter(({ kind }) => kind === "model");

// The list and the address

function fillGallery() {
  const { images } = session;
  find("gallery-title").textContent = session.title;
  find("gallery-count").textContent = images.length === 1 ? "1 image" : `${images.length} images`;
  find("gallery-list").replaceChildren(...images.map(galleryEntry));
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function galleryEntry({ id, name, problem }) {
  const frame = element("span", { className: "frame" });
  const caption = element("span", { className: "caption", textContent: name });
  const showProblem = (text) => frame.replaceChildren(element("span", { className: "problem", textContent: text }));
  if (problem) {
    showProblem(problem);
    return element("li", {}, element("div", { className: "unreadable" }, frame, caption));
  }
  const picture = element("img", { alt: "", loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => showProblem("No thumbnail could be made."));
  picture.dataset.address = api.thumbnail(id);
  frame.append(picture);
  return element("li", {}, element("a", { href: addressOf(id) }, frame, caption));
}

/** Starts thumbnails; or ends those in progress, so that they do not delay the image that is opened. */
function loadThumbnails(wanted) {
  for (const picture of find("gallery-list").querySelectorAll("img")) {
    if (wanted && !picture.hasAttribute("src")) picture.src = picture.dataset.address;
    else if (!wanted && !picture.complete) picture.removeAttribute("src");
  }
}

const addressOf = (id) => `#image=${encodeURIComponent(id)}`;

/** Shows what the address says: an image, or the list. */
async function route() {
  const chosen = new URLSearchParams(location.hash.slice(1)).get("image");
  const known = session.images.find(({ id }) => id === chosen);
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  readout.clearMessages();
  if (known) return openImage(known.id);
  if (chosen) readout.showMessage(`There is no image named ${chosen} here.`);
  if (!session.folder && session.images.length) return openImage(session.images[0].id);
  const last = image?.id;
  closeImage();
  document.title = `${session.title} - liif view`;
  find("viewer").hidden = true;
  find("gallery").hidden = false;
  loadThumbnails(true);
  if (last) document.querySelector(`a[href="${addressOf(last)}"]`)?.focus();
}

// One image

async function openImage(id) {
  closeImage();
  loadThumbnails(false);
  opening = new AbortController();
  const { signal } = opening;
  document.title = `${id} - liif view`;
  find("image-name").textContent = id;
  find("image-name").title = id;
  find("image-size").textContent = "";
  find("back").hidden = !session.folder;
  find("gallery").hidden = true;
  find("viewer").hidden = false;
  const asked = [api.image(id, signal), api.info(previewOf(session.layers), id)]; // before the viewer is made
  layers ??= new Layers(find("picture"), find("checkerboard"), session.layers, {
    onChange: viewChanged,
    onFailure: tileFailed,
  });
  layers.describe(`Image ${id}`);
  try {
    const [opened, info] = await Promise.all(asked);
    if (signal.aborted) return;
    image = opened;
    find("image-size").textContent = `${opened.width} x ${opened.height} pixels`;
    fillChoices();
    for (const note of opened.notes) readout.showNote(note);
    const shown = layers.open(opened, info);
    follow(signal);
    await shown;
    if (signal.aborted) return;
    viewChanged();
    await layers.previewDrawn(PATIENCE); // it comes first, as models keep the processor busy
    if (signal.aborted) return;
    await addLayers();
  } catch (error) {
    if (!signal.aborted) report(error);
  }
}

function closeImage() {
  opening?.abort();
  image = null;
  layers?.close();
  readout.clear();
  times.reset();
}

function report(error) {
  if (!(error instanceof api.Unreachable)) readout.showMessage(error.message);
}

/** Asks how far the encoding is, until it has ended. */
async function follow(signal) {
  try {
    for (;;) {
      showState();
      if (!Object.values(image.layers).some(readout.isEncoding)) return;
      await api.pause(api.POLL);
      if (signal.aborted) return;
      const current = await api.image(image.id, signal);
      if (signal.aborted) return;
      image.layers = current.layers;
    }
  } catch (error) {
    if (!signal.aborted) report(error);
  }
}

const several = () => Object.keys(image.layers).length > 1;

function showState() {
  readout.showEncoding(image.layers);
  for (const layer of Object.values(image.layers)) {
    const name = several() ? `${layer.name}: ` : "";
    if (layer.note) readout.showNote(name + layer.note);
    if (layer.error) readout.showMessage(name + layer.error);
  }
}

/** Adds the layers that are chosen. While a model encodes the image, the server encodes first what is looked at. */
async function addLayers() {
  const { compare, single, left, right } = layers.shown;
  const wanted = new Set(compare ? [left, right] : [single]);
  for (const id of wanted) {
    if (image?.layers[id]?.state !== "failed" && layers.items.get(layers.preview)) await layers.add(id);
  }
}

function tileFailed(message) {
  readout.showMessage(`A part of the image could not be rendered: ${message}`);
}

function viewChanged() {
  if (image) readout.showView(layers);
}

// Layers and the comparison

const nameOf = (id) => image.layers[id]?.name || session.layers.find((layer) => layer.id === id).name;

/** Layers of the shown image, as [identifier, name]; equal names are numbered. */
function offered() {
  const ids = session.layers.map(({ id }) => id).filter((id) => image.layers[id] || !models().some((m) => m.id === id));
  const names = ids.map(nameOf);
  return ids.map((id, i) => {
    const before = names.slice(0, i).filter((name) => name === names[i]).length;
    return [id, before ? `${names[i]} (${before + 1})` : names[i]];
  });
}

function fillChoices() {
  const choices = offered();
  const ids = choices.map(([id]) => id);
  const shownModels = ids.filter((id) => image.layers[id]);
  const defaults = {
    single: shownModels[0] ?? layers.shown.single ?? ids[0],
    left: shownModels.length > 1 ? shownModels[0] : ids.find((id) => id === "bicubic") ?? ids[0],
    right: shownModels[1] ?? shownModels[0] ?? ids[0],
  };
  for (const [side, chosen] of Object.entries(defaults)) {
    const before = layers.shown[side]; // the choice for another image is kept
    const id = ids.includes(before) ? before : chosen;
    layers.shown[side] = id;
    find(side).replaceChildren(...choices.map(([value, name]) => new Option(name, value, false, value === id)));
  }
  showComparison();
}

function choose(side) {
  layers.show({ [side]: find(side).value });
  showComparison();
  addLayers().catch(report);
}

function setCompare(compare) {
  layers.show({ compare });
  showComparison();
  addLayers().catch(report);
}

function showComparison() {
  const { compare, left, right, divider } = layers.shown;
  find("compare").setAttribute("aria-pressed", compare);
  find("single-field").hidden = compare;
  for (const id of ["left-field", "right-field", "divider", "side-names"]) find(id).hidden = !compare;
  const names = Object.fromEntries(offered());
  find("left-name").textContent = names[left];
  find("right-name").textContent = names[right];
  const percent = Math.round(100 * divider);
  find("divider").style.left = `${100 * layers.dividerAt()}%`;
  find("divider").setAttribute("aria-valuenow", percent);
  const sides = `${names[left]} on the left, ${names[right]} on the right`;
  find("divider").setAttribute("aria-valuetext", `${percent}% of the width: ${sides}`);
}

function moveDivider(fraction) {
  layers.show({ divider: Math.min(1, Math.max(0, fraction)) });
  showComparison();
}

function connectDivider() {
  const divider = find("divider");
  let offset = 0; // between the pointer and the line
  const place = (event) => (event.clientX - find("stage").getBoundingClientRect().left) / find("stage").clientWidth;
  divider.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    divider.setPointerCapture(event.pointerId);
    divider.focus({ preventScroll: true });
    offset = layers.shown.divider - place(event);
    event.preventDefault();
  });
  divider.addEventListener("pointermove", (event) => {
    if (divider.hasPointerCapture(event.pointerId)) moveDivider(place(event) + offset);
  });
  divider.addEventListener("keydown", (event) => {
    const step = DIVIDER_STEPS[event.key];
    if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
    moveDivider((Math.round(100 * layers.shown.divider) + (event.shiftKey ? 10 * step : step)) / 100);
    event.preventDefault();
    event.stopPropagation();
  });
  // Scrolling over the divider zooms the image, as it does elsewhere.
  divider.addEventListener("wheel", (event) => {
    event.preventDefault();
    layers.viewer.canvas.dispatchEvent(new WheelEvent("wheel", event));
  }, { passive: false });
  new ResizeObserver(() => image && showComparison()).observe(find("stage"));
}

// Buttons and keys

function openSave() {
  const savable = offered().filter(([id]) => image.layers[id]);
  if (!savable.length || !layers.items.get(layers.preview)) return;
  const { compare, single, right } = layers.shown;
  const shown = compare ? right : single;
  const layer = image.layers[shown] ? shown : savable[0][0];
  saveDialog.open(image, layers.region(), layers.scale(), savable, layer);
}

async function toggleFullScreen() {
  try {
    if (document.fullscreenElement) await document.exitFullscreen();
    else await document.documentElement.requestFullscreen();
  } catch {
    readout.showMessage("This browser does not allow full screen here.");
  }
}

function connectControls() {
  const actions = {
    "zoom-in": () => layers.zoomBy(2),
    "zoom-out": () => layers.zoomBy(0.5),
    whole: () => layers.whole(),
    "one-to-one": () => layers.setScale(1),
    "times-four": () => layers.setScale(4),
    compare: () => setCompare(!layers.shown.compare),
    save: openSave,
    "full-screen": toggleFullScreen,
    help: () => find("help-dialog").showModal(),
  };
  for (const [id, action] of Object.entries(actions)) find(id).addEventListener("click", () => image && action());
  for (const side of ["single", "left", "right"]) find(side).addEventListener("change", () => choose(side));
  document.addEventListener("fullscreenchange", () => {
    find("full-screen").setAttribute("aria-pressed", Boolean(document.fullscreenElement));
  });
  find("back").addEventListener("click", (event) => {
    event.preventDefault();
    location.hash = "";
  });
  connectDivider();
  connectPointer();

  const keys = {
    "+": actions["zoom-in"], "=": actions["zoom-in"], "-": actions["zoom-out"], _: actions["zoom-out"],
    0: actions.whole, 1: actions["one-to-one"],
    c: actions.compare, s: actions.save, "?": actions.help,
    ArrowLeft: () => layers.pan(-STEP, 0), ArrowRight: () => layers.pan(STEP, 0),
    ArrowUp: () => layers.pan(0, -STEP), ArrowDown: () => layers.pan(0, STEP),
    Escape: () => layers.shown.compare && setCompare(false),
  };
  document.addEventListener("keydown", (event) => {
    if (!image || event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, select, textarea")) return;
    const action = keys[event.key] ?? keys[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

function connectPointer() {
  const stage = find("stage");
  const show = (event) => image && readout.showPosition(layers.positionAt(event.clientX, event.clientY));
  stage.addEventListener("pointermove", show);
  stage.addEventListener("pointerdown", show);
  stage.addEventListener("pointerleave", () => readout.showPosition(null));
}

start();
