// A line of a terminal as spans: colours and weight of the ANSI sequences, everything else of them left away.

const NAMES = ['black', 'red', 'green', 'yellow', 'blue', 'magenta', 'cyan', 'white'];
// Control sequences (colours are those that end in m), operating-system commands, and single escapes.
// eslint-disable-next-line no-control-regex
const SEQUENCE = /\x1b\[([0-9;:]*)([ -/]*[@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f]/g;

function apply(style, codes) {
  for (let index = 0; index < codes.length; index += 1) {
    const code = codes[index];
    if (code === 0) for (const key of Object.keys(style)) delete style[key];
    else if (code === 1) style.bold = true;
    else if (code === 2) style.dim = true;
    else if (code === 3) style.italic = true;
    else if (code === 4) style.underline = true;
    else if (code === 7) style.inverse = true;
    else if (code === 22) delete style.bold, delete style.dim;
    else if (code === 23) delete style.italic;
    else if (code === 24) delete style.underline;
    else if (code === 27) delete style.inverse;
    else if (code >= 30 && code <= 37) style.fg = NAMES[code - 30];
    else if (code >= 90 && code <= 97) style.fg = `bright-${NAMES[code - 90]}`;
    else if (code === 39) delete style.fg;
    else if (code >= 40 && code <= 47) style.bg = NAMES[code - 40];
    else if (code >= 100 && code <= 107) style.bg = `bright-${NAMES[code - 100]}`;
    else if (code === 49) delete style.bg;
    else if (code === 38 || code === 48) index += extended(style, code === 38 ? 'fg' : 'bg', codes.slice(index + 1));
  }
}

/** `5;n` and `2;r;g;b`; how many codes they took. */
function extended(style, which, rest) {
  if (rest[0] === 5) {
    const n = rest[1] ?? 0;
    if (n < 8) style[which] = NAMES[n];
    else if (n < 16) style[which] = `bright-${NAMES[n - 8]}`;
    else if (n < 232) {
      const level = (value) => (value === 0 ? 0 : 55 + value * 40);
      const cube = n - 16;
      style[which] = [level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6)];
    } else style[which] = Array(3).fill(8 + (n - 232) * 10);
    return 2;
  }
  if (rest[0] === 2) {
    style[which] = rest.slice(1, 4).map((value) => Math.min(255, value || 0));
    return 4;
  }
  return 0;
}

/** Pieces `{text, style}` of a line; `style` carries on from the line before and is changed. */
export function pieces(line, style) {
  const found = [];
  let from = 0;
  const push = (to) => {
    if (to > from) found.push({ text: line.slice(from, to), style: { ...style } });
  };
  for (const match of line.matchAll(SEQUENCE)) {
    push(match.index);
    from = match.index + match[0].length;
    if (match[2] === 'm') apply(style, match[1].split(/[;:]/).map(Number));
  }
  push(line.length);
  return found;
}

/** The text alone. */
export function plain(line) {
  return line.replace(SEQUENCE, '');
}

/** What a carriage return leaves on a line: the text after the last one, as progress bars mean it. */
export function settledLine(line) {
  const text = line.endsWith('\r') ? line.slice(0, -1) : line;
  return text.slice(text.lastIndexOf('\r') + 1);
}

/** A span with a piece's style. */
export function span({ text, style }) {
  const keys = Object.keys(style);
  if (keys.length === 0) return document.createTextNode(text);
  const node = document.createElement('span');
  node.textContent = text;
  for (const key of keys) {
    const value = style[key];
    if (Array.isArray(value)) node.style.setProperty(key === 'fg' ? 'color' : 'background-color', `rgb(${value.join(' ')})`);
    else node.classList.add(value === true ? `ansi-${key}` : `ansi-${key}-${value}`);
  }
  return node;
}
