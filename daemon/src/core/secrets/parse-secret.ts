import { hostName } from "../egress/host-name.js";
import {
  defaultLocations,
  secretLocations,
  type OAuth2Grant,
  type Secret,
  type SecretLocation,
  type SecretRule,
} from "./secret.js";
import { SecretFields } from "./secret-fields.js";
import { checkSecretName } from "./secret-name.js";

/** A secret as somebody wrote it: its placeholder may be missing, and stand as `{placeholder}` in the header that is injected. */
export type WrittenSecret = Omit<Secret, "placeholder"> & { readonly placeholder: string | null };

/** Bounds that the file, the API and the documentation share. */
export const secretBounds = {
  count: 1_000,
  valueBytes: { min: 4, max: 65_536 },
  placeholder: { min: 8, max: 4_096 },
  hosts: 256,
  paths: 64,
  pathLength: 1_024,
  methods: 16,
  headerValue: 8_192,
  text: 4_096,
} as const;

/** stands for the placeholder in a header's value, where that is not known yet */
export const placeholderMark = "{placeholder}";

const token = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$/;
const placeholderText = /^[\x21\x23-\x26\x28-\x5b\x5d-\x5f\x61-\x7e]*$/;
/** of the connection or of the framing, which are the proxy's, or what says where the request goes */
const notInjectable =
  /^(host|connection|content-length|transfer-encoding|te|trailer|upgrade|keep-alive|expect|content-encoding|accept-encoding|proxy-.*|sec-websocket-.*|:.*)$/i;

/** Reads one secret in the form of the file and of the API. Throws `invalid_request` that names the secret and the field. */
export function parseSecret(name: string, written: unknown): WrittenSecret {
  checkSecretName(name);
  const fields = new SecretFields(name, written);
  const oauth2 = oauth2Of(fields.object("oauth2"));
  const locations = locationsOf(fields);
  const injectHeader = injectHeaderOf(fields.object("inject_header"));
  if (locations.length === 0 && injectHeader === null)
    fields.fail("locations", "must not be empty, unless there is an inject_header");
  const secret: WrittenSecret = {
    name,
    placeholder: placeholderOf(fields),
    value: valueOf(fields, oauth2 !== null, [...locations, ...(injectHeader === null ? [] : ["header"])]),
    allowedHosts: hostsOf(fields),
    allowedPaths: pathsOf(fields),
    methods: methodsOf(fields),
    locations,
    injectHeader,
    allowPlaintext: fields.flag("allow_plaintext") ?? false,
    elsewhere: elsewhereOf(fields),
    sigv4: sigv4Of(fields.object("sigv4")),
    oauth2,
  };
  if (secret.sigv4 !== null && oauth2 !== null) fields.fail("oauth2", "cannot go with sigv4");
  fields.end();
  return secret;
}

/** Its form in the file: what is as usual is left out. */
export function writeSecret({ name: _, value, injectHeader, sigv4, oauth2, ...rule }: Secret): Record<string, unknown> {
  const isUsual = rule.locations.join() === defaultLocations.join();
  return {
    ...(oauth2 === null && { value }),
    placeholder: rule.placeholder,
    allowed_hosts: rule.allowedHosts,
    ...(rule.allowedPaths !== null && { allowed_paths: rule.allowedPaths }),
    ...(rule.methods !== null && { methods: rule.methods }),
    ...(!isUsual && { locations: rule.locations }),
    ...(injectHeader !== null && { inject_header: injectHeader }),
    ...(rule.allowPlaintext && { allow_plaintext: true }),
    ...(rule.elsewhere !== "refuse" && { elsewhere: rule.elsewhere }),
    ...(sigv4 !== null && {
      sigv4: {
        secret_access_key: sigv4.secretAccessKey,
        ...(sigv4.sessionToken !== null && { session_token: sigv4.sessionToken }),
      },
    }),
    ...(oauth2 !== null && {
      oauth2: {
        token_url: oauth2.tokenUrl,
        client_id: oauth2.clientId,
        ...(oauth2.clientSecret !== null && { client_secret: oauth2.clientSecret }),
        ...(oauth2.refreshToken !== null && { refresh_token: oauth2.refreshToken }),
        ...(oauth2.scope !== null && { scope: oauth2.scope }),
      },
    }),
  };
}

function placeholderOf(fields: SecretFields): string | null {
  const placeholder = fields.text("placeholder");
  const { min, max } = secretBounds.placeholder;
  if (placeholder === null) return null;
  if (placeholder.length < min || placeholder.length > max)
    fields.fail("placeholder", `must be ${min} to ${max} characters`);
  if (!placeholderText.test(placeholder))
    fields.fail("placeholder", "must be printable ASCII without spaces, quotes and backslashes");
  return placeholder;
}

function valueOf(fields: SecretFields, isFetched: boolean, locations: readonly string[]): string {
  const value = fields.text("value") ?? "";
  if (isFetched)
    return value === "" ? value : fields.fail("value", "must be absent where there is oauth2, which gets it");
  const bytes = Buffer.byteLength(value);
  const { min, max } = secretBounds.valueBytes;
  if (value === "") fields.fail("value", "is required");
  if (bytes < min || bytes > max) fields.fail("value", `must be ${min} to ${max} bytes`);
  if (Buffer.from(value).toString() !== value) fields.fail("value", "must be valid UTF-8");
  if (value.includes("\0")) fields.fail("value", "must not contain a zero character");
  if (locations.includes("header") && Array.from(value).some(isControl))
    fields.fail(
      "value",
      "has a line break or another control character, which a header cannot carry; take it away, or give locations without header",
    );
  return value;
}

