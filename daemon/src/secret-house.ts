import { join } from "node:path";
import { SquashError, isSquashError } from "@squash/sdk/errors";
import type {
  AuthorityInfo,
  Health,
  SecretAuditEntry,
  SecretAuditQuery,
  SecretInfo,
  SecretList,
  SecretRequest,
} from "@squash/sdk/protocol";
import type { Config } from "./config.js";
import type { PlaneSecrets } from "./core/egress/plane.js";
import type { Emit } from "./core/events.js";
import { grantedNames } from "./core/secrets/grants.js";
import type { RotatedToken, Secret, SecretRule } from "./core/secrets/secret.js";
import type { TrustedAuthority } from "./core/secrets/trust.js";
import type { SecretUse } from "./core/secrets/secret-use.js";
import { auditPath, type UseFigures } from "./core/secrets/secret-uses.js";
import type { Authorities, SecretService } from "./core/service.js";
import { CertificateAuthority } from "./secrets/ca/certificate-authority.js";
import { KeptUses } from "./secrets/kept-uses.js";
import { SecretStore } from "./secrets/secret-store.js";
import { AuditLog } from "./store/audit-log.js";

/** so much of a text that a sandbox has chosen is kept */
const maxText = 256;

interface HouseOptions {
  readonly config: Config;
  readonly emit: Emit;
  /** told of failures that no caller learns of */
  readonly report: (error: unknown) => void;
}

/** What has to know the secrets, and which authorities' roots are trusted. */
export interface SecretUsers {
  setSecrets(secrets: PlaneSecrets): Promise<void>;
  /** Fingerprints of authorities that sandboxes trust. */
  trusted(): Iterable<string>;
}

interface Parts {
  readonly store: SecretStore;
  readonly uses: KeptUses;
  readonly log: AuditLog<SecretAuditEntry>;
  /** null where there is no network, or where it cannot be used */
  readonly authority: CertificateAuthority | null;
  /** thrown by whatever needs the authority */
  readonly noAuthority: SquashError;
}

/** The parts of secrets, connected: file, authority, figures, audit log. */
export class SecretHouse implements SecretService, Authorities {
  readonly #parts: Parts;
  readonly #emit: Emit;
  readonly #report: (error: unknown) => void;
  #users: SecretUsers | null = null;

  private constructor(parts: Parts, { emit, report }: Pick<HouseOptions, "emit" | "report">) {
    this.#parts = parts;
    this.#emit = emit;
    this.#report = report;
  }

  /** What cannot be used is reported, and squashd goes on without it: sandboxes are not to wait for a file that nobody mends. */
  static async open({ config, emit, report: reportFailure }: HouseOptions): Promise<SecretHouse> {
    const report = (error: unknown): void =>
      typeof error === "string" ? emit({ type: "secrets.problem", problem: error }) : reportFailure(error);
    const { dataDir, secretsKeyFile, subnet } = config;
    const keyFile = secretsKeyFile === "" ? null : secretsKeyFile;
    const store = await SecretStore.open({ path: join(dataDir, "secrets.json"), keyFile, report });
    const uses = await KeptUses.open(join(dataDir, "secret-uses.json"), report);
    const log = new AuditLog<SecretAuditEntry>(join(dataDir, "audit"), { name: "secrets.jsonl", report });
    let authority: CertificateAuthority | null = null;
    let noAuthority = new SquashError(
      "network_off",
      'There is no certificate authority: SQUASH_SUBNET is "none", so there is nothing that it is for',
    );
    if (subnet !== null)
      try {
        authority = await CertificateAuthority.open(join(dataDir, "proxy-ca"));
      } catch (error) {
        if (!isSquashError(error)) throw error;
        noAuthority = error;
        report(`${error.message}; until that is put right secrets are not put into what is encrypted`);
      }
    return new SecretHouse({ store, uses, log, authority, noAuthority }, { emit, report });
  }

  /** The authority that new roots are to trust; null for none. */
  get authority(): TrustedAuthority | null {
    return this.#parts.authority?.current ?? null;
  }

