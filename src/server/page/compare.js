// Several tasks side by side: their curves in common charts, and the parameters in which they differ.

import { call } from './api.js';
import { chartBar, chartCard, chartSettings, axisKey, curve } from './scalars.js';
import { colour } from './axes.js';
import { h, keyed, replace } from './dom.js';
import { number } from './format.js';
import { to } from './route.js';
import { empty, failed, minute, poll, state } from './ui.js';

const FRESH = 6000;
const MOST = 12;

export function compareView(container, query, signal) {
  const ids = (query.get('tasks') ?? '').split(',').filter((id) => /^[0-9a-f]{32}$/.test(id)).slice(0, MOST);
  document.title = 'Compare · trainyard';
  const heads = h('ul', { class: 'compared' });
  const charts = h('div', { class: 'charts' });
  const parameters = h('section', { class: 'card' });
  const problem = h('div');
  const apply = (card) => card.curves && card.chart.set({ ...chartSettings(), series: card.curves.map((one) => ({ ...one, ...curve(one, one.start) })) });
  container.append(h('h1', {}, 'Compare'), problem, heads, parameters, chartBar(null, (otherAxis) => {
    if (otherAxis) refresh();
    else for (const card of charts.children) apply(card);
  }), charts);
  if (ids.length < 2) {
    replace(container, empty('Nothing to compare', 'Choose two or more tasks in the list, then “Compare”.', h('a', { href: to(['tasks']) }, 'All tasks')));
    return;
  }

  let read;
  const refresh = poll(async () => {
    try {
      await load();
      replace(problem);
    } catch (error) {
      if (!signal.aborted && error.code > 0) replace(problem, failed('The tasks could not be compared', error));
      throw error;
    }
  }, FRESH, signal);

  async function load() {
    const { tasks } = await call('tasks.get_all_ex', { id: ids, search_hidden: true, only_fields: ['id', 'name', 'status', 'status_message', 'hyperparams', 'started', 'created', 'last_update', 'last_metrics'] }, { signal });
    tasks.sort((a, b) => ids.indexOf(a.id) - ids.indexOf(b.id));
    drawHeads(tasks);
    drawParameters(tasks);
    const mark = JSON.stringify([chartSettings().axis, minute(), tasks.map(({ id, name, last_update: updated }) => [id, name, updated])]);
    if (mark === read) return;
    const { metrics } = await call('events.multi_task_scalar_metrics_iter_histogram', { tasks: ids, key: axisKey(), samples: 500 }, { signal });
    const found = Object.entries(metrics).flatMap(([metric, variants]) => Object.keys(variants).map((variant) => ({ metric, variant })))
      .sort((a, b) => Number(a.metric.startsWith(':')) - Number(b.metric.startsWith(':')));
    keyed(charts, found.slice(0, 200), ({ metric, variant }) => `${metric}\n${variant}`, ({ metric, variant }) => chartCard(`${metric} / ${variant}`, { signal }), (card, { metric, variant }) => {
      card.curves = tasks.flatMap((task, index) => {
        const values = metrics[metric][variant][task.id];
        return values ? [{ ...values, name: label(task, tasks), index, start: Date.parse(task.started ?? task.created) }] : [];
      });
      apply(card);
    });
    read = mark;
  }

  function drawHeads(tasks) {
    const text = JSON.stringify(tasks.map(({ id, name, status }) => [id, name, status]));
    if (heads.drawn === text) return;
    heads.drawn = text;
    replace(heads, tasks.map((task, index) => {
      const key = h('span', { class: 'key' });
      key.style.background = colour(index);
      return h('li', {}, key, h('a', { href: to(['tasks', task.id]) }, task.name), state(task));
    }));
  }

  /** Parameters and last values, one column a task; only rows that differ. */
  function drawParameters(tasks) {
    const rows = new Map();
    const set = (name, index, value) => {
      if (!rows.has(name)) rows.set(name, Array(tasks.length).fill(''));
      rows.get(name)[index] = value;
    };
    tasks.forEach((task, index) => {
      for (const [section, items] of Object.entries(task.hyperparams ?? {})) {
        for (const [name, { value }] of Object.entries(items)) set(`${section} / ${name}`, index, value);
      }
    });
    const different = [...rows].filter(([, values]) => new Set(values).size > 1);
    const results = new Map();
    tasks.forEach((task, index) => {
      for (const { metric, variant, value } of Object.values(task.last_metrics ?? {}).flatMap(Object.values)) {
        if (metric.startsWith(':monitor')) continue;
        const name = `${metric} / ${variant}`;
        if (!results.has(name)) results.set(name, Array(tasks.length).fill(''));
        results.get(name)[index] = number(value);
      }
    });
    const text = JSON.stringify([different, [...results]]);
    if (parameters.drawn === text) return;
    parameters.drawn = text;
    const body = (title, list) => list.length > 0 && h('tbody', {}, h('tr', { class: 'group-row' }, h('th', { colspan: tasks.length + 1, scope: 'colgroup' }, title)),
      list.map(([name, values]) => h('tr', {}, h('th', { scope: 'row' }, name), values.map((value) => h('td', { class: 'number' }, value)))));
    replace(parameters, h('div', { class: 'scroller' }, h('table', { class: 'plain' },
      h('thead', {}, h('tr', {}, h('th', {}), tasks.map((task, index) => {
        const key = h('span', { class: 'key' });
        key.style.background = colour(index);
        return h('th', { scope: 'col', class: 'number' }, key, label(task, tasks));
      }))),
      body('Parameters that differ', different), body('Last values', [...results]))));
  }
}

/** The name, and a part of the id where two have the same. */
function label(task, tasks) {
  return tasks.some((other) => other !== task && other.name === task.name) ? `${task.name} (${task.id.slice(0, 4)})` : task.name;
}
