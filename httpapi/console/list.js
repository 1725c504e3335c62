import * as api from './api.js';
import { announce, h, scroller, setText, statusMark, title } from './dom.js';
import { called, collection, kinds, nextDue, statuses } from './schema.js';
import { distance, zoned } from './time.js';

const pageSize = 20;
const orders = {
  '': ['Newest first', {}],
  oldest: ['Oldest first', { sortBy: 'createdAt', sortDir: 'asc' }],
  name: ['By name', { sortBy: 'name' }],
  opening: ['By opening', { sortBy: 'openAt', sortDir: 'asc' }],
};

// listPage shows all distributions, a page at a time. What it is looking for is
// in the address, so that it can be kept and sent on.
export function listPage({ signal }, query) {
  const rows = new Map(); // by id
  const body = h('tbody');
  const summary = h('p', { class: 'hint', role: 'status' });
  const empty = h('p', { class: 'empty', hidden: true }, 'No distributions here.');
  const wrong = h('p', { class: 'error', role: 'alert' });
  const previous = h('button', { type: 'button', disabled: true, click: () => turn('before', info.startCursor) }, 'Previous');
  const next = h('button', { type: 'button', disabled: true, click: () => turn('after', info.endCursor) }, 'Next');
  const first = h('button', { type: 'button', hidden: true, click: () => turn() }, 'First page');
  let info = {};
  let asked = 0;

  const narrow = (change) => {
    change();
    turn();
  };
  const turn = (direction, cursor) => {
    query.delete('after');
    query.delete('before');
    if (cursor) {
      query.set(direction, cursor);
    }
    // Not a step of the history: Back leads to where one came from.
    const text = query.toString();
    history.replaceState(null, '', text ? `#/?${text}` : '#/');
    refresh().catch((e) => {
      if (e instanceof api.ApiError) {
        setText(wrong, e.message);
      }
    });
  };

  async function refresh() {
    const mine = ++asked;
    const { object } = await api.call('GET', listPath(query), { signal }).catch((e) => {
      // A cursor of another list, or a parameter that somebody typed in.
      if (e.status === 400) {
        setText(wrong, [e.message, ...e.details.map((d) => `${d.field} ${d.message}`)].join(': '));
      }
      throw e;
    });
    if (mine !== asked) {
      return; // something else was asked for meanwhile
    }
    setText(wrong, '');
    info = object.pageInfo;
    place(object.data);
  }

  function place(objects) {
    const ids = new Set(objects.map((o) => o.id));
    for (const [id, row] of rows) {
      if (!ids.has(id)) {
        row.element.remove();
        rows.delete(id);
      }
    }
    objects.forEach((o, i) => {
      let row = rows.get(o.id);
      if (!row) {
        row = newRow();
        rows.set(o.id, row);
      } else if (row.object.status !== o.status) {
        announce(`${called(o)} is now ${title(o.status)}.`);
      }
      row.update(o);
      // Moving a row takes the focus from what is in it.
      if (body.children[i] !== row.element) {
        body.insertBefore(row.element, body.children[i] ?? null);
      }
    });
    empty.hidden = objects.length > 0;
    previous.disabled = !info.hasPreviousPage || !info.startCursor;
    next.disabled = !info.hasNextPage || !info.endCursor;
    first.hidden = !query.has('after') && !query.has('before');
    setText(summary, objects.length === 1 ? '1 on this page' : `${objects.length} on this page`);
  }

  const search = h('input', { id: 'search', type: 'search', autocomplete: 'off', value: query.get('search') ?? '', 'aria-describedby': 'search-hint' });
  let typing;
  search.addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(() => narrow(() => put('search', search.value.trim().length >= 2 ? search.value.trim() : '')), 300);
  });
  signal.addEventListener('abort', () => clearTimeout(typing));
  const put = (name, value) => (value ? query.set(name, value) : query.delete(name));

  const filters = h('form', { class: 'filters', role: 'search', 'aria-label': 'Filter distributions', submit: (e) => e.preventDefault() },
    h('div', { class: 'field' }, h('label', { for: 'search' }, 'Search names'), search, h('p', { id: 'search-hint', class: 'hint' }, 'Two characters or more')),
    h('div', { class: 'field' }, h('label', { for: 'kind' }, 'Kind'),
      select('kind', [['', 'All kinds'], ...kinds.map((k) => [k, `${title(k)}s`])], query.get('kind'), (v) => narrow(() => put('kind', v)))),
    h('div', { class: 'field' }, h('label', { for: 'order' }, 'Order'),
      select('order', Object.entries(orders).map(([k, [text]]) => [k, text]), query.get('order'), (v) => narrow(() => put('order', v)))),
    h('fieldset', { class: 'checks' }, h('legend', {}, 'Status'),
      statuses.map((s) => h('label', {},
        h('input', { type: 'checkbox', value: s, checked: query.getAll('status').includes(s), change: (e) => narrow(() => toggle(query, s, e.target.checked)) }),
        statusMark(s)))));

  return {
    title: 'Distributions',
    element: h('div', {},
      h('div', { class: 'head' },
        h('h1', { tabindex: '-1' }, 'Distributions'),
        h('div', { class: 'actions' }, kinds.map((k) => h('a', { class: 'button', href: `#/new/${k}` }, `New ${k}`)))),
      filters,
      wrong,
      scroller('Distributions', h('table', { class: 'list' },
        h('caption', { class: 'hidden' }, 'Distributions, kept up to date'),
        h('thead', {}, h('tr', {}, [['Name'], ['Kind', 'kind'], ['Status'], ['Opens', 'opens'], ['Next', 'next']].map(([t, column]) => h('th', { scope: 'col', class: column }, t)))),
        body)),
      empty,
      h('nav', { class: 'pager', 'aria-label': 'Pages' }, first, previous, next, summary)),
    refresh,
    tick: () => rows.forEach((row) => row.tick()),
  };
}

