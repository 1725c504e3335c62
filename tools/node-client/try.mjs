// Tries the embedded event store as an operator would set it up, with TLS and a
// password, by the official client for NodeJS: try.mjs LOTLINE, the path of the
// program. It needs openssl for the certificate.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { get } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  ANY, BACKWARDS, END, EventStoreDBClient, FORWARDS, NO_STREAM, START, STREAM_EXISTS, AccessDeniedError, MaxAppendSizeExceededError,
  StreamDeletedError, StreamNotFoundError, WrongExpectedVersionError, eventTypeFilter, jsonEvent, binaryEvent, streamNameFilter,
} from "@eventstore/db-client";

const password = "correct:horse@battery/staple";
const patience = 10_000;

// Unix sockets have short paths, so not below the working directory.
const directory = mkdtempSync(join(tmpdir(), "lt-"));
const certificate = join(directory, "cert.pem"), key = join(directory, "key.pem");

function startStore(program) {
  execFileSync("openssl", [
    "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate,
  ], { stdio: "ignore" });
  const store = spawn(program, ["store"], {
    env: {
      PATH: process.env.PATH, LOTLINE_DATA_DIR: join(directory, "data"), LOTLINE_EMBEDDED_LISTEN: "127.0.0.1:0",
      LOTLINE_EMBEDDED_TLS_CERT: certificate, LOTLINE_EMBEDDED_TLS_KEY: key, LOTLINE_EMBEDDED_PASSWORD: password,
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const listening = new Promise((resolve, reject) => {
    let printed = "";
    store.stdout.on("data", (chunk) => {
      printed += chunk;
      const found = /listening on (esdb:\S+)\n/.exec(printed);
      if (found) resolve(found[1]);
    });
    store.once("exit", (code) => reject(new Error(`the store ended with ${code}: ${printed}`)));
  });
  return { store, listening };
}

const made = (n, extra = {}) => jsonEvent({ type: "made", data: { n }, metadata: { m: n }, ...extra });
const many = (count) => Array.from({ length: count }, (_, n) => made(n));

async function collect(stream) {
  const events = [];
  for await (const { event } of stream) events.push(event);
  return events;
}

const revisions = (events) => events.map((e) => Number(e.revision));

// follow takes count events from a subscription, and then ends it.
function follow(subscription, count) {
  return new Promise((resolve, reject) => {
    const events = [];
    const timer = setTimeout(() => reject(new Error(`${events.length} of ${count} events came`)), patience);
    subscription.on("error", (error) => { clearTimeout(timer); reject(error); });
    subscription.on("data", ({ event }) => {
      events.push(event);
      if (events.length === count) {
        clearTimeout(timer);
        subscription.unsubscribe().then(() => resolve(events));
      }
    });
  });
}

// Each check has streams of its own.
const checks = {
  async "append and read, with all that an event has"({ client }) {
    const sent = [made(0), binaryEvent({ type: "raw", data: Buffer.from([0, 255, 10]) })];
    const result = await client.appendToStream("a-1", sent, { expectedRevision: NO_STREAM });
    assert.equal(result.success, true);
    assert.equal(result.nextExpectedRevision, 1n);
    const got = await collect(client.readStream("a-1", { fromRevision: START, direction: FORWARDS }));
    assert.deepEqual(got.map((e) => e.id), sent.map((e) => e.id));
    assert.deepEqual(got[0].data, { n: 0 });
    assert.deepEqual(got[0].metadata, { m: 0 });
    assert.equal(got[0].isJson, true);
    assert.deepEqual(Buffer.from(got[1].data), Buffer.from([0, 255, 10]));
    assert.ok(Math.abs(got[0].created - Date.now()) < 60_000);
  },
  async "append through the unary call, as with credentials of its own"({ client }) {
    const result = await client.appendToStream("unary-1", many(2), { expectedRevision: NO_STREAM, credentials: { username: "admin", password } });
    assert.equal(result.nextExpectedRevision, 1n);
  },
  async "many appends at once over one batch call"({ client }) {
    const results = await Promise.all(Array.from({ length: 500 }, (_, i) => client.appendToStream(`batch-${i % 50}`, many(3))));
    assert.ok(results.every((r) => r.success));
    for (let i = 0; i < 50; i++) {
      assert.deepEqual(revisions(await collect(client.readStream(`batch-${i}`))), Array.from({ length: 30 }, (_, n) => n));
    }
  },
  async "read a stream backwards, in part"({ client }) {
    await client.appendToStream("back-1", many(10));
    const got = await collect(client.readStream("back-1", { fromRevision: END, direction: BACKWARDS, maxCount: 3 }));
    assert.deepEqual(revisions(got), [9, 8, 7]);
    assert.deepEqual(revisions(await collect(client.readStream("back-1", { fromRevision: 8n }))), [8, 9]);
  },
  async "read $all in both directions"({ client }) {
    const { position } = await client.appendToStream("all-1", many(3));
    const got = await collect(client.readAll({ direction: BACKWARDS, fromPosition: END, maxCount: 3 }));
    assert.deepEqual(got.map((e) => `${e.streamId} ${e.revision}`), ["all-1 2", "all-1 1", "all-1 0"]);
    const forwards = await collect(client.readAll({ direction: FORWARDS, fromPosition: position }));
    assert.deepEqual(forwards.map((e) => e.id), [got[0].id]);
  },
  async "a stream that is not there"({ client }) {
    await assert.rejects(collect(client.readStream("nobody")), StreamNotFoundError);
  },
  async "wrong expected revisions, by batch and by the unary call"({ client, address }) {
    await client.appendToStream("wrong-1", many(3), { expectedRevision: NO_STREAM });
    for (const credentials of [undefined, { username: "admin", password }]) {
      for (const [expectedRevision, stream] of [[NO_STREAM, "wrong-1"], [0n, "wrong-1"], [7n, "wrong-1"], [STREAM_EXISTS, "wrong-none"], [0n, "wrong-none"]]) {
        const refused = await client.appendToStream(stream, made(9), { expectedRevision, credentials }).catch((error) => error);
        assert.ok(refused instanceof WrongExpectedVersionError, String(refused));
        assert.equal(refused.expectedVersion, expectedRevision);
        assert.equal(refused.actualVersion, stream === "wrong-1" ? 2n : NO_STREAM);
      }
    }
    await client.appendToStream("wrong-1", made(3), { expectedRevision: 2n });
    await client.appendToStream("wrong-1", made(4), { expectedRevision: STREAM_EXISTS });
    await client.appendToStream("wrong-1", made(5), { expectedRevision: ANY });
    const lenient = EventStoreDBClient.connectionString(`${address("admin", password)}&throwOnAppendFailure=false`);
    assert.equal((await lenient.appendToStream("wrong-1", made(9), { expectedRevision: NO_STREAM })).success, false);
    await lenient.dispose();
  },
  async "an append that is sent again is stored once"({ client }) {
    const events = many(2);
    for (let i = 0; i < 3; i++) await client.appendToStream("again-1", events, { expectedRevision: NO_STREAM });
    assert.equal((await collect(client.readStream("again-1"))).length, 2);
  },
  async "an append that is too large, by batch and by the unary call"({ client }) {
    for (const credentials of [undefined, { username: "admin", password }]) {
      const large = binaryEvent({ type: "large", data: Buffer.alloc(1 << 20) });
      const refused = await client.appendToStream("large-1", large, { credentials }).catch((error) => error);
      assert.ok(refused instanceof MaxAppendSizeExceededError, String(refused));
    }
  },
  async "subscribe to a stream: history, then news"({ client }) {
    await client.appendToStream("sub-1", many(3));
    const seen = follow(client.subscribeToStream("sub-1", { fromRevision: 0n }), 4);
    await client.appendToStream("sub-1", many(2));
    assert.deepEqual(revisions(await seen), [1, 2, 3, 4]);
  },
  async "subscribe to a stream from its end"({ client }) {
    await client.appendToStream("sub-2", many(3));
    const subscription = client.subscribeToStream("sub-2", { fromRevision: END });
    const seen = follow(subscription, 1);
    await new Promise((resolve) => { subscription.once("confirmation", resolve); });
    await client.appendToStream("sub-2", made(3));
    assert.deepEqual(revisions(await seen), [3]);
  },
  async "subscribe to $all with a filter and checkpoints"({ client }) {
    for (let i = 0; i < 20; i++) await client.appendToStream(i % 5 ? "noise-1" : "signal-1", [made(i, { type: i % 2 ? "odd" : "even" })]);
    const checkpoints = [];
    const filter = streamNameFilter({ prefixes: ["signal-"], maxSearchWindow: 4, checkpointInterval: 1, checkpointReached: (_, position) => checkpoints.push(position.commit) });
    const events = await follow(client.subscribeToAll({ fromPosition: START, filter }), 4);
    assert.deepEqual(events.map((e) => e.data.n), [0, 5, 10, 15]);
    assert.ok(checkpoints.length > 0);
    assert.ok(checkpoints.every((at, i) => i === 0 || at > checkpoints[i - 1]));
    const odd = await follow(client.subscribeToAll({ fromPosition: START, filter: eventTypeFilter({ regex: "^odd$" }) }), 10);
    assert.ok(odd.every((e) => e.type === "odd"));
  },
  async "resume $all from a position"({ client }) {
    await client.appendToStream("resume-1", many(3));
    const filter = () => streamNameFilter({ prefixes: ["resume-"] });
    const [first] = await follow(client.subscribeToAll({ fromPosition: START, filter: filter() }), 1);
    const events = await follow(client.subscribeToAll({ fromPosition: first.position, filter: filter() }), 2);
    assert.deepEqual(revisions(events), [1, 2]);
  },
  async "metadata"({ client }) {
    await client.appendToStream("meta-1", many(5));
    await client.setStreamMetadata("meta-1", { maxCount: 2, custom: "kept" });
    assert.deepEqual(revisions(await collect(client.readStream("meta-1"))), [3, 4]);
    const { metadata } = await client.getStreamMetadata("meta-1");
    assert.equal(metadata.maxCount, 2);
    assert.equal(metadata.custom, "kept");
    assert.equal((await client.getStreamMetadata("meta-none")).metadata, undefined);
  },
  async "streams of the system"({ client }) {
    await client.appendToStream("$own-1", many(2));
    assert.equal((await collect(client.readStream("$own-1"))).length, 2);
    await assert.rejects(client.appendToStream("$all", made(0)), AccessDeniedError);
    await assert.rejects(client.appendToStream("$all", made(0), { credentials: { username: "admin", password } }), AccessDeniedError);
  },
  async "delete, and bring back"({ client }) {
    await client.appendToStream("gone-1", many(3));
    await assert.rejects(client.deleteStream("gone-1", { expectedRevision: 0n }), WrongExpectedVersionError);
    await client.deleteStream("gone-1", { expectedRevision: 2n });
    await assert.rejects(collect(client.readStream("gone-1")), StreamNotFoundError);
    await client.appendToStream("gone-1", made(3), { expectedRevision: NO_STREAM });
    assert.deepEqual(revisions(await collect(client.readStream("gone-1"))), [3]);
  },
  async "tombstone"({ client }) {
    await client.appendToStream("ended-1", many(3));
    await client.tombstoneStream("ended-1", { expectedRevision: 2n });
    await assert.rejects(collect(client.readStream("ended-1")), StreamDeletedError);
    await assert.rejects(client.appendToStream("ended-1", made(3)), StreamDeletedError);
    await assert.rejects(client.appendToStream("ended-1", made(3), { credentials: { username: "admin", password } }), StreamDeletedError);
    await assert.rejects(client.tombstoneStream("ended-1"), StreamDeletedError);
  },
  async "credentials that are wrong or missing"({ address, client }) {
    for (const connection of [address("admin", "wrong password"), address("ops", password), address()]) {
      const stranger = EventStoreDBClient.connectionString(connection);
      for (const call of [
        () => stranger.appendToStream("secret-1", made(0)),
        () => collect(stranger.readAll({ maxCount: 1 })),
        () => follow(stranger.subscribeToAll(), 1),
        () => stranger.deleteStream("a-1"),
      ]) {
        const refused = await call().catch((error) => error);
        // The client has no error of its own for it but shows the status.
        assert.ok(refused instanceof AccessDeniedError || /UNAUTHENTICATED/.test(String(refused)), String(refused));
      }
      await stranger.dispose();
    }
    await assert.rejects(collect(client.readStream("secret-1")), StreamNotFoundError);
    const once = await client.readAll({ maxCount: 1, credentials: { username: "admin", password: "wrong password" } });
    await assert.rejects(collect(once), /UNAUTHENTICATED/);
  },
  async "a cluster of one is discovered"({ address }) {
    const discovering = EventStoreDBClient.connectionString(address("admin", password).replace("esdb:", "esdb+discover:"));
    await discovering.appendToStream("discovered-1", made(0));
    await discovering.dispose();
  },
  async "it is alive, for everybody"({ address }) {
    const { host } = new URL(address().replace("esdb:", "https:"));
    const status = await new Promise((resolve, reject) => {
      get(`https://${host}/health/live`, { rejectUnauthorized: false }, (response) => { response.resume(); resolve(response.statusCode); }).once("error", reject);
    });
    assert.equal(status, 204);
  },
};

const { store, listening } = startStore(process.argv[2] ?? "lotline");
let failed = 0;
try {
  const printed = await listening;
  const address = (user, secret) => printed.replace("admin:PASSWORD@", user ? `${user}:${encodeURIComponent(secret)}@` : "");
  const client = EventStoreDBClient.connectionString(address("admin", password));
  for (const [claim, check] of Object.entries(checks)) {
    try {
      await check({ client, address });
      console.log(`ok      ${claim}`);
    } catch (error) {
      failed++;
      console.log(`FAILED  ${claim}\n${error.stack}`);
    }
  }
  await client.dispose();
  console.log(`${Object.keys(checks).length - failed} checks passed, ${failed} failed`);
} finally {
  store.removeAllListeners("exit");
  const ended = new Promise((resolve) => store.once("exit", resolve));
  store.kill("SIGTERM");
  const code = await ended;
  if (code !== 0) failed++, console.log(`the store ended with ${code}`);
  rmSync(directory, { recursive: true });
}
process.exit(failed ? 1 : 0);
