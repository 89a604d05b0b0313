import type { Socket } from "node:net";
import { connect, type SecureContext, type TLSSocket } from "node:tls";
import { carriedBy } from "./reset-socket.js";
import { waitingBytes } from "./streams.js";

/** A server that did not prove to be the one that was asked for. */
export class UntrustedServer extends Error {
  override readonly name = "UntrustedServer";
}

/** The server does not speak TLS as it must, or ended the connection instead. */
export class TlsFailed extends Error {
  override readonly name = "TlsFailed";
}

export interface SecureOptions {
  readonly name: string;
  /** in the order they are liked */
  readonly protocols: readonly string[];
  readonly trusted: SecureContext;
  readonly timeoutMs: number;
}

/** what OpenSSL and Node say of certificates, in words for who did not choose them */
const certificateFaults: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: "its certificate has expired",
  CERT_NOT_YET_VALID: "its certificate is not yet valid",
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is from an unknown authority",
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for another name",
  SELF_SIGNED_CERT_IN_CHAIN: "its certificate is from an unknown authority",
  UNABLE_TO_GET_ISSUER_CERT: "its certificate is from an unknown authority",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "its certificate is from an unknown authority",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "its certificate is from an unknown authority",
};

/** Speaks TLS to a server, which has to prove its name. Throws `UntrustedServer` or `TlsFailed`, and the socket is gone. */
export function secured(socket: Socket, { name, protocols, trusted, timeoutMs }: SecureOptions): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const tls = connect({
      ...{ socket, servername: name, secureContext: trusted, ALPNProtocols: [...protocols] },
      ...{ rejectUnauthorized: true, highWaterMark: waitingBytes },
      minVersion: "TLSv1.2",
    });
    carriedBy(tls, socket);
    const fail = (error: Error): void => {
      clearTimeout(timer);
      tls.destroy();
      socket.destroy();
      reject(error);
    };
    const timer = setTimeout(() => fail(new TlsFailed("no TLS in time")), timeoutMs);
    const lost = (): void => fail(new TlsFailed("the connection broke"));
    tls.once("error", (error: NodeJS.ErrnoException) => {
      const fault = certificateFaults[error.code ?? ""];
      const untrusted =
        fault ?? (/^(?:CERT_|CRL_|.*_CERT)/.test(error.code ?? "") ? "its certificate is not sound" : null);
      fail(untrusted === null ? new TlsFailed("it does not speak TLS as it must") : new UntrustedServer(untrusted));
    });
    tls.once("close", lost);
    tls.once("secureConnect", () => {
      clearTimeout(timer);
      tls.off("close", lost);
      tls.on("error", () => undefined); // "close" follows
      resolve(tls);
    });
  });
}
