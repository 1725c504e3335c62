import * as library from "@kurrent/kurrentdb-client";
import { testClient } from "./suite.mjs";

testClient({ library, Client: library.KurrentDBClient, option: "streamState", suffix: "State" });
