// Drawing a Plotly figure with our own means: lines and points, bars, boxes, heat maps, tables, pictures. What is not
// drawn is said, and can be read as numbers or JSON.

import { colour, extent, grid, path, scale, short, sized, textWidth, ticks } from './axes.js';
import { h, replace, s, safeUrl } from './dom.js';
import { number } from './format.js';
import { axisOf, binned, kindOf, list, quartiles, words } from './plotly.js';

/** The most marks, cells and rows that are drawn. */
const MARKS = 20_000;
const CELLS = 40_000;
const ROWS = 500;

/** An element that shows a figure. */
export function plot({ traces, layout }, signal) {
  const pictures = (layout.images ?? []).map(({ source }) => (typeof source === 'string' && source.startsWith('data:image/') ? source : safeUrl(source))).filter(Boolean);
  const kinds = new Set(traces.map(kindOf));
  const parts = [];
  if (pictures.length) parts.push(pictures.map((src) => h('img', { class: 'plot-image', src, alt: words(layout.title) || 'Picture', loading: 'lazy' })));
  if (kinds.has('table')) parts.push(...traces.filter((one) => kindOf(one) === 'table').map(table));
  if (kinds.has('heat')) parts.push(...traces.filter((one) => kindOf(one) === 'heat').map((one) => heat(one, layout, signal)));
  if (kinds.has('xy') || kinds.has('bar') || kinds.has('box')) {
    const drawn = traces.filter((one) => ['xy', 'bar', 'box'].includes(kindOf(one)));
    const empty = drawn.every((one) => !list(one.x).length && !list(one.y).length);
    if (!(empty && pictures.length)) parts.push(cartesian(drawn, layout, signal));
  }
  if (kinds.has('pie')) parts.push(...traces.filter((one) => kindOf(one) === 'pie').map(pie));
  if (kinds.has('values')) {
    parts.push(h('p', { class: 'hint' }, 'Three dimensions are shown as a table.'), ...traces.filter((one) => kindOf(one) === 'values').map(values));
  }
  const unknown = [...new Set(traces.filter((one) => kindOf(one) === null).map(({ type }) => type))];
  if (unknown.length) parts.push(h('p', { class: 'hint' }, `Not drawn here: ${unknown.join(', ')}. The figure's JSON below has its data.`));
  if (!parts.length) parts.push(h('p', { class: 'hint' }, 'The figure holds nothing to draw.'));
  return h('div', { class: 'figure' }, parts);
}

// ---- tables ----

function table(trace) {
  const heads = list(trace.header?.values).map((one) => words([one].flat(2).join(' ')));
  const columns = list(trace.cells?.values).map(list);
  const rows = columns.reduce((most, column) => Math.max(most, column.length), 0);
  return tableOf(heads, Array.from({ length: Math.min(rows, ROWS) }, (_, row) => columns.map((column) => column[row])), rows);
}

function values(trace) {
  const names = ['x', 'y', 'z'].filter((name) => list(trace[name]).length);
  const columns = names.map((name) => list(trace[name]));
  const rows = columns.reduce((most, column) => Math.max(most, column.length), 0);
  return tableOf(names, Array.from({ length: Math.min(rows, ROWS) }, (_, row) => columns.map((column) => column[row])), rows);
}

function tableOf(heads, rows, count) {
  const cell = (value) => (typeof value === 'number' ? number(value) : words(String(value ?? '')));
  const isNumber = heads.map((_, index) => rows.length > 0 && rows.every((row) => row[index] === null || row[index] === '' || Number.isFinite(Number(row[index]))));
  return h('div', { class: 'scroller table-plot' },
    h('table', { class: 'plain' },
      h('thead', {}, h('tr', {}, heads.map((text, index) => h('th', { scope: 'col', class: isNumber[index] ? 'number' : '' }, text)))),
      h('tbody', {}, rows.map((row) => h('tr', {}, row.map((value, index) => h('td', { class: isNumber[index] ? 'number' : '' }, cell(value))))))),
    count > rows.length && h('p', { class: 'hint' }, `The first ${rows.length} of ${count} rows.`));
}

function pie(trace) {
  const shares = list(trace.values).map(Number);
  const total = shares.reduce((sum, value) => sum + value, 0) || 1;
  const labels = list(trace.labels);
  return tableOf(['', 'Value', 'Share %'], shares.map((value, index) => [words(String(labels[index] ?? index)), value, Number(((value / total) * 100).toFixed(2))]), shares.length);
}

// ---- lines, points, bars, boxes ----

