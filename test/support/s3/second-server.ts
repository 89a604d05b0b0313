import { execFile, spawn, type ChildProcess } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { CreateBucketCommand } from "@aws-sdk/client-s3";
import { patience } from "../patience.js";
import { newCredentials, type S3Place } from "./s3-server.js";
import { sdkClient } from "./sdk-client.js";
import type { S3Credentials } from "./server/signature.js";

const run = promisify(execFile);
const commandTimeoutMs = 60_000 * patience;
const startTimeoutMs = 40_000 * patience;

/**
 * An S3 that others wrote: Ceph's gateway on a cluster of one monitor and one store in memory, on loopback and in a folder of its own. What holds
 * with it as well is not only what we believe of S3. Version 16 differs from AWS in that it takes no bodies with trailers (clients must have
 * `requestChecksumCalculation: "WHEN_REQUIRED"` for streams), takes `If-Match` of a write only without quotes, refuses it with 412 when there is
 * no object, and ignores conditions of CompleteMultipartUpload. Takes some seconds to start, and a multiple of the objects' size in memory.
 */
export class RadosGateway implements S3Place {
  readonly endpoint: string;
  readonly region = "us-east-1";
  readonly bucket = "test-bucket";
  readonly credentials: S3Credentials = newCredentials();
  readonly #folder: string;
  readonly #children: ChildProcess[] = [];

  private constructor(folder: string, port: number) {
    this.#folder = folder;
    this.endpoint = `http://127.0.0.1:${port}`;
  }

  static async start(): Promise<RadosGateway> {
    const folder = mkdtempSync(join(tmpdir(), "sqt-rgw-"));
    const [monitorPort, port] = await freePorts();
    const gateway = new RadosGateway(folder, port);
    try {
      await gateway.#start(monitorPort, port);
      return gateway;
    } catch (error) {
      await gateway[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Of the gateway's processes together, in bytes of memory. */
  get residentBytes(): number {
    const sizes = this.#children.map(({ pid = 0 }) => {
      const [, kilobytes = "0"] = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
      return Number(kilobytes) * 1_024;
    });
    return sizes.reduce((sum, size) => sum + size, 0);
  }

  async #start(monitorPort: number, port: number): Promise<void> {
    const folder = this.#folder;
    const [cluster, store] = [randomUUID(), randomUUID()];
    const [config, keyring, map] = ["ceph.conf", "keyring", "monmap"].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    for (const each of ["mon", "osd"]) mkdirSync(join(folder, each));
    writeFileSync(config, settings({ folder, cluster, monitorPort, port }));
    writeFileSync(keyring, keys(), { mode: 0o600 });
    const monitor = `[v2:127.0.0.1:${monitorPort}]`;
    await this.#run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", monitor, map);
    const make = ["-c", config, "--mkfs", "-i"];
    await Promise.all([
      this.#run("ceph-mon", ...make, "a", "--monmap", map, "--keyring", keyring),
      this.#run("ceph-osd", ...make, "0", "--osd-uuid", store, "--no-mon-config"),
    ]);
    this.#spawn("ceph-mon", "-c", config, "-f", "-i", "a");
    await this.#run("ceph", "-c", config, "--connect-timeout", "30", "osd", "new", store, "0");
    this.#spawn("ceph-osd", "-c", config, "-f", "-i", "0");
    const gatewayArgs = ["-c", config, "-n", "client.rgw"];
    this.#spawn("radosgw", ...gatewayArgs, "-f");
    await this.#listening();
    const { accessKeyId, secretAccessKey } = this.credentials;
    const user = [
      "--uid=test",
      "--display-name=test",
      `--access-key=${accessKeyId}`,
      `--secret-key=${secretAccessKey}`,
    ];
    await this.#run("radosgw-admin", ...gatewayArgs, "user", "create", ...user);
    const client = sdkClient(this);
    await client.send(new CreateBucketCommand({ Bucket: this.bucket }));
    client.destroy();
  }

  async #run(program: string, ...args: readonly string[]): Promise<void> {
    await run(program, args, { timeout: commandTimeoutMs });
  }

  /** It ends with this process, however that ends. */
  #spawn(program: string, ...args: readonly string[]): void {
    const child = spawn("setpriv", ["--pdeathsig", "KILL", program, ...args], { stdio: "ignore" });
    this.#children.push(child);
  }

  async #listening(): Promise<void> {
    const deadline = Date.now() + startTimeoutMs;
    for (;;) {
      const isUp = await fetch(this.endpoint).then(
        ({ ok }) => ok,
        () => false,
      );
      if (isUp) return;
      const dead = this.#children.find(({ exitCode, signalCode }) => exitCode !== null || signalCode !== null);
      if (dead !== undefined || Date.now() > deadline)
        throw new Error(`radosgw does not start${dead === undefined ? "" : `: ${dead.spawnargs.join(" ")} has ended`}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Kills it and removes its folder. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children.toReversed()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const gone = once(child, "exit");
      child.kill("SIGKILL");
      await gone;
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

interface Places {
  readonly folder: string;
  readonly cluster: string;
  readonly monitorPort: number;
  readonly port: number;
}

/** One copy of everything, in memory, and nothing outside the folder and loopback. */
function settings({ folder, cluster, monitorPort, port }: Places): string {
  return `[global]
fsid = ${cluster}
mon host = [v2:127.0.0.1:${monitorPort}/0]
ms bind ipv6 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = ${folder}/keyring
mon data = ${folder}/mon
osd data = ${folder}/osd
log file = ${folder}/$name.log
admin socket = ${folder}/$name.asok
pid file = ${folder}/$name.pid
run dir = ${folder}
crash dir = ${folder}
osd objectstore = memstore
memstore device bytes = 2147483648
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
rgw rados pool pg num min = 1
osd crush chooseleaf type = 0
osd crush initial weight = 1
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 0
mon data avail warn = 1
auth allow insecure global id reclaim = false
paxos propose interval = 0.05
paxos min wait = 0.02
rgw frontends = beast endpoint=127.0.0.1:${port}
`;
}

/** Keys of the cluster's parts, as ceph-authtool writes them: type, time and length, then the key. */
function keys(): string {
  const head = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0]);
  const entry = (name: string, ...caps: readonly string[]): string =>
    [`[${name}]`, `key = ${Buffer.concat([head, randomBytes(16)]).toString("base64")}`, ...caps].join("\n\t");
  const all = ["mon", "osd", "mgr"].map((of) => `caps ${of} = "allow *"`);
  const store = ['caps mon = "allow profile osd"', 'caps osd = "allow *"'];
  return `${[entry("mon.", ...all), entry("client.admin", ...all), entry("client.rgw", ...all), entry("osd.0", ...store)].join("\n")}\n`;
}

/** Two ports that nobody has right now. */
async function freePorts(): Promise<[number, number]> {
  const servers = [createServer(), createServer()];
  const ports = await Promise.all(
    servers.map(async (server) => {
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
      return (server.address() as AddressInfo).port;
    }),
  );
  for (const server of servers) server.close();
  const [first = 0, second = 0] = ports;
  return [first, second];
}
