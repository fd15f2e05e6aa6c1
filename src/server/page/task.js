// One task: its head with state and actions, and the tabs below.

import { call } from './api.js';
import { ACTIONS, clone, possible, isArchived } from './actions.js';
import { button, h, icon, replace, setAttribute, setText } from './dom.js';
import { duration, number, ran } from './format.js';
import { bind } from './keys.js';
import { go, to } from './route.js';
import { ask, copyable, failed, field, minute, poll, setState, state, tabs, when } from './ui.js';
import { openMenu } from './tasks.js';
import { overviewTab } from './overview.js';
import { logTab } from './log.js';
import { scalarsTab } from './scalars.js';
import { plotsTab } from './plots.js';
import { samplesTab } from './samples.js';
import { filesTab } from './files.js';
import { parametersTab } from './parameters.js';
import { executionTab } from './execution.js';

const FRESH = 3000;
const TABS = [
  { id: 'overview', text: 'Overview', draw: overviewTab },
  { id: 'log', text: 'Log', draw: logTab },
  { id: 'scalars', text: 'Scalars', draw: scalarsTab },
  { id: 'plots', text: 'Plots', draw: plotsTab },
  { id: 'samples', text: 'Samples', draw: samplesTab },
  { id: 'files', text: 'Files', draw: filesTab },
  { id: 'parameters', text: 'Parameters', draw: parametersTab },
  { id: 'execution', text: 'Execution', draw: executionTab },
];

/** The task shown last, so that a change of tab draws its head at once, and its stamp when it was read. */
let known;
let stamped;

/** What tells whether a task has changed, the names of others in its document aside. */
const STAMP = ['status', 'status_message', 'last_update', 'last_change'];
const stamp = (task) => JSON.stringify([...STAMP.map((member) => task[member]), minute()]);

/**
 * What the tabs share: the task's document, a way to hear of its changes, and a way to have it read again.
 */
class Shown extends EventTarget {
  constructor(task) {
    super();
    this.task = task;
  }
  take(task) {
    this.task = task;
    this.dispatchEvent(new Event('change'));
  }
  /**
   * Becomes another one when there may be more to show: with each report and change of the task or, where a `kind` is
   * named, each report of that kind; and every minute, since reports can be deleted without a trace.
   */
  mark(kind) {
    const { status, started, last_update: updated, metric_stats: stats } = this.task;
    const reported = Object.values(stats ?? {}).map((one) => one.event_stats_by_type?.[kind]?.last_update).filter(Boolean);
    return JSON.stringify([status, started, kind ? reported : updated, minute()]);
  }
}

export async function taskView(container, id, tab, query, signal) {
  document.title = 'Task · trainyard';
  const read = async (fields) => {
    const { tasks } = await call('tasks.get_all_ex', { id: [id], search_hidden: true, only_fields: fields }, { signal });
    if (!tasks[0]) throw Object.assign(new Error('it is not there, or no longer'), { code: 404 });
    return tasks[0];
  };
  if (known?.id !== id) {
    container.append(h('p', { class: 'loading' }, 'Loading…'));
    try {
      known = await read();
      stamped = stamp(known);
    } catch (error) {
      if (!signal.aborted) replace(container, failed(`Task ${id} cannot be shown`, error), h('p', {}, h('a', { href: to(['tasks']) }, 'All tasks')));
      return;
    }
  }
  if (signal.aborted) return;
  const shown = new Shown(known);
  const current = TABS.find((one) => one.id === tab) ?? TABS[0];
  const panel = h('section', { class: `panel panel-${current.id}`, 'aria-label': current.text });
  const head = drawHead(shown, () => refresh());
  replace(container, head,
    tabs('Parts of the task', TABS.map(({ id: name, text }) => ({ id: name, text, href: to(['tasks', id, ...(name === 'overview' ? [] : [name])]) })), current.id), panel);
  container.querySelector('.tab[aria-current]').scrollIntoView({ inline: 'center', block: 'nearest' });
  shown.refresh = () => refresh();
  const refresh = poll(async () => {
    try {
      // The document may be large: it is read again only where it has changed.
      if (stamp(await read(STAMP)) === stamped) return;
      known = await read();
      stamped = stamp(known);
      shown.take(known);
    } catch (error) {
      if (error.code === 404) {
        replace(container, failed('The task is gone', error), h('p', {}, h('a', { href: to(['tasks']) }, 'All tasks')));
        known = undefined;
      }
      throw error;
    }
  }, FRESH, signal);
  signal.addEventListener('abort', () => head.stop());
  current.draw(panel, shown, signal, query);

  const turn = (by) => {
    const next = TABS[(TABS.indexOf(current) + by + TABS.length) % TABS.length];
    go(['tasks', id, ...(next.id === 'overview' ? [] : [next.id])]);
  };
  bind(']', 'Next tab', () => turn(1));
  bind('[', 'Previous tab', () => turn(-1));
  TABS.forEach((one, index) => bind(String(index + 1), `Tab “${one.text}”`, () => go(['tasks', id, ...(one.id === 'overview' ? [] : [one.id])])));
  bind('e', 'Enqueue', () => head.run('enqueue'));
  bind('c', 'Clone', () => head.run('clone'));
  bind('a', 'Abort', () => head.run('abort'));
}

