// What each client of JavaScript goes through; rounds.py is the same for those of Python. The plan comes from pools.mjs.
//
// `send` takes a request of the plan (method, path, headers, body) and gives back status, headers and the body as JSON. All
// that is asked of it is to use one pool of connections.

import { readFileSync } from "node:fs";

export const plan = JSON.parse(readFileSync(process.env.PLAN, "utf8"));

/** Refusals and valid requests in turn. On standard output goes what pools.mjs wants to know. */
export async function rounds(send, connections) {
  let where = "at first";
  try {
    const expect = async (request, { status, type }) => {
      const answer = await send(request);
      if (answer.status !== status || (type && answer.body.type !== type)) {
        throw new Error(`expected ${status} ${type ?? ""}, was answered ${answer.status} ${JSON.stringify(answer.body)?.slice(0, 300)}`);
      }
      return answer;
    };
    for (let round = 1; round <= plan.rounds; round++) {
      for (const refused of plan.refused) {
        where = `round ${round}, ${refused.name}`;
        await expect(refused, refused);
        const title = where;
        where += ", the valid POST after it";
        await expect({ ...plan.create, body: JSON.stringify({ title }) }, { status: 201 });
      }
    }
    where = "the list";
    const { body: list, headers } = await expect(plan.list, { status: 200 });
    where = "PATCH without a body";
    const { sent } = await expect({ ...plan.complete, path: plan.complete.path.replace("{task_id}", list[0].id) }, { status: 200 });
    console.log(JSON.stringify({ list, encoding: headers["content-encoding"], completedAs: sent, connections: connections() }));
  } catch (error) {
    console.error(`${where}: ${error.stack}${error.cause ? `\n${error.cause.stack}` : ""}`);
    process.exit(1);
  }
  process.exit(0);
}
