// The list of tasks: filters and order stand in the address, one page of rows is loaded, and kept fresh in place.

import { call } from './api.js';
import { ACTIONS, allCan, isArchived } from './actions.js';
import { button, h, icon, keyed, replace, setAttribute, setText } from './dom.js';
import { duration, many, number, ran } from './format.js';
import { bind } from './keys.js';
import { go, here, note, to } from './route.js';
import { attempt, empty, failed, FILTERED, poll, say, setState, settled, setWhen, state, stateName, when } from './ui.js';

const PAGE = 50;
const FRESH = 4000;

/** Columns: title, field that orders by it, width class. */
const COLUMNS = [
  { id: 'name', text: 'Task', order: 'name' },
  { id: 'state', text: 'State', order: 'status' },
  { id: 'project', text: 'Project' },
  { id: 'user', text: 'User', order: 'user' },
  { id: 'iteration', text: 'Iteration', order: 'last_iteration', number: true },
  { id: 'ran', text: 'Ran', order: 'active_duration', number: true },
  { id: 'started', text: 'Started', order: 'started' },
  { id: 'updated', text: 'Updated', order: 'last_update' },
];

const FIELDS = [
  'id', 'name', 'status', 'status_message', 'status_reason', 'type', 'tags', 'system_tags', 'project.name', 'user.name',
  'last_iteration', 'active_duration', 'started', 'completed', 'last_update',
];

/** What the address asks for. */
function asked(query) {
  return {
    search: query.get('search') ?? '',
    project: query.get('project') ?? '',
    status: (query.get('status') ?? '').split(',').filter(Boolean),
    tag: query.get('tag') ?? '',
    user: query.get('user') ?? '',
    archived: query.get('archived') === '1',
    order: query.get('order') ?? '-last_update',
    page: Math.max(0, Number.parseInt(query.get('page') ?? '1', 10) - 1 || 0),
    metrics: query.getAll('metric').flatMap((text) => text.split(',')).filter(Boolean),
  };
}

/** The same as a request: one row more than shown tells whether there is a next page. */
function request(want) {
  const body = {
    only_fields: [...FIELDS, ...want.metrics.map((metric) => `last_metrics.${metric}`)],
    order_by: [want.order],
    start: want.page * PAGE,
    size: PAGE + 1,
    system_tags: want.archived ? ['archived'] : ['-archived'],
  };
  if (want.search) {
    body._any_ = { fields: ['name', 'id', 'comment', 'tags'], pattern: `(?i)${want.search.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}` };
  }
  if (want.project) Object.assign(body, { project: [want.project], include_subprojects: true });
  if (want.status.length) body.status = want.status;
  if (want.tag) body.tags = [want.tag];
  if (want.user) body.user = [want.user];
  return body;
}

