// The log: a window of pages around one place, never all of it. Scrolling to an end loads the next page there and
// lets go of the far one; following keeps to the newest line.

import { call } from './api.js';
import { pieces, plain, settledLine, span } from './ansi.js';
import { button, h, icon, replace, setText } from './dom.js';
import { at, count, many, time } from './format.js';
import { bind } from './keys.js';
import { note } from './route.js';
import { attempt, choice, empty, failed, poll, say, settled } from './ui.js';

/** Events of a page, pages in the window, and events of a page while searching. */
const PAGE = 500;
const PAGES = 12;
const SCAN = 10_000;
const FRESH = 1500;

export function logTab(panel, shown, signal, query) {
  const id = shown.task.id;
  const lines = h('div', { class: 'log', role: 'log', 'aria-label': 'Log', tabindex: '0' });
  const total = h('span', { class: 'hint' });
  const nothing = h('div');
  let pages = [];
  let atStart = false;
  let atEnd = false;
  let following = query.get('at') === null && query.get('follow') !== '0';
  let withTimes = localStorage.getItem('trainyard.log.times') === '1';
  let loading = Promise.resolve();
  const draft = shown.task.status === 'created' || shown.task.status === 'queued';

  // ---- pages ----
  const ask = (body) => call('events.get_task_log', { task: id, ...body }, { signal });

  /** One page older or newer than a moment; `ends`: the log has no more. A page of long lines is a short one. */
  async function fetchPage(earlier, from, size = PAGE) {
    const answer = await ask({ batch_size: size, navigate_earlier: earlier, order: 'asc', ...(from === undefined ? {} : { from_timestamp: from }) });
    setTotal(answer.total);
    return Object.assign(answer.events, { ends: answer.events.length < size && !answer.more });
  }

  function setTotal(value) {
    setText(total, many(value, 'event'));
    lines.total = value;
  }

  /** A page of the window: its events and its element. */
  function makePage(events) {
    const block = h('div', { class: 'log-page' });
    const style = {};
    for (const event of events) block.append(...eventLines(event, style));
    return { events, block, first: events[0].timestamp, last: events.at(-1).timestamp };
  }

  function eventLines(event, style) {
    const text = String(event.msg ?? '').replace(/\n$/, '');
    return text.split('\n').map((line, index) => {
      const row = h('div', { class: `line ${event.level === 'error' || event.level === 'ERROR' ? 'level-error' : event.level === 'warning' || event.level === 'WARNING' ? 'level-warning' : ''}` });
      row.dataset.at = event.timestamp;
      if (index === 0) row.dataset.time = time(event.timestamp);
      row.append(h('span', { class: 'line-text' }, pieces(settledLine(line), style).map(span)));
      return row;
    });
  }

  function show(list) {
    pages = list;
    lines.replaceChildren(...pages.map(({ block }) => block));
    mark();
    nothing.hidden = pages.length > 0;
    lines.hidden = pages.length === 0;
    if (!pages.length) instead('', () => empty('No output yet', draft ? 'The task has not run.' : 'Lines appear here as they arrive.'));
  }

  /** What stands in place of the lines: drawn anew only where it says something else. */
  function instead(words, make) {
    if (nothing.drawn !== words) replace(nothing, make());
    nothing.drawn = words;
    nothing.hidden = false;
    lines.hidden = true;
  }

  /** Waits for what is being loaded, then does something: the window changes by one thing at a time. */
  const inTurn = (act) => (loading = loading.then(act, act));

  async function showEnd() {
    const events = await fetchPage(true);
    atEnd = true;
    atStart = events.ends;
    show(events.length ? [makePage(events)] : []);
    lines.scrollTop = lines.scrollHeight;
  }
  const toEnd = () => inTurn(showEnd);

  const toStart = () => inTurn(async () => {
    const events = await fetchPage(false);
    atStart = true;
    atEnd = events.ends;
    show(events.length ? [makePage(events)] : []);
    lines.scrollTop = 0;
  });

  /** The window around a moment, with the line at it in the middle. */
  const toMoment = (moment, text) => inTurn(async () => {
    const [before, after] = [await fetchPage(true, moment), await fetchPage(false, moment - 1)];
    atStart = before.ends;
    atEnd = after.ends;
    show([before, after].filter((events) => events.length).map(makePage));
    const rows = [...lines.querySelectorAll(`.line[data-at="${moment}"]`)];
    const row = rows.find((one) => text && one.textContent.toLowerCase().includes(text)) ?? rows[0];
    row?.scrollIntoView({ block: 'center' });
    row?.classList.add('found');
  });

  const older = () => inTurn(async () => {
    if (atStart || !pages.length) return;
    const events = await fetchPage(true, pages[0].first);
    atStart = events.ends;
    if (!events.length) return;
    const height = lines.scrollHeight;
    const page = makePage(events);
    pages.unshift(page);
    lines.prepend(page.block);
    mark();
    lines.scrollTop += lines.scrollHeight - height;
    while (pages.length > PAGES) {
      pages.pop().block.remove();
      atEnd = false;
    }
  });

  const newer = () => inTurn(async () => {
    if (!pages.length) return;
    // Lines of the last moment may still be arriving: it is read again, and what is shown of it is skipped.
    const last = pages.at(-1);
    const known = last.events.filter(({ timestamp }) => timestamp === last.last).length;
    let events = await fetchPage(false, last.last - 1);
    let fresh = events.slice(Math.min(known, events.length));
    // A moment that alone fills a page hides what came after it.
    if (!fresh.length && !events.ends) fresh = events = await fetchPage(false, last.last);
    // Who follows is not led through all that came while the page was not looking.
    if (following && fresh.length && !events.ends) return showEnd();
    atEnd = events.ends;
    if (!fresh.length) return;
    append(fresh);
    while (pages.length > PAGES) {
      const height = lines.scrollHeight;
      pages.shift().block.remove();
      atStart = false;
      lines.scrollTop -= height - lines.scrollHeight;
    }
  });

  /** Few lines join the last page, many make their own. */
  function append(events) {
    const last = pages.at(-1);
    const style = {};
    if (last.events.length + events.length <= PAGE * 2) {
      for (const event of events) last.block.append(...eventLines(event, style));
      last.events.push(...events);
      last.last = events.at(-1).timestamp;
    } else {
      const page = makePage(events);
      pages.push(page);
      lines.append(page.block);
    }
    mark();
    if (following) lines.scrollTop = lines.scrollHeight;
  }

  // ---- following ----
  const follow = button({ text: 'Follow', icon: 'bottom', title: 'Keep to the newest line (f)', 'aria-pressed': 'true' }, () => setFollowing(!following));
  function setFollowing(on) {
    following = on;
    follow.setAttribute('aria-pressed', String(on));
    note({ follow: on ? '' : '0', at: '' });
    if (on && !atEnd) attempt('The log cannot be read', toEnd);
    else if (on) lines.scrollTop = lines.scrollHeight;
  }
  const first = () => {
    setFollowing(false);
    attempt('The log cannot be read', toStart);
  };
  let scrolledTo = 0;
  lines.addEventListener('scroll', () => {
    const gap = lines.scrollHeight - lines.scrollTop - lines.clientHeight;
    const up = lines.scrollTop < scrolledTo;
    scrolledTo = lines.scrollTop;
    if (following && up && gap > 40) setFollowing(false);
    else if (!following && gap < 4 && atEnd && !up) setFollowing(true);
    if (lines.scrollTop < 300) once('older', older);
    if (gap < 300 && !atEnd) once('newer', newer);
  }, { passive: true });
  const underway = new Set();
  async function once(name, act) {
    if (underway.has(name)) return;
    underway.add(name);
    try {
      await act();
    } catch (error) {
      if (!signal.aborted) say(`The log could not be read further: ${error.message}`, { error: true });
    }
    underway.delete(name);
  }

  // ---- search ----
  const wanted = h('input', { type: 'search', placeholder: 'Find in the log', 'aria-label': 'Find in the log', spellcheck: 'false', value: query.get('find') ?? '' });
  const found = h('span', { class: 'hint', role: 'status' });
  const results = h('div', { class: 'results', hidden: true });
  let scan;
  const needle = () => wanted.value.toLowerCase();

  /** Marks what is searched for in the lines of the window, by ranges: the text itself stays as it is. */
  const highlight = globalThis.Highlight ? new Highlight() : new Set();
  if (globalThis.Highlight) CSS.highlights.set('found', highlight);
  signal.addEventListener('abort', () => globalThis.CSS.highlights?.delete('found'));
  function mark() {
    highlight.clear();
    const text = needle();
    if (!text) return;
    const walk = document.createTreeWalker(lines, NodeFilter.SHOW_TEXT);
    for (let node = walk.nextNode(), left = 2000; node && left > 0; node = walk.nextNode()) {
      const have = node.data.toLowerCase();
      for (let from = have.indexOf(text); from >= 0; from = have.indexOf(text, from + text.length)) {
        const range = new Range();
        range.setStart(node, from);
        range.setEnd(node, Math.min(from + text.length, node.length));
        highlight.add(range);
        left -= 1;
      }
    }
  }

  /** Reads the whole log page by page from the end and lists the lines that hold the text; keeps nothing else. */
  async function find() {
    scan?.abort();
    results.hidden = true;
    mark();
    setText(found, '');
    note({ find: wanted.value });
    const text = needle();
    if (!text) return;
    const own = (scan = new AbortController());
    const list = h('ol', {});
    let hits = 0;
    let read = 0;
    let from;
    const stop = button({ text: 'Stop', kind: 'quiet' }, () => own.abort());
    replace(results, h('div', { class: 'results-head' }, found, h('span', { class: 'spring' }), stop,
      button({ icon: 'close', label: 'Close the results' }, () => { own.abort(); results.hidden = true; })), list);
    results.hidden = false;
    while (!own.signal.aborted && !signal.aborted && hits < 1000) {
      const events = await fetchPage(true, from, SCAN);
      if (own.signal.aborted) break;
      read += events.length;
      for (const event of events.toReversed()) {
        for (const line of String(event.msg ?? '').split('\n')) {
          const shownLine = plain(settledLine(line));
          if (hits >= 1000 || !shownLine.toLowerCase().includes(text)) continue;
          hits += 1;
          list.append(h('li', {}, h('button', { type: 'button', on: { click: () => jump(event.timestamp, text) } }, h('time', { title: at(event.timestamp) }, time(event.timestamp)), ' ', shownLine.slice(0, 300))));
        }
      }
      setText(found, `${hits >= 1000 ? 'The newest 1,000' : many(hits, 'line')} in ${count(read)} of ${many(lines.total ?? read, 'event')}`);
      if (events.ends) break;
      from = events[0].timestamp;
    }
    stop.hidden = true;
    if (!hits && !own.signal.aborted) setText(found, `No line holds “${wanted.value}”`);
  }
  const jump = (moment, text) => {
    if (following) setFollowing(false);
    note({ at: moment, follow: '' });
    attempt('The line cannot be shown', () => toMoment(moment, text));
  };
  wanted.addEventListener('input', settled(() => attempt('The search failed', find), 400));
  wanted.addEventListener('keydown', (event) => event.key === 'Enter' && attempt('The search failed', find));

  // ---- the rest ----
  const times = choice('Times', [['0', 'Text'], ['1', 'With times']], withTimes ? '1' : '0', (value) => {
    withTimes = value === '1';
    localStorage.setItem('trainyard.log.times', value);
    lines.classList.toggle('with-times', withTimes);
  });
  lines.classList.toggle('with-times', withTimes);
  const download = button({ text: 'Download', icon: 'download' }, () => attempt('The log could not be downloaded', async () => {
    const text = await call('events.download_task_log', { task: id, line_type: 'text', line_format: '{msg}' }, { signal, raw: true });
    const url = URL.createObjectURL(new Blob([text], { type: 'text/plain' }));
    h('a', { href: url, download: `${shown.task.name.replace(/[^\w.-]+/g, '_')}.log` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }));
  panel.append(
    h('div', { class: 'bar' },
      h('div', { class: 'search-box' }, icon('search'), wanted), total, h('span', { class: 'spring' }), times,
      button({ icon: 'top', label: 'To the first line', title: 'To the first line (Home)' }, first),
      follow, download),
    results, nothing, lines);
  nothing.hidden = true;
  follow.setAttribute('aria-pressed', String(following));

  async function load() {
    if (!pages.length) {
      const moment = Number(query.get('at'));
      if (!following && moment) await toMoment(moment, needle());
      else if (!following && !lines.total) await toStart();
      else await toEnd();
      if (wanted.value && !results.firstChild) attempt('The search failed', find);
    } else if (atEnd) {
      await newer();
    }
  }
  poll(async () => {
    try {
      await load();
    } catch (error) {
      if (!signal.aborted && !pages.length && error.code > 0 && error.code !== 401) {
        instead(error.message, () => failed('The log cannot be read', error));
      }
      throw error;
    }
  }, FRESH, signal);

  bind('/', 'Find in the log', () => wanted.focus());
  bind('f', 'Follow the newest line', () => setFollowing(!following));
  bind('Home', 'First line', first);
  bind('End', 'Newest line, and follow', () => setFollowing(true));
}
