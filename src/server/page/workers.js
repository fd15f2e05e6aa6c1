// Workers: what each of them runs, and how busy their machines are over time.

import { call } from './api.js';
import { lineChart } from './chart.js';
import { h, keyed, replace, setAttribute, setText } from './dom.js';
import { duration, many } from './format.js';
import { note, to } from './route.js';
import { choice, empty, failed, poll, setWhen, when } from './ui.js';

const FRESH = 5000;
const RANGES = { '1h': 3600, '6h': 6 * 3600, '1d': 86400, '7d': 7 * 86400 };

/** What a chart shows: metrics of the server, their names, and what turns them into the unit of the chart. */
const CHARTS = [
  { title: 'CPU', unit: ' %', top: 100, items: { cpu_usage: 'CPU' } },
  { title: 'GPU', unit: ' %', top: 100, items: { gpu_usage: 'GPU' } },
  { title: 'Memory', unit: ' GiB', items: { memory_used: 'used', memory_free: 'free' }, scale: 1 / 1024 },
  { title: 'GPU memory', unit: ' GiB', items: { gpu_memory_used: 'used', gpu_memory_free: 'free' }, scale: 1 / 1024 },
  { title: 'Network', unit: ' MiB/s', items: { network_rx: 'received', network_tx: 'sent' } },
];

