import * as api from './api.js';
import { announce, h, region, setText, statusMark, title } from './dom.js';
import { called, fields, life, mayEdit, nextDue, plain, schedule, steps } from './schema.js';
import { confirmStep } from './confirm.js';
import { historySection } from './history.js';
import { lineSection } from './line.js';
import { distance, until, utc, zoned } from './time.js';

// objectPage shows one distribution, what can be done with it, and its history,
// which outlives it.
export function objectPage({ signal, go }, id) {
  const kind = id.split('_')[0];
  const heading = h('h1', { tabindex: '-1' }, title(kind));
  const wrong = h('p', { class: 'error', role: 'alert' });
  const countdown = h('p', { class: 'countdown', role: 'timer', 'aria-live': 'off' });
  const history = historySection(id, signal);
  const line = kind === 'queue' ? lineSection(id, signal, () => refresh().catch(() => {})) : null;
  let object = null;
  let etag = null;
  let known = null; // the status that was told

  const act = async (step) => {
    if (await confirmStep(step, object, etag, signal)) {
      announce(`Done: ${step.label.toLowerCase()}.`);
      heading.focus();
      etag = null; // what the engine has now, even when it is what was known
      await refresh().catch(() => {}); // the next look tells
    }
  };

  const head = region(h('div'), (o) => [
    h('p', { class: 'sub' }, title(kind), ' · ', o ? `${o.sequenceId} · ` : '', h('code', {}, id)),
    o && stepper(o),
  ]);
  const actions = region(h('div', { class: 'actions' }), (o) => !o ? [] : [
    mayEdit(o) && h('a', { class: 'button', href: `#/${id}/edit` }, 'Edit'),
    steps(o).map((s) => h('button', { type: 'button', class: s.name === 'remove' ? 'danger' : null, 'data-step': s.name, click: () => act(s) }, `${s.label}…`)),
  ]);
  const times = region(h('tbody'), (o) => schedule(o).map((t) => h('tr', {},
    h('th', { scope: 'row' }, t.verb),
    h('td', { class: 'num' }, t.at ? zoned(t.at, o.timeZone) : absent(o, t.field)),
    h('td', { class: 'num utc' }, t.at ? utc(t.at) : '–'),
    h('td', { class: 'num', 'data-at': t.at }, ''))));
  const zone = h('th', { scope: 'col' });
  const values = region(h('dl', { class: 'fields' }), valueList);
  const whole = h('div', { hidden: true },
    line?.element ?? [],
    h('section', { 'aria-labelledby': 'schedule' }, h('h2', { id: 'schedule' }, 'Schedule'),
      h('table', { class: 'schedule' },
        h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Step'), zone, h('th', { scope: 'col', class: 'utc' }, 'UTC'), h('th', { scope: 'col' }, 'From now'))),
        times.element)),
    h('section', { 'aria-labelledby': 'fields' }, h('h2', { id: 'fields' }, 'Fields'), values.element));

  async function refresh() {
    let changed = object === null;
    try {
      const answer = await api.call('GET', `/distributions/${encodeURIComponent(id)}`, { signal, ifNoneMatch: etag });
      if (answer.object) {
        ({ object, etag } = answer);
        changed = true;
        show();
      }
      setText(wrong, '');
      if (await line?.refresh()) {
        changed = true;
      }
    } catch (e) {
      if (e.status !== 404 && e.status !== 500) {
        throw e;
      }
      // Deleted or in quarantine: what is left is the history.
      if (object || e.status === 500) {
        setText(wrong, e.status === 404 ? `This ${kind} was deleted. Its history stays.` : e.message);
      }
      etag = null;
      object = null;
      gone();
    }
    await history.refresh(changed || object === null).catch((e) => {
      if (e.status !== 404) {
        throw e;
      }
      setText(wrong, `There is no such ${kind}.`);
    });
    if (object === null && history.deleted()) {
      setText(wrong, `This ${kind} was deleted. Its history stays.`);
    }
  }

  function show() {
    setText(heading, called(object));
    document.title = `${called(object)} · Lotline`;
    if (known && known !== object.status) {
      announce(`${called(object)} is now ${title(object.status)}.`);
    }
    known = object.status;
    head(object);
    actions({ ...object, updatedAt: null });
    setText(zone, object.timeZone);
    times(object);
    values(object);
    history.zone(object.timeZone);
    whole.hidden = false;
    tick();
  }

  function gone() {
    head(null);
    actions(null);
    countdown.replaceChildren();
    whole.hidden = true;
  }

  function tick() {
    if (!object) {
      return;
    }
    const now = api.now();
    const due = nextDue(object);
    setText(countdown, due ? `${due.verb} ${Date.parse(due.at) > now ? `in ${until(now, Date.parse(due.at))}` : 'now'}` : '');
    for (const cell of times.element.querySelectorAll('[data-at]')) {
      setText(cell, distance(now, Date.parse(cell.dataset.at)));
    }
  }

  return {
    title: title(kind),
    element: h('div', {},
      h('p', { class: 'back' }, h('a', { href: '#/' }, 'All distributions')),
      h('div', { class: 'head' }, heading, actions.element),
      head.element, wrong, countdown, whole, history.element),
    refresh,
    interval: line ? 1000 : null,
    tick,
  };
}