export function tasksView(container, query, signal) {
  document.title = 'Tasks · trainyard';
  let want = asked(query);
  const chosen = new Map();
  let shown = [];

  const change = (changes, keepPage = false) => {
    note({ ...changes, ...(keepPage ? {} : { page: '' }) });
    want = asked(here().query);
    drawFilters();
    drawHead();
    refresh();
  };

  // ---- filters ----
  const search = h('input', {
    type: 'search', class: 'search', placeholder: 'Search name, id, comment, tag', 'aria-label': 'Search tasks', value: want.search, spellcheck: 'false',
    on: { input: settled(() => change({ search: search.value.trim() }), 250) },
  });
  const project = h('select', { 'aria-label': 'Project', on: { change: () => change({ project: project.value }) } });
  const tag = h('select', { 'aria-label': 'Tag', on: { change: () => change({ tag: tag.value }) } });
  const user = h('select', { 'aria-label': 'User', hidden: !want.user, on: { change: () => change({ user: user.value }) } });
  const states = h('div', { class: 'chips', role: 'group', 'aria-label': 'State' });
  const archived = h('button', { type: 'button', class: 'chip', on: { click: () => change({ archived: want.archived ? '' : '1' }) } }, 'Archived');
  const clear = button({ text: 'Clear filters', kind: 'quiet' }, () => {
    search.value = '';
    project.value = tag.value = user.value = '';
    change({ search: '', project: '', status: '', tag: '', user: '', archived: '' });
  });

  function drawFilters() {
    if (!states.children.length) {
      for (const status of FILTERED) {
        states.append(h('button', { type: 'button', class: 'chip', 'data-state': status, on: { click: () => toggle(status) } }, stateName(status)));
      }
      states.append(archived);
    }
    for (const chip of states.children) {
      const on = chip === archived ? want.archived : want.status.includes(chip.dataset.state);
      setAttribute(chip, 'aria-pressed', String(on));
    }
    clear.hidden = !(want.search || want.project || want.status.length || want.tag || want.user || want.archived);
  }
  const toggle = (status) => {
    const on = want.status.includes(status) ? want.status.filter((other) => other !== status) : [...want.status, status];
    change({ status: on.join(',') });
  };
  const options = (select, all, items, current) => {
    replace(select, h('option', { value: '' }, all), items.map(([value, text]) => h('option', { value, selected: value === current }, text)));
    if (current && !items.some(([value]) => value === current)) select.append(h('option', { value: current, selected: true }, current));
    select.value = current;
  };
  options(project, 'All projects', [], want.project);
  options(tag, 'All tags', [], want.tag);
  options(user, 'All users', [], want.user);
  Promise.all([
    call('projects.get_all', { only_fields: ['id', 'name'], order_by: ['name'], start: 0, size: 10000 }, { signal }),
    call('projects.get_task_tags', {}, { signal }),
    call('users.get_all_ex', { only_fields: ['id', 'name'] }, { signal }),
  ]).then(([{ projects }, { tags }, { users }]) => {
    options(project, 'All projects', projects.map(({ id, name }) => [id, name]), want.project);
    options(tag, 'All tags', tags.map((name) => [name, name]), want.tag);
    options(user, 'All users', users.map(({ id, name }) => [id, name]), want.user);
    user.hidden = users.length < 2;
  }).catch((error) => {
    if (!signal.aborted && error.code > 0 && error.code !== 401) say(`Projects, tags and users could not be listed: ${error.message}`, { error: true });
  });

  // ---- rows ----
  const all = h('input', { type: 'checkbox', 'aria-label': 'Choose all on this page', on: { change: () => {
    for (const task of shown) all.checked ? chosen.set(task.id, task) : chosen.delete(task.id);
    drawRows();
  } } });
  const head = h('tr');
  const body = h('tbody');
  const table = h('table', { class: 'list tasks' }, h('thead', {}, head), body);
  const place = h('div', { class: 'scroller', hidden: true }, table);
  const state_ = h('div', {}, h('p', { class: 'loading' }, 'Loading…'));
  const range = h('span', { class: 'hint' });
  const previous = button({ icon: 'left', label: 'Previous page' }, () => turn(-1));
  const next = button({ icon: 'right', label: 'Next page' }, () => turn(1));
  const pages = h('nav', { class: 'pages', 'aria-label': 'Pages', hidden: true }, range, previous, next);
  const bar = h('div', { class: 'selection', role: 'region', 'aria-label': 'Chosen tasks', hidden: true });

  function drawHead() {
    const metrics = want.metrics.map((path) => ({ id: path, path, text: metricName(path), number: true, order: `last_metrics.${path}.value` }));
    const signature = JSON.stringify([want.order, metrics]);
    if (head.drawn === signature) return;
    head.drawn = signature;
    const focused = head.contains(document.activeElement) ? document.activeElement.closest('th').dataset.column : undefined;
    replace(head, h('th', { class: 'tick-cell' }, all), [...COLUMNS, ...metrics].map((column) => {
      const descending = want.order === `-${column.order}`;
      const current = descending || want.order === column.order;
      const { text } = column;
      const title = column.order
        ? h('button', { type: 'button', class: 'sort', on: { click: () => change({ order: current ? (descending ? column.order : `-${column.order}`) : (column.number || /started|last_update/.test(column.order) ? `-${column.order}` : column.order) }) } }, text, current && icon(descending ? 'down' : 'up'))
        : text;
      return h('th', { scope: 'col', 'data-column': column.id, class: `${column.number ? 'number' : ''} c-${column.path ? 'metric' : column.id}`, 'aria-sort': current ? (descending ? 'descending' : 'ascending') : null }, title,
        column.path && button({ icon: 'close', label: `Remove the column ${text}`, kind: 'quiet' }, () => change({ metric: want.metrics.filter((path) => path !== column.path).join(',') })));
    }));
    if (focused) [...head.children].find((cell) => cell.dataset.column === focused)?.querySelector('button')?.focus();
  }

  const makeRow = (task) => {
    const box = h('input', { type: 'checkbox', 'aria-label': `Choose ${task.name}`, on: { change: () => {
      box.checked ? chosen.set(task.id, row.task) : chosen.delete(task.id);
      drawRows();
    } } });
    const name = h('a', { href: to(['tasks', task.id]), class: 'name' });
    const about = h('div', { class: 'about' });
    const cells = {
      box, name, about, state: state(task), project: h('a', { class: 'quiet-link' }), user: h('span'), iteration: h('span'), ran: h('span'), started: when(task.started), updated: when(task.last_update),
    };
    const row = h('tr', { 'data-id': task.id },
      h('td', { class: 'tick-cell' }, box),
      h('td', { class: 'c-name' }, name, about),
      h('td', { class: 'c-state' }, cells.state),
      h('td', { class: 'c-project' }, cells.project),
      h('td', { class: 'c-user' }, cells.user),
      h('td', { class: 'number c-iteration' }, cells.iteration),
      h('td', { class: 'number c-ran' }, cells.ran),
      h('td', { class: 'c-started' }, cells.started),
      h('td', { class: 'c-updated' }, cells.updated));
    row.cells_ = cells;
    return row;
  };
  const updateRow = (row, task) => {
    row.task = task;
    const cells = row.cells_;
    cells.box.checked = chosen.has(task.id);
    setAttribute(row, 'aria-selected', chosen.has(task.id) ? 'true' : null);
    setText(cells.name, task.name || task.id);
    const reason = ['failed', 'stopped'].includes(task.status) ? task.status_message || task.status_reason : '';
    const about = [task.type === 'training' ? '' : (task.type ?? '').replaceAll('_', ' '), ...(task.tags ?? []), reason, isArchived(task) && !want.archived ? 'archived' : ''].join('\n');
    if (cells.about.drawn !== about) {
      cells.about.drawn = about;
      replace(cells.about,
        task.type && task.type !== 'training' && h('span', { class: 'type' }, task.type.replaceAll('_', ' ')),
        (task.tags ?? []).map((name) => h('span', { class: 'tag' }, name)),
        reason && h('span', { class: `reason ${task.status}`, title: reason }, reason));
    }
    setState(cells.state, task);
    setText(cells.project, task.project?.name ?? '–');
    setAttribute(cells.project, 'title', task.project?.name);
    if (task.project) setAttribute(cells.project, 'href', to(['tasks'], { project: task.project.id }));
    setText(cells.user, task.user?.name ?? '');
    setText(cells.iteration, task.last_iteration ? number(task.last_iteration) : '');
    setText(cells.ran, duration(ran(task)));
    setWhen(cells.started, task.started);
    setWhen(cells.updated, task.last_update);
    while (row.children.length > 9 + want.metrics.length) row.lastElementChild.remove();
    want.metrics.forEach((path, index) => {
      if (!row.children[9 + index]) row.append(h('td', { class: 'number c-metric' }));
      const [metric, variant] = path.split('.');
      const found = task.last_metrics?.[metric]?.[variant];
      if (found) names.set(path, `${found.metric} / ${found.variant}`);
      setText(row.children[9 + index], found ? number(found.value) : '');
    });
  };

  function drawRows() {
    keyed(body, shown, (task) => task.id, makeRow, updateRow);
    all.checked = shown.length > 0 && shown.every((task) => chosen.has(task.id));
    all.indeterminate = !all.checked && shown.some((task) => chosen.has(task.id));
    drawBar();
  }

  // ---- what is chosen ----
  function drawBar() {
    const tasks = [...chosen.values()];
    bar.hidden = tasks.length === 0;
    const signature = tasks.map((task) => task.id + task.status + isArchived(task)).join();
    if (bar.hidden || bar.drawn === signature) return;
    bar.drawn = signature;
    const done = async (act) => {
      if (await act(tasks)) {
        chosen.clear();
        refresh();
      }
    };
    replace(bar,
      h('span', {}, h('strong', {}, many(tasks.length, 'task')), ' chosen'),
      h('span', { class: 'spring' }),
      tasks.length > 1 && tasks.length <= 12 && button({ text: 'Compare', icon: 'compare' }, () => go(['compare'], { tasks: tasks.map((task) => task.id).join(',') })),
      ACTIONS.filter(({ id }) => allCan(id, tasks)).map((action) =>
        button({ text: action.text, icon: action.icon, kind: action.danger ? 'danger-quiet' : '' }, () => done(action.act))),
      button({ icon: 'close', label: 'Choose none' }, () => { chosen.clear(); drawRows(); all.focus(); }));
  }

  // ---- fresh data ----
  let last = '';
  async function load() {
    const body_ = request(want);
    const wanted = JSON.stringify(body_);
    const { tasks } = await call('tasks.get_all_ex', body_, { signal });
    if (wanted !== JSON.stringify(request(want))) return;
    const more = tasks.length > PAGE;
    shown = tasks.slice(0, PAGE);
    for (const task of shown) if (chosen.has(task.id)) chosen.set(task.id, task);
    drawRows();
    if (want.metrics.length) drawHead();
    const filtered = !clear.hidden;
    const kind = shown.length > 0 ? 'some' : want.page ? 'beyond' : filtered ? 'filtered' : 'none';
    place.hidden = kind !== 'some';
    if (last !== kind) replace(state_, EMPTY[kind]?.(change));
    last = kind;
    const first = want.page * PAGE + 1;
    setText(range, shown.length ? `${first}–${first + shown.length - 1}${more ? '' : ` of ${first + shown.length - 1}`}` : '');
    // Not `disabled`: that would take the focus away from who turns pages.
    setAttribute(previous, 'aria-disabled', want.page === 0 ? 'true' : null);
    setAttribute(next, 'aria-disabled', more ? null : 'true');
    pages.hidden = want.page === 0 && !more && shown.length === 0;
    pages.more = more;
  }
  const turn = (step) => {
    if (step > 0 ? !pages.more : want.page === 0) return;
    change({ page: want.page + step > 0 ? want.page + step + 1 : '' }, true);
    scrollTo(0, 0);
  };
  const refresh = poll(async () => {
    try {
      await load();
    } catch (error) {
      if (!signal.aborted && error.code !== 0 && error.code !== 401) {
        last = 'failed';
        replace(state_, failed('The tasks could not be listed', error));
      }
      throw error;
    }
  }, FRESH, signal);

  container.append(
    h('h1', { class: 'unseen' }, 'Tasks'),
    h('div', { class: 'filters' }, h('div', { class: 'search-box' }, icon('search'), search), project, user, tag, metricChooser(() => shown, () => want, change), states, clear),
    state_, place, pages, bar);
  drawFilters();
  drawHead();

  // ---- keys ----
  const rows = () => [...body.querySelectorAll('a.name')];
  const step = (by) => {
    const links = rows();
    const at = links.indexOf(document.activeElement?.closest?.('tr')?.querySelector('a.name'));
    links[Math.min(links.length - 1, Math.max(0, at < 0 ? 0 : at + by))]?.focus();
  };
  bind('/', 'Search', () => search.focus());
  bind('j', 'Next task', () => step(1));
  bind('k', 'Previous task', () => step(-1));
  bind('x', 'Choose the task with the focus', () => document.activeElement?.closest?.('tr')?.querySelector('input')?.click());
  bind('[', 'Previous page', () => turn(-1));
  bind(']', 'Next page', () => turn(1));
}

