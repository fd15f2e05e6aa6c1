// The page's frame: who is signed in, where one is, which view is drawn, keys and theme.

import { fromOtherTab, serverVersion, session, signedIn, signOut, userName } from './api.js';
import { button, h, icon, replace } from './dom.js';
import { bind, help, keys } from './keys.js';
import { go, here, to, translated } from './route.js';
import { showSignIn } from './signin.js';
import { failed } from './ui.js';
import { tasksView } from './tasks.js';
import { taskView } from './task.js';
import { compareView } from './compare.js';
import { queuesView } from './queues.js';
import { workersView } from './workers.js';
import { nextTheme, themeButton } from './theme.js';

const top = document.getElementById('top');
const main = document.getElementById('main');
const banner = document.getElementById('banner');

const PLACES = [
  { id: 'tasks', text: 'Tasks', key: 't' },
  { id: 'queues', text: 'Queues', key: 'q' },
  { id: 'workers', text: 'Workers', key: 'w' },
];

function drawTop() {
  const current = here().parts[0] ?? 'tasks';
  top.hidden = false;
  replace(
    top,
    h('a', { class: 'brand', href: to(['tasks']) }, h('img', { src: '/page/icon.svg', alt: '', width: 22, height: 22 }), 'trainyard'),
    h(
      'nav',
      { 'aria-label': 'Main' },
      PLACES.map(({ id, text }) =>
        h('a', { href: to([id]), 'aria-current': id === current || (id === 'tasks' && current === 'compare') ? 'page' : null }, text),
      ),
    ),
    h('span', { class: 'spring' }),
    themeButton(),
    button({ icon: 'help', label: 'Keyboard shortcuts', title: 'Keyboard shortcuts (?)' }, help),
    h('span', { class: 'user', title: `trainyard ${serverVersion()}` }, userName()),
    button({ icon: 'out', label: 'Sign out' }, () => signOut()),
  );
}

let ending = new AbortController();
let drawn = '';

/** Draws the view that the address names; the old one's requests, timers and keys end. */
function draw() {
  const { parts, query } = here();
  ending.abort();
  ending = new AbortController();
  const signal = ending.signal;
  if (!signedIn()) return;
  keys.clear();
  bindPlaces();
  drawTop();
  const [place = 'tasks', id, tab] = parts;
  const container = h('div', { class: `view ${place}` });
  // The first of the path decides what is new to a reader; a change of tab keeps focus and scroll.
  const newPlace = `${place}/${id ?? ''}`;
  const onTab = document.activeElement?.matches('.tab');
  main.replaceChildren(container);
  try {
    if (place === 'tasks' && id) taskView(container, id, tab, query, signal);
    else if (place === 'tasks') tasksView(container, query, signal);
    else if (place === 'compare') compareView(container, query, signal);
    else if (place === 'queues') queuesView(container, id, signal);
    else if (place === 'workers') workersView(container, id, query, signal);
    else container.append(failed('There is no such page', new Error(location.hash)));
  } catch (error) {
    container.append(failed('The page failed', error));
    console.error(error);
  }
  if (newPlace !== drawn) {
    if (drawn) main.focus({ preventScroll: true });
    scrollTo(0, 0);
  } else if (onTab) container.querySelector('.tab[aria-current]')?.focus({ preventScroll: true });
  drawn = newPlace;
}

function bindPlaces() {
  for (const { id, text, key } of PLACES) bind(`g ${key}`, text, () => go([id]));
  bind('?', 'This list', help);
  bind('d', 'Light, dark, or as the system has it', nextTheme);
}

function askToSignIn(reason) {
  ending.abort();
  top.hidden = true;
  keys.clear();
  showSignIn(main, reason, draw);
}

session.addEventListener('signedout', ({ detail }) => {
  for (const dialog of document.querySelectorAll('dialog[open]')) dialog.close();
  askToSignIn(detail);
});
session.addEventListener('unreached', () => {
  replace(banner, icon('warn'), ' The server cannot be reached. The page shows what it knew last and tries again.');
  banner.hidden = false;
});
session.addEventListener('reached', () => {
  if (!banner.hidden) banner.hidden = true;
});
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});

const address = translated(location.pathname);
if (address) history.replaceState(null, '', `/${address}`);
addEventListener('hashchange', draw);
if (await fromOtherTab()) draw();
else askToSignIn('');
