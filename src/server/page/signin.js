// The form for access key and secret.

import { signIn } from './api.js';
import { h, icon, replace } from './dom.js';
import { field, tick } from './ui.js';

/** Draws the form into `main`; `done` is called once signed in. */
export function showSignIn(main, reason, done) {
  const key = h('input', { name: 'key', autocomplete: 'username', spellcheck: 'false', autocapitalize: 'off', required: true });
  const secret = h('input', { name: 'secret', type: 'password', autocomplete: 'current-password', required: true });
  const error = h('p', { class: 'form-error', role: 'alert', hidden: true });
  const submit = h('button', { class: 'button primary', type: 'submit' }, 'Sign in');
  const form = h(
    'form',
    { class: 'signin', novalidate: true },
    h('img', { src: '/page/icon.svg', alt: '', width: 44, height: 44 }),
    h('h1', {}, 'trainyard'),
    reason ? h('p', { class: 'callout' }, reason) : h('p', { class: 'hint' }, 'Sign in with the keys of your clearml.conf.'),
    field('Access key', key),
    field('Secret key', secret),
    tick('stay', 'Stay signed in on this computer'),
    error,
    submit,
    h('p', { class: 'hint' }, 'Who set the server up finds the first pair in ', h('code', {}, 'keys.json'), ' of its data folder.'),
  );
  const refuse = (text, control) => {
    replace(error, icon('warn'), ` ${text}`);
    error.hidden = false;
    control.focus();
  };
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (!key.value.trim()) return refuse('Enter your access key.', key);
    if (!secret.value) return refuse('Enter your secret key.', secret);
    submit.disabled = true;
    try {
      await signIn(key.value.trim(), secret.value.trim(), form.elements.stay.checked);
      done();
    } catch (failure) {
      refuse(failure.code === 401 ? 'Access key and secret do not match.' : `Could not sign in: ${failure.message}.`, secret);
      secret.select();
    }
    submit.disabled = false;
  });
  document.title = 'Sign in · trainyard';
  replace(main, form);
  key.focus();
}
