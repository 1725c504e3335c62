// Builds what is shown. Text only ever becomes text: nothing here, or elsewhere
// in the console, parses markup.

// h makes an element. An attribute whose value is a function listens to the
// event of that name; null, false and undefined leave an attribute out.
export function h(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

// svg makes an element of a drawing, which is decoration to a screen reader.
export function svg(tag, attributes = {}, ...children) {
  return build(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') {
      element.addEventListener(name, value);
    } else if (value === true) {
      element.setAttribute(name, '');
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

// setText changes a text that may be the same, without disturbing a selection or
// a screen reader.
export function setText(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

// region shows in element what render makes of a value, anew only when the value
// changed.
export function region(element, render) {
  let shown;
  const show = (value) => {
    const key = JSON.stringify(value);
    if (key !== shown) {
      shown = key;
      element.replaceChildren(...[render(value)].flat(Infinity).filter(Boolean));
    }
  };
  return Object.assign(show, { element });
}

// announce says what happened, on the page and to a screen reader.
export function announce(text) {
  document.getElementById('notice').textContent = text;
}

const shapes = {
  DRAFT: () => svg('circle', { cx: 8, cy: 8, r: 5, class: 'line dashed' }),
  SCHEDULED: () => [svg('circle', { cx: 8, cy: 8, r: 6, class: 'line' }), svg('path', { d: 'M8 4.5V8l2.5 1.5', class: 'line' })],
  OPEN: () => svg('circle', { cx: 8, cy: 8, r: 6, class: 'solid' }),
  CLOSED: () => svg('rect', { x: 3, y: 3, width: 10, height: 10, class: 'solid' }),
  DRAWN: () => svg('path', { d: 'M8 1.5 14.5 8 8 14.5 1.5 8Z', class: 'solid' }),
  COMPLETED: () => svg('path', { d: 'm2.5 8.5 3.5 3.5 7.5-8', class: 'line' }),
  SETTLED: () => svg('path', { d: 'm2.5 8.5 3.5 3.5 7.5-8', class: 'line' }),
  DELETED: () => svg('path', { d: 'm3.5 3.5 9 9m0-9-9 9', class: 'line' }),
};

// title is a word of the API as a person reads it.
export function title(word) {
  return word.charAt(0).toUpperCase() + word.slice(1).toLowerCase();
}

// statusMark shows a status as a word and a shape.
export function statusMark(status) {
  const drawing = svg('svg', { viewBox: '0 0 16 16', class: 'shape', 'aria-hidden': 'true' }, shapes[status]?.() ?? []);
  return h('span', { class: `status ${status.toLowerCase()}` }, drawing, title(status));
}

// scroller lets a wide table be scrolled, by the keyboard too.
export function scroller(label, table) {
  return h('div', { class: 'scroller', role: 'region', 'aria-label': label, tabindex: '0' }, table);
}
