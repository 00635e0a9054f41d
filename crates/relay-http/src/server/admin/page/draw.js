// Elements of the page, and small charts. All data become text or numbers of attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

const CHART_WIDTH = 600;
const CHART_HEIGHT = 40;

// The longest and the shortest time that charts show.
const SHOWN_SECONDS_MAX = 600;
const SHOWN_SECONDS_MIN = 60;

// A figure that says that nothing happens.
const ZERO = /^(0|–)( |\/|$)/;

// A longer pause between two points is a gap.
const GAP_SECONDS = 4;

export function element(name, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

// Changes a text only if it differs, so that a screen reader says only what is new.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function mark(node, attribute, value) {
  if (node.getAttribute(attribute) !== value) node.setAttribute(attribute, value);
}

// The time that charts show at `now`, in seconds since the page was opened.
export function shownSeconds(now) {
  return Math.min(Math.max(now, SHOWN_SECONDS_MIN), SHOWN_SECONDS_MAX);
}

// The last minutes of one figure.
export class Chart {
  #points = [];
  #line = document.createElementNS(SVG, "path");
  #area = document.createElementNS(SVG, "path");
  #title;
  #unit;

  constructor(title, unit) {
    this.#title = title;
    this.#unit = unit;
    this.node = document.createElementNS(SVG, "svg");
    this.node.setAttribute("viewBox", `0 0 ${CHART_WIDTH} ${CHART_HEIGHT}`);
    this.node.setAttribute("preserveAspectRatio", "none");
    this.node.setAttribute("role", "img");
    this.node.setAttribute("class", "chart");
    this.#line.setAttribute("class", "line");
    this.#area.setAttribute("class", "area");
    this.node.append(this.#area, this.#line);
    this.#describe();
  }

  // The largest value that is shown.
  get highest() {
    return this.#points.reduce((most, [, value]) => Math.max(most, value), 0);
  }

  add(now, value) {
    if (value !== undefined && Number.isFinite(value)) this.#points.push([now, value]);
    while (this.#points.length > 0 && this.#points[0][0] < now - SHOWN_SECONDS_MAX) this.#points.shift();
    this.#draw(now);
  }

  #draw(now) {
    const highest = this.highest || 1;
    const scale = CHART_WIDTH / shownSeconds(now);
    const place = ([at, value]) => {
      const [x, y] = [CHART_WIDTH - (now - at) * scale, CHART_HEIGHT - 1 - (value / highest) * (CHART_HEIGHT - 3)];
      return [x.toFixed(1), y.toFixed(1)];
    };
    let [line, area] = ["", ""];
    for (const piece of this.#pieces()) {
      const places = piece.map(place);
      const path = places.map((xy) => xy.join(" ")).join("L");
      line += `M${path}${places.length === 1 ? "h1" : ""}`;
      area += `M${places[0][0]} ${CHART_HEIGHT}L${path}L${places.at(-1)[0]} ${CHART_HEIGHT}Z`;
    }
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", area);
    this.#describe();
  }

  // The points between gaps.
  #pieces() {
    const pieces = [];
    let last = -Infinity;
    for (const point of this.#points) {
      if (point[0] - last > GAP_SECONDS) pieces.push([]);
      pieces.at(-1).push(point);
      last = point[0];
    }
    return pieces;
  }

  #describe() {
    const text = `${this.#title}: a chart of the last minutes, at most ${this.#unit(this.highest)}`;
    mark(this.node, "aria-label", text);
  }
}

// A table whose rows come and go. Each row has a key; its first cell is its heading.
export class Rows {
  #rows = new Map();

  constructor(body) {
    this.body = body;
  }

  // Shows these rows: a key, texts of cells, and perhaps a class.
  show(rows) {
    const keys = new Set(rows.map(({ key }) => key));
    for (const [key, row] of this.#rows) {
      if (keys.has(key)) continue;
      row.remove();
      this.#rows.delete(key);
    }
    rows.forEach(({ key, cells, state = "", extra }, index) => {
      let row = this.#rows.get(key);
      if (!row) {
        row = element("tr", {}, element("th", { scope: "row" }), ...cells.slice(1).map(() => element("td")));
        if (extra) row.append(element("td", { class: "wide" }, extra()));
        this.#rows.set(key, row);
      }
      if (this.body.children[index] !== row) this.body.insertBefore(row, this.body.children[index] ?? null);
      mark(row, "data-state", state);
      cells.forEach((text, cell) => {
        say(row.children[cell], text);
        mark(row.children[cell], "data-zero", ZERO.test(text));
      });
    });
  }
}
