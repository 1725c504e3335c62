import * as api from './api.js';
import { h } from './dom.js';

// signInPage asks for a secret key and tries it.
export function signInPage({ signal, signedIn }) {
  const input = h('input', { id: 'key', type: 'password', autocomplete: 'off', spellcheck: 'false', autocapitalize: 'off', required: true, 'aria-describedby': 'key-hint key-error', 'data-focus': true });
  const wrong = h('p', { id: 'key-error', class: 'error', role: 'alert' });
  const button = h('button', { type: 'submit', class: 'primary' }, 'Sign in');
  const submit = async (e) => {
    e.preventDefault();
    const key = input.value.trim();
    wrong.textContent = '';
    if (key === '' || /[^!-~]/.test(key)) {
      refuse(key === '' ? 'A secret key is needed.' : 'This is not a key: it holds characters that no key has.');
      return;
    }
    button.disabled = true;
    api.signIn(key);
    try {
      await api.call('GET', '/distributions?first=1', { signal });
    } catch (cause) {
      api.signOut();
      button.disabled = false;
      refuse(cause.message);
      return;
    }
    input.value = '';
    signedIn();
  };
  const refuse = (text) => {
    wrong.textContent = text;
    input.setAttribute('aria-invalid', 'true');
    input.focus();
  };
  return {
    title: 'Sign in',
    keepsSession: true,
    element: h('form', { class: 'card signin', novalidate: true, submit },
      h('h1', { tabindex: '-1' }, 'Sign in'),
      h('div', { class: 'field' },
        h('label', { for: 'key' }, 'Secret key'),
        input,
        h('p', { id: 'key-hint', class: 'hint' }, 'It begins with sk_live_ or sk_test_.'),
        wrong),
      button,
      h('p', { class: 'hint' }, 'The key stays in the memory of this page. It is not stored: reloading or closing the page signs you out.')),
  };
}
