// Light or dark: as the system has it, unless one is chosen; the choice stays in this browser.

import { button, icon, replace } from './dom.js';
import { say } from './ui.js';

const KEY = 'trainyard.theme';
const THEMES = ['auto', 'light', 'dark'];
const ICONS = { auto: 'auto', light: 'sun', dark: 'moon' };
const NAMES = { auto: 'as the system has it', light: 'light', dark: 'dark' };

let theme = localStorage.getItem(KEY) ?? 'auto';
let shown;
apply();

function apply() {
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  if (shown) {
    replace(shown, icon(ICONS[theme]));
    shown.setAttribute('aria-label', `Colours: ${NAMES[theme]}`);
    shown.title = `Colours: ${NAMES[theme]} (d)`;
  }
}

/** The next of: system, light, dark. */
export function nextTheme() {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  if (theme === 'auto') localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, theme);
  apply();
  say(`Colours: ${NAMES[theme]}.`);
}

export function themeButton() {
  shown = button({ icon: ICONS[theme], label: `Colours: ${NAMES[theme]}`, id: 'theme' }, nextTheme);
  apply();
  return shown;
}
