// What the console knows of the three kinds: how their fields are called and
// entered, and which steps there are. It holds no rules; whether something is
// allowed is for the engine to say.

// A field's type says how it is entered. none is what null means; once is given
// at the creation only; frozen cannot change any more once the object is open;
// auction is the type of auction that it belongs to.
const leading = [
  { name: 'sequenceId', label: 'Sequence id', type: 'text', required: true, once: true, hint: 'Your own reference: 1 to 128 visible ASCII characters.' },
  { name: 'name', label: 'Name', type: 'text', hint: 'What people see, up to 200 characters.' },
  { name: 'timeZone', label: 'Time zone', type: 'zone', hint: 'An IANA name such as Europe/Berlin. Another zone moves no time that is set.' },
  { name: 'openAt', label: 'Opens', type: 'time', frozen: true, none: 'a draft, not scheduled' },
  { name: 'closeAt', label: 'Closes', type: 'time' },
];

const trailing = [
  { name: 'encryptionSeed', label: 'Encryption seed', type: 'secret', once: true, hint: 'Made by the engine when left empty.' },
  { name: 'metadata', label: 'Metadata', type: 'json', hint: 'A JSON object, up to 16 KiB.' },
];

const own = {
  queue: [
    { name: 'maxCapacity', label: 'Capacity', type: 'count', none: 'no limit', hint: 'How many may wait at once.' },
    { name: 'admissionRate', label: 'Admission rate', type: 'count', unit: 'a minute', none: 'only by hand' },
    { name: 'sessionDurationSeconds', label: 'Session', type: 'count', unit: 'seconds', none: 'no limit', hint: 'How long somebody who was admitted may take.' },
  ],
  draw: [
    { name: 'drawAt', label: 'Draws', type: 'time', required: true },
    { name: 'winnerCount', label: 'Winners', type: 'count', required: true },
    { name: 'maxEntries', label: 'Most entries', type: 'count', none: 'no limit' },
    { name: 'claimWindowSeconds', label: 'Claim window', type: 'count', unit: 'seconds', none: 'winners never expire' },
    { name: 'backfill', label: 'Replace winners who do not claim', type: 'flag', preset: true },
    { name: 'entropySource', label: 'Entropy source', type: 'text', frozen: true, none: 'none: the operator is trusted', hint: 'A public source of randomness, such as “drand quicknet round 12345”. The draw then waits for its value.' },
  ],
  auction: [
    { name: 'settleAt', label: 'Settles', type: 'time', required: true },
    { name: 'auctionType', label: 'Type', type: 'choice', choices: ['english', 'dutch'], frozen: true },
    { name: 'currencyCode', label: 'Currency', type: 'text', frozen: true, hint: 'ISO 4217, such as EUR. Your organization’s when left empty.' },
    { name: 'winnerCount', label: 'Winners', type: 'count', hint: 'One when left empty.' },
    { name: 'startingBid', label: 'Starting bid', type: 'money', auction: 'english' },
    { name: 'minimumIncrement', label: 'Minimum increment', type: 'money', auction: 'english' },
    { name: 'reservePrice', label: 'Reserve price', type: 'money', auction: 'english', none: 'no reserve' },
    { name: 'buyNowPrice', label: 'Buy-now price', type: 'money', auction: 'english' },
    { name: 'autoExtendSeconds', label: 'Extension', type: 'count', unit: 'seconds', auction: 'english', none: 'no extension' },
    { name: 'maxExtensions', label: 'Most extensions', type: 'count', auction: 'english' },
    { name: 'startPrice', label: 'Start price', type: 'money', auction: 'dutch', frozen: true },
    { name: 'floorPrice', label: 'Floor price', type: 'money', auction: 'dutch', frozen: true },
    { name: 'priceDropAmount', label: 'Price drop', type: 'money', auction: 'dutch', frozen: true },
    { name: 'priceDropIntervalSeconds', label: 'Drop interval', type: 'count', unit: 'seconds', auction: 'dutch', frozen: true },
  ],
};

const lives = {
  queue: ['DRAFT', 'SCHEDULED', 'OPEN', 'CLOSED', 'COMPLETED'],
  draw: ['DRAFT', 'SCHEDULED', 'OPEN', 'CLOSED', 'DRAWN', 'COMPLETED'],
  auction: ['DRAFT', 'SCHEDULED', 'OPEN', 'CLOSED', 'SETTLED'],
};

