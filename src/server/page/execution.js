// What is run, and in what: repository, commit, uncommitted changes, packages, container, output. A draft's can be changed.

import { call } from './api.js';
import { possible } from './actions.js';
import { button, h, outside, replace, safeUrl } from './dom.js';
import { facts } from './overview.js';
import { ask, copy, copyable, empty, field } from './ui.js';

export function executionTab(panel, shown, signal) {
  const id = shown.task.id;
  const edit = async (fields) => {
    await call('tasks.edit', { task: id, ...fields });
    await shown.refresh();
  };
  /** A button that asks for some texts of the task, `members` of `whole`. */
  const editor = (title, whole, members) => possible.edit(shown.task) && button({ text: 'Edit', icon: 'edit', kind: 'quiet', label: `Edit: ${title}` }, () => {
    const have = shown.task[whole] ?? {};
    return ask({
      title,
      wide: members.some(({ rows }) => rows),
      fields: members.map(({ name, text, rows, hint }) => field(text, rows
        ? h('textarea', { name, rows, class: 'mono', value: have[name] ?? '', spellcheck: 'false' })
        : h('input', { name, value: have[name] ?? '', spellcheck: 'false', autocomplete: 'off' }), hint)),
      confirm: 'Save',
      act: (form) => edit({ [whole]: { ...have, ...form } }),
    });
  });

  let drawn = '';
  function draw() {
    const { task } = shown;
    const { script = {}, container = {}, output = {} } = task;
    const text = JSON.stringify([script, container, output, task.status]);
    if (text === drawn) return;
    drawn = text;
    const code = (title, value, ...more) => h('section', { class: 'card' }, h('h2', {}, title, h('span', { class: 'spring' }), value && copyButton(title.toLowerCase(), value), ...more),
      value ? h('pre', { class: 'example', tabindex: '0' }, value.slice(0, 500_000)) : h('p', { class: 'hint' }, 'None.'));
    const packages = textOf(script.requirements?.pip);
    const original = textOf(script.requirements?.org_pip);
    const alone = !script.repository && script.diff;
    replace(panel, h('div', { class: 'cards' },
      h('section', { class: 'card' }, h('h2', {}, 'Source', h('span', { class: 'spring' }), editor('Source', 'script', [
        { name: 'repository', text: 'Repository' }, { name: 'branch', text: 'Branch' }, { name: 'tag', text: 'Tag', hint: 'wins over the branch' },
        { name: 'version_num', text: 'Commit', hint: 'wins over tag and branch; empty: the newest' }, { name: 'working_dir', text: 'Working folder' },
        { name: 'entry_point', text: 'Script' }, { name: 'binary', text: 'Program' },
      ])), facts([
        ['Repository', script.repository ? repository(script.repository) : h('span', { class: 'hint' }, alone ? 'none: a script on its own' : 'none')],
        script.branch && ['Branch', script.branch], script.tag && ['Tag', script.tag],
        script.version_num && ['Commit', copyable(script.version_num, 'the commit')],
        ['Script', h('code', {}, script.entry_point || '–')], script.working_dir && ['Working folder', h('code', {}, script.working_dir)],
        ['Program', h('code', {}, script.binary || 'python')],
      ].filter(Boolean))),
      h('section', { class: 'card' }, h('h2', {}, 'Container', h('span', { class: 'spring' }), editor('Container', 'container', [
        { name: 'image', text: 'Image' }, { name: 'arguments', text: 'Arguments', hint: 'as of docker run' }, { name: 'setup_shell_script', text: 'Set-up script', rows: 6 },
      ])), container.image || container.arguments || container.setup_shell_script ? facts([
        ['Image', h('code', {}, container.image || 'the default of the worker')],
        container.arguments && ['Arguments', h('code', {}, container.arguments)],
        container.setup_shell_script && ['Set-up script', h('pre', { class: 'example' }, container.setup_shell_script)],
      ].filter(Boolean)) : h('p', { class: 'hint' }, 'The default of the worker.')),
      h('section', { class: 'card' }, h('h2', {}, 'Output'), facts([['Destination', output.destination ? outside(output.destination) : h('span', { class: 'hint' }, 'the default')], output.error && ['Error', output.error]].filter(Boolean)))),
      script.diff ? h('section', { class: 'card' }, h('h2', {}, alone ? 'Script' : 'Uncommitted changes', h('span', { class: 'spring' }), copyButton(alone ? 'script' : 'changes', script.diff),
        editor(alone ? 'Script' : 'Uncommitted changes', 'script', [{ name: 'diff', text: alone ? 'Source' : 'Changes', rows: 22 }])),
      alone ? h('pre', { class: 'example tall', tabindex: '0' }, script.diff.slice(0, 500_000)) : diff(script.diff)) : h('section', { class: 'card' }, h('h2', {}, 'Uncommitted changes'), h('p', { class: 'hint' }, 'None.')),
      code('Packages', packages, possible.edit(task) && button({ text: 'Edit', icon: 'edit', kind: 'quiet', label: 'Edit: Packages' }, () => ask({
        title: 'Packages', wide: true,
        text: 'As in requirements.txt. Empty: the requirements.txt of the repository.',
        fields: [h('textarea', { name: 'pip', rows: 18, class: 'mono', value: packages, spellcheck: 'false', 'aria-label': 'Packages' })],
        confirm: 'Save',
        act: async ({ pip }) => {
          await call('tasks.set_requirements', { task: id, requirements: { ...shown.task.script?.requirements, pip } });
          await shown.refresh();
        },
      }))),
      original && original !== packages && code('Packages as first asked for', original));
  }
  shown.addEventListener('change', draw, { signal });
  draw();
  if (!shown.task.script) replace(panel, empty('Nothing to run', 'The task has no code.'));
}

/** Requirements are a text or a list of lines (§3.2). */
function textOf(value) {
  return Array.isArray(value) ? value.join('\n') : (value ?? '');
}

function copyButton(name, text) {
  return button({ icon: 'copy', label: `Copy the ${name}`, kind: 'quiet' }, () => copy(text, `the ${name}`));
}

/** `git@host:group/name.git` leads to its web page, which most hosts have under the same path. */
function repository(address) {
  const ssh = /^(?:ssh:\/\/)?git@([\w.-]+)[:/](.+?)(?:\.git)?$/.exec(address);
  const href = ssh ? `https://${ssh[1]}/${ssh[2]}` : withoutUser(address);
  return safeUrl(href) ? outside(href, withoutUser(address)) : h('code', {}, address);
}

function withoutUser(address) {
  const url = URL.parse(address);
  if (!url?.password && !url?.username) return address;
  url.username = '';
  url.password = '';
  return url.href;
}

/** A git diff with its added and removed lines marked. */
function diff(text) {
  const kind = (line) => (/^(diff|index|\+\+\+|---) /.test(line) ? 'file' : line.startsWith('@@') ? 'place' : line.startsWith('+') ? 'added' : line.startsWith('-') ? 'removed' : '');
  const lines = text.split('\n');
  return h('pre', { class: 'example tall diff', tabindex: '0' }, lines.slice(0, 5000).map((line) => h('span', { class: kind(line) }, `${line}\n`)),
    lines.length > 5000 && h('span', { class: 'place' }, `… ${lines.length - 5000} more lines: copy them all with the button above.`));
}