// newRow keeps its elements while the object changes, so that the focus and a
// screen reader stay where they are.
function newRow() {
  const link = h('a', {});
  const sequence = h('span', { class: 'sub' });
  const kind = h('td', { class: 'kind' });
  const status = h('td');
  const opens = h('td', { class: 'opens num' });
  const due = h('td', { class: 'next num' });
  const row = {
    object: null,
    element: h('tr', {}, h('th', { scope: 'row' }, link, sequence), kind, status, opens, due),
    update(o) {
      if (row.object?.status !== o.status) {
        status.replaceChildren(statusMark(o.status));
      }
      row.object = o;
      link.href = `#/${o.id}`;
      setText(link, called(o));
      setText(sequence, o.name ? o.sequenceId : '');
      setText(kind, title(o.type));
      setText(opens, o.openAt ? zoned(o.openAt, o.timeZone) : '–');
      row.tick();
    },
    tick() {
      const n = nextDue(row.object);
      setText(due, n ? `${n.verb} ${distance(api.now(), Date.parse(n.at))}` : '–');
    },
  };
  return row;
}

function listPath(query) {
  const asked = new URLSearchParams(orders[query.get('order') ?? '']?.[1]);
  for (const s of query.getAll('status')) {
    asked.append('status', s);
  }
  for (const name of ['search', 'after', 'before']) {
    if (query.has(name)) {
      asked.set(name, query.get(name));
    }
  }
  asked.set(query.has('before') ? 'last' : 'first', pageSize);
  const kind = query.get('kind');
  return `${kinds.includes(kind) ? collection(kind) : '/distributions'}?${asked}`;
}

function toggle(query, status, on) {
  const chosen = query.getAll('status').filter((s) => s !== status);
  query.delete('status');
  (on ? [...chosen, status] : chosen).forEach((s) => query.append('status', s));
}

function select(id, options, chosen, changed) {
  return h('select', { id, change: (e) => changed(e.target.value) },
    options.map(([value, text]) => h('option', { value, selected: value === (chosen ?? '') }, text)));
}
