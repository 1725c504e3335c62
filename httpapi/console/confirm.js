import * as api from './api.js';
import { h } from './dom.js';
import { called } from './schema.js';

// confirmStep says what a step by hand will do, takes it when that is wanted, and
// returns whether it was taken. A repeated attempt is the same request, so that a
// lost answer does nothing twice.
export function confirmStep(step, object, etag, signal) {
  const repeat = step.method === 'POST' ? api.repeatKey() : null;
  const wrong = h('p', { class: 'error', role: 'alert' });
  const value = step.ask && h('input', { id: 'ask', type: 'text', autocomplete: 'off', spellcheck: 'false' });
  const cancel = h('button', { type: 'button', click: () => dialog.close() }, 'Cancel');
  const go = h('button', { type: 'submit', class: 'danger' }, step.label);
  const dialog = h('dialog', { 'aria-labelledby': 'confirm-title', 'aria-describedby': 'confirm-text' },
    h('form', { novalidate: true, submit: (e) => { e.preventDefault(); take(); } },
      h('h2', { id: 'confirm-title' }, `${step.label}: ${called(object)}`),
      h('div', { id: 'confirm-text' }, h('p', {}, step.will), h('p', { class: 'strong' }, 'This cannot be undone.')),
      value && h('div', { class: 'field' }, h('label', { for: 'ask' }, step.ask.label), value),
      wrong,
      h('div', { class: 'actions' }, cancel, go)));

  async function take() {
    go.disabled = true;
    wrong.textContent = '';
    try {
      await api.call(step.method, step.path, {
        body: step.ask && JSON.stringify({ [step.ask.name]: value.value }),
        // What was confirmed is the object as it was shown.
        ifMatch: step.method === 'DELETE' ? etag : null,
        repeat, signal,
      });
      dialog.returnValue = 'taken';
      dialog.close();
    } catch (e) {
      go.disabled = false;
      wrong.textContent = e.status === 412
        ? 'Nothing was done: it was changed meanwhile. Cancel, look at what it is now, and try again.'
        : e.inFull ?? e.message;
    }
  }

  document.body.append(dialog);
  dialog.showModal();
  (value ?? cancel).focus();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue === 'taken');
    });
    signal.addEventListener('abort', () => dialog.close(), { once: true });
  });
}
