// Scales, ticks and the frame of a chart, as SVG.

import { s } from './dom.js';
import { duration, number } from './format.js';

/** A scale from a range of data to a range of pixels; `log` for powers of ten. */
export function scale([low, high], [from, to], log = false) {
  const map = log ? Math.log10 : (value) => value;
  const [a, b] = [map(low), map(high)];
  const span = b - a || 1;
  const to_ = (value) => from + ((map(value) - a) / span) * (to - from);
  to_.back = (pixel) => {
    const value = a + ((pixel - from) / (to - from)) * span;
    return log ? 10 ** value : value;
  };
  return to_;
}

/** Lowest and highest of lists of numbers; a little wider if they are equal; only positive ones for `log`. */
export function extent(lists, log = false) {
  let [low, high] = [Infinity, -Infinity];
  for (const list of lists) {
    for (const value of list) {
      if (!Number.isFinite(value) || (log && value <= 0)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return log ? [0.1, 1] : [0, 1];
  if (low === high) return log ? [low / 2, high * 2] : [low - (Math.abs(low) * 0.1 || 1), high + (Math.abs(high) * 0.1 || 1)];
  return [low, high];
}

/** Round numbers inside a range. */
export function ticks([low, high], wanted, log = false) {
  if (log) {
    const [a, b] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const parts = b - a <= 1 ? [1, 2, 5] : b - a <= 3 ? [1, 3] : [1];
    const step = Math.max(1, Math.ceil((b - a) / wanted));
    const found = [];
    for (let power = a; power <= b; power += step) for (const part of parts) found.push(part * 10 ** power);
    return found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
  }
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((part) => part * power).find((size) => size >= rough) ?? rough;
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index += 1) found.push(Number((index * step).toPrecision(12)));
  return found;
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const STEPS = [1000, 5000, 10_000, 30_000, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, 24 * HOUR];

/** Round moments inside a range of milliseconds: run time from its beginning, hours as the viewer's clock has them. */
export function timeTicks([low, high], wanted, kind) {
  const rough = (high - low) / Math.max(1, wanted);
  const step = STEPS.find((size) => size >= rough) ?? Math.ceil(rough / STEPS.at(-1)) * STEPS.at(-1);
  const zone = kind === 'wall' ? new Date(high).getTimezoneOffset() * MINUTE : 0;
  const found = [];
  for (let at = Math.ceil((low - zone) / step) * step + zone; at <= high; at += step) found.push(at);
  return found;
}

const SHORT = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 });

/** A tick's text: short. */
export function short(value) {
  const size = Math.abs(value);
  return size >= 10_000 && size < 1e15 ? SHORT.format(value) : number(value);
}

/** Texts of an x axis: iterations, seconds since the start, or the time of day. */
export function timeTick(kind, [low, high]) {
  if (kind === 'time') return (value) => duration(value / 1000);
  if (kind === 'wall') {
    const far = high - low > 36 * 3600_000;
    const form = new Intl.DateTimeFormat(undefined, far ? { month: 'short', day: 'numeric' } : { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
    return (value) => form.format(value);
  }
  return short;
}

/** Grid lines and their numbers, for both axes. */
export function grid({ box, x, y, xs, ys, xText, yText, xTitle, yTitle }) {
  return s('g', { class: 'axes' },
    ys.map((value) => [
      s('line', { class: 'grid', x1: box.left, x2: box.right, y1: y(value), y2: y(value) }),
      s('text', { x: box.left - 6, y: y(value) + 3.5, 'text-anchor': 'end' }, yText(value)),
    ]),
    xs.map((value) => s('text', { x: Math.min(x(value), box.right + 8), y: box.bottom + 15, 'text-anchor': x(value) > box.right - 10 ? 'end' : 'middle' }, xText(value))),
    s('line', { class: 'axis', x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    xTitle && s('text', { class: 'axis-title', x: (box.left + box.right) / 2, y: box.bottom + 31, 'text-anchor': 'middle' }, xTitle),
    yTitle && s('text', { class: 'axis-title', transform: `translate(11 ${(box.top + box.bottom) / 2}) rotate(-90)`, 'text-anchor': 'middle' }, yTitle));
}

/** A path through points; gaps where a value is missing. */
export function path(xs, ys, x, y, log = false) {
  let text = '';
  let pen = false;
  for (let index = 0; index < xs.length; index += 1) {
    const value = ys[index];
    if (!Number.isFinite(value) || (log && value <= 0)) {
      pen = false;
      continue;
    }
    text += `${pen ? 'L' : 'M'}${x(xs[index]).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = true;
  }
  return text;
}

/** Pixels that the widest of some texts needs, roughly. */
export function textWidth(texts, size = 6.4) {
  return Math.max(0, ...texts.map((text) => String(text).length * size));
}

/** Calls `draw(width, height)` at first and whenever the element's size changes. */
export function sized(element, draw, signal) {
  let last = '';
  const watch = new ResizeObserver(([{ contentRect: { width, height } }]) => {
    const now = `${Math.round(width)}x${Math.round(height)}`;
    if (now === last || width < 10) return;
    last = now;
    draw(width, height);
  });
  watch.observe(element);
  signal?.addEventListener('abort', () => watch.disconnect());
}

/** Colour of a series, by its number: one of ten of the style sheet. */
export function colour(index) {
  return `var(--c${index % 10})`;
}
