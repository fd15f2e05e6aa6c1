// Curves of a task, one chart per metric; only charts near the screen are loaded and kept fresh.

import { call } from './api.js';
import { lineChart } from './chart.js';
import { button, h, icon, keyed, replace, setText } from './dom.js';
import { bind } from './keys.js';
import { note } from './route.js';
import { choice, empty, failed, poll, settled, tick } from './ui.js';

const FRESH = 4000;
/** Points of a curve: about as many as a chart has pixels. */
const POINTS = 800;

/** Settings of all charts, kept in this browser. */
const settings = { smoothing: 0, axis: 'iter', log: false, ...read() };

function read() {
  try {
    return JSON.parse(localStorage.getItem('trainyard.charts') ?? '{}');
  } catch {
    return {};
  }
}

function keep() {
  localStorage.setItem('trainyard.charts', JSON.stringify(settings));
}

/** The bar with axis, smoothing and scale; `changed` hears of every change. */
export function chartBar(search, changed) {
  const weight = h('output', { class: 'hint' }, settings.smoothing.toFixed(2));
  const slider = h('input', { type: 'range', min: 0, max: 0.99, step: 0.01, value: String(settings.smoothing), 'aria-label': 'Smoothing', on: { input: () => {
    settings.smoothing = Number(slider.value);
    setText(weight, settings.smoothing.toFixed(2));
    keep();
    changed(false);
  } } });
  return h('div', { class: 'bar' },
    search && h('div', { class: 'search-box' }, icon('search'), search),
    h('span', { class: 'spring' }),
    h('label', { class: 'slider' }, 'Smoothing', slider, weight),
    choice('Horizontal axis', [['iter', 'Iterations'], ['time', 'Run time'], ['wall', 'Clock']], settings.axis, (axis) => {
      settings.axis = axis;
      keep();
      changed(true);
    }),
    tick('log', 'Log scale', settings.log, ({ target }) => {
      settings.log = target.checked;
      keep();
      changed(false);
    }));
}

/** What to ask the server for: iterations or moments. */
export function axisKey() {
  return settings.axis === 'iter' ? 'iter' : 'timestamp';
}

/** Numbers of a curve as the chart draws them: run time counts from `start`. */
export function curve({ x, y }, start) {
  return { x: settings.axis === 'time' ? x.map((moment) => moment - start) : x, y: y.map((value) => (value === null ? NaN : value)) };
}

export function chartSettings() {
  return { log: settings.log, smoothing: settings.smoothing, axis: settings.axis };
}

/** A card with a chart that can be made large. */
export function chartCard(title, options) {
  const chart = lineChart({ title, ...options });
  const card = h('section', { class: 'card chart-card', 'aria-label': title },
    h('h2', {}, h('span', { class: 'chart-title', title }, title), h('span', { class: 'spring' }),
      button({ icon: 'expand', label: `Enlarge ${title}` }, () => {
        card.classList.toggle('large');
        card.scrollIntoView({ block: 'nearest' });
      })), chart.element);
  card.chart = chart;
  return card;
}

export function scalarsTab(panel, shown, signal, query) {
  const id = shown.task.id;
  const search = h('input', { type: 'search', placeholder: 'Filter metrics', 'aria-label': 'Filter metrics', spellcheck: 'false', value: query.get('search') ?? '' });
  const charts = h('div', { class: 'charts' });
  const machine = h('div', { class: 'charts' });
  const machineHead = h('h2', { class: 'group' }, 'Machine');
  const note_ = h('div');
  let metrics = [];

  const wanted = () => {
    const text = search.value.trim().toLowerCase();
    return metrics.filter(({ metric, variants }) => !text || metric.toLowerCase().includes(text) || variants.some((one) => one.toLowerCase().includes(text)));
  };
  const isMachine = ({ metric }) => metric.startsWith(':monitor:');

  const near = new Set();
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) isIntersecting ? near.add(target) : near.delete(target);
    refresh();
  }, { rootMargin: '300px' });
  signal.addEventListener('abort', () => watch.disconnect());

  const make = ({ metric }) => {
    const card = chartCard(metric, { signal });
    card.metric = metric;
    watch.observe(card);
    return card;
  };
  function drawCards() {
    const all = wanted();
    keyed(charts, all.filter((one) => !isMachine(one)), ({ metric }) => metric, make);
    keyed(machine, all.filter(isMachine), ({ metric }) => metric, make);
    for (const card of near) if (!card.isConnected) near.delete(card);
    machineHead.hidden = !machine.children.length;
    if (metrics.length && !all.length) replace(note_, empty('Nothing matches', `No metric holds “${search.value}”.`));
    else if (!metrics.length) replace(note_, empty('No scalars yet', 'A task reports them with Logger.report_scalar, or through TensorBoard, which ClearML reads along.'));
    else replace(note_);
  }

  async function loadNames() {
    const answer = await call('events.get_multi_task_metrics', { tasks: [id], event_type: 'training_stats_scalar' }, { signal });
    const found = answer.metrics.map(({ metric, variants }) => ({ metric, variants })).filter(({ metric, variants }) => !(metric === 'Summary' && variants.length === 0));
    const text = JSON.stringify(found);
    if (text === loadNames.drawn && metrics.length) return;
    loadNames.drawn = text;
    metrics = found;
    drawCards();
  }

  async function loadCurves() {
    const key = axisKey();
    const mark = `${key} ${shown.mark()}`;
    const cards = [...near].filter((card) => card.mark !== mark);
    if (!cards.length) return;
    const answer = await call('events.scalar_metrics_iter_histogram', {
      task: id, key, samples: POINTS, metrics: cards.map(({ metric }) => ({ metric })),
    }, { signal });
    if (key !== axisKey()) return;
    const start = Date.parse(shown.task.started ?? shown.task.created);
    for (const card of cards) {
      card.curves = Object.entries(answer[card.metric] ?? {}).map(([name, values], index) => ({ name, index, ...values }));
      card.start = start;
      card.mark = mark;
      apply(card);
    }
  }
  const apply = (card) => {
    if (!card.curves) return;
    card.hidden = card.curves.length === 0;
    card.chart.set({ ...chartSettings(), series: card.curves.map((one) => ({ ...one, ...curve(one, card.start) })) });
  };
  const all = () => [...charts.children, ...machine.children];

  search.addEventListener('input', settled(() => { note({ search: search.value }); drawCards(); }));
  panel.append(chartBar(search, (otherAxis) => {
    if (otherAxis) {
      for (const card of all()) card.curves = card.mark = undefined;
      refresh();
    } else for (const card of all()) apply(card);
  }), note_, charts, machineHead, machine);
  machineHead.hidden = true;

  let turn = 0;
  let named;
  const refresh = poll(async () => {
    try {
      const mark = shown.mark();
      if (mark !== named && (turn % 3 === 0 || !metrics.length)) {
        await loadNames();
        named = mark;
      }
      turn += 1;
      await loadCurves();
    } catch (error) {
      if (!signal.aborted && error.code > 0 && error.code !== 401) replace(note_, failed('The scalars could not be read', error));
      throw error;
    }
  }, FRESH, signal);
  shown.addEventListener('change', refresh, { signal });
  bind('/', 'Filter metrics', () => search.focus());
}
