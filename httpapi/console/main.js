// Signs in, shows the page that the address names, and keeps it fresh.

import * as api from './api.js';
import { announce, h, setText } from './dom.js';
import { listPage } from './list.js';
import { objectPage } from './object.js';
import { formPage } from './form.js';
import { signInPage } from './signin.js';
import { kinds } from './schema.js';

const interval = 2000; // milliseconds between two looks at the engine, where a page wants no other
const main = document.getElementById('main');
const state = h('span', { class: 'live' });

// A page has a title, an element, and may have refresh, which looks at the engine
// every interval milliseconds, and tick, which is called each second. What it started ends with its signal.
let page = null;
let news = ''; // to be told on the next page

function route() {
  if (!api.signedIn()) {
    return signInPage;
  }
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  let first, second;
  try {
    [first, second] = path.split('/').map(decodeURIComponent);
  } catch {
    return notFoundPage; // such as "#/%"
  }
  if (first === '') {
    return (context) => listPage(context, new URLSearchParams(query));
  }
  if (first === 'new' && kinds.includes(second)) {
    return (context) => formPage(context, second, null);
  }
  const kind = first.split('_')[0];
  if (kinds.includes(kind) && second === undefined) {
    return (context) => objectPage(context, first);
  }
  if (kinds.includes(kind) && second === 'edit') {
    return (context) => formPage(context, kind, first);
  }
  return notFoundPage;
}

function notFoundPage() {
  return { title: 'Not found', element: h('div', {}, h('h1', { tabindex: '-1' }, 'Not found'), h('p', {}, 'The console has no such page. ', h('a', { href: '#/' }, 'To the list'))) };
}

function show() {
  page?.ends.abort();
  const ends = new AbortController();
  const context = { signal: ends.signal, go, signedIn: () => { chrome(); show(); } };
  page = { ends, ...route()(context) };
  main.replaceChildren(page.element);
  document.title = `${page.title} · Lotline`;
  announce(news);
  news = '';
  focusHeading();
  if (page.refresh) {
    follow(page);
  } else {
    setText(state, '');
  }
}

// focusHeading puts the keyboard, and so a screen reader, where the page begins.
function focusHeading() {
  (main.querySelector('[data-focus]') ?? main.querySelector('h1') ?? main).focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

// go shows another page, and what there is to tell there.
function go(hash, text = '') {
  news = text;
  if (location.hash === hash) {
    show();
  } else {
    location.hash = hash;
  }
}

// follow looks at the engine again and again while the page is shown and can be
// seen, whatever comes of a look: the next one may be better.
async function follow(p) {
  const { signal } = p.ends;
  while (!signal.aborted) {
    if (document.visibilityState === 'visible') {
      try {
        await p.refresh();
        live(p);
      } catch (e) {
        if (signal.aborted) {
          return;
        }
        const ofTheEngine = e instanceof api.ApiError;
        if (!ofTheEngine) {
          console.error(e);
        }
        setText(state, ofTheEngine ? e.message : 'What the engine answers cannot be shown');
        state.classList.add('stale');
      }
    }
    await pause(p);
  }
}

function live(p) {
  if (!p.ends.signal.aborted) {
    setText(state, 'Live');
    state.classList.remove('stale');
  }
}

// pause ends after the interval, or when the page is shown again after it was
// hidden, or left.
function pause(p) {
  const { signal } = p.ends;
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', done);
      resolve();
    };
    const timer = setTimeout(done, p.interval ?? interval);
    document.addEventListener('visibilitychange', done, { signal });
    signal.addEventListener('abort', done, { once: true });
  });
}

// chrome shows who is signed in, around all pages.
function chrome() {
  const session = document.getElementById('session');
  document.getElementById('nav').hidden = session.hidden = !api.signedIn();
  session.replaceChildren();
  if (api.signedIn()) {
    session.append(state, h('code', { class: 'key' }, api.hint()), h('button', { type: 'button', click: () => leave('Signed out.') }, 'Sign out'));
  }
}

function leave(why) {
  api.signOut();
  document.querySelectorAll('dialog[open]').forEach((d) => d.close());
  chrome();
  news = why;
  show();
}

api.onRefused((refusal) => {
  // While somebody signs in the page says so itself.
  if (page?.keepsSession !== true) {
    leave(`Signed out: ${refusal.message}`);
  }
});
window.addEventListener('hashchange', show);
document.querySelector('.skip').addEventListener('click', (e) => {
  e.preventDefault();
  main.focus();
});
setInterval(() => {
  if (document.visibilityState === 'visible') {
    page?.tick?.();
  }
}, 1000);
show();
