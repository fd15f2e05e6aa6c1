// Reading Plotly figures (§2.6, `plot_str`): numbers in every notation, titles in every place, traces by kind.

const KINDS = { f8: Float64Array, f4: Float32Array, i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array, u4: Uint32Array };

/** A list, plain or as Plotly 6 writes it: `{dtype, bdata, shape}`. */
export function list(value) {
  if (Array.isArray(value)) return value;
  if (value && typeof value.bdata === 'string') {
    const kind = KINDS[value.dtype?.replace(/^[<>|=]/, '')];
    if (!kind) return [];
    const bytes = Uint8Array.from(atob(value.bdata), (c) => c.charCodeAt(0));
    const flat = [...new kind(bytes.buffer, 0, Math.floor(bytes.length / kind.BYTES_PER_ELEMENT))];
    const shape = String(value.shape ?? '').split(',').map(Number).filter((size) => size > 0);
    if (shape.length !== 2) return flat;
    return Array.from({ length: shape[0] }, (_, row) => flat.slice(row * shape[1], (row + 1) * shape[1]));
  }
  return [];
}

/** A title, which may be a text or an object; markup that Plotly knows in it is left away. */
export function words(value) {
  const text = typeof value === 'string' ? value : (value?.text ?? '');
  return String(text).replace(/<br\s*\/?>/gi, ' ').replace(/<\/?(b|i|sup|sub|em|strong|span)[^>]*>/gi, '');
}

/** Numbers as they are; dates as moments; anything else is a category. */
export function axisOf(values, declared) {
  const known = values.filter((value) => value !== null && value !== undefined && value !== '');
  if (declared !== 'category' && known.every((value) => typeof value === 'number' || (typeof value === 'string' && value.trim() !== '' && Number.isFinite(Number(value))))) return 'number';
  if (declared !== 'category' && known.length && known.every((value) => typeof value === 'string' && /^\d{4}-\d\d-\d\d/.test(value) && !Number.isNaN(Date.parse(value)))) return 'date';
  return 'category';
}

/** The kind under which the page draws a trace, or null. */
export function kindOf(trace) {
  switch (trace.type ?? 'scatter') {
    case 'scatter': case 'scattergl': return 'xy';
    case 'bar': case 'histogram': return 'bar';
    case 'box': case 'violin': return 'box';
    case 'heatmap': case 'heatmapgl': case 'surface': case 'contour': return 'heat';
    case 'table': return 'table';
    case 'pie': return 'pie';
    case 'scatter3d': case 'parcoords': return 'values';
    default: return null;
  }
}

/** Reads a figure; throws with a sentence if it is none. */
export function figure(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error('it is not JSON');
  }
  if (!value || typeof value !== 'object') throw new Error('it is no figure');
  const traces = (Array.isArray(value.data) ? value.data : [value.data]).filter((trace) => trace && typeof trace === 'object' && trace.visible !== false);
  return { traces, layout: value.layout && typeof value.layout === 'object' ? value.layout : {} };
}

/** Bins of a histogram trace: centres and counts. */
export function binned(values, wanted) {
  const numbers = values.map(Number).filter(Number.isFinite);
  if (!numbers.length) return { x: [], y: [], width: 1 };
  const [low, high] = [numbers.reduce((a, b) => Math.min(a, b)), numbers.reduce((a, b) => Math.max(a, b))];
  const bins = Math.max(1, Math.min(200, wanted || Math.ceil(Math.sqrt(numbers.length))));
  const width = (high - low) / bins || 1;
  const y = Array(bins).fill(0);
  for (const value of numbers) y[Math.min(bins - 1, Math.floor((value - low) / width))] += 1;
  return { x: y.map((_, index) => low + (index + 0.5) * width), y, width };
}

/** Lowest, quartiles, highest. */
export function quartiles(values) {
  const sorted = values.map(Number).filter(Number.isFinite).sort((a, b) => a - b);
  const at = (part) => {
    const place = (sorted.length - 1) * part;
    const low = Math.floor(place);
    return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (place - low);
  };
  return sorted.length ? [0, 0.25, 0.5, 0.75, 1].map(at) : null;
}