export const kinds = Object.keys(own);
export const statuses = ['DRAFT', 'SCHEDULED', 'OPEN', 'CLOSED', 'DRAWN', 'COMPLETED', 'SETTLED'];

export const collection = (kind) => `/${kind}s`;
export const life = (kind) => lives[kind];
export const fields = (kind) => [...leading, ...own[kind], ...trailing];
export const label = (kind, name) => fields(kind).find((f) => f.name === name)?.label ?? name;

export const mayEdit = (o) => ['DRAFT', 'SCHEDULED', 'OPEN'].includes(o.status);
export const isOpen = (o) => o.status === 'OPEN';

// called is what an object goes by: its name, or its sequence id without one.
export const called = (o) => o.name || o.sequenceId;

// ends says how a kind is decided: the field with the time and the verb.
const ends = { draw: ['drawAt', 'Draws'], auction: ['settleAt', 'Settles'] };

// schedule lists the times of an object, in their order.
export function schedule(o) {
  const times = [['openAt', 'Opens'], ['closeAt', 'Closes'], ...(ends[o.type] ? [ends[o.type]] : [])];
  return times.map(([field, verb]) => ({ field, verb, at: o[field] }));
}

// nextDue is what the clock does next, or null when it does nothing more.
export function nextDue(o) {
  const [end, verb] = ends[o.type] ?? [];
  const due = {
    SCHEDULED: ['Opens', o.openAt],
    OPEN: ['Closes', o.closeAt ?? o[end]],
    CLOSED: [verb, o[end]],
  }[o.status];
  return due?.[1] ? { verb: due[0], at: due[1] } : null;
}

// steps are what can be done by hand now, with what will then happen.
export function steps(o) {
  const path = `${collection(o.type)}/${o.id}`;
  const noun = { queue: 'queue', draw: 'draw', auction: 'auction' }[o.type];
  const all = {
    open: {
      when: ['DRAFT', 'SCHEDULED'], label: 'Open now', method: 'POST', path: `${path}/open`,
      will: `The ${noun} opens at once, whatever its schedule says: the opening time is set to now. It cannot be made a draft or scheduled again.`,
    },
    close: {
      when: ['OPEN'], label: 'Close now', method: 'POST', path: `${path}/close`,
      will: {
        queue: 'Nobody can enter any more, and automatic admission ends. When nobody who was admitted is unfinished, the queue is completed at once, and all who still wait are denied.',
        draw: 'Nobody can enter any more, and the list of entries is frozen.',
        auction: 'Nobody can bid any more.',
      }[o.type] + ' The closing time is set to now.',
    },
    entropy: {
      when: o.entropySource ? ['CLOSED'] : [], label: 'Supply entropy', method: 'PUT', path: `${path}/entropy`,
      ask: { name: 'value', label: `The value that “${o.entropySource}” published` },
      will: 'The value goes into the draw’s seed, and so decides who wins. It can be supplied once, and everybody can check it against the source.',
    },
    draw: {
      when: o.type === 'draw' ? ['CLOSED'] : [], label: 'Draw now', method: 'POST', path: `${path}/draw`,
      will: `The winners are drawn at once, ${o.winnerCount} at most, and the secret behind the draw is revealed. There is no second draw.`,
    },
    settle: {
      when: o.type === 'auction' ? ['CLOSED'] : [], label: 'Settle now', method: 'POST', path: `${path}/settle`,
      will: 'The leading bids that meet the reserve win at once, each at its own amount.',
    },
    remove: {
      when: ['DRAFT', 'SCHEDULED', 'COMPLETED', 'SETTLED'], label: 'Delete', method: 'DELETE', path,
      will: `The ${noun} is gone for everybody who reads it. Its history stays, and auditors can still read it.`,
    },
  };
  return Object.entries(all).filter(([, s]) => s.when.includes(o.status)).map(([name, s]) => ({ name, ...s }));
}

// plain is a JSON value as a text, numbers exactly as they are written.
export function plain(value) {
  if (value === null || value === undefined) {
    return '';
  }
  return typeof value === 'object' ? JSON.stringify(value, null, 2) : String(value);
}
