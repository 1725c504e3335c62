// Calls a running engine with openapi-fetch and the types that openapi-typescript
// makes of httpapi/openapi.yaml. It takes the engine's address and a secret key from
// LOTLINE_TEST_ENGINE and LOTLINE_TEST_KEY, and fails when an answer is not what it
// expects. tools/openapi-clients.sh makes schema.d.ts and runs this.
import assert from "node:assert/strict";

import createClient from "openapi-fetch";

import type { components, paths } from "./schema.js";

const client = createClient<paths>({
  baseUrl: process.env["LOTLINE_TEST_ENGINE"] ?? "",
  headers: { Authorization: `Bearer ${process.env["LOTLINE_TEST_KEY"]}` },
});

// The queue is made, and read back.
const wanted: components["schemas"]["QueueCreate"] = {
  sequenceId: "openapi-clients",
  name: "TypeScript client",
  admissionRate: 600,
};
const created = await client.POST("/api/v1/queues", {
  params: { header: { "Idempotency-Key": "typescript-client-queue" } },
  body: wanted,
});
assert(created.data, JSON.stringify(created.error));
const read = await client.GET("/api/v1/queues/{id}", { params: { path: { id: created.data.id } } });
assert(read.data, JSON.stringify(read.error));
// A publishable key gets a PublicQueue, which has no type.
assert("type" in read.data);
const status: components["schemas"]["QueueStatus"] = read.data.status;
assert.equal(status, "DRAFT");
assert.equal(read.data.name, wanted.name);
assert.equal(read.data.admissionRate, wanted.admissionRate);
assert.equal(read.data.openAt, null);
console.log("TypeScript: made and read", read.data.id);

// The auction has an amount as a number and one as a string, and is found in the list
// of all distributions.
const auction = await client.POST("/api/v1/auctions", {
  body: {
    sequenceId: "openapi-clients-typescript",
    settleAt: new Date(Date.now() + 3_600_000).toISOString(),
    startingBid: 100.5,
    reservePrice: "250.50",
  },
});
assert(auction.data, JSON.stringify(auction.error));
const position = auction.response.headers.get("X-Position");
const list = await client.GET("/api/v1/distributions", {
  params: {
    query: { sequenceId: "openapi-clients-typescript", status: ["DRAFT"], sortBy: "name" },
    header: position === null ? {} : { "X-Position": position },
  },
});
assert(list.data, JSON.stringify(list.error));
const [first, ...others] = list.data.data;
assert(first?.type === "auction" && others.length === 0, JSON.stringify(list.data));
assert.equal(first.id, auction.data.id);
assert.equal(first.startingBid, 100.5);
assert.equal(first.reservePrice, 250.5);
console.log("TypeScript: made and listed", first.id);

// A request for a queue that does not exist is refused. Other errors have the same status,
// so the code is checked as well.
const refused = await client.GET("/api/v1/queues/{id}", {
  params: { path: { id: "queue_00000000000000000000000000" } },
});
assert.equal(refused.response.status, 404);
assert(refused.error?.code === "QUEUE_NOT_FOUND", JSON.stringify(refused.error));
console.log("TypeScript: was refused with", refused.error.code);
