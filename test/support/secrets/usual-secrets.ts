import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { real } from "./server.js";

/** One secret as the file has it. */
export type WrittenSecret = Readonly<Record<string, unknown>> & {
  readonly placeholder: string;
  readonly value?: string;
};
export type WrittenSecrets = Readonly<Record<string, WrittenSecret>>;

const hosts = ["api.example.com", "h1.example.com", "hostile.example.com"];
const everywhere = ["*.example.com", "*.example.net"];

/** What most files of tests work with. `LOOSE` may go where the others may not, to show that what is tried would get there. */
export const usualSecrets = {
  TOKEN: {
    placeholder: "placeholder-of-the-token",
    value: "real-token-4f9a71c2e8d04b",
    allowed_hosts: [...hosts, "*.bad.example.com"],
  },
  LOOSE: {
    placeholder: "placeholder-that-may-go-anywhere",
    value: "loose-token-77e1d0",
    allowed_hosts: everywhere,
    locations: ["header", "basic", "query", "body", "websocket"],
    allow_plaintext: true,
  },
  PATHED: {
    placeholder: "placeholder-for-one-path-only",
    value: "real-pathed-55aa0c",
    allowed_hosts: hosts,
    allowed_paths: ["/record"],
    methods: ["GET"],
  },
  BODY: {
    placeholder: "placeholder-for-bodies",
    value: 'real-"body"-value\\with &=all/of it',
    allowed_hosts: hosts,
    locations: ["body", "query"],
  },
  SOCKET: {
    placeholder: "placeholder-for-web-sockets",
    value: "real-socket-value-which-is-a-good-deal-longer-than-what-stands-for-it",
    allowed_hosts: hosts,
    locations: ["websocket"],
  },
  PASSWORD: { placeholder: "placeholder-of-a-password", value: real.password, allowed_hosts: hosts },
} as const satisfies WrittenSecrets;

/** Puts the file in place as an editor does, in one step. */
export function writeSecrets(dataDir: string, secrets: WrittenSecrets): void {
  const path = join(dataDir, "secrets.json");
  writeFileSync(`${path}.new`, JSON.stringify({ secrets }), { mode: 0o600 });
  renameSync(`${path}.new`, path);
}
