// Debug samples: pictures, sounds and clips by iteration, the newest first; older ones on demand.

import { call } from './api.js';
import { button, h, keyed, outside, replace, safeUrl } from './dom.js';
import { attempt, empty, failed, poll } from './ui.js';

const FRESH = 8000;
const ITERATIONS = 4;

export function samplesTab(panel, shown, signal) {
  const id = shown.task.id;
  const list = h('div', { class: 'iterations' });
  const note = h('div');
  const metric = h('select', { 'aria-label': 'Metric', on: { change: () => { known.clear(); scroll = undefined; refresh(); } } }, h('option', { value: '' }, 'All metrics'));
  const more = button({ text: 'Older iterations' }, () => attempt('Older samples could not be read', older));
  panel.append(h('div', { class: 'bar' }, metric), note, list, h('div', { class: 'more' }, more));
  more.hidden = true;
  const known = new Map();
  let scroll;

  const asked = () => ({ metrics: [{ task: id, ...(metric.value ? { metric: metric.value } : {}) }], iters: ITERATIONS });
  function take(iterations) {
    for (const one of iterations) known.set(one.iter, one);
    const all = [...known.values()].sort((a, b) => b.iter - a.iter);
    keyed(list, all, ({ iter }) => iter, ({ iter }) => h('section', {}, h('h2', { class: 'group' }, `Iteration ${iter}`), h('div', { class: 'gallery' })), (section, { events }) =>
      keyed(section.lastElementChild, events, (event) => `${event.metric}\n${event.variant}\n${event.url}`, sample));
    replace(note, !all.length && empty('No samples yet', 'Pictures, audio and HTML that the task reports with its Logger appear here.'));
  }
  async function older() {
    const of = metric.value;
    const answer = await call('events.debug_images', { ...asked(), scroll_id: scroll ?? String(ITERATIONS) }, { signal });
    if (of !== metric.value) return;
    scroll = answer.scroll_id;
    const iterations = answer.metrics[0]?.iterations ?? [];
    more.hidden = iterations.length < ITERATIONS;
    take(iterations);
  }
  const refresh = poll(async () => {
    try {
      const of = metric.value;
      const [answer, names] = await Promise.all([
        call('events.debug_images', { ...asked(), refresh: true }, { signal }),
        call('events.get_task_metrics', { tasks: [id], event_type: 'training_debug_image' }, { signal }),
      ]);
      // Another metric was chosen meanwhile: it is asked for next.
      if (of !== metric.value) return;
      const metrics = names.metrics[0]?.metrics ?? [];
      if (metric.options.length !== metrics.length + 1) {
        const current = metric.value;
        replace(metric, h('option', { value: '' }, 'All metrics'), metrics.map((name) => h('option', { value: name }, name)));
        metric.value = current;
      }
      const iterations = answer.metrics[0]?.iterations ?? [];
      if (scroll === undefined) more.hidden = iterations.length < ITERATIONS;
      take(iterations);
    } catch (error) {
      if (!signal.aborted && error.code > 0 && error.code !== 401) replace(note, failed('The samples could not be read', error));
      throw error;
    }
  }, FRESH, signal);
}

/** One sample by its kind; what no browser shows is a link. */
function sample({ metric, variant, url }) {
  const href = safeUrl(url);
  const end = (URL.parse(url ?? '')?.pathname ?? '').split('.').pop().toLowerCase();
  let shown;
  if (href && ['png', 'jpg', 'jpeg', 'gif', 'webp', 'svg', 'bmp', 'avif'].includes(end)) {
    shown = h('a', { href, target: '_blank', rel: 'noopener noreferrer' }, h('img', { src: href, alt: `${metric}, ${variant}`, loading: 'lazy', referrerpolicy: 'no-referrer' }));
  } else if (href && ['wav', 'mp3', 'ogg', 'flac', 'm4a'].includes(end)) shown = h('audio', { src: href, controls: true, preload: 'none' });
  else if (href && ['mp4', 'webm'].includes(end)) shown = h('video', { src: href, controls: true, preload: 'none' });
  else shown = h('p', { class: 'file' }, outside(url, (url ?? '').split('/').pop()));
  return h('figure', {}, shown, h('figcaption', {}, h('span', {}, metric), h('span', { class: 'hint' }, variant)));
}
