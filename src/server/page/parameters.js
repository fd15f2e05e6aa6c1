// Hyper-parameters by section, and configuration objects. A draft's can be changed; the section `properties` always.

import { call } from './api.js';
import { possible } from './actions.js';
import { button, h, icon, replace } from './dom.js';
import { bind } from './keys.js';
import { ask, attempt, copyable, empty, field, say, settled } from './ui.js';

const ALWAYS = 'properties';
const NAMES = { Args: 'Arguments', General: 'General', properties: 'User properties', Environment: 'Environment variables', Hydra: 'Hydra', TF_DEFINE: 'TensorFlow flags' };

export function parametersTab(panel, shown, signal) {
  const search = h('input', { type: 'search', placeholder: 'Filter parameters', 'aria-label': 'Filter parameters', spellcheck: 'false' });
  const note = h('p', { class: 'hint' });
  const sections = h('div', { class: 'sections' });
  const configuration = h('div', { class: 'sections' });
  panel.append(h('div', { class: 'bar' }, h('div', { class: 'search-box' }, icon('search'), search), note, h('span', { class: 'spring' }),
    button({ text: 'Add parameter', icon: 'plus', id: 'add-parameter' }, () => change({}))), sections, configuration);

  const id = shown.task.id;
  const draft = () => possible.edit(shown.task);
  const mayEdit = (section) => draft() || section === ALWAYS;

  async function save(item, old) {
    await call('tasks.edit_hyper_params', { task: id, hyperparams: [item], replace_hyperparams: 'none' });
    if (old && (old.section !== item.section || old.name !== item.name)) await drop(old);
    await shown.refresh();
  }
  const drop = ({ section, name }) => call('tasks.delete_hyper_params', { task: id, hyperparams: [{ section, name }] });

  /** Asks for a parameter: a new one, or new words for an old one. */
  function change(old) {
    const isNew = old.name === undefined;
    const sectionNames = [...new Set([...Object.keys(shown.task.hyperparams ?? {}), 'Args', 'General', ALWAYS])].filter(mayEdit);
    const value = old.value?.includes('\n') || old.value?.length > 60 ? h('textarea', { name: 'value', rows: 6, value: old.value }) : h('input', { name: 'value', value: old.value ?? '', autocomplete: 'off', spellcheck: 'false' });
    return ask({
      title: isNew ? 'Add a parameter' : `Edit ${old.name}`,
      text: isNew && !draft() ? 'The task is no draft: only user properties can be added. Clone it to change its parameters.' : null,
      fields: [
        isNew && field('Section', h('select', { name: 'section' }, sectionNames.map((name) => h('option', { value: name, selected: name === (draft() ? 'Args' : ALWAYS) }, NAMES[name] ?? name)))),
        isNew && field('Name', h('input', { name: 'name', autocomplete: 'off', spellcheck: 'false' })),
        field('Value', value, old.description && old.description !== 'None' ? old.description : old.type),
      ].filter(Boolean),
      confirm: isNew ? 'Add' : 'Save',
      act: async (form) => {
        const item = { ...old, section: form.section ?? old.section, name: (form.name ?? old.name).trim(), value: form.value };
        if (!item.name) throw new Error('Enter a name.');
        await save(item);
      },
    });
  }

  let drawn = '';
  function draw() {
    const { task } = shown;
    const text = JSON.stringify([task.hyperparams, task.configuration, draft(), search.value]);
    if (text === drawn) return;
    drawn = text;
    note.textContent = draft() ? 'Click a value to change it.' : 'Read only: parameters of a task that is no draft stay as they ran. Clone it to change them.';
    const wanted = search.value.trim().toLowerCase();
    const fits = (item) => !wanted || item.name.toLowerCase().includes(wanted) || String(item.value ?? '').toLowerCase().includes(wanted);
    const all = Object.entries(task.hyperparams ?? {}).map(([section, items]) => [section, Object.values(items).filter(fits).sort((a, b) => a.name.localeCompare(b.name))]).filter(([, items]) => items.length);
    const focus = document.activeElement?.dataset?.parameter;
    replace(sections, all.map(([section, items]) => h('section', { class: 'card' },
      h('h2', {}, NAMES[section] ?? section, h('span', { class: 'count' }, items.length)),
      h('table', { class: 'plain parameters' }, h('tbody', {}, items.map((item) => row(section, item)))))),
    !all.length && empty(wanted ? 'Nothing matches' : 'No parameters', wanted ? `No parameter holds “${search.value}”.` : 'Arguments of argparse and dictionaries given to Task.connect appear here.'));
    if (focus) sections.querySelector(`[data-parameter="${CSS.escape(focus)}"]`)?.focus();
    const objects = Object.values(task.configuration ?? {});
    replace(configuration, objects.map(object));
  }

  function row(section, item) {
    const value = String(item.value ?? '');
    const about = item.description && item.description !== 'None' ? item.description : '';
    const shownValue = value === '' ? h('span', { class: 'hint' }, 'empty') : value;
    const full = { ...item, section, value };
    return h('tr', {}, h('th', { scope: 'row', title: about }, item.name),
      h('td', {}, mayEdit(section)
        ? h('button', { type: 'button', class: 'value editable', 'data-parameter': `${section}/${item.name}`, title: `Edit ${item.name}`, on: { click: () => change(full) } }, shownValue, icon('edit'))
        : h('span', { class: 'value' }, shownValue)),
      h('td', { class: 'hint' }, item.type && item.type !== 'str' ? item.type : ''),
      h('td', { class: 'end' }, mayEdit(section) && button({ icon: 'trash', label: `Remove ${item.name}`, kind: 'quiet' }, () => attempt('Could not remove the parameter', async () => {
        await drop(full);
        say(`Removed ${item.name}.`);
        await shown.refresh();
      }))));
  }

  function object(item) {
    const text = String(item.value ?? '');
    return h('section', { class: 'card' }, h('h2', {}, 'Configuration: ', item.name, h('span', { class: 'spring' }),
      item.type && h('span', { class: 'hint' }, item.type),
      draft() && button({ text: 'Edit', icon: 'edit', kind: 'quiet', label: `Edit the configuration ${item.name}` }, () => ask({
        title: `Configuration: ${item.name}`,
        wide: true,
        fields: [h('textarea', { name: 'value', rows: 20, class: 'mono', value: text, spellcheck: 'false', 'aria-label': 'Configuration' })],
        confirm: 'Save',
        act: async ({ value }) => {
          await call('tasks.edit_configuration', { task: id, configuration: [{ ...item, value }] });
          await shown.refresh();
        },
      }))), h('pre', { class: 'example', tabindex: '0' }, text.slice(0, 200_000)), text.length > 200_000 && copyable(text, 'the whole text', 'Copy the whole text'));
  }

  search.addEventListener('input', settled(draw, 120));
  shown.addEventListener('change', draw, { signal });
  bind('/', 'Filter parameters', () => search.focus());
  draw();
}
