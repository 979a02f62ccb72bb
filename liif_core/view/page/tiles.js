// Loading of tiles. OpenSeadragon does not end requests that it has started, and asks for coarser tiles on the way to
// the wanted ones. A tile of the model costs the server real work, so here requests wait in a lane, start only for
// tiles of the scale that is looked at, and are ended when their tile is out of sight.

import * as api from "./api.js";

const { OpenSeadragon } = window;
const CLIENT = Math.random().toString(36).slice(2); // tells this page's requests from those of others

/** What a failed tile says; an answer that is no plain text comes from a proxy. */
async function failure(response) {
  const text = (await response.text()).trim();
  const plain = response.headers.get("Content-Type")?.startsWith("text/plain");
  return plain && text ? new api.ApiError(text) : new Error(`status ${response.status}`);
}

/** Requests that are started a few at a time, so that a connection of the browser stays free for other requests. */
export class Lane {
  constructor(limit) {
    this.limit = limit;
    this.jobs = new Map(); // and the AbortController of each that has started
    this.planned = false;
  }

  add(job) {
    this.jobs.set(job, null);
    this.plan();
  }

  remove(job) {
    if (this.jobs.delete(job)) this.plan();
  }

  /** Ends what is not needed and starts what is, shortly. */
  plan() {
    if (this.planned) return;
    this.planned = true;
    queueMicrotask(() => {
      this.planned = false;
      this.update();
    });
  }

  update() {
    for (const [job, controller] of [...this.jobs]) {
      if (!job.source.needs(job.tile, controller !== null)) this.cancel(job);
    }
    if (api.hasStopped()) return;
    const started = [...this.jobs.values()].filter((controller) => controller !== null).length;
    const startable = [...this.jobs]
      .filter(([job, controller]) => controller === null && job.source.startsNow(job.tile))
      .map(([job]) => job)
      .sort((a, b) => a.tile.level - b.tile.level || a.tile.squaredDistance - b.tile.squaredDistance);
    for (const job of startable.slice(0, Math.max(0, this.limit - started))) this.start(job);
  }

  async start(job) {
    const controller = new AbortController();
    this.jobs.set(job, controller);
    try {
      const headers = { "X-Liif-Client": CLIENT };
      const response = await fetch(job.src, { signal: controller.signal, headers });
      if (!response.ok) throw await failure(response);
      const blob = await response.blob();
      job.finish(blob, null, "rasterBlob");
    } catch (error) {
      if (controller.signal.aborted) return; // its job has ended already
      job.fail(error.message, null);
      if (error instanceof api.ApiError) job.source.onFailure(error.message);
      else api.checkServer();
    } finally {
      this.remove(job);
    }
  }

  cancel(job) {
    const controller = this.jobs.get(job);
    this.jobs.delete(job);
    controller?.abort();
    job.fail("no longer needed", null);
    job.tile.exists = true; // OpenSeadragon takes a failed tile for one that does not exist
  }

  cancelAll(source) {
    for (const job of [...this.jobs.keys()]) if (job.source === source) this.cancel(job);
    this.plan();
  }
}

/** The tiles of one layer, described by an `info.json` of the IIIF Image API 3. */
export class LayerSource extends OpenSeadragon.IIIFTileSource {
  /** With `exact`, only tiles of the scale that is looked at are requested. */
  constructor(info, address, { lane, exact, onFailure }) {
    // The page's own address of the service: the server cannot know the prefix of a proxy.
    const options = { ...info, id: address, tileFormat: "png" };
    super(OpenSeadragon.IIIFTileSource.prototype.configure(options, address));
    this.lane = lane;
    this.exact = exact;
    this.onFailure = onFailure;
  }

  hasTransparency() {
    return false; // see `transparent` in layers.js
  }

  downloadTileStart(job) {
    this.lane.add(job);
  }

  downloadTileAbort(job) {
    this.lane.jobs.get(job)?.abort();
    this.lane.remove(job);
  }

  /** The level whose tiles are drawn when the current movement has ended. */
  targetLevel(tiledImage) {
    const { viewport } = tiledImage.viewer;
    for (let level = this.maxLevel; level > this.minLevel; level--) {
      const ratio = viewport.deltaPixelsFromPointsNoRotate(this.getPixelRatio(level), false).x;
      if (ratio >= tiledImage.minPixelRatio) return level;
    }
    return this.minLevel;
  }

  needs(tile, started) {
    const { tiledImage } = tile;
    if (tiledImage.getOpacity() === 0) return false;
    const target = this.targetLevel(tiledImage);
    if (tile.level > target || (started && this.exact && tile.level !== target)) return false;
    const bounds = tiledImage.getTileBounds(tile.level, tile.x, tile.y);
    return [tiledImage.getDrawArea(), tiledImage.getLoadArea()].some((area) => area && area.intersection(bounds));
  }

  startsNow(tile) {
    return !this.exact || tile.level === this.targetLevel(tile.tiledImage);
  }
}
