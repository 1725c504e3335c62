// Times as people read them: in a time zone of the object's, not of the browser's.

const formats = new Map();

function parts(instant, zone) {
  if (!formats.has(zone)) {
    formats.set(zone, new Intl.DateTimeFormat('en-US', {
      timeZone: zone, hourCycle: 'h23', year: 'numeric', month: '2-digit', day: '2-digit',
      hour: '2-digit', minute: '2-digit', second: '2-digit', timeZoneName: 'longOffset',
    }));
  }
  const found = {};
  for (const p of formats.get(zone).formatToParts(new Date(instant))) {
    found[p.type] = p.value;
  }
  return found;
}

// wall is what a clock in the zone shows, as the API reads it back.
export function wall(instant, zone) {
  const p = parts(instant, zone);
  const ms = instant.slice(19, 23);
  return `${p.year}-${p.month}-${p.day}T${p.hour}:${p.minute}:${p.second}${ms === '.000' ? '' : ms}`;
}

// zoned is a time with the zone's offset, "2026-12-15 09:00:00 +01:00". A zone
// that this browser does not know is left to UTC.
export function zoned(instant, zone) {
  try {
    const offset = parts(instant, zone).timeZoneName.slice(3);
    return `${wall(instant, zone).replace('T', ' ')} ${offset || '+00:00'}`;
  } catch {
    return utc(instant);
  }
}

export function utc(instant) {
  return instant.replace('T', ' ').replace('.000Z', 'Z');
}

const two = (n) => String(n).padStart(2, '0');

// until is how long it takes from one time to a later one: "2 d 03:04:05".
export function until(from, to) {
  const s = Math.max(0, Math.ceil((to - from) / 1000));
  const days = Math.floor(s / 86_400);
  const clock = `${two(Math.floor(s / 3600) % 24)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
  return days > 0 ? `${days} d ${clock}` : clock;
}

// distance says how far a time is away.
export function distance(from, to) {
  return to >= from ? `in ${until(from, to)}` : `${until(to, from)} ago`;
}
