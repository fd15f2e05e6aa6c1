// A line chart of one metric: SVG, drawn anew when data, size or settings change; hovering or the arrow keys read
// values off, dragging zooms in, a double click out.

import { colour, extent, grid, path, scale, short, sized, textWidth, ticks, timeTick, timeTicks } from './axes.js';
import { h, keyed, replace, s, setAttribute, setText } from './dom.js';
import { at, duration, number } from './format.js';

/** Means that forget: TensorBoard's smoothing, free of the first value's weight. */
export function smoothed(values, weight) {
  if (!weight) return values;
  let last = 0;
  let counted = 0;
  return values.map((value) => {
    if (!Number.isFinite(value)) return value;
    counted += 1;
    last = last * weight + (1 - weight) * value;
    return last / (1 - weight ** counted);
  });
}

/** Index of the value nearest to `wanted` in an ascending list. */
export function nearest(list, wanted) {
  let [low, high] = [0, list.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (list[middle] < wanted) low = middle;
    else high = middle;
  }
  return Math.abs(list[low] - wanted) <= Math.abs(list[high] - wanted) ? low : high;
}

/**
 * Makes a chart; `chart.set({series, log, smoothing, axis})` draws it. A series is `{name, x, y, index}`, x ascending;
 * `index` is its colour's number. `unit` stands behind values; `zero` makes the y axis begin there.
 */
