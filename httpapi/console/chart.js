// Draws how a number went. What is drawn is there in words as well.

import { h, setText, svg } from './dom.js';

const width = 300, height = 90; // of the drawing, which is stretched to its place
const gap = 5000; // milliseconds between two samples after which nothing is known of the time between
const spans = [1, 2, 5, 10]; // minutes that a chart may show

export const longest = spans.at(-1) * 60_000; // milliseconds

// chart shows one number over the latest minutes. Its show takes samples
// [{ at, value }], oldest first, of which there is at least one.
export function chart(name) {
  const now = h('span', { class: 'num now' });
  const most = h('span', { class: 'num' });
  const since = h('span');
  const area = svg('path', { class: 'area' });
  const line = svg('path', { class: 'course' });
  const drawing = svg('svg', { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', class: 'chart', role: 'img' },
    svg('path', { class: 'base', d: `M0 0H${width}M0 ${height / 2}H${width}M0 ${height}H${width}` }), area, line);

  function show(samples) {
    const end = samples.at(-1);
    const span = spans.find((m) => end.at - samples[0].at <= m * 60_000) ?? spans.at(-1);
    const values = samples.map((s) => s.value);
    const top = roundUp(Math.max(...values));
    const x = (s) => (width * (1 - (end.at - s.at) / (span * 60_000))).toFixed(1);
    const y = (s) => (height * (1 - s.value / top)).toFixed(1);
    let course = '', under = '';
    samples.forEach((s, i) => {
      // A number stays what it is until it is another.
      const goes = i > 0 && s.at - samples[i - 1].at <= gap;
      course += goes ? `H${x(s)}V${y(s)}` : `M${x(s)} ${y(s)}h0`;
      under += goes ? `H${x(s)}V${y(s)}` : `${i > 0 ? `V${height}Z` : ''}M${x(s)} ${height}V${y(s)}`;
    });
    line.setAttribute('d', course);
    area.setAttribute('d', `${under}V${height}Z`);
    setText(now, figure(end.value));
    setText(most, figure(top));
    setText(since, `${span} min ago`);
    drawing.setAttribute('aria-label', `${name}, over the last ${span === 1 ? 'minute' : `${span} minutes`}: ` +
      `${figure(end.value)} now, ${figure(Math.min(...values))} at least, ${figure(Math.max(...values))} at most`);
  }

  return {
    element: h('figure', { class: 'plot' },
      h('figcaption', {}, name, now),
      h('div', { class: 'scale', 'aria-hidden': 'true' }, most),
      drawing,
      h('div', { class: 'scale', 'aria-hidden': 'true' }, since, h('span', {}, 'now'))),
    show,
  };
}

// roundUp is the next of 2, 5, 10, 20, 50, …, whose half is as good to read.
function roundUp(n) {
  for (let unit = 1; ; unit *= 10) {
    const found = [2, 5, 10].find((m) => n <= m * unit);
    if (found) {
      return found * unit;
    }
  }
}

// figure is a count as it is read.
export function figure(n) {
  return n.toLocaleString('en-US');
}