function cartesian(traces, layout, signal) {
  const svg = s('svg', { class: 'chart-svg', role: 'img', 'aria-label': words(layout.title) || 'Plot' });
  const tip = h('div', { class: 'tip', hidden: true });
  const canvas = h('div', { class: 'canvas plot-canvas' }, svg, tip);
  const legend = h('div', { class: 'legend' });
  const shapes = traces.map((trace, index) => shape(trace, index, layout));
  const named = shapes.filter(({ trace }) => trace.name && trace.showlegend !== false);
  legend.hidden = shapes.length < 2 || !named.length;
  replace(legend, named.map(({ name, index }) => {
    const key = h('span', { class: 'key' });
    key.style.background = colour(index);
    return h('span', { class: 'legend-item' }, key, name);
  }));

  sized(canvas, (width, height) => draw(svg, shapes, layout, width, height), signal);
  canvas.addEventListener('pointermove', (event) => {
    const mark = event.target.closest?.('[data-tip]');
    tip.hidden = !mark;
    if (!mark) return;
    replace(tip, mark.dataset.tip);
    const box = canvas.getBoundingClientRect();
    const beyond = event.clientX - box.left > box.width / 2;
    tip.style.left = beyond ? 'auto' : `${event.clientX - box.left + 14}px`;
    tip.style.right = beyond ? `${box.right - event.clientX + 14}px` : 'auto';
  });
  canvas.addEventListener('pointerleave', () => (tip.hidden = true));
  return h('div', { class: 'chart' }, canvas, legend);
}

/** What a trace becomes: its points with raw coordinates. */
function shape(trace, index, layout) {
  const name = words(trace.name) || `trace ${index + 1}`;
  const kind = kindOf(trace);
  const across = trace.orientation === 'h';
  if (trace.type === 'histogram') {
    const sideways = !list(trace.x).length && list(trace.y).length > 0;
    const data = list(sideways ? trace.y : trace.x);
    if (axisOf(data) === 'category') {
      const counts = new Map();
      for (const value of data) counts.set(value, (counts.get(value) ?? 0) + 1);
      return { trace, name, index, kind, across: sideways, x: [...counts.keys()], y: [...counts.values()] };
    }
    const { x, y } = binned(data, trace.nbinsx);
    return { trace, name, index, kind, across: sideways, x, y, continuous: true };
  }
  if (kind === 'box') {
    const data = list(trace.y).length ? list(trace.y) : list(trace.x);
    return { trace, name, index, kind, x: [name], y: data.map(Number), five: quartiles(data) };
  }
  let [x, y] = across ? [list(trace.y), list(trace.x)] : [list(trace.x), list(trace.y)];
  if (!x.length) x = y.map((_, at) => (trace.x0 ?? 0) + at * (trace.dx ?? 1));
  const mode = trace.mode ?? (y.length > 40 ? 'lines' : 'lines+markers');
  return { trace, name, index, kind, across, x: x.slice(0, MARKS), y: y.slice(0, MARKS).map((value) => (value === null ? NaN : Number(value))), mode, texts: list(trace.text), stacked: layout.barmode === 'stack' || layout.barmode === 'relative' };
}

