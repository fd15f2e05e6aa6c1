// What one can do with tasks: each asks what it must know, calls the server, and says what came of it.

import { call, deleteFiles, Refusal } from './api.js';
import { h } from './dom.js';
import { many } from './format.js';
import { to } from './route.js';
import { ask, attempt, field, say, tick } from './ui.js';

const ENQUEUED = ['created', 'stopped', 'failed'];
const RUN = ['stopped', 'failed', 'completed', 'in_progress', 'queued', 'closed'];

/** Which actions the server would grant, by status (§3.4). */
export const possible = {
  enqueue: (task) => ENQUEUED.includes(task.status) || task.status === 'queued',
  abort: (task) => task.status === 'queued' || task.status === 'in_progress',
  dequeue: (task) => task.status === 'queued',
  reset: (task) => RUN.includes(task.status),
  publish: (task) => ['stopped', 'failed', 'completed', 'closed'].includes(task.status),
  archive: (task) => !isArchived(task),
  unarchive: (task) => isArchived(task),
  edit: (task) => task.status === 'created',
};

export function isArchived(task) {
  return task.system_tags?.includes('archived') ?? false;
}

function named(tasks) {
  return tasks.length === 1 ? `“${tasks[0].name}”` : many(tasks.length, 'task');
}

/** Calls the `_many` form; what some tasks were refused is told with its reason. */
async function ofMany(endpoint, tasks, body) {
  const { succeeded, failed } = await call(endpoint, { ids: tasks.map((task) => task.id), ...body });
  if (failed?.length) {
    const name = tasks.find((task) => task.id === failed[0].id)?.name ?? failed[0].id;
    const rest = failed.length > 1 ? ` (and ${many(failed.length - 1, 'more', 'more')})` : '';
    throw new Refusal(`“${name}”: ${failed[0].error.msg}${rest}`, 400, 0);
  }
  return succeeded;
}

async function queueChoice(current) {
  const { queues } = await call('queues.get_all', { only_fields: ['id', 'name', 'display_name'], order_by: ['name'] });
  return h(
    'select',
    { name: 'queue', required: true },
    queues.map(({ id, name, display_name: shown }) => h('option', { value: id, selected: current ? id === current : name === 'default' }, shown || name)),
  );
}

/** Puts tasks into a queue that is chosen; those queued elsewhere move. */
export async function enqueue(tasks) {
  let choice;
  if (!(await attempt('could not list the queues', async () => (choice = await queueChoice(lastQueue))))) return false;
  return ask({
    title: `Enqueue ${named(tasks)}`,
    fields: [
      field('Queue', choice),
      tick('front', 'Put it first in line'),
    ],
    confirm: 'Enqueue',
    act: async ({ queue, front }) => {
      lastQueue = queue;
      await ofMany('tasks.enqueue_many', tasks, { queue });
      if (front) for (const task of tasks.toReversed()) await call('queues.move_task_to_front', { queue, task: task.id });
      const name = choice.selectedOptions[0].textContent;
      say(`${cap(named(tasks))} ${tasks.length === 1 ? 'waits' : 'wait'} in “${name}”.`, { link: { href: to(['queues', queue]), text: 'Open queue' } });
    },
  });
}
let lastQueue;