  /** Those of a sandbox's secrets that there are, by name. */
  granted(secrets: readonly string[] | null): readonly SecretRule[] {
    const known = new Map(this.#parts.store.secrets.map((secret) => [secret.name, secret]));
    return grantedNames({ secrets, ca: null }, new Set(known.keys())).flatMap((name) => known.get(name) ?? []);
  }

  get health(): Health["secrets"] {
    const { secrets, problem } = this.#parts.store;
    return { count: secrets.length, usable: problem === null };
  }

  /** Puts the secrets into force, and from now on whatever becomes of them. */
  async start(users: SecretUsers): Promise<void> {
    this.#users = users;
    await this.#parts.store.start((secrets) => this.#tell(secrets));
  }

  list(): SecretList {
    const { store, uses } = this.#parts;
    const secrets = store.secrets.map((secret) => secretInfo(secret, uses.figures.of(secret.name)));
    return { secrets, problem: store.problem };
  }

  async put(name: string, request: SecretRequest): Promise<SecretInfo> {
    const { store, uses } = this.#parts;
    return secretInfo(await store.put(name, { ...request }), uses.figures.of(name));
  }

  remove(name: string): Promise<void> {
    return this.#parts.store.remove(name);
  }

  rekey(): Promise<void> {
    return this.#parts.store.rekey();
  }

  audit({
    limit,
    sandbox,
    secret,
    verdict,
  }: SecretAuditQuery & { readonly limit: number }): Promise<SecretAuditEntry[]> {
    const matches = (entry: SecretAuditEntry): boolean =>
      (sandbox === undefined || entry.sandbox === sandbox) &&
      (secret === undefined || entry.secret === secret) &&
      (verdict === undefined || entry.verdict === verdict);
    return this.#parts.log.read(matches, limit);
  }

  /** Takes note of a use, or of a refusal. */
  used(use: SecretUse): void {
    const { store, uses, log } = this.#parts;
    const placeholders = store.secrets.filter(({ name }) => name === use.secret).map(({ placeholder }) => placeholder);
    uses.count(use);
    log.append(auditEntry(use, placeholders));
    this.#emit({ type: "secret.used", secret: use.secret, outcome: use.allowed ? "sent" : "refused" });
  }

  /** Keeps a refresh token for the next squashd. */
  rotated({ secret, before, after }: RotatedToken): void {
    this.#parts.store.replaceRefreshToken(secret, before, after).catch(this.#report);
  }

  current(): AuthorityInfo {
    const { authority, noAuthority } = this.#parts;
    if (authority === null) throw noAuthority;
    const { fingerprint, certificatePem, notAfter } = authority.current;
    return { fingerprint, certificate_pem: certificatePem, not_after: notAfter.toISOString() };
  }

  async rotate(): Promise<AuthorityInfo> {
    const { authority, noAuthority, store } = this.#parts;
    if (authority === null) throw noAuthority;
    await authority.rotate(this.#users?.trusted() ?? []);
    await this.#tell(store.secrets);
    return this.current();
  }

  async close(): Promise<void> {
    await this.#parts.store.close();
    await this.#parts.uses.close();
    await this.#parts.log.close();
  }

  async #tell(secrets: readonly Secret[]): Promise<void> {
    const { uses, authority } = this.#parts;
    uses.figures.keepOnly(new Set(secrets.map(({ name }) => name)));
    const authorities = (authority?.all() ?? []).map(({ fingerprint, certificatePem, keyPem }) => ({
      fingerprint,
      certificatePem,
      keyPem,
    }));
    await this.#users?.setSecrets({ secrets, authorities });
  }
}

function secretInfo({ oauth2, value: _, ...secret }: Secret, { uses, refusals, lastUsed }: UseFigures): SecretInfo {
  const { injectHeader, sigv4 } = secret;
  return {
    name: secret.name,
    placeholder: secret.placeholder,
    allowed_hosts: [...secret.allowedHosts],
    allowed_paths: secret.allowedPaths === null ? null : [...secret.allowedPaths],
    methods: secret.methods === null ? null : [...secret.methods],
    locations: [...secret.locations],
    inject_header: injectHeader === null ? null : { ...injectHeader },
    allow_plaintext: secret.allowPlaintext,
    elsewhere: secret.elsewhere,
    sigv4: sigv4 === null ? null : { secret_access_key: sigv4.secretAccessKey, session_token: sigv4.sessionToken },
    oauth2:
      oauth2 === null
        ? null
        : {
            token_url: oauth2.tokenUrl,
            client_id: oauth2.clientId,
            grant: oauth2.refreshToken === null ? "client_credentials" : "refresh_token",
            scope: oauth2.scope,
          },
    uses,
    refusals,
    last_used: lastUsed,
  };
}

function auditEntry({ allowed, ...use }: SecretUse, placeholders: readonly string[]): SecretAuditEntry {
  return {
    time: use.time,
    sandbox: use.sandbox,
    secret: use.secret,
    host: use.host.slice(0, maxText),
    method: use.method.slice(0, maxText),
    path: auditPath(use.path, placeholders),
    locations: [...use.locations],
    status: use.status,
    bytes: use.bytes,
    verdict: allowed ? "allowed" : "refused",
    reason: use.reason?.slice(0, maxText) ?? null,
  };
}
