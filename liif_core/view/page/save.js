// The dialog "Save region".

import * as api from "./api.js";

const find = (id) => document.getElementById(id);
const EDGES = ["top", "left", "bottom", "right"];
const shorten = (value) => Number(value.toFixed(2));

export class SaveDialog {
  constructor(session) {
    this.limit = session.save.max_side;
    this.dialog = find("save-dialog");
    this.edges = EDGES.map((edge) => find(`save-${edge}`));
    this.width = find("save-width");
    this.height = find("save-height");
    this.scale = 1; // pixels of the saved image per pixel of the file
    this.running = null; // the identifier of a save in progress
    const formats = session.save.formats.map((format) => new Option(format.toUpperCase(), format));
    find("save-format").replaceChildren(...formats);

    for (const edge of this.edges) edge.addEventListener("input", () => this.setSize(this.scale));
    this.width.addEventListener("input", () => this.followSide(this.width, 0));
    this.height.addEventListener("input", () => this.followSide(this.height, 1));
    find("save-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.start();
    });
    find("save-cancel").addEventListener("click", () => (this.running ? this.cancel() : this.dialog.close()));
    this.dialog.addEventListener("cancel", (event) => {
      if (this.running) event.preventDefault(); // Esc closes the dialog only when nothing is in progress
    });
  }

  /** Opens with a region [top, left, bottom, right] of the file; `layers` are [identifier, name] of those on offer. */
  open(image, region, scale, layers, layer) {
    if (this.dialog.open) return;
    if (this.running) return this.dialog.showModal(); // it was closed during a save
    this.image = image;
    this.edges.forEach((edge, i) => (edge.value = shorten(region[i])));
    find("save-file-size").textContent = `${image.width} x ${image.height}`;
    find("save-layer").replaceChildren(...layers.map(([id, name]) => new Option(name, id, false, id === layer)));
    this.setSize(scale);
    this.showState("editing");
    this.dialog.showModal();
  }

  /** Width and height of the region in pixels of the file. */
  extent() {
    const [top, left, bottom, right] = this.edges.map((edge) => edge.valueAsNumber);
    return [right - left, bottom - top];
  }

  setSize(scale) {
    const [width, height] = this.extent();
    this.scale = scale;
    if (width > 0) this.width.value = Math.max(1, Math.round(width * scale));
    if (height > 0) this.height.value = Math.max(1, Math.round(height * scale));
    this.describe();
  }

  /** Keeps the shape of the region when one side of the saved image is edited. */
  followSide(input, axis) {
    const extent = this.extent();
    if (input.valueAsNumber > 0 && extent[0] > 0 && extent[1] > 0) {
      this.scale = input.valueAsNumber / extent[axis];
      const other = axis === 0 ? this.height : this.width;
      other.value = Math.max(1, Math.round(extent[1 - axis] * this.scale));
    }
    this.describe();
  }

  describe() {
    find("save-scale").textContent = `x${this.scale.toPrecision(3).replace(/\.?0+$/, "")} of the file`;
  }

  /** What is wrong with the numbers, or null. */
  problem() {
    const values = this.edges.map((edge) => edge.valueAsNumber);
    const { width, height } = this.image;
    if (values.some(Number.isNaN)) return "Every edge of the region needs a number.";
    const [top, left, bottom, right] = values;
    if (!(left < right && top < bottom)) {
      return "The region is empty: left must be less than right, and top less than bottom.";
    }
    if (left < 0 || top < 0 || right > width || bottom > height) {
      return `The region must lie within the file: 0 to ${width} across and 0 to ${height} down.`;
    }
    for (const side of [this.width.valueAsNumber, this.height.valueAsNumber]) {
      if (!Number.isInteger(side) || side < 1) return "Width and height must be whole numbers of at least 1.";
      if (side > this.limit) return `Width and height can be at most ${this.limit}.`;
    }
    return null;
  }

  async start() {
    const problem = this.problem();
    if (problem) return this.showError(problem);
    this.showState("running");
    try {
      const { id } = await api.startSave({
        image: this.image.id,
        layer: find("save-layer").value,
        region: this.edges.map((edge) => edge.valueAsNumber),
        width: this.width.valueAsNumber,
        height: this.height.valueAsNumber,
        format: find("save-format").value,
      });
      this.running = id;
      await this.follow(id);
    } catch (error) {
      this.running = null;
      this.showState("editing");
      this.showError(error instanceof api.Unreachable ? "The server has stopped." : error.message);
    }
  }

  /** Asks for the progress until the save has ended, then downloads the file. */
  async follow(id) {
    for (;;) {
      const save = await api.request(api.save(id));
      find("save-bar").value = save.done;
      find("save-state").textContent =
        save.state === "waiting" ? "Waiting" : `Rendering ${Math.round(100 * save.done)}%`;
      if (save.state === "done") {
        this.running = null;
        this.showResult(save);
        return download(`${api.save(id)}/file`);
      }
      if (save.state === "failed") throw new Error(save.error);
      if (save.state === "cancelled") {
        this.running = null;
        return this.showState("editing");
      }
      await api.pause(api.POLL / 2);
    }
  }

  async cancel() {
    try {
      await api.request(api.save(this.running), { method: "DELETE" });
    } catch (error) {
      this.showError(error.message);
    }
  }

  showState(state) {
    const running = state === "running";
    find("save-fields").disabled = running;
    find("save-start").hidden = state === "done";
    find("save-start").disabled = running;
    find("save-cancel").textContent = running ? "Cancel" : "Close";
    find("save-progress").hidden = !running;
    find("save-error").hidden = true;
    find("save-result").hidden = state !== "done";
    if (running) {
      find("save-bar").value = 0;
      find("save-state").textContent = "Starting";
    }
  }

  showError(message) {
    find("save-error").textContent = message;
    find("save-error").hidden = false;
  }

  showResult(save) {
    this.showState("done");
    const lines = [`${save.name} is ready and is being downloaded.`, ...(save.notes || [])];
    find("save-result").replaceChildren(
      ...lines.map((line) => Object.assign(document.createElement("p"), { textContent: line })),
    );
    find("save-cancel").focus();
  }
}

function download(address) {
  const link = Object.assign(document.createElement("a"), { href: address, download: "" });
  document.body.append(link);
  link.click();
  link.remove();
}
