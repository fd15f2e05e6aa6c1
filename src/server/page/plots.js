// The plots of a task: of each the newest iteration, with a way to the older ones.

import { call } from './api.js';
import { button, h, icon, keyed, replace, setText } from './dom.js';
import { count } from './format.js';
import { plot } from './plot.js';
import { figure, words } from './plotly.js';
import { bind } from './keys.js';
import { ask, attempt, empty, failed, poll, say, settled, toClipboard } from './ui.js';

const FRESH = 8000;
/** How many earlier iterations the arrows of a plot reach. */
const HISTORY = 50;
/** How many plots are shown. */
const MOST = 1000;
/** How much of a plot's JSON is shown. */
const SHOWN = 200_000;

export function plotsTab(panel, shown, signal) {
  const id = shown.task.id;
  const search = h('input', { type: 'search', placeholder: 'Filter plots', 'aria-label': 'Filter plots', spellcheck: 'false' });
  const charts = h('div', { class: 'charts plots' });
  const note = h('div');
  let plots = [];
  panel.append(h('div', { class: 'bar' }, h('div', { class: 'search-box' }, icon('search'), search)), note, charts);

  const key = ({ metric, variant }) => `${metric}\n${variant}`;
  const draw = () => {
    const text = search.value.trim().toLowerCase();
    const wanted = plots.filter((one) => key(one).toLowerCase().includes(text));
    keyed(charts, wanted, key, make, (card, one) => card.update(one));
    if (!plots.length) replace(note, empty('No plots yet', 'Histograms, confusion matrices, tables and matplotlib figures that the task reports appear here.'));
    else replace(note, !wanted.length && empty('Nothing matches', `No plot holds “${search.value}”.`));
  };
  search.addEventListener('input', settled(draw));
  bind('/', 'Filter plots', () => search.focus());

  function make(one) {
    const title = [one.metric, one.variant].filter(Boolean).join(' / ');
    const iteration = h('span', { class: 'hint' });
    const body = h('div', { class: 'plot-body' });
    const card = h('section', { class: 'card chart-card plot-card', 'aria-label': title },
      h('h2', {}, h('span', { class: 'chart-title', title }, title), h('span', { class: 'spring' }),
        button({ icon: 'left', label: `Earlier iteration of ${title}` }, () => step(1)), iteration,
        button({ icon: 'right', label: `Later iteration of ${title}` }, () => step(-1)),
        button({ text: '{ }', label: `JSON of ${title}`, kind: 'quiet' }, () => json(title, card.event)),
        button({ icon: 'expand', label: `Enlarge ${title}` }, () => card.classList.toggle('large'))), body);
    let history = null;
    let back = 0;
    card.update = (event) => {
      if (back > 0 || card.event?.plot_str === event.plot_str) return;
      history = null;
      show(event);
    };
    const show = (event) => {
      card.event = event;
      setText(iteration, `iteration ${event.iter}`);
      try {
        const read = figure(event.plot_str);
        const heading = words(read.layout.title);
        replace(body, heading && heading !== event.metric && heading !== title && h('p', { class: 'plot-title' }, heading), plot(read, signal));
      } catch (error) {
        replace(body, failed('This plot cannot be drawn', error), h('pre', { class: 'example' }, String(event.plot_str ?? '').slice(0, 2000)));
      }
    };
    const step = (by) => attempt('Earlier iterations could not be read', async () => {
      if (!history) {
        const { plots: all } = await call('events.get_task_plots', { task: id, iters: HISTORY, metrics: [{ metric: one.metric, variants: [one.variant] }] }, { signal });
        history = all.sort((a, b) => b.iter - a.iter);
      }
      back = Math.min(history.length - 1, Math.max(0, back + by));
      show(history[back]);
    });
    return card;
  }

  let read;
  const refresh = poll(async () => {
    try {
      const mark = shown.mark('plot');
      if (mark === read) return;
      // Large plots come in several answers.
      const all = [];
      let answer;
      do {
        answer = await call('events.get_task_plots', { task: id, iters: 1, scroll_id: answer?.scroll_id }, { signal });
        all.push(...answer.plots);
      } while (answer.plots.length && all.length < Math.min(answer.total, MOST));
      plots = all.sort((a, b) => key(a).localeCompare(key(b)));
      draw();
      read = mark;
    } catch (error) {
      if (!signal.aborted && error.code > 0 && error.code !== 401) replace(note, failed('The plots could not be read', error));
      throw error;
    }
  }, FRESH, signal);
  shown.addEventListener('change', refresh, { signal });
}

/** The figure as it was reported, to read or to copy. */
function json(title, event) {
  let text = String(event.plot_str ?? '');
  try {
    text = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // Shown as it is.
  }
  return ask({
    title,
    wide: true,
    fields: [
      text.length > SHOWN && h('p', { class: 'hint' }, `The first ${count(SHOWN)} characters; “Copy” takes all of them.`),
      h('pre', { class: 'example tall', tabindex: '0' }, text.slice(0, SHOWN)),
    ],
    confirm: 'Copy',
    act: async () => {
      await toClipboard(text);
      say(`Copied the JSON of ${title}.`);
    },
  });
}
