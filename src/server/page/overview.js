// The first tab: what one wants to know at a glance, and the words people add: comment and tags.

import { call } from './api.js';
import { button, h, keyed, replace, setText } from './dom.js';
import { number } from './format.js';
import { to } from './route.js';
import { ask, attempt, empty, field, poll, when } from './ui.js';

export function overviewTab(panel, shown, signal) {
  const values = h('section', { class: 'card' });
  const metrics = h('section', { class: 'card wide-card' });
  const words = h('section', { class: 'card' });
  const machine = h('section', { class: 'card' });
  const times = h('section', { class: 'card' });
  panel.classList.add('cards');
  panel.append(values, metrics, words, times, machine);

  // ---- latest values ----
  const body = h('tbody');
  const table = h('table', { class: 'plain' },
    h('thead', {}, h('tr', {}, ['Metric', 'Last', 'Lowest', 'Highest'].map((text, index) => h('th', { scope: 'col', class: index ? 'number' : '' }, text)))), body);
  const nothing = empty('No scalars yet', 'They appear here as soon as the task reports one.');
  replace(metrics, h('h2', {}, 'Latest values'), table, nothing);

  function draw() {
    const { task } = shown;
    const all = Object.values(task.last_metrics ?? {}).flatMap(Object.values)
      .filter(({ metric }) => metric !== 'Summary')
      .sort((a, b) => machineLast(a) - machineLast(b) || a.metric.localeCompare(b.metric) || a.variant.localeCompare(b.variant));
    table.hidden = all.length === 0;
    nothing.hidden = all.length > 0;
    keyed(body, all.slice(0, 200), (one) => `${one.metric}\n${one.variant}`, (one) =>
      h('tr', {}, h('td', {}, h('a', { class: 'quiet-link', href: to(['tasks', task.id, 'scalars'], { search: one.metric }) }, one.metric), h('span', { class: 'hint' }, ` ${one.variant}`)),
        h('td', { class: 'number' }), h('td', { class: 'number' }), h('td', { class: 'number' })),
    (row, one) => {
      setText(row.children[1], number(one.value));
      setText(row.children[2], number(one.min_value));
      setText(row.children[3], number(one.max_value));
      row.children[2].title = `in iteration ${one.min_value_iteration}`;
      row.children[3].title = `in iteration ${one.max_value_iteration}`;
    });
    drawWords();
    drawTimes();
    drawMachine();
  }
  const machineLast = ({ metric }) => Number(metric.startsWith(':monitor'));

  // ---- single values ----
  async function loadValues() {
    const { tasks } = await call('events.get_task_single_value_metrics', { tasks: [shown.task.id] }, { signal });
    const list = tasks[0]?.values ?? [];
    const text = JSON.stringify(list);
    if (values.drawn === text) return;
    values.drawn = text;
    values.hidden = list.length === 0;
    replace(values, h('h2', {}, 'Summary'), h('dl', { class: 'figures' }, list.map(({ metric, variant, value }) =>
      h('div', {}, h('dt', {}, metric === 'Summary' ? variant : `${metric} / ${variant}`), h('dd', {}, number(value))))));
  }
  values.hidden = true;
  poll(loadValues, 10_000, signal);

  // ---- words ----
  function drawWords() {
    const { task } = shown;
    const text = JSON.stringify([task.comment, task.tags]);
    if (words.drawn === text) return;
    words.drawn = text;
    const save = async (fields) => {
      await call('tasks.update', { task: shown.task.id, ...fields });
      await shown.refresh();
    };
    const comment = () => ask({
      title: 'Comment',
      fields: [field('Comment', h('textarea', { name: 'comment', rows: 6, value: task.comment ?? '' }))],
      confirm: 'Save',
      act: save,
    });
    const add = () => ask({
      title: 'Add a tag',
      fields: [field('Tag', h('input', { name: 'tag', autocomplete: 'off' }))],
      confirm: 'Add',
      act: ({ tag }) => {
        if (!tag.trim()) throw new Error('Enter a tag.');
        return save({ tags: [...(shown.task.tags ?? []), tag.trim()] });
      },
    });
    replace(words,
      h('h2', {}, 'Notes', h('span', { class: 'spring' }), button({ text: 'Edit', icon: 'edit', kind: 'quiet', label: 'Edit the comment' }, comment)),
      task.comment ? h('p', { class: 'comment' }, task.comment) : h('p', { class: 'hint' }, 'No comment.'),
      h('div', { class: 'tags' }, (task.tags ?? []).map((tag) =>
        h('span', { class: 'tag' }, tag, button({ icon: 'close', label: `Remove the tag ${tag}` }, () =>
          attempt('Could not remove the tag', () => save({ tags: shown.task.tags.filter((other) => other !== tag) }))))),
        button({ text: 'Tag', icon: 'plus', kind: 'quiet' }, add)));
  }

  // ---- times and machine ----
  function drawTimes() {
    const { task } = shown;
    const list = [['Created', task.created], ['Started', task.started], ['Completed', task.completed], ['Last update', task.last_update]].filter(([, value]) => value);
    const text = JSON.stringify(list);
    if (times.drawn === text) return;
    times.drawn = text;
    replace(times, h('h2', {}, 'Times'), facts(list.map(([name, value]) => [name, when(value)])));
  }
  function drawMachine() {
    const runtime = shown.task.runtime ?? {};
    const list = [
      ['Host', runtime.hostname], ['System', runtime.OS ?? runtime.platform], ['Python', runtime.python_version],
      ['Processor', runtime.cpu_cores && `${runtime.cpu_cores} cores, ${runtime.processor ?? ''}`], ['Memory', runtime.memory_gb && `${runtime.memory_gb} GB`],
      ['GPU', runtime.gpu_count && `${runtime.gpu_count} × ${runtime.gpu_type ?? 'GPU'}${runtime.gpu_memory ? `, ${runtime.gpu_memory}` : ''}`],
      ['Driver', runtime.gpu_driver_version], ['Command', runtime.CLI], ['Client', runtime['CLEARML VERSION']],
    ].filter(([, value]) => value);
    const text = JSON.stringify(list);
    if (machine.drawn === text) return;
    machine.drawn = text;
    machine.hidden = list.length === 0;
    replace(machine, h('h2', {}, 'Machine'), facts(list));
  }

  shown.addEventListener('change', draw, { signal });
  draw();
}

/** Names and values side by side. */
export function facts(list) {
  return h('dl', { class: 'pairs' }, list.map(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));
}
