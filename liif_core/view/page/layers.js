// The layers of the shown image, stacked in OpenSeadragon: the preview (bicubic) below, and the chosen ones above it.

import * as api from "./api.js";
import { Lane, LayerSource } from "./tiles.js";

const { OpenSeadragon } = window;
const ignore = () => {};
// The page reports failed tiles itself, and ended requests are no failures.
OpenSeadragon.console = { log: ignore, debug: ignore, info: ignore, warn: console.warn, error: ignore, assert: ignore };

const reducedMotion = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
const SECONDS = reducedMotion ? 0 : 0.4; // of an animation
const MAGNIFIED = 4; // screen pixels: how large a pixel of the full size can become
// Screen pixels: how small the pixels of a tile can become before tiles of half the scale are shown. A little more than
// a half, so that these are shown where their pixels are exactly those of the screen.
const SMALLEST = 0.505;

/** Screen pixels per CSS pixel. */
const density = () => OpenSeadragon.pixelDensityRatio;

function newViewer(element) {
  const viewer = new OpenSeadragon.Viewer({
    element,
    drawer: "canvas",
    prefixUrl: "",
    showNavigationControl: false,
    keyboardNavEnabled: false,
    animationTime: SECONDS,
    blendTime: 0,
    maxZoomPixelRatio: MAGNIFIED,
    minPixelRatio: SMALLEST / density(),
    smoothTileEdgesMinZoom: Infinity,
    subPixelRoundingForTransparency: OpenSeadragon.SUBPIXEL_ROUNDING_OCCURRENCES.ONLY_AT_REST,
    visibilityRatio: 0.4,
    preserveImageSizeOnResize: true,
    zoomPerScroll: 1.25,
    zoomPerClick: 2,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    gestureSettingsPen: { clickToZoom: false, dblClickToZoom: true },
    maxTilesPerFrame: 16,
    maxImageCacheCount: 400,
    imageLoaderLimit: 0, // the lanes limit it
    timeout: 3600e3, // milliseconds
  });
  // Tiles share edges that lie between screen pixels (see `alignToScreen`), so they need not overlap.
  viewer.drawer.minimumOverlapRequired = () => false;
  return viewer;
}

/** Places tiles on whole screen pixels: at the scale of their level they are then copied, and not resampled. */
function alignToScreen(tiledImage) {
  const place = tiledImage._positionTile;
  const round = (value) => Math.round(value * density()) / density();
  tiledImage._positionTile = function (tile, ...rest) {
    place.call(this, tile, ...rest);
    const { position, size } = tile;
    const [left, top] = [round(position.x), round(position.y)];
    tile.size = new OpenSeadragon.Point(round(position.x + size.x) - left, round(position.y + size.y) - top);
    tile.position = new OpenSeadragon.Point(left, top);
  };
}

/** The identifier of the layer that is shown before others are ready. */
export function previewOf(layers) {
  return (layers.find(({ id }) => id === "bicubic") || layers.find(({ kind }) => kind !== "model")).id;
}

export class Layers {
  /**
   * `layers` are all that the session offers. `onChange` is called when the view has moved, `onFailure` with the
   * message of a tile that failed.
   */
  constructor(element, checkerboard, layers, { onChange, onFailure }) {
    this.layers = layers;
    this.preview = previewOf(layers);
    this.checkerboard = checkerboard;
    this.onFailure = onFailure;
    this.lanes = { model: new Lane(3), interpolation: new Lane(2) };
    this.viewer = newViewer(element);
    this.items = new Map(); // identifiers of layers, and their tiled images or promises of these
    this.shown = { compare: false, single: null, left: null, right: null, divider: 0.5 };
    this.image = null;

    const moved = () => {
      this.arrange();
      onChange();
    };
    this.viewer.addHandler("viewport-change", moved);
    this.viewer.addHandler("update-viewport", () => this.planLanes());
    this.viewer.addHandler("animation-finish", () => this.planLanes());
    this.viewer.addHandler("after-resize", () => {
      this.limitZoom();
      moved();
    });
    this.viewer.addHandler("tile-loaded", ({ tile }) => {
      // Tiles with transparency replace what lies below them; others are drawn over it.
      if (this.image?.alpha) tile.hasTransparency = true;
    });
    this.viewer.addHandler("tile-drawing", ({ tiledImage, tile, context }) => {
      const { source } = tiledImage;
      const zoom = this.image.full_width / this.image.width;
      const reduced = source.getLevelScale(tile.level) * zoom < 1; // such a tile is antialiased
      if (source.nearest && !reduced) context.imageSmoothingEnabled = false;
    });
  }

