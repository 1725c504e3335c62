import * as api from './api.js';
import { h, title } from './dom.js';
import { called, collection, fields, isOpen, plain } from './schema.js';
import { wall, zoned } from './time.js';

// formPage makes an object, or changes the one with that id. What is entered goes
// to the engine as it is, and what the engine says about a field is shown there.
export function formPage({ signal, go }, kind, id) {
  const heading = h('h1', { tabindex: '-1' }, id ? `Edit ${kind}` : `New ${kind}`);
  const body = h('div');
  const page = { title: heading.textContent, element: h('div', {}, h('p', { class: 'back' }, h('a', { href: id ? `#/${id}` : '#/' }, 'Back')), heading, body) };
  if (!id) {
    body.append(makeForm(kind, null, null, { signal, go }));
    return page;
  }
  const wrong = h('p', { role: 'status' }, 'Reading it…');
  body.append(wrong);
  api.call('GET', `${collection(kind)}/${encodeURIComponent(id)}`, { signal }).then(({ object, etag }) => {
    heading.textContent = `Edit ${called(object)}`;
    body.replaceChildren(makeForm(kind, object, etag, { signal, go }));
  }).catch((e) => {
    if (!signal.aborted) {
      wrong.className = 'error';
      wrong.textContent = e.message;
    }
  });
  return page;
}

// makeForm is the form over base, the object as it was read, or null for a new
// one.
function makeForm(kind, base, etag, { signal, go }) {
  const controls = fields(kind).filter((f) => !(base && f.once)).map((f) => control(f, base));
  const summary = h('div', { class: 'summary', role: 'alert', tabindex: '-1' });
  const save = h('button', { type: 'submit', class: 'primary' }, base ? 'Save' : `Create ${kind}`);
  let repeat = { of: null, key: null };

  const form = h('form', { class: 'card', novalidate: true, submit: (e) => { e.preventDefault(); send(); } },
    summary,
    controls.map((c) => c.element),
    h('div', { class: 'actions' }, save, h('a', { class: 'button', href: base ? `#/${base.id}` : '#/' }, 'Cancel')));
  fitAuction();
  if (base) {
    controls.find((c) => c.field.type === 'zone').input.addEventListener('change', fitZone);
  }

  const type = controls.find((c) => c.field.name === 'auctionType');
  type?.input.addEventListener('change', fitAuction);

  // fitAuction shows the fields of the chosen type of auction.
  function fitAuction() {
    const chosen = controls.find((c) => c.field.name === 'auctionType')?.input.value;
    for (const c of controls) {
      c.element.hidden = Boolean(c.field.auction) && c.field.auction !== chosen;
    }
  }

  // fitZone shows the times that were not touched as the chosen zone's clocks do,
  // because it is in that zone that they are read.
  function fitZone(e) {
    const seen = { ...base, timeZone: e.target.value.trim() };
    try {
      controls.filter((c) => c.field.type === 'time').forEach((c) => c.rebase(seen));
    } catch {
      // This browser does not know the zone, and the engine will say what it thinks of it.
    }
  }

  async function send() {
    const given = controls.filter((c) => !c.element.hidden && c.changed()).map((c) => [c.field.name, c.json()]);
    clear();
    const unfinished = controls.filter((c) => c.input.validity.badInput).map((c) => ({ field: c.field.name, message: 'is not a whole time: it needs a date and a time of day' }));
    if (unfinished.length > 0) {
      refuse(new api.ApiError(0, { error: 'Nothing was sent', details: unfinished }));
      return;
    }
    if (base && given.length === 0) {
      tell(h('p', {}, 'Nothing was changed.'));
      return;
    }
    const text = `{${given.map(([name, json]) => `${JSON.stringify(name)}:${json}`).join(',')}}`;
    if (repeat.of !== text) {
      repeat = { of: text, key: api.repeatKey() };
    }
    save.disabled = true;
    try {
      const { object } = base
        ? await api.call('PUT', `${collection(kind)}/${base.id}`, { body: text, ifMatch: etag, signal })
        : await api.call('POST', collection(kind), { body: text, repeat: repeat.key, signal });
      go(`#/${object.id}`, base ? 'Saved.' : `${title(kind)} created.`);
    } catch (e) {
      if (signal.aborted) {
        return;
      }
      save.disabled = false;
      if (e.status === 412) {
        await conflict(e);
      } else {
        refuse(e);
      }
    }
  }

  function clear() {
    controls.forEach((c) => c.complain(''));
    summary.replaceChildren();
  }

  function tell(...what) {
    summary.replaceChildren(...what);
    summary.focus();
  }

  // refuse shows an error of the engine's, each part of it at its field.
  function refuse(e) {
    const items = e.details.map((d) => {
      const c = controls.find((c) => c.field.name === d.field && !c.element.hidden);
      c?.complain(d.message);
      return h('li', {}, c ? h('a', { href: `#${c.input.id}`, click: (event) => { event.preventDefault(); c.input.focus(); } }, c.field.label) : d.field, ` ${d.message}`);
    });
    tell(h('p', {}, h('strong', {}, e.message)), items.length > 0 ? h('ul', {}, items) : '');
  }

  // conflict says what somebody else changed meanwhile. What was entered here
  // stays, and is saved over it when that is wanted.
  async function conflict(refusal) {
    let now;
    try {
      now = await api.call('GET', `${collection(kind)}/${base.id}`, { signal });
    } catch (e) {
      refuse(e.status === 404 ? new api.ApiError(404, { error: `The ${kind} was deleted meanwhile` }) : e);
      return;
    }
    const differences = Object.entries(now.object).filter(([name, v]) => name !== 'updatedAt' && JSON.stringify(v) !== JSON.stringify(base[name]));
    const was = base;
    base = now.object;
    etag = now.etag;
    controls.forEach((c) => c.rebase(base));
    fitAuction();
    tell(
      h('p', {}, h('strong', {}, `${refusal.message}. Somebody else changed this ${kind} while you were editing it:`)),
      h('ul', {}, differences.map(([name, v]) => {
        const c = controls.find((c) => c.field.name === name);
        const text = (value) => value === null ? 'none' : c?.field.type === 'time' ? zoned(value, base.timeZone) : plain(value);
        return h('li', {}, `${c?.field.label ?? name}: `, h('del', {}, text(was[name])), ' → ', h('ins', {}, text(v)),
          c?.changed() ? h('span', { class: 'strong' }, ' (you entered something else, which is kept)') : '');
      })),
      h('p', {}, 'Nothing of yours was saved. Look it over and save again to go on.'));
  }

  return form;
}