function draw(svg, shapes, layout, width, height) {
  const across = shapes.every((one) => one.across);
  const [xl, yl] = across ? [layout.yaxis ?? {}, layout.xaxis ?? {}] : [layout.xaxis ?? {}, layout.yaxis ?? {}];
  const places = shapes.flatMap(({ x }) => x);
  let kind = axisOf(places, xl.type);
  const bars = shapes.filter((one) => one.kind === 'bar');
  if (kind === 'number' && bars.length && places.length <= 60 && !bars.some((one) => one.continuous) && !shapes.some((one) => one.kind === 'xy')) kind = 'category';
  const groups = [...new Set(kind === 'category' ? places.map(String) : [])];
  const log = yl.type === 'log';
  const place = (value) => (kind === 'category' ? groups.indexOf(String(value)) : kind === 'date' ? Date.parse(value) : Number(value));

  // Sums per place for stacked bars.
  const stacks = new Map();
  for (const one of bars) {
    one.base = one.y.map((value, at) => {
      if (!one.stacked) return 0;
      const key = String(one.x[at]);
      const below = stacks.get(key) ?? 0;
      stacks.set(key, below + (value || 0));
      return below;
    });
  }
  let yr = extent(shapes.map((one) => (one.kind === 'bar' ? one.y.map((value, at) => value + one.base[at]) : one.y)), log);
  if (bars.length && !log) yr = [Math.min(0, yr[0]), Math.max(0, yr[1])];
  else if (!log) {
    const room = (yr[1] - yr[0]) * 0.06;
    yr = [yr[0] - room, yr[1] + room];
  }
  if (Array.isArray(yl.range) && yl.range.every((value) => Number.isFinite(Number(value))) && !log) yr = yl.range.map(Number);
  let xr = kind === 'category' ? [-0.5, groups.length - 0.5] : extent(shapes.map(({ x }) => x.map(place)));
  if (kind !== 'category' && bars.length) {
    const step = (xr[1] - xr[0]) / Math.max(1, Math.max(...bars.map(({ x }) => x.length)) - 1);
    xr = [xr[0] - step / 2, xr[1] + step / 2];
  }

  const ys = ticks(yr, Math.max(2, Math.floor((across ? width : height) / (across ? 85 : 45))), log);
  const labels = groups.map((text) => (text.length > 24 ? `${text.slice(0, 23)}…` : text));
  const titles = { x: words(xl.title), y: words(yl.title) };
  if (across) return drawAcross(svg, { shapes, groups: labels, place, yr, ys, xr, kind, titles, width, height });
  const left = Math.max(34, textWidth(ys.map(short)) + 12) + (titles.y ? 16 : 0);
  const crowded = kind === 'category' && textWidth(labels, 6) > (width - left) / Math.max(1, groups.length);
  const box = { left, right: width - 12, top: 10, bottom: height - (titles.x ? 40 : 24) - (crowded ? Math.min(70, textWidth(labels, 4)) : 0) };
  const x = scale(xr, [box.left, box.right]);
  const y = scale(yr, [box.bottom, box.top], log);
  const format = kind === 'date' ? (value) => new Date(value).toLocaleDateString() : short;
  const xs = kind === 'category' ? [] : ticks(xr, Math.max(2, Math.floor((box.right - box.left) / 80)));
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  const every = Math.ceil(groups.length / Math.max(1, (box.right - box.left) / (crowded ? 14 : 1)));
  replace(svg,
    grid({ box: { ...box }, x, y, xs, ys, xText: format, yText: short, yTitle: titles.y }),
    titles.x && s('text', { class: 'axis-title axes-text', x: (box.left + box.right) / 2, y: height - 6, 'text-anchor': 'middle' }, titles.x),
    s('g', { class: 'axes' }, labels.map((text, at) => at % every === 0 && s('text', crowded
      ? { transform: `translate(${x(at) + 4} ${box.bottom + 12}) rotate(-45)`, 'text-anchor': 'end' }
      : { x: x(at), y: box.bottom + 15, 'text-anchor': 'middle' }, text))),
    shapes.map((one) => marks(one, { x, y, place, shapes, bars, kind, box, log })));
}

