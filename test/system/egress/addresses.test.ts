import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { parsePolicy } from "../../../daemon/src/core/egress/policy.js";
import { places } from "../../support/internet.js";
import { lacks } from "../../support/needs.js";
import { useOnline } from "../../support/online.js";
import { netnsOf, Reach } from "../../support/reach.js";

const { squashd, internet } = useOnline();
const { web, otherWeb, foreignResolver, metadata, lan, host, hostPrivate } = places;
const gateway = "10.200.0.1";
const hostPort = 6_100;
const otherHostPort = 6_200;

let sandbox: Sandbox;
let reach: Reach;
let server: Reach;

beforeAll(async () => {
  sandbox = await squashd.client.create({ id: "table" });
  reach = await Reach.from(netnsOf(sandbox));
  server = await Reach.from(squashd.netns);
  // each by itself, so that answers by UDP come from where they were asked for
  for (const address of [host, hostPrivate, gateway])
    for (const port of [hostPort, otherHostPort]) await server.listen([address, port]);
});
afterAll(async () => {
  await reach[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
});

const open = true;
const closed = false;

type Target = readonly [address: string, port: number, protocol: "tcp" | "udp"];

interface Row {
  readonly allow?: readonly string[];
  readonly deny?: readonly string[];
  readonly targets: readonly (readonly [...Target, boolean])[];
}

const table: readonly Row[] = [
  {
    targets: [
      [web, 7000, "tcp", open],
      [web, 7000, "udp", open],
      [lan, 7000, "tcp", closed],
      [lan, 7000, "udp", closed],
      [metadata, 80, "tcp", closed],
      [metadata, 7000, "udp", closed],
    ],
  },
  {
    allow: ["none"],
    targets: [
      [web, 7000, "tcp", closed],
      [web, 7000, "udp", closed],
    ],
  },
  {
    allow: [web],
    targets: [
      [web, 7000, "tcp", open],
      [web, 7000, "udp", open],
      [web, 80, "tcp", open],
      [otherWeb, 7000, "tcp", closed],
      [otherWeb, 7000, "udp", closed],
    ],
  },
  {
    allow: ["93.184.216.0/24"],
    targets: [
      [web, 5432, "tcp", open],
      [otherWeb, 5432, "tcp", open],
      [foreignResolver, 5432, "tcp", closed],
    ],
  },
  {
    allow: ["93.184.216.0/26"],
    targets: [
      [web, 5432, "tcp", open],
      [otherWeb, 5432, "tcp", closed],
    ],
  },
  {
    allow: [`${web}:7000`],
    targets: [
      [web, 7000, "tcp", open],
      [web, 7000, "udp", closed],
      [web, 5432, "tcp", closed],
    ],
  },
  {
    allow: [`${web}:7000/udp`],
    targets: [
      [web, 7000, "udp", open],
      [web, 7000, "tcp", closed],
      [web, 5432, "udp", closed],
    ],
  },
  {
    allow: [`${web}/32`],
    deny: [web],
    targets: [
      [web, 7000, "tcp", closed],
      [web, 7000, "udp", closed],
    ],
  },
  {
    allow: [`${web}:7000`],
    deny: [`${web}:7000`],
    targets: [
      [web, 7000, "tcp", closed],
      [web, 5432, "tcp", closed],
    ],
  },
  {
    allow: [`${web}:7000`],
    deny: [web],
    targets: [
      [web, 7000, "tcp", open],
      [web, 7000, "udp", closed],
      [web, 5432, "tcp", closed],
    ],
  },
  {
    deny: ["93.184.0.0/16"],
    allow: ["93.184.216.0/24"],
    targets: [
      [web, 7000, "tcp", open],
      [otherWeb, 7000, "udp", open],
    ],
  },
  {
    deny: ["93.184.216.0/26"],
    targets: [
      [web, 7000, "tcp", closed],
      [otherWeb, 7000, "tcp", open],
      [foreignResolver, 7000, "udp", open],
    ],
  },
  {
    allow: ["93.184.216.0/24:7000"],
    deny: [otherWeb],
    targets: [
      [web, 7000, "tcp", open],
      [otherWeb, 7000, "tcp", closed],
    ],
  },
  {
    deny: [`${web}:7000/udp`],
    targets: [
      [web, 7000, "udp", closed],
      [web, 7000, "tcp", open],
      [web, 5432, "udp", open],
    ],
  },
  {
    allow: ["0.0.0.0/0"],
    targets: [
      [web, 7000, "tcp", open],
      [otherWeb, 7000, "udp", open],
      [lan, 7000, "tcp", closed],
      [metadata, 7000, "tcp", closed],
      [metadata, 80, "tcp", closed],
    ],
  },
  {
    allow: ["0.0.0.0/0:7000", "128.0.0.0/1", "0.0.0.0/1"],
    targets: [
      [lan, 7000, "tcp", closed],
      [metadata, 7000, "tcp", closed],
      [web, 7000, "tcp", open],
      [web, 5432, "tcp", open],
    ],
  },
  {
    allow: ["192.168.77.0/24"],
    targets: [
      [lan, 7000, "tcp", open],
      [lan, 7000, "udp", open],
      [metadata, 80, "tcp", closed],
      [web, 7000, "tcp", closed],
    ],
  },
  {
    allow: ["192.168.0.0/16:7000"],
    deny: ["192.168.77.0/28:7000/udp"],
    targets: [
      [lan, 7000, "tcp", open],
      [lan, 7000, "udp", closed],
      [lan, 5432, "tcp", closed],
    ],
  },
  {
    allow: ["192.0.0.0/2"],
    targets: [[lan, 7000, "tcp", closed]],
  },
  {
    allow: [metadata],
    targets: [
      [metadata, 80, "tcp", open],
      [lan, 7000, "tcp", closed],
    ],
  },
  {
    // another resolver needs an entry for that very port, whose precision does not matter
    allow: ["8.8.0.0/16:53"],
    targets: [
      [foreignResolver, 53, "tcp", open],
      [foreignResolver, 853, "tcp", closed],
    ],
  },
];

async function check(row: Row): Promise<void> {
  const { allow = [], deny = [] } = row;
  await sandbox.setNetwork({ allow_net: [...allow], deny_net: [...deny] });
  const policy = parsePolicy({ allow: allow.length === 0 ? null : allow, deny }, { subnets: ["10.200.0.0/14"] });
  const results = await Promise.all(
    row.targets.map(async ([address, port, protocol]) => ({
      target: `${address}:${port}/${protocol}`,
      seen: await reach.opens([address, port], protocol),
      decided: policy.connectByAddress(address, port, protocol).allowed,
    })),
  );
  const wanted = row.targets.map(([address, port, protocol, expected]) => ({
    target: `${address}:${port}/${protocol}`,
    seen: expected,
    decided: expected,
  }));
  expect(results).toEqual(wanted);
}

describe.skipIf(lacks("root"))("a policy by address", () => {
  it.each(
    table.map((row) => [`allow ${row.allow?.join(" ") ?? "-"}, deny ${row.deny?.join(" ") ?? "-"}`, row] as const),
  )("%s decides on real packets as the policy says", async (_, row) => {
    await check(row);
  });

  it("that refuses says so at once, by TCP with a reset", async () => {
    await sandbox.setNetwork({ allow_net: [otherWeb] });
    const start = performance.now();
    expect(await reach.try([web, 7000])).toBe("refused ECONNREFUSED");
    expect(performance.now() - start).toBeLessThan(500);
    expect(await reach.try([web, 7000], { protocol: "udp" })).toMatch(/^refused |^silent$/);
  });

  it("lets nothing through that it refuses", async () => {
    const from = internet.arrivals.length;
    await sandbox.setNetwork({ allow_net: [`${otherWeb}:7000`] });
    for (const protocol of ["tcp", "udp"] as const) await reach.opens([web, 7000], protocol);
    expect(internet.seen("", from)).toEqual([]);
  });
});

/** What the host has of its own: the policy engine does not know that, the firewall does. */
describe.skipIf(lacks("root"))("an address of the host's own", () => {
  it.each([
    { allow: null, reached: [] },
    { allow: ["0.0.0.0/0"], reached: [] },
    { allow: ["45.10.0.0/30"], reached: [] },
    { allow: ["45.10.0.2/31", "10.77.0.0/24"], reached: [] },
    { allow: [`${host}:${hostPort}`], reached: [`${host}:${hostPort}/tcp`] },
    { allow: [`${host}:${hostPort}/udp`], reached: [`${host}:${hostPort}/udp`] },
    {
      allow: [host],
      reached: [`${host}:${hostPort}/tcp`, `${host}:${hostPort}/udp`, `${host}:${otherHostPort}/tcp`],
    },
    { allow: [`${hostPrivate}:${hostPort}`], reached: [`${hostPrivate}:${hostPort}/tcp`] },
  ])("with $allow in the list is reached at $reached", async ({ allow, reached }) => {
    await sandbox.setNetwork({ allow_net: allow });
    const targets: Target[] = [
      [host, hostPort, "tcp"],
      [host, hostPort, "udp"],
      [host, otherHostPort, "tcp"],
      [hostPrivate, hostPort, "tcp"],
      [gateway, hostPort, "tcp"],
    ];
    const found = await Promise.all(
      targets.map(async ([address, port, protocol]) =>
        (await reach.opens([address, port], protocol)) ? [`${address}:${port}/${protocol}`] : [],
      ),
    );
    expect(found.flat()).toEqual(reached);
  });

  it("is reached by the host itself, so that what is refused is there", async () => {
    await using other = await Reach.from(squashd.netns);
    for (const address of [host, hostPrivate, gateway]) expect(await other.try([address, hostPort])).toBe("open");
  });
});
