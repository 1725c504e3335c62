import * as api from './api.js';
import { h, scroller } from './dom.js';
import { label, plain } from './schema.js';
import { utc, zoned } from './time.js';

const enough = 200; // events

// historySection shows a stream's events, oldest first: what happened, when, by
// whom, why, and the hash that binds each event to the one before.
export function historySection(id, signal) {
  const kind = id.split('_')[0];
  const body = h('tbody');
  const more = h('button', { type: 'button', hidden: true, click: () => load().catch(() => {}) }, 'Show more');
  let last = null; // the event that was shown last
  let rest = false; // there are events that were not asked for
  let timeZone = 'UTC';
  let loading = null;

  async function load() {
    // Two at once would show events twice.
    loading ??= read().finally(() => { loading = null; });
    await loading;
  }

  async function read() {
    const after = last === null ? '' : `?after=${last.revision}`;
    const { object } = await api.call('GET', `/distributions/${encodeURIComponent(id)}/events${after}`, { signal });
    for (const e of object.data) {
      body.append(row(e));
      last = e;
    }
    rest = object.pageInfo.hasNextPage;
    more.hidden = !rest;
  }

  function row(e) {
    const m = e.metadata ?? {};
    const at = e.data?.at ?? e.recordedAt;
    const follows = last === null ? m.prevHash === '' : m.prevHash === last.metadata?.hash;
    return h('tr', { 'data-revision': e.revision },
      h('td', { class: 'num' }, String(e.revision)),
      h('td', {},
        h('strong', {}, e.type),
        e.data?.consumerId && h('span', { class: 'sub' }, h('code', {}, e.data.consumerId)),
        changes(e),
        e.problem && h('p', { class: 'error' }, `The history breaks a rule here: ${e.problem.rule}. ${e.problem.detail}`),
        m.hash && !follows && h('p', { class: 'error' }, 'It does not follow the event before it.'),
        h('details', {}, h('summary', {}, 'All of it'), h('dl', { class: 'facts' },
          fact('Event', e.id), fact('Position', e.position), fact('Recorded', utc(e.recordedAt)),
          fact('Command', m.commandId), fact('Correlation', m.$correlationId), fact('Causation', m.$causationId),
          fact('Hash', m.hash), fact('Hash before', m.prevHash || 'none: it is the first')),
          h('pre', {}, e.data === null ? `${e.dataBase64} (base64)` : plain(e.data)))),
      h('td', { class: 'num when' }, zoned(at, timeZone), h('span', { class: 'sub' }, utc(at))),
      h('td', {}, who(m), h('span', { class: 'sub' }, why(e, m))),
      h('td', {}, h('code', { title: m.hash }, m.hash ? `${m.hash.slice(0, 10)}…` : 'none')));
  }

  function changes(e) {
    const changed = e.data?.changed;
    if (!changed) {
      return null;
    }
    const text = (name, v) => v === null ? 'none' : /At$/.test(name) ? zoned(v, timeZone) : plain(v);
    return h('ul', { class: 'changes' }, Object.entries(changed).map(([name, c]) =>
      h('li', {}, `${label(kind, name)}: `, h('del', {}, text(name, c.old)), h('span', { class: 'arrow', 'aria-hidden': 'true' }, ' → '), h('ins', {}, text(name, c.new)))));
  }

  return {
    element: h('section', { class: 'history', 'aria-labelledby': 'history' },
      h('h2', { id: 'history' }, 'History'),
      scroller('Events', h('table', {},
        h('caption', { class: 'hidden' }, 'Events, oldest first'),
        h('thead', {}, h('tr', {}, ['#', 'What', 'When', 'Who and why', 'Hash'].map((t) => h('th', { scope: 'col' }, t)))),
        body)),
      more),
    zone(z) {
      timeZone = z;
    },
    // refresh reads what is new, unless what is shown does not go so far yet or is
    // as much as is read without being asked for.
    async refresh(changed) {
      if (!changed || rest) {
        return;
      }
      if (body.rows.length < enough) {
        await load();
      } else {
        rest = true;
        more.hidden = false;
      }
    },
    deleted: () => last?.type.endsWith('.deleted') ?? false,
  };
}

function fact(name, value) {
  return value ? h('div', {}, h('dt', {}, name), h('dd', {}, h('code', {}, value))) : null;
}

function who(m) {
  const actor = { clock: 'The clock', operator: 'The operator', consumer: 'The consumer' }[m.actor] ?? h('code', { title: m.actor }, short(m.actor));
  return m.onBehalfOf ? [actor, ' for ', h('code', {}, m.onBehalfOf)] : actor;
}

function short(id) {
  return id && id.length > 14 ? `${id.slice(0, 4)}…${id.slice(-6)}` : id ?? 'unknown';
}

function why(e, m) {
  if (m.actor === 'clock') {
    return 'It was due.';
  }
  const cause = { hand: 'By hand', update: 'Update', create: 'Creation' }[e.data?.cause];
  const request = m.requestId ? `request ${m.requestId}` : null;
  return [cause, request].filter(Boolean).join(', ');
}
