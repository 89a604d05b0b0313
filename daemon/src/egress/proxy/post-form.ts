import { request } from "node:https";
import { isIP, type LookupFunction } from "node:net";
import type { Family } from "../../core/egress/address.js";
import type { EgressPolicy } from "../../core/egress/egress-policy.js";
import type { PostForm } from "../secrets/oauth2/token-request.js";
import type { Trusted } from "../tls/roots.js";
import type { Resolve } from "./dial.js";

const maxAnswerBytes = 256 * 1024;

export interface PostFormOptions {
  readonly resolve: Resolve;
  /** whether servers are tried by IPv6 as well */
  readonly ipv6?: boolean;
  /** which addresses may be connected to: those that are public, whatever sandboxes may reach */
  readonly policy: EgressPolicy;
  readonly trusted: Trusted;
  /** where servers listen, other than on their ports in tests */
  readonly portOf?: (port: number) => number;
}

/** Sends forms to servers of access tokens, on behalf of squashd itself, to public addresses only and no redirect after. */
export function postForm({
  resolve,
  ipv6 = false,
  policy,
  trusted,
  portOf = (port) => port,
}: PostFormOptions): PostForm {
  const families: readonly Family[] = ipv6 ? [4, 6] : [4];
  const resolved = async (name: string): Promise<string[]> => {
    const found = await Promise.allSettled(families.map((family) => resolve(name, family)));
    return found.flatMap((each) => (each.status === "fulfilled" ? each.value : []));
  };
  return (url, form, { headers, signal }) =>
    new Promise((done, fail) => {
      const { hostname, pathname, search, port } = new URL(url);
      const wanted = port === "" ? 443 : Number(port);
      const host = hostname.replace(/^\[|\]$/g, "");
      const isOpen = (address: string): boolean => policy.connectResolved(address, wanted, "tcp").allowed;
      // Node looks no address up
      if (isIP(host) !== 0 && !isOpen(host)) {
        fail(noAddress());
        return;
      }
      const lookup: LookupFunction = (name, _options, found) => {
        void resolved(name).then((addresses) => {
          const open = addresses.filter(isOpen).map((address) => ({ address, family: isIP(address) }));
          if (open.length === 0) found(noAddress(), []);
          else found(null, open);
        });
      };
      const outgoing = request(
        {
          ...{
            hostname: host,
            path: `${pathname}${search}`,
            port: portOf(wanted),
            method: "POST",
            headers,
            signal,
            lookup,
          },
          ...{
            secureContext: trusted(),
            servername: isIP(host) === 0 ? host : "",
            agent: false,
            minVersion: "TLSv1.2",
          },
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

function noAddress(): Error {
  return new Error("it has no public address");
}
