// Times, sizes and numbers in words.

const relative = new Intl.RelativeTimeFormat(undefined, { numeric: 'auto', style: 'narrow' });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });

/** "3 min ago" */
export function ago(text) {
  const then = Date.parse(text);
  if (Number.isNaN(then)) return '';
  const seconds = (then - Date.now()) / 1000;
  for (const [unit, size] of [['day', 86400], ['hour', 3600], ['minute', 60]]) {
    if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit);
  }
  return 'just now';
}

/** A moment with date and time of the viewer's zone. */
export function at(text) {
  const then = typeof text === 'number' ? text : Date.parse(text);
  return Number.isNaN(then) ? '' : moment.format(then);
}

/** Hours, minutes and seconds of a moment. */
export function time(millis) {
  return clock.format(millis);
}

/** "2h 5m" of seconds. */
export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return '';
  const whole = Math.round(seconds);
  const units = [['d', Math.floor(whole / 86400)], ['h', Math.floor(whole / 3600) % 24], ['m', Math.floor(whole / 60) % 60], ['s', whole % 60]];
  const from = units.findIndex(([, count]) => count > 0);
  if (from < 0) return '0s';
  return units.slice(from, from + 2).filter(([, count]) => count > 0).map(([unit, count]) => `${count}${unit}`).join(' ');
}

/** How long a task ran, or has been running. */
export function ran(task) {
  if (task.status === 'in_progress' && task.started) return (Date.now() - Date.parse(task.started)) / 1000;
  if (task.started && task.completed) return (Date.parse(task.completed) - Date.parse(task.started)) / 1000;
  return task.active_duration ?? NaN;
}

/** Bytes in binary units. */
export function size(bytes) {
  if (!Number.isFinite(bytes)) return '';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let index = 0;
  while (bytes >= 1024 && index < units.length - 1) {
    bytes /= 1024;
    index += 1;
  }
  return `${index === 0 ? bytes : bytes.toFixed(bytes < 10 ? 1 : 0)} ${units[index]}`;
}

/** A number with as many digits as it needs, never more than six. */
export function number(value) {
  if (typeof value !== 'number') return String(value ?? '');
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return value.toExponential(3).replace(/\.?0+e/, 'e');
  return String(Number(value.toPrecision(5)));
}

/** A count with groups of digits. */
export function count(value) {
  return new Intl.NumberFormat().format(value);
}

/** "1 task", "3 tasks" */
export function many(value, one, more = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : more}`;
}