// control is one field of the form.
function control(field, base) {
  const id = `field-${field.name}`;
  const frozen = field.frozen && base && isOpen(base);
  const input = inputFor(field, id);
  const error = h('p', { id: `${id}-error`, class: 'error' });
  const hints = (object) => frozen ? 'Fixed since the opening.' : hintFor(field, object);
  const hint = h('p', { id: `${id}-hint`, class: 'hint' }, hints(base));
  input.setAttribute('aria-describedby', `${id}-hint ${id}-error`);
  if (field.required) {
    input.setAttribute('aria-required', 'true');
  }
  input.disabled = Boolean(frozen);
  const read = () => (field.type === 'flag' ? String(input.checked) : field.type === 'text' ? input.value : input.value.trim());
  const write = (text) => {
    if (field.type === 'flag') {
      input.checked = text === 'true';
    } else {
      input.value = text;
    }
  };
  let before = base ? textOf(field, base) : field.type === 'flag' ? String(field.preset) : '';
  write(base || field.type === 'flag' ? before : field.type === 'choice' ? field.choices[0] : '');
  // A widget may write the same time in another way.
  before = base || field.type === 'flag' ? read() : '';

  const label = h('label', { for: id }, field.label, field.unit ? h('span', { class: 'unit' }, ` ${field.unit}`) : '', field.required ? h('span', { class: 'unit' }, ' required') : '');
  return {
    field,
    input,
    element: h('div', { class: field.type === 'flag' ? 'field flag' : 'field' }, field.type === 'flag' ? [input, label] : [label, input], zones(field), hint, error),
    changed: () => read() !== before,
    json: () => jsonOf(field, read()),
    complain(message) {
      error.textContent = message;
      if (message) {
        input.setAttribute('aria-invalid', 'true');
      } else {
        input.removeAttribute('aria-invalid');
      }
      if (message && field.type === 'time' && read() !== '') {
        // A clock's widget has no room for the offset that such a time may need.
        const entered = JSON.parse(jsonOf(field, read()));
        input.type = 'text';
        input.value = entered;
      }
    },
    // rebase makes another state of the object the one that was read; what was
    // entered stays.
    rebase(object) {
      const entered = read() !== before ? read() : null;
      write(textOf(field, object));
      before = read();
      hint.textContent = hints(object);
      if (entered !== null) {
        write(entered);
      }
    },
  };
}

function inputFor(field, id) {
  const common = { id, autocomplete: 'off' };
  switch (field.type) {
    case 'time':
      return h('input', { ...common, type: 'datetime-local', step: '1' });
    case 'flag':
      return h('input', { ...common, type: 'checkbox' });
    case 'json':
      return h('textarea', { ...common, rows: '5', spellcheck: 'false' });
    case 'choice':
      return h('select', common, field.choices.map((c) => h('option', { value: c }, title(c))));
    case 'count':
    case 'money':
      return h('input', { ...common, type: 'text', inputmode: field.type === 'count' ? 'numeric' : 'decimal', class: 'num' });
    case 'zone':
      return h('input', { ...common, type: 'text', list: `${id}-list`, spellcheck: 'false' });
    default:
      return h('input', { ...common, type: 'text', spellcheck: 'false' });
  }
}

// zones offers the zones that this browser knows; the engine may know more.
function zones(field) {
  return field.type === 'zone' && h('datalist', { id: `field-${field.name}-list` }, Intl.supportedValuesOf('timeZone').map((z) => h('option', { value: z })));
}

function hintFor(field, object) {
  if (field.type === 'time') {
    return [object ? `In ${object.timeZone}.` : 'In the time zone above.', field.none ? `Empty: ${field.none}.` : null].filter(Boolean).join(' ');
  }
  if (field.type === 'zone' && !object) {
    return `${field.hint} Your organization’s when left empty.`;
  }
  return [field.hint, field.none ? `Empty: ${field.none}.` : null].filter(Boolean).join(' ');
}

// textOf is a field's value as it stands in the form.
function textOf(field, object) {
  const value = object[field.name];
  if (value === null) {
    return '';
  }
  return field.type === 'time' ? wall(value, object.timeZone) : plain(value);
}

// jsonOf is what was entered as the API takes it. What is not what the field is
// for goes as a text, and the engine says what is wrong with it.
function jsonOf(field, text) {
  if (field.type === 'flag') {
    return text;
  }
  if (text === '') {
    return 'null';
  }
  switch (field.type) {
    case 'count':
      return /^-?(0|[1-9]\d*)$/.test(text) ? text : JSON.stringify(text);
    case 'time':
      return JSON.stringify(/T\d\d:\d\d$/.test(text) ? `${text}:00` : text);
    case 'json':
      return parses(text) ? text : JSON.stringify(text);
    default:
      return JSON.stringify(text);
  }
}

function parses(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
