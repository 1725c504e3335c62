import * as library from "@eventstore/db-client";
import { testClient } from "./suite.mjs";

testClient({ library, Client: library.EventStoreDBClient, option: "expectedRevision", suffix: "Version" });
