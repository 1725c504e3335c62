// Tests of the embedded store with the official clients for NodeJS. Each test runs with
// each client, against a store without TLS and against one with TLS and a password.
// tools/node-client-tests.sh starts the stores and passes their addresses.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { get as getPlain } from "node:http";
import { get as getSecured } from "node:https";
import { after, describe, test } from "node:test";

const at = (name) => process.env[`LOTLINE_TEST_${name}`] ?? assert.fail(`tools/node-client-tests.sh sets LOTLINE_TEST_${name}`);
const stores = { "without TLS": at("PLAIN"), "with TLS and a password": at("SECURED") };

const mebibyte = 1 << 20;
const grpcUnimplemented = 12;

// The slowest test waits until events are older than one second.
const patience = { timeout: 20_000 };

// fresh returns a name that is not used yet.
const fresh = (what) => `${what}-${randomUUID()}`;

const password = (connection) => decodeURIComponent(/admin:([^@]*)@/.exec(connection)?.[1] ?? "");
const as = (connection, user) => connection.replace(/\/\/[^@]*@/, user ? `//${user}@` : "//");

async function collect(stream) {
  const events = [];
  for await (const { event } of stream) events.push(event);
  return events;
}

// follow returns the events of a subscription until there are enough, and then ends it.
async function follow(subscription, enough) {
  const events = [];
  for await (const { event } of subscription) {
    events.push(event);
    if (typeof enough === "number" ? events.length === enough : enough(event)) break;
  }
  await subscription.unsubscribe();
  return events;
}

const revisions = (events) => events.map((e) => Number(e.revision));
const ids = (events) => events.map((e) => e.id);
const upTo = (count) => Array.from({ length: count }, (_, n) => n);

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  assert.fail("the call was carried out");
}