export function workersView(container, id, query, signal) {
  document.title = 'Workers · trainyard';
  let range = RANGES[query.get('range')] ? query.get('range') : '1h';
  const summary = h('p', { class: 'hint' });
  const body = h('tbody');
  const table = h('table', { class: 'list workers' }, h('thead', {}, h('tr', {}, ['Worker', 'Task', 'Running for', 'CPU', 'GPU', 'Queues', 'Last report', 'Address'].map((text) => h('th', { scope: 'col' }, text)))), body);
  const place = h('div', { class: 'scroller' }, table);
  const note_ = h('div');
  const title = h('h2', { class: 'group' });
  const charts = h('div', { class: 'charts' });
  container.append(
    h('div', { class: 'head' }, h('h1', {}, 'Workers'), summary, h('span', { class: 'spring' }),
      choice('Time', [['1h', '1 hour'], ['6h', '6 hours'], ['1d', '1 day'], ['7d', '7 days']], range, (wanted) => {
        range = wanted;
        note({ range });
        stats();
      })), note_, place, title, charts);

  let workers = [];
  const chosen = id ?? null;
  /** The latest load of each worker, by id and metric. */
  const latest = new Map();

  poll(async () => {
    try {
      ({ workers } = await call('workers.get_all', { last_seen: 0 }, { signal }));
      draw();
    } catch (error) {
      if (!signal.aborted && error.code > 0 && error.code !== 401) replace(note_, failed('The workers could not be listed', error));
      throw error;
    }
  }, FRESH, signal);

  function draw() {
    workers.sort((a, b) => a.id.localeCompare(b.id));
    const busy = workers.filter(({ task }) => task?.id).length;
    setText(summary, workers.length ? `${many(workers.length, 'worker')}, ${busy} busy` : '');
    place.hidden = workers.length === 0;
    replace(note_, !workers.length && empty('No workers', 'A controller, a daemon or an agent that serves a queue appears here once it reports.'));
    keyed(body, workers, (worker) => worker.key, (worker) => {
      const row = h('tr', {}, h('td', {}, h('a', { class: 'name', href: to(['workers', worker.id]) }, worker.id)), h('td', {}), h('td', {}), h('td', {}), h('td', {}), h('td', {}), h('td', {}, when(worker.last_report_time)), h('td', { class: 'hint' }, worker.ip));
      return row;
    }, (row, worker) => {
      setAttribute(row, 'aria-current', worker.id === chosen ? 'true' : null);
      const running = worker.task?.id ? `${worker.task.id}\n${worker.task.name}` : '';
      if (row.children[1].drawn !== running) {
        row.children[1].drawn = running;
        replace(row.children[1], running ? h('a', { href: to(['tasks', worker.task.id]) }, worker.task.name) : h('span', { class: 'hint' }, 'idle'));
      }
      setText(row.children[2], worker.task?.id ? duration(worker.task.running_time / 1000) : '');
      load(row.children[3], latest.get(`${worker.id}\ncpu_usage`), 'CPU');
      load(row.children[4], latest.get(`${worker.id}\ngpu_usage`), 'GPU');
      const queues = (worker.queues ?? []).map((queue) => `${queue.id}\n${queue.name}`).join('\n\n');
      if (row.children[5].drawn !== queues) {
        row.children[5].drawn = queues;
        replace(row.children[5], (worker.queues ?? []).map((queue, index) => [index > 0 && ', ', h('a', { class: 'quiet-link', href: to(['queues', queue.id]) }, queue.name)]));
      }
      setWhen(row.children[6].firstElementChild, worker.last_report_time);
    });
    if (chosen && workers.length && !workers.some((worker) => worker.id === chosen)) {
      replace(note_, h('p', { class: 'callout' }, `The worker ${chosen} does not report now; below is what it reported before.`));
    }
  }

  // ---- over time ----
  const cards = CHARTS.map((chart) => {
    const drawn = lineChart({ title: chart.title, signal, unit: chart.unit, zero: true, top: chart.top });
    const card = h('section', { class: 'card chart-card', 'aria-label': chart.title }, h('h2', {}, chart.title, h('span', { class: 'hint' }, chart.unit.trim())), drawn.element);
    return { ...chart, drawn, card };
  });
  const activity = lineChart({ title: 'Workers', signal, zero: true });
  const activityCard = h('section', { class: 'card chart-card', 'aria-label': 'Workers over time' }, h('h2', {}, 'Workers'), activity.element);
  charts.append(...cards.map(({ card }) => card), activityCard);
  setText(title, chosen ? chosen : 'All workers');
  if (chosen) title.append(' ', h('a', { class: 'quiet-link small', href: to(['workers']) }, 'show all'));

  const stats = poll(async () => {
    const seconds = RANGES[range];
    const now = Math.floor(Date.now() / 1000);
    const interval = Math.max(40, Math.ceil(seconds / 240));
    const span = { from_date: now - seconds, to_date: now, interval };
    const keys = CHARTS.flatMap(({ items }) => Object.keys(items));
    const mean = (key) => ({ key, aggregation: 'avg' });
    const [recent, answer, report] = await Promise.all([
      call('workers.get_stats', { from_date: now - 300, to_date: now, interval: 60, items: [mean('cpu_usage'), mean('gpu_usage')] }, { signal }),
      call('workers.get_stats', { ...span, items: keys.map(mean), ...(chosen ? { worker_ids: [chosen] } : {}) }, { signal }),
      call('workers.get_activity_report', span, { signal }),
    ]);
    const found = answer.workers.filter(({ worker }) => !chosen || worker === chosen || worker.endsWith(`_${chosen}`)).sort((a, b) => a.worker.localeCompare(b.worker));
    latest.clear();
    for (const { worker, metrics } of recent.workers) {
      for (const { metric, stats: [{ values }] } of metrics) latest.set(`${shortName(worker)}\n${metric}`, values.at(-1));
    }
    draw();
    for (const { items, scale = 1, drawn, card } of cards) {
      const series = [];
      for (const { worker, metrics } of found) {
        for (const { metric, stats: curves } of metrics) {
          if (!(metric in items)) continue;
          if (!chosen && Object.keys(items).indexOf(metric) > 0) continue;
          const [first] = curves;
          const name = chosen ? items[metric] : shortName(worker);
          series.push({ name, index: chosen ? Object.keys(items).indexOf(metric) : found.findIndex((one) => one.worker === worker), x: first.dates, y: first.values.map((value) => value * scale) });
        }
      }
      card.hidden = !series.length;
      drawn.set({ series, axis: 'wall' });
    }
    activityCard.hidden = Boolean(chosen) || !report.total.dates.length;
    activity.set({ axis: 'wall', series: [
      { name: 'registered', index: 7, x: report.total.dates, y: report.total.counts },
      { name: 'busy', index: 0, x: report.total.dates, y: report.total.dates.map((date) => report.active.counts[report.active.dates.indexOf(date)] ?? 0) },
    ] });
    title.hidden = cards.every(({ card }) => card.hidden);
  }, 15_000, signal);
}

/** A share of 100 as a bar and a number. */
function load(cell, value, name) {
  const text = value === undefined ? '' : `${Math.round(value)} %`;
  if (cell.drawn === text) return;
  cell.drawn = text;
  replace(cell, text && h('span', { class: 'meter' }, h('progress', { max: 100, value, 'aria-label': name }), text));
}

/** A worker's own id: the server may name it with company and user before it. */
function shortName(worker) {
  return worker.replace(/^worker_[0-9a-f]{32}_[^_]+_/, '');
}
