// Elements from data. Text of users only ever becomes text nodes and attribute values, never markup:
// the page's security policy forbids `innerHTML` as well.

const SVG = 'http://www.w3.org/2000/svg';
const PROPERTIES = new Set(['value', 'checked', 'disabled', 'selected', 'open', 'indeterminate', 'hidden']);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'on') {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (PROPERTIES.has(name)) {
      element[name] = value;
    } else {
      element.setAttribute(name, value === true ? '' : String(value));
    }
  }
  add(element, children);
  return element;
}

/** Appends children: elements, texts, lists of them; nothing for null, undefined and false. */
export function add(element, children) {
  for (const child of [children].flat(4)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/** An HTML element: `h('p', {class: 'x', on: {click}}, 'text', child)`. */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** An SVG element. */
export function s(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** Puts new children in place of the old ones. */
export function replace(element, ...children) {
  element.replaceChildren();
  return add(element, children);
}

/** Writes a text only where it differs, so that nothing flickers and no selection is lost. */
export function setText(element, text) {
  const wanted = text === undefined || text === null ? '' : String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Sets or takes away an attribute, only where it differs. */
export function setAttribute(element, name, value) {
  if (value === undefined || value === null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, String(value));
  }
}

/** The rows of each container, by key. */
const kept = new WeakMap();

/**
 * Brings a container's children in line with items, by key: rows that stay are kept as they are, with focus and
 * selection, and only told to update.
 */
export function keyed(container, items, key, make, update) {
  if (!kept.has(container)) kept.set(container, new Map());
  const rows = kept.get(container);
  const wanted = new Set(items.map(key));
  for (const [id, row] of rows) {
    if (!wanted.has(id)) {
      row.remove();
      rows.delete(id);
    }
  }
  let at = container.firstElementChild;
  for (const item of items) {
    const id = key(item);
    let row = rows.get(id);
    if (!row) {
      row = make(item);
      rows.set(id, row);
    }
    if (row === at) at = at.nextElementSibling;
    else container.insertBefore(row, at);
    update?.(row, item);
  }
}

/** An address that a link or a picture may have, else null: `javascript:` and the like never get into the page. */
export function safeUrl(text) {
  try {
    const url = new URL(text);
    return ['http:', 'https:'].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/** A link if the address may be followed, else the text with the address in words. */
export function outside(address, text) {
  const href = safeUrl(address);
  return href
    ? h('a', { href, target: '_blank', rel: 'noopener noreferrer' }, text ?? address)
    : h('span', { title: address }, text ?? address);
}

/** A picture out of the sprite of this file. */
const ICONS = {
  search: 'M10.5 10.5 14 14M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10Z',
  close: 'm4 4 8 8M12 4l-8 8',
  up: 'm4 10 4-4 4 4',
  down: 'm4 6 4 4 4-4',
  left: 'm10 4-4 4 4 4',
  right: 'm6 4 4 4-4 4',
  top: 'M3 3h10M8 13V6M5 9l3-3 3 3',
  bottom: 'M3 13h10M8 3v7M5 7l3 3 3-3',
  play: 'M5 3.5v9l7-4.5-7-4.5Z',
  stop: 'M4 4h8v8H4z',
  copy: 'M6 6h7v7H6zM3 10V3h7',
  edit: 'm3 13 .7-3L11 2.8l2.2 2.2L6 12.3 3 13Z',
  reset: 'M3.5 8a4.5 4.5 0 1 1 1.4 3.3M3 12.5v-3h3',
  trash: 'M3 4.5h10M6.5 4V2.5h3V4M4.5 4.5l.6 9h5.8l.6-9',
  box: 'M2.5 3h11v3h-11zM3.5 6v7h9V6M6.5 8.5h3',
  more: 'M3.5 8h.01M8 8h.01M12.5 8h.01',
  grip: 'M6 4h.01M6 8h.01M6 12h.01M10 4h.01M10 8h.01M10 12h.01',
  sun: 'M8 10.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5ZM8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M3.4 12.6l.9-.9M11.7 4.3l.9-.9',
  moon: 'M13 9.5A5.5 5.5 0 0 1 6.5 3 5.5 5.5 0 1 0 13 9.5Z',
  auto: 'M8 2.5a5.5 5.5 0 1 0 0 11zM8 2.5a5.5 5.5 0 0 1 0 11',
  out: 'M6.5 3H3v10h3.5M7 8h7M11 5l3 3-3 3',
  expand: 'M9.5 3H13v3.5M6.5 13H3V9.5M13 3 9 7M3 13l4-4',
  download: 'M8 2.5v8M4.5 7.5 8 11l3.5-3.5M3 13.5h10',
  check: 'm3 8.5 3.5 3.5L13 4.5',
  plus: 'M8 3v10M3 8h10',
  compare: 'M2.5 12.5 6 7l3 3 4.5-6.5M2.5 3v10.5h11',
  queue: 'M3 4h10M3 8h10M3 12h6',
  help: 'M6 6.2a2 2 0 1 1 2.7 1.9c-.5.2-.7.5-.7 1v.4M8 12h.01',
  warn: 'M8 2.5 14.5 13.5h-13zM8 6.5v3M8 11.6h.01',
  dot: 'M8 8h.01',
};

export function icon(name) {
  return s(
    'svg',
    { class: `icon icon-${name}`, viewBox: '0 0 16 16', 'aria-hidden': 'true' },
    s('path', { d: ICONS[name] }),
  );
}

/** A button with a picture, a text or both; a picture alone needs `label`. */
export function button({ text, icon: name, label, title, kind, ...rest }, act) {
  return h(
    'button',
    {
      type: 'button',
      class: ['button', kind, name && !text && 'bare'].filter(Boolean).join(' '),
      'aria-label': label,
      title: title ?? label,
      ...rest,
      on: { click: act },
    },
    name && icon(name),
    text,
  );
}