  /** Sets what screen readers say of the picture. */
  describe(text) {
    this.viewer.canvas.setAttribute("role", "img");
    this.viewer.canvas.setAttribute("aria-label", text);
  }

  planLanes() {
    for (const lane of Object.values(this.lanes)) lane.plan();
  }

  /** Shows an image: at first only its preview, of which `info` is the `info.json`. */
  async open(image, info) {
    this.close();
    this.image = image;
    const source = this.source(this.preview, info);
    await new Promise((resolve) => {
      this.viewer.addOnceHandler("open", resolve);
      this.viewer.open({ tileSource: source, width: 1 });
    });
    if (this.image !== image) return;
    const item = this.viewer.world.getItemAt(0);
    alignToScreen(item);
    this.items.set(this.preview, item);
    this.limitZoom();
    this.whole(true);
    this.arrange();
  }

  /** Resolves when the visible part of the preview is drawn, or after `limit` milliseconds. */
  async previewDrawn(limit) {
    const end = performance.now() + limit;
    while (performance.now() < end && !this.items.get(this.preview)?.getFullyLoaded()) await api.pause(20);
  }

  close() {
    if (!this.image) return;
    this.image = null;
    for (let i = 0; i < this.viewer.world.getItemCount(); i++) {
      const { source } = this.viewer.world.getItemAt(i);
      source.lane.cancelAll(source);
    }
    this.items.clear();
    this.viewer.close();
    this.checkerboard.hidden = true;
  }

  source(id, info) {
    const { kind } = this.layers.find((layer) => layer.id === id);
    const address = api.service(id, this.image.id);
    const lane = this.lanes[kind] || this.lanes.interpolation;
    const source = new LayerSource(info, address, { lane, exact: id !== this.preview, onFailure: this.onFailure });
    source.nearest = id === "nearest";
    return source;
  }

  /** Adds a layer on top of the preview, hidden. It is shown as `show` says. */
  async add(id) {
    if (this.items.has(id) || !this.image) return;
    const { image } = this;
    this.items.set(id, null);
    let info;
    try {
      info = await api.info(id, image.id);
    } catch (error) {
      if (this.image === image) this.items.delete(id);
      throw error;
    }
    if (this.image !== image) return;
    this.viewer.addTiledImage({
      tileSource: this.source(id, info),
      width: 1,
      opacity: 0,
      success: ({ item }) => {
        if (this.image !== image) return;
        alignToScreen(item);
        this.items.set(id, item);
        this.arrange();
      },
    });
  }

  /** Changes what is shown: `single` over the full width, or with `compare` `left` and `right` of `divider`. */
  show(changes) {
    Object.assign(this.shown, changes);
    this.arrange();
  }

  /** Where the divider is, as a fraction of the width, on a whole screen pixel. */
  dividerAt() {
    const pixels = this.viewer.container.clientWidth * density();
    return pixels ? Math.round(this.shown.divider * pixels) / pixels : 0;
  }

