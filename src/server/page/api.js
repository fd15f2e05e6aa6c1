// The server's own ClearML API, and who is signed in.
//
// The token stands in sessionStorage: it goes with the tab. A new tab asks the open ones for it, so that a link opened
// beside is signed in too; whoever ticks "stay signed in" keeps it in localStorage until its end or until signing out.

const KEY = 'trainyard.token';
const TIME_LIMIT = 60_000;
const tabs = new BroadcastChannel('trainyard.session');

/** Why a call was not granted: the server's sentence and its numbers; `code` 0: no answer came. */
export class Refusal extends Error {
  constructor(text, code, subcode) {
    super(text);
    this.code = code;
    this.subcode = subcode;
  }
}

/** Events: `signedout`, `reached`, `unreached`. */
export const session = new EventTarget();

let token = sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);

export function signedIn() {
  return token !== null;
}

function claims() {
  try {
    const part = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    const bytes = Uint8Array.from(atob(part), (c) => c.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return {};
  }
}

/** Name of the user signed in. */
export function userName() {
  return claims().identity?.user_name ?? '';
}

/** Version of the server as the token says it. */
export function serverVersion() {
  return claims().server_build ?? '';
}

tabs.onmessage = ({ data }) => {
  if (data === 'who' && token !== null) tabs.postMessage({ token });
  else if (data === 'out') forget('');
};

/** Asks the other tabs for their session; true if one of them had one. */
export async function fromOtherTab() {
  if (token !== null) return true;
  const answer = new Promise((done) => {
    const listen = ({ data }) => {
      if (typeof data?.token !== 'string' || token !== null) return;
      token = data.token;
      sessionStorage.setItem(KEY, token);
      done(true);
    };
    tabs.addEventListener('message', listen);
    setTimeout(() => done(false), 150);
  });
  tabs.postMessage('who');
  return answer;
}

/** Signs in with a key pair. */
export async function signIn(key, secret, stay) {
  const pair = btoa(String.fromCharCode(...new TextEncoder().encode(`${key}:${secret}`)));
  const data = await send('auth.login', {}, { authorization: `Basic ${pair}` });
  token = data.token;
  sessionStorage.setItem(KEY, token);
  if (stay) localStorage.setItem(KEY, token);
}

/** Ends the session here, in the other tabs and on the server. */
export async function signOut() {
  const ended = call('auth.logout').catch(() => {});
  tabs.postMessage('out');
  await ended;
  forget('');
}

function forget(reason) {
  if (token === null) return;
  token = null;
  sessionStorage.removeItem(KEY);
  localStorage.removeItem(KEY);
  session.dispatchEvent(new CustomEvent('signedout', { detail: reason }));
}

async function send(endpoint, body, { authorization, signal, raw, again = false }) {
  const limit = AbortSignal.timeout(TIME_LIMIT);
  let response;
  try {
    response = await fetch(`/${endpoint}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Authorization: authorization },
      body: JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      credentials: 'omit',
      cache: 'no-store',
    });
    if (raw && response.ok) return await response.text();
    const answer = await response.json();
    session.dispatchEvent(new Event('reached'));
    if (response.ok) return answer.data;
    const meta = answer.meta ?? {};
    throw new Refusal(sentence(meta.result_msg), response.status, meta.result_subcode ?? 0);
  } catch (error) {
    if (error instanceof Refusal || signal?.aborted) throw error;
    // A change of the network breaks requests off: what only reads is asked once more.
    if (!response && !again && /\.(get_|debug_images|scalar|multi_task)/.test(endpoint)) {
      return send(endpoint, body, { authorization, signal, raw, again: true });
    }
    if (response && !response.ok) {
      throw new Refusal(`the server answered with status ${response.status}`, response.status, 0);
    }
    session.dispatchEvent(new Event('unreached'));
    const text = limit.aborted ? 'the server took longer than a minute' : 'the server cannot be reached';
    throw new Refusal(text, 0, 0);
  }
}

/** The server's text without the company, which every message of ClearML repeats. */
function sentence(text) {
  return String(text || 'the server gave no reason').replace(/,? ?company=[0-9a-f]{32}/g, '');
}

/** One call of the API: its `data`; throws a Refusal. */
export async function call(endpoint, body = {}, { signal, raw } = {}) {
  if (token === null) throw new Refusal('not signed in', 401, 20);
  try {
    return await send(endpoint, body, { authorization: `Bearer ${token}`, signal, raw });
  } catch (error) {
    if (error instanceof Refusal && error.code === 401) {
      forget('Your session has ended. Sign in again to go on.');
    }
    throw error;
  }
}

/** Deletes files of this server's own file service by their addresses; others are left alone. Their number. */
export async function deleteFiles(addresses) {
  const files = addresses
    .map((text) => URL.parse(text))
    .filter((url) => url?.host === location.host && url.pathname.startsWith('/files/'))
    .map((url) => url.pathname.slice('/files/'.length));
  if (files.length === 0) return 0;
  const response = await fetch('/files/delete_many', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` },
    body: JSON.stringify({ files }),
    credentials: 'omit',
  });
  if (!response.ok) throw new Refusal(`its files could not be deleted (status ${response.status})`, response.status, 0);
  return Object.keys((await response.json()).deleted ?? {}).length;
}