function marks(one, { x, y, place, bars, kind, box, log }) {
  const tip = (at) => `${one.name}: ${String(one.x[at])} → ${number(one.y[at])}${one.texts?.[at] ? ` (${words(String(one.texts[at]))})` : ''}`;
  if (one.kind === 'bar') {
    const step = kind === 'category' ? Math.abs(x(1) - x(0)) : Math.abs(box.right - box.left) / Math.max(1, one.x.length);
    const beside = one.stacked || one.continuous ? 1 : bars.length;
    const width = Math.max(1, (step * (one.continuous ? 0.98 : 0.76)) / beside);
    const floor = y(log ? y.back(box.bottom) : 0);
    return s('g', { fill: colour(one.index), class: one.continuous && bars.length > 1 ? 'see-through' : '' }, one.x.map((value, at) => {
      if (!Number.isFinite(one.y[at])) return null;
      const mid = x(place(value)) + (beside > 1 ? (bars.indexOf(one) - (beside - 1) / 2) * width : 0);
      const [top, bottom] = one.stacked ? [y(one.base[at] + one.y[at]), y(one.base[at])] : [y(one.y[at]), floor];
      return s('rect', { x: mid - width / 2, width, y: Math.min(top, bottom), height: Math.max(0.5, Math.abs(bottom - top)), rx: Math.min(2, width / 4), 'data-tip': tip(at) });
    }));
  }
  if (one.kind === 'box') {
    if (!one.five) return null;
    const [low, first, middle, third, high] = one.five;
    const mid = x(place(one.x[0]));
    const width = Math.min(60, Math.abs(x(1) - x(0)) * 0.5);
    return s('g', { stroke: colour(one.index), fill: 'none', 'data-tip': `${one.name}: ${[low, first, middle, third, high].map(number).join(' · ')}` },
      s('line', { x1: mid, x2: mid, y1: y(low), y2: y(high) }),
      s('rect', { x: mid - width / 2, width, y: y(third), height: Math.max(1, y(first) - y(third)), fill: 'var(--surface)' }),
      s('line', { x1: mid - width / 2, x2: mid + width / 2, y1: y(middle), y2: y(middle), 'stroke-width': 2 }));
  }
  const places = one.x.map(place);
  const parts = [];
  if (one.mode.includes('lines')) {
    const line = path(places, one.y, x, y, log);
    if (one.trace.fill && one.trace.fill !== 'none' && line) {
      parts.push(s('path', { class: 'area', fill: colour(one.index), d: `${line}L${x(places.at(-1)).toFixed(1)} ${box.bottom}L${x(places[0]).toFixed(1)} ${box.bottom}Z` }));
    }
    parts.push(s('path', { class: 'line', stroke: colour(one.index), d: line, 'stroke-dasharray': one.trace.line?.dash && one.trace.line.dash !== 'solid' ? '5 4' : null }));
  }
  if (one.mode.includes('markers') || one.x.length === 1) {
    parts.push(s('g', { fill: colour(one.index), class: 'dots' }, places.map((value, at) =>
      Number.isFinite(one.y[at]) && Number.isFinite(value) && !(log && one.y[at] <= 0) && s('circle', { cx: x(value).toFixed(1), cy: y(one.y[at]).toFixed(1), r: one.x.length > 500 ? 1.8 : 3, 'data-tip': tip(at) }))));
  } else if (one.x.length <= 400) {
    // Lines without dots still tell their values on hovering.
    parts.push(s('g', { class: 'targets' }, places.map((value, at) => Number.isFinite(one.y[at]) && Number.isFinite(value) && s('circle', { cx: x(value).toFixed(1), cy: y(one.y[at]).toFixed(1), r: 7, 'data-tip': tip(at) }))));
  }
  return s('g', {}, parts);
}

/** Bars that lie: categories down the side. */
function drawAcross(svg, { shapes, groups, place, yr, ys, titles, width, height }) {
  const left = Math.min(width / 2, Math.max(40, textWidth(groups) + 14));
  const box = { left, right: width - 14, top: 8, bottom: height - (titles.y ? 40 : 24) };
  const x = scale(yr, [box.left, box.right]);
  const step = (box.bottom - box.top) / Math.max(1, groups.length);
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  replace(svg, s('g', { class: 'axes' },
    ys.map((value) => [s('line', { class: 'grid', x1: x(value), x2: x(value), y1: box.top, y2: box.bottom }), s('text', { x: x(value), y: box.bottom + 15, 'text-anchor': 'middle' }, short(value))]),
    groups.map((text, at) => s('text', { x: left - 6, y: box.bottom - (at + 0.5) * step + 3.5, 'text-anchor': 'end' }, text)),
    titles.y && s('text', { class: 'axis-title', x: (box.left + box.right) / 2, y: height - 6, 'text-anchor': 'middle' }, titles.y)),
  shapes.map((one, nth) => s('g', { fill: colour(one.index) }, one.x.map((value, at) => {
    const size = (step * 0.76) / (one.stacked ? 1 : shapes.length);
    const [a, b] = [x(one.base?.[at] ?? 0), x((one.base?.[at] ?? 0) + one.y[at])];
    const middle = box.bottom - (place(value) + 0.5) * step + (one.stacked ? 0 : (nth - (shapes.length - 1) / 2) * size);
    return s('rect', { x: Math.min(a, b), width: Math.max(0.5, Math.abs(b - a)), y: middle - size / 2, height: size, rx: 2, 'data-tip': `${one.name}: ${value} → ${number(one.y[at])}` });
  }))));
}

// ---- heat maps ----

