import { request } from "node:https";
import type { LookupFunction } from "node:net";
import type { EgressPolicy } from "../../core/egress/egress-policy.js";
import type { PostForm } from "../secrets/oauth2/token-request.js";
import type { Trusted } from "../tls/roots.js";
import type { Resolve } from "./dial.js";

const maxAnswerBytes = 256 * 1024;

export interface PostFormOptions {
  readonly resolve: Resolve;
  /** which addresses may be connected to: those that are public, whatever sandboxes may reach */
  readonly policy: EgressPolicy;
  readonly trusted: Trusted;
  /** where servers listen, other than on their ports in tests */
  readonly portOf?: (port: number) => number;
}

/** Sends forms to servers of access tokens, on behalf of squashd itself, to public addresses only and no redirect after. */
export function postForm({ resolve, policy, trusted, portOf = (port) => port }: PostFormOptions): PostForm {
  return (url, form, { headers, signal }) =>
    new Promise((done, fail) => {
      const { hostname, pathname, search, port } = new URL(url);
      const wanted = port === "" ? 443 : Number(port);
      const lookup: LookupFunction = (name, _options, found) => {
        resolve(name, 4).then(
          (addresses) => {
            const open = addresses.filter((address) => policy.connectResolved(address, wanted, "tcp").allowed);
            if (open.length === 0) found(new Error("it has no public address"), []);
            else
              found(
                null,
                open.map((address) => ({ address, family: 4 })),
              );
          },
          (error: Error) => found(error, []),
        );
      };
      const outgoing = request(
        {
          ...{ hostname, path: `${pathname}${search}`, port: portOf(wanted), method: "POST", headers, signal, lookup },
          ...{ secureContext: trusted(), servername: hostname, agent: false, minVersion: "TLSv1.2" },
        },
        (answer) => {
          const chunks: Buffer[] = [];
          let size = 0;
          answer.on("data", (chunk: Buffer) => {
            size += chunk.length;
            if (size > maxAnswerBytes) outgoing.destroy(new Error("its answer is too long"));
            else chunks.push(chunk);
          });
          answer.on("error", fail);
          answer.on("end", () => done({ status: answer.statusCode ?? 0, body: Buffer.concat(chunks).toString() }));
        },
      );
      outgoing.on("error", fail);
      outgoing.end(form);
    });
}
