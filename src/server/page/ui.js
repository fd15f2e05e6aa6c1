// Parts that several views share: messages, states of tasks, polling, dialogs.

import { button, h, icon, replace, setAttribute, setText } from './dom.js';
import { ago, at } from './format.js';

// ---- messages ----

const said = () => document.getElementById('messages');

/** Says something in the corner, and to screen readers: a sentence, an error, or one with a link to go on. */
export function say(text, { error = false, link } = {}) {
  const close = () => note.remove();
  const note = h(
    'div',
    { class: `message ${error ? 'error' : ''}`, role: error ? 'alert' : null },
    icon(error ? 'warn' : 'check'),
    h('p', {}, text, link && [' ', h('a', { href: link.href, on: { click: close } }, link.text)]),
    button({ icon: 'close', label: 'Dismiss' }, close),
  );
  said().append(note);
  while (said().children.length > 4) said().firstElementChild.remove();
  // Who has come to its link with the keyboard may take the time.
  const leave = () => (note.matches(':focus-within') ? setTimeout(leave, 1000) : close());
  if (!error) setTimeout(leave, 6000);
}

/** Does something and says how it went; true if it went well. */
export async function attempt(what, act) {
  try {
    await act();
    return true;
  } catch (error) {
    if (error.name !== 'AbortError') say(`${what}: ${error.message}`, { error: true });
    return false;
  }
}

/** What stands in place of a list or a chart: nothing there yet, or an error. */
export function empty(title, text, ...more) {
  return h('div', { class: 'empty' }, h('p', { class: 'empty-title' }, title), text && h('p', {}, text), more);
}

export function failed(what, error) {
  return h('div', { class: 'callout failed', role: 'alert' }, icon('warn'), h('p', {}, `${what}: ${error.message}`));
}

// ---- states ----

const STATES = {
  created: 'Draft',
  queued: 'Queued',
  in_progress: 'Running',
  stopped: 'Aborted',
  publishing: 'Publishing',
  published: 'Published',
  closed: 'Closed',
  failed: 'Failed',
  completed: 'Completed',
  unknown: 'Unknown',
};

/** States that a list can be narrowed to. */
export const FILTERED = ['in_progress', 'queued', 'created', 'completed', 'failed', 'stopped', 'published'];

export function stateName(status) {
  return STATES[status] ?? status;
}

/** Whether a running task was asked to stop and has not yet. */
export function isStopping(task) {
  return task.status === 'in_progress' && task.status_message === 'stopping';
}

/** The pill with a task's state: a colour and a word. */
export function state(task) {
  const pill = h('span', { class: 'state' });
  return setState(pill, task);
}

export function setState(pill, task) {
  setAttribute(pill, 'data-state', isStopping(task) ? 'stopping' : task.status);
  setText(pill, isStopping(task) ? 'Stopping' : stateName(task.status));
  return pill;
}

/** A moment: "3 min ago", with the date on hovering. */
export function when(text) {
  const node = h('time', {});
  return setWhen(node, text);
}

export function setWhen(node, text) {
  setText(node, text ? ago(text) : '–');
  setAttribute(node, 'datetime', text);
  setAttribute(node, 'title', text ? at(text) : null);
  return node;
}

// ---- copying ----

/** Puts a text on the clipboard. Over plain HTTP scripts have none; what is selected can be copied even there. */
export async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    if (!copySelected(text)) throw new Error('the browser does not allow it');
  }
}

function copySelected(text) {
  const focused = document.activeElement;
  const area = h('textarea', { class: 'unseen', 'aria-hidden': 'true', value: text });
  // Beside an open dialog nothing can be selected.
  (document.querySelector('dialog[open]') ?? document.body).append(area);
  area.focus({ preventScroll: true });
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  focused?.focus({ preventScroll: true });
  return done;
}

/** Copies a text and says how it went. */
export function copy(text, what) {
  return attempt(`Could not copy ${what}`, async () => {
    await toClipboard(text);
    say(`Copied ${what}.`);
  });
}

/** A text that a click copies, as it is or by what is shown of it. */
export function copyable(text, label, shown = text) {
  return button({ text: shown, icon: 'copy', kind: 'copy mono', title: `Copy ${label}` }, (event) => {
    event.stopPropagation();
    copy(text, label);
  });
}

// ---- time ----