// The clients differ in the name of the class and in the names for an expected revision.
// option is its name in an append's options. An error has the fields expected and actual,
// each followed by suffix.
export function testClient({ library, Client, option, suffix }) {
  // A disposed client leaves its connection open, and the open connection keeps the
  // process alive. So the process is ended after it has had time to report.
  after(() => setTimeout(() => process.exit(), 500).unref());

  for (const [where, connection] of Object.entries(stores)) {
    const {
      ANY, BACKWARDS, END, FORWARDS, NO_STREAM, PARK, RETRY, START, STREAM_EXISTS,
      AccessDeniedError, MaxAppendSizeExceededError, PersistentSubscriptionDoesNotExistError, PersistentSubscriptionDroppedError,
      PersistentSubscriptionExistsError, StreamDeletedError, StreamNotFoundError, UnsupportedError, WrongExpectedVersionError,
      binaryEvent, eventTypeFilter, excludeSystemEvents, jsonEvent, persistentSubscriptionToAllSettingsFromDefaults,
      persistentSubscriptionToStreamSettingsFromDefaults, streamNameFilter,
    } = library;
    const client = Client.connectionString(connection);
    const secured = password(connection) !== "";

    const expecting = (revision) => ({ [option]: revision });
    const made = (n, extra = {}) => jsonEvent({ type: "made", data: { n }, metadata: { m: n }, ...extra });
    const many = (count) => upTo(count).map((n) => made(n));
    const append = (stream, events, expected = ANY, options = {}) => client.appendToStream(stream, events, { ...expecting(expected), ...options });
    const read = (stream, options) => collect(client.readStream(stream, options));

    // An append with its own credentials is a separate call. Appends without them share
    // one call that stays open.
    const ways = { "in a batch": {}, alone: { credentials: { username: "admin", password: password(connection) || "any" } } };

    const refuses = (error, expected, actual) => {
      assert.ok(error instanceof WrongExpectedVersionError, String(error.stack));
      assert.equal(error[`expected${suffix}`], expected);
      assert.equal(error[`actual${suffix}`], actual);
    };

    describe(where, () => {
      after(() => client.dispose());

      for (const [way, options] of Object.entries(ways)) {
        describe(`an append ${way}`, () => {
          test("comes back with all that its events have", patience, async () => {
            const stream = fresh("whole");
            const sent = [
              jsonEvent({ type: "json", data: { text: "Grüße ☂", list: [1, null, { deep: true }] }, metadata: { by: "me" } }),
              binaryEvent({ type: "binary", data: Buffer.from([0, 255, 10]), metadata: Uint8Array.from([0, 1, 254]) }),
              binaryEvent({ type: "nothing in it", data: Buffer.alloc(0) }),
            ];
            const { success, nextExpectedRevision, position } = await append(stream, sent, NO_STREAM, options);
            assert.equal(success, true);
            assert.equal(nextExpectedRevision, 2n);
            const got = await read(stream);
            assert.deepEqual(got.map((e) => [e.streamId, e.id, e.type, e.isJson, e.revision]), [
              [stream, sent[0].id, "json", true, 0n], [stream, sent[1].id, "binary", false, 1n], [stream, sent[2].id, "nothing in it", false, 2n],
            ]);
            assert.deepEqual(got[0].data, sent[0].data);
            assert.deepEqual(got[0].metadata, sent[0].metadata);
            assert.deepEqual([...got[1].data], [0, 255, 10]);
            assert.deepEqual([...got[1].metadata], [0, 1, 254]);
            assert.deepEqual([...got[2].data], []);
            assert.equal(got[2].metadata, undefined);
            assert.deepEqual(got[2].position, position);
            for (const { created } of got) assert.ok(Math.abs(created - Date.now()) < 60_000, String(created));
          });

          test("is made at each revision that is the right one", patience, async () => {
            const stream = fresh("right");
            let last = -1n, before;
            for (const expected of [NO_STREAM, STREAM_EXISTS, 1n, ANY]) {
              const { success, nextExpectedRevision, position } = await append(stream, made(0), expected, options);
              assert.equal(success, true);
              assert.equal(nextExpectedRevision, ++last);
              assert.ok(before === undefined || position.commit > before.commit);
              before = position;
            }
            assert.deepEqual(revisions(await read(stream)), [0, 1, 2, 3]);
          });

          test("at a wrong revision is refused with the actual one, and not made", patience, async () => {
            const stream = fresh("wrong"), none = fresh("none");
            await append(stream, many(3), NO_STREAM, options);
            for (const expected of [NO_STREAM, 0n, 1n, 3n, 7n]) refuses(await failure(append(stream, made(9), expected, options)), expected, 2n);
            for (const expected of [STREAM_EXISTS, 0n]) refuses(await failure(append(none, made(9), expected, options)), expected, NO_STREAM);
            assert.deepEqual(revisions(await read(stream)), [0, 1, 2]);
            await assert.rejects(read(none), StreamNotFoundError);

            const lenient = Client.connectionString(`${connection}&throwOnAppendFailure=false`);
            const { success } = await lenient.appendToStream(stream, made(9), { ...expecting(NO_STREAM), ...options });
            assert.equal(success, false);
            await lenient.dispose();
          });

          test("is stored once when it is sent again with the ids of its events", patience, async () => {
            for (const [at, expected] of [[0, NO_STREAM], [3, 2n], [3, ANY], [3, STREAM_EXISTS]]) {
              const stream = fresh("again");
              if (at > 0) await append(stream, many(at));
              const events = many(2);
              const first = await append(stream, events, expected, options);
              for (const again of [await append(stream, events, expected, options), await append(stream, events, expected, options)]) {
                assert.equal(again.nextExpectedRevision, first.nextExpectedRevision);
              }
              assert.deepEqual(revisions(await read(stream)), upTo(at + 2));
            }
          });

          test("may have a mebibyte and no more", patience, async () => {
            const stream = fresh("large");
            const large = (size) => binaryEvent({ type: "large", data: Buffer.alloc(size, "x") });
            for (const events of [large(mebibyte), [large(mebibyte / 2), large(mebibyte / 2)], large(3 * mebibyte)]) {
              const refused = await failure(append(stream, events, ANY, options));
              assert.ok(refused instanceof MaxAppendSizeExceededError, String(refused.stack));
              assert.equal(refused.maxAppendSize, mebibyte);
            }
            await assert.rejects(read(stream), StreamNotFoundError);
            await append(stream, large(mebibyte - 100), NO_STREAM, options);
            await append(stream, [large(mebibyte / 2 - 100), large(mebibyte / 2 - 100)], 0n, options);
            assert.deepEqual((await read(stream)).map((e) => e.data.length), [mebibyte - 100, mebibyte / 2 - 100, mebibyte / 2 - 100]);
          });
        });
      }

      test("appends at once are all made, each as a whole", patience, async () => {
        const streams = upTo(20).map(() => fresh("crowd"));
        const results = await Promise.all(upTo(200).map((i) => append(streams[i % 20], many(3))));
        assert.ok(results.every((r) => r.success));
        for (const stream of streams) {
          const events = await read(stream);
          assert.deepEqual(revisions(events), upTo(30));
          assert.deepEqual(events.map((e) => e.data.n), upTo(30).map((n) => n % 3));
        }
      });

      test("of appends at once at one revision one is made", patience, async () => {
        const stream = fresh("race");
        const results = await Promise.allSettled(upTo(20).map(() => append(stream, made(0), NO_STREAM)));
        assert.equal(results.filter((r) => r.status === "fulfilled").length, 1);
        for (const { reason } of results.filter((r) => r.status === "rejected")) refuses(reason, NO_STREAM, 0n);
        assert.deepEqual(revisions(await read(stream)), [0]);
      });

      test("an append that is sent in pieces is one", patience, async () => {
        const stream = fresh("pieces");
        const { nextExpectedRevision } = await append(stream, many(500), NO_STREAM, { batchAppendSize: 1000 });
        assert.equal(nextExpectedRevision, 499n);
        assert.deepEqual((await read(stream)).map((e) => e.data.n), upTo(500));
      });

      test("a stream is read in both directions, from anywhere, in part", patience, async () => {
        const stream = fresh("read");
        await append(stream, many(10));
        for (const [options, want] of [
          [{}, upTo(10)],
          [{ direction: FORWARDS, fromRevision: START, maxCount: 3 }, [0, 1, 2]],
          [{ direction: FORWARDS, fromRevision: 8n }, [8, 9]],
          [{ direction: FORWARDS, fromRevision: 10n }, []],
          [{ direction: BACKWARDS, fromRevision: END }, upTo(10).reverse()],
          [{ direction: BACKWARDS, fromRevision: END, maxCount: 3 }, [9, 8, 7]],
          [{ direction: BACKWARDS, fromRevision: 2n }, [2, 1, 0]],
          [{ direction: BACKWARDS, fromRevision: 99n, maxCount: 1 }, [9]],
        ]) {
          assert.deepEqual(revisions(await read(stream, options)), want, String(Object.values(options)));
        }
      });

      test("a long stream of large events is read whole", patience, async () => {
        const stream = fresh("long");
        const data = { filling: "x".repeat(1000) };
        for (let i = 0; i < 3; i++) await append(stream, upTo(500).map(() => made(0, { data })));
        assert.deepEqual(revisions(await read(stream)), upTo(1500));
        assert.deepEqual(revisions(await read(stream, { direction: BACKWARDS, fromRevision: END })), upTo(1500).reverse());
      });

      test("a stream that is not there is said not to be", patience, async () => {
        const stream = fresh("nobody");
        for (const direction of [FORWARDS, BACKWARDS]) {
          const error = await failure(read(stream, { direction, fromRevision: direction === FORWARDS ? START : END }));
          assert.ok(error instanceof StreamNotFoundError, String(error.stack));
          assert.equal(error.streamName, stream);
        }
      });

      test("the whole log is read in both directions, from anywhere", patience, async () => {
        const [one, other] = [fresh("one"), fresh("other")];
        const sent = many(4);
        const first = await append(one, sent[0]);
        await append(other, sent.slice(1, 3));
        const last = await append(one, sent[3]);
        // The log may also have events of an engine.
        const ours = (events) => events.filter((e) => e.streamId === one || e.streamId === other);
        const all = (options) => collect(client.readAll(options));

        const forwards = await all({ direction: FORWARDS, fromPosition: first.position });
        assert.deepEqual(forwards[0].id, sent[0].id, "a position stands before its event");
        assert.deepEqual(ids(ours(forwards)), ids(sent));
        const backwards = await all({ direction: BACKWARDS, fromPosition: last.position, maxCount: 100 });
        assert.deepEqual(ids(ours(backwards)), ids(sent).slice(0, 3).reverse(), "backwards as well");
        const fromEnd = await all({ direction: BACKWARDS, fromPosition: END, maxCount: 100 });
        assert.deepEqual(ids(ours(fromEnd)), ids(sent).reverse());
        assert.equal((await all({ direction: FORWARDS, fromPosition: START, maxCount: 2 })).length, 2);
        const positions = forwards.map((e) => e.position.commit);
        assert.ok(positions.every((p, i) => i === 0 || p > positions[i - 1]), String(positions));
      });

      test("a stream's subscriber gets what is there and then what comes", patience, async () => {
        const stream = fresh("sub");
        await append(stream, many(3));
        const subscription = client.subscribeToStream(stream);
        const caughtUp = once(subscription, "caughtUp");
        const seen = follow(subscription, 5);
        await caughtUp;
        await append(stream, many(2));
        const events = await seen;
        assert.deepEqual(revisions(events), [0, 1, 2, 3, 4]);
        assert.deepEqual(events[4].metadata, { m: 1 });
      });

      test("a stream's subscriber begins behind a revision or at the end", patience, async () => {
        const stream = fresh("sub");
        await append(stream, many(3));
        for (const [fromRevision, want] of [[0n, [1, 2, 3]], [END, [4]], [3n, [4, 5]]]) {
          const subscription = client.subscribeToStream(stream, { fromRevision });
          const caughtUp = once(subscription, "caughtUp");
          const seen = follow(subscription, want.length);
          await caughtUp;
          await append(stream, made(0));
          assert.deepEqual(revisions(await seen), want);
        }
      });

      test("a subscriber may come before its stream, and is told of its end", patience, async () => {
        const stream = fresh("sub");
        const subscription = client.subscribeToStream(stream);
        const caughtUp = once(subscription, "caughtUp");
        const events = [];
        const ended = failure((async () => { for await (const { event } of subscription) events.push(event); })());
        await caughtUp;
        await append(stream, made(0), NO_STREAM);
        await client.tombstoneStream(stream);
        assert.ok((await ended) instanceof StreamDeletedError);
        assert.deepEqual(revisions(events), [0]);
      });

      test("a subscriber of the whole log begins at its start, behind a position or at its end", patience, async () => {
        const stream = fresh("all");
        const { position } = await append(stream, made(0));
        await append(stream, many(2));
        for (const [fromPosition, want] of [[START, [0, 1, 2, 3]], [position, [1, 2, 3, 4]], [END, [5]]]) {
          const subscription = client.subscribeToAll({ fromPosition });
          const caughtUp = once(subscription, "caughtUp");
          const seen = follow(subscription, (e) => e.streamId === stream && Number(e.revision) === want.at(-1));
          await caughtUp;
          await append(stream, made(0));
          assert.deepEqual(revisions((await seen).filter((e) => e.streamId === stream)), want);
        }
      });

      test("filters of names and types let through what matches", patience, async () => {
        const mark = fresh("mark");
        const sent = upTo(12).map((n) => ({ stream: `${mark}-${n % 3}`, event: made(n, { type: `${mark}.${n % 2 ? "odd" : "even"}` }) }));
        const { position } = await append(fresh("before"), made(0));
        for (const { stream, event } of sent) await append(stream, event);
        const last = made(99, { type: `${mark}.odd` });
        await append(`${mark}-1`, last);
        for (const [filter, wanted] of [
          [{ on: streamNameFilter, prefixes: [`${mark}-1`] }, ({ stream }) => stream.endsWith("-1")],
          [{ on: streamNameFilter, prefixes: ["nothing-", `${mark}-1`, `${mark}-2`] }, ({ stream }) => !stream.endsWith("-0")],
          [{ on: streamNameFilter, regex: `^${mark}-[01]$` }, ({ stream }) => !stream.endsWith("-2")],
          [{ on: eventTypeFilter, prefixes: [`${mark}.o`] }, ({ event }) => event.type.endsWith("odd")],
          [{ on: eventTypeFilter, regex: `^${mark}\\.(odd|none)$` }, ({ event }) => event.type.endsWith("odd")],
        ]) {
          const { on, ...options } = filter;
          const events = await follow(client.subscribeToAll({ fromPosition: position, filter: on(options) }), (e) => e.id === last.id);
          assert.deepEqual(ids(events), [...ids(sent.filter(wanted).map((s) => s.event)), last.id], JSON.stringify(options));
        }
        const noSystem = await follow(client.subscribeToAll({ fromPosition: position, filter: excludeSystemEvents() }), (e) => e.id === last.id);
        assert.ok(noSystem.every((e) => !e.type.startsWith("$")));
        assert.deepEqual(ids(noSystem.filter((e) => e.streamId.startsWith(mark))), [...ids(sent.map((s) => s.event)), last.id]);
      });

      test("a filter that is no regular expression is refused", patience, async () => {
        const error = await failure(follow(client.subscribeToAll({ filter: streamNameFilter({ regex: "(" }) }), 1));
        assert.match(String(error.message), /regular expression/);
      });

      test("checkpoints say how far a filter has looked, and who goes on from one misses nothing", patience, async () => {
        const noise = fresh("noise"), signal = fresh("signal");
        const { position } = await append(noise, made(0));
        await append(noise, many(40));
        const checkpoints = [];
        let reached;
        const next = () => new Promise((resolve) => { reached = resolve; });
        const filter = () => streamNameFilter({
          prefixes: [signal], maxSearchWindow: 5, checkpointInterval: 2,
          checkpointReached: (_, { commit, prepare }) => {
            checkpoints.push({ commit, prepare });
            reached?.();
          },
        });
        const subscription = client.subscribeToAll({ fromPosition: position, filter: filter() });
        const caughtUp = once(subscription, "caughtUp");
        const seen = follow(subscription, 1);
        await caughtUp;
        const history = checkpoints.length;
        assert.ok(history >= 4, `${history} checkpoints came of 40 events, one for every 10 was asked for`);
        assert.ok(checkpoints.every((c, i) => i === 0 || c.commit >= checkpoints[i - 1].commit), "they never go back");
        const live = next();
        await append(noise, many(20));
        await live;
        assert.ok(checkpoints.at(-1).commit > checkpoints[history - 1].commit, "they go on while nothing matches");
        const from = checkpoints.at(-1);
        const sent = made(7);
        await append(signal, sent);
        assert.deepEqual(ids(await seen), [sent.id]);
        assert.deepEqual(ids(await follow(client.subscribeToAll({ fromPosition: from, filter: filter() }), 1)), [sent.id]);
      });

      test("a deleted stream is gone and can be begun again", patience, async () => {
        const stream = fresh("deleted");
        await append(stream, many(3));
        refuses(await failure(client.deleteStream(stream, { expectedRevision: 0n })), 0n, 2n);
        const { position } = await client.deleteStream(stream, { expectedRevision: 2n });
        assert.ok(position.commit > 0n);
        await assert.rejects(read(stream), StreamNotFoundError);
        const { nextExpectedRevision } = await append(stream, made(3), NO_STREAM);
        assert.equal(nextExpectedRevision, 3n);
        assert.deepEqual(revisions(await read(stream)), [3]);
      });

      test("a tombstone ends a stream for good", patience, async () => {
        const stream = fresh("ended");
        await append(stream, many(3));
        refuses(await failure(client.tombstoneStream(stream, { expectedRevision: 0n })), 0n, 2n);
        await client.tombstoneStream(stream, { expectedRevision: 2n });
        for (const [call, again] of Object.entries({
          read: () => read(stream),
          "append in a batch": () => append(stream, made(3)),
          "append alone": () => append(stream, made(3), ANY, ways.alone),
          subscribe: () => follow(client.subscribeToStream(stream), 1),
          delete: () => client.deleteStream(stream),
          tombstone: () => client.tombstoneStream(stream),
        })) {
          const error = await failure(again());
          assert.ok(error instanceof StreamDeletedError, `${call}: ${error.stack}`);
          assert.equal(error.streamName, stream);
        }
      });

      test("metadata comes back as it was set", patience, async () => {
        const stream = fresh("meta");
        assert.equal((await client.getStreamMetadata(stream)).metadata, undefined);
        const metadata = { maxCount: 5, maxAge: 3600, truncateBefore: 1, cacheControl: 7, acl: { readRoles: ["$all"] }, own: { deep: [1] } };
        const { nextExpectedRevision } = await client.setStreamMetadata(stream, metadata, expecting(NO_STREAM));
        assert.equal(nextExpectedRevision, 0n);
        assert.deepEqual((await client.getStreamMetadata(stream)).metadata, metadata);
        refuses(await failure(client.setStreamMetadata(stream, {}, expecting(NO_STREAM))), NO_STREAM, 0n);
        await client.setStreamMetadata(stream, { own: 2 }, expecting(0n));
        assert.deepEqual((await client.getStreamMetadata(stream)).metadata, { own: 2 });
        await assert.rejects(read(stream), StreamNotFoundError);
      });

      test("metadata limits what is shown by number, by revision and by age", patience, async () => {
        const stream = fresh("meta");
        await append(stream, many(6));
        await client.setStreamMetadata(stream, { maxCount: 2 });
        assert.deepEqual(revisions(await read(stream)), [4, 5]);
        await client.setStreamMetadata(stream, { truncateBefore: 3 });
        assert.deepEqual(revisions(await read(stream)), [3, 4, 5]);
        assert.deepEqual(revisions(await read(stream, { direction: BACKWARDS, fromRevision: END })), [5, 4, 3]);
        await client.setStreamMetadata(stream, { maxAge: 1 });
        while ((await read(stream)).length > 0); // the events must go before the time limit
        await client.setStreamMetadata(stream, {});
        assert.deepEqual(revisions(await read(stream)), upTo(6));
      });

      // A link is written as "target by link". The target may be missing.
      const spelled = ({ event, link }) => {
        const at = (e) => (e ? `${e.revision}@${e.streamId}` : "nothing");
        return link ? `${at(event)} by ${at(link)}` : at(event);
      };
      const spell = async (stream) => {
        const got = [];
        for await (const resolved of stream) got.push(spelled(resolved));
        return got;
      };
      const linkTo = (target) => binaryEvent({ type: "$>", data: Buffer.from(target) });

      test("links are resolved for readers who ask, in both directions", patience, async () => {
        const target = fresh("target@home"), links = fresh("links"), gone = fresh("gone");
        const { position } = await append(target, many(3));
        await append(gone, many(1));
        await client.deleteStream(gone);
        await append(links, [linkTo(`2@${target}`), made(0), linkTo(`0@${gone}`), linkTo(`0@${target}`)]);
        const resolved = [`2@${target} by 0@${links}`, `1@${links}`, `nothing by 2@${links}`, `0@${target} by 3@${links}`];
        const backwards = { direction: BACKWARDS, fromRevision: END };
        assert.deepEqual(await spell(client.readStream(links, { resolveLinkTos: true })), resolved);
        assert.deepEqual(await spell(client.readStream(links, { resolveLinkTos: true, ...backwards })), [...resolved].reverse());
        assert.deepEqual(await spell(client.readStream(links)), upTo(4).map((n) => `${n}@${links}`));
        const ours = (events) => events.filter((e) => e.includes(links));
        assert.deepEqual(ours(await spell(client.readAll({ resolveLinkTos: true, fromPosition: position }))), resolved);
        assert.deepEqual(ours(await spell(client.readAll({ resolveLinkTos: true, direction: BACKWARDS, fromPosition: END }))), [...resolved].reverse());
        assert.deepEqual(ours(await spell(client.readAll({ fromPosition: position }))), upTo(4).map((n) => `${n}@${links}`));
        for await (const { event, link } of client.readStream(links, { resolveLinkTos: true, maxCount: 1 })) {
          assert.deepEqual([event.type, event.data, link.type], ["made", { n: 2 }, "$>"]);
          assert.deepEqual(event.position, position);
        }
      });

      test("links are resolved for subscribers who ask; a filter looks at the link", patience, async () => {
        const target = fresh("target"), links = fresh("links");
        await append(target, many(2));
        await append(links, linkTo(`1@${target}`));
        const prefixes = [links];
        const subscriptions = {
          "a stream": client.subscribeToStream(links, { resolveLinkTos: true }),
          "the whole log": client.subscribeToAll({ resolveLinkTos: true, filter: streamNameFilter({ prefixes }) }),
        };
        const caughtUp = Object.values(subscriptions).map((subscription) => once(subscription, "caughtUp"));
        const seen = Object.entries(subscriptions).map(async ([what, subscription]) => {
          const got = [];
          for await (const resolved of subscription) {
            got.push(spelled(resolved));
            if (got.length === 3) break;
          }
          await subscription.unsubscribe();
          assert.deepEqual(got, [`1@${target} by 0@${links}`, `2@${target} by 1@${links}`, `nothing by 2@${links}`], what);
        });
        await Promise.all(caughtUp);
        await append(target, made(2));
        await append(links, [linkTo(`2@${target}`), linkTo(`9@${target}`)]);
        await Promise.all(seen);
      });

      test("links are resolved for a group's consumers, and parked events are links", patience, async () => {
        const target = fresh("target"), links = fresh("links");
        await append(target, many(2));
        await append(links, [linkTo(`1@${target}`), linkTo(`9@${target}`)]);
        const settings = persistentSubscriptionToStreamSettingsFromDefaults({ startFrom: START, resolveLinkTos: true });
        await client.createPersistentSubscriptionToStream(links, "group", settings);
        const consumer = client.subscribeToPersistentSubscriptionToStream(links, "group");
        const got = [];
        for await (const resolved of consumer) {
          got.push(spelled(resolved));
          await consumer.nack(PARK, "later", resolved);
          if (got.length === 2) break;
        }
        assert.deepEqual(got, [`1@${target} by 0@${links}`, `nothing by 1@${links}`]);
        const parked = `$persistentsubscription-${links}::group-parked`;
        const expected = [`1@${target} by 0@${parked}`, `nothing by 1@${parked}`];
        for (let last; ; ) { // repeats until both events are parked; the test has a time limit
          last = await spell(client.readStream(parked, { resolveLinkTos: true })).catch(() => []);
          if (last.length < expected.length) continue;
          assert.deepEqual(last, expected);
          break;
        }
        await client.deletePersistentSubscriptionToStream(links, "group");
      });

      test("streams of the system can be written, the whole log cannot", patience, async () => {
        const stream = `$${fresh("own")}`;
        await append(stream, many(2));
        assert.deepEqual(revisions(await read(stream)), [0, 1]);
        for (const options of Object.values(ways)) await assert.rejects(append("$all", made(0), ANY, options), AccessDeniedError);
      });

      test("consumers of a group share a stream; what is refused comes again", patience, async () => {
        const stream = fresh("shared");
        await append(stream, many(3));
        const settings = persistentSubscriptionToStreamSettingsFromDefaults({ startFrom: START });
        await client.createPersistentSubscriptionToStream(stream, "group", settings);
        await assert.rejects(client.createPersistentSubscriptionToStream(stream, "group", settings), PersistentSubscriptionExistsError);
        const consumer = client.subscribeToPersistentSubscriptionToStream(stream, "group");
        const got = [];
        for await (const resolved of consumer) {
          got.push([Number(resolved.event.revision), resolved.retryCount]);
          if (resolved.event.revision === 1n && resolved.retryCount === 0) await consumer.nack(RETRY, "again", resolved);
          else await consumer.ack(resolved);
          if (got.length === 3) await append(stream, made(3));
          if (got.length === 5) break;
        }
        assert.deepEqual(got.map(String).sort(), ["0,0", "1,0", "1,1", "2,0", "3,0"]);
        const info = await client.getPersistentSubscriptionToStreamInfo(stream, "group");
        assert.deepEqual([info.eventSource, info.groupName, info.settings.startFrom], [stream, "group", START]);
        assert.ok((await client.listAllPersistentSubscriptions()).some((g) => g.eventSource === stream));
        const another = client.subscribeToPersistentSubscriptionToStream(stream, "group");
        const confirmed = once(another, "confirmation");
        const changed = failure(collect(another));
        await confirmed;
        await client.updatePersistentSubscriptionToStream(stream, "group", { ...settings, maxRetryCount: 3 });
        const dropped = await changed;
        assert.ok(dropped instanceof PersistentSubscriptionDroppedError, String(dropped.stack));
        assert.equal((await client.getPersistentSubscriptionToStreamInfo(stream, "group")).settings.maxRetryCount, 3);
        await client.deletePersistentSubscriptionToStream(stream, "group");
        for (const call of [
          () => client.deletePersistentSubscriptionToStream(stream, "group"),
          () => client.getPersistentSubscriptionToStreamInfo(stream, "group"),
          () => once(client.subscribeToPersistentSubscriptionToStream(stream, "group"), "data"),
        ]) {
          const error = await failure(call());
          assert.ok(error instanceof PersistentSubscriptionDoesNotExistError, String(error.stack));
        }
      });

      test("consumers of the whole log get what a filter lets through, and are told when their group ends", patience, async () => {
        const stream = fresh("filtered");
        const group = fresh("group");
        await append(stream, many(2));
        const settings = persistentSubscriptionToAllSettingsFromDefaults({ startFrom: START });
        await client.createPersistentSubscriptionToAll(group, settings, { filter: streamNameFilter({ prefixes: [stream] }) });
        const consumer = client.subscribeToPersistentSubscriptionToAll(group);
        const got = [];
        const ended = failure((async () => {
          for await (const resolved of consumer) {
            got.push(resolved.event);
            await consumer.ack(resolved);
            if (got.length === 2) await client.deletePersistentSubscriptionToAll(group);
          }
        })());
        const error = await ended;
        assert.ok(error instanceof PersistentSubscriptionDoesNotExistError, String(error.stack));
        assert.deepEqual(got.map((e) => [e.streamId, Number(e.revision)]), [[stream, 0], [stream, 1]]);
      });

      test("calls that the store does not offer are refused as such", patience, async () => {
        for (const [call, refused] of Object.entries({
          create: () => client.createProjection("p", "fromAll()"),
          status: () => client.getProjectionStatus("p"),
          state: () => client.getProjectionState("p"),
          result: () => client.getProjectionResult("p"),
          list: () => client.listProjections(),
          enable: () => client.enableProjection("p"),
          delete: () => client.deleteProjection("p"),
          restart: () => client.restartSubsystem(),
        })) {
          const error = await failure(refused());
          assert.equal(error.code, grpcUnimplemented, `${call}: ${error.stack}`);
        }
        // The client makes this call over HTTP, because the store does not have it over gRPC.
        assert.match(String(await failure(client.createProjection("p", "fromAll()", { trackEmittedStreams: true }))), /Not Found/);
        if (client.appendRecords) {
          await assert.rejects(client.appendRecords([{ streamName: fresh("many"), record: jsonEvent({ type: "made", data: {} }) }]), UnsupportedError);
          await assert.rejects(client.multiStreamAppend([{ streamName: fresh("many"), expectedState: ANY, events: many(1) }]), UnsupportedError);
        }
      });

      test("the client learns what the store offers", patience, async () => {
        const capabilities = await client.capabilities;
        assert.match(capabilities.serverVersion, /^\d+\.\d+\.\d+$/);
        const offers = (path, feature) => capabilities.supports({ path }, feature);
        assert.ok(offers("/event_store.client.streams.Streams/BatchAppend"));
        assert.ok(offers("/event_store.client.streams.Streams/Read"));
        assert.ok(offers("/event_store.client.persistent_subscriptions.PersistentSubscriptions/Create", "all"));
        assert.ok(!offers("/event_store.client.projections.Projections/Create"));
      });

      test("a cluster of one is discovered", patience, async () => {
        const discovering = Client.connectionString(connection.replace("esdb:", "esdb+discover:"));
        const stream = fresh("discovered");
        await discovering.appendToStream(stream, made(0));
        assert.equal((await collect(discovering.readStream(stream))).length, 1);
        await discovering.dispose();
      });

      test("the store says that it is alive, to everybody", patience, async () => {
        const { host } = new URL(connection.replace("esdb:", "http:"));
        const [get, scheme] = secured ? [getSecured, "https"] : [getPlain, "http"];
        const [response] = await once(get(`${scheme}://${host}/health/live`, { rejectUnauthorized: false }), "response");
        response.resume();
        assert.equal(response.statusCode, 204);
      });

      if (!secured) return;

      test("nobody gets in without the right user and password", patience, async () => {
        const stream = fresh("secret");
        await append(stream, made(0));
        const right = encodeURIComponent(password(connection));
        for (const user of ["admin:wrong%20password", `ops:${right}`, undefined]) {
          const stranger = Client.connectionString(as(connection, user));
          for (const [call, attempt] of Object.entries({
            append: () => stranger.appendToStream(stream, made(0)),
            read: () => collect(stranger.readStream(stream)),
            "read all": () => collect(stranger.readAll({ maxCount: 1 })),
            subscribe: () => follow(stranger.subscribeToStream(stream), 1),
            "subscribe to all": () => follow(stranger.subscribeToAll(), 1),
            delete: () => stranger.deleteStream(stream),
            tombstone: () => stranger.tombstoneStream(stream),
            metadata: () => stranger.setStreamMetadata(stream, { maxCount: 1 }),
            "list groups": () => stranger.listAllPersistentSubscriptions(),
          })) {
            const refused = await failure(attempt());
            // A client without an error class for this shows the gRPC status.
            assert.ok(refused instanceof AccessDeniedError || /UNAUTHENTICATED/.test(String(refused)), `${call} as ${user}: ${refused.stack}`);
          }
          await stranger.dispose();
        }
        assert.deepEqual(revisions(await read(stream)), [0]);
      });

      test("a call has credentials of its own", patience, async () => {
        const stream = fresh("own");
        const stranger = Client.connectionString(as(connection));
        const credentials = { username: "admin", password: password(connection) };
        await stranger.appendToStream(stream, made(0), { credentials });
        assert.equal((await collect(stranger.readStream(stream, { credentials }))).length, 1);
        await stranger.dispose();
        const wrong = await failure(read(stream, { credentials: { username: "admin", password: "wrong password" } }));
        assert.ok(wrong instanceof AccessDeniedError || /UNAUTHENTICATED/.test(String(wrong)), String(wrong.stack));
      });

      test("a client that does not trust the certificate, or wants none, does not connect", patience, async () => {
        for (const other of [connection.replace(/&tlsCAFile=.*/, ""), as(connection).replace(/tls=true.*/, "tls=false")]) {
          const stranger = Client.connectionString(`${other}&defaultDeadline=1000`);
          await failure(stranger.appendToStream(fresh("nowhere"), made(0)));
          await failure(collect(stranger.readAll({ maxCount: 1 })));
          await stranger.dispose();
        }
      });

      test("what an engine writes is seen, as it is written", patience, async () => {
        const api = async (path, body, headers = {}) => {
          const answer = await fetch(`${at("ENGINE")}/api/v1${path}`, {
            method: "POST",
            headers: { Authorization: `Bearer ${at("KEY")}`, "Content-Type": "application/json", ...headers },
            body: body && JSON.stringify(body),
          });
          assert.ok(answer.ok, `${path}: ${answer.status} ${await answer.clone().text()}`);
          return answer.json();
        };
        const everything = client.subscribeToAll({ fromPosition: END, filter: streamNameFilter({ prefixes: ["queue-"] }) });
        const caughtUp = once(everything, "caughtUp");
        const seen = follow(everything, (e) => e.type === "queue.consumer.entered");
        await caughtUp;
        const queue = await api("/queues", { sequenceId: fresh("drop"), name: "Spring drop", admissionRate: 100 });
        await api(`/queues/${queue.id}/open`);
        await api(`/queues/${queue.id}/enter`, undefined, { "X-Consumer-Id": "ada" });
        const stream = queue.id.replace("queue_", "queue-");
        const events = await seen;
        assert.ok(events.every((e) => e.streamId === stream));
        const types = events.map((e) => e.type);
        assert.deepEqual([types[0], types.at(-1)], ["queue.created", "queue.consumer.entered"], String(types));
        assert.deepEqual(revisions(events), upTo(events.length));
        assert.ok(events.every((e) => e.isJson && e.metadata.hash));
        assert.equal(events[0].data.name, "Spring drop");
        assert.equal(events.at(-1).data.consumerId, "ada");
        const history = await read(stream, { maxCount: events.length });
        assert.deepEqual(history.map((e) => [e.id, e.data, e.metadata]), events.map((e) => [e.id, e.data, e.metadata]));
      });
    });
  }
}
