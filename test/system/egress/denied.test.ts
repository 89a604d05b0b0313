import { spawnSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { places, TestInternet } from "../../support/internet.js";
import { hostState, settledState, type HostState } from "../../support/leaks.js";
import { lacks } from "../../support/needs.js";
import { netnsPath } from "../../support/reach.js";
import { TestSquashd } from "../../support/squashd.js";

const squashd = new TestSquashd();
const internet = new TestInternet(squashd);
const { foreignResolver, web } = places;
let before: HostState;

beforeAll(async () => {
  before = hostState([squashd.mark]);
  await internet.start();
  await squashd.start(internet.env);
});
afterAll(async () => {
  await internet[Symbol.asyncDispose]();
  await squashd[Symbol.asyncDispose]();
  expect(await settledState(before, [squashd.mark])).toEqual(before);
});

describe.skipIf(lacks("root"))("an address in deny_net", () => {
  it("is closed on port 53, too, where allow_net has that port of a wider network", async () => {
    const ask = `nc -w 2 ${foreignResolver} 53 </dev/null`;
    const open = await squashd.client.create({ id: "port", allow_net: ["8.8.4.0/24:53"] });
    const closed = await squashd.client.create({
      id: "denied-port",
      allow_net: ["8.8.4.0/24:53"],
      deny_net: [foreignResolver],
    });
    expect(await open.exec(ask)).toMatchObject({ exit_code: 0 });
    expect(await closed.exec(ask)).toMatchObject({ exit_code: 1 });
  });

  it("is not reached by a ping", async () => {
    await squashd.client.create({ id: "ping" });
    await squashd.client.create({ id: "denied-ping", deny_net: [web] });
    expect(ping("ping")).toContain(" 0% packet loss");
    expect(ping("denied-ping")).toContain(" 100% packet loss");
  });
});

/** What BusyBox says, which needs a raw socket, hence the host's root in the sandbox's network namespace. */
function ping(id: string): string {
  const words = [`--net=${netnsPath(id)}`, "busybox", "ping", "-c", "1", "-W", "2", web];
  return spawnSync("nsenter", words, { encoding: "utf8" }).stdout;
}