const EMPTY = {
  none: () => empty('No tasks yet', 'Run a script that calls Task.init() with the clearml.conf of this server: it appears here within seconds.',
    h('pre', { class: 'example' }, 'from clearml import Task\n\ntask = Task.init(project_name="examples", task_name="first")')),
  filtered: () => empty('Nothing matches', 'No task fits the search and filters.'),
  beyond: (change) => empty('The list ends before this page', '', button({ text: 'First page' }, () => change({}))),
};

// ---- metric columns ----

const names = new Map();

function metricName(path) {
  return names.get(path) ?? 'metric';
}

/** Offers the curves of the tasks shown as further columns. */
function metricChooser(shown, want, change) {
  return button({ text: 'Metric', icon: 'plus', title: 'Add a column with the last value of a metric' }, ({ currentTarget: from }) => attempt('The metrics could not be listed', async () => {
    const ids = shown().map((task) => task.id);
    if (!ids.length) return say('There is no task to take metrics from.');
    const { tasks } = await call('tasks.get_all_ex', { id: ids, only_fields: ['last_metrics'] });
    const found = new Map();
    for (const task of tasks) {
      for (const [metric, variants] of Object.entries(task.last_metrics ?? {})) {
        for (const [variant, value] of Object.entries(variants)) found.set(`${metric}.${variant}`, `${value.metric} / ${value.variant}`);
      }
    }
    for (const [path, name] of found) names.set(path, name);
    const offered = [...found].filter(([path]) => !want().metrics.includes(path)).sort((a, b) => a[1].localeCompare(b[1]));
    if (!offered.length) return say('The tasks shown have no further metrics.');
    const menu = h('div', { class: 'menu', role: 'menu', popover: 'auto' }, offered.map(([path, name]) =>
      h('button', { type: 'button', role: 'menuitem', on: { click: () => { menu.hidePopover(); change({ metric: [...want().metrics, path].join(',') }, true); } } }, name)));
    openMenu(menu, from);
  }));
}

/** Opens a menu below its button; arrow keys move, Escape closes and gives the focus back. */
export function openMenu(menu, from) {
  document.body.append(menu);
  menu.showPopover();
  const box = from.getBoundingClientRect();
  menu.style.left = `${Math.max(8, Math.min(box.left, innerWidth - menu.offsetWidth - 8))}px`;
  menu.style.top = `${Math.max(8, Math.min(box.bottom + 4, innerHeight - menu.offsetHeight - 8))}px`;
  const items = [...menu.querySelectorAll('[role=menuitem]')];
  items[0]?.focus();
  menu.addEventListener('keydown', (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    items[(items.indexOf(document.activeElement) + by + items.length) % items.length].focus();
  });
  menu.addEventListener('toggle', ({ newState }) => {
    if (newState !== 'closed') return;
    if (menu.contains(document.activeElement) || document.activeElement === document.body) from.focus();
    menu.remove();
  });
}
