// The peer of `bench sign-in`: better-auth with address and password on SQLite, as it comes.
//
//   node server.mjs serve PORT DATABASE PEOPLE PASSWORD   listens on loopback, people stored
//   node server.mjs hash SECONDS PASSWORD                 its own hash and nothing around it
//
// Everything is its default: hasher, sessions, cookies. Only the limit on tries, which would end the
// measurement, is off. It sends nothing anywhere.

import { createServer } from "node:http";
import process from "node:process";

import { betterAuth } from "better-auth";
import { hashPassword, verifyPassword } from "better-auth/crypto";
import { getMigrations } from "better-auth/db/migration";
import { toNodeHandler } from "better-auth/node";
import { SqliteDialect } from "kysely";
import Database from "libsql";

async function serve(port, file, people, password) {
  const database = new Database(file);
  database.pragma("journal_mode = WAL");
  const options = {
    baseURL: `http://localhost:${port}`,
    secret: "of a server that lives for seconds and holds nobody",
    database: { dialect: new SqliteDialect({ database }), type: "sqlite" },
    emailAndPassword: { enabled: true },
    rateLimit: { enabled: false },
    telemetry: { enabled: false },
  };
  await (await getMigrations(options)).runMigrations();
  const auth = betterAuth(options);
  for (let number = 0; number < people; number += 1) {
    await auth.api.signUpEmail({
      body: { email: `person-${number}@example.org`, name: `Person ${number}`, password },
    });
  }
  const answer = toNodeHandler(auth);
  createServer((request, response) => {
    if (request.url === "/ready") response.end("ready");
    else answer(request, response);
  }).listen(port, "127.0.0.1");
}

async function hash(seconds, password) {
  const kept = await hashPassword(password);
  let done = 0;
  const used = process.cpuUsage();
  const began = process.hrtime.bigint();
  const took = () => Number(process.hrtime.bigint() - began) / 1e9;
  while (took() < seconds) {
    if (!(await verifyPassword({ hash: kept, password }))) throw new Error("not accepted");
    done += 1;
  }
  const { user, system } = process.cpuUsage(used);
  console.log(JSON.stringify({ done, seconds: took(), cpu: (user + system) / 1e6 }));
}

const [what, ...given] = process.argv.slice(2);
if (what === "serve") await serve(Number(given[0]), given[1], Number(given[2]), given[3]);
else if (what === "hash") await hash(Number(given[0]), given[1]);
else throw new Error("serve or hash");
