import type { CreateOptions, Sandbox } from "@squash/sdk";
import type { TestInternet } from "../internet.js";
import { useOnline } from "../online.js";
import type { TestSquashd } from "../squashd.js";
import { testAuthority } from "./authority.js";
import { clientBase, ensureClientBase } from "./client-base.js";
import { SecretServer } from "./server.js";
import { usualSecrets, writeSecrets, type WrittenSecrets } from "./usual-secrets.js";

/** A squashd in an internet with the servers that secrets are for, and a base with clients. */
export interface SecretTarget {
  readonly squashd: TestSquashd;
  readonly internet: TestInternet;
  readonly server: SecretServer;
  /** makes a sandbox of the base with clients */
  create(options?: CreateOptions): Promise<Sandbox>;
}

export interface SecretTargetOptions {
  /** further settings of squashd */
  readonly env?: Readonly<Record<string, string>>;
  /** puts further modules into its folder */
  readonly modules?: (folder: string) => void;
}

/** Prepares it before the file's tests; after them everything must be gone from the host. */
export function useSecrets(
  secrets: WrittenSecrets = usualSecrets,
  { env = {}, modules = () => undefined }: SecretTargetOptions = {},
): SecretTarget {
  let server: SecretServer | undefined;
  const authority = testAuthority();
  const { squashd, internet } = useOnline({
    env: { SQUASH_EXTRA_CA_FILE: authority.file, ...env },
    async prepare({ home, dataDir }) {
      ensureClientBase(`${dataDir}/modules`, authority.cert);
      modules(`${dataDir}/modules`);
      writeSecrets(dataDir, secrets);
      return (server = await SecretServer.start(internet, home));
    },
  });
  return {
    squashd,
    internet,
    get server() {
      if (server === undefined) throw new Error("the server was not started");
      return server;
    },
    create: (options = {}) => squashd.client.create({ layers: [clientBase], ...options }),
  };
}
