// What a task left behind, and what it began with: artifacts and models, with links to download them.

import { call } from './api.js';
import { button, h, icon, outside, replace, safeUrl } from './dom.js';
import { at, size } from './format.js';
import { copy, copyable, empty, failed, poll } from './ui.js';

export function filesTab(panel, shown, signal) {
  const artifacts = h('section', { class: 'card' });
  const models = h('section', { class: 'card' });
  panel.append(artifacts, models);

  function draw() {
    const all = shown.task.execution?.artifacts ?? [];
    const text = JSON.stringify(all);
    if (artifacts.drawn === text) return;
    artifacts.drawn = text;
    replace(artifacts, h('h2', {}, 'Artifacts'), all.length ? h('div', { class: 'scroller' }, h('table', { class: 'plain files' },
      h('thead', {}, h('tr', {}, ['Name', 'Type', 'Size', 'Stored', 'Hash', ''].map((title, index) => h('th', { scope: 'col', class: index === 2 ? 'number' : '' }, title)))),
      h('tbody', {}, all.map(row)))) : empty('No artifacts', 'Files and objects that the task uploads with upload_artifact appear here.'));
  }
  function row(artifact) {
    const preview = artifact.type_data?.preview;
    return [
      h('tr', {}, h('td', {}, h('span', { class: 'strong' }, artifact.key), artifact.mode === 'input' && h('span', { class: 'tag' }, 'input')),
        h('td', {}, artifact.type), h('td', { class: 'number' }, size(artifact.content_size)),
        h('td', {}, artifact.timestamp ? at(artifact.timestamp * 1000) : ''),
        h('td', {}, artifact.hash && copyable(artifact.hash, 'the hash', `${artifact.hash.slice(0, 10)}…`)),
        h('td', { class: 'end' }, download(artifact.uri))),
      preview && h('tr', { class: 'preview' }, h('td', { colspan: 6 }, h('details', {}, h('summary', {}, 'Preview'), h('pre', { class: 'example' }, String(preview).slice(0, 20_000))))),
    ];
  }

  async function loadModels() {
    const { input = [], output = [] } = shown.task.models ?? {};
    const entries = [...output.map((one) => ({ ...one, way: 'output' })), ...input.map((one) => ({ ...one, way: 'input' }))];
    const ids = entries.map(({ model }) => model?.id ?? model).filter(Boolean);
    const known = ids.length ? (await call('models.get_all_ex', { id: ids, search_hidden: true }, { signal })).models : [];
    const text = JSON.stringify([entries, known]);
    if (models.drawn === text) return;
    models.drawn = text;
    replace(models, h('h2', {}, 'Models'), entries.length ? h('div', { class: 'scroller' }, h('table', { class: 'plain files' },
      h('thead', {}, h('tr', {}, ['Name', 'Use', 'Framework', 'State', 'Updated', ''].map((title) => h('th', { scope: 'col' }, title)))),
      h('tbody', {}, entries.map((entry) => {
        const model = known.find(({ id }) => id === (entry.model?.id ?? entry.model));
        return h('tr', {}, h('td', {}, h('span', { class: 'strong' }, model?.name ?? entry.name)), h('td', {}, entry.way), h('td', {}, model?.framework ?? ''),
          h('td', {}, model ? (model.ready ? 'published' : 'draft') : 'deleted'), h('td', {}, at(model?.last_update ?? entry.updated)),
          h('td', { class: 'end' }, model && download(model.uri)));
      })))) : empty('No models', 'Weights that the task saves or loads through a framework, or as an OutputModel, appear here.'));
  }
  shown.addEventListener('change', draw, { signal });
  draw();
  poll(async () => {
    try {
      await loadModels();
    } catch (error) {
      if (!signal.aborted && error.code > 0 && error.code !== 401) {
        if (models.drawn !== error.message) replace(models, h('h2', {}, 'Models'), failed('The models could not be read', error));
        models.drawn = error.message;
      }
      throw error;
    }
  }, 6000, signal);
}

/** A link to download, or the address in words where no browser can follow it (`s3://`, `file://`). */
function download(address) {
  if (!address) return '';
  const href = safeUrl(address);
  if (!href) return h('span', { class: 'elsewhere' }, outside(address, address), copyAddress(address));
  return h('a', { class: 'button', href, download: '', target: '_blank', rel: 'noopener noreferrer' }, icon('download'), 'Download');
}

function copyAddress(address) {
  return button({ icon: 'copy', label: 'Copy the address' }, () => copy(address, 'the address'));
}
