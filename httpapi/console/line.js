import * as api from './api.js';
import { chart, figure, longest } from './chart.js';
import { h, setText, title } from './dom.js';

const minute = 60_000;
const pauseBetweenWords = 30_000; // milliseconds in which a screen reader is told once how the line moves

const figures = [['waiting', 'Waiting'], ['admitted', 'Admitted'], ['completed', 'Finished'], ['expired', 'Expired'], ['left', 'Left'], ['denied', 'Denied']];

// lineSection shows how many stand where in a queue, now and over the minutes that
// the page is looked at, and moves consumers by hand. moved is called when it did.
export function lineSection(id, signal, moved) {
  const path = `/queues/${encodeURIComponent(id)}`;
  const values = new Map(figures.map(([name]) => [name, h('dd', { class: 'num', 'data-figure': name })]));
  const rate = h('dd', { class: 'num', 'data-figure': 'rate' });
  const charts = { waiting: chart('Waiting'), admitted: chart('Admitted'), pace: chart('Finished in a minute') };
  const words = h('p', { class: 'hidden', role: 'status' });
  const hand = byHand(path, signal, moved);
  const element = h('section', { class: 'line', 'aria-labelledby': 'line', hidden: true }, h('h2', { id: 'line' }, 'The line'),
    h('dl', { class: 'figures' },
      figures.map(([name, label]) => h('div', {}, h('dt', {}, label), values.get(name))),
      h('div', {}, h('dt', {}, 'Rate'), rate)),
    words,
    h('div', { class: 'plots' }, Object.values(charts).map((c) => c.element)),
    h('p', { class: 'hint' }, 'As this page saw it since it was opened, the last ten minutes at most.'),
    hand.element);
  const samples = []; // oldest first
  let stats = null;
  let etag = null;
  let asked = 0;
  let told = performance.now();

  // refresh looks at the line, and reports whether something happened in it.
  async function refresh() {
    const mine = ++asked;
    const answer = await api.call('GET', `${path}/stats`, { signal, ifNoneMatch: etag });
    if (mine !== asked) {
      return false; // a later look tells more
    }
    if (answer.object) {
      ({ object: stats, etag } = answer);
    }
    show();
    return answer.object !== null;
  }

  function sample(at) {
    while (samples.length > 0 && at - samples[0].at > longest) {
      samples.shift();
    }
    const { waiting, admitted, completed } = stats;
    const before = samples.find((s) => at - s.at <= minute);
    samples.push({ at, waiting, admitted, completed, pace: completed - (before?.completed ?? completed) });
  }

  function show() {
    for (const [name, value] of values) {
      setText(value, figure(stats[name]));
    }
    setText(rate, stats.admissionRate === null ? 'by hand' : `${figure(stats.admissionRate)} a minute`);
    sample(performance.now());
    for (const [name, c] of Object.entries(charts)) {
      c.show(samples.map((s) => ({ at: s.at, value: s[name] })));
    }
    hand.element.hidden = !['OPEN', 'CLOSED'].includes(stats.status);
    element.hidden = ['DRAFT', 'SCHEDULED'].includes(stats.status);
    if (!element.hidden && performance.now() - told >= pauseBetweenWords) {
      told = performance.now();
      setText(words, figures.map(([name, label]) => `${label} ${figure(stats[name])}`).join(', '));
    }
  }

  return { element, refresh };
}

// byHand are the forms that move consumers.
function byHand(path, signal, moved) {
  const count = h('input', { id: 'admit-count', type: 'number', min: '1', max: '1000', value: '1' });
  const next = form(path, signal, moved, { count },
    h('div', { class: 'field' }, h('label', { for: 'admit-count' }, 'How many to admit'), count));
  next.button('Admit next', 'admit', () => ({ count: Number.isNaN(count.valueAsNumber) ? null : count.valueAsNumber }),
    ({ data }) => data.length === 0 ? 'Nobody waits.' : `Admitted ${figure(data.length)}: ${some(data.map((p) => p.consumerId))}.`);

  const consumerId = h('input', { id: 'consumer', type: 'text', autocomplete: 'off', spellcheck: 'false', autocapitalize: 'off' });
  const reason = h('select', { id: 'deny-reason' }, h('option', { value: '' }, 'Choose one to deny'),
    ['ORDER_LIMIT_EXCEEDED', 'FRAUD_DETECTED', 'ADMIN_ACTION'].map((r) => h('option', { value: r }, title(r.replaceAll('_', ' ')))));
  const one = form(path, signal, moved, { consumerId, reason },
    h('div', { class: 'field' }, h('label', { for: 'consumer' }, 'Consumer id'), consumerId),
    h('div', { class: 'field' }, h('label', { for: 'deny-reason' }, 'Reason for a denial'), reason));
  const named = () => ({ consumerId: consumerId.value.trim() });
  const stands = (p) => `${p.consumerId} is ${title(p.status)}.`;
  one.button('Admit', 'admit', named, ({ data }) => data.map(stands).join(' '));
  one.button('Complete', 'complete', named, stands);
  one.button('Deny', 'deny', () => ({ ...named(), reason: reason.value }), stands).className = 'danger';

  return { element: h('div', { class: 'hand' }, next.element, one.element) };
}

// form has buttons that each send what is entered to a call of the queue's.
// inputs are by the names of what the engine may find wrong. Enter presses none of
// the buttons: what they do cannot be undone.
function form(path, signal, moved, inputs, ...fields) {
  const wrong = h('p', { class: 'error', role: 'alert' });
  const said = h('p', { class: 'hint', role: 'status' });
  const buttons = h('div', { class: 'actions' });
  const element = h('form', { class: 'card', novalidate: true, submit: (e) => e.preventDefault() }, fields, buttons, wrong, said);
  let attempt = { of: null, repeat: null }; // whose outcome may not be known

  async function send(call, body, tell) {
    const of = call + body;
    if (attempt.of !== of) {
      attempt = { of, repeat: api.repeatKey() };
    }
    const pressed = [...buttons.children];
    pressed.forEach((b) => b.setAttribute('aria-disabled', 'true'));
    complain([], '');
    setText(said, '');
    try {
      const { object } = await api.call('POST', `${path}/${call}`, { body, repeat: attempt.repeat, signal });
      attempt = { of: null, repeat: null };
      setText(said, tell(object));
      moved();
    } catch (e) {
      if (!signal.aborted) {
        complain(e.details ?? [], e.inFull ?? String(e));
      }
    }
    pressed.forEach((b) => b.removeAttribute('aria-disabled'));
  }

  function complain(details, text) {
    setText(wrong, text);
    for (const [name, input] of Object.entries(inputs)) {
      input.setAttribute('aria-invalid', String(details.some((d) => d.field === name)));
    }
  }

  return {
    element,
    button(label, call, body, tell) {
      const b = h('button', {
        type: 'button',
        click: () => {
          if (!b.hasAttribute('aria-disabled')) { // a button that is disabled would lose the focus
            send(call, JSON.stringify(body()), tell);
          }
        },
      }, label);
      buttons.append(b);
      return b;
    },
  };
}

// some are the first of many names.
function some(names) {
  return names.length <= 5 ? names.join(', ') : `${names.slice(0, 5).join(', ')} and ${figure(names.length - 5)} more`;
}
