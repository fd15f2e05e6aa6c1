// Queues: who waits, in which order, and who serves them. Entries move by dragging their handle, or with Alt and the
// arrow keys on it.

import { call } from './api.js';
import { dequeue } from './actions.js';
import { button, h, icon, keyed, replace, setAttribute, setText } from './dom.js';
import { many } from './format.js';
import { bind } from './keys.js';
import { go, to } from './route.js';
import { ask, attempt, empty, failed, field, poll, say, setWhen, when } from './ui.js';

const FRESH = 3000;
/** Entries that are shown at first, and more with each wish. */
const STEP = 100;

export function queuesView(container, id, signal) {
  document.title = 'Queues · trainyard';
  const list = h('nav', { class: 'queue-list', 'aria-label': 'Queues' });
  const detail = h('section', { class: 'queue-detail', 'aria-live': 'off' });
  container.append(
    h('div', { class: 'side' }, h('div', { class: 'side-head' }, h('h1', {}, 'Queues'), h('span', { class: 'spring' }), button({ text: 'New', icon: 'plus', label: 'New queue' }, () => create(refresh))), list),
    detail);
  let queues = [];
  const queue = makeQueue(detail, signal, () => refresh());

  const refresh = poll(async () => {
    try {
      const limit = Math.max(STEP, queue.limit);
      const answer = await call('queues.get_all_ex', { order_by: ['name'], max_task_entries: limit }, { signal });
      queues = answer.queues;
      // A queue whose entries fill the answer has more than that; only then is its number asked for.
      await Promise.all(queues.map(async (one) => {
        one.count = one.entries.length < limit ? one.entries.length : (await call('queues.get_num_entries', { queue: one.id }, { signal })).num;
      }));
      draw();
    } catch (error) {
      if (!signal.aborted && error.code > 0 && error.code !== 401) replace(detail, failed('The queues could not be listed', error));
      throw error;
    }
  }, FRESH, signal);

  function draw() {
    keyed(list, queues, (one) => one.id, (one) => h('a', { href: to(['queues', one.id]), class: 'queue-item' }, h('span', { class: 'queue-name' }), h('span', { class: 'count' }), h('span', { class: 'queue-workers' })), (row, one) => {
      setText(row.children[0], one.display_name || one.name);
      setText(row.children[1], one.count);
      setAttribute(row.children[1], 'title', many(one.count, 'task waits', 'tasks wait'));
      setText(row.children[2], one.workers?.length ? many(one.workers.length, 'worker') : 'no worker');
      setAttribute(row.children[2], 'class', `queue-workers ${one.workers?.length ? '' : 'none'}`);
      setAttribute(row, 'aria-current', one.id === (id ?? queues[0]?.id) ? 'page' : null);
    });
    const current = id ? queues.find((one) => one.id === id || one.name === id) : queues[0];
    if (current) queue.show(current);
    else if (!queues.length) replace(detail, empty('No queues', 'A queue holds tasks until a worker takes them.', button({ text: 'New queue', kind: 'primary' }, () => create(refresh))));
    else replace(detail, failed('This queue cannot be shown', new Error('it is not there, or no longer')));
  }
}

function create(refresh) {
  return ask({
    title: 'New queue',
    fields: [field('Name', h('input', { name: 'name', autocomplete: 'off', spellcheck: 'false' }), 'at least three characters')],
    confirm: 'Create',
    act: async ({ name }) => {
      const { id } = await call('queues.create', { name: name.trim() });
      say(`Queue “${name.trim()}” is there; a worker or a binding has to serve it.`);
      go(['queues', id]);
      refresh();
    },
  });
}

