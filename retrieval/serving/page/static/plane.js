// The drawing of the map: points that can be moved, zoomed, walked over and caught with a lasso.

const NEAR = 14; // px around the pointer in which a point is found
const MOST_PICTURES = 150, PICTURE = 44; // drawn in place of points while so few are in sight; px
const ZOOM = 1.25, MOST_ZOOM = 200, MARGIN = 24;

export class Plane {
  // onNear(position, x, y): the point under the pointer, -1 for none; onChoose(positions); onOpen(position);
  // addressOf(position): of a small picture.
  constructor(canvas, { onNear, onChoose, onOpen, addressOf }) {
    Object.assign(this, { canvas, onNear, onChoose, onOpen, addressOf, pictures: new Map(), x: [], y: [], zoom: 1, left: 0, top: 0, near: -1, chosen: new Set(), lasso: null, isLasso: false });
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomAt(event.offsetX, event.offsetY, event.deltaY < 0 ? ZOOM : 1 / ZOOM);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointerleave", () => this.touch(-1));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  show(x, y) {
    Object.assign(this, { x, y, view: "" });
    this.whole();
  }

  whole() {
    Object.assign(this, { zoom: 1, left: 0, top: 0 });
    this.draw();
  }

  screen(position) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    return [
      MARGIN + (this.x[position] * this.zoom - this.left) * (width - 2 * MARGIN),
      MARGIN + ((1 - this.y[position]) * this.zoom - this.top) * (height - 2 * MARGIN),
    ];
  }

  // The places of all points on the screen; computed again once the view has changed.
  places() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const view = [this.x.length, width, height, this.zoom, this.left, this.top].join();
    if (view !== this.view) {
      const across = new Float32Array(this.x.length), down = new Float32Array(this.x.length);
      for (let position = 0; position < this.x.length; position += 1) {
        across[position] = MARGIN + (this.x[position] * this.zoom - this.left) * (width - 2 * MARGIN);
        down[position] = MARGIN + ((1 - this.y[position]) * this.zoom - this.top) * (height - 2 * MARGIN);
      }
      Object.assign(this, { view, across, down });
    }
    return [this.across, this.down];
  }

  zoomAt(px, py, factor) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const x = (px - MARGIN) / (width - 2 * MARGIN), y = (py - MARGIN) / (height - 2 * MARGIN);
    const zoom = Math.min(MOST_ZOOM, Math.max(1, this.zoom * factor)), grown = zoom / this.zoom;
    Object.assign(this, { left: (this.left + x) * grown - x, top: (this.top + y) * grown - y, zoom });
    if (zoom === 1) Object.assign(this, { left: 0, top: 0 });
    this.draw();
  }

  centre(position) {
    this.zoom = Math.max(this.zoom, 6);
    this.left = this.x[position] * this.zoom - 0.5;
    this.top = (1 - this.y[position]) * this.zoom - 0.5;
    this.touch(position);
    this.draw();
  }

  at(px, py) {
    const [across, down] = this.places();
    let best = -1, least = NEAR * NEAR;
    for (let position = 0; position < across.length; position += 1) {
      const far = (across[position] - px) ** 2 + (down[position] - py) ** 2;
      if (far < least) [best, least] = [position, far];
    }
    return best;
  }

  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pressed = { x: event.offsetX, y: event.offsetY, left: this.left, top: this.top, moved: false };
    if (this.isLasso || event.shiftKey) this.lasso = [[event.offsetX, event.offsetY]];
  }

  point(event) {
    if (this.lasso) {
      this.lasso.push([event.offsetX, event.offsetY]);
      this.schedule();
    } else if (this.pressed) {
      const { x, y, left, top } = this.pressed, dx = event.offsetX - x, dy = event.offsetY - y;
      if (Math.hypot(dx, dy) > 4) this.pressed.moved = true;
      if (!this.pressed.moved) return;
      this.left = left - dx / (this.canvas.clientWidth - 2 * MARGIN);
      this.top = top - dy / (this.canvas.clientHeight - 2 * MARGIN);
      this.schedule();
    } else {
      this.touch(this.at(event.offsetX, event.offsetY));
    }
  }

  release(event) {
    const { lasso, pressed } = this;
    Object.assign(this, { lasso: null, pressed: null });
    if (lasso) this.choose(lasso.length > 2 ? this.inside(lasso) : []);
    else if (pressed && !pressed.moved) {
      const position = this.at(event.offsetX, event.offsetY);
      if (position >= 0) this.choose([position]);
    }
    this.draw();
  }

  choose(positions) {
    this.chosen = new Set(positions);
    this.onChoose(positions);
    this.draw();
  }

  inside(loop) {
    const [across, down] = this.places(), found = [];
    for (let position = 0; position < across.length; position += 1) {
      const x = across[position], y = down[position];
      let isIn = false;
      for (let i = 0, j = loop.length - 1; i < loop.length; j = i, i += 1) {
        const [[ax, ay], [bx, by]] = [loop[i], loop[j]];
        if ((ay > y) !== (by > y) && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) isIn = !isIn;
      }
      if (isIn) found.push(position);
    }
    return found;
  }

  touch(position) {
    if (position === this.near) return;
    this.near = position;
    this.onNear(position, ...(position < 0 ? [0, 0] : this.screen(position)));
    this.schedule();
  }

  key(event) {
    const direction = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (direction) this.walk(direction);
    else if (event.key === "+" || event.key === "-") {
      const [x, y] = this.near < 0 ? [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2] : this.screen(this.near);
      this.zoomAt(x, y, event.key === "+" ? ZOOM : 1 / ZOOM);
    } else if (event.key === "Enter" && this.near >= 0) this.onOpen(this.near);
    else if (event.key === " " && this.near >= 0) this.choose([...new Set([...this.chosen, this.near])]);
    else return;
    event.preventDefault();
  }

  // Go to the nearest point in a direction, mostly straight on.
  walk([dx, dy]) {
    if (!this.x.length) return;
    const [x, y] = this.near < 0 ? [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2] : this.screen(this.near);
    const [px, py] = this.places();
    let best = -1, least = Infinity;
    for (let position = 0; position < px.length; position += 1) {
      const right = px[position] - x, below = py[position] - y;
      const along = right * dx + below * dy, aside = Math.abs(right * dy) + Math.abs(below * dx);
      if (position !== this.near && along > 0 && along >= aside && along + aside < least) [best, least] = [position, along + aside];
    }
    if (best >= 0) this.touch(best);
  }

  // Draw a small picture, with a border if it is chosen; false: it is not there yet.
  drawPicture(pencil, position, x, y, isChosen) {
    let image = this.pictures.get(position);
    if (!image) {
      image = new Image();
      image.addEventListener("load", () => this.schedule());
      image.src = this.addressOf(position);
      this.pictures.set(position, image);
    }
    if (!image.complete || !image.naturalWidth) return false;
    const scale = PICTURE / Math.max(image.naturalWidth, image.naturalHeight);
    const width = image.naturalWidth * scale, height = image.naturalHeight * scale;
    if (isChosen) pencil.fillRect(x - width / 2 - 3, y - height / 2 - 3, width + 6, height + 6);
    pencil.drawImage(image, x - width / 2, y - height / 2, width, height);
    return true;
  }

  // Much may change at once: draw it in one go.
  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.draw();
    });
  }

  draw() {
    const { canvas } = this, ratio = devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
    const width = canvas.clientWidth, height = canvas.clientHeight;
    Object.assign(canvas, { width: width * ratio, height: height * ratio });
    const pencil = canvas.getContext("2d");
    pencil.scale(ratio, ratio);
    const side = this.x.length > 20000 ? 2 : this.x.length > 2000 ? 3 : 6;
    const [across, down] = this.places(), plain = [], chosen = [];
    for (let position = 0; position < across.length; position += 1) {
      const x = across[position], y = down[position];
      if (x > -side && y > -side && x < width + side && y < height + side) (this.chosen.has(position) ? chosen : plain).push(position);
    }
    const colours = { plain: style.getPropertyValue("--soft"), chosen: style.getPropertyValue("--accent") };
    const count = plain.length + chosen.length;
    for (const [positions, colour] of [[plain, colours.plain], [chosen, colours.chosen]]) { // chosen points lie on top
      pencil.fillStyle = colour;
      for (const position of positions) {
        const x = across[position], y = down[position];
        if (count > MOST_PICTURES || !this.drawPicture(pencil, position, x, y, positions === chosen)) pencil.fillRect(x - side / 2, y - side / 2, side, side);
      }
    }
    pencil.strokeStyle = colours.chosen;
    pencil.lineWidth = 2;
    if (this.near >= 0) {
      const [x, y] = this.screen(this.near);
      const side = count > MOST_PICTURES ? 12 : PICTURE + 4;
      pencil.strokeRect(x - side / 2, y - side / 2, side, side);
    }
    if (this.lasso) {
      pencil.beginPath();
      for (const [x, y] of this.lasso) pencil.lineTo(x, y);
      pencil.stroke();
    }
  }
}
