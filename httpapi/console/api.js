// Talks to the API. The secret key is a variable of this module and is kept
// nowhere else: it is gone when the page is reloaded or closed.

const base = '/api/v1';
const patience = 15_000; // milliseconds that an answer may take

let key = null;
let position = null; // of our latest write, so that another node does not answer from before it
let skew = 0; // milliseconds that the engine's clock is ahead of ours
let whenRefused = () => {};

// ApiError is an answer that is not a success, one that cannot be read, or none at
// all (status 0).
export class ApiError extends Error {
  constructor(status, body) {
    super(body.message ? `${body.error}: ${body.message}` : body.error);
    this.status = status;
    this.details = body.details ?? [];
    this.requestId = body.requestId;
  }

  // inFull is what was said, with what is wrong with each field.
  get inFull() {
    return [this.message, ...this.details.map((d) => `${d.field} ${d.message}`)].join('. ');
  }
}

export function signIn(secret) {
  key = secret;
}

export function signOut() {
  key = null;
  position = null;
}

export function signedIn() {
  return key !== null;
}

// hint tells the key from others without telling it.
export function hint() {
  return `${key.slice(0, 8)}…${key.slice(-4)}`;
}

// onRefused is called when the key is not, or no longer, good.
export function onRefused(f) {
  whenRefused = f;
}

// now is the engine's time. The header has whole seconds, so less is no skew.
export function now() {
  return Date.now() + (Math.abs(skew) > 1500 ? skew : 0);
}

// call sends a request and returns the answer's object, which is null when there
// is none, with its ETag. A 304 is an answer without an object.
export async function call(method, path, { body, ifMatch, ifNoneMatch, repeat, signal } = {}) {
  const headers = { Authorization: `Bearer ${key}`, Accept: 'application/json' };
  if (body !== undefined) {
    headers['Content-Type'] = 'application/json';
  }
  if (ifMatch) {
    headers['If-Match'] = ifMatch;
  }
  if (ifNoneMatch) {
    headers['If-None-Match'] = ifNoneMatch;
  }
  if (repeat) {
    headers['Idempotency-Key'] = repeat;
  }
  if (position && method === 'GET') {
    headers['X-Position'] = position;
  }
  const signals = [AbortSignal.timeout(patience)];
  if (signal) {
    signals.push(signal);
  }
  let answer, text;
  try {
    answer = await fetch(base + path, {
      method, headers, body, signal: AbortSignal.any(signals),
      cache: 'no-store', credentials: 'omit', mode: 'same-origin', redirect: 'error',
    });
    text = await answer.text();
  } catch (cause) {
    if (signal?.aborted) {
      throw cause;
    }
    throw new ApiError(0, { error: 'The engine does not answer' });
  }
  const date = Date.parse(answer.headers.get('Date'));
  if (date) {
    skew = date + 500 - Date.now();
  }
  if (method !== 'GET' && answer.headers.get('X-Position')) {
    position = answer.headers.get('X-Position');
  }
  const object = read(text);
  if (!answer.ok && answer.status !== 304) {
    const refusal = new ApiError(answer.status, object?.error ? object : { error: `The engine answered ${answer.status}` });
    if (answer.status === 401) {
      whenRefused(refusal);
    }
    throw refusal;
  }
  if (object === null && answer.status !== 204 && answer.status !== 304) {
    throw new ApiError(answer.status, { error: `The engine answered ${answer.status}, but what it said cannot be read` });
  }
  return { object, etag: answer.headers.get('ETag') };
}

// read reads JSON and keeps numbers that a float would change as they are
// written, where the browser can. What cannot be read, such as what is nested too
// deep, is null.
function read(text) {
  try {
    return JSON.parse(text, (_, value, context) =>
      typeof value === 'number' && JSON.rawJSON && context?.source !== undefined && String(value) !== context.source
        ? JSON.rawJSON(context.source) : value);
  } catch {
    return null;
  }
}

// repeatKey makes an Idempotency-Key, also where the connection is not secure.
export function repeatKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
}