function cap(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Copies a task into a draft, with its parameters, code and container. */
export function clone(task) {
  return ask({
    title: 'Clone task',
    text: 'The copy is a draft with the same code, container and parameters, without results.',
    fields: [
      field('Name', h('input', { name: 'name', value: `Clone of ${task.name}`, autocomplete: 'off' })),
      field('Comment', h('textarea', { name: 'comment', rows: 2, value: task.comment ?? '' })),
    ],
    confirm: 'Clone',
    act: async ({ name, comment }) => {
      const { id } = await call('tasks.clone', { task: task.id, new_task_name: name, new_task_comment: comment });
      say(`“${name}” is a draft: edit its parameters, then enqueue it.`);
      location.hash = to(['tasks', id, 'parameters']);
    },
  });
}

/** Stops tasks: those that run are told to, those that wait leave their queue. */
export function abort(tasks) {
  return ask({
    title: `Abort ${named(tasks)}?`,
    text: tasks.some((task) => task.status === 'in_progress')
      ? `${tasks.length === 1 ? 'Its worker is told to stop it.' : 'Workers are told to stop what runs; what waits leaves its queue.'} What was logged and uploaded until then stays.`
      : tasks.length === 1 ? 'It leaves its queue and is marked as aborted.' : 'They leave their queues and are marked as aborted.',
    confirm: 'Abort',
    danger: true,
    act: () => ofMany('tasks.stop_many', tasks, { status_reason: 'aborted on the page' }),
  });
}

export function dequeue(tasks) {
  return attempt('Could not dequeue', async () => {
    await ofMany('tasks.dequeue_many', tasks, {});
    say(`${cap(named(tasks))} left ${tasks.length === 1 ? 'its queue' : 'their queues'}.`);
  });
}

/** Takes tasks back to drafts; logs, results and output go. */
export function reset(tasks) {
  return ask({
    title: `Reset ${named(tasks)}?`,
    text: tasks.length === 1
      ? 'It becomes a draft again. Its log, scalars, plots, artifacts and unpublished models are deleted for good.'
      : 'They become drafts again. Their logs, scalars, plots, artifacts and unpublished models are deleted for good.',
    confirm: 'Reset',
    danger: true,
    act: () => ofMany('tasks.reset_many', tasks, {}),
  });
}

export function publish(tasks) {
  return ask({
    title: `Publish ${named(tasks)}?`,
    text: 'What is published can no longer be changed or reset, and takes no more reports.',
    confirm: 'Publish',
    act: () => ofMany('tasks.publish_many', tasks, {}),
  });
}

export function archive(tasks) {
  return attempt('Could not archive', async () => {
    await ofMany('tasks.archive_many', tasks, {});
    say(`${cap(named(tasks))} ${tasks.length === 1 ? 'is' : 'are'} archived: the list shows ${tasks.length === 1 ? 'it' : 'them'} again with “Archived”.`);
  });
}

export function unarchive(tasks) {
  return attempt('Could not take it out of the archive', () => ofMany('tasks.unarchive_many', tasks, {}));
}

/** Deletes tasks with all that they reported, and their files if wanted. */
export function remove(tasks) {
  const live = tasks.filter((task) => task.status === 'in_progress' || task.status === 'published');
  return ask({
    title: `Delete ${named(tasks)}?`,
    text: [
      'Log, scalars, plots and unpublished models go with it. This cannot be undone.',
      live.length > 0 && h('p', { class: 'warning' }, `${named(live)}: running or published, and deleted all the same.`),
    ],
    fields: [tick('files', 'Delete artifacts, models and samples from this server too', true)],
    confirm: 'Delete',
    danger: true,
    act: async ({ files }) => {
      const done = await ofMany('tasks.delete_many', tasks, { force: true, return_file_urls: Boolean(files), delete_external_artifacts: Boolean(files) });
      const addresses = done.flatMap(({ urls }) => Object.values(urls ?? {}).flat());
      const gone = files ? await deleteFiles(addresses) : 0;
      say(`Deleted ${named(tasks)}${gone ? ` and ${many(gone, 'file')}` : ''}.`);
    },
  });
}

/** Name of every action, in the order in which menus show them. */
export const ACTIONS = [
  { id: 'enqueue', text: 'Enqueue', icon: 'play', act: enqueue },
  { id: 'dequeue', text: 'Dequeue', icon: 'queue', act: dequeue },
  { id: 'abort', text: 'Abort', icon: 'stop', act: abort },
  { id: 'reset', text: 'Reset', icon: 'reset', act: reset },
  { id: 'publish', text: 'Publish', icon: 'check', act: publish },
  { id: 'archive', text: 'Archive', icon: 'box', act: archive },
  { id: 'unarchive', text: 'Take out of the archive', icon: 'box', act: unarchive },
  { id: 'remove', text: 'Delete', icon: 'trash', act: remove, danger: true },
];

/** Whether all of the tasks can take an action. */
export function allCan(id, tasks) {
  return tasks.length > 0 && tasks.every((task) => possible[id]?.(task) ?? true);
}
