// Keyboard shortcuts: single keys, and `g` followed by one. They keep quiet while one types, or a dialog or menu is
// open.

import { button, h } from './dom.js';

/** Key or sequence → what it does and its name for the list. */
export const keys = new Map();

let before = '';

/** Binds a key until the next view is drawn. */
export function bind(key, text, act) {
  keys.set(key, { text, act });
}

function typing(target) {
  return target.isContentEditable || ['INPUT', 'TEXTAREA', 'SELECT'].includes(target.tagName);
}

addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'Escape' && typing(event.target)) event.target.blur();
  if (typing(event.target) && event.target.type !== 'checkbox') return;
  if (document.querySelector('dialog[open], [popover]:popover-open')) return;
  const sequence = before ? `${before} ${event.key}` : event.key;
  const found = keys.get(sequence);
  before = '';
  if (found) {
    event.preventDefault();
    found.act(event);
  } else if (event.key === 'g') {
    before = 'g';
    setTimeout(() => (before = ''), 1500);
  }
});

/** The list of what can be pressed here. */
export function help() {
  const dialog = h(
    'dialog',
    { 'aria-labelledby': 'keys-title' },
    h('h2', { id: 'keys-title' }, 'Keyboard shortcuts'),
    h(
      'dl',
      { class: 'keys' },
      [...keys].map(([key, { text }]) => [h('dt', {}, key.split(' ').map((part) => h('kbd', {}, part))), h('dd', {}, text)]),
    ),
    h('p', { class: 'hint' }, 'Tab and Shift+Tab reach everything; Enter or Space activates; in a queue, Alt with the arrow keys moves the entry whose handle has the focus.'),
    h('div', { class: 'dialog-actions' }, button({ text: 'Close', autofocus: true }, () => dialog.close())),
  );
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