/**
 * Calls `act` now and then every `period` ms while the page is seen, until `signal`; one call at a time. Returns a
 * function that calls it at once, or once more after the call underway, and ends when that has.
 */
export function poll(act, period, signal) {
  let timer;
  let underway = null;
  let again = false;
  const run = async () => {
    do {
      again = false;
      try {
        await act();
      } catch (error) {
        // A call without an answer is told of by the banner; a refusal by the view itself.
        if (!signal.aborted && error.code === undefined && error.name !== 'AbortError') console.error(error);
      }
    } while (again && !signal.aborted);
    underway = null;
    if (!signal.aborted) timer = setTimeout(() => (document.hidden ? undefined : turn()), period);
  };
  const turn = () => {
    clearTimeout(timer);
    if (signal.aborted) return Promise.resolve();
    if (underway) again = true;
    else underway = run();
    return underway;
  };
  document.addEventListener('visibilitychange', () => !document.hidden && turn(), { signal });
  signal.addEventListener('abort', () => clearTimeout(timer));
  turn();
  return turn;
}

/** Changes every minute: for what can become another without a trace in what is looked at. */
export function minute() {
  return Math.floor(Date.now() / 60_000);
}

/** `act`, but only once the calls have stopped for `wait` ms. */
export function settled(act, wait = 200) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...values), wait);
  };
}

// ---- dialogs ----

/**
 * Asks in a dialog. `fields` are elements with names; `act` gets their values, and what it throws is shown inside.
 * Resolves to what `act` returned, or undefined if dismissed.
 */
export function ask({ title, text, fields = [], confirm = 'OK', danger = false, wide = false, act }) {
  return new Promise((done) => {
    let result;
    const error = h('p', { class: 'form-error', role: 'alert', hidden: true });
    const submit = h('button', { class: `button ${danger ? 'danger' : 'primary'}`, type: 'submit' }, confirm);
    const form = h(
      'form',
      { novalidate: true },
      h('h2', { id: 'dialog-title' }, title),
      [text].flat().filter(Boolean).map((part) => (part instanceof Node ? part : h('p', {}, part))),
      fields,
      error,
      h('div', { class: 'dialog-actions' }, button({ text: 'Cancel' }, () => dialog.close()), submit),
    );
    const dialog = h('dialog', { class: wide ? 'wide' : '', 'aria-labelledby': 'dialog-title' }, form);
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      submit.disabled = true;
      error.hidden = true;
      try {
        result = (await act?.(Object.fromEntries(new FormData(form)))) ?? true;
        dialog.close();
      } catch (failure) {
        replace(error, icon('warn'), ` ${failure.message}`);
        error.hidden = false;
      }
      submit.disabled = false;
    });
    dialog.addEventListener('close', () => {
      dialog.remove();
      done(result);
    });
    dialog.addEventListener('keydown', (event) => event.stopPropagation());
    document.body.append(dialog);
    dialog.showModal();
    const first = form.querySelector('input:not([type=checkbox]), select, textarea');
    (first ?? (danger ? form.querySelector('.dialog-actions button') : submit)).focus();
    if (first?.select && first.tagName === 'INPUT') first.select();
  });
}

/** A labelled field of a form. */
export function field(label, control, hint) {
  return h('label', { class: 'field' }, h('span', { class: 'label' }, label), control, hint && h('span', { class: 'hint' }, hint));
}

/** A box to tick, with its text beside it. */
export function tick(name, label, checked = false, change) {
  return h('label', { class: 'tick' }, h('input', { type: 'checkbox', name, checked, value: 'on', on: change ? { change } : {} }), h('span', {}, label));
}

/** Tabs as links, so that each has an address. */
export function tabs(label, items, current) {
  return h(
    'nav',
    { class: 'tabs', 'aria-label': label },
    items.map(({ id, text, href }) => h('a', { href, class: 'tab', 'aria-current': id === current ? 'page' : null }, text)),
  );
}

/** A choice among few, as buttons side by side. */
export function choice(label, options, current, change) {
  const buttons = options.map(([value, text]) =>
    h('button', { type: 'button', 'aria-pressed': String(value === current), on: { click: () => pick(value) } }, text),
  );
  const pick = (value) => {
    options.forEach(([option], index) => buttons[index].setAttribute('aria-pressed', String(option === value)));
    change(value);
  };
  return h('div', { class: 'choice', role: 'group', 'aria-label': label }, buttons);
}