function isControl(character: string): boolean {
  return (character < " " && character !== "\t") || character === "\x7f";
}

function hostsOf(fields: SecretFields): string[] {
  const hosts = fields.texts("allowed_hosts") ?? fields.fail("allowed_hosts", "is required; [] lets it go nowhere");
  if (hosts.length > secretBounds.hosts) fields.fail("allowed_hosts", `must be at most ${secretBounds.hosts} names`);
  return [...new Set(hosts.map((host, at) => hostOf(fields, host, at)))];
}

function hostOf(fields: SecretFields, host: string, at: number): string {
  const isWildcard = host.startsWith("*.");
  const name = hostName(isWildcard ? host.slice(2) : host);
  const which = `has, at ${at + 1},`;
  if (name === null)
    fields.fail("allowed_hosts", `${which} no host name or *.name; addresses, ports and URLs cannot be said`);
  if (!name.includes(".") && isWildcard)
    fields.fail("allowed_hosts", `${which} a wildcard for a whole top-level domain; name the domain below it`);
  return isWildcard ? `*.${name}` : name;
}

function pathsOf(fields: SecretFields): readonly string[] | null {
  const paths = fields.texts("allowed_paths");
  if (paths === null) return null;
  const { paths: max, pathLength } = secretBounds;
  if (paths.length === 0 || paths.length > max)
    fields.fail("allowed_paths", `must be 1 to ${max} paths, or absent for all`);
  for (const path of paths)
    if (!/^\/[\x21\x22\x24-\x3e\x40-\x7e]*$/.test(path) || path.length > pathLength || hasDots(path))
      fields.fail(
        "allowed_paths",
        `must be prefixes such as /v1, of printable ASCII and at most ${pathLength} characters, without ?, # and dots as segments`,
      );
  return [...new Set(paths)];
}

function hasDots(path: string): boolean {
  return path.split("/").some((segment) => segment === "." || segment === "..");
}

function methodsOf(fields: SecretFields): readonly string[] | null {
  const methods = fields.texts("methods")?.map((method) => method.toUpperCase());
  if (methods === undefined) return null;
  if (methods.length === 0 || methods.length > secretBounds.methods)
    fields.fail("methods", `must be 1 to ${secretBounds.methods} methods, or absent for all`);
  if (!methods.every((method) => token.test(method) && method !== "CONNECT"))
    fields.fail("methods", "must be methods of HTTP such as GET, and not CONNECT");
  return [...new Set(methods)];
}

function locationsOf(fields: SecretFields): readonly SecretLocation[] {
  const locations = fields.texts("locations");
  if (locations === null) return defaultLocations;
  if (!locations.every((location) => secretLocations.some((known) => known === location)))
    fields.fail("locations", `must be among ${secretLocations.join(", ")}`);
  return secretLocations.filter((known) => locations.includes(known));
}

function injectHeaderOf(fields: SecretFields | null): SecretRule["injectHeader"] {
  if (fields === null) return null;
  const [name, value] = [fields.requiredText("name"), fields.requiredText("value")];
  if (!token.test(name)) fields.fail("name", "must be a header's name");
  if (notInjectable.test(name)) fields.fail("name", "must not be that of a header which belongs to the connection");
  if (!/^[\x20-\x7e]*$/.test(value) || value.length > secretBounds.headerValue || value.trim() !== value)
    fields.fail("value", `must be printable ASCII, at most ${secretBounds.headerValue} characters`);
  fields.end();
  return { name, value };
}

function elsewhereOf(fields: SecretFields): SecretRule["elsewhere"] {
  const elsewhere = fields.text("elsewhere") ?? "refuse";
  if (elsewhere !== "refuse" && elsewhere !== "pass") fields.fail("elsewhere", "must be refuse or pass");
  return elsewhere;
}

function sigv4Of(fields: SecretFields | null): SecretRule["sigv4"] {
  if (fields === null) return null;
  const found = {
    secretAccessKey: fields.requiredText("secret_access_key"),
    sessionToken: fields.text("session_token"),
  };
  fields.end();
  return found;
}

function oauth2Of(fields: SecretFields | null): OAuth2Grant | null {
  if (fields === null) return null;
  const found = {
    tokenUrl: tokenUrlOf(fields),
    clientId: fields.requiredText("client_id"),
    clientSecret: fields.text("client_secret"),
    refreshToken: fields.text("refresh_token"),
    scope: fields.text("scope"),
  };
  const { text } = secretBounds;
  for (const field of ["client_id", "client_secret", "refresh_token", "scope"]) {
    const value = fields.text(field);
    if (value !== null && !(/^[\x20-\x7e]+$/.test(value) && value.length <= text))
      fields.fail(field, `must be printable ASCII, 1 to ${text} characters`);
  }
  if (found.clientSecret === null && found.refreshToken === null)
    fields.fail("client_secret", "is required where there is no refresh_token");
  fields.end();
  return found;
}

function tokenUrlOf(fields: SecretFields): string {
  const text = fields.requiredText("token_url");
  const url = URL.canParse(text) ? new URL(text) : null;
  const isGood = url?.protocol === "https:" && url.username === "" && url.password === "" && url.hash === "";
  if (!isGood || text.length > secretBounds.text)
    fields.fail("token_url", "must be an https URL without user name, password and fragment");
  return url.href;
}
