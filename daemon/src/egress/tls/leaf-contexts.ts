import { generateKeyPairSync } from "node:crypto";
import { createSecureContext, type SecureContext } from "node:tls";

/** contexts that are ready but for their certificate: what a page's hosts need at once */
const spare = 8;

/** What Node has within a context: what `createSecureContext` calls itself. Its types do not tell of it. */
interface Inner {
  readonly setCert?: (pem: string) => void;
}

/**
 * The contexts of leaf certificates, which share one key. OpenSSL takes longer to read that, anew for each context, than all else takes that a
 * certificate needs; so a few contexts have read it before they are asked for.
 */
export class LeafContexts {
  /** DER of a SubjectPublicKeyInfo */
  readonly publicKey: Uint8Array;
  readonly #key: string;
  readonly #create: typeof createSecureContext;
  readonly #ready: SecureContext[] = [];
  #making = false;

  /** @param create another one only in tests */
  constructor(create = createSecureContext) {
    this.#create = create;
    const { publicKey, privateKey } = generateKeyPairSync("ec", {
      namedCurve: "P-256",
      publicKeyEncoding: { type: "spki", format: "der" },
      privateKeyEncoding: { type: "pkcs8", format: "pem" },
    });
    this.publicKey = publicKey;
    this.#key = privateKey;
    this.#makeReady();
  }

  /** contexts that wait for a certificate */
  get ready(): number {
    return this.#ready.length;
  }

  /** @param certificate DER, of `publicKey` */
  make(certificate: Uint8Array): SecureContext {
    const cert = pemOf(certificate);
    const context = this.#ready.pop() ?? this.#keyed();
    this.#makeReady();
    const inner = context.context as Inner;
    // a Node.js that is made otherwise does all of it at once
    if (inner.setCert === undefined) return this.#create({ ...shared, key: this.#key, cert });
    inner.setCert(cert);
    return context;
  }

  #keyed(): SecureContext {
    return this.#create({ ...shared, key: this.#key });
  }

  /** One in each turn of the loop, in which there is time: whoever was given one waits for its client now. */
  #makeReady(): void {
    if (this.#making || this.#ready.length >= spare) return;
    this.#making = true;
    setImmediate(() => {
      this.#making = false;
      this.#ready.push(this.#keyed());
      this.#makeReady();
    }).unref();
  }
}

const shared = { minVersion: "TLSv1.2" } as const;

/** One pair for all leaves of a process: it is as short-lived as they are, and tells servers of nothing apart that the proxy is not. */
let made: LeafContexts | null = null;

export function leafContexts(): LeafContexts {
  return (made ??= new LeafContexts());
}

function pemOf(certificate: Uint8Array): string {
  const lines =
    Buffer.from(certificate)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}
