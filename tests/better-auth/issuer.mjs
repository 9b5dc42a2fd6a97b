// A real Better Auth, for the tests of what the server accepts. It keeps its tables in the database DATABASE_URL, listens
// on 127.0.0.1 at PORT (0 picks a free one), and is configured as its documentation shows: whatever is an odd setting here
// would be tested instead of what people run.
//
// TOKEN_ALGORITHM names what signs the tokens. HS256 is the shared secret BETTER_AUTH_SECRET: a route of the application's
// own, GET /api/token. All others are the jwt plugin's: GET /api/auth/token, and GET /api/auth/jwks for the keys.
//
// It says on standard output when it listens, and ends when its standard input does, so that it can't outlive a test.
import { once } from "node:events";
import { createServer } from "node:http";
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { fromNodeHeaders, toNodeHandler } from "better-auth/node";
import { jwt } from "better-auth/plugins";
import { SignJWT } from "jose";
import pg from "pg";

process.stdin.resume().once("end", () => process.exit());

const { BETTER_AUTH_SECRET, DATABASE_URL, PORT, TOKEN_ALGORITHM } = process.env;
for (const [name, value] of Object.entries({ BETTER_AUTH_SECRET, DATABASE_URL, PORT, TOKEN_ALGORITHM })) {
  if (!value) throw new Error(`${name} is not set`);
}
const sharedSecret = TOKEN_ALGORITHM === "HS256";

// The port comes first: it is part of the base URL, which is the tokens' issuer and audience.
const server = createServer().listen(Number(PORT), "127.0.0.1");
await once(server, "listening");
const baseURL = `http://127.0.0.1:${server.address().port}`;

const options = {
  baseURL,
  database: new pg.Pool({ connectionString: DATABASE_URL }),
  emailAndPassword: { enabled: true },
  // Keys that never expire are the default; with an interval a test can let one expire by changing its row.
  plugins: sharedSecret
    ? []
    : [jwt({ jwks: { keyPairConfig: { alg: TOKEN_ALGORITHM }, rotationInterval: 60 * 60 * 24 * 30 } })],
  rateLimit: { enabled: false },
  telemetry: { enabled: false },
};
await (await getMigrations(options)).runMigrations();
const auth = betterAuth(options);

async function token(request, response) {
  const session = await auth.api.getSession({ headers: fromNodeHeaders(request.headers) });
  if (!session) return response.writeHead(401).end();
  const token = await new SignJWT({ email: session.user.email })
    .setProtectedHeader({ alg: "HS256" })
    .setSubject(session.user.id)
    .setIssuedAt()
    .setExpirationTime("30m")
    .sign(new TextEncoder().encode(BETTER_AUTH_SECRET));
  response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify({ token }));
}

const betterAuthHandler = toNodeHandler(auth);
server.on("request", (request, response) =>
  sharedSecret && request.method === "GET" && request.url === "/api/token"
    ? token(request, response)
    : betterAuthHandler(request, response),
);
console.log(`listening ${baseURL}`);