  /** Clips every layer to the part of the screen that belongs to it; a layer without one is not drawn or loaded. */
  arrange() {
    if (!this.image || this.viewer.world.getItemCount() === 0) return;
    const { compare, single, left, right } = this.shown;
    const { full_width: width, full_height: height } = this.image;
    const bounds = this.viewer.viewport.getBounds(true);
    const divider = this.dividerAt();
    const middle = Math.min(width, Math.max(0, (bounds.x + divider * bounds.width) * width));
    for (const [id, item] of this.items) {
      if (!item || id === this.preview) continue;
      const onLeft = compare ? id === left && divider > 0 : id === single;
      const onRight = compare ? id === right && divider < 1 : id === single;
      const [from, to] = [onLeft ? 0 : middle, onRight ? width : middle];
      const opacity = (onLeft || onRight) && to > from ? 1 : 0;
      const clip = opacity && to - from < width ? new OpenSeadragon.Rect(from, 0, to - from, height) : null;
      const old = item.getClip();
      if (clip ? !old?.equals(clip) : old) item.setClip(clip);
      if (item.getOpacity() !== opacity) {
        item.setOpacity(opacity);
        if (!opacity) item.source.lane.cancelAll(item.source);
      }
    }
    this.placeCheckerboard(bounds);
  }

  placeCheckerboard(bounds) {
    this.checkerboard.hidden = !this.image.alpha;
    if (!this.image.alpha) return;
    const { clientWidth } = this.viewer.container;
    const unit = clientWidth / bounds.width; // CSS pixels of the picture's width
    Object.assign(this.checkerboard.style, {
      left: `${-bounds.x * unit}px`,
      top: `${-bounds.y * unit}px`,
      width: `${unit}px`,
      height: `${(unit * this.image.full_height) / this.image.full_width}px`,
    });
  }

  /** Lets the view become as small as one file pixel per screen pixel, or the whole picture, whichever is smaller. */
  limitZoom() {
    if (!this.image) return;
    const { viewport } = this.viewer;
    viewport.minZoomLevel = 0.8 * Math.min(this.zoomOfScale(1), this.wholeZoom());
    viewport.maxZoomLevel = Math.max(
      this.zoomOfScale((this.image.full_width / this.image.width) * MAGNIFIED),
      1.1 * this.wholeZoom(),
    );
  }

  wholeZoom() {
    const aspect = this.image.full_width / this.image.full_height;
    return Math.min(1, aspect / this.viewer.viewport.getAspectRatio());
  }

  zoomOfScale(scale) {
    return (scale * this.image.width) / (this.viewer.container.clientWidth * density());
  }

  /** Screen pixels per pixel of the file. */
  scale() {
    return (this.viewer.viewport.getZoom(true) * this.viewer.container.clientWidth * density()) / this.image.width;
  }

  setScale(scale) {
    this.viewer.viewport.zoomTo(this.zoomOfScale(scale), null, reducedMotion).applyConstraints(reducedMotion);
  }

  zoomBy(factor) {
    this.viewer.viewport.zoomBy(factor, null, reducedMotion).applyConstraints(reducedMotion);
  }

  whole(immediately = reducedMotion) {
    const height = this.image.full_height / this.image.full_width;
    this.viewer.viewport.fitBounds(new OpenSeadragon.Rect(0, 0, 1, height), immediately);
  }

  /** Moves the view by fractions of its size. */
  pan(x, y) {
    const { viewport } = this.viewer;
    const { width, height } = viewport.getBounds();
    viewport.panBy(new OpenSeadragon.Point(x * width, y * height), reducedMotion).applyConstraints(reducedMotion);
  }

  /** The file's coordinates under a place of the page, as [x, y]; null outside the image. */
  positionAt(clientX, clientY) {
    if (!this.items.get(this.preview)) return null;
    const frame = this.viewer.container.getBoundingClientRect();
    const bounds = this.viewer.viewport.getBounds(true);
    const unit = this.image.width / frame.width;
    const x = (bounds.x + ((clientX - frame.left) * bounds.width) / frame.width) * this.image.width;
    const y = bounds.y * this.image.width + (clientY - frame.top) * bounds.width * unit;
    return x >= 0 && y >= 0 && x <= this.image.width && y <= this.image.height ? [x, y] : null;
  }

  /** The visible region in pixels of the file, as [top, left, bottom, right]. */
  region() {
    const { width, height } = this.image;
    const { x, y, width: w, height: h } = this.viewer.viewport.getBounds(false);
    const within = (value, limit) => Math.min(limit, Math.max(0, value));
    return [
      within(y * width, height),
      within(x * width, width),
      within((y + h) * width, height),
      within((x + w) * width, width),
    ];
  }
}