function makeQueue(detail, signal, refresh) {
  let queue;
  let dragging = null;
  const shown = { limit: STEP, show };
  const name = h('h2', { class: 'queue-title' });
  const facts = h('p', { class: 'hint' });
  const workers = h('p', { class: 'queue-served' });
  const body = h('ol', { class: 'entries', 'aria-label': 'Tasks waiting' });
  const nothing = empty('Nobody waits', 'Tasks that are enqueued here stand in line until a worker takes them.');
  const more = button({ text: 'Show more' }, () => {
    shown.limit += STEP * 5;
    refresh();
  });
  const head = h('div', { class: 'queue-head' }, h('div', {}, name, facts), h('span', { class: 'spring' }),
    button({ text: 'Rename', icon: 'edit' }, () => rename()),
    button({ text: 'Delete', icon: 'trash', kind: 'danger-quiet' }, () => drop()));
  const hint = h('p', { class: 'hint keys-hint' }, 'Drag a handle, or press ', h('kbd', {}, 'Alt'), ' with ', h('kbd', {}, '↑'), ' ', h('kbd', {}, '↓'), ' ', h('kbd', {}, 'Home'), ' ', h('kbd', {}, 'End'), ' on it, to change the order.');

  function show(one) {
    if (!head.isConnected) replace(detail, head, workers, nothing, body, more, hint);
    if (dragging) return;
    queue = one;
    document.title = `${one.display_name || one.name} · trainyard`;
    setText(name, one.display_name || one.name);
    setText(facts, `${many(one.count, 'task waits', 'tasks wait')}`);
    const served = (one.workers ?? []).map((worker) => worker.name).join('\n');
    if (workers.drawn !== served) {
      workers.drawn = served;
      replace(workers, served ? ['Served by ', served.split('\n').map((worker, index) => [index > 0 && ', ', h('a', { href: to(['workers', worker]) }, worker)])] : [icon('warn'), ' No worker serves this queue now: what waits here does not start.']);
      workers.classList.toggle('none', !served);
    }
    nothing.hidden = one.entries.length > 0;
    hint.hidden = one.entries.length < 2;
    more.hidden = one.count <= one.entries.length;
    const places = new Map(one.entries.map((entry, index) => [entry, index + 1]));
    keyed(body, one.entries, (entry) => entry.task.id, make, (row, entry) => {
      setText(row.place, places.get(entry));
      setText(row.link, entry.task.name || entry.task.id);
      setWhen(row.added, entry.added);
      setAttribute(row.handle, 'aria-label', `Move ${entry.task.name}, place ${places.get(entry)} of ${one.count}`);
    });
  }

  function make({ task, added }) {
    const place = h('span', { class: 'place' });
    const link = h('a', { href: to(['tasks', task.id]), class: 'name' });
    const since = when(added);
    const handle = h('button', { type: 'button', class: 'handle', 'aria-roledescription': 'draggable entry' }, icon('grip'));
    const row = h('li', { class: 'entry', 'data-id': task.id }, handle, place, link, h('span', { class: 'spring' }), h('span', { class: 'hint' }, since),
      button({ icon: 'top', label: `Move ${task.name} to the front`, title: 'To the front' }, () => move(task, 'queues.move_task_to_front')),
      button({ icon: 'bottom', label: `Move ${task.name} to the back`, title: 'To the back' }, () => move(task, 'queues.move_task_to_back')),
      button({ icon: 'close', label: `Remove ${task.name} from the queue`, title: 'Remove from the queue', kind: 'danger-quiet' }, () => remove(task)));
    Object.assign(row, { place, link, added: since, handle });
    handle.addEventListener('keydown', (event) => key(event, task, row));
    handle.addEventListener('pointerdown', (event) => drag(event, task, row));
    return row;
  }

  async function move(task, endpoint, body_ = {}) {
    await attempt('Could not move the entry', async () => {
      const { position } = await call(endpoint, { queue: queue.id, task: task.id, ...body_ });
      setText(document.getElementById('spoken'), `${task.name} is now in place ${position + 1}.`);
    });
    await refresh();
  }

  async function remove(task) {
    if (await dequeue([task])) {
      const next = body.querySelector(`[data-id="${task.id}"]`)?.nextElementSibling ?? body.firstElementChild;
      next?.handle.focus();
    }
    await refresh();
  }

  function key(event, task, row) {
    if (!event.altKey) return;
    const act = {
      ArrowUp: ['queues.move_task_forward', { count: 1 }], ArrowDown: ['queues.move_task_backward', { count: 1 }],
      Home: ['queues.move_task_to_front'], End: ['queues.move_task_to_back'],
    }[event.key];
    if (!act) return;
    event.preventDefault();
    move(task, ...act).then(() => row.handle.focus());
  }

  // ---- dragging ----
  function drag(event, task, row) {
    if (event.button !== 0) return;
    event.preventDefault();
    row.handle.focus();
    // The list holds the pointer: an entry that moves in it would lose it.
    body.setPointerCapture(event.pointerId);
    dragging = row;
    row.classList.add('dragged');
    const before = row.previousElementSibling;
    const follow = ({ clientY }) => {
      const others = [...body.children].filter((other) => other !== row);
      const below = others.find((other) => {
        const box = other.getBoundingClientRect();
        return clientY < box.top + box.height / 2;
      });
      if (row.nextElementSibling !== (below ?? null)) body.insertBefore(row, below ?? null);
      if (clientY < 60) scrollBy(0, -14);
      else if (clientY > innerHeight - 60) scrollBy(0, 14);
    };
    const end = async (last) => {
      body.removeEventListener('pointermove', follow);
      body.removeEventListener('pointerup', end);
      body.removeEventListener('pointercancel', end);
      row.classList.remove('dragged');
      const changed = row.previousElementSibling !== before;
      if (changed && last.type === 'pointerup') await drop_(task, row);
      dragging = null;
      await refresh();
      row.handle.focus();
    };
    body.addEventListener('pointermove', follow);
    body.addEventListener('pointerup', end);
    body.addEventListener('pointercancel', end);
  }

  /** Moves the entry behind the one it was dropped behind, wherever that stands by now. */
  function drop_(task, row) {
    const behind = row.previousElementSibling?.dataset.id;
    return attempt('Could not move the entry', async () => {
      const { queue: fresh } = await call('queues.get_by_id', { queue: queue.id, max_task_entries: shown.limit + STEP });
      const order = fresh.entries.map((entry) => entry.task);
      const from = order.indexOf(task.id);
      const left = order.filter((other) => other !== task.id);
      const target = behind ? left.indexOf(behind) + 1 : 0;
      const by = target - from;
      if (from < 0) throw new Error('it has left the queue meanwhile');
      if (by === 0) return;
      const { position } = await call(by < 0 ? 'queues.move_task_forward' : 'queues.move_task_backward', { queue: queue.id, task: task.id, count: Math.abs(by) });
      setText(document.getElementById('spoken'), `${task.name} is now in place ${position + 1}.`);
    });
  }

  // ---- the queue itself ----
  function rename() {
    return ask({
      title: 'Rename queue',
      text: 'Scripts and bindings that name it must use the new name.',
      fields: [field('Name', h('input', { name: 'name', value: queue.name, autocomplete: 'off', spellcheck: 'false' }))],
      confirm: 'Rename',
      act: async ({ name: wanted }) => {
        await call('queues.update', { queue: queue.id, name: wanted.trim() });
        refresh();
      },
    });
  }
  function drop() {
    return ask({
      title: `Delete the queue “${queue.name}”?`,
      text: queue.count ? `${many(queue.count, 'task waits', 'tasks wait')} in it: they leave it and become what they were before.` : 'Nobody waits in it.',
      confirm: 'Delete',
      danger: true,
      act: async () => {
        await call('queues.delete', { queue: queue.id, force: queue.count > 0 });
        go(['queues']);
        refresh();
      },
    });
  }
  signal.addEventListener('abort', () => (dragging = null));
  bind('n', 'New queue', () => create(refresh));
  return shown;
}
