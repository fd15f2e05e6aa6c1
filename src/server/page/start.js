// Loads the page. When a network changes, browsers give up requests underway, and a page that lacks one of its files
// stays empty: then it is loaded again, a few times.

const KEY = 'trainyard.reloads';

/** Whether a style sheet of the page did not arrive. */
const unstyled = () => [...document.querySelectorAll('link[rel=stylesheet]')].some((link) => link.sheet === null);

try {
  await import('./main.js');
  if (unstyled()) throw new Error('a style sheet did not arrive');
  sessionStorage.removeItem(KEY);
} catch (error) {
  const tries = Number(sessionStorage.getItem(KEY) ?? 0);
  if (tries < 5) {
    sessionStorage.setItem(KEY, String(tries + 1));
    setTimeout(() => location.reload(), 300 * 2 ** tries);
  } else {
    sessionStorage.removeItem(KEY);
    const banner = document.getElementById('banner');
    banner.textContent = `The page could not be loaded (${error.message}). Reload it once the server can be reached.`;
    banner.hidden = false;
  }
}