export function lineChart({ title, signal, unit = '', zero = false, top }) {
  const svg = s('svg', { class: 'chart-svg', 'aria-hidden': 'true' });
  const tip = h('div', { class: 'tip', hidden: true });
  const legend = h('div', { class: 'legend' });
  const canvas = h('div', { class: 'canvas', tabindex: '0', role: 'img', 'aria-label': title }, svg, tip);
  const element = h('div', { class: 'chart' }, canvas, legend);
  const off = new Set();
  let state = { series: [], log: false, smoothing: 0, axis: 'iter' };
  let size = [0, 0];
  let zoom = null;
  let drawn = null;

  function draw() {
    const [width, height] = size;
    if (width < 40 || height < 40) return;
    const { log, smoothing, axis } = state;
    const shown = state.series.filter(({ name }) => !off.has(name));
    const lines = shown.map((one) => ({ ...one, smooth: smoothed(one.y, smoothing) }));
    const xr = zoom ?? extent(lines.map(({ x }) => x));
    const inside = lines.map(({ x, y, smooth }) => {
      const list = smoothing ? smooth : y;
      return zoom ? list.filter((_, index) => x[index] >= xr[0] && x[index] <= xr[1]) : list;
    });
    let yr = extent(inside, log);
    if (zero && !log) yr = [Math.min(0, yr[0]), top ? Math.max(top, yr[1]) : yr[1]];
    else if (!log) {
      const room = (yr[1] - yr[0]) * 0.05;
      yr = [yr[0] - room, yr[1] + room];
    }
    const ys = ticks(yr, Math.max(2, Math.floor(height / 45)), log);
    const xText = timeTick(axis, xr);
    const box = { left: Math.max(34, textWidth(ys.map(short)) + 12), right: width - 10, top: 8, bottom: height - 22 };
    const x = scale(xr, [box.left, box.right]);
    const y = scale(yr, [box.bottom, box.top], log);
    const places = Math.max(2, Math.floor((box.right - box.left) / 85));
    const xs = axis === 'iter' ? ticks(xr, places) : timeTicks(xr, places, axis);
    const clip = `clip-${(lineChart.count = (lineChart.count ?? 0) + 1)}`;
    svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    const cross = s('g', { class: 'cross' });
    replace(svg,
      s('clipPath', { id: clip }, s('rect', { x: box.left, y: box.top - 4, width: Math.max(0, box.right - box.left), height: box.bottom - box.top + 8 })),
      grid({ box, x, y, xs, ys, xText, yText: short }),
      s('g', { 'clip-path': `url(#${clip})` },
        smoothing > 0 && lines.map((one) => s('path', { class: 'line faint', d: path(one.x, one.y, x, y, log), stroke: colour(one.index) })),
        lines.map((one) => s('path', { class: 'line', d: path(one.x, one.smooth, x, y, log), stroke: colour(one.index), 'data-series': one.name })),
        lines.filter((one) => one.x.length === 1).map((one) => s('circle', { cx: x(one.x[0]), cy: y(one.y[0]), r: 3, fill: colour(one.index) }))),
      cross);
    drawn = { x, y, box, lines, cross, xr };
    canvas.setAttribute('aria-label', `${title}: ${lines.map(({ name, y: values }) => `${name} ${number(values.at(-1))}`).join(', ')}`);
    drawLegend();
    if (!tip.hidden && drawn.at !== undefined) read(drawn.at);
  }

  function drawLegend() {
    legend.hidden = state.series.length < 2;
    keyed(legend, state.series, ({ name, index }) => `${name}\n${index}`, ({ name, index }) => {
      const key = h('span', { class: 'key' });
      key.style.background = colour(index);
      return h('button', { type: 'button', title: `Show or hide ${name}`, on: { click: () => {
        off.has(name) ? off.delete(name) : off.add(name);
        if (off.size === state.series.length) off.clear();
        draw();
      } } }, key, name);
    }, (item, { name }) => setAttribute(item, 'aria-pressed', String(!off.has(name))));
  }

  // ---- reading values off ----
  let reading;
  /** Shows all values at the place on the x axis that is nearest to `wanted`. */
  function read(wanted) {
    const { x, y, box, lines, cross } = drawn;
    const full = lines.filter((one) => one.x.length);
    if (!full.length) return;
    let place = wanted;
    let gap = Infinity;
    for (const one of full) {
      const candidate = one.x[nearest(one.x, wanted)];
      if (Math.abs(candidate - wanted) < gap) [place, gap] = [candidate, Math.abs(candidate - wanted)];
    }
    reading = place;
    const left = x(place);
    const rows = full.map((one) => {
      const index = nearest(one.x, place);
      return { name: one.name, index: one.index, x: one.x[index], raw: one.y[index], value: one.smooth[index] };
    }).filter((row) => Math.abs(x(row.x) - left) < 24).sort((a, b) => b.value - a.value);
    replace(cross,
      s('line', { x1: left, x2: left, y1: box.top, y2: box.bottom }),
      rows.filter((row) => Number.isFinite(row.value) && (!state.log || row.value > 0)).map((row) => s('circle', { cx: x(row.x), cy: y(row.value), r: 3.2, fill: colour(row.index) })));
    replace(tip, h('p', {}, placeText(place)), h('table', {}, rows.slice(0, 14).map((row) => {
      const key = h('span', { class: 'key' });
      key.style.background = colour(row.index);
      return h('tr', {}, h('td', {}, key, row.name), h('td', { class: 'number' }, number(row.value) + unit), state.smoothing > 0 && h('td', { class: 'number hint' }, number(row.raw)));
    })));
    tip.hidden = false;
    const beyond = left > (box.left + box.right) / 2;
    tip.style.left = beyond ? 'auto' : `${left + 12}px`;
    tip.style.right = beyond ? `${size[0] - left + 12}px` : 'auto';
  }
  const placeText = (place) => (state.axis === 'time' ? `after ${duration(place / 1000)}` : state.axis === 'wall' ? at(place) : `iteration ${place}`);
  const leave = () => {
    tip.hidden = true;
    if (drawn) replace(drawn.cross);
  };

  let from = null;
  const inBox = (event) => Math.min(drawn.box.right, Math.max(drawn.box.left, event.clientX - canvas.getBoundingClientRect().left));
  canvas.addEventListener('pointermove', (event) => {
    if (!drawn) return;
    if (from !== null) {
      const [a, b] = [Math.min(from, inBox(event)), Math.max(from, inBox(event))];
      replace(drawn.cross, s('rect', { class: 'band', x: a, width: b - a, y: drawn.box.top, height: drawn.box.bottom - drawn.box.top }));
      tip.hidden = true;
    } else read(drawn.x.back(inBox(event)));
  });
  canvas.addEventListener('pointerdown', (event) => {
    if (!drawn || event.button !== 0 || event.pointerType === 'touch') return;
    from = inBox(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointerup', (event) => {
    if (from === null) return;
    const to = inBox(event);
    if (Math.abs(to - from) > 8) {
      zoom = [drawn.x.back(Math.min(from, to)), drawn.x.back(Math.max(from, to))];
      draw();
    }
    from = null;
    replace(drawn.cross);
  });
  canvas.addEventListener('pointercancel', () => {
    from = null;
    leave();
  });
  canvas.addEventListener('dblclick', () => {
    zoom = null;
    draw();
  });
  canvas.addEventListener('pointerleave', leave);
  canvas.addEventListener('blur', leave);
  canvas.addEventListener('keydown', (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const longest = drawn?.lines.reduce((best, one) => (one.x.length > (best?.x.length ?? 0) ? one : best), null);
    if (!by || !longest) return;
    event.preventDefault();
    const index = reading === undefined ? (by > 0 ? 0 : longest.x.length - 1) : nearest(longest.x, reading) + by * (event.shiftKey ? 10 : 1);
    read(longest.x[Math.min(longest.x.length - 1, Math.max(0, index))]);
    setText(document.getElementById('spoken'), tip.innerText.replaceAll('\n', ' '));
  });

  sized(canvas, (width, height) => {
    size = [width, height];
    draw();
  }, signal);
  return {
    element,
    set(changes) {
      state = { ...state, ...changes };
      if (changes.axis) zoom = null;
      draw();
    },
  };
}