function heat(trace, layout, signal) {
  const rows = list(trace.z).map((row) => list(row).map(Number));
  const columns = rows.reduce((most, row) => Math.max(most, row.length), 0);
  if (!rows.length || rows.length * columns > CELLS) {
    return h('p', { class: 'hint' }, rows.length ? `A map of ${rows.length} × ${columns} cells is too large to draw here.` : 'The map is empty.');
  }
  const xs = list(trace.x).length ? list(trace.x).map(String) : Array.from({ length: columns }, (_, at) => String(at));
  const ys = list(trace.y).length ? list(trace.y).map(String) : rows.map((_, at) => String(at));
  const [low, high] = extent(rows);
  const svg = s('svg', { class: 'chart-svg', role: 'img', 'aria-label': words(layout.title) || 'Heat map' });
  const tip = h('div', { class: 'tip', hidden: true });
  const canvas = h('div', { class: 'canvas heat-canvas' }, svg, tip);
  const isSurface = trace.type === 'surface' || trace.type === 'contour';
  const down = layout.yaxis?.autorange === 'reversed' || trace.transpose;
  const titles = { x: words(layout.xaxis?.title ?? layout.scene?.xaxis?.title), y: words(layout.yaxis?.title ?? layout.scene?.yaxis?.title) };
  sized(canvas, (width, height) => {
    const long = textWidth(xs.slice(0, columns), 6);
    const left = Math.min(width / 3, Math.max(26, textWidth(ys) + 12)) + (titles.y ? 18 : 0);
    const slanted = long > (width - left) / columns;
    const box = { left, right: width - 10, top: 6, bottom: height - (titles.x ? 36 : 20) - (slanted ? Math.min(70, long * 0.6) : 0) };
    const [cw, ch] = [(box.right - box.left) / columns, (box.bottom - box.top) / rows.length];
    const written = cw > 30 && ch > 15;
    svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    const top = (row) => (down ? box.top + row * ch : box.bottom - (row + 1) * ch);
    const every = Math.max(1, Math.ceil(13 / (slanted ? cw : Math.max(cw, 13))));
    const everyRow = Math.max(1, Math.ceil(13 / ch));
    replace(svg,
      rows.map((row, r) => row.map((value, c) => {
        const share = Number.isFinite(value) ? (value - low) / (high - low) : 0;
        const cell = s('rect', { class: 'cell', x: (box.left + c * cw).toFixed(2), y: top(r).toFixed(2), width: Math.max(0.5, cw - (cw > 6 ? 1 : 0)).toFixed(2), height: Math.max(0.5, ch - (ch > 6 ? 1 : 0)).toFixed(2), 'data-tip': `${ys[r] ?? r}, ${xs[c] ?? c}: ${number(value)}` });
        cell.style.setProperty('--share', `${(share * 100).toFixed(1)}%`);
        return [cell, written && Number.isFinite(value) && s('text', { class: `cell-text ${share > 0.55 ? 'on-strong' : ''}`, x: box.left + (c + 0.5) * cw, y: top(r) + ch / 2 + 3.5, 'text-anchor': 'middle' }, short(Number(value.toPrecision(3))))];
      })),
      s('g', { class: 'axes' },
        ys.slice(0, rows.length).map((text, r) => r % everyRow === 0 && s('text', { x: left - 6, y: top(r) + ch / 2 + 3.5, 'text-anchor': 'end' }, text.slice(0, 24))),
        xs.slice(0, columns).map((text, c) => c % every === 0 && s('text', slanted
          ? { transform: `translate(${box.left + (c + 0.5) * cw + 3} ${box.bottom + 11}) rotate(-45)`, 'text-anchor': 'end' }
          : { x: box.left + (c + 0.5) * cw, y: box.bottom + 14, 'text-anchor': 'middle' }, text.slice(0, 24))),
        titles.x && s('text', { class: 'axis-title', x: (box.left + box.right) / 2, y: height - 5, 'text-anchor': 'middle' }, titles.x),
        titles.y && s('text', { class: 'axis-title', transform: `translate(11 ${(box.top + box.bottom) / 2}) rotate(-90)`, 'text-anchor': 'middle' }, titles.y)));
  }, signal);
  canvas.addEventListener('pointermove', (event) => {
    const cell = event.target.closest?.('[data-tip]');
    tip.hidden = !cell;
    if (!cell) return;
    replace(tip, cell.dataset.tip);
    const box = canvas.getBoundingClientRect();
    const beyond = event.clientX - box.left > box.width / 2;
    tip.style.left = beyond ? 'auto' : `${event.clientX - box.left + 14}px`;
    tip.style.right = beyond ? `${box.right - event.clientX + 14}px` : 'auto';
  });
  canvas.addEventListener('pointerleave', () => (tip.hidden = true));
  return h('div', { class: 'chart' }, canvas,
    h('div', { class: 'legend' }, h('span', { class: 'ramp', 'aria-hidden': 'true' }), h('span', { class: 'hint' }, `${number(low)} to ${number(high)}${isSurface ? ', a surface seen from above' : ''}`)));
}