// absent says what it means that a time is not set.
function absent(o, field) {
  if (field === 'openAt') {
    return 'not scheduled';
  }
  if (field === 'closeAt') {
    return { queue: 'by hand', draw: 'when it draws', auction: 'when it settles' }[o.type];
  }
  return 'not set';
}

// stepper shows where in its life an object stands.
function stepper(o) {
  const at = life(o.type).indexOf(o.status);
  return h('ol', { class: 'stepper', 'aria-label': 'Status' }, life(o.type).map((s, i) =>
    h('li', { class: i < at ? 'past' : i > at ? 'future' : 'present', 'aria-current': i === at ? 'step' : null }, statusMark(s))));
}

const timeFields = new Set(['openAt', 'closeAt', 'drawAt', 'settleAt', 'createdAt', 'updatedAt']);

// valueList has all that the engine tells of an object, fields that this console
// does not know yet included.
function valueList(o) {
  const known = new Map(fields(o.type).map((f) => [f.name, f]));
  const labels = { id: 'Id', type: 'Kind', organizationId: 'Organization', status: 'Status', createdAt: 'Created', updatedAt: 'Updated', seedCommitment: 'Seed commitment', entriesRoot: 'Entries’ root', entryCount: 'Entries' };
  return Object.entries(o).map(([name, value]) => {
    const f = known.get(name);
    if (f?.auction && f.auction !== o.auctionType) {
      return null;
    }
    return h('div', { 'data-field': name }, h('dt', {}, f?.label ?? labels[name] ?? name), h('dd', {}, shown(name, f, value, o)));
  });
}

function shown(name, f, value, o) {
  if (value === null) {
    return h('span', { class: 'none' }, f?.none ?? (name === 'closeAt' ? absent(o, name) : 'none'));
  }
  if (timeFields.has(name)) {
    return h('span', { class: 'num' }, zoned(value, o.timeZone));
  }
  if (name === 'encryptionSeed') {
    return h('details', {}, h('summary', {}, 'Show'), h('code', {}, value));
  }
  if (name === 'metadata') {
    return h('pre', {}, plain(value));
  }
  if (typeof value === 'boolean') {
    return value ? 'yes' : 'no';
  }
  if (['id', 'organizationId', 'sequenceId', 'seedCommitment', 'entriesRoot'].includes(name)) {
    return h('code', {}, value);
  }
  const unit = f?.type === 'money' ? o.currencyCode : f?.unit;
  return h('span', { class: 'num' }, unit ? `${plain(value)} ${unit}` : plain(value));
}