function drawHead(shown, refresh) {
  const { task } = shown;
  const project = h('a', { class: 'quiet-link' });
  const name = h('h1', {});
  const pill = state(task);
  const facts = h('div', { class: 'facts' });
  const message = h('div', { class: 'callout', hidden: true });
  const actions = h('div', { class: 'actions', role: 'toolbar', 'aria-label': 'Actions' });
  const head = h('header', { class: 'task-head' },
    h('div', { class: 'crumbs' }, h('a', { href: to(['tasks']), class: 'quiet-link' }, 'Tasks'), icon('right'), project),
    h('div', { class: 'title' }, name, pill, h('span', { class: 'spring' }), actions), facts, message);

  const after = async (act) => {
    const done = await act([shown.task]);
    if (done) refresh();
  };
  head.run = (id) => {
    if (id === 'clone') return clone(shown.task);
    if (possible[id](shown.task)) after(ACTIONS.find((action) => action.id === id).act);
  };
  const removed = async (tasks) => {
    if (await ACTIONS.find(({ id }) => id === 'remove').act(tasks)) go(['tasks']);
  };

  let drawn = '';
  function drawActions() {
    const now = shown.task;
    const signature = now.status + isArchived(now) + now.name;
    if (signature === drawn) return;
    drawn = signature;
    const direct = ['enqueue', 'abort'].filter((id) => possible[id](now) && !(id === 'enqueue' && now.status === 'queued'));
    const rest = ACTIONS.filter(({ id }) => !direct.includes(id) && (possible[id]?.(now) ?? true));
    const more = button({ icon: 'more', label: 'More actions', 'aria-haspopup': 'menu' }, () => {
      const item = (text, name, act, danger) => h('button', { type: 'button', role: 'menuitem', class: danger ? 'danger-text' : '', on: { click: () => { menu.hidePopover(); act(); } } }, icon(name), text);
      const menu = h('div', { class: 'menu', role: 'menu', popover: 'auto' },
        item('Rename', 'edit', () => rename(shown.task, refresh)),
        rest.map(({ id, text, icon: name, act, danger }) =>
          item(id === 'enqueue' ? 'Move to another queue' : text, name, () => (id === 'remove' ? removed([shown.task]) : after(act)), danger)));
      openMenu(menu, more);
    });
    replace(actions,
      direct.map((id) => {
        const action = ACTIONS.find((one) => one.id === id);
        return button({ text: action.text, icon: action.icon, kind: id === 'enqueue' ? 'primary' : '' }, () => after(action.act));
      }),
      button({ text: 'Clone', icon: 'copy' }, () => clone(shown.task)),
      more);
  }

  function draw() {
    const now = shown.task;
    document.title = `${now.name} · trainyard`;
    setText(name, now.name);
    setText(project, now.project?.name ?? 'no project');
    setAttribute(project, 'href', now.project ? to(['tasks'], { project: now.project.id }) : to(['tasks']));
    setState(pill, now);
    const queue = now.execution?.queue;
    const text = [now.id, now.type, now.user?.name, now.status, queue?.id ?? queue, now.last_worker, now.started, now.last_iteration, now.parent?.id].join('\n');
    if (facts.drawn !== text) {
      facts.drawn = text;
      ranFor = h('span');
      const fact = (label, ...value) => h('span', { class: 'fact' }, h('span', { class: 'fact-name' }, label), ' ', value);
      replace(facts,
        fact('ID', copyable(now.id, 'id')),
        fact('Type', (now.type ?? '').replaceAll('_', ' ')),
        now.user?.name && fact('User', now.user.name),
        now.status === 'queued' && queue?.id && fact('Queue', h('a', { href: to(['queues', queue.id]) }, queue.name ?? queue.id)),
        now.last_worker && fact('Worker', h('a', { href: to(['workers', now.last_worker]) }, now.last_worker)),
        fact(now.started ? 'Started' : 'Created', when(now.started ?? now.created)),
        now.started && fact('Ran', ranFor),
        now.last_iteration > 0 && fact('Iteration', number(now.last_iteration)),
        now.parent?.id && fact('From', h('a', { href: to(['tasks', now.parent.id]) }, now.parent.name ?? now.parent.id)));
    }
    setText(ranFor, duration(ran(now)));
    const say = said(now);
    message.hidden = !say;
    setAttribute(message, 'class', `callout ${now.status === 'failed' ? 'failed' : ''}`);
    if (message.drawn !== say) {
      message.drawn = say;
      replace(message, say && [icon(now.status === 'failed' ? 'warn' : 'help'), h('p', {}, say)]);
    }
    drawActions();
  }
  let ranFor = h('span');
  shown.addEventListener('change', draw);
  const timer = setInterval(() => setText(ranFor, duration(ran(shown.task))), 1000);
  head.stop = () => clearInterval(timer);
  draw();
  return head;
}

/** Why the task is in its state, where there is something to say. */
function said(task) {
  const { status, status_message: message, status_reason: reason } = task;
  if (status === 'in_progress' && message === 'stopping') return 'Asked to stop: its worker ends it.';
  if (!['failed', 'stopped', 'queued'].includes(status)) return '';
  return [...new Set([message, reason].filter(Boolean))].join(' · ');
}

function rename(task, refresh) {
  return ask({
    title: 'Rename task',
    fields: [field('Name', h('input', { name: 'name', value: task.name, autocomplete: 'off' }))],
    confirm: 'Rename',
    act: async ({ name }) => {
      await call('tasks.update', { task: task.id, name });
      refresh();
    },
  });
}
