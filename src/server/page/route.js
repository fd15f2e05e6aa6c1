// Where in the page one is: `#/tasks/<id>/log?follow=0`. Every state worth a link stands in the address.

/** The place that the address names: parts of the path and parameters. */
export function here() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  const parts = path
    .split('/')
    .filter(Boolean)
    .map((part) => {
      try {
        return decodeURIComponent(part);
      } catch {
        return part;
      }
    });
  return { parts, query: new URLSearchParams(query ?? '') };
}

/** Address of a place; empty parameters are left out. */
export function to(parts, query = {}) {
  const path = parts.map(encodeURIComponent).join('/');
  const wanted = new URLSearchParams(
    Object.entries(query).filter(([, value]) => value !== '' && value !== undefined && value !== null && value !== false),
  );
  const text = wanted.toString();
  return `#/${path}${text ? `?${text}` : ''}`;
}

/** Goes to a place. */
export function go(parts, query) {
  location.hash = to(parts, query);
}

/** Writes parameters into the address without a new entry in the history, and without drawing anew. */
export function note(changes) {
  const { parts, query } = here();
  const all = Object.fromEntries(query);
  history.replaceState(null, '', to(parts, { ...all, ...changes }));
}

/** `/projects/<project>/{tasks,experiments}/<task>[/output/<tab>]`, as the SDK prints it, becomes our address. */
export function translated(path) {
  const found = /^\/projects\/[^/]+\/(?:tasks|experiments)\/([0-9a-f]{32})(?:\/(.*))?$/.exec(path);
  if (!found) return null;
  const rest = found[2] ?? '';
  const tabs = {
    log: 'log', scalars: 'scalars', 'metrics/scalar': 'scalars', plots: 'plots', 'metrics/plots': 'plots',
    debugImages: 'samples', artifacts: 'files', 'hyper-params': 'parameters', execution: 'execution',
  };
  const tab = Object.keys(tabs).find((name) => rest.includes(name));
  return to(['tasks', found[1], ...(tab ? [tabs[tab]] : [])]);
}
